"""Files of records and of text, read strictly: the first error is raised with its position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onebase.artifact.disk import check_file
from onebase.artifact.odd_files import FORMATS
from onebase.data.lines import Problem, Record, lines, missing_column
from onebase.data.row_files import Notes, records
from onebase.errors import DataError

__all__ = [
    "FORMATS",
    "Row",
    "all_records",
    "check_file",
    "missing_column",
    "read_text",
    "rows",
    "sound",
    "text_lines",
]

Row = tuple[str, dict[str, Any]]


def rows(path: Path, kind: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """(where, row) of each record; `where` is `file:line` (for Parquet `file: row n`). Blank lines are skipped.

    Raises DataError for a row without one of `columns`, an empty file, a broken line, and bytes that are not UTF-8.
    """
    for where, row in all_records(path, kind, columns):
        if isinstance(row, Problem):
            raise DataError(f"{where}: {row.what}", row.remedy)
        yield where, row


def all_records(
    path: Path, kind: str, columns: Sequence[str] = (), notes: Notes | None = None
) -> Iterator[Record]:
    """Like `rows`, but yields a Problem for a bad record. notes: as for `records`. Raises DataError only for problems of the whole file."""
    check_file(path)
    found = False
    for record in records(path, kind, columns, notes):
        found = True
        yield record
    if not found:
        raise DataError(f"{path}: the file has no records", "give a file with at least one record")


def read_text(path: Path) -> str:
    """The whole file as text, byte for byte except a leading byte order mark. Raises DataError (empty, binary, not UTF-8)."""
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    """The lines of `read_text`, each with its line end, which is `\\n` or `\\r\\n`."""
    check_file(path)
    yield from sound(lines(path), str(path))


def sound(numbered: Iterable[tuple[int, str, Problem | None]], name: str) -> Iterator[str]:
    """The text of each line. Raises DataError for the first line with a problem."""
    for number, line, problem in numbered:
        if problem:
            raise DataError(f"{name}:{number}: {problem.what}", problem.remedy)
        yield line
