"""Helpers of the table of scores: scores that are computed together from predictions, and sums over rows."""

from __future__ import annotations

import math

import numpy as np

from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.likelihood import DOMAIN, by_source, changes
from onebase.evaluation.metrics import margin, wins
from onebase.evaluation.paired import RowSums
from onebase.evaluation.predictions import (
    Documents,
    Graded,
    Judged,
    LabelSets,
    Passages,
    Preferred,
    Retrieved,
)
from onebase.evaluation.retrieval import NDCG, graded_each, recall_each
from onebase.evaluation.spans import answer_each


def reward_scores(judged: Judged, seed: int) -> dict[str, Score]:
    """Mean reward and success rate, of the greedy completions and of the samples."""
    out: dict[str, Score] = {}
    for prefix, rewards_PS in (("", judged.greedy_PS), ("sampled_", judged.sampled_PS)):
        if rewards_PS is not None:
            each = {"reward": rewards_PS.mean(1), "success": (rewards_PS >= judged.success).mean(1)}
            out |= {prefix + k: mean_score(prefix + k, v, seed=seed) for k, v in each.items()}
    return out


def source_scores(documents: Documents, seed: int) -> dict[str, Score]:
    """Bits per byte of each source of text; with `before`, also the changes."""
    if documents.before is not None:
        return changes(documents.before, documents.found, seed=seed)
    return {f"{k}_bits_per_byte": s for k, s in by_source(documents.found, seed=seed).items()}


def recall(k: int, retrieved: Retrieved, seed: int) -> Score:
    """Mean over queries of the share of relevant texts among the k nearest."""
    return mean_score(f"recall@{k}", recall_each(retrieved.ranks, k), seed=seed)


def graded_gains(graded: Graded) -> list[tuple[float, float]]:
    """(nDCG, reciprocal rank) of each query."""
    return [graded_each(g, f, NDCG) for g, f in zip(graded.grades, graded.found, strict=True)]


def graded_scores(graded: Graded, seed: int) -> dict[str, Score]:
    """`graded_gains` as scores."""
    each = graded_gains(graded)
    names = (f"ndcg@{NDCG}", f"mrr@{NDCG}")
    return {n: mean_score(n, list(x), seed=seed) for n, x in zip(names, zip(*each, strict=True), strict=True)}


def answer_matches(passages: Passages) -> list[tuple[float, float]]:
    """(Exact match, F1) of each answer."""
    return [answer_each(t, f) for t, f in zip(passages.truth, passages.found, strict=True)]


def answer_scores(passages: Passages, seed: int) -> dict[str, Score]:
    """`answer_matches` as scores."""
    each = answer_matches(passages)
    names = ("answer_exact", "answer_f1")
    return {n: mean_score(n, list(x), seed=seed) for n, x in zip(names, zip(*each, strict=True), strict=True)}


def label_set_sums(labels: LabelSets) -> RowSums:
    """The sums whose ratio is micro F1."""
    return RowSums(2 * (labels.has_NL * labels.found_NL).sum(1), (labels.has_NL + labels.found_NL).sum(1))


def domain_sums(documents: Documents) -> RowSums:
    """Bits and bytes of each document of the domain."""
    mine = [d for d in documents.found if d.source == DOMAIN]
    return RowSums(np.array([d.nats / math.log(2) for d in mine]), np.array([float(d.bytes) for d in mine]))


def pair_score(name: str, preferred: Preferred, seed: int) -> Score | None:
    """The margin of the gains of chosen over rejected answers, or how often it is above 0; None without gains."""
    if preferred.gain_n2 is None:
        return None
    gain = preferred.gain_n2.T
    return margin(*gain, seed=seed) if name == "margin" else wins(name, *gain, seed=seed)
