"""Codecs: the only code that knows a modality: raw data to spans and model input, hidden states to data."""
