"""Metrics, each with a bootstrap interval. `METRICS` lists them; `metric(name)` looks one up. n examples, B resamples.

Label metrics take (targets, predictions); AUROC and ECE take (targets 0/1, scores); likelihood metrics take sums per document. Metrics of
probabilities are in `probabilities`, of spans in `spans`, of generated texts (sacrebleu, JSON) in `written`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import (
    Array,
    Score,
    as_array,
    bootstrap,
    mean_score,
    ratio_score,
    same_length,
)
from onebase.evaluation.probabilities import auroc as auroc
from onebase.evaluation.probabilities import ece, macro_auroc, micro_f1
from onebase.evaluation.spans import span_f1
from onebase.evaluation.words import words
from onebase.evaluation.written import bleu, chrf, json_match, json_match_each

Label = str | int


def accuracy(targets: Sequence[Label], predictions: Sequence[Label], *, seed: int = 0) -> Score:
    """Share of predictions that equal the target, 0 to 1."""
    return mean_score("accuracy", correct(targets, predictions), seed=seed)


def correct(targets: Sequence[Label], predictions: Sequence[Label]) -> Array:
    """1.0 where the prediction equals the target, else 0.0: float64 [n], for paired comparison."""
    same_length(targets, predictions)
    return np.array([t == p for t, p in zip(targets, predictions, strict=True)], dtype=np.float64)


def macro_f1(targets: Sequence[Label], predictions: Sequence[Label], *, seed: int = 0) -> Score:
    """Unweighted mean of the F1 of each class, 0 to 1.

    The classes are those of the targets and predictions. A resample without one of them averages over the rest; a class that
    is predicted but never a target counts 0 (as in scikit-learn with zero_division=0).
    """
    same_length(targets, predictions)
    names = {label: i for i, label in enumerate(sorted({*targets, *predictions}, key=str))}
    is_target, is_predicted = _one_hot(targets, names), _one_hot(predictions, names)
    hit = is_target * is_predicted

    def statistic(w: Array) -> Array:
        support = w @ is_target + w @ is_predicted  # 2 tp + fp + fn per class
        f1 = np.divide(2 * (w @ hit), support, out=np.zeros_like(support), where=support > 0)
        return np.asarray(f1.sum(1) / (support > 0).sum(1))

    return bootstrap("macro_f1", statistic, len(targets), seed=seed)


def exact_match(targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Share of texts that equal the target, surrounding white space ignored, 0 to 1."""
    return mean_score("exact_match", exact(targets, predictions), seed=seed)


def exact(targets: Sequence[str], predictions: Sequence[str]) -> Array:
    """1.0 where the stripped texts are equal, else 0.0: float64 [n]."""
    return correct([t.strip() for t in targets], [p.strip() for p in predictions])


def bits_per_byte(nll_nats_per_doc: ArrayLike, bytes_per_doc: ArrayLike, *, seed: int = 0) -> Score:
    """Bits the model needs per UTF-8 byte of text: sum(nll) / (ln 2 * sum(bytes)). Comparable across tokenizers.

    nll_nats_per_doc: float [n documents], summed over the document's tokens; bytes_per_doc: int [n documents].
    """
    return ratio_score("bits_per_byte", nll_nats_per_doc, bytes_per_doc, scale=1 / math.log(2), seed=seed)


def nats_per_token(nll_nats_per_doc: ArrayLike, tokens_per_doc: ArrayLike, *, seed: int = 0) -> Score:
    """Mean negative log-likelihood per supervised token, in nats. Comparable only between models with the same tokenizer."""
    return ratio_score("nats_per_token", nll_nats_per_doc, tokens_per_doc, seed=seed)


