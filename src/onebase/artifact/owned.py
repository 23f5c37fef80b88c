"""Exclusive ownership of a folder by one writing process, with the owner's facts for others to read; released however the process ends.

The claim is a kernel lock (flock) on a small file, so it ends with its process: a killed owner blocks nobody, and a reused process
number means nothing. On NFS Linux asks the server for the lock, which is then valid between hosts. Where the file system has no locks, the
content of the file decides: a dead owner on this host is replaced; for an owner on another host a person must decide.
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
"""Seconds between two attempts of a waiting process."""
log = logging.getLogger(__name__)


@contextlib.contextmanager
def owned(folder: Path, *, beside: bool = False, wait: bool = False) -> Iterator[None]:
    """Inside this context only this process writes `folder`. Raises ArtifactError naming the process that owns it; with `wait`, waits instead.

    beside: the folder will appear by a rename, so the lock file is beside it. Folders created only for the lock file are removed at the end.
    """
    folder = Path(os.path.realpath(folder))
    path = folder.with_name(f".{folder.name}{OWNER}") if beside else folder / OWNER
    with disk_errors(folder):
        made = _make(path.parent)
    fd = None
    try:
        fd = _acquire(path, folder, wait)
        yield
    finally:
        if fd is not None:
            _release(path, fd)
        for created in made:  # removes only empty folders
            with contextlib.suppress(OSError):
                created.rmdir()


def _make(folder: Path) -> list[Path]:
    """Create a folder and its parents; returns those that were missing, innermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path, folder: Path, wait: bool) -> int | None:
    """The lock as an open file; None where this system has no locks."""
    logged = False
    while True:
        lock = _try(path, folder, wait)
        if lock is not True:
            return lock or None
        if not wait:
            raise ArtifactError(
                f"{folder} is being written by {_who(path)}", "wait for it, stop it, or give another --out"
            )
        if not logged:
            log.warning("waiting for %s, which is writing %s", _who(path), folder)
            logged = True
        time.sleep(PAUSE)


def _try(path: Path, folder: Path, wait: bool) -> int | bool:
    """An open file locked by this process; True where another has the lock, False where there are no locks and nothing to wait for."""
    try:
        import fcntl
    except ImportError:
        return False  # Windows: only the names of temporary folders keep writers apart
    while True:
        with disk_errors(folder):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                os.close(fd)
                return True
            # No locks here. Do not wait: results appear only when complete, and nothing would report the end of the other process.
            if wait or ((owner := _read(path)) and not _gone(owner)):
                os.close(fd)
                return not wait
        try:
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(fd)  # the previous owner removed the file between our two calls
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid())}
    mine |= {"since": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(sys.argv)[:200]}
    with contextlib.suppress(OSError):  # a full disk: the lock is valid anyway
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(mine).encode(), 0)
    return fd


def _release(path: Path, fd: int) -> None:
    with contextlib.suppress(OSError):
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            path.unlink()  # before the lock is released: a process that opened it meanwhile notices and tries again
    os.close(fd)


def _read(path: Path) -> dict[str, Any] | None:
    """The facts that an owner wrote about itself; None where there are none (yet)."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        owner = json.loads(path.read_bytes())
        if (
            isinstance(owner, dict)
            and isinstance(owner.get("pid"), int)
            and isinstance(owner.get("host"), str)
        ):
            return owner
    return None


def _gone(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this host that has ended. A reused process number has another start time."""
    if owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return owner.get("born") != _born(owner["pid"])


def _born(pid: int) -> str | None:
    """The start time of a process in its system's ticks, with the boot id; None where that cannot be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"


def _who(path: Path) -> str:
    owner = _read(path)
    if owner is None:
        return "another process"
    command = f": {owner['command']}" if owner.get("command") else ""
    return f"process {owner['pid']} on {owner['host']} (since {owner.get('since', 'unknown')}{command})"
