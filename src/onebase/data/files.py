"""Rows out of jsonl, csv and parquet files and text out of text files, with the place of every mistake."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onebase.errors import DataError

#: format by file ending
FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
Row = tuple[str, dict[str, Any]]


def rows(path: Path, kind: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """(where, row) of each record; `where` is `file:line` (for Parquet `file: row n`). Blank lines of jsonl
    are passed over.

    A row that lacks one of `columns`, an empty file, a broken line and bytes that are no UTF-8 raise
    DataError.
    """
    check_file(path)
    reader = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[kind]
    found = False
    for row in reader(path, columns):
        found = True
        yield row
    if not found:
        raise DataError(f"{path}: no records in it", "give a file with at least one record")


def check_file(path: Path) -> None:
    """Raise DataError unless `path` is a file with something in it that can be read."""
    if not path.exists():
        raise DataError(f"{path}: no such file", "check the path")
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder, a file is expected", "name a file in it, or use a source of kind 'folder'"
        )
    try:
        with path.open("rb") as f:
            first = f.read(1)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}", "check its permissions") from None
    if not first:
        raise DataError(f"{path}: the file is empty", "remove it from the source, or fill it")


def read_text(path: Path) -> str:
    """The whole file as text, byte for byte but for a leading byte order mark. Raises DataError (empty,
    binary, no UTF-8).
    """
    check_file(path)
    return "".join(line for _, line in _lines(path))


def missing_column(where: str, columns: Sequence[str], there: Sequence[str]) -> DataError:
    """The error for columns that are not there."""
    names = ", ".join(f"'{c}'" for c in columns)
    return DataError(f"{where}: no column {names}", f"the columns there are: {', '.join(there) or 'none'}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    at = 0
    with path.open("rb") as f:
        for number, raw in enumerate(f, 1):
            if b"\0" in raw:
                raise DataError(
                    f"{path}:{number}: a binary file (NUL at byte {at + raw.index(0)})",
                    "give text in UTF-8; leave binary files out (glob)",
                )
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as e:
                raise DataError(
                    f"{path}:{number}: not UTF-8 (byte 0x{raw[e.start]:02x} at offset {at + e.start})",
                    "convert it, for example: iconv -f latin1 -t utf-8",
                ) from None
            yield number, line.removeprefix("\ufeff") if number == 1 else line
            at += len(raw)


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            why = f"{e.msg} at column {e.colno}" if isinstance(e, json.JSONDecodeError) else str(e)
            raise DataError(f"{where}: not valid JSON: {why}", "each line holds one JSON object") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: a JSON {_json_kind(row)}, an object is expected",
                'each line is like {"text": "..."}',
            )
        if lacking := [c for c in columns if c not in row]:
            raise missing_column(where, lacking, list(row))
        yield where, row


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # documents are longer than the library's 128 KiB
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise DataError(
                f"{path}:1: a column name is there twice: {', '.join(names)}", "give each column its own name"
            )
        if lacking := [c for c in columns if c not in names]:
            raise missing_column(f"{path}:1", lacking, names)
        for fields in reader:
            where = f"{path}:{reader.line_num}"  # the line on which the record ends
            if not fields:
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{where}: {len(fields)} fields, the header has {len(names)}",
                    'quote text that has commas: "a, b"',
                )
            yield where, dict(zip(names, fields, strict=True))
    except csv.Error as e:
        raise DataError(
            f"{path}:{reader.line_num}: not valid CSV: {e}", "check quotes and line ends"
        ) from None


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
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


def _json_kind(value: object) -> str:
    names = {list: "list", str: "string", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")
