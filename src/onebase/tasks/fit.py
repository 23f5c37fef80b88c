"""Trains any task by any method that trains by steps: its lesson, the method on the base, the loop, and the finished adapter."""

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
"""Fields of `AdapterConfig` that a task sets."""


@dataclass(frozen=True)
class Steps:
    """What the loop needs, known once the method is on the base.

    rows: their order, by step. length: tokens of a row at most, the method's virtual tokens included. params: parameters trained besides
    the method's own (a head). scores: passed to callbacks at each step besides the loss. after: facts and fields known after training, while
    the method is still on the base. ends_rate: learning rate of the codec module as a multiple of the others; None: the method's.
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
    """A task's rows, read and checked, before a method is put on the base.

    signal: what the task is trained on; learning rates depend on it. steps: called with the method on the base; contexts entered on the
    stack are exited when the method is removed. special: tokens whose embedding rows are trained too, by methods that freeze the base's own.
    trunk: the trunk that reads the rows ("": all do). task: the adapter's task, if not the job's. recorded: adds to the record of the finished adapter.
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
    """Train the lesson by the job's method. However it ends, the base is left unchanged."""
    with ExitStack() as stack:
        trainable = stack.enter_context(learner(job, lesson.special, lesson.trunk))
        steps = lesson.steps(trainable, stack)
        train = train_config(
            job.options,
            steps.rows,
            steps.length,
            default_lr=METHODS[job.method].rate_of(lesson.signal),
            rows_rate=trainable.rate if steps.ends_rate is None else steps.ends_rate,
        )
        params = [*trainable.params, *steps.params]
        trained = learn(job, steps.objective, steps.rows, train, params, steps.scores)
        facts, fields = ({}, {}) if steps.after is None else steps.after()
        tensors = trainable.tensors() | adapter_tensors(job.base, SCRATCH)
    cfg = AdapterConfig(
        method=job.method,
        task=lesson.task or job.task,
        base=bound_to(job.base),
        **{**lesson.fields, **steps.fields, **fields},
        **part_field(job.method, trainable.config),
    )
    parts = job.parts(cfg, tensors, lesson.facts | steps.facts | trained | facts)
    lesson.recorded(parts.record)
    return parts


def by_steps(lesson: Callable[[Adapting], Lesson]) -> Callable[[Adapting], AdapterParts]:
    """The function that builds a task's adapters by any method that trains by steps."""
    return lambda job: fit(job, lesson(job))
