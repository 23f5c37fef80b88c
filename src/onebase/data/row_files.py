"""Records out of jsonl, json, csv, tsv and parquet files: each with the place where it begins, those that cannot be read among them."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from onebase.artifact.disk import unreadable
from onebase.errors import DataError

#: format by file ending
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


class Problem(NamedTuple):
    """What is wrong with one record, and what to do."""

    what: str
    remedy: str


SHOWN, DEEPEST = 20, 100
"""Names of columns that an error lists, and lists and objects that may stand in each other."""
JSON_KINDS = {list: "list", str: "string", bool: "true/false", type(None): "null"}
Record = tuple[str, "dict[str, Any] | Problem"]
Line = tuple[int, str, Problem | None]
"""Number, text with its end, and problem of a line."""


def records(path: Path, kind: str, columns: Sequence[str] = ()) -> Iterator[Record]:
    """(where, record or what is wrong with it). `where` is `file:line`, the line on which the record begins (for Parquet `file: row n`).

    Blank lines are passed over. What is wrong with the file as a whole raises DataError: a column that a header lacks, a NUL byte, a
    damaged Parquet file.
    """
    return READERS[kind](path, columns)


def lines(path: Path) -> Iterator[Line]:
    """Number, text with its end and problem of each line, as `lines_of` has them."""
    try:
        with path.open("rb") as f:
            yield from lines_of(f, str(path))
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
    return Problem(f"no column {names}", f"the columns there are: {_some(there) or 'none'}")


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are: a file may have hundreds of thousands."""
    shown = ", ".join(n if len(n) <= 100 else f"{n[:100]}..." for n in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


def missing_column(where: str, columns: Sequence[str], there: Sequence[str]) -> DataError:
    """The error for columns that are not there."""
    problem = no_column(columns, there)
    return DataError(f"{where}: {problem.what}", problem.remedy)


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    yield from _json_lines(path, lines(path), columns)


def _json_lines(path: Path, found: Iterable[Line], columns: Sequence[str]) -> Iterator[Record]:
    for number, line, problem in found:
        if line.strip():
            yield f"{path}:{number}", problem or _json_line(line, columns)


def _json_line(line: str, columns: Sequence[str]) -> dict[str, Any] | Problem:
    try:
        return _object(_DECODER.decode(line.rstrip("\r\n")), columns)
    except (ValueError, RecursionError) as e:
        return _not_json(e, "each line holds one JSON object")


def _json(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """A list of objects; a .json file that does not begin with `[` is read as jsonl."""
    found = list(lines(path))
    text = "".join(line for _, line, _ in found)
    if not text.lstrip().startswith("["):
        yield from _json_lines(path, found, columns)
        return
    if flawed := next(((n, problem) for n, _, problem in found if problem), None):
        raise DataError(f"{path}:{flawed[0]}: {flawed[1].what}", flawed[1].remedy)
    at = _blank(text, 0) + 1
    line = 1 + text.count("\n", 0, at)
    first = True
    while True:
        before, at = at, _blank(text, at)
        closes = text[at : at + 1] == "]"
        if not first and not closes:
            if text[at : at + 1] != ",":
                line += text.count("\n", before, at)
                yield (
                    f"{path}:{line}",
                    Problem("not valid JSON: a comma or ] is expected", "the file is one JSON list"),
                )
                return
            at = _blank(text, at + 1)
        line += text.count("\n", before, at)
        where = f"{path}:{line}"
        if closes:
            if text[at + 1 :].strip():
                yield (
                    where,
                    Problem("not valid JSON: more stands behind the list", "the file is one JSON list"),
                )
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as e:  # what follows cannot be told apart any more
            yield where, _not_json(e, "the file is one JSON list of objects")
            return
        yield where, _object(value, columns)
        line += text.count("\n", at, end)
        at, first = end, False


def _blank(text: str, at: int) -> int:
    """Where the next character is that is no white space of JSON."""
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
"""No key twice: the last one would win, and nobody would hear of the first."""


def _too_deep(value: object) -> bool:
    """Are there more than DEEPEST lists and objects in each other? What comes later walks into them by recursion."""
    level: list[object] = [value]
    for _ in range(DEEPEST + 1):
        level = [
            x
            for v in level
            for x in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())
            if isinstance(x, (dict, list))
        ]
        if not level:
            return False
    return True


def _object(value: object, columns: Sequence[str]) -> dict[str, Any] | Problem:
    if not isinstance(value, dict):
        return Problem(
            f"a JSON {JSON_KINDS.get(type(value), 'number')}, an object is expected",
            'a row is like {"text": "..."}',
        )
    if lacking := [c for c in columns if c not in value]:
        return no_column(lacking, list(value))
    if _too_deep(value):
        return Problem(f"nested more than {DEEPEST} deep", "write it flat")
    return value


def _not_json(e: Exception, remedy: str) -> Problem:
    why = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else str(e)
    return Problem(f"not valid JSON: {why}", remedy)


def _separated(path: Path, columns: Sequence[str], separator: str, remedy: str) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # documents are longer than the library's 128 KiB
    flawed: dict[int, Problem] = {}

    def texts() -> Iterator[str]:
        for number, line, problem in lines(path):
            if problem:
                flawed[number] = problem
            yield line

    reader = csv.reader(texts(), delimiter=separator, strict=True)
    names: list[str] | None = None
    while True:
        begins = reader.line_num + 1
        where = f"{path}:{begins}"
        problem: Problem | None = None
        try:
            fields = next(reader, None)
        except csv.Error as e:
            fields, problem = [], Problem(f"not valid CSV: {e}", "check quotes and line ends")
        problem = next((flawed[n] for n in range(begins, reader.line_num + 1) if n in flawed), problem)
        if fields is None:
            return
        if names is None:
            if problem:
                raise DataError(f"{where}: {problem.what}", problem.remedy)
            if fields:
                names = _header(where, fields, columns)
        elif problem:
            yield where, problem
        elif fields and len(fields) != len(names):
            yield where, Problem(f"{len(fields)} fields, the header has {len(names)}", remedy)
        elif fields:
            yield where, dict(zip(names, fields, strict=True))


def _header(where: str, names: list[str], columns: Sequence[str]) -> list[str]:
    if len(set(names)) < len(names):
        twice = [n for n, count in Counter(names).items() if count > 1]
        raise DataError(
            f"{where}: a column name is there twice: {_some(twice)}", "give each column its own name"
        )
    if lacking := [c for c in columns if c not in names]:
        raise missing_column(where, lacking, names)
    return names


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as e:
        raise DataError(
            f"{path}: not a Parquet file: {e}", "give a .parquet file, or name its kind"
        ) from None
    with file:
        there = file.schema_arrow.names
        if lacking := [c for c in columns if c not in there]:
            raise missing_column(str(path), lacking, there)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024, columns=list(columns) or None):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
        except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
            raise DataError(f"{path}: damaged after row {number}: {e}", "make the file again") from None


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Record]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": partial(_separated, separator=",", remedy='quote text that has commas: "a, b"'),
    "tsv": partial(_separated, separator="\t", remedy='quote text that has tabs or quotes: "say ""a"""'),
    "parquet": _parquet,
}
