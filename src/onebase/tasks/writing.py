"""Tasks complete and chat: supervised fine-tuning on completions, or on the assistant's messages of conversations."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.data import RowPlan, TokenSet, read_rows
from onebase.data.labelled import Records
from onebase.data.order import ExampleOrder, Order, one_by_one
from onebase.engine.decoder import generate
from onebase.engine.features import chat_row, completion_row
from onebase.engine.media_samples import chat_with_images, has_images
from onebase.engine.prompter import texts_of
from onebase.engine.prompting import prompted
from onebase.engine.sampler import Sampling
from onebase.errors import DataError, UserError
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.predictions import Written
from onebase.methods.method import Learner
from onebase.methods.table import METHODS
from onebase.modality.text.codec import Known
from onebase.modality.text.sample import Tokens, joined
from onebase.modality.text.validation import stretches
from onebase.objective.next_token import NextToken
from onebase.tasks import by_prompt, prompts
from onebase.tasks.base import ScoreRequest, Task, always
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.ledgers import check_written
from onebase.tasks.media_rows import media_steps, written
from onebase.tasks.reading import one_sample, samples_in, special_ids

PACKED = 256
"""Tokens of a packed row, at least, if the context is that long."""


def lesson(job: Adapting) -> Lesson:
    """Next-token prediction on the supervised tokens only."""
    tokens, test = samples_in(job.rows), None if job.test is None else samples_in(job.test)
    if seen := any(t.media for t in tokens):
        check_virtual(job)
    facts = (
        data_facts(job.rows)
        | check_written(job, tokens, test, chats=job.task == "chat")
        | {"data.tokens": (sum(len(t.ids) for t in tokens), "counted")}
    )

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        plan, length = sample_plan(job, tokens, learner.before)
        return Steps(NextToken(length, learner.routing), plan, learner.before + length)

    how = media_steps(job, tokens) if seen else steps
    ids = special_ids(tokens, job.base.codec.tokenizer)
    return Lesson(facts, "answers", how, special=ids, trunk="" if seen else "text")


def sample_plan(job: Adapting, tokens: Sequence[Tokens], before: int) -> tuple[Order, int]:
    """The rows and their length. Samples are packed, except with virtual tokens before each: then every sample is a row."""
    o, base = job.options, job.base
    # Rows of the whole context would cost the memory of the whole context, however short the samples are.
    longest = max(len(t.ids) for t in tokens)
    length = o.max_length or min(base.model.cfg.text.context, max(longest, PACKED))
    tokenset = TokenSet.from_tokens(tokens, alike=base.codec.tokenizer.roles.chat_framed)
    if before:
        length = min(length, base.model.cfg.text.context - before)
        RowPlan(tokenset, length, 1, o.seed, long="refuse")  # reports samples that are too long
        per_step = max(1, min(o.batch_size, len(tokens) // 4))
        return ExampleOrder(one_by_one(tokens), per_step, o.seed, o.epochs), longest
    per_step = max(1, min(o.batch_size, sum(len(t.ids) for t in tokens) // length // 4))
    return RowPlan(tokenset, length, per_step, o.seed, long="refuse", epochs=o.epochs), length


@dataclass(frozen=True)
class EvalPrompts:
    """For each row: prompt and answer as one sample, the prompt as token ids, the answer as text."""

    samples: list[Tokens]
    prompts: list[list[int]]
    answers: list[str]


def completions(request: ScoreRequest) -> Written:
    """See `_written`. Rows have prompt and completion, and the variables of a saved prompt."""
    base, on = request.base, request.base.attached
    asks = on is None or on.config.prompt is None or "text" in on.config.prompt.variables
    rows = read_rows(request.data, (*(["prompt"] if asks else []), "completion"), check=text_problem)
    texts = [str(r["prompt"]) if asks else "" for r in rows]
    read = [
        prompted(on, t, _values(request, r, i)).read
        for i, (t, r) in enumerate(zip(texts, rows, strict=True), 1)
    ]
    samples, prompts = [], []
    for i, (r, prompt) in enumerate(zip(rows, read, strict=True), 1):
        known: Known = {}
        samples.append(completion_row(base.loaded, {**r, "prompt": prompt}, str(i), known))
        prompts.append(base.tokenizer.begun(known[prompt, "nothing"]))
    answers = [str(r["completion"]).strip() for r in rows]
    return _written(request, EvalPrompts(samples, prompts, answers))


def chats(request: ScoreRequest) -> Written:
    """See `_written`. Rows have messages, the last of which is the answer."""
    base, records = request.base, Records.of(request.data)
    rows = read_rows(records, ("messages",), check=answer_problem)
    answers = [str(joined(r["messages"][-1])["content"]).strip() for r in rows]
    if any(has_images(r["messages"]) for r in rows):
        seen = [_conversation(base.loaded, r, records.folder) for r in rows]
        return written(request, [_less_first(t, len(stretches(t)) - 1) for t in seen], answers)
    samples, prompts = [], []
    for i, r in enumerate(rows, 1):
        read = list(prompted(base.attached, r["messages"][:-1], _values(request, r, i)).read)
        known: Known = {}
        sample = chat_row(base.loaded, {"messages": [*read, r["messages"][-1]]}, str(i), known)
        shown = _answers(read) - _answers(r["messages"][:-1])
        samples.append(_less_first(sample, shown) if shown else sample)
        prompts.append(base.loaded.codec.chat_ids(read, known=known))
    return _written(request, EvalPrompts(samples, prompts, answers))


def text_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a prompt that is not text, and what to do."""
    if isinstance(prompt := row.get("prompt", ""), str):
        return None
    return (
        f"'prompt' is {type(prompt).__name__}, expected text",
        "correct the row; messages are for task chat",
    )


