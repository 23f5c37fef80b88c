"""Labelled rows for adaptation and evaluation: small enough for memory, checked before training."""

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
"""Rows that are tokenised at a time."""
Flawed = tuple[str, str]
"""The problem of a row, and the remedy."""
Check = Callable[[Mapping[str, Any]], Flawed | None]
"""Checks the values of a row: the problem, or None."""
Make = Callable[[Sequence[dict[str, Any]]], Sequence[Samples | Problem]]
"""Tokenises rows: samples for each row, or the problem of a row that cannot be tokenised."""


@dataclass(frozen=True)
class Fetched:
    """The files that a dataset name resolves to, in order, and the metadata of their source. `formats.rows` resolves names."""

    paths: tuple[Path, ...]
    source: Mapping[str, Any]


class Records:
    """The records of one or more files or of a list, each parsed once, lazily, with its columns renamed.

    columns: new column name to the name in the data. Raises DataError for problems of the whole file or list.
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
        parsed: Iterable[Record]
        if isinstance(data, (str, Path, Fetched)):
            files = data if isinstance(data, Fetched) else Fetched((Path(data),), {})
            self.folder, self.source = files.paths[0].parent, files.source
            self.name = str(data) if isinstance(data, (str, Path)) else None
            # All columns, not only the required ones: tasks keep further ones.
            kinds = [(p, _kind(p)) for p in files.paths]
            parsed = chain.from_iterable(all_records(p, k, notes=self.notes) for p, k in kinds)
        else:
            if not data:
                raise DataError("no rows were given", "give at least one")
            if isinstance(data, Rows):
                self.folder, self.source, self.name = data.folder, data.source, data.name
                before, self.notes = data.columns, data.notes
            parsed = ((where, _row(row)) for where, row in zip(places_of(data), data, strict=True))
        self.columns = {**before, **self.named}
        # Position of the first row; the first value of each column.
        self._first, self._there = "", dict[str, Any]()
        self._rest, self._kept = map(self._renamed, parsed), list[Record]()

    def __iter__(self) -> Iterator[Record]:
        """(position, row), or (position, problem) for a bad record."""
        yield from self._kept
        yield from self._rest

    @classmethod
    def of(cls, data: Data, columns: Mapping[str, str] | None = None) -> Records:
        """The records of data. Records are returned as they are: their columns are already renamed."""
        return data if isinstance(data, Records) else cls(data, columns)

    def kept(self) -> Records:
        """Itself, fully parsed: it can then be iterated any number of times."""
        self._kept += self._rest
        return self

    @property
    def sound(self) -> list[dict[str, Any]]:
        """All rows that can be read; they stay in memory for later iteration."""
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
        renamed = {k: row[v] for k, v in self.named.items() if v in row}
        return where, renamed | {k: v for k, v in row.items() if k not in self.named and k not in moved}

    def refuse_lacking(self, required: Sequence[str]) -> None:
        """Raise DataError for a column that no row has, with the closest existing name. Call it after the last record."""
        if (
            self._first
            and (error := lacking_columns(self._first, self._there, self.named, required)) is not None
        ):
            raise error


Data = str | Path | Fetched | Records | Sequence[dict[str, Any]]
"""Input rows: a file, the files of a dataset name, a list, or records (already parsed, to be shared by several readers)."""


def read_rows(
    data: str | Path | Fetched | Records | Sequence[Mapping[str, Any]],
    required: Sequence[str] = ("text", "label"),
    *,
    columns: Mapping[str, str] | None = None,
    check: Check = lambda row: None,
    make: Make | None = None,
) -> Rows:
    """Read rows in one pass (parse, check, tokenise), each with a value for every key of `required`.

    data: a .jsonl, .json (a list), .csv, .tsv or .parquet file, the files of a dataset name, or a list. Rows that this function returned are accepted
    again, and keep their positions. columns: new column name to the name in the file, {"text": "body"}. check: finds problems in the values of a
    row. make: tokenises rows (`Rows.samples`).

    Raises DataError for problems of the whole (unknown extension, empty, binary, a column that no row has), and BadRows with all bad rows and their
    positions (broken line, not UTF-8, missing column, wrong type, empty value, problems from `check` and `make`).
    """
    records = data if isinstance(data, Records) else Records(data, columns)
    rows = Rows([], (), records.folder, records.columns, records.source, records.name, notes=records.notes)
    bad: list[Bad] = []
    numbered = enumerate(records)
    total = 0
    while chunk := list(islice(numbered, CHUNK)):
        total += len(chunk)
        good: list[tuple[int, str, dict[str, Any]]] = []
        for at, (where, row) in chunk:
            problem = (
                row if isinstance(row, Problem) else _problem(row, required, records.named) or check(row)
            )
            if problem is not None:
                bad.append(Bad(at, where, *problem))
            elif not isinstance(row, Problem):
                good.append((at, where, row))
        tokenised = [()] * len(good) if make is None else make([row for _, _, row in good])
        for (at, where, row), samples in zip(good, tokenised, strict=True):
            if isinstance(samples, Problem):
                bad.append(Bad(at, where, *samples))
                continue
            rows.append(row)
            rows.places.append(where)
            rows.samples.append(samples)
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
    """Raise DataError when a label of `test` does not occur in `train`: it cannot be learnt."""
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
    """The first of the rows that agree in all `keys`, in the given order. Call it before splitting, so that no row leaks."""
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
    """The first problem of a row, in the order of `required`."""
    if lacking := [columns.get(key, key) for key in required if key not in row]:
        return no_column(lacking, list(row))
    for key in required:
        name = f"'{key}'" if columns.get(key, key) == key else f"'{columns[key]}' (as {key})"
        if problem := _value_problem(name, COLUMN_TYPES.get(key), row[key]):
            return problem
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
        return Problem(f"{name} is {type(value).__name__}, {wanted} is expected", "fix the row")
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError:
        return Problem(f"{name} contains a lone surrogate, which is not valid Unicode", "fix the text")
    return None
