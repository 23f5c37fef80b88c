"""The rows of a job, read once before anything else: columns named as the task calls them, and one error for all rows that are bad."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onebase.adapt.methods import METHODS
from onebase.adapt.prompt import PromptOptions
from onebase.base.folder import LoadedBase
from onebase.data import BadRows, Rows, read_rows
from onebase.data.bad_rows import FindsFlaw, once, places_of, refuse_bad
from onebase.data.labelled import Data, parsed
from onebase.engine.features import chat_rows, completion_rows, framed_texts, samples_of
from onebase.errors import DataError
from onebase.tasks import by_prompt
from onebase.tasks.base import Limits, Look, Task
from onebase.tasks.checks import before
from onebase.tasks.options import AdaptOptions


def read(
    base: LoadedBase,
    data: Data,
    task: Task,
    method: str,
    options: AdaptOptions,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """The rows that a task learns from. Raises BadRows with all that are bad: unreadable, without a column, empty, of a wrong type, longer
    than the limit (with their lengths); DataError for what is wrong with the whole."""
    how = METHODS[method]
    if not how.needs_rows and isinstance(data, Sequence) and not data:
        return Rows([])
    # A pipe gives its rows once, and the Hub need not be asked again.
    given = parsed(task.opened(data))
    taken, context = before(method, options), base.model.cfg.text.context if base.words is not None else 0
    longest = min(options.max_length or context, context - taken) if taken else options.max_length or context

    def right() -> Rows:
        """The rows that are right so far; what is wrong is said by those who read them to learn from them."""
        try:
            return read_rows(given, (), columns=columns)
        except BadRows as e:
            return e.good
        except DataError:
            return Rows([])

    if isinstance(own := options.own, PromptOptions):  # the length of a prompt hangs on its answers
        required = by_prompt.columns(task.name, own.prompt, own.shots)
        return read_rows(given, required, columns=columns)

    def check(rows: Rows) -> None:
        task.check(base, rows, Limits(longest, taken), options)

    rows = read_rows(given, task.columns_of(Look(base, options, right)), columns=columns, check=check)
    check(rows)
    return rows


def check_texts(base: LoadedBase, rows: Rows, limits: Limits, flaw: FindsFlaw = lambda row: None) -> None:
    """Raises BadRows for rows in which `flaw` finds something, and for texts without a token or with more than the limit."""
    found = {}
    for i, (row, ids) in enumerate(zip(rows, framed_texts(base, rows), strict=True)):
        if not len(ids):
            found[i] = ("has no token", "give a text that is not empty")
        elif len(ids) > limits.tokens:
            found[i] = _long(len(ids), limits)
        elif (said := flaw(row)) is not None:
            found[i] = said
    refuse_bad(found, places_of(rows))


def check_samples(base: LoadedBase, task: str, rows: Sequence[dict[str, Any]], limits: Limits) -> None:
    """Raises BadRows for rows of task complete or chat of which no sample can be made, or one with more tokens than the limit."""
    make = completion_rows if task == "complete" else chat_rows
    found = {}
    made = []
    for i, row in enumerate(rows):
        try:
            made.append(replace(make(base, [row])[0], id=str(i + 1)))
            size = len(made[-1])
        except (
            DataError
        ) as e:  # what a template does not take; it knows no row, and `make` says row 1 of the one it has
            found[i] = (e.cause.removeprefix("row 1: "), e.remedy)
            continue
        if size > limits.tokens:
            found[i] = _long(size, limits)
    refuse_bad(found, places_of(rows))
    once(rows, samples_of(base, task), lambda: made)


def _long(size: int, limits: Limits) -> tuple[str, str]:
    behind = f" behind the {limits.taken} of the adapter" if limits.taken else ""
    return (
        f"has {size} tokens, the limit is {limits.tokens}{behind}",
        "shorten it, leave it out or raise max_length: samples are never cut",
    )
