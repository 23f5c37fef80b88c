"""Task reward: a number for each answer, by a head of one output on its pooled states, so that the answers that are liked better have larger
ones (Bradley and Terry, 1952). n pairs, P pooled features."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.adapt.head import FOLDS, Fitted, HeadConfig, best_pooled, fit_head, spread
from onebase.adapt.method import SCRATCH, Learner
from onebase.codec.text.sample import Tokens
from onebase.data.order import ExampleOrder
from onebase.engine.features import how_read
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.preference import margin, wins
from onebase.model.proj import Active
from onebase.objective.pooled import Read
from onebase.objective.reward import Reward
from onebase.tasks.answers import values_of
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import wide_features
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts
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


def by_head(job: Adapting) -> AdapterParts:
    """The fitted head, and nothing else."""
    pairs, facts, chats = _read(job)
    job.reads([t for pair in pairs for t in pair])
    fitted, pooling = _fitted(job, pairs, None)
    cfg = AdapterConfig(
        method="head", task=job.task, base=bound_to(job.base), head=_config(pooling), chats=chats
    )
    head = fitted.head
    tensors = {"head.weight": head.weight_CP.detach(), "head.bias": head.bias_C.detach()}
    return job.parts(cfg, tensors, facts | fitted.facts)


def lesson(job: Adapting) -> Lesson:
    """The head and what the method learns, together, from the fitted head on."""
    o, base = job.options, job.base
    pairs, facts, chats = _read(job)

    def steps(found: Learner, stack: ExitStack) -> Steps:
        found.reads_only([t for pair in pairs for t in pair])
        longest = max(2 * (found.before + max(map(len, pair))) for pair in pairs)
        plan = ExampleOrder(pairs, min(o.rows, len(pairs)), o.seed, alike=True, epochs=o.epochs)
        fitted, pooling = _fitted(job, pairs, found.active if found.before else None)
        base.model.heads[SCRATCH] = head = fitted.head.to(base.model.device)
        objective = Reward(SCRATCH, how_read(job.base, pooling), found.active)
        params = list(head.parameters())
        return Steps(objective, plan, longest, params=params, fields={"head": _config(pooling)})

    return Lesson(facts, "labels", steps, fields={"chats": chats})


def _read(job: Adapting) -> tuple[list[tuple[Tokens, Tokens]], Facts, bool]:
    pairs = pair_tokens(job.rows)
    facts = data_facts(job.rows) | check_pairs(job, [t for pair in pairs for t in pair])
    return pairs, facts, has_chats(job.rows)


def _config(pooling: Read) -> HeadConfig:
    return HeadConfig(gives="value", pooling=pooling)


def _fitted(job: Adapting, pairs: list[tuple[Tokens, Tokens]], active: Active | None) -> tuple[Fitted, Read]:
    """Logistic regression on the differences of the states: each pair stands in both orders, so no constant is learnt."""
    x_NP = wide_features(job, [t for pair in pairs for t in pair], active)
    n, seed = len(pairs), job.options.seed
    y_N1 = torch.cat((torch.ones(n, 1), torch.zeros(n, 1)))
    # A pair and its reverse say the same, and are held out together.
    fold_N = np.tile(spread(n, seed), 2) if n > FOLDS else None

    def fit(x_NP: Tensor) -> Fitted:
        x_nP = x_NP[0::2] - x_NP[1::2]
        return fit_head(torch.cat((x_nP, -x_nP)), y_N1, 1, seed, fold_N)

    return best_pooled(fit, x_NP, job.options.pooling)


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
    lesson=lesson,
    head=by_head,
    refused={"prompt": "a prompt gives each of some answers a probability, no number"},
    check=pair_flaw,
    samples=answer_pairs,
    by_sample=True,
    scores=reward_scores,
    answer=_answer,
    signal="labels",
)
