"""Reads files as lines of text, and describes the problems of their records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onebase.artifact.disk import unreadable
from onebase.artifact.odd_files import odd_beginning
from onebase.data.file_hashes import hashed_lines
from onebase.errors import DataError


class Problem(NamedTuple):
    """The problem of one record, and the remedy."""

    what: str
    remedy: str


SHOWN = 20
"""Column names that an error lists at most."""
Record = tuple[str, "dict[str, Any] | Problem"]
Line = tuple[int, str, Problem | None]
"""Number, text with its line end, and problem of a line."""


def lines(path: Path, rows: bool = False) -> Iterator[Line]:
    """The lines of a file, as `lines_of` yields them. rows: the file must contain rows; a file of another kind is refused, and its kind named."""
    try:
        with path.open("rb") as f:
            if rows and (odd := odd_beginning(path, f.peek(512)[:512])) is not None:
                raise odd
            yield from lines_of(hashed_lines(f, path), str(path))
    except OSError as e:
        raise unreadable(path, e) from None


def lines_of(stream: Iterable[bytes], name: str) -> Iterator[Line]:
    """Number, text with its line end, and problem of each line. name: of the stream, for messages.

    Lines end only in `\\n` or `\\r\\n`: U+2028, a form feed and a lone `\\r` are text. A line that is not UTF-8 keeps its bytes as surrogates.
    Raises DataError for a NUL byte.
    """
    at = 0
    for number, raw in enumerate(stream, 1):
        if b"\0" in raw:
            raise DataError(
                f"{name}:{number}: a binary file (NUL at byte {at + raw.index(0)})",
                "give text in UTF-8; exclude binary files (glob)",
            )
        problem = None
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as e:
            line = raw.decode("utf-8", "surrogateescape")
            problem = Problem(
                f"not UTF-8 (byte 0x{raw[e.start]:02x} at offset {at + e.start})",
                "convert it, for example: iconv -f latin1 -t utf-8",
            )
        yield number, line.removeprefix("\ufeff") if number == 1 else line, problem
        at += len(raw)


def without_end(line: str) -> str:
    """The line without the `\\n` or `\\r\\n` that ends it."""
    return line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line


def no_column(columns: Sequence[str], there: Sequence[str]) -> Problem:
    """The problem of missing columns."""
    names = ", ".join(f"'{c}'" for c in columns)
    return Problem(f"no column {names}", f"available columns: {some_names(there) or 'none'}")


def some_names(names: Sequence[str]) -> str:
    """The first names, and the number of the rest: a file may have hundreds of thousands."""
    shown = ", ".join(n if len(n) <= 100 else f"{n[:100]}..." for n in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


def missing_column(where: str, columns: Sequence[str], there: Sequence[str]) -> DataError:
    """The error for missing columns."""
    problem = no_column(columns, there)
    return DataError(f"{where}: {problem.what}", problem.remedy)
