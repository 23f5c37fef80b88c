"""Retrieval metrics: how well queries find their relevant candidates. Q queries, C candidates, k ranks."""

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

    similarity: float [Q, C], larger is nearer. relevant: indices of the relevant candidates of each query, at least one. left_out: candidates
    that are not ranked for a query (its own text). Raises DataError for similarities that are not finite or a query without a relevant one.
    """
    ranks = relevant_ranks(similarity_QC, relevant, left_out)
    recalls = {f"recall@{k}": mean_score(f"recall@{k}", recall_each(ranks, k), seed=seed) for k in RECALLS}
    name = f"ndcg@{NDCG}"
    return recalls | {name: mean_score(name, ndcg_each(ranks, NDCG), seed=seed)}


def relevant_ranks(
    similarity_QC: ArrayLike,
    relevant: Sequence[Sequence[int]],
    left_out: Sequence[Sequence[int]] | None = None,
) -> list[NDArray[np.int64]]:
    """Ranks (from 1) of the relevant candidates of each query, in order. Among candidates with equal similarity the irrelevant ones rank
    first, so that identical embeddings score lowest."""
    s_QC = np.array(similarity_QC, dtype=np.float64)
    if s_QC.ndim != 2 or len(s_QC) != len(relevant):
        raise DataError(
            f"similarities of shape {s_QC.shape} for {len(relevant)} queries", "give one row for each query"
        )
    if not np.isfinite(s_QC).all():
        raise DataError("some similarities are not finite", "check the embeddings of the texts")
    out = []
    for i, right in enumerate(relevant):
        if not len(right):
            raise DataError(f"query {i + 1} has no relevant candidate", "leave such queries out")
        mine = np.zeros(s_QC.shape[1], np.bool_)
        mine[list(right)] = True
        if left_out is not None:
            s_QC[i, [c for c in left_out[i] if not mine[c]]] = -np.inf
        order = np.lexsort((mine, -s_QC[i]))  # by similarity, the relevant last among equals
        out.append(np.flatnonzero(mine[order]) + 1)
    return out


def recall_each(ranks: Sequence[NDArray[np.int64]], k: int) -> Array:
    """Share of the relevant candidates among the k nearest: float64 [Q]. With one relevant candidate it is 0 or 1."""
    return np.array([(r <= k).mean() for r in ranks], dtype=np.float64)


def graded_each(grades: Sequence[float], scores: Sequence[float], k: int) -> tuple[float, float]:
    """(nDCG, reciprocal rank) of one query's k best candidates by score, 0 to 1. The gain of a candidate is its grade. The reciprocal rank
    is 1 / rank of the first with a grade above 0, and 0 without any. Among equal scores the lowest grade ranks first."""
    g_C, s_C = np.asarray(grades, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    found_k = g_C[np.lexsort((g_C, -s_C))][:k]
    worth_k = 1 / np.log2(np.arange(2, len(found_k) + 2))
    best = float((np.sort(g_C)[::-1][:k] * worth_k).sum())
    right = np.flatnonzero(found_k > 0)
    return float((found_k * worth_k).sum()) / best, 1 / float(right[0] + 1) if len(right) else 0.0


def ndcg_each(ranks: Sequence[NDArray[np.int64]], k: int) -> Array:
    """Discounted gain 1 / log2(1 + rank) of the relevant candidates among the k nearest, over that of the best order: float64 [Q]
    (Järvelin and Kekäläinen, 2002; all relevant candidates have the same gain)."""
    best = 1 / np.log2(np.arange(2, k + 2))
    return np.array(
        [(1 / np.log2(1 + r[r <= k])).sum() / best[: len(r)].sum() for r in ranks], dtype=np.float64
    )
