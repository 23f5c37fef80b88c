"""Paired comparison of two systems on the same examples: difference, interval, and the number of examples needed. n examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, as_array, bootstrap

Answer = Literal["yes", "no", "cannot tell"]

SIDED, POWER = 0.05, 0.8
"""Two-sided significance level and power for the number of examples needed."""

_Z = NormalDist().inv_cdf(1 - SIDED / 2) + NormalDist().inv_cdf(POWER)
MANY = 1_000_000
"""Above so many examples needed, no number is reported."""


@dataclass(frozen=True, eq=False)
class RowSums:
    """A score as a ratio of sums over examples, sum(over) / sum(under), both float64 [n]; `mean_sums` builds them for a mean."""

    over: Array
    under: Array

    @property
    def value(self) -> float:
        return float(self.over.sum() / self.under.sum())

    def some(self, n: int) -> RowSums:
        """The sums of the first n examples."""
        return RowSums(self.over[:n], self.under[:n])

    @staticmethod
    def joined(sums: list[RowSums]) -> RowSums:
        """The sums over all examples of several."""
        return RowSums(np.concatenate([p.over for p in sums]), np.concatenate([p.under for p in sums]))


def mean_sums(values: ArrayLike) -> RowSums:
    """The sums for the mean of one value per example, float [n]."""
    over = as_array(values, "mean")
    return RowSums(over, np.ones_like(over))


@dataclass(frozen=True)
class Difference:
    """score: one system's score minus another's, with its interval. deviation: the standard deviation of one example's contribution, so that
    the standard error over n examples is deviation / sqrt(n)."""

    score: Score
    deviation: float

    @property
    def answer(self) -> Answer:
        """Is the first system better? "yes" or "no" only if the interval excludes zero."""
        return "yes" if self.score.low > 0 else "no" if self.score.high < 0 else "cannot tell"

    @property
    def needed(self) -> int | None:
        """Number of examples needed to detect a difference of this size: N = ((z(0.975) + z(0.8)) * deviation / difference)^2, rounded up.

        With N examples of the same kind, a two-sided test at 5% detects a true difference of this size in 80 of 100 cases (the normal
        approximation for a paired difference; z are quantiles of the normal distribution, 1.960 and 0.842). The difference itself is
        estimated from few examples, so N is a rough guide. None if the difference is zero.
        """
        if not self.score.value:
            return None
        return max(math.ceil((_Z * self.deviation / self.score.value) ** 2), 2)

    @property
    def would(self) -> str:
        """How many examples would be needed, as the end of the "cannot tell" sentence."""
        if self.deviation == 0:
            return "both answer each of them alike"
        if self.needed is None or self.needed > MANY:
            return "more than a million would be needed for a difference this small"
        return f"about {rounded(max(self.needed, self.score.n + 1)):,} would"


def difference(a: RowSums, b: RowSums, *, seed: int = 0) -> Difference:
    """The score of `a` minus that of `b`, on the same examples in the same order.

    The interval is a bootstrap over whole examples. The deviation is that of `a`'s minus `b`'s values of (over - score * under) / mean(under) per
    example, the linear part of the ratio (delta method). Raises DataError if the numbers of examples differ.
    """
    n = len(a.over)
    if n != len(b.over):
        raise DataError(
            f"a paired comparison of {n} and {len(b.over)} examples",
            "score both systems on the same test examples, in the same order",
        )

    def statistic(w: Array) -> Array:
        return _ratio(w @ a.over, w @ a.under) - _ratio(w @ b.over, w @ b.under)

    score = bootstrap("difference", statistic, n, seed=seed)
    each = _linear(a) - _linear(b)
    return Difference(score, float(each.std(ddof=1)) if n > 1 else 0.0)


def rounded(n: int) -> int:
    """Round up to two significant digits: 1,234 becomes 1,300."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return -(-n // unit) * unit


def _linear(p: RowSums) -> Array:
    return np.asarray((p.over - p.value * p.under) / p.under.mean())


def _ratio(over: Array, under: Array) -> Array:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
