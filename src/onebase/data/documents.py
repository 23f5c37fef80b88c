"""Reads the documents of a source."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from onebase.data.files import read_text, rows, text_lines
from onebase.data.lines import without_end
from onebase.data.media_sources import READERS, interleaved
from onebase.data.sources import Document, MediaFile, SourceConfig, document_split, files_of
from onebase.errors import DataError


def read_source(cfg: SourceConfig) -> Iterator[Document]:
    """Stream the documents of a source, in a fixed order. Raises DataError with file and line for unreadable input."""
    if cfg.media_column or (cfg.kind != "parquet" and cfg.kind in READERS):
        yield from READERS[cfg.kind](cfg)
        return
    for name, path in files_of(cfg):
        if cfg.kind in ("text", "folder"):
            yield from _texts(cfg, path, name)
        else:
            yield from _records(cfg, path, name)


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
        text, media = row[cfg.text_column], list[MediaFile]()
        if isinstance(text, list) and cfg.kind == "jsonl":
            text, media = interleaved(cfg, where, text, path.parent)
        if not isinstance(text, str):
            kind = "null" if text is None else type(text).__name__
            raise DataError(
                f"{where}: column '{cfg.text_column}' is {kind}, text is expected",
                "fix or remove the record",
            )
        meta = document_split(cfg, where, row)
        yield Document(text, cfg.name, cfg.licence, f"{name}#{number}", meta, tuple(media))
