"""GGUF, the format of llama.cpp: opened strictly, tensors decoded as they are placed, tokenizer and chat template out of the file."""

from onebase.formats.gguf.base import is_gguf, open_base, write_base
from onebase.formats.gguf.open import Opened, open_gguf
from onebase.formats.gguf.write import WeightKind, save_gguf

__all__ = ["Opened", "WeightKind", "is_gguf", "open_base", "open_gguf", "save_gguf", "write_base"]
