"""Tasks complete and chat: supervised fine-tuning on completions, or on the assistant's part of conversations."""

from collections.abc import Sequence

import numpy as np

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.api.adapting.job import Adapting, data_facts
from onebase.api.adapting.learning import ROWS_RATE, learn, learner, train_config
from onebase.api.texts import chat_rows, completion_rows
from onebase.codec.text.codec import check_tokens, ledger, render_ledger
from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.data import RowPlan, TokenSet, read_rows
from onebase.objective.next_token import NextToken

RATES = {"lora": 2e-3, "full": 3e-4}
"""AdamW's peak rate by method, where none is given."""


def by_steps(job: Adapting) -> AdapterParts:
    """Next-token prediction on the supervised tokens alone."""
    o, base = job.options, job.base
    rows = read_rows(job.data, ("prompt", "completion") if job.task == "complete" else ("messages",))
    tokens = completion_rows(base, rows) if job.task == "complete" else chat_rows(base, rows)
    check_tokens(tokens, base.codec.tokenizer)
    job.tell("what will be learnt, between « »:\n" + render_ledger(ledger(tokens, base.codec.tokenizer)))
    length = o.max_length or base.model.cfg.text.context
    used = sum(len(t.ids) for t in tokens)
    per_step = max(1, min(o.rows, used // length // 4))
    tokenset = TokenSet.from_tokens(tokens, alike=base.codec.tokenizer.roles.chat_framed)
    plan = RowPlan(tokenset, length, per_step, o.seed, long="refuse")
    steps = max(1, round(o.epochs * plan.rows_per_epoch / per_step))
    facts = data_facts(rows) | {"data.tokens": (used, "counted")}
    rate = ROWS_RATE if job.method != "full" else 1.0
    train = train_config(o, steps, per_step, length, default_lr=RATES[job.method], rows_rate=rate)
    with learner(job, _specials(tokens, base.codec.tokenizer)) as found:
        facts |= learn(job, NextToken(length, found.active), plan, train, found.params)
        tensors = found.tensors()
    cfg = AdapterConfig(method=job.method, task=job.task, base=bound_to(base), **found.fields)  # type: ignore[arg-type]
    return job.parts(cfg, tensors, facts)


def _specials(tokens: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the special tokens in the samples, less BOS: LoRA learns their rows, for plain text may never have taught them."""
    used = np.unique(np.concatenate([t.ids for t in tokens]))
    return tuple(sorted(set(tokenizer.specials.values()) & set(used.tolist()) - {tokenizer.bos}))
