"""The order of training: which rows stand in which step.

A pure function of (seed, fingerprint of the rows, step) and of the plan's sizes; nothing is remembered, so
a resumed run goes on exactly where it was, and workers and ranks only share out what `rows` says. A permutation is
made once an epoch (`draws`, by algorithms that no library version changes); a step then takes the time of its own rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from onebase.codec.text.sample import Tokens
from onebase.draws import permutation
from onebase.errors import ConfigError

T = TypeVar("T")
Row = Sequence[Tokens]
"""What one line of a batch is made of: packed pieces, one text, or the texts of a pair."""


class Order(Protocol):
    """Rows by step. Packed pieces (`RowPlan`), texts and pairs (`ExampleOrder`), mixtures (`MixedOrder`), and completions that the present
    weights write (`tasks.rollouts`): one whose rows depend on the weights says `ahead = False`, and is asked when the step begins."""

    @property
    def digest(self) -> str:
        """Content hash of all that the order depends on: equal digests, equal rows at every step."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows of a step; the last one may have fewer."""
        ...

    @property
    def total(self) -> int | None:
        """Rows of all steps; None where there is no end."""
        ...

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        ...

    def rows(self, step: int) -> Sequence[Row]:
        """The global batch of a step; behind the end there is none."""
        ...


def steps_of(total: int | None, per_step: int, least: int = 1) -> int:
    """Steps that hold `total` rows. A rest of fewer than `least` rows is no step of its own where there is one before it."""
    assert total is not None, "an order without an end has no number of steps"
    whole, rest = divmod(total, per_step)
    return whole + (rest > 0 and (rest >= least or not whole))


def span(step: int, per_step: int, total: int | None, least: int = 1) -> range:
    """Numbers of the rows of a step; none behind the end. total: None for a stream without one."""
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
    """Every example once an epoch, `batch_size` a step, each epoch in an order of its own. An example is one text or several; the order
    hangs on the first texts.

    epochs: it ends with the last example of so many (None: it has no end), its last step perhaps shorter. least: rows without which a step
    teaches nothing; a rest of fewer joins the step before it. alike: within a step examples of like lengths stand together, so that less of
    a micro-batch is padding.
    """

    examples: Sequence[Row]
    batch_size: int
    seed: int = 0
    epochs: int | None = None
    least: int = 1
    alike: bool = False

    @property
    def total(self) -> int | None:
        """Rows of all epochs; None where there is no end."""
        return None if self.epochs is None else self.epochs * len(self.examples)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return steps_of(self.total, self.batch_size, self.least)

    @cached_property
    def digest(self) -> str:
        """Content hash of all texts, in order, and of how orders are drawn: a run that began by another way is not gone on with."""
        return _hash(text for example in self.examples for text in example)

    @cached_property
    def _key(self) -> str:
        return f"{self.seed}:{_hash(example[0] for example in self.examples)}"

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch, made when it is first asked for. Two are kept: a step may span two."""
        order = self._kept.get(epoch)
        if order is None:
            order = self._kept[epoch] = permutation(self._key, epoch, len(self.examples))
            for old in list(self._kept)[:-2]:
                self._kept.pop(old, None)  # the loop asks in a thread of its own
        return order

    def numbers(self, step: int) -> list[int]:
        """Which examples form the batch of a step, by number; it may span two epochs. Behind the end there is none."""
        n = len(self.examples)
        each = span(step, self.batch_size, self.total, self.least)
        return [int(self._epoch(i // n)[i % n]) for i in each]

    def rows(self, step: int) -> list[Row]:
        """The examples of a step."""
        found = [self.examples[i] for i in self.numbers(step)]
        return sorted(found, key=lambda row: sum(map(len, row))) if self.alike else found


def one_by_one(texts: Iterable[Tokens]) -> list[Row]:
    """Each text as an example of its own."""
    return [(t,) for t in texts]


def _hash(texts: Iterable[Tokens]) -> str:
    state = hashlib.sha256(b"onebase.draws\0")
    for t in texts:
        state.update(t.id.encode() + b"\0" + t.ids.astype("<i4").tobytes() + t.loss.tobytes() + b"\1")
        if t.windows:
            state.update(repr(t.windows).encode())
    return state.hexdigest()
