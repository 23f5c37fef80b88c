"""Labelled rows for adaptation and evaluation: small enough for memory, checked before anything is learnt
from them.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from onebase.data.bad_rows import Bad, BadRows, Rows, places_of
from onebase.data.files import FORMATS, all_records
from onebase.data.row_files import Flaw, missing_column, no_column
from onebase.errors import DataError

# What the columns that tasks read must hold; a label may be anything.
KINDS: dict[str, type] = {
    "text": str,
    "prompt": str,
    "completion": str,
    "messages": list,
    "anchor": str,
    "positive": str,
    "negative": str,
    "chosen": str,
    "rejected": str,
}


def read_rows(
    data: str | Path | Fetched | Parsed | Sequence[Mapping[str, Any]],
    required: Sequence[str] = ("text", "label"),
    *,
    columns: Mapping[str, str] | None = None,
    check: Callable[[Rows], object] | None = None,
) -> Rows:
    """Rows of a .jsonl, .json (a list), .csv, .tsv or .parquet file, of the files that a name stands for, or of a list, each with a value for every key of `required`.

    columns: what the file calls a column, by what it shall be called, {"text": "body"}. check: a further look at rows that are right so
    far, raising BadRows; it is called only where others are bad, so that one error has them all: call it on what comes back.

    Rows that it gave are taken again, and keep their places. Raises DataError for what is wrong with the whole (unknown ending, empty, binary, a column that no row has), and BadRows with all bad
    rows and their places (broken line, no UTF-8, missing column, wrong type, empty value).
    """
    found, folder, source = data if isinstance(data, Parsed) else _found(data)
    before = data.columns if isinstance(data, Rows) else {}
    total = len(found)
    mapped, bad = _mapped(found, required, dict(columns or {}))
    good = []
    for at, where, row in mapped:
        flaw = _flaw(row, required, columns or {})
        if flaw is None:
            good.append((at, where, row))
        else:
            bad.append(Bad(at, where, *flaw))
    rows = Rows(
        [r for _, _, r in good], [w for _, w, _ in good], folder, before | dict(columns or {}), source
    )
    if isinstance(data, Rows) and not columns and len(rows) == len(data):
        rows.made = data.made  # they are the same rows
    if bad:
        if check is not None and rows:
            try:
                check(rows)
            except BadRows as e:
                bad += [Bad(good[b.at][0], b.where, b.what, b.remedy) for b in e.bad]
        raise BadRows(bad, total, rows)
    return rows


Found = list[tuple[int, str, "dict[str, Any] | Flaw"]]


@dataclass(frozen=True)
class Fetched:
    """The files that a name stands for, in order, and what its source says of itself. Who knows names makes it (`formats.rows`)."""

    paths: tuple[Path, ...]
    source: Mapping[str, Any]


Data = str | Path | Fetched | Sequence[dict[str, Any]]
"""What users give: a file, the files of a name, or rows."""


class Parsed(NamedTuple):
    """Records as they stand in files, read once: `read_rows` takes them in the place of the files' name, as often as one likes."""

    found: Found
    folder: Path
    source: Mapping[str, Any]


def parsed(data: str | Path | Fetched | Sequence[Mapping[str, Any]]) -> Parsed | Rows:
    """The records of a file, of several or of a list. Raises DataError for what is wrong with the whole."""
    return data if isinstance(data, Rows) else Parsed(*_found(data))


def _found(data: str | Path | Fetched | Sequence[Mapping[str, Any]]) -> tuple[Found, Path, Mapping[str, Any]]:
    """Number, place and content of every record; the folder that paths in them begin at."""
    if not isinstance(data, (str, Path, Fetched)):
        found: Found = [
            (i, where, _row(row)) for i, (where, row) in enumerate(zip(places_of(data), data, strict=True))
        ]
        if not found:
            raise DataError("no rows were given", "give at least one")
        return (found, data.folder, data.source) if isinstance(data, Rows) else (found, Path(), {})
    files = data if isinstance(data, Fetched) else Fetched((Path(data),), {})
    paths, source = files.paths, files.source
    out: Found = []
    for path in paths:
        kind = FORMATS.get(path.suffix.lower())
        if kind is None:
            raise DataError(
                f"{path}: the ending says no known format", f"accepted: {', '.join(FORMATS)}, or hf:org/name"
            )
        # Not only `required`: tasks carry further columns.
        out += [(len(out) + i, where, row) for i, (where, row) in enumerate(all_records(path, kind))]
    return out, paths[0].parent, source


def _mapped(
    found: Found, required: Sequence[str], columns: dict[str, str]
) -> tuple[list[tuple[int, str, dict[str, Any]]], list[Bad]]:
    """Rows with their columns named anew, and what is no row. Raises DataError for a column that no row has."""
    bad = [Bad(at, where, *row) for at, where, row in found if isinstance(row, Flaw)]
    rows = [(at, where, row) for at, where, row in found if not isinstance(row, Flaw)]
    there = list(dict.fromkeys(k for _, _, row in rows for k in row))
    if rows:
        _check_columns(rows[0][1], there, required, columns)
    if not columns:
        return rows, bad
    moved = set(columns.values()) - columns.keys()
    out = []
    for at, where, row in rows:
        named = {k: row[v] for k, v in columns.items() if v in row}
        rest = {k: v for k, v in row.items() if k not in columns and k not in moved}
        out.append((at, where, named | rest))
    return out, bad


def _check_columns(
    where: str, there: Sequence[str], required: Sequence[str], columns: dict[str, str]
) -> None:
    """Raise DataError for a column that no row has, with the nearest of those there are."""
    wanted = columns | {k: k for k in required if k not in columns}
    lacking = {task: name for task, name in wanted.items() if name not in there}
    if not lacking:
        return
    flaw = no_column(list(lacking.values()), there)
    task, name = next(iter(lacking.items()))
    near = difflib.get_close_matches(name, there, 1, 0.5)
    raise DataError(
        f"{where}: {flaw.what}", f"{flaw.remedy}; map it: --column {task}={near[0] if near else 'NAME'}"
    )


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


def deduplicate(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ("text",)) -> list[dict[str, Any]]:
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


def _row(row: object) -> dict[str, Any] | Flaw:
    if not isinstance(row, Mapping):
        return Flaw(
            f"is {type(row).__name__}, a dict is expected", 'for example {"text": "...", "label": "..."}'
        )
    return dict(row)


def _flaw(row: Mapping[str, Any], required: Sequence[str], columns: Mapping[str, str]) -> Flaw | None:
    """What is wrong with a row, the first thing in the order of `required`."""
    if lacking := [columns.get(key, key) for key in required if key not in row]:
        return no_column(lacking, list(row))
    for key in required:
        name = f"'{key}'" if columns.get(key, key) == key else f"'{columns[key]}' (as {key})"
        if found := _value_flaw(name, KINDS.get(key), row[key]):
            return found
    return None


def _value_flaw(name: str, kind: type | None, value: object) -> Flaw | None:
    empty = (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )
    if empty or (isinstance(value, (list, tuple, dict)) and not value):
        return Flaw(f"{name} is empty", "fill it or remove the row")
    if kind is not None and not isinstance(value, kind):
        wanted = "text" if kind is str else "a list"
        return Flaw(f"{name} is {type(value).__name__}, {wanted} is expected", "mend the row")
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return Flaw(f"{name} holds a lone surrogate, which is no valid Unicode", "mend the text")
    return None
