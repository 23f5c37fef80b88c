"""The rows of a job, read once before anything else: columns named as the task calls them, and one error for all rows that are bad."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.data import BadRows, Rows, read_rows
from onebase.data.bad_rows import FindsFlaw, once, places_of, refuse_bad
from onebase.data.labelled import Parsed, parsed
from onebase.engine import image_features as images
from onebase.engine.features import chat_rows, completion_rows, framed_texts, samples_of
from onebase.errors import DataError
from onebase.tasks import by_prompt as prompt
from onebase.tasks import multilabel as many
from onebase.tasks import regress, tag
from onebase.tasks.checks import before
from onebase.tasks.continued import opened
from onebase.tasks.job import Data
from onebase.tasks.options import AdaptOptions
from onebase.tasks.preferences import SIDES, refuse_pairs
from onebase.tasks.rewards import checked
from onebase.tasks.rollouts import check_questions
from onebase.tasks.teachers import kind_of

COLUMNS: dict[str, tuple[str, ...]] = {
    "classify": ("text", "label"),
    "regress": ("text", "value"),
    "tag": ("text",),
    "complete": ("prompt", "completion"),
    "chat": ("messages",),
    "embed": ("anchor", "positive"),
    "prefer": SIDES,
    "reward": SIDES,
    "continue": ("text",),
}
"""What a row of a task has; of a task that is not here only the form of the file is checked."""


def read(
    base: LoadedBase,
    data: Data,
    task: str,
    method: str,
    options: AdaptOptions,
    columns: Mapping[str, str] | None = None,
) -> Rows:
    """The rows that a task learns from. Raises BadRows with all that are bad: unreadable, without a column, empty, of a wrong type, longer
    than the limit (with their lengths); DataError for what is wrong with the whole."""
    if method == "prompt" and isinstance(data, Sequence) and not data:
        return Rows([])
    # A pipe gives its rows once, and the Hub need not be asked again.
    given = parsed(opened(data) if task in ("continue", "distil") else data)
    required = (
        prompt.columns(task, options.prompt, options.shots) if method == "prompt" else COLUMNS.get(task, ())
    )
    if task == "classify" and method != "prompt" and "image" in base.model.cfg.codecs:
        rows = read_rows(given, (), columns=columns)
        required = ("image", "label") if images.sees_images(base, rows) else required
        return read_rows(
            rows, required, check=_no_check if "image" in required else _checks(base, task, method, options)
        )
    if task == "classify" and method != "prompt" and _has_many(given, columns):
        required = ("text", "labels")
    if task == "reinforce":
        required = checked(options.reinforce.reward).columns
    if task == "distil":
        required = (kind_of(_good(given, columns)),)
    check = _checks(base, task, method, options)
    rows = read_rows(given, required, columns=columns, check=check)
    check(rows)
    return rows


def _has_many(data: Parsed | Rows, columns: Mapping[str, str] | None) -> bool:
    """Do the rows have the labels of a text as a list?"""
    return many.has_many(_good(data, columns))


def _good(data: Parsed | Rows, columns: Mapping[str, str] | None) -> Rows:
    """The rows that are right so far; what is wrong is said by those who read them to learn from them."""
    try:
        return read_rows(data, (), columns=columns)
    except BadRows as e:
        return e.good
    except DataError:
        return Rows([])


def _no_check(rows: Rows) -> None:
    """For rows of which no tokens are made."""


def _checks(base: LoadedBase, task: str, method: str, o: AdaptOptions) -> Callable[[Rows], object]:
    """Raises BadRows for rows that no sample can be made of, or a longer one than the base reads."""
    taken, context = before(method, o), base.model.cfg.text.context if base.words is not None else 0
    limit = min(o.max_length or context, context - taken) if taken else o.max_length or context
    if base.words is None or method == "prompt":
        return _no_check  # the length of a prompt hangs on its answers
    if task in ("classify", "regress", "tag"):
        return lambda rows: check_texts(base, rows, limit, taken, _flaws(base, task, rows))
    if task in ("complete", "chat"):
        return lambda rows: _check_samples(base, task, rows, limit, taken)
    if task == "reinforce":
        return lambda rows: check_questions(base, rows, o.reinforce.reward, o.reinforce.max_tokens, limit)
    if task in ("prefer", "reward"):
        return lambda rows: refuse_pairs(base, rows, limit, taken)
    return _no_check


def _flaws(base: LoadedBase, task: str, rows: Rows) -> FindsFlaw:
    """What a task has against a row beside its text."""
    if task == "regress":
        return regress.flaw
    if task == "tag":
        known: dict[str, Any] = once(rows, ("places", base.codec.tokenizer.digest), dict)
        return lambda row: tag.flaw(row, base.codec.tokenizer, known)
    return lambda row: many.flaw(row) if many.has_many([row]) else None


def check_texts(
    base: LoadedBase, rows: Rows, limit: int, taken: int, flaw: FindsFlaw = lambda row: None
) -> None:
    """Raises BadRows for rows in which `flaw` finds something, and for texts without a token or with more than `limit`."""
    found = {}
    for i, (row, ids) in enumerate(zip(rows, framed_texts(base, rows), strict=True)):
        if not len(ids):
            found[i] = ("has no token", "give a text that is not empty")
        elif len(ids) > limit:
            found[i] = _long(len(ids), limit, taken)
        elif (said := flaw(row)) is not None:
            found[i] = said
    refuse_bad(found, places_of(rows))


def _check_samples(
    base: LoadedBase, task: str, rows: Sequence[dict[str, Any]], limit: int, taken: int
) -> None:
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
        if size > limit:
            found[i] = _long(size, limit, taken)
    refuse_bad(found, places_of(rows))
    once(rows, samples_of(base, task), lambda: made)


def _long(size: int, limit: int, taken: int) -> tuple[str, str]:
    behind = f" behind the {taken} of the adapter" if taken else ""
    return (
        f"has {size} tokens, the limit is {limit}{behind}",
        "shorten it, leave it out or raise max_length: samples are never cut",
    )
