"""Disk access: locations, durable writes, disk errors as cause and remedy, locks that end with the process."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from onebase.errors import ArtifactError, DataError

_FULL = {
    errno.ENOSPC: (
        "the disk is full",
        "free some space or choose another path; existing files are unchanged",
    ),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another path"),
    errno.EFBIG: (
        "the file exceeds the size limit",
        "raise the file size limit (ulimit -f) or choose another disk",
    ),
    errno.EROFS: ("the file system is read-only", "choose a path that can be written"),
}
_PLACE = {
    errno.EACCES: ("permission denied", "choose a path with write permission"),
    errno.EPERM: ("permission denied", "choose a path with write permission"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("a folder of that name exists", "choose another path"),
    errno.EEXIST: ("a file or folder of that name exists", "choose another path"),
    errno.ENOTEMPTY: ("a file or folder of that name exists", "choose another path"),
    errno.ENOENT: ("it cannot be created there", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
}

_NUMPY = re.compile(r"\d+ requested and \d+ written")
"""The message of numpy's `tofile` on a full disk."""
_DRAFT = re.compile(r"(?<=[/\\])\.([^/\\]+)\.tmp-[0-9a-f]{8}(?=[/\\]|$)")


def user_error(error: BaseException, path: Path, only_full: bool = False) -> ArtifactError | None:
    """The ArtifactError for a failed write at `path`, or None for an unrelated error.

    `only_full` maps only errors of the disk itself (full, read-only): for exceptions from code that does more than writing.
    Libraries in Rust raise their own exceptions; there the errno is read from the text ("os error 28").
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := re.search(r"\b(?:os error|errno) (\d+)\b", str(error), re.IGNORECASE)):
        number = int(found[1])
    if number is None and isinstance(error, OSError) and _NUMPY.search(str(error)):
        number = errno.ENOSPC
    if number is None or isinstance(error, ArtifactError):
        return None
    table = _FULL if only_full else _FULL | _PLACE
    if number not in table:
        return None
    cause, remedy = table[number]
    blocking = next((p for p in path.parents if p.is_file()), None)
    if blocking is not None:  # the system reports "exists" or "not a directory", depending on the call
        cause = f"{blocking} is a file, not a folder"
    shown = _DRAFT.sub(r"\1", str(path))  # the final name
    return ArtifactError(f"cannot write {shown}: {cause}", remedy)


def check_file(path: Path) -> None:
    """Raise DataError unless `path` is a readable file that is not empty."""
    if not path.exists():
        raise DataError(f"{path}: no such file", _where_it_may_be(path))
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder, expected a file", "give a file in it, or use a source of kind 'folder'"
        )
    if not os.access(path, os.R_OK):
        raise unreadable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    # Not opened here: a pipe can be read only once.
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path}: the file is empty", "remove it from the source, or add content")


def _where_it_may_be(path: Path) -> str:
    """The remedy for a missing file: the nearest name in its folder, or what the name seems to be instead."""
    text = str(path)
    if found := re.match(r"([a-z][a-z0-9+.-]+):/", text):
        return f"{found[1]}: URLs are not fetched: download it first, or give hf:org/name for a dataset of the Hub"
    if text.startswith("~") and path.expanduser().exists():
        return f"write {path.expanduser()}: the shell does not expand ~ inside quotes"
    with contextlib.suppress(OSError):
        if near := difflib.get_close_matches(path.name, os.listdir(path.parent), 1, 0.75):
            return f"did you mean {path.with_name(near[0])}?"
    if not path.suffix and text.count("/") < 2 and not path.is_absolute():
        name = text if "/" in text else f"ORG/{text}"
        return f"check the path; a dataset of the Hugging Face Hub would be hf:{name}"
    return "check the path" if path.parent.exists() else f"check the path: there is no folder {path.parent}"


def unreadable(path: Path, e: OSError) -> DataError:
    """The error for a file that the system refuses to read."""
    return DataError(f"{path}: cannot be read: {e.strerror or e}", "check its permissions")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn OSErrors of a write at `path` into ArtifactError; others propagate."""
    try:
        yield
    except OSError as e:
        mapped = user_error(e, path)
        if mapped is None:
            raise
        raise mapped from e


def try_lock(folder: Path) -> int | None:
    """Lock a folder for this process: an open descriptor, or None when another process has the lock or locks do not work here.

    The kernel releases the lock when the process ends, however it ends, so a killed writer never blocks the next one.
    """
    try:
        import fcntl
    except ImportError:
        return None
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def home() -> Path:
    """The folder of store and caches: `$ONEBASE_HOME`, else `~/.onebase`. Not created here."""
    return Path(os.environ.get("ONEBASE_HOME") or "~/.onebase").expanduser()


def cache_dir() -> Path:
    """The folder of caches; all of it can be deleted at any time."""
    return home() / "cache"


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, read as a stream."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; its renames are journalled
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` so that `path` has either its old content or all of the new. Raises ArtifactError on disk errors."""
    path = Path(path)
    with disk_errors(path):
        temp = path.with_name(f".{path.name}.tmp-{secrets.token_hex(4)}")
        try:
            write(temp, data)
            os.replace(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        fsync(path.parent)


def siblings(final: Path, what: str) -> list[Path]:
    """The `.<name>.<what>-*` beside `final`: temporary paths of its writers, in use or left over."""
    prefix = f".{final.name}.{what}-"
    if not final.parent.is_dir():
        return []
    return sorted(p for p in final.parent.iterdir() if p.name.startswith(prefix))


def recover(final: Path) -> None:
    """Clean up after a killed `overwrite`: restore the old folder if the new one is missing, else remove the old one."""
    asides = siblings(final, "old")
    if not asides or any(in_use(p) for p in siblings(final, "tmp")):
        return  # nothing to do, or a live writer is between its two renames
    if not final.exists():
        os.rename(asides.pop(), final)
    for old in asides:
        shutil.rmtree(old, ignore_errors=True)


def in_use(folder: Path) -> bool:
    """Whether a running writer has the lock of the folder."""
    try:
        lock = try_lock(folder)
    except FileNotFoundError:
        return False
    if lock is None:
        return True
    os.close(lock)
    return False


def remove_if_abandoned(folder: Path) -> None:
    """Remove a temporary file or folder that a killed writer left."""
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
    elif not in_use(folder):
        shutil.rmtree(folder, ignore_errors=True)
