"""What a task is: all that differs from one task to another, in one value. The table of them is `table`."""

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
"""Makes the adapter of a job."""


@dataclass(frozen=True)
class Maker:
    """How a task's adapters are made by a method that does not learn by steps. columns: those that rows must have by the options of the method, where they are not
    the task's (rows then have no samples); asks: those of them that a test row is found by."""

    make: MakeAdapter
    columns: Callable[[Any], tuple[str, ...]] | None = None
    asks: Callable[[Any], tuple[str, ...]] | None = None


@config
class JudgeConfig:
    """How completions are judged: `reward`, `max_tokens`, `stop` and `success` as task reinforce learns by them (`ReinforceConfig`).
    samples: completions of a prompt at temperature 1, beside the greedy one."""

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
    """A base (with or without an adapter), rows to score it on, the seed of the intervals, the longest text that it may write, and
    the form that it must have. judge: how completions are judged, where they are."""

    base: Bound
    data: Data
    seed: int = 0
    max_tokens: int = 64
    constraint: Constraint | None = None
    judge: JudgeConfig | None = None


@dataclass(frozen=True)
class Shown:
    """An answer of an adapter as people read it, in one line, and as fields for programs."""

    line: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What columns may hang on: the base, the options, and the rows that can be read (a call reads them)."""

    base: LoadedBase
    options: AdaptOptions
    rows: Callable[[], Sequence[Mapping[str, Any]]]


def always(options: AdaptOptions) -> bool:
    """`Task.writes` of what is always learnt by predicting next tokens."""
    return True


def never(options: AdaptOptions) -> bool:
    """`Task.writes` of what never is."""
    return False


@dataclass(frozen=True)
class Task:
    """What a user wants of a base.

    columns: those that rows must have, or what says so. lesson: what a method that learns by steps learns. methods: of the methods that do not learn by steps, how they
    make an adapter, or why they do not. options: the class of what users may say of the task (fields by `methods.method.option`). images: is it also learnt from images, on a base that reads no text, by methods that need none? writes: is it
    learnt by predicting next tokens, which not every base does? It may hang on the options. opened: rows of what is given, where files may be of text.
    check: what is wrong with the values of a row. samples: what makes of rows what is learnt, as tokens, once; it says which have none, or one
    that is longer than the base reads. compared: columns that a test row must have, and by which it is found among the rows (none: it has all of `columns`); by_sample: it
    is found by what its sample says. predictions: what
    the base says of rows, beside what is true: what scores are computed from (`evaluation.scores`); constrained, judged: are these answers that may have
    to have a form, or that a reward may judge?
    answer: what an adapter says of texts (of a saved prompt: of rows), in their order; reads: the columns of a row that it is asked by, lists: those of them
    that hold a list of texts; route: where the server answers, below /v1 (the task's name, if nothing is said).
    tuned_by: trials are compared by the first of these scores that there is; none: it is not tuned. signal: what it learns from, by which the methods' rates differ.
    """

    name: str
    columns: tuple[str, ...] | Callable[[Look], tuple[str, ...]]
    lesson: Callable[[Adapting], Lesson]
    methods: Mapping[str, Maker | str] = field(default_factory=dict)
    options: type[Any] = NoOptions
    images: bool = False
    writes: Callable[[AdaptOptions], bool] = never
    opened: Callable[[Data], Data] = lambda data: data
    check: Check = lambda row: None
    samples: Callable[[RowReader], Make] = no_samples
    compared: tuple[str, ...] = ()
    by_sample: bool = False
    predictions: Callable[[ScoreRequest], Any] | None = None
    answer: Callable[[Bound, Sequence[Given]], list[Shown]] | None = None
    reads: tuple[str, ...] = ("text",)
    lists: tuple[str, ...] = ()
    route: str = ""
    constrained: bool = False
    takes_judge: bool = False
    tuned_by: tuple[str, ...] = ()
    signal: Signal = "answers"

    @property
    def makers(self) -> dict[str, MakeAdapter]:
        """What makes an adapter, by method."""
        alone = {name: how.make for name, how in self.methods.items() if isinstance(how, Maker)}
        return alone | dict.fromkeys(BY_STEPS, by_steps(self.lesson))

    @property
    def refused(self) -> dict[str, str]:
        """Methods that do not fit, and why."""
        return {name: how for name, how in self.methods.items() if isinstance(how, str)}

    def maker(self, method: str) -> Maker | None:
        """How a method makes its adapters, where it does not learn by steps."""
        how = self.methods.get(method)
        return how if isinstance(how, Maker) else None

    @property
    def path(self) -> str:
        """Where the server answers."""
        return f"/v1/{self.route or self.name}"

    def columns_of(self, look: Look) -> tuple[str, ...]:
        """The columns that these rows must have."""
        return self.columns if isinstance(self.columns, tuple) else self.columns(look)
