"""Error messages for missing columns, with suggestions from the names and first values of the existing columns."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from onebase.data.json_files import rows_inside
from onebase.data.lines import no_column
from onebase.errors import DataError

# Types of the columns that tasks read. A label may have any type, and a prompt is a text or messages.
COLUMN_TYPES: dict[str, type] = {
    "text": str,
    "completion": str,
    "messages": list,
    "anchor": str,
    "positive": str,
    "negative": str,
    "chosen": str,
    "rejected": str,
}


OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        "body",
        "content",
        "sentence",
        "review",
        "message",
        "comment",
        "document",
        "description",
        "input",
    ),
    "label": ("class", "category", "topic", "target", "sentiment", "tag", "intent", "y"),
    "value": ("score", "rating", "target", "price", "y"),
    "prompt": ("instruction", "input", "question", "source"),
    "completion": ("response", "output", "answer", "target", "reply"),
    "messages": ("conversation", "conversations", "chat", "turns"),
    "anchor": ("query", "question", "text", "sentence1"),
    "positive": ("answer", "passage", "match", "sentence2"),
    "query": ("question", "anchor"),
    "context": ("passage", "document", "text"),
}
"""Common names in files for the columns that tasks read, used in remedies."""


def lacking_columns(
    first: str, there: Mapping[str, Any], named: Mapping[str, str], required: Sequence[str]
) -> DataError | None:
    """The error for columns that no row has; None if none is missing.

    first: position of the first row. there: the columns, with the first value of each. named: the task's column name to the file's. required: the
    columns of the task.
    """
    taken = {name: task for task, name in named.items() if task not in required}
    for name in required:
        if name not in named and name in taken:
            return DataError(
                f"--column {taken[name]}={name} renames the column '{name}', which the task reads",
                f"put the task's name first: --column {name}={taken[name]} if the file calls it '{taken[name]}'",
            )
    wanted = dict(named) | {k: k for k in required if k not in named}
    lacking = {task: name for task, name in wanted.items() if name not in there}
    if not lacking:
        return None
    problem = no_column(list(lacking.values()), list(there))
    if len(there) == 1 and (inside := rows_inside(there)) is not None:
        return DataError(f"{first}: {problem.what}: {inside.what}", inside.remedy)
    return DataError(f"{first}: {problem.what}", f"{problem.remedy}; {_mapped(first, there, lacking)}")


def _mapped(first: str, there: Mapping[str, Any], lacking: Mapping[str, str]) -> str:
    """How to map the missing columns: the task's name to the most likely name in the file."""
    near: dict[str, str] = {}
    for task, name in lacking.items():
        free = {
            c.strip().casefold(): c for c in there if c not in near.values() and _could_be(task, there[c])
        }
        close = difflib.get_close_matches(name.casefold(), free, 1, 0.6)
        usual = [c for c in OTHER_NAMES.get(task, ()) if c in free]
        if matches := (close or usual):
            near[task] = free[matches[0]]
    pairs = [f"{task}={near.get(task, 'NAME')}" for task in lacking]
    hint = f"map {'it' if len(pairs) == 1 else 'them'}: "
    hint += " ".join("--column " + (f"'{p}'" if " " in p else p) for p in pairs)
    if "text" in lacking and not any(_could_be("text", value) for value in there.values()):
        return f"none of them contains text; give a file with a text column, or {hint}"
    if not near and len(there) == len(lacking) and first.endswith(":2"):
        return f"if the first line is data, add a header line above it: {','.join(lacking)}; else {hint}"
    return hint


def _could_be(task: str, value: object) -> bool:
    """Whether a column with this value can be the task's column. A number is not a text."""
    if COLUMN_TYPES.get(task) is not str:
        return True
    try:
        float(value)  # type: ignore[arg-type]  # raises for what is not a number
    except (TypeError, ValueError):
        return isinstance(value, str)
    return False
