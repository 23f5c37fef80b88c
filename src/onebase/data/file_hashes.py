"""Records which row and text files are read inside a block: name, size and SHA-256 of each, computed while reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path


@dataclass(frozen=True)
class FileRead:
    """A file that was read to its end. `name` has no folders, which differ between machines; `sha256` is what `sha256sum` prints."""

    name: str
    sha256: str
    bytes: int


_FILES_READ: ContextVar[list[FileRead] | None] = ContextVar("files_read", default=None)


@contextmanager
def files_read() -> Iterator[list[FileRead]]:
    """The files that are read whole inside the block, in order. A nested block records its files instead of this one."""
    files: list[FileRead] = []
    token = _FILES_READ.set(files)
    try:
        yield files
    finally:
        _FILES_READ.reset(token)


def hashed_lines(stream: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file, unchanged. At its end the file is recorded, inside a `files_read` block."""
    if (files := _FILES_READ.get()) is None:
        yield from stream
        return
    state, size = hashlib.sha256(), 0
    for line in stream:
        state.update(line)
        size += len(line)
        yield line
    files.append(FileRead(path.name, state.hexdigest(), size))


def note_file(file: BufferedReader, path: Path) -> None:
    """Record an open file that is not read by lines, and rewind it. Does nothing outside a `files_read` block."""
    if (files := _FILES_READ.get()) is not None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(FileRead(path.name, digest, file.tell()))
        file.seek(0)
