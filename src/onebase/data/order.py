"""The order of training: which rows each step reads.

A pure function of (seed, fingerprint of the rows, step) and of the plan's sizes. It has no state, so a resumed run continues exactly where
it was, and ranks only split the result of `rows`. A permutation is drawn once an epoch (`draws`, by algorithms that no library version
changes); the cost of a step then depends on its own rows only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onebase.draws import permutation
from onebase.errors import ConfigError
from onebase.modality.text.sample import Tokens

T = TypeVar("T")
Row = Sequence[Tokens]
"""The content of one row of a batch: packed pieces, one text, or the texts of a pair."""


class Order(Protocol):
    """Rows by step: packed pieces (`RowPlan`), texts and pairs (`ExampleOrder`), mixtures (`MixedOrder`), or completions generated with the
    current weights (`tasks.rollouts`). An order whose rows depend on the weights sets `ahead = False`; its rows are read when the step begins."""

    @property
    def digest(self) -> str:
        """Content hash of everything the order depends on: equal digests give equal rows at every step."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows of a step; the last step may have fewer."""
        ...

    @property
    def total(self) -> int | None:
        """Rows of all steps; None if the order has no end."""
        ...

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        ...

    def rows(self, step: int) -> Sequence[Row]:
        """The global batch of a step; empty after the end."""
        ...


def steps_of(total: int | None, per_step: int, least: int = 1) -> int:
    """Steps for `total` rows. A remainder of fewer than `least` rows joins the step before it, if there is one."""
    assert total is not None, "an order without an end has no number of steps"
    whole, rest = divmod(total, per_step)
    return whole + (rest > 0 and (rest >= least or not whole))


def span(step: int, per_step: int, total: int | None, least: int = 1) -> range:
    """Numbers of the rows of a step; empty after the end. total: None for an order without an end."""
    first = step * per_step
    if total is None:
        return range(first, first + per_step)
    steps = steps_of(total, per_step, least)
    return range(first, total if step == steps - 1 else first + per_step) if step < steps else range(0)


def split(rows: Sequence[T], rank: int, world: int) -> Sequence[T]:
    """The contiguous share of one rank; shares differ by at most one row."""
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} of {world}", "give a rank from 0 to world - 1")
    return rows[len(rows) * rank // world : len(rows) * (rank + 1) // world]


@dataclass(frozen=True)
class ExampleOrder:
    """Every example once an epoch, `batch_size` a step, each epoch in a new order. An example is one text or several; the order depends on the
    first texts.

    epochs: number of epochs (None: no end); the last step may be shorter. least: rows that a step needs to train on; a smaller remainder joins
    the step before it. alike: sort the examples of a step by length, so that micro-batches have less padding.
    """

    examples: Sequence[Row]
    batch_size: int
    seed: int = 0
    epochs: int | None = None
    least: int = 1
    alike: bool = False

    @property
    def total(self) -> int | None:
        """Rows of all epochs; None if there is no end."""
        return None if self.epochs is None else self.epochs * len(self.examples)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return steps_of(self.total, self.batch_size, self.least)

    @cached_property
    def digest(self) -> str:
        """Content hash of all texts, in order, and of how orders are drawn: a run with another order is not resumed."""
        return _hash(text for example in self.examples for text in example)

    @cached_property
    def _key(self) -> str:
        return f"{self.seed}:{_hash(example[0] for example in self.examples)}"

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch, drawn on first use. Two are cached: a step may span two."""
        order = self._kept.get(epoch)
        if order is None:
            order = self._kept[epoch] = permutation(self._key, epoch, len(self.examples))
            for old in list(self._kept)[:-2]:
                self._kept.pop(old, None)  # the loop reads in a thread of its own
        return order

    def numbers(self, step: int) -> list[int]:
        """Numbers of the examples in the batch of a step, which may span two epochs; empty after the end."""
        n = len(self.examples)
        each = span(step, self.batch_size, self.total, self.least)
        return [int(self._epoch(i // n)[i % n]) for i in each]

    def rows(self, step: int) -> list[Row]:
        """The examples of a step."""
        rows = [self.examples[i] for i in self.numbers(step)]
        return sorted(rows, key=lambda row: sum(map(len, row))) if self.alike else rows


def one_by_one(texts: Iterable[Tokens]) -> list[Row]:
    """Each text as an example of its own."""
    return [(t,) for t in texts]


def _hash(texts: Iterable[Tokens]) -> str:
    state = hashlib.sha256(b"onebase.draws\0")
    for t in texts:
        state.update(t.id.encode() + b"\0" + t.ids.astype("<i4").tobytes() + t.loss.tobytes() + b"\1")
        if t.windows:
            state.update(repr(t.windows).encode())
        for m in t.media:
            state.update(f"{m.kind}:{m.start}:{m.noise}:{m.content.digest}".encode())
    return state.hexdigest()
