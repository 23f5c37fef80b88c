"""Hugging Face folders in and out: a base, its tokenizer, and what stands beside them."""
