"""Codecs, the only code that knows a modality: raw data to model input, hidden states to data."""
