"""Rows of one text each, for objectives that do not pack; the order is a pure function of (seed, digest of the texts, step)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onebase.codec.text.sample import Tokens


@dataclass(frozen=True)
class SinglesPlan:
    """Every text once an epoch, `rows_per_step` a step, each epoch in an order of its own."""

    texts: Sequence[Tokens]
    rows_per_step: int
    seed: int = 0

    @cached_property
    def digest(self) -> str:
        """Content hash of the texts, in order."""
        state = hashlib.sha256()
        for t in self.texts:
            state.update(t.id.encode() + b"\0" + t.ids.astype("<i4").tobytes() + t.loss.tobytes() + b"\1")
        return state.hexdigest()

    def _epoch(self, epoch: int) -> np.ndarray:
        key = hashlib.sha256(f"{self.seed}:{self.digest}:{epoch}".encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big"))).permutation(
            len(self.texts)
        )

    def rows(self, step: int) -> list[list[Tokens]]:
        """The global batch of a step; it may span two epochs."""
        n, first = len(self.texts), step * self.rows_per_step
        orders = {e: self._epoch(e) for e in {first // n, (first + self.rows_per_step - 1) // n}}
        out = []
        for i in range(first, first + self.rows_per_step):
            order = orders.get(i // n)
            order = self._epoch(i // n) if order is None else order
            out.append([self.texts[int(order[i % n])]])
        return out
