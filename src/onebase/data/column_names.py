"""Columns that rows lack, and what to write instead, by the names and first values of those there are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from onebase.data.json_files import rows_inside
from onebase.data.lines import no_column
from onebase.errors import DataError

# What the columns that tasks read must hold; a label may be anything, and a prompt a text or messages.
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
"""What files often call the columns that tasks read, for remedies."""


def lacking_columns(
    first: str, there: Mapping[str, Any], named: Mapping[str, str], required: Sequence[str]
) -> DataError | None:
    """The error for columns that no row has; None where none is lacking.

    first: the place of the first row. there: the columns, with the first value of each. named: what the file calls a column, by what the task
    calls it. required: the columns of the task.
    """
    taken = {name: task for task, name in named.items() if task not in required}
    for name in required:
        if name not in named and name in taken:
            return DataError(
                f"--column {taken[name]}={name} takes away the column '{name}', which the task reads",
                f"the task's name stands first: --column {name}={taken[name]}, where the file calls it '{taken[name]}'",
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
    """How to name the lacking columns: task's name and what the file seems to call it."""
    near: dict[str, str] = {}
    for task, name in lacking.items():
        free = {
            c.strip().casefold(): c for c in there if c not in near.values() and _could_be(task, there[c])
        }
        close = difflib.get_close_matches(name.casefold(), free, 1, 0.6)
        usual = [c for c in OTHER_NAMES.get(task, ()) if c in free]
        if found := (close or usual):
            near[task] = free[found[0]]
    pairs = [f"{task}={near.get(task, 'NAME')}" for task in lacking]
    said = f"map {'it' if len(pairs) == 1 else 'them'}: "
    said += " ".join("--column " + (f"'{p}'" if " " in p else p) for p in pairs)
    if "text" in lacking and not any(_could_be("text", value) for value in there.values()):
        return f"none of them holds text; give a file with a column of texts, or {said}"
    if not near and len(there) == len(lacking) and first.endswith(":2"):
        return f"if these are data, write a line of names above them: {','.join(lacking)}; else {said}"
    return said


def _could_be(task: str, value: object) -> bool:
    """May a column with this value be what the task reads? A text is no number."""
    if COLUMN_TYPES.get(task) is not str:
        return True
    try:
        float(value)  # type: ignore[arg-type]  # what is no number says so
    except (TypeError, ValueError):
        return isinstance(value, str)
    return False
