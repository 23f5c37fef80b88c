"""Metrics of probabilities and scores: ranking and calibration. n examples, L labels, B resamples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, Statistic, as_array, bootstrap, same_length

BINS = 15


def auroc(targets: Sequence[int] | Sequence[bool], scores: ArrayLike, *, seed: int = 0) -> Score:
    """Probability that a positive gets a higher score than a negative, ties counting half, 0 to 1.

    targets: 1/0 or True/False [n]; scores: float [n], higher = more positive. Raises DataError when one class is missing.
    """
    s = as_array(scores, "auroc")
    same_length(targets, s)
    odd = set(targets) - {0, 1}
    if odd:
        raise DataError(
            f"auroc: targets {sorted(map(str, odd))[:3]}", "give 1 for positive and 0 for negative"
        )
    y = np.array([float(t) for t in targets])
    if not 0 < y.sum() < len(y):
        raise DataError("auroc: the targets have one class only", "give test examples of both classes")
    return bootstrap("auroc", _ordering(y, s), len(y), seed=seed)


def macro_auroc(targets: ArrayLike, scores: ArrayLike, *, seed: int = 0) -> Score:
    """Unweighted mean over the labels of the AUROC of each against the rest, 0 to 1.

    targets: 1 where the example has the label, else 0, [n, L]; scores: float [n, L]. Labels that all examples or none have are dropped,
    in a resample too. Raises DataError if none remains.
    """
    y_NL, s_NL = _tables(targets, scores, "macro_auroc")
    kept = [c for c in range(y_NL.shape[1]) if 0 < y_NL[:, c].sum() < len(y_NL)]
    if not kept:
        raise DataError(
            "macro_auroc: no label has both positive and negative examples",
            "give test examples of at least two labels",
        )
    each = [_ordering(y_NL[:, c], s_NL[:, c]) for c in kept]

    def statistic(w: Array) -> Array:
        values = np.stack([f(w) for f in each])
        defined = ~np.isnan(values)
        total = np.where(defined, values, 0.0).sum(0)
        return np.divide(total, defined.sum(0), out=np.full_like(total, np.nan), where=defined.any(0))

    return bootstrap("auroc", statistic, len(y_NL), seed=seed)


def ece(targets: Sequence[int] | Sequence[bool], probabilities: ArrayLike, *, seed: int = 0) -> Score:
    """Expected calibration error: distance of the probabilities from the observed frequencies, 0 to 1, lower is better.

    targets: 1/0, whether the event occurred [n] (for classes: whether the likeliest is right); probabilities: its probability [n]. The examples
    are put into 15 bins of equal width by probability; the score is the mean over examples of |share that is true - mean probability| of their
    bin (Guo et al., 1706.04599). With few examples in a bin it is above 0 even for perfect calibration. Raises DataError for a probability
    outside 0 to 1.
    """
    p = as_array(probabilities, "ece")
    same_length(targets, p)
    if len(p) and not (p.min() >= 0 and p.max() <= 1 + 1e-6):
        raise DataError(f"ece: probabilities from {p.min()} to {p.max()}", "give numbers from 0 to 1")
    at = np.clip(np.ceil(p * BINS).astype(int) - 1, 0, BINS - 1)
    gap = np.zeros((len(p), BINS))
    gap[np.arange(len(p)), at] = np.array([float(t) for t in targets]) - p
    return bootstrap("ece", lambda w: np.abs(w @ gap).sum(1) / w.sum(1), len(p), seed=seed)


def micro_f1(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """F1 over all pairs of example and label, 0 to 1; targets, predictions: 1/0 [n, L]. 0 if there are neither targets nor predictions."""
    y_NL, p_NL = _tables(targets, predictions, "micro_f1")
    hit, sides = (y_NL * p_NL).sum(1), (y_NL + p_NL).sum(1)
    return bootstrap("micro_f1", lambda w: _share(2 * (w @ hit), w @ sides), len(y_NL), seed=seed)


def macro_f1_of_labels(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """Mean F1 over labels, 0 to 1; targets, predictions: 1/0 [n, L]. A label without targets and predictions counts 0, as in scikit-learn with
    zero_division=0; a resample without it averages over the rest."""
    y_NL, p_NL = _tables(targets, predictions, "macro_f1")
    hit, sides = y_NL * p_NL, y_NL + p_NL
    never = sides.sum(0) == 0

    def statistic(w: Array) -> Array:
        under = w @ sides
        counted = (under > 0) | never
        total = _share(2 * (w @ hit), under).sum(1)
        return np.divide(total, counted.sum(1), out=np.zeros_like(total), where=counted.any(1))

    return bootstrap("macro_f1", statistic, len(y_NL), seed=seed)


def _ordering(y: Array, s: Array) -> Statistic:
    """The statistic of AUROC: y 1/0 [n], s scores [n]; NaN for a resample with one class only."""
    order = np.argsort(s, kind="stable")
    y = y[order]
    starts = np.flatnonzero(np.r_[True, np.diff(s[order]) != 0])  # start of each run of equal scores

    def statistic(w: Array) -> Array:
        w = w[:, order]
        pos = np.add.reduceat(w * y, starts, axis=1)
        neg = np.add.reduceat(w * (1 - y), starts, axis=1)
        below = np.cumsum(neg, axis=1) - neg
        pairs = pos.sum(1) * neg.sum(1)
        won = (pos * (below + 0.5 * neg)).sum(1)
        return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))

    return statistic


def _tables(targets: ArrayLike, scores: ArrayLike, name: str) -> tuple[Array, Array]:
    y, s = np.asarray(targets, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or y.shape != s.shape:
        raise DataError(
            f"{name}: targets of shape {y.shape}, predictions of shape {s.shape}",
            "give one number for each example and label, [n, L], in both",
        )
    if not np.isin(y, (0, 1)).all():
        raise DataError(f"{name}: targets other than 1 and 0", "give 1 where the example has the label")
    if not np.isfinite(s).all():
        raise DataError(
            f"{name}: {int((~np.isfinite(s)).sum())} values are not finite", "check the system's outputs"
        )
    return y, s


def _share(over: Array, under: Array) -> Array:
    """over / under, 0 where under is 0."""
    return np.divide(over, under, out=np.zeros_like(under), where=under > 0)
