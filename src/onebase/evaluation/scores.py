"""The table of scores. A task returns predictions with their targets (`Task.predictions`), and each score is computed from one class of
predictions. Plug-ins add scores to the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from onebase.errors import ConfigError, UserError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.from_predictions import (
    answer_matches,
    answer_scores,
    domain_sums,
    graded_gains,
    graded_scores,
    label_set_sums,
    pair_score,
    recall,
    reward_scores,
    source_scores,
)
from onebase.evaluation.likelihood import DOMAIN, GENERAL, by_source
from onebase.evaluation.metrics import (
    LOWER_IS_BETTER,
    accuracy,
    correct,
    exact_match,
    macro_f1,
    mae,
    margin,
    nats_per_token,
    rouge_l,
    spearman,
    wins,
)
from onebase.evaluation.paired import RowSums, mean_sums
from onebase.evaluation.pictures import frechet_score, recognised, recognised_real
from onebase.evaluation.predictions import (
    Alike,
    ContactMaps,
    Documents,
    Drawn,
    Graded,
    Judged,
    Labels,
    LabelSets,
    MaskPairs,
    Numbers,
    Passages,
    Preferred,
    Rated,
    Retrieved,
    SpanSets,
    Transcripts,
    Written,
)
from onebase.evaluation.probabilities import ece, macro_auroc, macro_f1_of_labels, micro_f1
from onebase.evaluation.retrieval import NDCG, RECALLS, ndcg_each
from onebase.evaluation.spans import span_scores, span_sums
from onebase.evaluation.transcripts import error_sums, transcript_scores
from onebase.evaluation.written import all_json, bleu, chrf, has_sacrebleu, json_match, json_valid


@dataclass(frozen=True)
class Metric:
    """One score.

    of: the class of predictions that it is computed from. score: computes it from predictions and a seed; None if it is undefined for them.
    lower: whether lower is better. asked: compute it only if requested by name. sums: for a score that is a ratio of sums over rows (such as a
    mean), these sums, by which two systems are compared row by row.
    """

    name: str
    of: type
    score: Callable[[Any, int], Score | None]
    lower: bool = False
    asked: bool = False
    sums: Callable[[Any], RowSums] | None = None


SCORES: dict[tuple[type, str], Metric] = {}


def register(metric: Metric) -> None:
    """Register a score. Raises ConfigError if the same class has another score of that name."""
    key = (metric.of, metric.name)
    if SCORES.get(key, metric) is not metric:
        raise ConfigError(
            f"two scores of {metric.of.__name__} are called {metric.name!r}",
            "rename one of them",
        )
    SCORES[key] = metric


def scores_of(predictions: type) -> dict[str, Metric]:
    """The scores of a class of predictions, by name."""
    return {name: m for (of, name), m in SCORES.items() if issubclass(predictions, of)}


def check_names(names: Sequence[str]) -> None:
    """Raises UserError for an unknown score."""
    known = sorted({name for _, name in SCORES})
    if unknown := [n for n in names if n not in known]:
        raise UserError(f"score {unknown[0]!r} is not known", f"scores: {', '.join(known)}")


def computed(predictions: Any, seed: int = 0, names: Sequence[str] | None = None) -> dict[str, Score]:
    """The scores of predictions, by name: the requested ones, or all default ones. Raises UserError for a score of other predictions, or one that
    is undefined for these rows."""
    known = scores_of(type(predictions))
    if names is None:
        scores = {n: m.score(predictions, seed) for n, m in known.items() if not m.asked}
        return {n: s for n, s in scores.items() if s is not None}
    out: dict[str, Score] = {}
    for name in dict.fromkeys(names):
        if name not in known:
            raise UserError(f"there is no score {name!r} for this task", f"scores: {', '.join(known)}")
        score = known[name].score(predictions, seed)
        if score is None:
            raise UserError(f"{name} is undefined for these rows", "see docs/evaluation.md, or leave it out")
        out[name] = score
    return out


# ---------------------------------------------------------------------------------------------------------------------------

Group = Callable[[Any, int], Mapping[str, Score]]
NO_PARTS: Mapping[str, Callable[[Any], RowSums]] = {}


def _add(
    of: type,
    name: str,
    score: Callable[[Any, int], Score | None],
    lower: bool | None = None,
    sums: Callable[[Any], RowSums] | None = None,
) -> None:
    register(Metric(name, of, score, name in LOWER_IS_BETTER if lower is None else lower, sums=sums))


def _add_group(
    of: type,
    group: Group,
    names: Sequence[str],
    lower: bool = False,
    sums: Mapping[str, Callable[[Any], RowSums]] = NO_PARTS,
) -> None:
    """Scores that are computed together, once, whichever are requested."""
    once = lru_cache(maxsize=1)(group)

    def one(name: str, predictions: Any, seed: int) -> Score | None:
        return once(predictions, seed).get(name)

    for name in names:
        _add(of, name, partial(one, name), lower, sums.get(name))


def _some(
    score: Callable[[Any, int], Score], where: Callable[[Any], bool]
) -> Callable[[Any, int], Score | None]:
    return lambda predictions, seed: score(predictions, seed) if where(predictions) else None


_add(
    Labels,
    "accuracy",
    lambda x, seed: accuracy(x.truth, x.found, seed=seed),
    sums=lambda x: mean_sums(correct(x.truth, x.found)),
)
_add(Labels, "macro_f1", lambda x, seed: macro_f1(x.truth, x.found, seed=seed))
_add(
    Labels,
    "auroc",
    _some(lambda x, seed: macro_auroc(x.has_NL, x.p_NL, seed=seed), lambda x: len(set(x.truth)) > 1),
)
_add(
    Labels,
    "ece",
    lambda x, seed: ece([int(c) for c in correct(x.truth, x.found)], x.p_NL.max(1), seed=seed),
)
_add(
    LabelSets,
    "micro_f1",
    lambda x, seed: micro_f1(x.has_NL, x.found_NL, seed=seed),
    sums=label_set_sums,
)
_add(LabelSets, "macro_f1", lambda x, seed: macro_f1_of_labels(x.has_NL, x.found_NL, seed=seed))
_add(
    LabelSets,
    "auroc",
    _some(
        lambda x, seed: macro_auroc(x.has_NL, x.p_NL, seed=seed),
        lambda x: bool((x.has_NL.min(0) < x.has_NL.max(0)).any()),
    ),
)
_add(
    Numbers,
    "mae",
    lambda x, seed: mae(x.truth, x.found, seed=seed),
    sums=lambda x: mean_sums(np.abs(np.subtract(x.truth, x.found))),
)
_add(
    Numbers,
    "spearman",
    _some(lambda x, seed: spearman(x.truth, x.found, seed=seed), lambda x: len(set(x.truth)) > 1),
)
_add(
    MaskPairs,
    "iou",
    lambda x, seed: mean_score("iou", x.iou_N, seed=seed),
    sums=lambda x: mean_sums(x.iou_N),
)
_add(
    ContactMaps,
    "long_range_precision",
    lambda x, seed: mean_score("long_range_precision", x.precise_N, seed=seed),
    sums=lambda x: mean_sums(x.precise_N),
)
_add(ContactMaps, "long_range_chance", lambda x, seed: mean_score("long_range_chance", x.chance_N, seed=seed))
_add(
    Drawn,
    "flow_loss",
    lambda x, seed: mean_score("flow_loss", x.flow_N, seed=seed),
    lower=True,
    sums=lambda x: mean_sums(x.flow_N),
)
_add(
    Drawn,
    "recognised",
    lambda x, seed: mean_score("recognised", recognised(x), seed=seed),
    sums=lambda x: mean_sums(recognised(x)),
)
_add(
    Drawn,
    "recognised_real",
    _some(
        lambda x, seed: mean_score("recognised_real", recognised_real(x), seed=seed),
        lambda x: len(set(x.labels)) < len(x.labels),
    ),
)
_add(Drawn, "frechet_distance", frechet_score, lower=True)
_add_group(
    SpanSets,
    lambda x, seed: span_scores(x.truth, x.found, seed=seed),
    ("span_precision", "span_recall", "span_f1"),
    sums={"span_f1": lambda x: RowSums(*span_sums(x.truth, x.found))},
)
_add(
    Written,
    "nats_per_token",
    lambda x, seed: nats_per_token(x.nats_N, x.tokens_N, seed=seed),
    sums=lambda x: RowSums(np.asarray(x.nats_N, float), np.asarray(x.tokens_N, float)),
)
_add(Written, "exact_match", lambda x, seed: exact_match(x.truth, x.found, seed=seed))
_add(Written, "rouge_l", lambda x, seed: rouge_l(x.truth, x.found, seed=seed))
_add(
    Written,
    "chrf",
    _some(lambda x, seed: chrf(x.truth, x.found, seed=seed), lambda _: has_sacrebleu()),
)
_add(
    Written,
    "bleu",
    _some(lambda x, seed: bleu(x.truth, x.found, seed=seed), lambda _: has_sacrebleu()),
)
_add(
    Written,
    "json_valid",
    _some(lambda x, seed: json_valid(x.found, seed=seed), lambda x: all_json(x.truth)),
)
_add(
    Written,
    "json_match",
    _some(lambda x, seed: json_match(x.truth, x.found, seed=seed), lambda x: all_json(x.truth)),
)
_add_group(
    Transcripts,
    lambda x, seed: transcript_scores(x.truth, x.found, seed=seed),
    ("wer", "cer"),
    lower=True,
    sums={"wer": lambda x: error_sums(x.truth, x.found)[0], "cer": lambda x: error_sums(x.truth, x.found)[1]},
)
_add(
    Transcripts,
    "nats_per_token",
    lambda x, seed: nats_per_token(x.nats_N, x.tokens_N, seed=seed),
    sums=lambda x: RowSums(np.asarray(x.nats_N, float), np.asarray(x.tokens_N, float)),
)
for _k in RECALLS:
    _add(Retrieved, f"recall@{_k}", partial(recall, _k))
_add(
    Retrieved,
    f"ndcg@{NDCG}",
    lambda x, seed: mean_score(f"ndcg@{NDCG}", ndcg_each(x.ranks, NDCG), seed=seed),
    sums=lambda x: mean_sums(ndcg_each(x.ranks, NDCG)),
)
_add_group(
    Graded,
    graded_scores,
    (f"ndcg@{NDCG}", f"mrr@{NDCG}"),
    sums={f"ndcg@{NDCG}": lambda x: mean_sums([gain for gain, _ in graded_gains(x)])},
)
_add_group(
    Passages,
    answer_scores,
    ("answer_exact", "answer_f1"),
    sums={"answer_f1": lambda x: mean_sums([f1 for _, f1 in answer_matches(x)])},
)
_add(Alike, "spearman", lambda x, seed: spearman(x.truth, x.cosines_n, seed=seed))
_add(Rated, "accuracy", lambda x, seed: wins("accuracy", x.chosen_n, x.rejected_n, seed=seed))
_add(Rated, "margin", lambda x, seed: margin(x.chosen_n, x.rejected_n, seed=seed))
_add(Preferred, "reward_accuracy", lambda x, seed: pair_score("reward_accuracy", x, seed))
_add(Preferred, "margin", lambda x, seed: pair_score("margin", x, seed))
_add(Preferred, "preferred", lambda x, seed: wins("preferred", *x.logp_n2.T, seed=seed))
_add(
    Preferred,
    "win_rate",
    _some(lambda x, seed: mean_score("win_rate", x.won_P, seed=seed), lambda x: x.won_P is not None),
)
_add_group(Judged, reward_scores, ("reward", "success", "sampled_reward", "sampled_success"))
_add(
    Documents,
    "bits_per_byte",
    _some(
        lambda x, seed: by_source(x.found, seed=seed)["text"],
        lambda x: {d.source for d in x.found} == {"text"},
    ),
)
_add_group(
    Documents,
    source_scores,
    (
        *(f"{s}_bits_per_byte{more}" for s in (DOMAIN, GENERAL) for more in ("_before", "")),
        f"{DOMAIN}_change",
        "forgetting",
    ),
    lower=True,
    sums={f"{DOMAIN}_bits_per_byte": domain_sums},
)
