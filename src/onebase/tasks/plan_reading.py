"""Plans a method that does not train by steps: its time is that of reading the rows, measured on a part of them."""

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
"""Images that are read."""
BY_READING = "reading a part of the rows, after a warm-up; without the time of fitting the head"


class _Read(Exception):
    """Carries the texts or images that would be read; ends the job there."""

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__()
        self.given = given


def by_reading(job: Adapting, maker: Callable[[Adapting], object]) -> dict[str, Any]:
    """What the job would read, and the time that takes, measured on a part."""
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
        memory, base.memory = base.memory, None  # cached texts would take no time
        try:
            seconds = _timed(lambda: features(base, some, "mean", None)) * tokens / sum(len(t) for t in some)
        finally:
            base.memory = memory
    model = base.model
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    facts |= {
        "tokens": tokens,
        "memory_bytes": {"weights": weights, "total": weights},
        "free_bytes": available(model.device),
        "fits": True,  # the part was read, and no other part is larger
    }
    facts["seconds"]["reading"] = seconds
    return facts


def _given(job: Adapting, maker: Callable[[Adapting], object]) -> Sequence[Any]:
    """Runs the job up to where the base would read; returns what it would read."""

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
