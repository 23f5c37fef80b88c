"""Restricts a process: limits, capabilities, files and system calls. The restrictions cannot be lifted."""

import ctypes
import os
import resource
import struct
from collections.abc import Sequence

from .calls import MACHINES, Line, lines, packed

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 22, 38, 47
SIGKILL = 9
NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
SCOPED = 6
"""The version of landlock that restricts signals and abstract sockets (Linux 6.12)."""


class Missing(Exception):
    """This machine lacks a restriction."""


def own_spaces() -> bool:
    """Put the children of this process in new namespaces (processes, System V memory, network), isolated from other processes. An additional
    restriction that not every machine permits. Returns whether it works."""
    return not LIBC.unshare(NEW_USER | NEW_PID | NEW_IPC | NEW_NET)


def shut(readable: Sequence[str], seconds: int, memory: int, newest: int = 99) -> int:
    """Apply all restrictions to this process. Returns landlock's version. readable: folders. seconds: of CPU. memory: bytes of address space. newest:
    use no later version of landlock. Raises Missing."""
    _limit(seconds, memory)
    _drop_rights()
    version = _only_read(readable, newest)
    machine = os.uname().machine
    if machine not in MACHINES:
        raise Missing(f"there is no list of allowed system calls for {machine}")
    allow_calls(lines(machine))
    return version


def _limit(seconds: int, memory: int) -> None:
    """Limit CPU time and address space; no file writes, no core dump, few descriptors, no locked memory, no message queues."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _drop_rights() -> None:
    """Drop all capabilities and prevent new ones (required before the filter), prevent tracing, and exit with the parent."""
    LIBC.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)  # clear all; a kernel before 4.3 has none
    version = struct.pack("Ii", 0x20080522, 0)
    if LIBC.capset(version, bytes(24)):
        raise Missing("capset cannot drop the capabilities")
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Missing("prctl refuses PR_SET_NO_NEW_PRIVS")
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def _only_read(folders: Sequence[str], newest: int) -> int:
    """Allow only reading files below `folders`; no ports, signals or abstract sockets (landlock(7))."""
    create, add, restrict = 444, 445, 446  # the same numbers on every machine
    version = min(LIBC.syscall(create, None, 0, 1), newest)
    if version < 1:
        raise Missing("the kernel has no landlock (Linux 5.13 and later have it, if it is enabled)")
    # Rights by bit: 13 for files since the first version, then refer, truncate, ioctl; ports to bind and connect; abstract sockets, signals.
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attr = struct.pack("QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < SCOPED else 24]
    rules = LIBC.syscall(create, attr, len(attr), 0)
    if rules < 0:
        raise Missing("landlock cannot create a ruleset")
    read_file, read_folder = 1 << 2, 1 << 3
    for folder in folders:
        try:
            fd = os.open(folder, os.O_PATH)
        except OSError:
            continue
        if LIBC.syscall(add, rules, 1, struct.pack("=Qi", read_file | read_folder, fd), 0):
            raise Missing("landlock cannot add a rule")
        os.close(fd)
    if LIBC.syscall(restrict, rules, 0):
        raise Missing("landlock cannot enforce its rules")
    os.close(rules)
    return version


def allow_calls(code: Sequence[Line]) -> None:
    """Restrict this process to the system calls that a filter (`calls.lines`) allows."""
    raw = packed(code)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    if LIBC.prctl(PR_SET_SECCOMP, 2, program, 0, 0):
        raise Missing("the kernel accepts no seccomp filter")
