"""Task regress: a number for each text, by ridge regression on pooled states, or by a head and what the method learns, together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from onebase.adapt.head import HeadConfig, best_pooled
from onebase.adapt.method import SCRATCH
from onebase.adapt.ridge import fit_ridge
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.engine.features import how_read
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.values import mae, spearman
from onebase.model.proj import Active
from onebase.objective.regress import Value
from onebase.tasks import by_head as heads
from onebase.tasks.answers import values_of
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.prompting import Given
from onebase.tasks.reading import whole_texts
from onebase.tasks.rows import reader_on


def flaw(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the value of a row, and what to do."""
    number = _number(row["value"])
    if number is not None and math.isfinite(number):
        return None
    return f"'value' is {row['value']!r}, a number is expected", "give a finite number, as 3 or 2.5"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def prepare(job: Adapting) -> Prepared:
    rows = job.rows
    values = [float(r["value"]) for r in rows]  # a file of csv has them as text
    y_N = torch.tensor(values, dtype=torch.float64)
    # From the first one on: numbers that are large and near each other (years, times) keep their differences.
    off_N = y_N - y_N[0]
    mean, scale = float(y_N[0] + off_N.mean()), float(off_N.std(correction=0))
    if not 0 < scale < math.inf or len(set(values)) < 2:
        raise DataError(
            f"all {len(rows)} rows have the value {values[0]}"
            if len(set(values)) < 2
            else "the values are too large to be told apart",
            "give rows of at least two values, of a size that numbers hold",
        )
    y_N = (off_N - off_N.mean()) / scale
    o = job.options

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        x_NP = wide_features(job, texts, active)
        fitted, pooling = best_pooled(lambda x: fit_ridge(x, y_N, o.seed), x_NP, o.pooling)
        targets = {t.id: y for t, y in zip(texts, y_N.tolist(), strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(gives="value", pooling=pooling, mean=mean, scale=scale),
            lambda on: Value(SCRATCH, targets, how_read(job.base, pooling), on),
            fitted.facts,
        )

    facts = data_facts(rows) | {"data.mean": (mean, "computed"), "data.deviation": (scale, "computed")}
    return Prepared(fit, facts)


def value_scores(request: ScoreRequest) -> dict[str, Score]:
    """mae in the data's units, and spearman (not where all rows have one value)."""
    reader = reader_on(request.base)
    rows = read_rows(request.data, ("text", "value"), check=flaw, make=whole_texts(reader))
    truth = [float(r["value"]) for r in rows]
    found = values_of(request.base.of_task("regress", "gives numbers"), rows.texts)
    out = {"mae": mae(truth, found, seed=request.seed)}
    return out | ({"spearman": spearman(truth, found, seed=request.seed)} if len(set(truth)) > 1 else {})


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(f"{x:.6g}", {"value": x}) for x in bound.predict([str(t) for t in given])]


TASK = Task(
    name="regress",
    columns=("text", "value"),
    lesson=lambda job: heads.lesson(job, prepare(job)),
    head=lambda job: heads.by_head(job, prepare(job)),
    refused={"prompt": "a prompt gives each of some answers a probability, no number"},
    check=flaw,
    samples=whole_texts,
    compared=("text",),
    scores=value_scores,
    answer=_answer,
    tuned_by=("mae",),
    signal="labels",
)
