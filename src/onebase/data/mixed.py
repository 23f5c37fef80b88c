"""Rows of two orders in one: a share of those of each step is from the second. A pure function of the step, as the orders are."""

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
    """General text that is read on the side: `data`, rows of `text` (a file, or from Python) or text files, as the task's own data; `share`
    of all tokens that it gives; `test`, general text to score before and after (the Python language reference when null)."""

    data: str | tuple[dict[str, Any], ...] | None = None
    share: float = 0.1
    test: str | tuple[dict[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"'replay.share' is {self.share}", "give a share above 0 and below 1")


@dataclass(frozen=True)
class MixedOrder:
    """`batch_size` rows a step, of which the share `share` (of rows, from 0 to below 1) is from `second`: over the first n steps it has
    given that share to within half a row. Both have one row a step, so that their rows have numbers, and go through epochs of their own; where `first`
    has an end, the mixture ends with its last row."""

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
        """Rows of both up to the last one of `first`; None where it has no end."""
        wanted = self.first.total
        if wanted is None:
            return None
        found = max(wanted, math.floor(wanted / (1 - self.share)) - 2)
        while found - self._seconds(found) < wanted:
            found += 1
        return found

    @property
    def steps(self) -> int:
        """Steps up to the last row of `first`."""
        return steps_of(self.total, self.batch_size)

    def _seconds(self, rows: int) -> int:
        """How many of the first `rows` rows are from the second plan."""
        return math.floor(self.share * rows + 0.5)

    def rows(self, step: int) -> list[Row]:
        """The global batch of a step, those of the second plan behind. Behind the end there is none."""
        here = span(step, self.batch_size, self.total)
        a, b = self._seconds(here.start), self._seconds(here.stop)
        own = range(here.start - a, here.stop - b)
        return [self.first.rows(i)[0] for i in own] + [self.second.rows(i)[0] for i in range(a, b)]
