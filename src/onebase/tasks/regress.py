"""Task regress: a number for each text, by ridge regression on pooled states, or by a head and what the method learns, together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from onebase.adapt.folder import Attached
from onebase.adapt.head import best_pooled
from onebase.adapt.method import SCRATCH
from onebase.adapt.ridge import fit_ridge
from onebase.base.head import HeadConfig
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.data.bad_rows import refuse_flawed
from onebase.data.labelled import Data
from onebase.engine.features import how_read
from onebase.errors import DataError
from onebase.evaluation.predictions import Numbers
from onebase.model.proj import Active
from onebase.objective.regress import Value
from onebase.tasks import by_head as heads
from onebase.tasks.answers import of_task, values
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.prompting import Given
from onebase.tasks.rows import check_texts


def value_rows(data: Data) -> tuple[list[dict[str, Any]], list[float]]:
    """Rows with text and value, and the values as numbers (a file of csv has them as text). Raises DataError with all bad rows."""
    rows = read_rows(data, ("text", "value"), check=lambda good: refuse_flawed(good, flaw))
    refuse_flawed(rows, flaw)
    return rows, [float(r["value"]) for r in rows]


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
    rows, wanted = value_rows(job.data)
    y_N = torch.tensor(wanted, dtype=torch.float64)
    # From the first one on: numbers that are large and near each other (years, times) keep their differences.
    off_N = y_N - y_N[0]
    mean, scale = float(y_N[0] + off_N.mean()), float(off_N.std(correction=0))
    if not 0 < scale < math.inf or len(set(wanted)) < 2:
        raise DataError(
            f"all {len(rows)} rows have the value {wanted[0]}"
            if len(set(wanted)) < 2
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
    return Prepared(rows, fit, facts)


def _on(bound: Bound) -> Attached:
    return of_task(bound, "regress", "gives numbers")


def predictions(request: ScoreRequest) -> Numbers:
    """The number of each row, and the true one."""
    rows, truth = value_rows(request.data)
    return Numbers(truth, values(_on(request.base), [r["text"] for r in rows]))


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(f"{x:.6g}", {"value": x}) for x in values(_on(bound), [str(t) for t in given])]


TASK = Task(
    name="regress",
    columns=("text", "value"),
    lesson=lambda job: heads.lesson(job, prepare(job)),
    head=lambda job: heads.by_head(job, prepare(job)),
    refused={"prompt": "a prompt gives each of some answers a probability, no number"},
    check=lambda base, rows, limits, _: check_texts(base, rows, limits, flaw),
    predictions=predictions,
    answer=_answer,
    tuned_by=("mae",),
    signal="labels",
)
