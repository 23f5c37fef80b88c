"""Task rank: passages in the order in which they answer a query. Rows have a query, passages and a grade for each; scored by nDCG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from onebase.config import config
from onebase.data import read_rows
from onebase.engine.answers import values
from onebase.engine.features import pooling_of
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.scores import Metric
from onebase.evaluation.scores import register as register_score
from onebase.methods.bound import Bound
from onebase.methods.head import HeadConfig, best_pooled
from onebase.methods.method import SCRATCH, option
from onebase.methods.ridge import fit_ridge
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.regress import Regression
from onebase.tasks import by_head
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, HeadOptions, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.reading import whole_texts
from onebase.tasks.table import register

COLUMNS = ("query", "passages", "grades")


@config
class RankOptions(HeadOptions):
    """Options of task rank: those of every task whose head chooses what it reads, and one of its own."""

    by_query: bool = option(False, "whether a grade counts beside the others of its query only")


def flaw(row: Any) -> tuple[str, str] | None:
    if len(row["passages"]) == len(row["grades"]) > 1:
        return None
    return (
        f"{len(row['passages'])} passages have {len(row['grades'])} grades",
        "give each a grade, two at least",
    )


def pairs(row: Any) -> list[str]:
    return [f"{row['query']}\n{p}" for p in row["passages"]]


def prepare(job: Adapting) -> Prepared:
    own = job.options.of_task
    assert isinstance(own, RankOptions)
    each = [torch.tensor([float(g) for g in r["grades"]], dtype=torch.float64) for r in job.rows]
    y_N = torch.cat([g - g.mean() for g in each]) if own.by_query else torch.cat(each)
    y_N = y_N - y_N.mean()

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        x_NP = wide_features(job, texts, routing)
        fitted, pooling = best_pooled(lambda x: fit_ridge(x, y_N, job.options.seed), x_NP, own.pooling)
        targets = {t.id: y for t, y in zip(texts, y_N.tolist(), strict=True)}
        how = HeadConfig(gives="value", pooling=pooling)
        return Fit(
            fitted.head, how, lambda on: Regression(SCRATCH, targets, pooling_of(job.base, pooling), on)
        )

    return Prepared(fit, data_facts(job.rows))


def ranked(bound: Bound, rows: Sequence[Any]) -> list[list[int]]:
    assert bound.attached is not None
    worth = iter(values(bound.attached, [t for r in rows for t in pairs(r)]))
    each = [[next(worth) for _ in r["passages"]] for r in rows]
    return [sorted(range(len(w)), key=lambda i: -w[i]) for w in each]


def answer(bound: Bound, given: Sequence[Any]) -> list[Shown]:
    return [
        Shown(" > ".join(r["passages"][i] for i in o), {"order": o})
        for r, o in zip(given, ranked(bound, given))
    ]


def ndcg(grades: Sequence[float], order: Sequence[int]) -> float:
    def gain(found: Sequence[float]) -> float:
        return sum((2**g - 1) / math.log2(i + 2) for i, g in enumerate(found))

    return gain([grades[i] for i in order]) / max(1e-9, gain(sorted(grades, reverse=True)))


@dataclass(frozen=True, eq=False)
class Orders:
    """The grades of each query's passages, and their order, the best first."""

    grades: list[list[float]]
    found: list[list[int]]


def predictions(request: ScoreRequest) -> Orders:
    rows = read_rows(request.data, COLUMNS, check=flaw)
    return Orders([r["grades"] for r in rows], ranked(request.base, rows))


def ndcg_score(said: Orders, seed: int) -> Score:
    return mean_score("ndcg", [ndcg(g, o) for g, o in zip(said.grades, said.found, strict=True)], seed=seed)


register_score(Metric("ndcg", Orders, ndcg_score))


register(
    Task(
        name="rank",
        columns=COLUMNS,
        lesson=lambda job: by_head.lesson(job, prepare(job)),
        options=RankOptions,
        methods={
            "head": Maker(lambda job: by_head.by_head(job, prepare(job))),
            "prompt": "a prompt gives probabilities of answers, not an order",
        },
        check=flaw,
        samples=lambda reader: whole_texts(reader, pairs),
        compared=("query", "passages"),
        predictions=predictions,
        answer=answer,
        reads=("query", "passages"),
        lists=("passages",),
        signal="labels",
        tuned_by=("ndcg",),
    )
)
