"""Tasks complete and chat: supervised fine-tuning on completions, or on the assistant's part of conversations."""

from collections.abc import Sequence

import numpy as np

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.data import RowPlan, TokenSet, read_rows
from onebase.data.singles import SinglesPlan
from onebase.objective.next_token import NextToken
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.learning import learn, learner, train_config
from onebase.tasks.ledgers import COLUMNS, check_written, written

RATES = {"lora": 2e-3, "soft": 1e-3, "prefix": 1e-3, "full": 3e-4}
"""AdamW's peak rate by method, where none is given."""


PACKED = 256
"""Tokens of a packed row at least, where the context has room for them."""


def by_steps(job: Adapting) -> AdapterParts:
    """Next-token prediction on the supervised tokens alone."""
    o, base = job.options, job.base
    rows = read_rows(job.data, COLUMNS[job.task])
    tokens = written(job, rows)
    facts = (
        data_facts(rows)
        | check_written(job, tokens)
        | {"data.tokens": (sum(len(t.ids) for t in tokens), "counted")}
    )
    with learner(job, special_ids(tokens, base.codec.tokenizer)) as found:
        plan, length = sample_plan(job, tokens, found.before)
        train = train_config(
            o,
            plan,
            found.before + length,
            default_lr=RATES[job.method],
            rows_rate=found.rate,
        )
        facts |= learn(job, NextToken(length, found.active), plan, train, found.params)
        tensors = found.tensors()
    cfg = AdapterConfig(method=job.method, task=job.task, base=bound_to(base), **found.fields)
    return job.parts(cfg, tensors, facts)


def sample_plan(job: Adapting, tokens: Sequence[Tokens], before: int) -> tuple[RowPlan | SinglesPlan, int]:
    """The rows and their length. Samples are packed, but where something stands before each: then one is a row."""
    o, base = job.options, job.base
    # Rows of the whole context would cost the memory of the whole context, however short the samples are.
    longest = max(len(t.ids) for t in tokens)
    length = o.max_length or min(base.model.cfg.text.context, max(longest, PACKED))
    tokenset = TokenSet.from_tokens(tokens, alike=base.codec.tokenizer.roles.chat_framed)
    if before:
        length = min(length, base.model.cfg.text.context - before)
        RowPlan(tokenset, length, 1, o.seed, long="refuse")  # says which samples are too long
        per_step = max(1, min(o.rows, len(tokens) // 4))
        return SinglesPlan(tokens, per_step, o.seed, o.epochs), longest
    per_step = max(1, min(o.rows, sum(len(t.ids) for t in tokens) // length // 4))
    return RowPlan(tokenset, length, per_step, o.seed, long="refuse", epochs=o.epochs), length


def special_ids(tokens: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the special tokens in the samples: LoRA learns their rows, for plain text may never have taught them. Not that of BOS, which
    every text begins with, but where it is learnt: some bases have one token for both ends of a text."""
    ids, loss = (np.concatenate([getattr(t, name) for t in tokens]) for name in ("ids", "loss"))
    used, learnt = set(np.unique(ids).tolist()), set(np.unique(ids[loss]).tolist())
    return tuple(sorted(set(tokenizer.specials.values()) & used - ({tokenizer.bos} - learnt)))
