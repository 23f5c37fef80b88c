"""Metrics of pairs: does what is liked better get the larger number? n pairs."""

from __future__ import annotations

from numpy.typing import ArrayLike

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, as_array, mean_score


def wins(name: str, chosen: ArrayLike, rejected: ArrayLike, *, seed: int = 0) -> Score:
    """Share of pairs whose chosen answer has the larger number, 0 to 1, ties counting half; both float [n]."""
    difference = _difference(name, chosen, rejected)
    return mean_score(name, (difference > 0) + 0.5 * (difference == 0), seed=seed)


def margin(chosen: ArrayLike, rejected: ArrayLike, *, seed: int = 0) -> Score:
    """Mean of the chosen answers' numbers less the rejected ones', in their units."""
    return mean_score("margin", _difference("margin", chosen, rejected), seed=seed)


def _difference(name: str, chosen: ArrayLike, rejected: ArrayLike) -> Array:
    a, b = as_array(chosen, name), as_array(rejected, name)
    if len(a) != len(b):
        raise DataError(f"{name}: {len(a)} chosen and {len(b)} rejected answers", "give pairs")
    return a - b
