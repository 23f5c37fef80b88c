"""Rows of one text each, for objectives that do not pack; the order is a pure function of (seed, digest of the texts, step)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onebase.codec.text.sample import Tokens
from onebase.data.steps import span, steps_of
from onebase.draws import permutation


@dataclass(frozen=True)
class SinglesPlan:
    """Every text once an epoch, `rows_per_step` a step, each epoch in an order of its own.

    epochs: the plan ends with the last text of so many (None: it has no end), its last step perhaps shorter. least: rows without which a step
    teaches nothing; a rest of fewer joins the step before it.
    """

    texts: Sequence[Tokens]
    rows_per_step: int
    seed: int = 0
    epochs: int | None = None
    least: int = 1

    @property
    def total(self) -> int | None:
        """Rows of all epochs; None where there is no end."""
        return None if self.epochs is None else self.epochs * len(self.texts)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        assert self.total is not None, "a plan without an end has no number of steps"
        return steps_of(self.total, self.rows_per_step, self.least)

    @cached_property
    def digest(self) -> str:
        """Content hash of the texts, in order, and of how orders are drawn: a run that began by another way is not gone on with."""
        state = hashlib.sha256(b"onebase.draws\0")
        for t in self.texts:
            state.update(t.id.encode() + b"\0" + t.ids.astype("<i4").tobytes() + t.loss.tobytes() + b"\1")
        return state.hexdigest()

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch, made when it is first asked for. Two are kept: a step may span two."""
        order = self._kept.get(epoch)
        if order is None:
            order = self._kept[epoch] = permutation(f"{self.seed}:{self.digest}", epoch, len(self.texts))
            for old in list(self._kept)[:-2]:
                self._kept.pop(old, None)  # the loop asks in a thread of its own
        return order

    def rows(self, step: int) -> list[list[Tokens]]:
        """The global batch of a step; it may span two epochs. Behind the end there is none."""
        n, numbers = len(self.texts), span(step, self.rows_per_step, self.total, self.least)
        orders = {e: self._epoch(e) for e in {i // n for i in (*numbers[:1], *numbers[-1:])}}
        out = []
        for i in numbers:
            order = orders.get(i // n)
            order = self._epoch(i // n) if order is None else order
            out.append([self.texts[int(order[i % n])]])
        return out
