"""Task regress: a number for each text, by ridge regression on pooled states, or by a head trained with the method's weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from onebase.base.head import HeadConfig
from onebase.data import read_rows
from onebase.engine.answers import numbers, of_task, values
from onebase.engine.features import pooling_of
from onebase.engine.prompter import Given
from onebase.errors import DataError
from onebase.evaluation.predictions import Numbers
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.head import best_pooled
from onebase.methods.method import SCRATCH
from onebase.methods.ridge import fit_ridge
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.regress import Regression
from onebase.readable import figure
from onebase.tasks import by_head as heads
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.reading import whole_texts
from onebase.tasks.rows import reader_on


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the value of a row, and what to do."""
    number = _number(row["value"])
    if number is not None and math.isfinite(number):
        return None
    return f"'value' is {row['value']!r}, expected a number", "give a finite number, such as 3 or 2.5"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def prepare(job: Adapting) -> Prepared:
    rows = job.rows
    values = [float(r["value"]) for r in rows]  # CSV files have them as text
    y_N = torch.tensor(values, dtype=torch.float64)
    # Relative to the first value: numbers that are large and close to each other (years, times) keep their differences.
    off_N = y_N - y_N[0]
    mean, scale = float(y_N[0] + off_N.mean()), float(off_N.std(correction=0))
    if not 0 < scale < math.inf or len(set(values)) < 2:
        raise DataError(
            f"all {len(rows)} rows have the value {values[0]}"
            if len(set(values)) < 2
            else "the values are too large for fp64 to tell them apart",
            "give rows of at least two values, within the range of fp64",
        )
    o, own = job.options, job.options.of_task
    if own.head_bias:
        centred_N = off_N - off_N.mean()
    else:
        centred_N, mean, scale = y_N, 0.0, float(y_N.square().mean().sqrt())
    y_N = centred_N / scale

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        x_NP = wide_features(job, texts, routing)
        fitted, pooling = best_pooled(lambda x: fit_ridge(x, y_N, o.seed, own.head_bias), x_NP, own.pooling)
        targets = {t.id: y for t, y in zip(texts, y_N.tolist(), strict=True)}
        return Fit(
            fitted.head,
            HeadConfig(gives="value", pooling=pooling, mean=mean, scale=scale, **heads.reads(job)),
            lambda on: Regression(SCRATCH, targets, pooling_of(job.base, pooling), on),
            fitted.facts,
        )

    facts = data_facts(rows) | {"data.mean": (mean, "computed"), "data.deviation": (scale, "computed")}
    return Prepared(fit, facts)


def _on(bound: Bound) -> Attached:
    return of_task(bound, "regress", "gives numbers")


def predictions(request: ScoreRequest) -> Numbers:
    """The predicted and the true number of each row."""
    reader = reader_on(request.base)
    rows = read_rows(request.data, ("text", "value"), check=problem, make=whole_texts(reader))
    return Numbers([float(r["value"]) for r in rows], numbers(_on(request.base), rows.texts))


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(figure(x), {"value": x}) for x in values(_on(bound), [str(t) for t in given])]


TASK = Task(
    name="regress",
    columns=("text", "value"),
    lesson=lambda job: heads.lesson(job, prepare(job)),
    options=heads.TextOptions,
    methods={
        "head": Maker(lambda job: heads.by_head(job, prepare(job))),
        "prompt": "a prompt gives probabilities of answers, not numbers",
    },
    check=problem,
    samples=whole_texts,
    compared=("text",),
    predictions=predictions,
    answer=_answer,
    tuned_by=("mae",),
    signal="labels",
)
