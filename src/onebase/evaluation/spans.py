"""Metrics of labelled spans in texts: a span counts as found if start, end and label all match. n texts."""

from __future__ import annotations

import string
from collections import Counter
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

    Precision is 0 if nothing was found. Raises DataError if no target has a span.
    """
    same_length(targets, predictions)
    wanted = np.array([len(set(t)) for t in targets], dtype=np.float64)
    found = np.array([len(set(p)) for p in predictions], dtype=np.float64)
    hit = span_sums(targets, predictions)[0] / 2
    if not wanted.sum():
        raise DataError("span_f1: no text has a span", "give test rows with at least one span")

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


def span_sums(
    targets: Sequence[Collection[Place]], predictions: Sequence[Collection[Place]]
) -> tuple[Array, Array]:
    """Per text, twice the number of matches, and the number of target and predicted spans, float64 [n]: `span_f1` is the ratio of their sums."""
    pairs = [(set(t), set(p)) for t, p in zip(targets, predictions, strict=True)]
    return np.array([2.0 * len(t & p) for t, p in pairs]), np.array(
        [float(len(t) + len(p)) for t, p in pairs]
    )


def span_f1(
    targets: Sequence[Collection[Place]], predictions: Sequence[Collection[Place]], *, seed: int = 0
) -> Score:
    """The `span_f1` of `span_scores`."""
    return span_scores(targets, predictions, seed=seed)["span_f1"]


def answer_each(truth: Sequence[str], found: str) -> tuple[float, float]:
    """(exact match, word F1) of an answer against the best of the right ones, 0 to 1, as in SQuAD: lower case, without punctuation and
    articles (Rajpurkar et al., 1606.05250)."""
    answer = _words(found)
    scores = [(float(right == answer), _f1(right, answer)) for right in map(_words, truth)]
    return max(x for x, _ in scores), max(x for _, x in scores)


def _words(text: str) -> list[str]:
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [w for w in kept.split() if w not in ("a", "an", "the")]


def _f1(truth: Sequence[str], found: Sequence[str]) -> float:
    if not truth or not found:
        return float(list(truth) == list(found))
    common = sum((Counter(truth) & Counter(found)).values())
    return 2 * common / (len(truth) + len(found))
