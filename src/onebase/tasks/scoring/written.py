"""Scores of what a base writes: how likely the answers of the rows are to it, and how near its own come to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.engine.decoder import generate
from onebase.engine.features import chat_rows, completion_rows
from onebase.engine.sampler import Sampling
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.metrics import exact_match, nats_per_token, rouge_l
from onebase.evaluation.written import all_json, bleu, chrf, has_sacrebleu, json_match, json_valid
from onebase.tasks.prompting import texts_of
from onebase.tasks.scoring.asked import Asked


@dataclass(frozen=True)
class Asks:
    """Of each row: prompt and answer as one sample, the prompt as token ids, the answer as text."""

    samples: list[Tokens]
    prompts: list[list[int]]
    answers: list[str]


def completion_scores(asked: Asked) -> dict[str, Score]:
    """See `_scores`. Rows have prompt and completion, and what a saved prompt has as variables."""
    base, on = asked.base, asked.base.attached
    asks = on is None or on.config.prompt is None or "text" in on.config.prompt.variables
    rows = read_rows(asked.data, (*(["prompt"] if asks else []), "completion"))
    texts = [str(r["prompt"]) if asks else "" for r in rows]
    read = [
        base.prompted(t, _values(asked, r, i)).read
        for i, (t, r) in enumerate(zip(texts, rows, strict=True), 1)
    ]
    samples = completion_rows(base.loaded, [{**r, "prompt": p} for r, p in zip(rows, read, strict=True)])
    answers = [str(r["completion"]).strip() for r in rows]
    return _scores(asked, Asks(samples, [base.tokenizer.encode(p, bos=True) for p in read], answers))


def chat_scores(asked: Asked) -> dict[str, Score]:
    """See `_scores`. Rows have messages, the last of which is the answer."""
    base, rows = asked.base, read_rows(asked.data, ("messages",))
    samples, prompts = [], []
    for i, r in enumerate(rows, 1):
        if len(r["messages"]) < 2 or r["messages"][-1].get("role") != "assistant":
            raise DataError(
                f"row {i} does not end in an answer of the assistant",
                "let it be the last message: it is compared",
            )
        read = list(base.prompted(r["messages"][:-1], _values(asked, r, i)).read)
        (sample,) = chat_rows(base.loaded, [{"messages": [*read, r["messages"][-1]]}])
        shown = _answers(read) - _answers(r["messages"][:-1])
        samples.append(_less_first(sample, shown) if shown else sample)
        prompts.append(base.loaded.codec.chat_ids(read))
    answers = [str(r["messages"][-1]["content"]).strip() for r in rows]
    return _scores(asked, Asks(samples, prompts, answers))


def _values(asked: Asked, row: Mapping[str, Any], number: int) -> dict[str, str]:
    """The values of a saved prompt's variables in a row, but for the text."""
    on = asked.base.attached
    cfg = on.config.prompt if on is not None else None
    names = [] if cfg is None else [n for n in cfg.variables if n != "text" and row.get(n) is not None]
    return texts_of({n: row[n] for n in names}, f"row {number}: ")


def _answers(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(m.get("role") == "assistant" for m in messages)


def _less_first(sample: Tokens, turns: int) -> Tokens:
    """The sample of which the first turns of the assistant, those of examples, do not count."""
    loss = sample.loss.copy()
    starts = np.flatnonzero(loss & ~np.concatenate(([False], loss[:-1])))
    loss[: starts[turns]] = False
    return replace(sample, loss=loss)


def _scores(asked: Asked, found: Asks) -> dict[str, Score]:
    """nats_per_token of the answers; exact_match and rouge_l of greedy generations, chrf and bleu where sacrebleu is installed, json_valid
    and json_match where all answers are JSON. Raises DataError for a row beyond the context, UserError for a constraint that cannot be
    followed."""
    base, seed = asked.base, asked.seed
    context = base.config.text.context
    for i, sample in enumerate(found.samples, 1):
        if len(sample.ids) > context:
            raise DataError(
                f"row {i} has {len(sample.ids)} tokens, the base reads {context}", "shorten or drop it"
            )
    nats = completion_nats(base.loaded, found.samples, base.active)
    room = [min(asked.max_tokens, context - len(p)) for p in found.prompts]
    each = [Sampling(max_tokens=max(1, n), constraint=asked.constraint) for n in room]
    texts = [g.text.strip() for g in generate(base.loaded, found.prompts, each, base.active)]
    answers = found.answers
    out = {
        "nats_per_token": nats_per_token(nats[:, 0], nats[:, 1], seed=seed),
        "exact_match": exact_match(answers, texts, seed=seed),
        "rouge_l": rouge_l(answers, texts, seed=seed),
    }
    if has_sacrebleu():
        out |= {"chrf": chrf(answers, texts, seed=seed), "bleu": bleu(answers, texts, seed=seed)}
    if all_json(answers):
        out |= {
            "json_valid": json_valid(texts, seed=seed),
            "json_match": json_match(answers, texts, seed=seed),
        }
    return out
