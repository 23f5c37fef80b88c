"""Scores of generated texts against reference texts: chrF and BLEU by sacrebleu, and JSON by its content. N texts, K counts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from onebase.errors import UserError
from onebase.evaluation.bootstrap import Array, Score, bootstrap, mean_score, same_length

DEEPEST = 200
"""Maximum nesting of JSON; deeper texts count as invalid."""


def has_sacrebleu() -> bool:
    return importlib.util.find_spec("sacrebleu") is not None


def chrf(targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Corpus chrF2, 0 to 100 (Popović 2015): character n-grams up to 6. `how` is sacrebleu's signature."""
    return _sacrebleu("chrf", targets, predictions, seed)


def bleu(targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Corpus BLEU-4, 0 to 100 (Papineni et al. 2002), tokenised as 13a. `how` is sacrebleu's signature."""
    return _sacrebleu("bleu", targets, predictions, seed)


def _sacrebleu(
    name: Literal["chrf", "bleu"], targets: Sequence[str], predictions: Sequence[str], seed: int
) -> Score:
    """The score from summed statistics of the texts, so that a resample is a matrix product and one division without processing the texts
    again. Raises UserError without sacrebleu."""
    same_length(targets, predictions)
    if not has_sacrebleu():
        raise UserError(
            f"{name} needs the package 'sacrebleu', which is not installed", 'pip install "onebase[eval]"'
        )
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    metric: Any = CHRF() if name == "chrf" else BLEU()
    # The library's own bootstrap uses these two functions, but reports a mean and half a width, where we need both bounds.
    counts_NK = np.array(metric._extract_corpus_statistics(list(predictions), [list(targets)]), np.int64)

    def statistic(w_BN: Array) -> Array:
        sums_BK = (w_BN @ counts_NK).astype(np.int64).tolist()
        return np.array([metric._compute_score_from_stats(s).score for s in sums_BK])

    score = bootstrap(name, statistic, len(targets), seed=seed)
    return Score(name, score.value, score.low, score.high, score.n, str(metric.get_signature()))


def json_valid(predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Share of texts that are valid JSON (RFC 8259: no NaN, only white space around it), 0 to 1."""
    return mean_score("json_valid", [float(parsed(p) is not None) for p in predictions], seed=seed)


def json_match(targets: Sequence[str], predictions: Sequence[str], *, seed: int = 0) -> Score:
    """Share of texts whose JSON equals the target's, 0 to 1."""
    return mean_score("json_match", json_match_each(targets, predictions), seed=seed)


def json_match_each(targets: Sequence[str], predictions: Sequence[str]) -> Array:
    """1.0 where both are JSON and equal, ignoring white space, the order of keys and number formats (1 and 1.0): float64 [N]."""
    same_length(targets, predictions)
    pairs = [(parsed(t), parsed(p)) for t, p in zip(targets, predictions, strict=True)]
    return np.array([float(t is not None and t == p) for t, p in pairs])


def all_json(texts: Sequence[str]) -> bool:
    """Whether each text is a JSON object or array. A single number or word counts as plain text."""
    return all((p := parsed(t)) is not None and p[0] in ("object", "array") for t in texts)


def parsed(text: str) -> tuple[Any, ...] | None:
    """JSON in a form that compares by JSON's rules (1 equals 1.0 but not true); None for a text that is not JSON."""
    try:
        return _form(json.loads(text, parse_constant=_refuse), DEEPEST)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _form(value: Any, left: int) -> tuple[Any, ...]:
    if left == 0:
        raise RecursionError
    if isinstance(value, dict):
        return "object", {k: _form(v, left - 1) for k, v in value.items()}
    if isinstance(value, list):
        return "array", [_form(v, left - 1) for v in value]
    kind = "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else "word"
    return kind, type(value).__name__ if kind == "word" else "", value
