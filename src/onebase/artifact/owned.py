"""A folder that one process writes at a time: who has it, kept for others to read, and let go however the process ends.

The claim is a lock of the kernel (flock) on a small file, so that it ends with the process that has it: a killed owner stands in nobody's way, and
a process number that is used again means nothing. Over NFS Linux asks the server for the lock, which then holds between hosts. Where
the file system has no locks, the file's own words decide: an owner of this host that is no more is followed, one of another host must be looked after by a person.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onebase.artifact.disk import disk_errors
from onebase.errors import ArtifactError

OWNER = ".owner"
PAUSE = 0.2
"""Seconds between two looks of one who waits."""
log = logging.getLogger(__name__)


@contextlib.contextmanager
def owned(folder: Path, *, beside: bool = False, wait: bool = False) -> Iterator[None]:
    """While inside, this process alone writes `folder`. Raises ArtifactError naming the process that has it; with `wait`, waits for it instead.

    beside: the folder will appear by a rename, so the claim stands beside it. What was made for the claim alone goes with it.
    """
    folder = Path(os.path.realpath(folder))
    path = folder.with_name(f".{folder.name}{OWNER}") if beside else folder / OWNER
    with disk_errors(folder):
        made = _make(path.parent)
    fd = None
    try:
        fd = _taken(path, folder, wait)
        yield
    finally:
        if fd is not None:
            _let_go(path, fd)
        for place in made:  # a folder that nothing was put in
            with contextlib.suppress(OSError):
                place.rmdir()


def _make(place: Path) -> list[Path]:
    """The folders that were not there and now are, the innermost first."""
    missing = [p for p in (place, *place.parents) if not p.exists()]
    place.mkdir(parents=True, exist_ok=True)
    return missing


def _taken(path: Path, folder: Path, wait: bool) -> int | None:
    """The claim as an open file; None where this system has no locks."""
    told = False
    while True:
        found = _try(path, folder, wait)
        if found is not True:
            return found or None
        if not wait:
            raise ArtifactError(
                f"{folder} is being written by {_who(path)}", "wait for it, stop it, or give another --out"
            )
        if not told:
            log.warning("waiting for %s, which is making %s", _who(path), folder)
            told = True
        time.sleep(PAUSE)


def _try(path: Path, folder: Path, wait: bool) -> int | bool:
    """An open file that is locked for us; True where another has it, False where there are no locks and nothing to wait for."""
    try:
        import fcntl
    except ImportError:
        return False  # Windows: writers are told apart by the names of their drafts alone
    while True:
        with disk_errors(folder):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                os.close(fd)
                return True
            # No locks here. Who would wait does not: what it makes appears whole, and nobody would say when the other is gone.
            if wait or ((said := _read(path)) and not _gone(said)):
                os.close(fd)
                return not wait
        try:
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(fd)  # the owner before us took the file away between our two calls
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid())}
    mine |= {"since": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(sys.argv)[:200]}
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(mine).encode(), 0)
    return fd


def _let_go(path: Path, fd: int) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            path.unlink()  # before the lock goes: who opened it meanwhile sees that it is gone and looks again
    os.close(fd)


def _read(path: Path) -> dict[str, Any] | None:
    """What an owner wrote of itself; None where it did not, or not yet."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict) and isinstance(said.get("pid"), int) and isinstance(said.get("host"), str):
            return said
    return None


def _gone(said: dict[str, Any]) -> bool:
    """Is the owner a process of this host that is no more? A number that was given to a new process was born at another time."""
    if said["host"] != socket.gethostname():
        return False
    try:
        os.kill(said["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return said.get("born") != _born(said["pid"])


def _born(pid: int) -> str | None:
    """When a process began, as its system counts it, and in which run of the system; None where that cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"


def _who(path: Path) -> str:
    said = _read(path)
    if said is None:
        return "another process"
    command = f": {said['command']}" if said.get("command") else ""
    return f"process {said['pid']} on {said['host']} (since {said.get('since', 'unknown')}{command})"
