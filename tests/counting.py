"""What real work does again: texts tokenised, tokens decoded, files opened, each counted by what does it."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from onebase.modality.text import Tokenizer


@dataclass
class Work:
    """What was tokenised and which files were opened, how often each; and how many tokens were made text again."""

    texts: Counter[str] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    decoded: int = 0

    def numbers(self, first: int, rows: int) -> Counter[str]:
        """Of texts that name one of these rows, how often each was tokenised."""
        mine = range(first, first + rows)
        return Counter(
            {
                t: n
                for t, n in self.texts.items()
                if len(t) < 20 and any(int(d) in mine for d in re.findall(r"\d+", t))
            }
        )


class Counting:
    """The library's tokenizer, which notes what it is given."""

    def __init__(self, inner: Any, heard: Counter[str]) -> None:
        self.inner, self.heard = inner, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode(self, text: str, *rest: Any, **how: Any) -> Any:
        self.heard[text] += 1
        return self.inner.encode(text, *rest, **how)

    def encode_batch_fast(self, texts: list[str], *rest: Any, **how: Any) -> Any:
        self.heard.update(texts)
        return self.inner.encode_batch_fast(texts, *rest, **how)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """Inside, all is counted."""
    inner, following, decode = Tokenizer.inner.fget, Tokenizer._following, Tokenizer.decode  # type: ignore[attr-defined]
    opened, parquet = Path.open, pq.ParquetFile
    done = Work()

    def decoded(self: Tokenizer, ids: Any, **how: Any) -> str:
        done.decoded += len(ids)
        return decode(self, ids, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "_following", lambda self, f: Counting(following(self, f), done.texts))
        patch.setattr(Tokenizer, "inner", property(lambda self: Counting(inner(self), done.texts)))
        patch.setattr(Tokenizer, "decode", decoded)
        patch.setattr(
            Path, "open", lambda self, *a, **k: done.files.update([self.name]) or opened(self, *a, **k)
        )
        patch.setattr(pq, "ParquetFile", lambda p, **k: done.files.update([p.name]) or parquet(p, **k))
        yield done
