"""Adapts a base to a task by a method. One table lists all tasks; each task states which methods train it, and why the others do not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onebase.artifact.files import read_manifest
from onebase.base.folder import LoadedBase
from onebase.data.file_hashes import files_read
from onebase.data.labelled import Data
from onebase.engine.prompter import Given
from onebase.engine.prompting import columns as prompt_columns
from onebase.errors import ConfigError, UserError
from onebase.methods.bound import Bound
from onebase.methods.folder import AdapterParts, Attached
from onebase.methods.table import BY_STEPS, METHODS, method_of
from onebase.modality.text.clock import at, today
from onebase.opening.names import resolved
from onebase.tasks import (
    caption,
    classify,
    contacts,
    continued,
    distil,
    draw,
    embed,
    extract,
    prefer,
    regress,
    reinforce,
    rerank,
    reward,
    segment,
    tag,
    transcribe,
    writing,
)
from onebase.tasks.base import MakeAdapter, ScoreRequest, Shown, Task, never
from onebase.tasks.checks import check_reads, check_room, check_writes
from onebase.tasks.job import NO_METADATA, AboutData, Adapting, rows_hash
from onebase.tasks.option_names import METHOD, TASK
from onebase.tasks.options import TASK_OPTIONS, given_options, read_options
from onebase.tasks.results import Adapter
from onebase.tasks.rows import compared_by, read, read_test
from onebase.train.callbacks import Callback
from onebase.train.checkpoint import list_checkpoints

__all__ = [
    "BY_STEPS",
    "METHODS",
    "PREDICTIONS",
    "TASKS",
    "Task",
    "adapted",
    "answers",
    "prepared",
    "rows_hash",
]

TASKS: dict[str, Task] = {
    t.name: t
    for t in (
        classify.TASK,
        regress.TASK,
        tag.TASK,
        writing.COMPLETE,
        writing.CHAT,
        embed.TASK,
        rerank.TASK,
        extract.TASK,
        prefer.TASK,
        reward.TASK,
        reinforce.TASK,
        continued.TASK,
        distil.TASK,
        transcribe.TASK,
        caption.TASK,
        draw.TASK,
        segment.TASK,
        contacts.TASK,
    )
}

TASK_OPTIONS.update({name: t.options for name, t in TASKS.items()})

PREDICTIONS: dict[str, Callable[[ScoreRequest], Any]] = {
    **{name: t.predictions for name, t in TASKS.items() if t.predictions is not None},
    "text": continued.likely_texts,
}
"""The functions that compute predictions for scores, by task."""


def register(task: Task) -> None:
    """Add a task of another package. Raises ConfigError if its name is taken."""
    if TASKS.get(task.name, task) is not task or (task.name not in TASKS and task.name in PREDICTIONS):
        raise ConfigError(f"two tasks have the name {task.name!r}", "give one of them another name")
    TASKS[task.name] = task
    TASK_OPTIONS[task.name] = task.options
    if task.predictions is not None:
        PREDICTIONS[task.name] = task.predictions


def asked_by(on: Attached | None) -> tuple[str, ...]:
    """The columns of a row that an adapter takes as input."""
    task = None if on is None or on.config.prompt is not None else TASKS.get(on.task)
    if task is None:
        return prompt_columns(on)
    return (file,) if (file := _file_of_head(on)) is not None else task.reads


def files_of(on: Attached | None) -> tuple[str, ...]:
    """Those of the input's columns that hold a file."""
    task = None if on is None else TASKS.get(on.task)
    if task is None:
        return ()
    return (file,) if (file := _file_of_head(on)) is not None else task.files


def _file_of_head(on: Attached | None) -> str | None:
    """The column of files that a head which gives labels reads; None for one that reads texts, and for other tasks."""
    head = None if on is None else on.config.head
    return head.reads if head is not None and head.reads != "text" and head.gives in ("one", "many") else None


def files_found(
    on: Attached | None, rows: Sequence[Mapping[str, Any]], folder: Path
) -> Sequence[Mapping[str, Any]]:
    """The rows with relative paths of files starting at a folder."""
    names = files_of(on)
    return [{k: folder / v if k in names and isinstance(v, str) else v for k, v in r.items()} for r in rows]


