"""Reads and writes Hugging Face folders: a base, its tokenizer, and their other files."""
