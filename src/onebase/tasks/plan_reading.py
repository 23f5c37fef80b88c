"""The plan of a method that learns by no steps, which takes the time of reading: a part of the rows is read on the clock."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from onebase.engine import image_features as images
from onebase.engine.features import features
from onebase.engine.scoring import batch_tokens
from onebase.tasks.job import Adapting
from onebase.train.memory import available

PICTURES = 8
"""Pictures that are read."""
BY_READING = "a part of the rows read by this base, after one batch to warm up; fitting the head is not in it"


class _Read(Exception):
    """The texts or pictures that would be read: it ends the job there."""

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__()
        self.given = given


def by_reading(job: Adapting, maker: Callable[[Adapting], object]) -> dict[str, Any]:
    """What the job would read, and the time of it, measured on some."""
    given, base = _given(job, maker), job.base
    facts: dict[str, Any] = {"seconds": {"reading": 0.0, "how": BY_READING, "probe": 0.0}}
    if not given:
        return facts
    if isinstance(given[0], Path):
        part, tokens = given[:PICTURES], 0
        seconds = _timed(lambda: images.features(base, part, "mean", None)) * len(given) / len(part)
    else:
        tokens = sum(len(t) for t in given)
        every = max(1, tokens // (2 * batch_tokens(base.model.device)))
        some = given[::every]
        kept, base.memory = base.memory, None  # what is remembered would take no time
        try:
            seconds = _timed(lambda: features(base, some, "mean", None)) * tokens / sum(len(t) for t in some)
        finally:
            base.memory = kept
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


def _given(job: Adapting, maker: Callable[[Adapting], object]) -> Sequence[Any]:
    """The job itself, up to where the base would read."""

    def stop(given: Callable[[], Sequence[Any]]) -> NoReturn:
        raise _Read(given())

    job.reads = stop
    try:
        maker(job)
    except _Read as e:
        return e.given
    raise AssertionError(f"method {job.method} of task {job.task} does not say what it reads")


def _timed(work: Callable[[], object]) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
