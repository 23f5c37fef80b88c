"""Task reward: a number for each answer, by a head of one output on its pooled states, so that the answers that are liked better have larger
ones (Bradley and Terry, 1952). n pairs, P pooled features."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, Attached, bound_to
from onebase.adapt.head import FOLDS, Fitted, best_pooled, fit_head, spread
from onebase.adapt.method import SCRATCH, Learner
from onebase.base.head import HeadConfig, Read
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.data.order import ExampleOrder
from onebase.engine.features import how_read
from onebase.evaluation.predictions import Rated
from onebase.model.proj import Active
from onebase.objective.reward import Reward
from onebase.tasks.answers import of_task, rewards
from onebase.tasks.base import ScoreRequest, Shown, Task
from onebase.tasks.bound import Bound
from onebase.tasks.by_head import wide_features
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.ledgers import check_written
from onebase.tasks.prefer import check
from onebase.tasks.preferences import SIDES, has_chats, pair_tokens, preference_rows
from onebase.tasks.prompting import Given


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
    rows = read_rows(job.data, SIDES)
    pairs = pair_tokens(job.base, rows)
    facts = data_facts(rows) | check_written(job, [t for pair in pairs for t in pair])
    return pairs, facts, has_chats(rows)


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


def _on(bound: Bound) -> Attached:
    return of_task(bound, "reward", "rates answers")


def predictions(request: ScoreRequest) -> Rated:
    """The rewards of both answers of each pair."""
    base = request.base
    room = base.config.text.context - base.loaded.model.leading(base.active, 1)[0]
    rows = preference_rows(base.loaded, request.data, room, base.config.text.context - room)
    found = rewards(_on(base), [(r["prompt"], r[side]) for r in rows for side in SIDES])
    return Rated(*np.array(found).reshape(-1, 2).T)


def _answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    return [Shown(f"{x:.6g}", {"reward": x}) for x in rewards(_on(bound), [str(t) for t in given])]


TASK = Task(
    name="reward",
    columns=SIDES,
    lesson=lesson,
    head=by_head,
    refused={"prompt": "a prompt gives each of some answers a probability, no number"},
    check=check,
    predictions=predictions,
    answer=_answer,
    signal="labels",
)
