"""Task rerank: orders texts by relevance to a query, with a head that reads query and text together (a cross-encoder).

Rows have a query, texts and a grade for each: above 0 for relevant ones. N texts of all queries, P pooled features.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.base.head import HeadConfig
from onebase.data import read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.engine.answers import of_task, query_problem, ranked, scored
from onebase.engine.features import pair_tokens, pooling_of
from onebase.errors import DataError
from onebase.evaluation.predictions import Graded
from onebase.evaluation.retrieval import NDCG
from onebase.methods.bound import Bound
from onebase.methods.head import best_pooled, fit_head
from onebase.methods.logistic import FOLDS, spread
from onebase.methods.method import SCRATCH
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.label import MultiLabel
from onebase.readable import figure
from onebase.tasks import by_head as heads
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.checks import head_size
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.reading import Row, RowReader, together

COLUMNS = ("query", "texts", "grades")


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the query, the texts or the grades of a row, and what to do."""
    if (found := query_problem(row)) is not None:
        return found
    grades = row["grades"]
    if not isinstance(grades, (list, tuple)) or len(grades) != len(row["texts"]):
        return (f"'grades' is {grades!r:.60}", "give a number for each text: above 0 for relevant ones")
    if not all(isinstance(g, (int, float)) and not isinstance(g, bool) and 0 <= g < math.inf for g in grades):
        return f"'grades' is {grades!r:.60}", "give numbers of at least 0"
    return None if max(grades) > 0 else ("no text has a grade above 0", "remove such rows")


def pairs(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Query and text of every text of every row."""
    return [(r["query"], t) for r in rows for t in r["texts"]]


def _samples(reader: RowReader) -> Make:
    """Query and text for every text of a row; of a pair beyond the limit the longer text is cut at its end."""

    def made(rows: Sequence[Row]) -> list[Samples | Problem]:
        limit = reader.options.max_length
        read = iter(pair_tokens(reader.base, pairs(rows), limit, reader.taken, cut=True))
        return [tuple(next(read) for _ in r["texts"]) for r in rows]

    return together(made)


def prepare(job: Adapting) -> Prepared:
    rows = job.rows
    y_N = torch.tensor([float(g > 0) for r in rows for g in r["grades"]])
    if y_N.min() == y_N.max():
        raise DataError("every text has a grade above 0", "give texts with grade 0 too")
    job.head = head_size(job, len(y_N), 1, [len(y_N)])
    o = job.options
    # Texts of one query are correlated: they are held out together.
    folds = np.repeat(spread(len(rows), o.seed), [len(r["texts"]) for r in rows])

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        def fitted(x_NP: Tensor) -> Any:
            return fit_head(
                x_NP, y_N[:, None], 1, o.seed, folds if len(rows) >= FOLDS else None, o.of_task.head_bias
            )

        fit, pooling = best_pooled(fitted, wide_features(job, texts, routing), o.of_task.pooling)
        targets: dict[str, tuple[int, ...]] = {
            t.id: (0,) if y else () for t, y in zip(texts, y_N.tolist(), strict=True)
        }
        cfg = HeadConfig(gives="value", pooling=pooling, sigmoid=True, limit=o.max_length)
        return Fit(
            fit.head,
            cfg,
            lambda on: MultiLabel(SCRATCH, targets, 1, pooling_of(job.base, pooling), on),
            fit.facts,
        )

    return Prepared(fit, data_facts(rows) | {"data.texts": (len(y_N), "counted")})


def predictions(request: ScoreRequest) -> Graded:
    """The scores of each query's texts, and their grades."""
    rows = read_rows(request.data, COLUMNS, check=problem)
    found = iter(scored(of_task(request.base, "rerank", "reranks"), pairs(rows)))
    return Graded([r["grades"] for r in rows], [[next(found) for _ in r["texts"]] for r in rows])


def _answer(bound: Bound, given: Sequence[Any]) -> list[Shown]:
    on = of_task(bound, "rerank", "reranks")
    out = []
    for row in given:
        found = ranked(on, row["query"], row["texts"])
        line = "; ".join(f"{figure(r.score, 4)} {r.text}" for r in found)
        out.append(Shown(line, {"ranked": [{"index": r.index, "score": r.score} for r in found]}))
    return out


TASK = Task(
    name="rerank",
    columns=COLUMNS,
    lesson=lambda job: heads.lesson(job, prepare(job)),
    options=heads.BiasedHeadOptions,
    methods={
        "head": Maker(lambda job: heads.by_head(job, prepare(job))),
        "prompt": "a prompt gives probabilities of answers, not an order of texts",
    },
    check=problem,
    samples=_samples,
    compared=("query", "texts"),
    predictions=predictions,
    answer=_answer,
    reads=("query", "texts"),
    lists=("texts",),
    tuned_by=(f"ndcg@{NDCG}",),
    signal="labels",
)
