"""Reads records from jsonl, json, csv, tsv and parquet files: each with its position, unreadable records included."""

from __future__ import annotations

import csv
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BufferedReader
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from onebase.artifact.disk import unreadable
from onebase.artifact.odd_files import odd_beginning
from onebase.data.file_hashes import note_file
from onebase.data.json_files import json_file, json_lines
from onebase.data.lines import Problem, Record, lines, missing_column, some_names
from onebase.errors import DataError

log = logging.getLogger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Column separators of csv and tsv files, and their names."""
Notes = dict[str, str]
"""Facts found while reading a file, for the record: `separator`, if it is not the one that the extension implies."""


def records(
    path: Path, kind: str, columns: Sequence[str] = (), notes: Notes | None = None
) -> Iterator[Record]:
    """(where, record or its problem). `where` is `file:line`, the line on which the record begins (for Parquet `file: row n`).

    Blank lines are skipped. notes: receives facts about the file. Raises DataError for problems of the whole file: a column missing from
    the header, a NUL byte, a damaged Parquet file.
    """
    return READERS[kind](path, columns, {} if notes is None else notes)


def _separated(
    path: Path, columns: Sequence[str], notes: Notes, separator: str, remedy: str
) -> Iterator[Record]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # documents are longer than the library's 128 KiB
    flawed: dict[int, Problem] = {}

    def texts() -> Iterator[str]:
        for number, line, problem in lines(path, rows=True):
            if problem:
                flawed[number] = problem
            yield line

    found, before = texts(), list[str]()
    for line in found:
        before.append(line)
        if line.strip():
            break
    if before and (other := _separator(before[-1], separator, columns)) != separator:
        log.warning(
            "%s: columns are separated by %s, not by %s", path, *map(SEPARATORS.get, (other, separator))
        )
        notes["separator"] = other
        separator, remedy = other, f"quote text that contains {SEPARATORS[other]}"
    reader = csv.reader(chain(before, found), delimiter=separator, strict=True)
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


def _separator(header: str, declared: str, columns: Sequence[str]) -> str:
    """The separator of a header: `declared`, unless only another one splits it or yields the wanted columns."""

    def parted(by: str) -> tuple[int, int]:
        try:
            names = next(csv.reader([header], delimiter=by, strict=True), [])
        except csv.Error:
            return 0, 0
        return sum(c in names for c in columns), len(names)

    wanted, parts = parted(declared)
    if parts > 1 and (wanted or not columns):
        return declared
    return max((declared, *SEPARATORS), key=parted)  # the first of equals


def _header(where: str, names: list[str], columns: Sequence[str]) -> list[str]:
    if len(set(names)) < len(names):
        twice = [n for n, count in Counter(names).items() if count > 1]
        raise DataError(
            f"{where}: duplicate column name: {some_names(twice)}", "give each column its own name"
        )
    if lacking := [c for c in columns if c not in names]:
        raise missing_column(where, lacking, names)
    return names


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        raw = path.open("rb")
    except OSError as e:
        raise unreadable(path, e) from None
    with raw:
        if (odd := odd_beginning(path, raw.peek(512)[:512])) is not None:
            raise odd
        note_file(raw, path)
        yield from _parquet_of(raw, path, columns)


def _parquet_of(raw: BufferedReader, path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(raw, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as e:
        raise DataError(
            f"{path}: not a Parquet file: {e}",
            "give an intact .parquet file; name a text file .csv or .jsonl",
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
            raise DataError(f"{path}: damaged after row {number}: {e}", "write the file again") from None


READERS: dict[str, Callable[[Path, Sequence[str], Notes], Iterator[Record]]] = {
    "jsonl": lambda path, columns, _: json_lines(path, columns),
    "json": lambda path, columns, _: json_file(path, columns),
    "csv": partial(_separated, separator=",", remedy='quote text that contains commas: "a, b"'),
    "tsv": partial(_separated, separator="\t", remedy='quote text that contains tabs or quotes: "say ""a"""'),
    "parquet": lambda path, columns, _: _parquet(path, columns),
}
