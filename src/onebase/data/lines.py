"""Files as lines of text, and what is wrong with a record of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from onebase.artifact.disk import unreadable
from onebase.artifact.odd_files import odd_beginning
from onebase.data.file_hashes import hashed_lines
from onebase.errors import DataError


class Problem(NamedTuple):
    """What is wrong with one record, and what to do."""

    what: str
    remedy: str


SHOWN = 20
"""Names of columns that an error lists."""
Record = tuple[str, "dict[str, Any] | Problem"]
Line = tuple[int, str, Problem | None]
"""Number, text with its end, and problem of a line."""


def lines(path: Path, rows: bool = False) -> Iterator[Line]:
    """Number, text with its end and problem of each line, as `lines_of` has them. rows: shall the file hold rows? Then one of another kind is
    refused by what it is."""
    try:
        with path.open("rb") as f:
            if rows and (odd := odd_beginning(path, f.peek(512)[:512])) is not None:
                raise odd
            yield from lines_of(hashed_lines(f, path), str(path))
    except OSError as e:
        raise unreadable(path, e) from None


def lines_of(stream: Iterable[bytes], name: str) -> Iterator[Line]:
    """Number, text with its end and problem of each line of what is called `name`.

    Lines end in `\\n` or `\\r\\n`, and in nothing else: U+2028, a form feed and a lone `\\r` are text. A line that is no UTF-8 keeps its bytes as
    surrogates. Raises DataError for a NUL byte.
    """
    at = 0
    for number, raw in enumerate(stream, 1):
        if b"\0" in raw:
            raise DataError(
                f"{name}:{number}: a binary file (NUL at byte {at + raw.index(0)})",
                "give text in UTF-8; leave binary files out (glob)",
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
    """What is wrong where columns are not there."""
    names = ", ".join(f"'{c}'" for c in columns)
    return Problem(f"no column {names}", f"the columns there are: {some_names(there) or 'none'}")


def some_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a file may have hundreds of thousands."""
    shown = ", ".join(n if len(n) <= 100 else f"{n[:100]}..." for n in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


def missing_column(where: str, columns: Sequence[str], there: Sequence[str]) -> DataError:
    """The error for columns that are not there."""
    problem = no_column(columns, there)
    return DataError(f"{where}: {problem.what}", problem.remedy)