def answers(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    """Answers of the adapter on a base to texts, or to rows where its input has several columns. Raises UserError for tasks without answers."""
    on = bound.attached
    task = None if on is None else TASKS.get(on.task)
    if task is None or task.answer is None:
        able = [t.name for t in TASKS.values() if t.answer is not None]
        what = "the base has no adapter" if on is None else f"this adapter is for task {on.task}"
        raise UserError(what, f"give --adapter DIR of one of these tasks: {', '.join(able)}")
    return task.answer(bound, given)


def adapted(
    base: Bound,
    data: Data,
    *,
    task: str | None,
    method: str | None,
    options: Mapping[str, object],
    callbacks: Sequence[Callback] = (),
    log: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    resume: str | Path | None = None,
    data_licence: str | None = None,
    data_source: str | None = None,
) -> Adapter:
    """`Base.adapt`, with options as plain values."""
    read_options(options, task or TASK, method or METHOD)
    if base.attached is not None and not base.own:
        raise UserError(
            "this base has an adapter on it", "adapt the plain base: onebase.load(ref).adapt(...)"
        )
    job, maker = prepared(
        base.loaded,
        data,
        task=task,
        method=method,
        options=options,
        callbacks=callbacks,
        log=log,
        test=test,
        columns=columns,
        resume=resume,
        about=AboutData(data_licence, data_source),
    )
    return Adapter(maker(job))


def prepared(
    base: LoadedBase,
    data: Data,
    *,
    task: str | None,
    method: str | None,
    options: Mapping[str, object],
    callbacks: Sequence[Callback] = (),
    log: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    resume: str | Path | None = None,
    about: AboutData = NO_METADATA,
) -> tuple[Adapting, MakeAdapter]:
    """The job with its rows and test rows read, and the function that builds its adapter. Raises UserError for options that do not fit.

    task, method: None gives the default. options: those that the user set. columns: the data's names of columns (also of test rows), by the
    task's names. resume: the folder of checkpoints. about: metadata of the data, stated by the user."""
    given = given_options(options) | {k: v for k, v in (("task", task), ("method", method)) if v is not None}
    task, method = task or TASK, method or METHOD
    read_as = read_options(options, task, method)
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(TASKS)}")
    how, chosen = method_of(method), TASKS[task]
    makers = chosen.makers
    if method not in makers:
        why = chosen.refused.get(method, "the task does not support it")
        raise UserError(
            f"task {task!r} cannot use method {method!r}: {why}", f"methods for {task}: {', '.join(makers)}"
        )
    able = ", ".join(m.name for m in METHODS.values() if not m.text)
    pictured = ", ".join(t.name for t in TASKS.values() if t.images)
    if chosen.fits is not None:
        chosen.fits(base)
    else:
        check_reads(base, chosen.images and not how.text, f"images need task {pictured} with method {able}")
    if how.predicts or chosen.writes(read_as):
        others = ", ".join(t.name for t in TASKS.values() if t.writes is never)
        check_writes(base, task, method, f"use a base that generates text; tasks for this one: {others}")
    check_room(base, method, read_as)
    read_as = replace(read_as, date=read_as.date or began(resume) or today())
    with at(read_as.date):
        with files_read() as files:
            rows = read(base, resolved(data), chosen, method, read_as, columns)
        test_rows = None
        if test is not None and rows:
            with files_read() as test_files:
                test_rows = read_test(base, resolved(test), chosen, method, read_as, columns)
            about = replace(about, test_files=tuple(test_files))
    job = Adapting(
        base,
        rows,
        chosen.name,
        method,
        read_as,
        tuple(callbacks),
        log or (lambda _: None),
        test_rows,
        None if resume is None else Path(resume),
        compared_by(base, chosen, method, read_as, lambda: rows),
        given,
        replace(about, files=tuple(files)),
    )

    def make(job: Adapting) -> AdapterParts:
        with at(job.options.date):
            return makers[method](job)

    return job, make


def began(resume: str | Path | None) -> str | None:
    """The date of the run whose checkpoints are in a folder, however often it was resumed; None without checkpoints."""
    saved = [] if resume is None else list_checkpoints(Path(resume) / "checkpoints")
    identity = read_manifest(saved[-1])["facts"].get("identity") if saved else None
    date = identity.get("date") if isinstance(identity, dict) else None
    return date if isinstance(date, str) else None
