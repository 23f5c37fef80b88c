"""Fetches bases, adapters and datasets by name from the Hugging Face Hub."""
