"""Task reward: a reward model, a head with one output on an answer's pooled states, trained on preferences (Bradley and Terry, 1952).

n pairs, P pooled features.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from onebase.base.head import HeadConfig
from onebase.config import config
from onebase.engine.answers import numbers, of_task, rewards
from onebase.engine.features import pooling_of
from onebase.engine.prompter import Given
from onebase.evaluation.predictions import Rated
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.head import Fitted, best_pooled, fit_head
from onebase.methods.logistic import FOLDS, spread
from onebase.methods.method import SCRATCH, option
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.reward import PairwiseReward
from onebase.readable import figure
from onebase.tasks import by_head as heads
from onebase.tasks.base import Maker, ScoreRequest, Shown, Task
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.prefer import check_pairs
from onebase.tasks.preferences import (
    COLUMNS,
    answer_pairs,
    has_chats,
    pair_problem,
    pair_tokens,
    preference_rows,
)
from onebase.tasks.rows import reader_on


@config
class RewardOptions(heads.HeadOptions):
    """Options of task reward."""

    long: Literal["refuse", "tail"] = option("tail", "long prompts: refuse, or keep their tail", later=True)


def prepare(job: Adapting) -> Prepared:
    """Logistic regression on differences of states: each pair is used in both orders, so the bias stays 0."""
    pairs, seed = pair_tokens(job.rows), job.options.seed
    n = len(pairs)
    y_N1 = torch.cat((torch.ones(n, 1), torch.zeros(n, 1)))
    # A pair and its reverse are equivalent, so they are held out together.
    fold_N = np.tile(spread(n, seed), 2) if n > FOLDS else None

    def on_differences(x_NP: Tensor) -> Fitted:
        x_nP = x_NP[0::2] - x_NP[1::2]
        return fit_head(torch.cat((x_nP, -x_nP)), y_N1, 1, seed, fold_N)

    def fit(texts: Sequence[Tokens], routing: AdapterRouting | None) -> Fit:
        x_NP = wide_features(job, texts, routing)
        fitted, pooling = best_pooled(on_differences, x_NP, job.options.of_task.pooling)
        return Fit(
            fitted.head,
            HeadConfig(gives="value", pooling=pooling, **heads.reads(job)),
            lambda on: PairwiseReward(SCRATCH, pooling_of(job.base, pooling), on),
            fitted.facts,
        )

    facts = data_facts(job.rows) | check_pairs(job, [t for pair in pairs for t in pair])
    return Prepared(fit, facts, rows=pairs, fields={"chats": has_chats(job.rows)})


def _on(bound: Bound) -> Attached:
    return of_task(bound, "reward", "rates answers")


def predictions(request: ScoreRequest) -> Rated:
    """The rewards of both answers of each pair."""
    rows = preference_rows(reader_on(request.base), request.data)
    return Rated(*np.array(numbers(_on(request.base), rows.texts)).reshape(-1, 2).T)


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(figure(x), {"reward": x}) for x in rewards(_on(bound), [str(t) for t in given])]


TASK = Task(
    name="reward",
    columns=COLUMNS,
    lesson=lambda job: heads.lesson(job, prepare(job)),
    options=RewardOptions,
    methods={
        "head": Maker(lambda job: heads.by_head(job, prepare(job))),
        "prompt": "a prompt gives probabilities of answers, not numbers",
    },
    check=pair_problem,
    samples=answer_pairs,
    by_sample=True,
    predictions=predictions,
    answer=_answer,
    signal="labels",
)
