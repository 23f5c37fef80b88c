"""Candidates of a comparison: classical systems, and methods on bases. Each is planned, trained on some rows and scored on others."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

from onebase.artifact.record import Origin
from onebase.assess.gating import shipped_bytes
from onebase.assess.rivals import rivals_of
from onebase.data import Rows
from onebase.data.labelled import Records
from onebase.engine.features import remembering
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.methods.table import METHODS
from onebase.modality.text.clock import at
from onebase.readable import duration
from onebase.tasks.base import ScoreRequest
from onebase.tasks.job import AboutData, Adapting
from onebase.tasks.options import COMMON, task_options
from onebase.tasks.plan import plan_of
from onebase.tasks.results import Adapter
from onebase.tasks.table import PREDICTIONS, TASKS, prepared

CLASSICAL, CONTRAST = "classical", "contrast"
ORDER = ("prompt", "head", CONTRAST, "lora", "full")
"""The methods that are tried on each base by default."""
CONTRAST_OPTIONS: dict[str, Any] = {"epochs": 8, "batch_size": 64}
"""Options of the contrastive training: texts within a step are contrasted with each other, so steps are large (docs/tuning.md)."""
TEMPLATE = "{text}\nLabel:"
"""Template of a prompt whose answers are the names of the labels."""


@dataclass(frozen=True)
class Comparing:
    """Common inputs of all candidates: task, training rows (`records` unread, `rows` read), options, input columns (`reads`), seed, and facts
    about the files."""

    task: str
    records: Records
    rows: Rows
    options: Mapping[str, Any]
    reads: tuple[str, ...]
    seed: int
    about: AboutData


@dataclass
class Trained:
    """A trained candidate. seconds: of training; size, shared: bytes for this task and of a shared base; adapter: of a method on a base."""

    predict: Callable[[Any], Any]
    seconds: float
    size: int
    shared: int = 0
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Candidate:
    """name: as in the table. method: a method of adaptation, contrast, or classical. seconds: estimate of training once on all rows. train: on the
    rows with these indices. folding: context for training the folds, in which a frozen base caches its features."""

    name: str
    method: str
    seconds: float
    train: Callable[[Sequence[int]], Trained]
    folding: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def classical(self) -> bool:
        return self.method == CLASSICAL


@dataclass(frozen=True)
class Untried:
    """A candidate that was not tried, and why. seconds: estimate of trying it, if known."""

    name: str
    why: str
    seconds: float | None = None


def classical_candidates(given: Comparing) -> list[Candidate]:
    """The classical systems for rows of this kind."""
    return [_classical(make, given) for make in rivals_of(given.task, given.rows, given.reads)]


def _classical(make: Callable[[], Any], given: Comparing) -> Candidate:
    def train(indices: Sequence[int]) -> Trained:
        model = make().fit(given.rows.some(list(indices)))
        return Trained(model.predict, model.seconds, model.size)

    return Candidate(make().name, CLASSICAL, 0.0, train)


def base_candidates(
    base: Bound, name: str, methods: Sequence[str], given: Comparing, left: Callable[[], float]
) -> tuple[list[Candidate], list[Untried]]:
    """The methods that a base supports, each with its planned time; and those that it does not, with the reason.

    left: seconds left. Planning a method that trains in steps reads all rows, so if the head alone takes longer than the time left, no other method
    is planned. Raises UserError if the base supports no method for these rows."""
    candidates: list[Candidate] = []
    untried: list[Untried] = []
    first: UserError | None = None
    head = 0.0
    # The head's plan is cheap and a lower bound for the others, which also train a head.
    for method in sorted(methods, key=lambda m: m != "head"):
        label = f"{method} on {name}"
        if head > left() and method != "head":
            untried.append(
                Untried(label, f"it takes longer than the head, which takes about {duration(head)}", head)
            )
            continue
        try:
            candidate = _planned(base, label, method, given)
        except UserError as e:
            first = first or e
            untried.append(Untried(label, e.cause.splitlines()[0]))
            continue
        head = candidate.seconds if method == "head" else head
        candidates.append(candidate)
    if not candidates and first is not None and not any(u.seconds for u in untried):
        raise UserError(
            f"{name} cannot be adapted to task {given.task} with these rows: {first.cause}", first.remedy
        )
    return candidates, untried


def _planned(base: Bound, label: str, method: str, given: Comparing) -> Candidate:
    """A method on a base, with the time to train on all rows. Raises UserError if the base or the rows do not support it."""
    how = "lora" if method == CONTRAST else method
    own = _own_options(method, given)
    options = _accepted({**own, **given.options}, given.task, how)
    job, make = prepared(
        base.loaded,
        given.records,
        task=given.task,
        method=how,
        options=options,
    )
    ours = {"task", "method", *own} - given.options.keys()
    origins = {**job.origins, **dict.fromkeys(ours, f"{Origin.CHOSEN} by onebase compare")}
    job = replace(job, origins=origins, about=given.about)
    facts = plan_of(replace(job), make).facts
    seconds = facts["seconds"]
    whole = seconds["before"] + seconds.get("steps", seconds.get("reading", 0.0))
    whole += facts.get("head", {}).get("seconds", 0.0)

    def train(indices: Sequence[int]) -> Trained:
        some = job.rows if len(indices) == len(job.rows) else job.rows.some(list(indices))
        return _trained(base, replace(job, rows=some), make)

    def folding() -> AbstractContextManager[None]:
        frozen = method == "head" and base.loaded.text_codec is not None and base.loaded.memory is None
        return remembering(base.loaded) if frozen else nullcontext()

    return Candidate(label, method, whole, train, folding)


def _trained(base: Bound, job: Adapting, make: Callable[[Adapting], Any]) -> Trained:
    adapter = Adapter(make(job))
    on = base.with_parts([adapter.parts])

    def predict(rows: Any) -> Any:
        with at(job.options.date):
            # One token is generated, because the scores that tasks are compared by do not use it.
            return PREDICTIONS[job.task](ScoreRequest(on, rows, job.options.seed, max_tokens=1))

    return Trained(predict, float(adapter.record.get("seconds")), *shipped_bytes(on), adapter)


def _accepted(options: Mapping[str, Any], task: str, method: str) -> dict[str, Any]:
    """The options that the task or the method has; the rest is for other candidates."""
    own = {f.name for f in (*COMMON, *fields(task_options(task)))} | {*METHODS[method].option_names}
    return {k: v for k, v in options.items() if k in own}


def _own_options(method: str, given: Comparing) -> dict[str, Any]:
    """The options of a candidate in addition to those given for all. Raises UserError for a method that the rows do not support."""
    if method == CONTRAST:
        _refuse_contrast(given)
        return {"contrast": {"first": True}, **CONTRAST_OPTIONS}
    if method != "prompt" or isinstance(TASKS[given.task].methods.get("prompt"), str):
        return {}
    if given.task != "classify" or "label" not in given.rows[0] or "text" not in given.rows[0]:
        raise UserError("a prompt needs rows with a text and one label", "")
    return {"prompt": TEMPLATE, "answers": answers_of(sorted({str(r["label"]) for r in given.rows}))}


def _refuse_contrast(given: Comparing) -> None:
    if given.task != "classify" or "label" not in given.rows[0] or "text" not in given.rows[0]:
        raise UserError("contrast needs rows with a text and one label", "")
    if max(Counter(str(r["label"]) for r in given.rows).values()) < 3:
        raise UserError("contrast needs a label with at least three texts", "")


def answers_of(labels: Sequence[str]) -> dict[str, str]:
    """The names of labels as answers. Raises UserError for names without letters, and for two equal names."""
    answers = {label: " " + " ".join(label.replace("_", " ").replace("-", " ").split()) for label in labels}
    if unnamed := [label for label, text in answers.items() if not any(c.isalpha() for c in text)]:
        raise UserError(f"the label {unnamed[0]!r} has no letters, so a prompt cannot ask for it by name", "")
    if len(set(answers.values())) < len(answers):
        raise UserError("two labels have the same name in a prompt", "")
    return answers


def methods_of(methods: Sequence[str] | None, task: str) -> tuple[list[str], bool]:
    """The methods to try on each base, and whether to try classical systems. Raises UserError for an unknown method."""
    chosen, makers = TASKS[task], TASKS[task].makers
    if methods is None:
        defaults = [m for m in ORDER if m in makers or (m == CONTRAST and task == "classify")]
        return defaults, True
    known = {CLASSICAL, *(m for m in makers), *([CONTRAST] if task == "classify" else [])}
    if unknown := [m for m in methods if m not in known]:
        why = chosen.refused.get(unknown[0], "it is not known")
        raise UserError(
            f"task {task} does not support method {unknown[0]!r}: {why}",
            f"methods: {', '.join(sorted(known))}",
        )
    return [m for m in dict.fromkeys(methods) if m != CLASSICAL], CLASSICAL in methods
