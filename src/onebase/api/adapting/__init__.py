"""Adapting a base: tasks and methods are orthogonal; one table says which pairs there are, and why the others are not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from onebase.adapt.config import Method
from onebase.adapt.config import Task as TaskName
from onebase.adapt.folder import AdapterParts
from onebase.api.adapting import classify, embed, generate, heads, reading, regress, tag
from onebase.api.adapting.job import Adapting, Data, rows_hash
from onebase.api.options import AdaptOptions
from onebase.base.folder import LoadedBase
from onebase.data import read_rows
from onebase.errors import UserError
from onebase.train.listen import Listener

__all__ = ["METHODS", "TASKS", "Data", "prepared", "rows_hash"]

METHODS: tuple[Method, ...] = get_args(Method)
BY_STEPS: tuple[Method, ...] = ("lora", "soft", "prefix", "full")
"""Methods that learn by the loop."""


@dataclass(frozen=True)
class Task:
    """What makes an adapter, by method; and for the methods that do not fit, why."""

    makers: Mapping[str, Callable[[Adapting], AdapterParts]]
    refused: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    """Methods that also learn from images, on a base that reads no text."""


_WRITES = Task(
    dict.fromkeys(BY_STEPS, generate.by_steps),
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
            **dict.fromkeys(BY_STEPS, classify.by_steps),
        },
        images=("head",),
    ),
    "regress": Task(
        heads.makers(regress.prepare, BY_STEPS),
        {"prompt": "a prompt gives each of some answers a probability, no number"},
    ),
    "tag": Task(
        heads.makers(tag.prepare, BY_STEPS),
        {"prompt": "a prompt gives each of some answers a probability, no places in a text"},
    ),
    "complete": _WRITES,
    "chat": _WRITES,
    "embed": Task(
        dict.fromkeys(BY_STEPS, embed.by_steps),
        {
            "prompt": "a prompt gives each of some answers a probability, no vectors",
            "head": "a head says which of some labels, it gives no vectors",
        },
    ),
}


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
    named = cast(TaskName, task)  # it is in the table
    job = Adapting(base, rows, named, method, options, tuple(listeners), tell or (lambda _: None), test)
    return job, chosen.makers[method]
