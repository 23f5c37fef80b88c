"""`onebase.evaluate`: a base (with or without an adapter) on data, every score with its interval."""

from collections.abc import Sequence
from typing import Any

from onebase.adapt.folder import Attached
from onebase.api.adapting import Data
from onebase.api.base import Base
from onebase.codec.text.sample import Tokens, chat_sample, completion_sample
from onebase.data import Document, read_rows
from onebase.errors import DataError, UserError
from onebase.evaluate.bootstrap import Score
from onebase.evaluate.likelihood import by_source, completion_nats, document_nats
from onebase.evaluate.metrics import accuracy, exact_match, macro_f1, nats_per_token, rouge_l
from onebase.generate.engine import generate
from onebase.generate.sampler import Sampling

TASKS = ("classify", "complete", "chat", "text")


def evaluate(
    base: Base, data: Data, *, task: str | None = None, max_tokens: int = 64, seed: int = 0
) -> dict[str, Score]:
    """Scores by name.

    classify (text, label): accuracy and macro_f1. complete (prompt, completion) and chat (messages, the last one the answer):
    nats_per_token of the answers, exact_match and rouge_l of greedy generations. text (text): bits_per_byte.
    `task` defaults to the adapter's, or to text. Raises UserError.
    """
    attached = base._attached
    task = task or (attached.task if attached else "text")
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(TASKS)}")
    if task == "text":
        rows = read_rows(data, ("text",))
        documents = (Document(str(r["text"]), "text") for r in rows)
        return {"bits_per_byte": by_source(document_nats(base.loaded, documents), seed=seed)["text"]}
    if task == "classify":
        return _classify(base, attached, data, seed)
    samples, prompts, answers = _samples(base, data, task)
    nats = completion_nats(base.loaded, samples, base._active)
    context = base.config.text.context
    room = [min(max_tokens, context - len(p)) for p in prompts]
    outs = [g.text.strip() for g in _generate(base, prompts, room)]
    return {
        "nats_per_token": nats_per_token(nats[:, 0], nats[:, 1], seed=seed),
        "exact_match": exact_match(answers, outs, seed=seed),
        "rouge_l": rouge_l(answers, outs, seed=seed),
    }


def _classify(base: Base, attached: Attached | None, data: Data, seed: int) -> dict[str, Score]:
    rows = read_rows(data, ("text", "label"))
    found = base.classify([str(r["text"]) for r in rows])
    assert attached is not None
    known = set(found[0].scores)
    truth = [str(r["label"]) for r in rows]
    for i, label in enumerate(truth):
        if label not in known:
            raise DataError(
                f"row {i + 1} has the label {label!r}, which the adapter never saw",
                f"its labels: {', '.join(sorted(known))}",
            )
    guess = [f.label for f in found]
    return {"accuracy": accuracy(truth, guess, seed=seed), "macro_f1": macro_f1(truth, guess, seed=seed)}


def _samples(base: Base, data: Data, task: str) -> tuple[list[Tokens], list[list[int]], list[str]]:
    codec = base.loaded.codec
    rows = read_rows(data, ("messages",) if task == "chat" else ("prompt", "completion"))
    samples, prompts, answers = [], [], []
    for i, r in enumerate(rows):
        if task == "chat":
            sample = chat_sample(r["messages"], id=str(i + 1))
            prompts.append(codec.chat_ids(r["messages"][:-1]))
            answers.append(str(r["messages"][-1]["content"]).strip())
        else:
            sample = completion_sample(r["prompt"], r["completion"], id=str(i + 1))
            prompts.append(base.tokenizer.encode(r["prompt"], bos=True))
            answers.append(str(r["completion"]).strip())
        tokens = codec.tokens(sample)
        if len(tokens.ids) > base.config.text.context:
            raise DataError(
                f"row {i + 1} has {len(tokens.ids)} tokens, the base reads {base.config.text.context}",
                "shorten or drop it",
            )
        samples.append(tokens)
    return samples, prompts, answers


def _generate(base: Base, prompts: Sequence[list[int]], room: Sequence[int], batch: int = 32) -> list[Any]:
    """Greedy generations in the order given; prompts of like length share a batch."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[Any] = [None] * len(prompts)
    for i in range(0, len(order), batch):
        part = order[i : i + batch]
        each = [Sampling(max_tokens=max(1, room[j])) for j in part]
        for j, g in zip(
            part, generate(base.loaded, [prompts[j] for j in part], each, base._active), strict=True
        ):
            out[j] = g
    return out
