from __future__ import annotations

import pytest

from onebase.modality.text import TextCodec, Tokenizer

WORDS = "the quick brown fox jumps over a lazy dog while 1234 birds sing; def run(self): return self.value\n"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([WORDS * 20, "héllo wörld 中文 😀 " * 20], 400)


@pytest.fixture(scope="session")
def codec(tokenizer: Tokenizer) -> TextCodec:
    return TextCodec(tokenizer)
