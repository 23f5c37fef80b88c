"""Adapting a base: tasks and methods are orthogonal; one table says which pairs there are, and why the others are not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from onebase.adapt.config import Method
from onebase.adapt.config import Task as TaskName
from onebase.adapt.folder import AdapterParts
from onebase.base.folder import LoadedBase
from onebase.codec.text.clock import at, today
from onebase.data import read_rows
from onebase.errors import UserError
from onebase.tasks import by_head as heads
from onebase.tasks import by_prompt as prompt
from onebase.tasks import classify, continued, distil, embed, prefer, regress, reinforce, reward, tag
from onebase.tasks import rows as reading
from onebase.tasks import writing as generate
from onebase.tasks.bound import Bound
from onebase.tasks.checks import check_reads, check_room, check_writes
from onebase.tasks.dates import began
from onebase.tasks.job import Adapting, Data, rows_hash
from onebase.tasks.options import AdaptOptions, read_options
from onebase.tasks.results import Adapter
from onebase.tasks.teachers import teaches_writing
from onebase.train.listen import Listener

__all__ = ["METHODS", "TASKS", "Data", "adapted", "prepared", "rows_hash"]

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
    writes: Callable[[AdaptOptions], bool] = lambda _: False
    """Is it learnt by predicting next tokens, which not every base does? It may hang on the options."""


def _always(options: AdaptOptions) -> bool:
    return True


_WRITES = Task(
    {"prompt": prompt.by_prompt, **dict.fromkeys(BY_STEPS, generate.by_steps)},
    {"head": "a head says which of some labels, it writes no text"},
    writes=_always,
)

TASKS: dict[str, Task] = {
    "classify": Task(
        {
            "prompt": prompt.by_prompt,
            "head": classify.by_head,
            **dict.fromkeys(BY_STEPS, classify.by_steps),
        },
        images=("head", "lora", "full"),
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
    "prefer": Task(
        dict.fromkeys(BY_STEPS, prefer.by_steps),
        {
            "prompt": "a prompt learns nothing of answers: write into it what is wanted (onebase chat)",
            "head": "a head writes no text: one that says how good an answer is, is task reward",
        },
        writes=_always,
    ),
    "reward": Task(
        {"head": reward.by_head, **dict.fromkeys(BY_STEPS, reward.by_steps)},
        {"prompt": "a prompt gives each of some answers a probability, no number"},
    ),
    "reinforce": Task(
        dict.fromkeys(BY_STEPS, reinforce.by_steps),
        {
            "prompt": "a prompt learns nothing from rewards: write into it what is wanted (onebase chat)",
            "head": "a head writes no text: one that says how good an answer is, is task reward",
        },
        writes=_always,
    ),
    "continue": Task(
        dict.fromkeys(BY_STEPS, continued.by_steps),
        {
            "prompt": "a prompt learns nothing of a text",
            "head": "a head says which of some labels, it writes no text",
        },
        writes=_always,
    ),
    "distil": Task(
        dict.fromkeys(BY_STEPS, distil.by_steps),
        {
            "prompt": "a prompt learns nothing from a teacher",
            "head": "a head alone is fitted on labels: let the teacher give them (onebase apply), and learn task classify",
        },
        writes=teaches_writing,
    ),
}


def adapted(
    base: Bound,
    data: Data,
    *,
    task: str,
    method: str,
    options: Mapping[str, object],
    listeners: Sequence[Listener] = (),
    tell: Any = None,
    test: Data | None = None,
    columns: Mapping[str, str] | None = None,
    resume: str | Path | None = None,
) -> Adapter:
    """`Base.adapt`, its options as plain values."""
    found = read_options(dict(options))
    if base.attached is not None:
        raise UserError(
            "this base has an adapter on it", "adapt the plain base: onebase.load(ref).adapt(...)"
        )
    job, maker = prepared(
        base.loaded,
        data,
        task=task,
        method=method,
        options=found,
        listeners=listeners,
        tell=tell,
        test=test,
        columns=columns,
        resume=resume,
    )
    return Adapter(maker(job))


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
    resume: str | Path | None = None,
) -> tuple[Adapting, Callable[[Adapting], AdapterParts]]:
    """The job with its rows read, and what makes its adapter. Raises UserError for what does not fit.

    columns: what the data (and the test rows) call a column, by what the task calls it. resume: the folder of its checkpoints."""
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
    check_reads(base, method in chosen.images)
    if method == "prompt" or chosen.writes(options):
        check_writes(base, task, method)
    check_room(base, method, options)
    options = replace(options, date=options.date or began(resume) or today())
    with at(options.date):
        rows = reading.read(base, data, task, method, options, columns)
    test = read_rows(test, (), columns=columns) if test is not None and columns else test
    named = cast(TaskName, task)  # it is in the table
    job = Adapting(
        base,
        rows,
        named,
        method,
        options,
        tuple(listeners),
        tell or (lambda _: None),
        test,
        None if resume is None else Path(resume),
    )

    def make(job: Adapting) -> AdapterParts:
        with at(job.options.date):
            return chosen.makers[method](job)

    return job, make
