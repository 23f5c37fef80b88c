"""Bootstrap confidence intervals: how much a score would vary over other samples of examples of the same kind.

All metrics work alike: a resample is a row of multiplicities (how often each example was drawn), and a statistic maps
such rows, float64 [B, n], to one value per row, float64 [B]. Means, ratios, F1 and AUROC are then all matrix products.
Percentile intervals after Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onebase.draws import Draws
from onebase.errors import DataError

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]

RESAMPLES = 1000
LEVEL = 0.95
_CELLS = 4_000_000  # multiplicities in memory at once: 32 MB


@dataclass(frozen=True)
class Score:
    """A value with its interval, `low <= value <= high`. n: number of examples (documents for ratios). how: settings of a score that has many
    variants, as its library prints them."""

    name: str
    value: float
    low: float
    high: float
    n: int
    how: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f} ({self.low:.3f} to {self.high:.3f}, n={self.n})"


def bootstrap(
    name: str,
    statistic: Statistic,
    n: int,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Score:
    """Score of `statistic` over `n` examples with its percentile interval.

    The same `n` and `seed` draw the same resamples, so two systems scored on the same examples share them. Resamples with an
    undefined statistic (NaN: only one class was drawn) are dropped. If necessary the interval is widened to contain the value
    itself: a biased statistic such as macro-F1 could otherwise fall outside. Raises DataError for n = 0.
    """
    if n < 1:
        raise DataError(f"no examples to compute {name} on", "give at least one test example")
    value = float(statistic(np.ones((1, n)))[0])
    resampled = Draws(seed, "bootstrap")
    parts = []
    step = max(1, _CELLS // n)
    for start in range(0, resamples, step):
        parts.append(statistic(_draw(resampled, min(step, resamples - start), n)))
    draws = np.concatenate(parts)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return Score(name, value, value, value, n)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Score(name, value, min(float(low), value), max(float(high), value), n)


def mean_score(name: str, values: ArrayLike, *, seed: int = 0) -> Score:
    """Score of the mean of one value per example, float [n]."""
    v = as_array(values, name)
    return bootstrap(name, lambda w: w @ v / len(v), len(v), seed=seed)


def ratio_score(name: str, over: ArrayLike, under: ArrayLike, *, scale: float = 1.0, seed: int = 0) -> Score:
    """Score of scale * sum(over) / sum(under), each float [n documents]; whole documents are resampled.

    Tokens of one document are not independent, so resampling tokens would make the interval too narrow.
    """
    o, u = as_array(over, name), as_array(under, name)
    if len(o) != len(u):
        raise DataError(f"{name}: {len(o)} sums and {len(u)} sizes", "give one of each per document")
    if not (u >= 0).all() or u.sum() <= 0:
        raise DataError(f"{name}: the documents are empty", "give documents with at least one byte or token")
    return bootstrap(name, lambda w: _divide(scale * (w @ o), w @ u), len(o), seed=seed)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, weights: ArrayLike | None = None, name: str = "difference", seed: int = 0
) -> Score:
    """Interval of a minus b for two systems scored on the same examples, in the same order.

    `a`, `b`: float [n], one value per example (1/0 correct, ROUGE-L, ...); the result is the mean difference. With
    `weights` (tokens or bytes per document) a and b are sums per document, and the result is sum(a - b) / sum(weights).
    Raises DataError when the lengths differ.
    """
    x, y = as_array(a, name), as_array(b, name)
    if len(x) != len(y):
        raise DataError(
            f"a paired comparison of {len(x)} and {len(y)} examples",
            "score both systems on the same test examples, in the same order",
        )
    if weights is None:
        return mean_score(name, x - y, seed=seed)
    return ratio_score(name, x - y, weights, seed=seed)


def as_array(values: ArrayLike, name: str) -> Array:
    """`values` as finite float64 [n]. Raises DataError for another shape, NaN or infinity."""
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 1:
        raise DataError(f"{name}: values of shape {v.shape}", "give one number per example")
    if not np.isfinite(v).all():
        raise DataError(
            f"{name}: {int((~np.isfinite(v)).sum())} values are not finite", "check the system's outputs"
        )
    return v


def same_length(targets: Sequence[Any] | Array, predictions: Sequence[Any] | Array) -> None:
    """Raise DataError unless there is one prediction for each target."""
    if len(targets) != len(predictions):
        raise DataError(
            f"{len(targets)} targets and {len(predictions)} predictions", "give one prediction per target"
        )


def _draw(draws: Draws, rows: int, n: int) -> Array:
    """Multiplicities of `rows` resamples of n examples with replacement: float64 [rows, n], each row sums to n."""
    picks = draws.below(n, rows * n).reshape(rows, n)
    picks += np.arange(rows)[:, None] * n
    return np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _divide(over: Array, under: Array) -> Array:
    out = np.full_like(over, np.nan)
    np.divide(over, under, out=out, where=under > 0)
    return out
