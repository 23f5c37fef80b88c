"""Scores of what a base writes: how likely the answers of the rows are to it, and how near its own come to them."""

from dataclasses import dataclass

from onebase.api.scoring.asked import Asked
from onebase.api.texts import chat_rows, completion_rows
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.metrics import exact_match, nats_per_token, rouge_l
from onebase.generate.engine import generate
from onebase.generate.sampler import Sampling


@dataclass(frozen=True)
class Asks:
    """Of each row: prompt and answer as one sample, the prompt as token ids, the answer as text."""

    samples: list[Tokens]
    prompts: list[list[int]]
    answers: list[str]


def completion_scores(asked: Asked) -> dict[str, Score]:
    """See `_scores`. Rows have prompt and completion."""
    base, rows = asked.base, read_rows(asked.data, ("prompt", "completion"))
    prompts = [base.tokenizer.encode(r["prompt"], bos=True) for r in rows]
    answers = [str(r["completion"]).strip() for r in rows]
    return _scores(asked, Asks(completion_rows(base.loaded, rows), prompts, answers))


def chat_scores(asked: Asked) -> dict[str, Score]:
    """See `_scores`. Rows have messages, the last of which is the answer."""
    base, rows = asked.base, read_rows(asked.data, ("messages",))
    for i, r in enumerate(rows, 1):
        if len(r["messages"]) < 2 or r["messages"][-1].get("role") != "assistant":
            raise DataError(
                f"row {i} does not end in an answer of the assistant",
                "let it be the last message: it is compared",
            )
    prompts = [base.loaded.codec.chat_ids(r["messages"][:-1]) for r in rows]
    answers = [str(r["messages"][-1]["content"]).strip() for r in rows]
    return _scores(asked, Asks(chat_rows(base.loaded, rows), prompts, answers))


def _scores(asked: Asked, found: Asks) -> dict[str, Score]:
    """nats_per_token of the answers; exact_match and rouge_l of greedy generations. Raises DataError for a row beyond the context."""
    base, seed = asked.base, asked.seed
    context = base.config.text.context
    for i, sample in enumerate(found.samples, 1):
        if len(sample.ids) > context:
            raise DataError(
                f"row {i} has {len(sample.ids)} tokens, the base reads {context}", "shorten or drop it"
            )
    nats = completion_nats(base.loaded, found.samples, base.active)
    room = [min(asked.max_tokens, context - len(p)) for p in found.prompts]
    each = [Sampling(max_tokens=max(1, n)) for n in room]
    outs = [g.text.strip() for g in generate(base.loaded, found.prompts, each, base.active)]
    return {
        "nats_per_token": nats_per_token(nats[:, 0], nats[:, 1], seed=seed),
        "exact_match": exact_match(found.answers, outs, seed=seed),
        "rouge_l": rouge_l(found.answers, outs, seed=seed),
    }