def _conversation(base: LoadedBase, row: Mapping[str, Any], folder: Path) -> Tokens:
    """A row with messages as tokens, and its images."""
    if has_images(row["messages"]):
        return chat_with_images(base, row["messages"], folder)
    return chat_row(base, row)


def check_virtual(job: Adapting) -> None:
    """Raises UserError for methods of virtual tokens, with images in the rows."""
    if METHODS[job.method].virtual(job.options.of_method):
        raise UserError(
            f"method {job.method} puts virtual tokens before a text, and these rows have images",
            "use lora or full",
        )


def answer_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with messages that do not end with an answer, and what to do."""
    last = row["messages"][-1]
    if len(row["messages"]) > 1 and isinstance(last, Mapping) and last.get("role") == "assistant":
        return None
    return "does not end with an answer of the assistant", "make the expected answer the last message"


def _values(request: ScoreRequest, row: Mapping[str, Any], number: int) -> dict[str, str]:
    """The values of a saved prompt's variables in a row, except the text."""
    on = request.base.attached
    cfg = on.config.prompt if on is not None else None
    names = [] if cfg is None else [n for n in cfg.variables if n != "text" and row.get(n) is not None]
    return texts_of({n: row[n] for n in names}, f"row {number}: ")


def _answers(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(m.get("role") == "assistant" for m in messages)


def _less_first(sample: Tokens, turns: int) -> Tokens:
    """The sample without loss on the first assistant turns, which belong to the prompt's examples."""
    loss = sample.loss.copy()
    starts = np.flatnonzero(loss & ~np.concatenate(([False], loss[:-1])))
    loss[: starts[turns]] = False
    return replace(sample, loss=loss)


def _written(request: ScoreRequest, rows: EvalPrompts) -> Written:
    """Likelihood of the answers, and the base's greedy completions. Raises DataError for a row longer than the context, UserError for a
    constraint that cannot be followed."""
    base = request.base
    context = base.config.text.context
    for i, sample in enumerate(rows.samples, 1):
        if len(sample.ids) > context:
            raise DataError(
                f"row {i} has {len(sample.ids)} tokens, the base reads {context}", "shorten or remove it"
            )
    nats = completion_nats(base.loaded, rows.samples, base.routing)
    limits = [min(request.max_tokens, context - len(p)) for p in rows.prompts]
    each = [Sampling(max_tokens=max(1, n), constraint=request.constraint) for n in limits]
    texts = [g.text.strip() for g in generate(base.loaded, rows.prompts, each, base.routing)]
    return Written(rows.answers, texts, nats[:, 0], nats[:, 1])


NO_HEAD = "a head predicts labels, not text"

COMPLETE = Task(
    name="complete",
    columns=("prompt", "completion"),
    lesson=lesson,
    methods={"prompt": by_prompt.maker(prompts.COMPLETIONS), "head": NO_HEAD},
    writes=always,
    check=text_problem,
    samples=lambda reader: one_sample(reader, completion_row),
    by_sample=True,
    predictions=completions,
    constrained=True,
    tuned_by=("nats_per_token",),
    signal="answers",
)
CHAT = replace(
    COMPLETE,
    name="chat",
    columns=("messages",),
    methods={"prompt": by_prompt.maker(prompts.MESSAGES), "head": NO_HEAD},
    check=lambda row: None,
    samples=lambda reader: one_sample(reader, partial(_conversation, folder=reader.folder)),
    predictions=chats,
)
