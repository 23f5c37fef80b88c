"""The plan of a head or a prompt, which take the time of reading: a part of the rows is read on the clock."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from onebase.engine import image_features as images
from onebase.engine.features import features, text_tokens
from onebase.engine.scoring import batch_tokens
from onebase.tasks import by_prompt as prompt
from onebase.tasks.job import Adapting
from onebase.train.memory import available

PICTURES = 8
"""Pictures that are read."""
BY_READING = "a part of the rows read by this base, after one batch to warm up; fitting the head is not in it"


class _Read(Exception):
    """The texts or pictures that a head would be fitted on: it ends the job there."""

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__()
        self.given = given


def by_reading(job: Adapting, maker: Callable[[Adapting], object]) -> dict[str, Any]:
    """A head or a prompt takes the time of reading the rows: some of them are read."""
    rows = job.rows
    forms = prompt.forms(job) if job.method == "prompt" else []
    facts: dict[str, Any] = {"seconds": {"reading": 0.0, "how": BY_READING, "probe": 0.0}}
    if not rows or (job.method == "prompt" and not forms):
        return facts
    base = job.base
    if job.method == "head" and images.sees_images(base, list(rows)):
        paths = _of_a_head(job, maker)
        part, tokens = paths[:PICTURES], 0
        seconds = _timed(lambda: images.features(base, part, "mean", None)) * len(paths) / len(part)
    else:
        texts = _of_a_head(job, maker) if job.method == "head" else text_tokens(base, forms, None)
        tokens = sum(len(t) for t in texts)
        every = max(1, tokens // (2 * batch_tokens(base.model.device)))
        some = texts[::every]
        kept, base.memory = base.memory, None  # what is remembered would take no time
        try:
            seconds = _timed(lambda: features(base, some, "mean", None)) * tokens / sum(len(t) for t in some)
        finally:
            base.memory = kept
    if job.method == "prompt":
        answers = job.options.own.answers or {"": ""}  # of other tasks only examples are read, once
        tails = base.codec.tokenizer.encode_batch(list(answers.values()), follows="text")
        seconds *= 1 if all(len(t) <= 1 for t in tails) else len(tails)
    model = base.model
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    facts |= {
        "tokens": tokens,
        "memory_bytes": {"weights": held, "total": held},
        "free_bytes": available(model.device),
        "fits": True,  # the part that was read is as large as any
    }
    facts["seconds"]["reading"] = seconds
    return facts


def _of_a_head(job: Adapting, maker: Callable[[Adapting], object]) -> Sequence[Any]:
    """The job itself, up to where the texts or pictures would be read that its head is fitted on."""

    def stop(given: Sequence[Any]) -> NoReturn:
        raise _Read(given)

    job.reads = stop
    try:
        maker(job)
    except _Read as e:
        return e.given
    raise AssertionError(f"task {job.task} fits a head without reading")


def _timed(work: Callable[[], object]) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
