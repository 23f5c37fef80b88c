"""Adapting a base: tasks and methods are orthogonal; one table says which pairs there are, and why the others are not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onebase.adapt.folder import AdapterParts
from onebase.api.adapting import classify, embed, generate, reading, regress, tag
from onebase.api.adapting.job import Adapting, Data, rows_hash
from onebase.api.options import AdaptOptions
from onebase.base.folder import LoadedBase
from onebase.data import read_rows
from onebase.errors import UserError
from onebase.train.listen import Listener

__all__ = ["METHODS", "TASKS", "Data", "adapt", "prepared", "rows_hash"]

METHODS = ("prompt", "head", "lora", "soft", "prefix", "full")


@dataclass(frozen=True)
class Task:
    """What makes an adapter, by method; and for the methods that do not fit, why."""

    makers: Mapping[str, Callable[[Adapting], AdapterParts]]
    refused: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    """Methods that also learn from images, on a base that reads no text."""


_WRITES = Task(
    dict.fromkeys(("lora", "soft", "prefix", "full"), generate.by_steps),
    {
        "prompt": "a prompt alone learns nothing of a text: put the instruction into the prompt itself (onebase generate, onebase chat)",
        "head": "a head says which of some labels, it writes no text",
    },
)

TASKS: dict[str, Task] = {
    "classify": Task(
        {
            "prompt": classify.by_prompt,
            "head": classify.by_head,
            **dict.fromkeys(("lora", "soft", "prefix", "full"), classify.by_steps),
        },
        images=("head",),
    ),
    "regress": Task(
        {"head": regress.by_head, **dict.fromkeys(("lora", "soft", "prefix", "full"), regress.by_steps)},
        {"prompt": "a prompt gives each of some answers a probability, no number"},
    ),
    "tag": Task(
        {"head": tag.by_head, **dict.fromkeys(("lora", "soft", "prefix", "full"), tag.by_steps)},
        {"prompt": "a prompt gives each of some answers a probability, no places in a text"},
    ),
    "complete": _WRITES,
    "chat": _WRITES,
    "embed": Task(
        dict.fromkeys(("lora", "soft", "prefix", "full"), embed.by_steps),
        {
            "prompt": "a prompt gives each of some answers a probability, no vectors",
            "head": "a head says which of some labels, it gives no vectors",
        },
    ),
}


def adapt(
    base: LoadedBase,
    data: Data,
    *,
    task: str,
    method: str,
    options: AdaptOptions,
    listeners: Sequence[Listener] = (),
    tell: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
) -> AdapterParts:
    """Make an adapter of `base` from `data`; the base is left as it was. Raises UserError for what does not fit."""
    job, maker = prepared(
        base,
        data,
        task=task,
        method=method,
        options=options,
        listeners=listeners,
        tell=tell,
        test=test,
        columns=columns,
    )
    return maker(job)


def prepared(
    base: LoadedBase,
    data: Data,
    *,
    task: str,
    method: str,
    options: AdaptOptions,
    listeners: Sequence[Listener] = (),
    tell: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Adapting, Callable[[Adapting], AdapterParts]]:
    """The job with its rows read, and what makes its adapter. Raises UserError for what does not fit.

    columns: what the data (and the test rows) call a column, by what the task calls it."""
    if task not in TASKS:
        raise UserError(f"task {task!r} is not known", f"tasks: {', '.join(TASKS)}")
    if method not in METHODS:
        raise UserError(f"method {method!r} is not known", f"methods: {', '.join(METHODS)}")
    chosen = TASKS[task]
    if method not in chosen.makers:
        raise UserError(
            f"task {task!r} with method {method!r} does not go: {chosen.refused[method]}",
            f"methods for {task}: {', '.join(chosen.makers)}",
        )
    if base.words is None and method not in chosen.images:
        raise UserError(
            f"this base reads no text, only {', '.join(sorted(base.model.cfg.codecs))}",
            "images are learnt from by task classify with method head",
        )
    rows = reading.read(base, data, task, method, options, columns)
    test = read_rows(test, (), columns=columns) if test is not None and columns else test
    job = Adapting(base, rows, task, method, options, tuple(listeners), tell or (lambda _: None), test)
    return job, chosen.makers[method]
