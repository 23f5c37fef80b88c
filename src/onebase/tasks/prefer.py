"""Task prefer: trains on pairs of a chosen and a rejected answer, by DPO, IPO, KTO or ORPO (objective/preference.py)."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch

from onebase.artifact.files import sha256_bytes
from onebase.config import config
from onebase.data.order import ExampleOrder
from onebase.engine.scoring import batch_tokens
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.predictions import Preferred
from onebase.methods.method import Learner, option
from onebase.modality.text.sample import Tokens
from onebase.objective.preference import PreferConfig, Preference, row_tokens
from onebase.tasks.base import ScoreRequest, Task, always
from onebase.tasks.checks import before
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.judge import wins_of
from onebase.tasks.ledgers import check_written
from onebase.tasks.preferences import (
    COLUMNS,
    answer_pairs,
    has_chats,
    other_answers,
    pair_problem,
    pair_tokens,
    preference_rows,
)
from onebase.tasks.reading import special_ids
from onebase.tasks.rows import reader_on


@config
class PreferOptions:
    """Options of task prefer."""

    prefer: PreferConfig = option(PreferConfig(), "the loss and its parameters")


def lesson(job: Adapting) -> Lesson:
    """Train the method's weights by a loss over pairs; the reference is the unchanged base, evaluated once before step 1."""
    o, base = job.options, job.base
    how = o.of_task.prefer
    rows = job.rows
    pairs = pair_tokens(rows)
    texts = [t for pair in pairs for t in pair]
    facts = data_facts(rows) | check_pairs(job, texts)
    facts |= {
        "prefer.loss": (how.loss, job.origin("prefer.loss")),
        "prefer.beta": (how.beta, job.origin("prefer.beta")),
        "data.tokens": (sum(map(len, texts)), "counted"),
    }
    groups: list[Sequence[Tokens]] = list(pairs)
    if how.loss == "kto":
        limit = base.model.cfg.text.context - before(job.method, o)
        groups = [(*a, *b) for a, b in zip(pairs, other_answers(pairs, limit, o.seed), strict=True)]
    objective = Preference(how, tokens=batch_tokens(base.model.device))
    if how.referred:
        objective = replace(objective, reference=reference(job, objective, groups))
        facts |= _reference_facts(job, objective, pairs)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        longest = learner.before + max(row_tokens(g[:2]) for g in groups)
        plan = ExampleOrder(groups, min(o.batch_size, len(groups)), o.seed, alike=True, epochs=o.epochs)
        return Steps(replace(objective, routing=learner.routing, packs=not learner.before), plan, longest)

    # Without a reference the base may not know the format yet, as in tasks chat and complete; with one it answers already.
    special = () if how.referred else special_ids(texts, base.codec.tokenizer)
    return Lesson(facts, "pairs", steps, fields={"prefer": how, "chats": has_chats(rows)}, special=special)


def reference(job: Adapting, objective: Preference, groups: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """Log-probability in nats of every answer under the base as it is now, by text id. It is computed by the training forward, so that an
    untrained policy gives exactly the same."""
    model = job.base.model
    plain = replace(objective, reference={}, routing=None, packs=True)
    answers = [(g[i], g[i + 1]) for g in groups for i in range(0, len(g), 2)]
    order = sorted(range(len(answers)), key=lambda i: row_tokens(answers[i]))
    logp_of: dict[str, float] = {}
    while order:
        # The longest first: running out of memory shows at once.
        each = max(1, objective.tokens // row_tokens(answers[order[-1]]))
        some, order = [answers[i] for i in order[-each:]], order[:-each]
        batch = plain.batch(some, 0).to(model.device)
        with torch.enable_grad():
            logp_n2 = plain.logps(model, batch, "own").detach()
        for pair, logps in zip(some, logp_n2.double().tolist(), strict=True):
            logp_of |= {t.id: logp for t, logp in zip(pair, logps, strict=True)}
    return logp_of


def _reference_facts(job: Adapting, objective: Preference, pairs: Sequence[tuple[Tokens, Tokens]]) -> Facts:
    logp_of = objective.reference
    numbers = np.array([logp_of[t.id] for pair in pairs for t in pair], "<f4")
    facts: Facts = {
        "reference.base": (job.base.fingerprint, "hashed"),
        "reference.hash": (sha256_bytes(numbers.tobytes()), "hashed"),
    }
    for i, side in enumerate(("chosen", "rejected")):
        mean = math.fsum(logp_of[pair[i].id] for pair in pairs) / len(pairs)
        facts[f"reference.{side}"] = (mean, "measured once before step 1, nats an answer")
    return facts


def check_pairs(job: Adapting, texts: Sequence[Tokens]) -> Facts:
    """The ledger of pairs."""
    test = None if job.test is None else [t for pair in pair_tokens(job.test) for t in pair]
    return check_written(job, texts, test, chats=has_chats(job.rows))


def predictions(request: ScoreRequest) -> Preferred:
    """Mean log-probability per token of both answers of each pair. With an adapter of task prefer trained with a reference, also beta times
    the log-ratio to the base without the adapter (per token, for ipo). With a judging reward, also its win rate of the adapter's completions
    against the base's."""
    base = request.base
    rows = preference_rows(reader_on(base), request.data)
    texts = [t for pair in pair_tokens(rows) for t in pair]
    found = completion_nats(base.loaded, texts, base.routing)
    logp_n2, size_n2 = -found[:, 0].reshape(-1, 2), found[:, 1].reshape(-1, 2)
    won_P = None if request.judge is None else wins_of(replace(request, data=rows), request.judge)
    how = base.attached.config.prefer if base.attached else None
    if how is None or not how.referred:
        return Preferred(logp_n2 / size_n2, won_P=won_P)
    ref_n2 = -completion_nats(base.plain.loaded, texts)[:, 0].reshape(-1, 2)
    gain_n2 = how.beta * (logp_n2 - ref_n2) / (size_n2 if how.loss == "ipo" else 1.0)
    return Preferred(logp_n2 / size_n2, gain_n2, won_P)


TASK = Task(
    name="prefer",
    columns=COLUMNS,
    lesson=lesson,
    options=PreferOptions,
    methods={
        "prompt": "a prompt is not trained: write the wish into it (onebase chat)",
        "head": "a head generates no text; a head that rates answers is task reward",
    },
    writes=always,
    check=pair_problem,
    samples=answer_pairs,
    by_sample=True,
    predictions=predictions,
    takes_judge=True,
    signal="pairs",
)
