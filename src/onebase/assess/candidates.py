"""What may be compared on a task's rows: classical systems, and methods on bases. Each is planned, learnt from some rows and asked about others."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

from onebase.artifact.record import Origin
from onebase.assess.gating import shipped_bytes
from onebase.assess.rivals import rivals_of
from onebase.codec.text.clock import at
from onebase.data import Rows
from onebase.data.labelled import Records
from onebase.engine.features import remembering
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.table import METHODS
from onebase.readable import duration
from onebase.tasks.base import ScoreRequest
from onebase.tasks.job import AboutData, Adapting
from onebase.tasks.options import COMMON, task_options
from onebase.tasks.plan import plan_of
from onebase.tasks.results import Adapter
from onebase.tasks.table import PREDICTIONS, TASKS, prepared

CLASSICAL, CONTRAST = "classical", "contrast"
ORDER = ("prompt", "head", CONTRAST, "lora", "full")
"""What is tried on each base, where nobody says what."""
CONTRAST_OPTIONS: dict[str, Any] = {"epochs": 8, "batch_size": 64}
"""Of vectors that are learnt first: texts of a step are drawn together, so that steps are large (docs/tuning.md)."""
TEMPLATE = "{text}\nLabel:"
"""Of a prompt whose answers are the names of the labels."""


@dataclass(frozen=True)
class Comparing:
    """What candidates are made from: the task, its training rows (`records` for who reads them, `rows` as they are), options, columns that are
    read, the seed, and the files of the rows."""

    task: str
    records: Records
    rows: Rows
    options: Mapping[str, Any]
    reads: tuple[str, ...]
    seed: int
    about: AboutData


@dataclass
class Learnt:
    """A candidate that has learnt: what it says of rows, seconds to learn, bytes for this task and of a shared base, its adapter where it has one."""

    said: Callable[[Any], Any]
    seconds: float
    size: int
    shared: int = 0
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Candidate:
    """name: as the table says it. method: a method of adaptation, contrast, or classical. seconds: of learning once from all rows, estimated. learn:
    from the rows of these numbers. folding: inside, folds are learnt from: a base that no fold changes reads each text once."""

    name: str
    method: str
    seconds: float
    learn: Callable[[Sequence[int]], Learnt]
    folding: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def classical(self) -> bool:
        return self.method == CLASSICAL


@dataclass(frozen=True)
class Untried:
    """A candidate that was not tried, and why; seconds: of trying it, estimated, where that is known."""

    name: str
    why: str
    seconds: float | None = None


def classical_candidates(given: Comparing) -> list[Candidate]:
    """The classical systems for rows of this kind."""
    return [_classical(make, given) for make in rivals_of(given.task, given.rows, given.reads)]


def _classical(make: Callable[[], Any], given: Comparing) -> Candidate:
    def learn(numbers: Sequence[int]) -> Learnt:
        model = make().fit(given.rows.some(list(numbers)))
        return Learnt(model.predict, model.seconds, model.size)

    return Candidate(make().name, CLASSICAL, 0.0, learn)


def base_candidates(
    base: Bound, name: str, methods: Sequence[str], given: Comparing, left: Callable[[], float]
) -> tuple[list[Candidate], list[Untried]]:
    """The methods on a base that fit it, with the time that each is planned to take; and those that do not, with the reason.

    left: seconds that are left. A plan of a method that learns by steps reads all rows: where the base's head alone takes longer than that, no other
    method is planned. Raises UserError where no method fits: the base cannot learn these rows."""
    made: list[Candidate] = []
    untried: list[Untried] = []
    first: UserError | None = None
    head = 0.0
    # The head's plan is cheap, and a bound for the others: they fit one too.
    for method in sorted(methods, key=lambda m: m != "head"):
        label = f"{method} on {name}"
        if head > left() and method != "head":
            untried.append(Untried(label, f"longer than the head, which takes about {duration(head)}", head))
            continue
        try:
            found = _planned(base, label, method, given)
        except UserError as e:
            first = first or e
            untried.append(Untried(label, e.cause.splitlines()[0]))
            continue
        head = found.seconds if method == "head" else head
        made.append(found)
    if not made and first is not None and not any(u.seconds for u in untried):
        raise UserError(f"{name} cannot learn task {given.task} from these rows: {first.cause}", first.remedy)
    return made, untried


def _planned(base: Bound, label: str, method: str, given: Comparing) -> Candidate:
    """A method on a base, with the time of learning from all rows. Raises UserError where it does not fit, or the base does not."""
    how = "lora" if method == CONTRAST else method
    own = _own_options(method, given)
    asked = _taken({**own, **given.options}, given.task, how)
    job, make = prepared(
        base.loaded,
        given.records,
        task=given.task,
        method=how,
        options=asked,
    )
    ours = {"task", "method", *own} - given.options.keys()
    origins = {**job.origins, **dict.fromkeys(ours, f"{Origin.CHOSEN} by onebase compare")}
    job = replace(job, origins=origins, about=given.about)
    facts = plan_of(replace(job), make).facts
    seconds = facts["seconds"]
    whole = seconds["before"] + seconds.get("steps", seconds.get("reading", 0.0))
    whole += facts.get("head", {}).get("seconds", 0.0)

    def learn(numbers: Sequence[int]) -> Learnt:
        some = job.rows if len(numbers) == len(job.rows) else job.rows.some(list(numbers))
        return _learnt(base, replace(job, rows=some), make)

    def folding() -> AbstractContextManager[None]:
        reads = method == "head" and base.loaded.text_codec is not None and base.loaded.memory is None
        return remembering(base.loaded) if reads else nullcontext()

    return Candidate(label, method, whole, learn, folding)


def _learnt(base: Bound, job: Adapting, make: Callable[[Adapting], Any]) -> Learnt:
    adapter = Adapter(make(job))
    on = base.with_parts([adapter.parts])

    def said(rows: Any) -> Any:
        with at(job.options.date):
            # One token is written: the scores that tasks are judged by do not look at it.
            return PREDICTIONS[job.task](ScoreRequest(on, rows, job.options.seed, max_tokens=1))

    return Learnt(said, float(adapter.record.get("seconds")), *shipped_bytes(on), adapter)


def _taken(options: Mapping[str, Any], task: str, method: str) -> dict[str, Any]:
    """Those of the options that the task or the method has: others are for other candidates."""
    own = {f.name for f in (*COMMON, *fields(task_options(task)))} | {*METHODS[method].option_names}
    return {k: v for k, v in options.items() if k in own}


def _own_options(method: str, given: Comparing) -> dict[str, Any]:
    """The options of a candidate beside those that the user gives to all. Raises UserError for a method that does not fit the rows."""
    if method == CONTRAST:
        _refuse_contrast(given)
        return {"contrast": {"first": True}, **CONTRAST_OPTIONS}
    if method != "prompt" or isinstance(TASKS[given.task].methods.get("prompt"), str):
        return {}
    if given.task != "classify" or "label" not in given.rows[0] or "text" not in given.rows[0]:
        raise UserError("a prompt is made of the names of labels, and these rows have none", "")
    return {"prompt": TEMPLATE, "answers": answers_of(sorted({str(r["label"]) for r in given.rows}))}


def _refuse_contrast(given: Comparing) -> None:
    if given.task != "classify" or "label" not in given.rows[0] or "text" not in given.rows[0]:
        raise UserError("contrast draws texts of one label together, and these rows are none", "")
    if max(Counter(str(r["label"]) for r in given.rows).values()) < 3:
        raise UserError("contrast draws texts of one label together, and no label has three", "")


def answers_of(labels: Sequence[str]) -> dict[str, str]:
    """The names of labels as answers. Raises UserError where they say nothing, or two say the same."""
    said = {label: " " + " ".join(label.replace("_", " ").replace("-", " ").split()) for label in labels}
    if silent := [label for label, text in said.items() if not any(c.isalpha() for c in text)]:
        raise UserError(f"the label {silent[0]!r} has no letters: a prompt cannot ask for it by name", "")
    if len(set(said.values())) < len(said):
        raise UserError("two labels have the same name for a prompt", "")
    return said


def methods_of(asked: Sequence[str] | None, task: str) -> tuple[list[str], bool]:
    """The methods that are tried on each base, and whether classical systems are. Raises UserError for one that is not known."""
    chosen, makers = TASKS[task], TASKS[task].makers
    if asked is None:
        fit = [m for m in ORDER if m in makers or (m == CONTRAST and task == "classify")]
        return fit, True
    known = {CLASSICAL, *(m for m in makers), *([CONTRAST] if task == "classify" else [])}
    if unknown := [m for m in asked if m not in known]:
        why = chosen.refused.get(unknown[0], "it is not known")
        raise UserError(
            f"task {task} is not learnt by {unknown[0]!r}: {why}", f"methods: {', '.join(sorted(known))}"
        )
    return [m for m in dict.fromkeys(asked) if m != CLASSICAL], CLASSICAL in asked
