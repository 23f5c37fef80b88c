"""Rows of two plans in one: a share of those of each step is from the second. A pure function of the step, as the plans are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from onebase.artifact.files import canonical_json, sha256_bytes
from onebase.codec.text.sample import Tokens
from onebase.config import config
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


class Plan(Protocol):
    """A plan with one row a step, so that rows have numbers."""

    @property
    def digest(self) -> str:
        """Content hash of all that the order depends on."""
        ...

    def rows(self, step: int) -> Sequence[Sequence[Tokens]]:
        """The row of this number, alone."""
        ...


@dataclass(frozen=True)
class MixedPlan:
    """`rows_per_step` rows a step, of which the share `share` (of rows, from 0 to below 1) is from `second`: over the first n steps it has
    given that share to within half a row. Each plan goes through its own epochs."""

    first: Plan
    second: Plan
    share: float
    rows_per_step: int

    @property
    def digest(self) -> str:
        """Content hash of both plans and how they are mixed."""
        parts = [self.first.digest, self.second.digest, self.share, self.rows_per_step]
        return sha256_bytes(canonical_json(parts).encode())

    def rows(self, step: int) -> list[Sequence[Tokens]]:
        """The global batch of a step, those of the second plan behind."""
        a, b = (math.floor(self.share * self.rows_per_step * s + 0.5) for s in (step, step + 1))
        own = range(step * self.rows_per_step - a, (step + 1) * self.rows_per_step - b)
        return [self.first.rows(i)[0] for i in own] + [self.second.rows(i)[0] for i in range(a, b)]
