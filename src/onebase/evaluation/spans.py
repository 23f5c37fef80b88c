"""Metrics of spans in texts: a span is found where start, end and label are all right. n texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, bootstrap, same_length

Place = tuple[int, int, str]
"""Start, end (exclusive), label."""


def span_scores(
    targets: Sequence[Collection[Place]], predictions: Sequence[Collection[Place]], *, seed: int = 0
) -> dict[str, Score]:
    """`span_precision`, `span_recall` and `span_f1`, 0 to 1, over all spans of all texts (micro); whole texts are resampled.

    Precision is 0 where nothing was found. Raises DataError where no text has a span to find.
    """
    same_length(targets, predictions)
    wanted = np.array([len(set(t)) for t in targets], dtype=np.float64)
    found = np.array([len(set(p)) for p in predictions], dtype=np.float64)
    hit = np.array(
        [len(set(t) & set(p)) for t, p in zip(targets, predictions, strict=True)], dtype=np.float64
    )
    if not wanted.sum():
        raise DataError("span_f1: no text has a span", "give test rows of which some have spans")

    def score(name: str, over: Array, under: Array) -> Score:
        def statistic(w: Array) -> Array:
            below = w @ under
            share = np.divide(w @ over, below, out=np.zeros_like(below), where=below > 0)
            return np.where((w @ (wanted + found)) > 0, share, np.nan)

        return bootstrap(name, statistic, len(hit), seed=seed)

    return {
        "span_precision": score("span_precision", hit, found),
        "span_recall": score("span_recall", hit, wanted),
        "span_f1": score("span_f1", 2 * hit, wanted + found),
    }


def span_f1(
    targets: Sequence[Collection[Place]], predictions: Sequence[Collection[Place]], *, seed: int = 0
) -> Score:
    """The `span_f1` of `span_scores`."""
    return span_scores(targets, predictions, seed=seed)["span_f1"]
