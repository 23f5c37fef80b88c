"""Reads and writes GGUF, the format of llama.cpp: strict checks, tensors decoded while loading, tokenizer and chat template from the file."""

from onebase.formats.gguf.base import open_base, write_base
from onebase.formats.gguf.open import OpenedGGUF, open_gguf
from onebase.formats.gguf.write import WeightKind, save_gguf
from onebase.formats.recognise import is_gguf

__all__ = ["OpenedGGUF", "WeightKind", "is_gguf", "open_base", "open_gguf", "save_gguf", "write_base"]
