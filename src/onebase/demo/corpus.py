"""The demo's corpus: the pretraining documents, and the chats and modules that are held out for the tasks."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from onebase.data.sources import Document
from onebase.demo.library import modules, reference
from onebase.demo.sources import Chat, chats, dialogue, share

_TEST_CHATS, _POOL_CHATS = (
    0.06,
    0.12,
)  # shares of the chats: below the first test, below the second labels for training
_DOCSTRING_TEST, _TEST_TOP_MAX = 400, 70
_HELD_OUT_CHARS = {"dialogue": 150_000, "code": 100_000, "prose": 50_000}


@dataclass(frozen=True)
class Corpus:
    """The pretraining documents, and a sample of the chats and modules that are held out for the tasks.

    meta["split"] of each document is "train" or "holdout"; `onebase.data.prepare` uses it.
    """

    pretrain: tuple[Document, ...]
    held_out: tuple[Document, ...]

    def documents(self) -> tuple[Document, ...]:
        """Both parts, for `prepare`."""
        return self.pretrain + self.held_out


def corpus(
    seed: int = 0,
    *,
    dialogue_chars: int = 7_000_000,
    code_chars: int = 7_000_000,
    prose_chars: int = 1_500_000,
) -> Corpus:
    """The documents, with at most the given characters of each source for pretraining, in an order that depends on the seed alone.

    Raises UserError when the demo's packages are not installed.
    """
    tests = held_out_modules(seed)
    by_source = {
        "dialogue": ([dialogue(c) for c in chats() if side(seed, c) == "pretrain"], dialogue_chars),
        "code": ([d for m in modules() if m.top not in tests for d in m.code], code_chars),
        "prose": (
            [d for m in modules() if m.top not in tests for d in m.prose] + list(reference()),
            prose_chars,
        ),
    }
    held_sources = {
        "dialogue": [dialogue(c) for c in chats() if side(seed, c) == "test"],
        "code": [d for m in modules() if m.top in tests for d in m.code],
        "prose": [d for m in modules() if m.top in tests for d in m.prose],
    }
    pretrain = [
        d for documents, budget in by_source.values() for d in _take(seed, documents, budget, "train")
    ]
    held_out = [
        d
        for name, documents in held_sources.items()
        for d in _take(seed, documents, _HELD_OUT_CHARS[name], "holdout")
    ]
    return Corpus(tuple(pretrain), tuple(held_out))


@functools.lru_cache(maxsize=4)
def held_out_modules(seed: int) -> frozenset[str]:
    """Top-level modules held out for the docstring test: drawn until they have 400 functions, none with more than 70."""
    count: dict[str, int] = defaultdict(int)
    for m in modules():
        count[m.top] += len(m.functions)
    chosen: set[str] = set()
    for top in sorted(count, key=lambda t: share(seed, "top " + t)):
        if sum(count[t] for t in chosen) >= _DOCSTRING_TEST:
            break
        if 0 < count[top] <= _TEST_TOP_MAX:
            chosen.add(top)
    return frozenset(chosen)


def side(seed: int, chat: Chat) -> Literal["test", "pool", "pretrain"]:
    x = share(seed, "chat " + chat.id)
    return "test" if x < _TEST_CHATS else "pool" if x < _POOL_CHATS else "pretrain"


def _take(seed: int, documents: Iterable[Document], budget: int, split: str) -> list[Document]:
    """Documents in the order of their shares, at most `budget` characters; one that would exceed it is skipped."""
    out, used = [], 0
    for d in sorted(documents, key=lambda d: share(seed, "document " + d.id)):
        if used + len(d.text) <= budget:
            used += len(d.text)
            out.append(replace(d, meta={**d.meta, "split": split}))
    return out
