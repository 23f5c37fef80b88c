"""Labelled rows for adaptation and evaluation: small enough for memory, checked before anything is learnt
from them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from onebase.artifact.disk import check_file
from onebase.artifact.odd_files import FORMATS, unknown_format
from onebase.data.bad_rows import Bad, BadRows, Rows, Samples, places_of
from onebase.data.column_names import COLUMN_TYPES, lacking_columns
from onebase.data.files import all_records
from onebase.data.lines import Problem, Record, missing_column, no_column
from onebase.data.row_files import Notes
from onebase.errors import DataError

CHUNK = 512
"""Rows whose texts are tokenised at a time."""
Flawed = tuple[str, str]
"""What is wrong with a row, and what to do."""
Check = Callable[[Mapping[str, Any]], Flawed | None]
"""What is wrong with the values of a row, if anything."""
Make = Callable[[Sequence[dict[str, Any]]], Sequence[Samples | Problem]]
"""What some rows are as tokens; of a row that cannot be any, what is wrong with it."""


@dataclass(frozen=True)
class Fetched:
    """The files that a name stands for, in order, and what its source says of itself. Who knows names makes it (`formats.rows`)."""

    paths: tuple[Path, ...]
    source: Mapping[str, Any]


class Records:
    """The records of a file, of several or of a list, each parsed once, when it is come to, with its columns named anew.

    columns: what the data call a column, by what it shall be called. Raises DataError for what is wrong with the whole.
    """

    def __init__(
        self,
        data: str | Path | Fetched | Sequence[Mapping[str, Any]],
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.named = dict(columns or {})
        self.folder, self.name = Path(), None
        self.notes: Notes = {}
        self.source: Mapping[str, Any] = {}
        before: Mapping[str, str] = {}
        found: Iterable[Record]
        if isinstance(data, (str, Path, Fetched)):
            files = data if isinstance(data, Fetched) else Fetched((Path(data),), {})
            self.folder, self.source = files.paths[0].parent, files.source
            self.name = str(data) if isinstance(data, (str, Path)) else None
            # Not only the columns that are asked for: tasks carry further ones.
            kinds = [(p, _kind(p)) for p in files.paths]
            found = chain.from_iterable(all_records(p, k, notes=self.notes) for p, k in kinds)
        else:
            if not data:
                raise DataError("no rows were given", "give at least one")
            if isinstance(data, Rows):
                self.folder, self.source, self.name = data.folder, data.source, data.name
                before, self.notes = data.columns, data.notes
            found = ((where, _row(row)) for where, row in zip(places_of(data), data, strict=True))
        self.columns = {**before, **self.named}
        self._first, self._there = (
            "",
            dict[str, Any](),
        )  # place of the first row; columns, and the first value of each
        self._rest, self._kept = map(self._renamed, found), list[Record]()

    def __iter__(self) -> Iterator[Record]:
        """Place and row, or what is wrong with the record."""
        yield from self._kept
        yield from self._rest

    @classmethod
    def of(cls, data: Data, columns: Mapping[str, str] | None = None) -> Records:
        """The records of data; of records these themselves, whose columns have their names already."""
        return data if isinstance(data, Records) else cls(data, columns)

    def kept(self) -> Records:
        """Itself, parsed whole: it can be walked as often as is wanted then."""
        self._kept += self._rest
        return self

    @property
    def sound(self) -> list[dict[str, Any]]:
        """All rows that can be read; they are kept until they are asked for one by one."""
        return [row for _, row in self.kept()._kept if not isinstance(row, Problem)]

    def _renamed(self, record: Record) -> Record:
        where, row = record
        if isinstance(row, Problem):
            return record
        self._first = self._first or where
        self._there = {**row, **self._there} if row.keys() - self._there.keys() else self._there
        if not self.named:
            return record
        moved = set(self.named.values()) - self.named.keys()
        own = {k: row[v] for k, v in self.named.items() if v in row}
        return where, own | {k: v for k, v in row.items() if k not in self.named and k not in moved}

    def refuse_lacking(self, required: Sequence[str]) -> None:
        """Raise DataError for a column that no row has, with the nearest of those there are. To be asked at the end."""
        if (
            self._first
            and (error := lacking_columns(self._first, self._there, self.named, required)) is not None
        ):
            raise error


Data = str | Path | Fetched | Records | Sequence[dict[str, Any]]
"""What users give: a file, the files of a name, or rows; or records, which who gives the same to several has parsed once."""


def read_rows(
    data: str | Path | Fetched | Records | Sequence[Mapping[str, Any]],
    required: Sequence[str] = ("text", "label"),
    *,
    columns: Mapping[str, str] | None = None,
    check: Check = lambda row: None,
    make: Make | None = None,
) -> Rows:
    """Rows of a .jsonl, .json (a list), .csv, .tsv or .parquet file, of the files that a name stands for, or of a list, each with a value for every key of `required`.

    columns: what the file calls a column, by what it shall be called, {"text": "body"}. check: what is wrong with the values of a row. make:
    what rows are as tokens (`Rows.samples`). All in one pass: a record is parsed, looked at and tokenised once.

    Rows that it gave are taken again, and keep their places. Raises DataError for what is wrong with the whole (unknown ending, empty, binary, a column that no row has), and BadRows with all bad
    rows and their places (broken line, no UTF-8, missing column, wrong type, empty value, what `check` and `make` find).
    """
    records = data if isinstance(data, Records) else Records(data, columns)
    rows = Rows([], (), records.folder, records.columns, records.source, records.name, notes=records.notes)
    bad: list[Bad] = []
    numbered = enumerate(records)
    total = 0
    while chunk := list(islice(numbered, CHUNK)):
        total += len(chunk)
        right: list[tuple[int, str, dict[str, Any]]] = []
        for at, (where, row) in chunk:
            problem = (
                row if isinstance(row, Problem) else _problem(row, required, records.named) or check(row)
            )
            if problem is not None:
                bad.append(Bad(at, where, *problem))
            elif not isinstance(row, Problem):
                right.append((at, where, row))
        made = [()] * len(right) if make is None else make([row for _, _, row in right])
        for (at, where, row), found in zip(right, made, strict=True):
            if isinstance(found, Problem):
                bad.append(Bad(at, where, *found))
                continue
            rows.append(row)
            rows.places.append(where)
            rows.samples.append(found)
    records.refuse_lacking(required)
    if bad:
        raise BadRows(bad, total)
    return rows


def _kind(path: Path) -> str:
    if (kind := FORMATS.get(path.suffix.lower())) is None or path.is_dir():
        if not path.exists():
            check_file(path)
        raise unknown_format(path)
    return kind


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


def _row(row: object) -> dict[str, Any] | Problem:
    if not isinstance(row, Mapping):
        return Problem(
            f"is {type(row).__name__}, a dict is expected", 'for example {"text": "...", "label": "..."}'
        )
    return dict(row)


def _problem(row: Mapping[str, Any], required: Sequence[str], columns: Mapping[str, str]) -> Problem | None:
    """What is wrong with a row, the first thing in the order of `required`."""
    if lacking := [columns.get(key, key) for key in required if key not in row]:
        return no_column(lacking, list(row))
    for key in required:
        name = f"'{key}'" if columns.get(key, key) == key else f"'{columns[key]}' (as {key})"
        if found := _value_problem(name, COLUMN_TYPES.get(key), row[key]):
            return found
    return None


def _value_problem(name: str, kind: type | None, value: object) -> Problem | None:
    empty = (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )
    if empty or (isinstance(value, (list, tuple, dict)) and not value):
        return Problem(f"{name} is empty", "fill it or remove the row")
    if kind is not None and not isinstance(value, kind):
        wanted = "text" if kind is str else "a list"
        return Problem(f"{name} is {type(value).__name__}, {wanted} is expected", "mend the row")
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError:
        return Problem(f"{name} holds a lone surrogate, which is no valid Unicode", "mend the text")
    return None
