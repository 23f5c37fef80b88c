"""Sources of documents: jsonl, csv, parquet, text files and folders of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from onebase.config import config
from onebase.data.files import FORMATS, check_file, read_text, rows, text_lines
from onebase.data.lines import without_end
from onebase.errors import DataError

TRAIN, HOLDOUT = "train", "holdout"
UNKNOWN = "unknown"
"""The licence of a source without a stated one."""
#: accepted values of a source's split column
SPLITS = {
    TRAIN: TRAIN,
    HOLDOUT: HOLDOUT,
    "validation": HOLDOUT,
    "valid": HOLDOUT,
    "val": HOLDOUT,
    "dev": HOLDOUT,
    "test": HOLDOUT,
}


@dataclass(frozen=True)
class Document:
    """One document. `meta["split"]`, if given, overrides the split by hash."""

    text: str
    source: str
    licence: str = UNKNOWN
    id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)


@config
class SourceConfig:
    """A source of documents.

    path: a file, or a folder whose files match `glob`. kind: jsonl, csv and parquet yield one document per record, from the column
    `text_column`; text and folder yield one per file, or one per part between lines equal to `separator`. split_column (records
    only): a column with the value train or holdout (also validation, valid, val, dev, test).
    """

    name: str
    kind: Literal["jsonl", "csv", "parquet", "text", "folder"]
    path: str
    text_column: str = "text"
    licence: str = UNKNOWN
    glob: str = "**/*"
    separator: str = ""
    split_column: str | None = None


def read_source(cfg: SourceConfig) -> Iterator[Document]:
    """Stream the documents of a source, in a fixed order. Raises DataError with file and line for unreadable input."""
    for name, path in files_of(cfg):
        if cfg.kind in ("text", "folder"):
            yield from _texts(cfg, path, name)
        else:
            yield from _records(cfg, path, name)


def files_of(cfg: SourceConfig) -> Iterator[tuple[str, Path]]:
    """The files of a source in order: (name below its folder, path). Raises DataError if there are none."""
    root = Path(cfg.path)
    for path in _files(cfg, root):
        yield path.relative_to(root).as_posix() if root.is_dir() else path.name, path


def _files(cfg: SourceConfig, root: Path) -> list[Path]:
    if not root.is_dir():
        if cfg.kind == "folder" and root.exists():
            raise DataError(
                f"source '{cfg.name}': {root} is a file", "use kind 'text', 'jsonl', 'csv' or 'parquet'"
            )
        check_file(root)
        return [root]
    matches = []
    for path in root.glob(cfg.glob):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)  # .git and the like
        fits = cfg.kind in ("text", "folder") or FORMATS.get(path.suffix.lower()) == cfg.kind
        if path.is_file() and fits and not hidden:
            matches.append(path)
    if not matches:
        raise DataError(
            f"source '{cfg.name}': no file in {root} matches {cfg.glob!r}", "check path, kind and glob"
        )
    return sorted(matches, key=lambda p: p.relative_to(root).as_posix())


def _texts(cfg: SourceConfig, path: Path, name: str) -> Iterator[Document]:
    if not cfg.separator:
        yield Document(read_text(path), cfg.name, cfg.licence, name)
        return
    part: list[str] = []
    count = 0
    for line in chain(text_lines(path), [cfg.separator]):
        if without_end(line) != cfg.separator:
            part.append(line)
        elif part:
            count += 1
            yield Document("".join(part), cfg.name, cfg.licence, f"{name}#{count}")
            part = []


def _records(cfg: SourceConfig, path: Path, name: str) -> Iterator[Document]:
    columns = [cfg.text_column] + ([cfg.split_column] if cfg.split_column else [])
    for number, (where, row) in enumerate(rows(path, cfg.kind, columns), 1):
        text = row[cfg.text_column]
        if not isinstance(text, str):
            kind = "null" if text is None else type(text).__name__
            raise DataError(
                f"{where}: column '{cfg.text_column}' is {kind}, text is expected",
                "fix or remove the record",
            )
        meta = {"split": _split(where, cfg.split_column, row[cfg.split_column])} if cfg.split_column else {}
        yield Document(text, cfg.name, cfg.licence, f"{name}#{number}", meta)


def _split(where: str, column: str, value: object) -> str:
    if not isinstance(value, str) or value.lower() not in SPLITS:
        raise DataError(f"{where}: column '{column}' is {value!r}", f"accepted: {', '.join(SPLITS)}")
    return SPLITS[value.lower()]
