"""Resolves names, and opens bases and adapters in our formats and in others."""
