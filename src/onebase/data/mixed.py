"""Mixes the rows of two orders: a fixed share of each step is from the second. A pure function of the step, like the orders."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from onebase.artifact.files import canonical_json, sha256_bytes
from onebase.config import config
from onebase.data.order import Order, Row, span, steps_of
from onebase.errors import ConfigError


@config
class ReplayConfig:
    """General text that is mixed into training. data: rows of `text` (a file, or from Python) or text files, in the formats of the task's data.
    share: of all tokens. test: general text to score before and after (null: the Python language reference)."""

    data: str | tuple[dict[str, Any], ...] | None = None
    share: float = 0.1
    test: str | tuple[dict[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"'replay.share' is {self.share}", "give a share above 0 and below 1")


@dataclass(frozen=True)
class MixedOrder:
    """`batch_size` rows a step, of which `share` (a share of rows, from 0 to below 1) is from `second`, exact to half a row after any number of
    steps. Both orders have one row a step, so that their rows are numbered, and epochs of their own. If `first` ends, the mixture ends with its
    last row."""

    first: Order
    second: Order
    share: float
    batch_size: int

    @property
    def digest(self) -> str:
        """Content hash of both plans and how they are mixed."""
        parts = [self.first.digest, self.second.digest, self.share, self.batch_size]
        return sha256_bytes(canonical_json(parts).encode())

    @cached_property
    def total(self) -> int | None:
        """Rows of both up to the last one of `first`; None if it has no end."""
        wanted = self.first.total
        if wanted is None:
            return None
        total = max(wanted, math.floor(wanted / (1 - self.share)) - 2)
        while total - self._seconds(total) < wanted:
            total += 1
        return total

    @property
    def steps(self) -> int:
        """Steps up to the last row of `first`."""
        return steps_of(self.total, self.batch_size)

    def _seconds(self, rows: int) -> int:
        """How many of the first `rows` rows are from the second order."""
        return math.floor(self.share * rows + 0.5)

    def rows(self, step: int) -> list[Row]:
        """The global batch of a step, rows of the second order last; empty after the end."""
        here = span(step, self.batch_size, self.total)
        a, b = self._seconds(here.start), self._seconds(here.stop)
        firsts = range(here.start - a, here.stop - b)
        return [self.first.rows(i)[0] for i in firsts] + [self.second.rows(i)[0] for i in range(a, b)]
