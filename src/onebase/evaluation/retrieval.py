"""How well queries find what belongs to them among candidates. Q queries, C candidates, k places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onebase.errors import DataError
from onebase.evaluation.bootstrap import Array, Score, mean_score

RECALLS = (1, 5, 10)
NDCG = 10


def retrieval_scores(
    similarity_QC: ArrayLike,
    relevant: Sequence[Sequence[int]],
    left_out: Sequence[Sequence[int]] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Score]:
    """recall@1, @5, @10 and ndcg@10, the mean over the queries, 0 to 1.

    similarity: float [Q, C], larger is nearer. relevant: candidates of each query that belong to it, at least one. left_out: candidates
    that a query is not asked about (its own text). Raises DataError for similarities that are not finite or a query without a relevant one.
    """
    ranks = relevant_ranks(similarity_QC, relevant, left_out)
    found = {f"recall@{k}": mean_score(f"recall@{k}", recall_each(ranks, k), seed=seed) for k in RECALLS}
    name = f"ndcg@{NDCG}"
    return found | {name: mean_score(name, ndcg_each(ranks, NDCG), seed=seed)}


def relevant_ranks(
    similarity_QC: ArrayLike,
    relevant: Sequence[Sequence[int]],
    left_out: Sequence[Sequence[int]] | None = None,
) -> list[NDArray[np.int64]]:
    """Places (from 1) of the relevant candidates of each query, in order. One that does not belong and is exactly as near stands before
    one that does: vectors that are all alike find nothing."""
    s_QC = np.array(similarity_QC, dtype=np.float64)
    if s_QC.ndim != 2 or len(s_QC) != len(relevant):
        raise DataError(
            f"similarities of shape {s_QC.shape} for {len(relevant)} queries", "give one row for each query"
        )
    if not np.isfinite(s_QC).all():
        raise DataError("similarities that are not finite", "look at the vectors of the texts")
    out = []
    for i, right in enumerate(relevant):
        if not len(right):
            raise DataError(f"query {i + 1} has no relevant candidate", "leave such queries out")
        mine = np.zeros(s_QC.shape[1], np.bool_)
        mine[list(right)] = True
        if left_out is not None:
            s_QC[i, [c for c in left_out[i] if not mine[c]]] = -np.inf
        order = np.lexsort((mine, -s_QC[i]))  # by similarity, among equals the relevant last
        out.append(np.flatnonzero(mine[order]) + 1)
    return out


def recall_each(ranks: Sequence[NDArray[np.int64]], k: int) -> Array:
    """Share of the relevant candidates among the k nearest: float64 [Q]. With one relevant candidate: found or not."""
    return np.array([(r <= k).mean() for r in ranks], dtype=np.float64)


def graded_each(grades: Sequence[float], scores: Sequence[float], k: int) -> tuple[float, float]:
    """(nDCG, reciprocal rank) of one query's candidates in the order of their scores, among the k best, 0 to 1. A candidate gains its grade; the
    reciprocal rank is 1 / the place of the first with a grade above 0, and 0 where none is among them. Of equal scores the worst comes first."""
    g_C, s_C = np.asarray(grades, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    found_k = g_C[np.lexsort((g_C, -s_C))][:k]
    worth_k = 1 / np.log2(np.arange(2, len(found_k) + 2))
    best = float((np.sort(g_C)[::-1][:k] * worth_k).sum())
    right = np.flatnonzero(found_k > 0)
    return float((found_k * worth_k).sum()) / best, 1 / float(right[0] + 1) if len(right) else 0.0


def ndcg_each(ranks: Sequence[NDArray[np.int64]], k: int) -> Array:
    """Discounted gain 1 / log2(1 + place) of the relevant candidates among the k nearest, over that of the best order: float64 [Q]
    (Järvelin and Kekäläinen, 2002; every relevant candidate gains as much)."""
    best = 1 / np.log2(np.arange(2, k + 2))
    return np.array(
        [(1 / np.log2(1 + r[r <= k])).sum() / best[: len(r)].sum() for r in ranks], dtype=np.float64
    )