def rouge_l(targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Mean ROUGE-L F-measure over the texts, 0 to 1 (papers print it times 100)."""
    return mean_score("rouge_l", rouge_l_each(targets, predictions), seed=seed)


def rouge_l_each(targets: Sequence[str], predictions: Sequence[str]) -> Array:
    """ROUGE-L F-measure of each text: float64 [n].

    Lin (2004), "ROUGE", with beta = 1; words are those of `words`, unstemmed.
    """
    same_length(targets, predictions)
    return np.array([_rouge_l(words(t), words(p)) for t, p in zip(targets, predictions, strict=True)])


def mae(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """Mean absolute error in the data's own units, lower is better; both float [n]."""
    y, p = as_array(targets, "mae"), as_array(predictions, "mae")
    same_length(y, p)
    return mean_score("mae", np.abs(y - p), seed=seed)


def spearman(targets: ArrayLike, predictions: ArrayLike, *, seed: int = 0) -> Score:
    """Rank correlation, -1 to 1, ties sharing their mean rank; both float [n]. 0 if all predictions are equal.

    Raises DataError if all targets are equal (the score is undefined then).
    """
    y, p = as_array(targets, "spearman"), as_array(predictions, "spearman")
    same_length(y, p)
    if len(y) and (y == y[0]).all():
        raise DataError(
            "spearman: all targets are equal, so their order is undefined",
            "give test examples with at least two values",
        )

    def statistic(w: Array) -> Array:
        n = w.sum(1, keepdims=True)
        a, b = _ranks(y, w) - (n + 1) / 2, _ranks(p, w) - (n + 1) / 2  # the mean rank, ties or not
        spread = (w * a * a).sum(1), (w * b * b).sum(1)
        norm = np.sqrt(spread[0] * spread[1])
        correlation = np.divide((w * a * b).sum(1), norm, out=np.zeros_like(norm), where=norm > 0)
        return np.where(spread[0] > 0, correlation, np.nan)

    return bootstrap("spearman", statistic, len(y), seed=seed)


def _ranks(v: Array, w: Array) -> Array:
    """Mean rank of each example in resamples with multiplicities w [B, n]: [B, n]."""
    order = np.argsort(v, kind="stable")
    new = np.r_[True, np.diff(v[order]) != 0]
    alike = np.add.reduceat(w[:, order], np.flatnonzero(new), axis=1)
    rank = np.cumsum(alike, axis=1) - (alike - 1) / 2
    group = np.empty(len(v), dtype=int)
    group[order] = np.cumsum(new) - 1
    return np.asarray(rank[:, group])


def wins(name: str, chosen: ArrayLike, rejected: ArrayLike, *, seed: int = 0) -> Score:
    """Share of pairs whose chosen answer has the larger value, 0 to 1, ties counting half; both float [n]."""
    difference = _difference(name, chosen, rejected)
    return mean_score(name, (difference > 0) + 0.5 * (difference == 0), seed=seed)


def margin(chosen: ArrayLike, rejected: ArrayLike, *, seed: int = 0) -> Score:
    """Mean of the chosen answers' values minus the rejected ones', in their units."""
    return mean_score("margin", _difference("margin", chosen, rejected), seed=seed)


def _difference(name: str, chosen: ArrayLike, rejected: ArrayLike) -> Array:
    a, b = as_array(chosen, name), as_array(rejected, name)
    if len(a) != len(b):
        raise DataError(f"{name}: {len(a)} chosen and {len(b)} rejected answers", "give pairs")
    return a - b


METRICS: Mapping[str, Callable[..., Score]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "exact_match": exact_match,
    "micro_f1": micro_f1,
    "auroc": auroc,
    "macro_auroc": macro_auroc,
    "ece": ece,
    "mae": mae,
    "spearman": spearman,
    "span_f1": span_f1,
    "bits_per_byte": bits_per_byte,
    "nats_per_token": nats_per_token,
    "rouge_l": rouge_l,
    "chrf": chrf,
    "bleu": bleu,
    "json_match": json_match,
}
LOWER_IS_BETTER = frozenset({"bits_per_byte", "nats_per_token", "ece", "mae"})
# One value per example, for paired comparison; likelihood metrics pass their sums and weights themselves.
PER_EXAMPLE: Mapping[str, Callable[[Sequence[Any], Sequence[Any]], Array]] = {
    "accuracy": correct,
    "exact_match": exact,
    "rouge_l": rouge_l_each,
    "json_match": json_match_each,
}


def metric(name: str) -> Callable[..., Score]:
    """The metric of that name. Raises UserError with the closest name."""
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1)
    raise UserError(
        f"there is no metric {name!r}",
        f"did you mean {near[0]!r}?" if near else f"the metrics are: {', '.join(METRICS)}",
    )


def _one_hot(labels: Sequence[Label], names: Mapping[Label, int]) -> Array:
    out = np.zeros((len(labels), len(names)))
    out[np.arange(len(labels)), [names[x] for x in labels]] = 1.0
    return out


def _rouge_l(target: list[str], prediction: list[str]) -> float:
    if not target or not prediction:
        return 0.0
    row = [0] * (len(prediction) + 1)  # longest common subsequence, one row at a time
    for t in target:
        diagonal = 0
        for j, p in enumerate(prediction, 1):
            diagonal, row[j] = row[j], (diagonal + 1 if t == p else max(row[j], row[j - 1]))
    return 2 * row[-1] / (len(target) + len(prediction))
