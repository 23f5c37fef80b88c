"""Metrics of predicted numbers: how far off they are, and whether they order the examples. n examples, B resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, as_array, bootstrap, mean_score, same_length


def mae(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """Mean absolute error in the data's own units, lower is better; both float [n]."""
    y, p = as_array(targets, "mae"), as_array(predictions, "mae")
    same_length(y, p)
    return mean_score("mae", np.abs(y - p), seed=seed)


def spearman(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """Correlation of the ranks, ties sharing their mean rank, -1 to 1; both float [n]. Predictions that are all alike order nothing: 0.

    Raises DataError where all targets are alike (the score is not defined then).
    """
    y, p = as_array(targets, "spearman"), as_array(predictions, "spearman")
    same_length(y, p)
    if len(y) and (y == y[0]).all():
        raise DataError(
            "spearman: all targets are alike, there is no order to find",
            "give test examples of at least two values",
        )

    def statistic(w: Array) -> Array:
        n = w.sum(1, keepdims=True)
        a, b = _ranks(y, w) - (n + 1) / 2, _ranks(p, w) - (n + 1) / 2  # the mean rank, ties or not
        spread = (w * a * a).sum(1), (w * b * b).sum(1)
        both = np.sqrt(spread[0] * spread[1])
        found = np.divide((w * a * b).sum(1), both, out=np.zeros_like(both), where=both > 0)
        return np.where(spread[0] > 0, found, np.nan)

    return bootstrap("spearman", statistic, len(y), seed=seed)


def _ranks(v: Array, w: Array) -> Array:
    """Mean rank of each example in resamples with multiplicities w [B, n]: [B, n]."""
    order = np.argsort(v, kind="stable")
    new = np.r_[True, np.diff(v[order]) != 0]
    alike = np.add.reduceat(w[:, order], np.flatnonzero(new), axis=1)
    rank = np.cumsum(alike, axis=1) - (alike - 1) / 2
    group = np.empty(len(v), dtype=int)
    group[order] = np.cumsum(new) - 1
    return np.asarray(rank[:, group])
