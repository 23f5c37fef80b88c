"""Task prefer: of two answers the one that is liked better becomes likelier, by DPO, IPO, KTO or ORPO (objective/preference.py)."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch

from onebase.artifact.files import sha256_bytes
from onebase.codec.text.sample import Tokens
from onebase.config import config
from onebase.data.order import ExampleOrder
from onebase.engine.scoring import batch_tokens
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.predictions import Preferred
from onebase.methods.method import Learner, option
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
from onebase.tasks.rows import reader_on
from onebase.tasks.writing import special_ids


@config
class PreferOptions:
    """Options of task prefer."""

    prefer: PreferConfig = option(PreferConfig(), "the loss and what it hangs on")


def lesson(job: Adapting) -> Lesson:
    """A loss of pairs on what the method learns; the reference is the base as it was, read once before step 1."""
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

    def steps(found: Learner, stack: ExitStack) -> Steps:
        longest = found.before + max(row_tokens(g[:2]) for g in groups)
        plan = ExampleOrder(groups, min(o.batch_size, len(groups)), o.seed, alike=True, epochs=o.epochs)
        return Steps(replace(objective, routing=found.routing, packs=not found.before), plan, longest)

    # Without a reference the answers are taught from nothing, as by tasks chat and complete; with one the base answers already.
    special = () if how.referred else special_ids(texts, base.codec.tokenizer)
    return Lesson(facts, "pairs", steps, fields={"prefer": how, "chats": has_chats(rows)}, special=special)


def reference(job: Adapting, objective: Preference, groups: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """log-probability in nats of every answer under the base as it is now, by text id. By the forward that learns, so that a policy that
    has learnt nothing says exactly the same."""
    model = job.base.model
    plain = replace(objective, reference={}, routing=None, packs=True)
    answers = [(g[i], g[i + 1]) for g in groups for i in range(0, len(g), 2)]
    order = sorted(range(len(answers)), key=lambda i: row_tokens(answers[i]))
    found: dict[str, float] = {}
    while order:
        # The longest first: what does not fit in memory shows at once.
        each = max(1, objective.tokens // row_tokens(answers[order[-1]]))
        some, order = [answers[i] for i in order[-each:]], order[:-each]
        batch = plain.batch(some, 0).to(model.device)
        with torch.enable_grad():
            logp_n2 = plain.logps(model, batch, "own").detach()
        for pair, logps in zip(some, logp_n2.double().tolist(), strict=True):
            found |= {t.id: logp for t, logp in zip(pair, logps, strict=True)}
    return found


def _reference_facts(job: Adapting, objective: Preference, pairs: Sequence[tuple[Tokens, Tokens]]) -> Facts:
    found = objective.reference
    numbers = np.array([found[t.id] for pair in pairs for t in pair], "<f4")
    facts: Facts = {
        "reference.base": (job.base.fingerprint, "hashed"),
        "reference.hash": (sha256_bytes(numbers.tobytes()), "hashed"),
    }
    for i, side in enumerate(("chosen", "rejected")):
        mean = math.fsum(found[pair[i].id] for pair in pairs) / len(pairs)
        facts[f"reference.{side}"] = (mean, "measured once before step 1, nats an answer")
    return facts


def check_pairs(job: Adapting, texts: Sequence[Tokens]) -> Facts:
    """The ledger of pairs."""
    test = None if job.test is None else [t for pair in pair_tokens(job.test) for t in pair]
    return check_written(job, texts, test, chats=has_chats(job.rows))


def predictions(request: ScoreRequest) -> Preferred:
    """How likely both answers of each pair are, by the token. With an adapter of task prefer that had a reference also what was learnt: beta
    times the log-ratio to the base without the adapter (a token, for ipo). Where a reward judges, also how often it likes what is written with
    the adapter better than what the base writes without."""
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
        "prompt": "a prompt learns nothing of answers: write into it what is wanted (onebase chat)",
        "head": "a head writes no text: one that says how good an answer is, is task reward",
    },
    writes=always,
    check=pair_problem,
    samples=answer_pairs,
    by_sample=True,
    predictions=predictions,
    takes_judge=True,
    signal="pairs",
)
