"""Pipelines of diffusers that draw with a transformer: opened and written."""
