"""Defines a task: everything that differs between tasks, as one value. `table` lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.config import config
from onebase.data.labelled import Check, Data, Make
from onebase.engine.constrain import Constraint
from onebase.engine.prompter import Given
from onebase.errors import ConfigError
from onebase.methods.bound import Bound
from onebase.methods.folder import AdapterParts
from onebase.methods.method import NoOptions, Signal
from onebase.methods.table import BY_STEPS
from onebase.tasks.fit import Lesson, by_steps
from onebase.tasks.job import Adapting
from onebase.tasks.options import AdaptOptions
from onebase.tasks.reading import RowReader, no_samples

MakeAdapter = Callable[[Adapting], AdapterParts]
"""Builds the adapter of a job."""


@dataclass(frozen=True)
class Maker:
    """Builds a task's adapters by a method that does not train by steps. columns: the required columns, from the method's options, where they
    differ from the task's (rows then have no samples). asks: the columns among them that identify a test row."""

    make: MakeAdapter
    columns: Callable[[Any], tuple[str, ...]] | None = None
    asks: Callable[[Any], tuple[str, ...]] | None = None


@config
class JudgeConfig:
    """How completions are judged: `reward`, `max_tokens`, `stop` and `success` as in training by task reinforce (`ReinforceConfig`).
    samples: completions per prompt at temperature 1, besides the greedy one."""

    reward: str = "exact"
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    success: float = 1.0
    samples: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("samples", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"'{name}' is {getattr(self, name)}", f"give at least {least}")


@dataclass(frozen=True)
class ScoreRequest:
    """A request for scores: the base (with or without an adapter), the rows, the seed of the intervals, the limit on generated tokens, and
    the constraint on the output. judge: how a reward judges completions; None: none does."""

    base: Bound
    data: Data
    seed: int = 0
    max_tokens: int = 64
    constraint: Constraint | None = None
    judge: JudgeConfig | None = None


@dataclass(frozen=True)
class Shown:
    """An answer of an adapter: one line for people, and fields for programs."""

    line: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What a task's columns may depend on: the base, the options, and the readable rows (calling `rows` reads them)."""

    base: LoadedBase
    options: AdaptOptions
    rows: Callable[[], Sequence[Mapping[str, Any]]]


def always(options: AdaptOptions) -> bool:
    """`Task.writes` of tasks that always train by next-token prediction."""
    return True


def never(options: AdaptOptions) -> bool:
    """`Task.writes` of tasks that never do."""
    return False


@dataclass(frozen=True)
class Task:
    """What a user wants of a base.

    columns: the columns that rows must have, or a function that returns them. lesson: what methods that train by steps train on.
    methods: for other methods, how they build an adapter, or why they do not fit. options: the class of the task's own options (fields
    by `methods.method.option`). fits: raises UserError for a base that cannot learn the task (None: it must read text). images: can methods that need no text also train the task on images, on a base that reads no text?
    writes: is the task trained by next-token prediction, which not every base supports? It may depend on the options.
    opened: reads the given data as rows, where files may hold plain text. check: returns what is wrong with the values of a row.
    samples: tokenises rows, once; it reports rows without a sample, or with one longer than the base reads. compared: the columns that a
    test row must have, which identify it among the rows (empty: all of `columns`); by_sample: its tokens identify it instead.
    predictions: the base's output for rows beside the true values, from which scores are computed (`evaluation.scores`).
    constrained, takes_judge: may a constraint apply to these outputs, and may a reward judge them? answer: an adapter's outputs for texts
    (for rows with a saved prompt), in their order. reads: the columns of a row that are its input; lists: those that hold a list of texts; files: those that hold a file.
    route: the server's path below /v1 (empty: the task's name). tuned_by: trials are compared by the first of these scores that
    exists; empty: the task is not tuned. signal: what the task is trained on; the methods' learning rates depend on it.
    """

    name: str
    columns: tuple[str, ...] | Callable[[Look], tuple[str, ...]]
    lesson: Callable[[Adapting], Lesson]
    methods: Mapping[str, Maker | str] = field(default_factory=dict)
    options: type[Any] = NoOptions
    images: bool = False
    fits: Callable[[LoadedBase], None] | None = None
    writes: Callable[[AdaptOptions], bool] = never
    opened: Callable[[Data], Data] = lambda data: data
    check: Check = lambda row: None
    samples: Callable[[RowReader], Make] = no_samples
    compared: tuple[str, ...] = ()
    by_sample: bool = False
    predictions: Callable[[ScoreRequest], Any] | None = None
    answer: Callable[[Bound, Sequence[Given]], list[Shown]] | None = None
    reads: tuple[str, ...] = ("text",)
    files: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    route: str = ""
    constrained: bool = False
    takes_judge: bool = False
    tuned_by: tuple[str, ...] = ()
    signal: Signal = "answers"

    @property
    def makers(self) -> dict[str, MakeAdapter]:
        """The function that builds an adapter, by method."""
        not_by_steps = {name: how.make for name, how in self.methods.items() if isinstance(how, Maker)}
        by_loop = [name for name in BY_STEPS if name not in self.refused]
        return not_by_steps | dict.fromkeys(by_loop, by_steps(self.lesson))

    @property
    def refused(self) -> dict[str, str]:
        """Methods that do not fit, and why."""
        return {name: how for name, how in self.methods.items() if isinstance(how, str)}

    def maker(self, method: str) -> Maker | None:
        """How a method builds its adapters; None for methods that train by steps."""
        how = self.methods.get(method)
        return how if isinstance(how, Maker) else None

    @property
    def path(self) -> str:
        """The server's path for this task."""
        return f"/v1/{self.route or self.name}"

    def columns_of(self, look: Look) -> tuple[str, ...]:
        """The columns that these rows must have."""
        return self.columns if isinstance(self.columns, tuple) else self.columns(look)
