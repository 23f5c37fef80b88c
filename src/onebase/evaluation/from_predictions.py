"""What the table of scores needs of predictions beyond one metric: scores that are made together, and sums over rows."""

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


def reward_scores(said: Judged, seed: int) -> dict[str, Score]:
    """Mean reward and share of successes, of the greedy answers and of the samples."""
    out: dict[str, Score] = {}
    for before, worth_PS in (("", said.greedy_PS), ("sampled_", said.sampled_PS)):
        if worth_PS is not None:
            each = {"reward": worth_PS.mean(1), "success": (worth_PS >= said.success).mean(1)}
            out |= {before + k: mean_score(before + k, v, seed=seed) for k, v in each.items()}
    return out


def source_scores(said: Documents, seed: int) -> dict[str, Score]:
    """Bits per byte of each source of text; with those of before, what changed."""
    if said.before is not None:
        return changes(said.before, said.found, seed=seed)
    return {f"{k}_bits_per_byte": s for k, s in by_source(said.found, seed=seed).items()}


def recall(k: int, said: Retrieved, seed: int) -> Score:
    """Share of each query's own texts that are among the k nearest, on average."""
    return mean_score(f"recall@{k}", recall_each(said.ranks, k), seed=seed)


def graded_gains(said: Graded) -> list[tuple[float, float]]:
    """(nDCG, reciprocal rank) of each query."""
    return [graded_each(g, f, NDCG) for g, f in zip(said.grades, said.found, strict=True)]


def graded_scores(said: Graded, seed: int) -> dict[str, Score]:
    """`graded_gains` as scores."""
    each = graded_gains(said)
    names = (f"ndcg@{NDCG}", f"mrr@{NDCG}")
    return {n: mean_score(n, list(x), seed=seed) for n, x in zip(names, zip(*each, strict=True), strict=True)}


def answer_matches(said: Passages) -> list[tuple[float, float]]:
    """(Exact match, F1) of each answer."""
    return [answer_each(t, f) for t, f in zip(said.truth, said.found, strict=True)]


def answer_scores(said: Passages, seed: int) -> dict[str, Score]:
    """`answer_matches` as scores."""
    each = answer_matches(said)
    names = ("answer_exact", "answer_f1")
    return {n: mean_score(n, list(x), seed=seed) for n, x in zip(names, zip(*each, strict=True), strict=True)}


def label_set_sums(said: LabelSets) -> RowSums:
    """The two sums that micro F1 is the ratio of."""
    return RowSums(2 * (said.has_NL * said.found_NL).sum(1), (said.has_NL + said.found_NL).sum(1))


def domain_sums(said: Documents) -> RowSums:
    """The bits and the bytes of each document of the domain."""
    mine = [d for d in said.found if d.source == DOMAIN]
    return RowSums(np.array([d.nats / math.log(2) for d in mine]), np.array([float(d.bytes) for d in mine]))


def pair_score(name: str, said: Preferred, seed: int) -> Score | None:
    """The margin between what was learnt of the chosen and of the rejected answers, or how often it is above 0; None where nothing was learnt."""
    if said.gain_n2 is None:
        return None
    gain = said.gain_n2.T
    return margin(*gain, seed=seed) if name == "margin" else wins(name, *gain, seed=seed)
