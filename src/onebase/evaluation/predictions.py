"""What a base said of labelled rows, beside what is true of them: one class a kind of answer. Scores are computed from it (`scores`).

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
    """One label a row: the true one and the likeliest; has_NL: 1 for the true one; p_NL: the probability of each."""

    truth: Sequence[str]
    found: Sequence[str]
    has_NL: Array
    p_NL: Array


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Any number of labels a row: 1 for those it has, 1 for those found, and the probability of each by itself, all [N, L]."""

    has_NL: Array
    found_NL: Array
    p_NL: Array


@dataclass(frozen=True, eq=False)
class Numbers:
    """A number a row, in the units of the data."""

    truth: Sequence[float]
    found: Sequence[float]


@dataclass(frozen=True, eq=False)
class SpanSets:
    """The spans of each text."""

    truth: Sequence[Sequence[Place]]
    found: Sequence[Sequence[Place]]


@dataclass(frozen=True, eq=False)
class Written:
    """A text a row: the true one and what was written greedily; nats_N, tokens_N: how likely the true one is, and its length."""

    truth: Sequence[str]
    found: Sequence[str]
    nats_N: Array
    tokens_N: Array


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The places (from 1) at which each query's own texts were found."""

    ranks: Sequence[NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Graded:
    """The grades of each query's texts, and how well each was found to answer it."""

    grades: Sequence[Sequence[float]]
    found: Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Passages:
    """The right answers to each question, and the part of its text that was found."""

    truth: Sequence[Sequence[str]]
    found: Sequence[str]


@dataclass(frozen=True, eq=False)
class Alike:
    """How alike the texts of each pair are, 0 to 1, and the cosine of their vectors."""

    truth: Sequence[float]
    cosines_n: Array


@dataclass(frozen=True, eq=False)
class Rated:
    """The rewards of the answers that are liked better, and of the others, by pair."""

    chosen_n: Array
    rejected_n: Array


@dataclass(frozen=True, eq=False)
class Preferred:
    """Log-probability a token of both answers; gain_n2: what was learnt of them (None: nothing); won_P: how often the reward likes the adapter's
    own completion better than the base's."""

    logp_n2: Array
    gain_n2: Array | None = None
    won_P: Array | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """Rewards of completions: the greedy ones [P, 1], and of samples [P, S]; from `success` on one counts as right."""

    greedy_PS: Array
    sampled_PS: Array | None
    success: float


@dataclass(frozen=True, eq=False)
class Documents:
    """How likely each document is; before: the same ones, to the base without its adapter."""

    found: Sequence[DocumentNats]
    before: Sequence[DocumentNats] | None = None
