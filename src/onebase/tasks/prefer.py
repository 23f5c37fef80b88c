"""Task prefer: of two answers the one that is liked better becomes likelier, by DPO, IPO, KTO or ORPO (objective/preference.py)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.artifact.files import sha256_bytes
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.engine.scoring import batch_tokens
from onebase.objective.preference import Preference, row_tokens
from onebase.tasks.checks import before
from onebase.tasks.embed import GroupsPlan
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.learning import learn, learner, train_config
from onebase.tasks.ledgers import check_written
from onebase.tasks.preferences import SIDES, has_chats, other_answers, pair_tokens
from onebase.tasks.writing import special_ids

RATES = {"lora": 2e-4, "soft": 1e-3, "prefix": 1e-3, "full": 1e-5}
"""AdamW's peak rate by method, where none is given."""


def by_steps(job: Adapting) -> AdapterParts:
    """A loss of pairs on what the method learns; the reference is the base as it was, read once before step 1."""
    o, base = job.options, job.base
    how = o.prefer
    rows = read_rows(job.data, SIDES)
    pairs = pair_tokens(base, rows)
    texts = [t for pair in pairs for t in pair]
    facts = data_facts(rows) | check_written(job, texts)
    facts |= {
        "prefer.loss": (how.loss, "stated by the user"),
        "prefer.beta": (how.beta, "stated by the user"),
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
    # Without a reference the answers are taught from nothing, as by tasks chat and complete; with one the base answers already.
    with learner(job, () if how.referred else special_ids(texts, base.codec.tokenizer)) as found:
        objective = replace(objective, active=found.active, packs=not found.before)
        longest = found.before + max(row_tokens(g[:2]) for g in groups)
        plan = GroupsPlan(groups, min(o.rows, len(groups)), o.seed, alike=True, epochs=o.epochs)
        train = train_config(o, plan, longest, default_lr=RATES[job.method], rows_rate=found.rate)
        facts |= learn(job, objective, plan, train, found.params)
        tensors = found.tensors()
    cfg = AdapterConfig(
        method=job.method,
        task=job.task,
        base=bound_to(base),
        prefer=how,
        chats=has_chats(rows),
        **found.fields,
    )
    return job.parts(cfg, tensors, facts)


def reference(job: Adapting, objective: Preference, groups: Sequence[Sequence[Tokens]]) -> dict[str, float]:
    """log-probability in nats of every answer under the base as it is now, by text id. By the forward that learns, so that a policy that
    has learnt nothing says exactly the same."""
    model = job.base.model
    plain = replace(objective, reference={}, active=None, packs=True)
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
        facts[f"reference.{side}"] = (mean, "nats an answer, measured once before step 1")
    return facts
