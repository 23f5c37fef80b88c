"""One way to learn any task by steps: its lesson, the method on the base, the loop, and the adapter that comes of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from onebase.artifact.record import Record
from onebase.base.model import BaseModel
from onebase.data import Order
from onebase.methods.config import AdapterConfig, part_field
from onebase.methods.folder import AdapterParts, adapter_tensors, bound_to
from onebase.methods.method import SCRATCH, Learner, Signal
from onebase.methods.table import METHODS
from onebase.objective.base import Objective
from onebase.tasks.job import Adapting, Facts
from onebase.tasks.learning import learn, learner, train_config

Fields = Mapping[str, Any]
"""Fields of `AdapterConfig` that a task gives its adapters."""


@dataclass(frozen=True)
class Steps:
    """What is learnt once the method is on the base.

    rows: in their order, by step. length: tokens of a row at most, those of the method before it counted. params: what learns beside the method's own
    (a head). scores: what listeners hear of each step beside the loss. after: facts and fields that are known when all is learnt, the
    method still on the base. ends_rate: rate at the codec's ends as a multiple of all else's; None: the method's.
    """

    objective: Objective
    rows: Order
    length: int
    params: Sequence[nn.Parameter] = ()
    facts: Facts = field(default_factory=dict)
    fields: Fields = field(default_factory=dict)
    scores: Callable[[BaseModel], dict[str, float]] | None = None
    after: Callable[[], tuple[Facts, Fields]] | None = None
    ends_rate: float | None = None


@dataclass(frozen=True)
class Lesson:
    """A task's rows, read and checked: what is known before a method is put on the base.

    signal: what is learnt from, by which rates differ. steps: called with the method on the base; what it enters in the stack is left
    when the method comes off. special: tokens whose rows are learnt too where the method leaves the base's own alone. trunk: the one that rows go through.
    task: what the adapter is for, where that is not the job's. recorded: adds to the record of the finished adapter.
    """

    facts: Facts
    signal: Signal
    steps: Callable[[Learner, ExitStack], Steps]
    fields: Fields = field(default_factory=dict)
    special: tuple[int, ...] = ()
    trunk: str = "text"
    task: str | None = None
    recorded: Callable[[Record], None] = lambda record: None


def fit(job: Adapting, lesson: Lesson) -> AdapterParts:
    """Learn the lesson by the job's method. Whatever ends it, the base is what it was."""
    with ExitStack() as stack:
        found = stack.enter_context(learner(job, lesson.special, lesson.trunk))
        made = lesson.steps(found, stack)
        train = train_config(
            job.options,
            made.rows,
            made.length,
            default_lr=METHODS[job.method].rate_of(lesson.signal),
            rows_rate=found.rate if made.ends_rate is None else made.ends_rate,
        )
        learnt = learn(job, made.objective, made.rows, train, [*found.params, *made.params], made.scores)
        facts, fields = ({}, {}) if made.after is None else made.after()
        tensors = found.tensors() | adapter_tensors(job.base, SCRATCH)
    cfg = AdapterConfig(
        method=job.method,
        task=lesson.task or job.task,
        base=bound_to(job.base),
        **{**lesson.fields, **made.fields, **fields},
        **part_field(job.method, found.config),
    )
    parts = job.parts(cfg, tensors, lesson.facts | made.facts | learnt | facts)
    lesson.recorded(parts.record)
    return parts


def by_steps(lesson: Callable[[Adapting], Lesson]) -> Callable[[Adapting], AdapterParts]:
    """What makes the adapters of a task by any method that learns by steps."""
    return lambda job: fit(job, lesson(job))
