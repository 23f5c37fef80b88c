"""Predictions of a base for labelled rows, with their targets: one class per kind of output. Scores are computed from them (`scores`).

N rows, L labels, P prompts, S samples of each, n pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onebase.evaluation.bootstrap import Array
from onebase.evaluation.likelihood import DocumentNats
from onebase.evaluation.spans import Place


@dataclass(frozen=True, eq=False)
class Labels:
    """One label per row: truth and found are the true and the likeliest one. has_NL: 1 for the true one; p_NL: the probability of each."""

    truth: Sequence[str]
    found: Sequence[str]
    has_NL: Array
    p_NL: Array


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Multilabel rows: 1 for true labels, 1 for predicted ones, and the independent probability of each, all [N, L]."""

    has_NL: Array
    found_NL: Array
    p_NL: Array


@dataclass(frozen=True, eq=False)
class Numbers:
    """One number per row, in the units of the data: true and predicted."""

    truth: Sequence[float]
    found: Sequence[float]


@dataclass(frozen=True, eq=False)
class SpanSets:
    """The true and the predicted spans of each text."""

    truth: Sequence[Sequence[Place]]
    found: Sequence[Sequence[Place]]


@dataclass(frozen=True, eq=False)
class MaskPairs:
    """The intersection over union of each true mask with the predicted one, and the predicted quality, [N]."""

    iou_N: Array
    quality_N: Array


@dataclass(frozen=True, eq=False)
class Drawn:
    """One drawn picture per row beside the real one: flow_N, the flow loss of the real one; labels, what both show; their features, [N, F] each
    (`evaluation.pictures`)."""

    flow_N: Array
    labels: Sequence[str]
    real_NF: Array
    found_NF: Array


@dataclass(frozen=True, eq=False)
class ContactMaps:
    """Of each protein with long-range pairs: the share of true contacts among its L / 5 likeliest ones, and among all of them, [N]."""

    precise_N: Array
    chance_N: Array


@dataclass(frozen=True, eq=False)
class Written:
    """One text per row: the true one and the greedy generation. nats_N, tokens_N: negative log-likelihood and length of the true one."""

    truth: Sequence[str]
    found: Sequence[str]
    nats_N: Array
    tokens_N: Array


@dataclass(frozen=True, eq=False)
class Transcripts:
    """One transcript per row: the true one and the greedy one. nats_N, tokens_N: negative log-likelihood and length of the true one."""

    truth: Sequence[str]
    found: Sequence[str]
    nats_N: Array
    tokens_N: Array


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The ranks (from 1) of each query's relevant texts."""

    ranks: Sequence[NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Graded:
    """The relevance grades of each query's texts, and their predicted scores."""

    grades: Sequence[Sequence[float]]
    found: Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Passages:
    """The right answers to each question, and the predicted span of its text."""

    truth: Sequence[Sequence[str]]
    found: Sequence[str]


@dataclass(frozen=True, eq=False)
class Alike:
    """The true similarity of the texts of each pair, 0 to 1, and the cosine of their embeddings."""

    truth: Sequence[float]
    cosines_n: Array


@dataclass(frozen=True, eq=False)
class Rated:
    """The rewards of the chosen and the rejected answers, by pair."""

    chosen_n: Array
    rejected_n: Array


@dataclass(frozen=True, eq=False)
class Preferred:
    """logp_n2: log-probability per token of both answers. gain_n2: their change by training (None: no adapter). won_P: how often the reward
    prefers the adapter's own completion to the base's."""

    logp_n2: Array
    gain_n2: Array | None = None
    won_P: Array | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """Rewards of greedy completions [P, 1] and of samples [P, S]. success: the reward from which a completion counts as successful."""

    greedy_PS: Array
    sampled_PS: Array | None
    success: float


@dataclass(frozen=True, eq=False)
class Documents:
    """Negative log-likelihood of each document; before: that of the base without its adapter."""

    found: Sequence[DocumentNats]
    before: Sequence[DocumentNats] | None = None
