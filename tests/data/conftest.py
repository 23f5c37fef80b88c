from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebase.data import Dataset, Document, prepare
from onebase.modality.text import Tokenizer

Docs = Callable[..., Iterator[Document]]


def some(n: int = 120) -> Iterator[Document]:
    for i in range(n):
        yield Document(
            f"document {i} " + "word " * (i % 40), "a" if i % 3 else "b", "MIT" if i % 3 else "BSD", f"{i}"
        )


@pytest.fixture(scope="session")
def documents() -> Docs:
    """Makes the first n of a fixed series of documents."""
    return some


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return prepare(some(), tmp_path / "set", holdout=0.2, shard_bytes=3000)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train((d.text for d in some()), 300)
