"""Documents, and the sources that they come from: files and folders of text, records, images and audio."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from onebase.config import config
from onebase.data.files import FORMATS, check_file
from onebase.errors import ConfigError, DataError

TRAIN, HOLDOUT = "train", "holdout"
UNKNOWN = "unknown"
"""The licence of a source without a stated one."""
SUFFIXES = FORMATS | {
    ".tar": "webdataset",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".faa": "fasta",
}
"""Kinds of sources by the ends of their files' names."""
WHOLE = ("text", "folder", "imagefolder", "audiofolder", "mediafolder")
"""Kinds that read files whatever their names end in, or choose among them by themselves."""
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


MARK = "\ufffc"
"""Stands for each image or sound in the text of a document (Unicode's object replacement character)."""


@dataclass(frozen=True)
class MediaFile:
    """An encoded image or sound, as it is on disk. kind: of `modality.media.MEDIA`. name: of the file, and the row in it. problem: why it was not read
    (`data` is then empty); its document is left out."""

    kind: str
    data: bytes
    name: str = ""
    problem: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Document:
    """One document. `meta["split"]`, if given, overrides the split by hash. media: images and sounds, one for each MARK in the text, in order."""

    text: str
    source: str
    licence: str = UNKNOWN
    id: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[MediaFile, ...] = ()


@config
class SourceConfig:
    """A source of documents.

    path: a file, or a folder whose files match `glob`. kind: jsonl, csv and parquet yield one document per record, from the column
    `text_column`; text and folder yield one per file, or one per part between lines equal to `separator`. split_column (records
    only): a column with the value train or holdout (also validation, valid, val, dev, test).

    With images or audio, each document is one file and its text: imagefolder and audiofolder are folders of files, with the texts in `metadata.jsonl`
    or `metadata.csv` (columns `file_name` and `text_column`) as in HF datasets, or none; mediafolder: the same for files of every modality; webdataset are tar files whose members share a name
    (`a.jpg`, `a.txt`); parquet has them in `media_column`, as structs of bytes and path. A record of jsonl may have a list of
    parts instead of a text, `{"type": "text", "text": ...}` and `{"type": "image", "path": ...}` in any order. fasta yields one document per sequence.
    """

    name: str
    kind: Literal[
        "jsonl",
        "csv",
        "parquet",
        "text",
        "folder",
        "imagefolder",
        "audiofolder",
        "mediafolder",
        "webdataset",
        "fasta",
    ]
    path: str
    text_column: str = "text"
    licence: str = UNKNOWN
    glob: str = "**/*"
    separator: str = ""
    split_column: str | None = None
    media_column: str | None = None

    def __post_init__(self) -> None:
        if self.media_column is not None and self.kind != "parquet":
            raise ConfigError(
                f"source '{self.name}' of kind {self.kind} has a media_column",
                "use it with kind parquet; folders and tar files have their media beside the text",
            )


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
        fits = cfg.kind in WHOLE or SUFFIXES.get(path.suffix.lower()) == cfg.kind
        if path.is_file() and fits and not hidden:
            matches.append(path)
    if not matches:
        raise DataError(
            f"source '{cfg.name}': no file in {root} matches {cfg.glob!r}", "check path, kind and glob"
        )
    return sorted(matches, key=lambda p: p.relative_to(root).as_posix())


def document_split(cfg: SourceConfig, where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` of a document: its split, where the source has a column of them. Raises DataError for another value."""
    column = cfg.split_column
    return {} if column is None else {"split": _split(where, column, row.get(column))}


def _split(where: str, column: str, value: object) -> str:
    if not isinstance(value, str) or value.lower() not in SPLITS:
        raise DataError(f"{where}: column '{column}' is {value!r}", f"accepted: {', '.join(SPLITS)}")
    return SPLITS[value.lower()]
