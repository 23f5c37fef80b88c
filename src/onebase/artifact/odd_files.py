"""Recognises files that are not data rows by their first bytes, and tells what to do instead. Without torch or pyarrow, so that commands
can check early."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from onebase.errors import DataError

#: format of rows by file ending
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_SHEET = "save it as CSV UTF-8 in the program that wrote it, and give that file"
# The first match at the start of the file: (bytes, what it is, what to do). {path}: the file, {name}: its name.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x1f\x8b", "a gzip archive", "unpack it first: gunzip -k {path}"),
    (rb"BZh[1-9]", "a bzip2 archive", "unpack it first: bunzip2 -k {path}"),
    (rb"\xfd7zXZ\0", "an xz archive", "unpack it first: unxz -k {path}"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first: unzstd {path}"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x {path}"),
    (rb"\xd0\xcf\x11\xe0", "an old Excel file", _SHEET),
    (rb"%PDF-", "a PDF", "extract its text first, for example: pdftotext {path}"),
    (rb"(?i:\s*<(!doctype html|html))", "a web page", "download the data itself, not the page that shows it"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the data", "fetch the data: git lfs pull"),
    (
        rb"SQLite format 3\0",
        "an SQLite database",
        "export its table: sqlite3 -csv -header {path} 'select ...'",
    ),
    (rb"\x80[\x02-\x05]", "a pickle, which can run any code when opened", "save the rows as jsonl or csv"),
    (rb"\x93NUMPY", "a NumPy array", "save the rows as jsonl or csv"),
    (rb"ARROW1|FEA1", "an Arrow file", "save it as Parquet: dataset.to_parquet, or pandas' to_parquet"),
    (rb"(\xff\xfe|\xfe\xff)", "text in UTF-16", "convert it: iconv -f utf-16 -t utf-8 {path} > utf8-{name}"),
)
_ENDINGS: Mapping[str, str] = {
    ".txt": 'text has no columns: write each text as a line {"text": "..."} of a .jsonl file',
    ".yaml": "give rows, not a recipe",
    ".yml": "give rows, not a recipe",
}


def odd_file(path: Path) -> DataError | None:
    """Why a file contains no rows, whatever its extension; None for an unknown content, or if it cannot be read."""
    try:
        with path.open("rb") as f:
            return odd_beginning(path, f.read(512))
    except OSError:
        return None


def odd_beginning(path: Path, head: bytes) -> DataError | None:
    """`odd_file` by the first bytes, for callers that have the file open."""
    words = {"path": path, "name": path.name}
    if head.startswith(b"PAR1") and path.suffix.lower() != ".parquet":
        return DataError(f"{path} is a Parquet file", f"rename it: {path.with_suffix('.parquet')}")
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    for begins, what, remedy in _BEGINNINGS:
        if re.match(begins, head):
            return DataError(f"{path} is {what}", remedy.format(**words))
    return None


def _zipped(path: Path) -> DataError:
    import zipfile

    try:
        with zipfile.ZipFile(path) as z:
            names = z.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if any(n.startswith("xl/") for n in names):
        return DataError(f"{path} is an Excel file", _SHEET)
    if "content.xml" in names or any(n.startswith("word/") for n in names):
        return DataError(f"{path} is an office document", "save its table as CSV UTF-8, and give that file")
    inside = [n for n in names if Path(n).suffix.lower() in FORMATS]
    more = f", then give {inside[0]}" if inside else ""
    return DataError(f"{path} is a zip archive", f"unpack it first: unzip {path}{more}")


def unknown_format(path: Path) -> DataError:
    """The error for rows whose format the file name does not tell."""
    accepted = ", ".join(FORMATS)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in FORMATS)
        what = (
            f"give one of its files: {', '.join(map(str, files[:5]))}"
            if files
            else f"give a file ({accepted})"
        )
        return DataError(f"{path} is a folder, expected a file of rows", what)
    if path.is_file() and (odd := odd_file(path)) is not None:
        return odd
    hint = _ENDINGS.get(path.suffix.lower(), "")
    return DataError(
        f"{path}: unknown file extension",
        f"{hint + '; ' if hint else ''}accepted: {accepted}, or hf:org/name",
    )
