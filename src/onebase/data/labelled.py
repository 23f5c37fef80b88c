"""Labelled rows for adaptation and evaluation: small enough for memory, checked before anything is learnt
from them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onebase.data.files import FORMATS, missing_column, rows
from onebase.errors import DataError

Rows = list[dict[str, Any]]
# What the columns that tasks read must hold; a label may be anything.
KINDS: dict[str, type] = {"text": str, "prompt": str, "completion": str, "messages": list}


def read_rows(
    data: str | Path | Sequence[Mapping[str, Any]], required: Sequence[str] = ("text", "label")
) -> Rows:
    """Rows of a .jsonl, .csv or .parquet file, or the rows of a list, each with a value for every key of
    `required`.

    Raises DataError, with file and line: unknown ending, empty, binary, no UTF-8, broken line, missing
    column, empty value.
    """
    if isinstance(data, (str, Path)):
        path = Path(data)
        kind = FORMATS.get(path.suffix.lower())
        if kind is None:
            raise DataError(f"{path}: the ending says no known format", f"accepted: {', '.join(FORMATS)}")
        # Not only `required`: tasks carry further columns.
        found = [(where, row) for where, row in rows(path, kind)]
    else:
        found = [(f"row {i}", _row(i, row)) for i, row in enumerate(data, 1)]
        if not found:
            raise DataError("no rows were given", "give at least one")
    for where, row in found:
        if lacking := [key for key in required if key not in row]:
            raise missing_column(where, lacking, list(row))
        for key in required:
            _check_value(where, key, row[key])
    return [row for _, row in found]


def check_labels(
    train: Iterable[Mapping[str, Any]], test: Iterable[Mapping[str, Any]], key: str = "label"
) -> None:
    """Raise DataError when a label of `test` is never seen in `train`: nothing could learn it."""
    known = {row[key] for row in train}
    unseen = Counter(str(row[key]) for row in test if row[key] not in known)
    if unseen:
        names = ", ".join(f"{label!r} ({n})" for label, n in sorted(unseen.items())[:5]) + (
            " ..." if len(unseen) > 5 else ""
        )
        has = ", ".join(sorted(map(repr, known))[:10])
        raise DataError(
            f"labels seen only in the test rows: {names}; the training rows have {has}",
            "add training rows with these labels, or drop the test rows that have them",
        )


def deduplicate(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ("text",)) -> Rows:
    """The first of the rows that agree in all `keys`, in the given order. Do it before splitting, so that no
    row leaks.
    """
    seen: set[str] = set()
    out = []
    for i, row in enumerate(rows, 1):
        if lacking := [k for k in keys if k not in row]:
            raise missing_column(f"row {i}", lacking, list(row))
        key = json.dumps([row[k] for k in keys], sort_keys=True, default=str)
        if key not in seen:
            seen.add(key)
            out.append(dict(row))
    return out


def _row(i: int, row: object) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise DataError(
            f"row {i} is {type(row).__name__}, a dict is expected",
            'for example {"text": "...", "label": "..."}',
        )
    return dict(row)


def _check_value(where: str, key: str, value: object) -> None:
    empty = (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )
    if empty or (isinstance(value, (list, tuple, dict)) and not value):
        raise DataError(f"{where}: '{key}' is empty", "fill it or remove the row")
    kind = KINDS.get(key)
    if kind is not None and not isinstance(value, kind):
        wanted = "text" if kind is str else "a list"
        raise DataError(f"{where}: '{key}' is {type(value).__name__}, {wanted} is expected", "mend the row")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}: '{key}' holds a lone surrogate, which is no valid Unicode", "mend the text"
            ) from None
