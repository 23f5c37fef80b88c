"""Files of rows and text that are read while somebody listens: each by name, size and the SHA-256 of its bytes, taken as they are read."""

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
    """A file that was read to its end. `name` is without its folders, which are the machine's; `sha256` is what `sha256sum` prints."""

    name: str
    sha256: str
    bytes: int


_HEARD: ContextVar[list[FileRead] | None] = ContextVar("files_read", default=None)


@contextmanager
def files_read() -> Iterator[list[FileRead]]:
    """The files that are read whole inside of the block, in order. A block inside hears in the place of this one."""
    found: list[FileRead] = []
    token = _HEARD.set(found)
    try:
        yield found
    finally:
        _HEARD.reset(token)


def hashed_lines(stream: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file as they are; at its end it is noted, where somebody listens."""
    if (found := _HEARD.get()) is None:
        yield from stream
        return
    state, size = hashlib.sha256(), 0
    for line in stream:
        state.update(line)
        size += len(line)
        yield line
    found.append(FileRead(path.name, state.hexdigest(), size))


def note_file(file: BufferedReader, path: Path) -> None:
    """Note an open file that is not read by lines, and go back to its beginning; nothing where nobody listens."""
    if (found := _HEARD.get()) is not None:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(FileRead(path.name, digest, file.tell()))
        file.seek(0)
