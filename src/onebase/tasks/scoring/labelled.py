"""Scores of what an adapter with a head (or a prompt) says of texts, beside what rows say. N rows, L labels."""

from collections.abc import Iterable, Sequence

import numpy as np

from onebase.data import read_rows
from onebase.engine.image_features import classifies_images, image_paths
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import Array, Score
from onebase.evaluation.chances import ece, macro_auroc, macro_f1_of_labels, micro_f1
from onebase.evaluation.metrics import accuracy, correct, macro_f1
from onebase.evaluation.spans import span_scores
from onebase.evaluation.values import mae, spearman
from onebase.tasks.multilabel import has_many, many_rows
from onebase.tasks.prompting import columns, inputs
from onebase.tasks.regress import value_rows
from onebase.tasks.results import Label, Span
from onebase.tasks.scoring.asked import Asked
from onebase.tasks.tag import span_rows


def class_scores(asked: Asked) -> dict[str, Score]:
    """accuracy, macro_f1, auroc (each label against the rest, the mean) and ece of single labels; micro_f1, macro_f1 and auroc of many.
    No auroc where all rows have the same label."""
    base, data, seed = asked.base, asked.data, asked.seed
    attached = base.attached
    head = attached.config.head if attached else None
    if head is not None and head.gives == "many":
        return _many(asked)
    if classifies_images(base.loaded, attached.config if attached else None):
        rows = read_rows(data, ("image", "label"))
        found = base.classify_images(image_paths(rows, data))
    else:
        if has_many(given := read_rows(data, ())):
            raise UserError(
                "the rows have many labels each, the adapter gives one", "give the column `label`"
            )
        rows = read_rows(given, (*columns(attached), "label"))
        found = base.classify(inputs(attached, rows))
    truth, guess = [str(r["label"]) for r in rows], [f.label for f in found]
    y_NL, p_NL = _tables([[x] for x in truth], found)
    right = correct(truth, guess)
    out = {"accuracy": accuracy(truth, guess, seed=seed), "macro_f1": macro_f1(truth, guess, seed=seed)}
    if len(set(truth)) > 1:
        out["auroc"] = macro_auroc(y_NL, p_NL, seed=seed)
    return out | {"ece": ece([int(x) for x in right], p_NL.max(1), seed=seed)}


def _many(asked: Asked) -> dict[str, Score]:
    base, seed = asked.base, asked.seed
    rows, truth = many_rows(asked.data)
    found = base.classify([r["text"] for r in rows])
    y_NL, p_NL = _tables(truth, found)
    names = list(found[0].scores)
    guess_NL = np.array([[float(x in f.labels) for x in names] for f in found])
    out = {
        "micro_f1": micro_f1(y_NL, guess_NL, seed=seed),
        "macro_f1": macro_f1_of_labels(y_NL, guess_NL, seed=seed),
    }
    some = (y_NL.min(0) < y_NL.max(0)).any()
    return out | ({"auroc": macro_auroc(y_NL, p_NL, seed=seed)} if some else {})


def _tables(truth: Sequence[Iterable[str]], found: Sequence[Label]) -> tuple[Array, Array]:
    """Which labels each row has, 1/0, and the probability of each, both [N, L]. Raises DataError for a label unknown to the adapter."""
    at = {label: i for i, label in enumerate(found[0].scores)}
    y_NL = np.zeros((len(found), len(at)))
    for n, labels in enumerate(truth):
        for label in labels:
            if label not in at:
                raise DataError(
                    f"row {n + 1} has the label {label!r}, which the adapter never saw",
                    f"its labels: {', '.join(sorted(at))}",
                )
            y_NL[n, at[label]] = 1.0
    return y_NL, np.array([list(f.scores.values()) for f in found])


def value_scores(asked: Asked) -> dict[str, Score]:
    """mae in the data's units, and spearman (not where all rows have one value)."""
    rows, truth = value_rows(asked.data)
    found = asked.base.predict([r["text"] for r in rows])
    out = {"mae": mae(truth, found, seed=asked.seed)}
    return out | ({"spearman": spearman(truth, found, seed=asked.seed)} if len(set(truth)) > 1 else {})


def tag_scores(asked: Asked) -> dict[str, Score]:
    """span_precision, span_recall and span_f1."""
    rows, truth = span_rows(asked.data)
    found = asked.base.tag([r["text"] for r in rows])
    return span_scores([_places(s) for s in truth], [_places(s) for s in found], seed=asked.seed)


def _places(spans: Iterable[Span]) -> list[tuple[int, int, str]]:
    return [(s.start, s.end, s.label) for s in spans]
