"""Task classify with any number of labels for a text: each label is decided by itself."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from onebase.adapt.head import HeadConfig, best_pooled, fit_head
from onebase.adapt.method import SCRATCH
from onebase.codec.text.sample import Tokens
from onebase.engine.features import how_read
from onebase.errors import DataError
from onebase.model.proj import Active
from onebase.objective.label import ManyLabels, marks
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, data_facts


def has_many(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Have the rows a column `labels`, and none `label`?"""
    return any("labels" in r for r in rows) and not any("label" in r for r in rows)


def flaw(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the labels of a row, and what to do."""
    given = row["labels"]
    if isinstance(given, (list, tuple)) and all(isinstance(x, str) and x.strip() for x in given):
        return None
    return f"'labels' is {given!r}, a list of texts is expected", 'for example ["red", "round"]'


def prepare(job: Adapting) -> Prepared:
    rows = job.rows
    has = [set(r["labels"]) for r in rows]
    labels = tuple(sorted(set().union(*has)))
    for label, n in Counter(x for given in has for x in given).items():
        if n == len(rows):
            raise DataError(
                f"all {len(rows)} rows have the label {label!r}", "give rows without it too, or leave it out"
            )
    number = {label: i for i, label in enumerate(labels)}
    numbers = [tuple(sorted(number[x] for x in given)) for given in has]
    job.head = head_size(job, len(rows), len(labels), [len(rows)])
    y_NC = marks(numbers, len(labels))
    o = job.options

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        x_NP = wide_features(job, texts, active)
        fitted, pooling = best_pooled(lambda x: fit_head(x, y_NC, len(labels), o.seed), x_NP, o.pooling)
        targets = {t.id: x for t, x in zip(texts, numbers, strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(labels=labels, pooling=pooling, gives="many"),
            lambda on: ManyLabels(SCRATCH, targets, len(labels), how_read(job.base, pooling), on),
            fitted.facts,
        )

    return Prepared(fit, data_facts(rows, labels))
