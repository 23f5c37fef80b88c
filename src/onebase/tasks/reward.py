"""Task reward: a number for each answer, by a head of one output on its pooled states, so that the answers that are liked better have larger
ones (Bradley and Terry, 1952). n pairs, P pooled features."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from onebase.adapt.head import FOLDS, Fitted, HeadConfig, best_pooled, fit_head, spread
from onebase.adapt.method import SCRATCH
from onebase.codec.text.sample import Tokens
from onebase.engine.features import how_read
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.preference import margin, wins
from onebase.model.proj import Active
from onebase.objective.reward import Reward
from onebase.tasks import by_head as heads
from onebase.tasks.answers import values_of
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import Fit, Prepared, wide_features
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.prefer import check_pairs
from onebase.tasks.preferences import (
    COLUMNS,
    answer_pairs,
    has_chats,
    pair_flaw,
    pair_tokens,
    preference_rows,
)
from onebase.tasks.prompting import Given
from onebase.tasks.rows import reader_on


def prepare(job: Adapting) -> Prepared:
    """Logistic regression on the differences of the states: each pair stands in both orders, so no constant is learnt."""
    pairs, seed = pair_tokens(job.rows), job.options.seed
    n = len(pairs)
    y_N1 = torch.cat((torch.ones(n, 1), torch.zeros(n, 1)))
    # A pair and its reverse say the same, and are held out together.
    fold_N = np.tile(spread(n, seed), 2) if n > FOLDS else None

    def on_differences(x_NP: Tensor) -> Fitted:
        x_nP = x_NP[0::2] - x_NP[1::2]
        return fit_head(torch.cat((x_nP, -x_nP)), y_N1, 1, seed, fold_N)

    def fit(texts: Sequence[Tokens], active: Active | None) -> Fit:
        x_NP = wide_features(job, texts, active)
        fitted, pooling = best_pooled(on_differences, x_NP, job.options.pooling)
        return Fit(
            fitted.head,
            HeadConfig(gives="value", pooling=pooling),
            lambda on: Reward(SCRATCH, how_read(job.base, pooling), on),
            fitted.facts,
        )

    facts = data_facts(job.rows) | check_pairs(job, [t for pair in pairs for t in pair])
    return Prepared(fit, facts, rows=pairs, fields={"chats": has_chats(job.rows)})


def reward_scores(request: ScoreRequest) -> dict[str, Score]:
    """accuracy: the share of pairs whose chosen answer has the larger reward; margin: by how much, on average."""
    seed, on = request.seed, request.base.of_task("reward", "rates answers")
    found = values_of(on, preference_rows(reader_on(request.base), request.data).texts)
    chosen, rejected = np.array(found).reshape(-1, 2).T
    return {
        "accuracy": wins("accuracy", chosen, rejected, seed=seed),
        "margin": margin(chosen, rejected, seed=seed),
    }


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(f"{x:.6g}", {"reward": x}) for x in bound.reward([str(t) for t in given])]


TASK = Task(
    name="reward",
    columns=COLUMNS,
    lesson=lambda job: heads.lesson(job, prepare(job)),
    head=lambda job: heads.by_head(job, prepare(job)),
    refused={"prompt": "a prompt gives each of some answers a probability, no number"},
    check=pair_flaw,
    samples=answer_pairs,
    by_sample=True,
    scores=reward_scores,
    answer=_answer,
    signal="labels",
)
