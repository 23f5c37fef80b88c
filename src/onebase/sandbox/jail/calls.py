"""The system calls that a program may make, and the BPF filter that refuses all others (seccomp(2), bpf in linux/filter.h).

It is an allowlist. Everything else is refused: overlooked calls, calls of later kernels, and calls of other tables (x32, 32 bits). Numbers:
x86-64, arm64 (None: that machine has none), from asm/unistd_64.h and asm-generic/unistd.h.
"""

import errno
import struct
from collections.abc import Sequence
from typing import NamedTuple

FROM_JUDGE, TO_JUDGE = 60, 61
"""Descriptors for requests to the program and its answers. It can neither close nor replace them."""

FREE = {
    # reading and writing open files; which files can be opened is restricted below, and by landlock
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "lseek": (8, 62),
    "getdents64": (217, 61),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "dup": (32, 23),
    "pipe": (22, None),
    # file status, which imports need
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getcwd": (79, 17),
    # the process's own memory and locks
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "brk": (12, 214),
    "futex": (202, 98),
    # signals: handling its own, never sending one
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    # time
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    # facts about the process and the system
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "sched_yield": (24, 124),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
}
"""Calls that are allowed with any arguments."""


class ArgumentCheck(NamedTuple):
    """A condition on an argument. among: its lower 32 bits are one of `values`. outside: they are none of them. without: none of these bits is set.
    zero: all 64 bits are 0. The kernel reads an int from the lower half only, so checking the upper half would have no effect."""

    argument: int
    how: str
    values: tuple[int, ...] = ()


# O_ACCMODE, O_CREAT, O_TRUNC, the bit of O_TMPFILE beyond O_DIRECTORY
O_WRITING = 0o3 | 0o100 | 0o1000 | 0o20000000
O_ASYNC = 0o20000
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
MAP_LOCKED, MAP_HUGETLB = 0x2000, 0x40000
PR_SET_NAME, PR_GET_NAME = 15, 16
# The clocks of the system and of the process; a negative number is the clock of another process.
CLOCKS = tuple(range(12))
# NORMAL to DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE; others can poison or merge pages
ADVICE = (0, 1, 2, 3, 4, 8, 14, 15)
OURS = (FROM_JUDGE, TO_JUDGE)

CHECKED: dict[str, tuple[tuple[int | None, int | None], tuple[tuple[ArgumentCheck, ...], ...]]] = {
    # name: numbers, alternatives; a call is allowed if all checks of one alternative hold
    "open": ((2, None), ((ArgumentCheck(1, "without", (O_WRITING,)),),)),
    "openat": ((257, 56), ((ArgumentCheck(2, "without", (O_WRITING,)),),)),
    "close": ((3, 57), ((ArgumentCheck(0, "outside", OURS),),)),
    "dup2": ((33, None), ((ArgumentCheck(1, "outside", OURS),),)),
    "dup3": ((292, 24), ((ArgumentCheck(1, "outside", OURS),),)),
    "pipe2": ((293, 59), ((ArgumentCheck(1, "among", (0, 0o4000, 0o2000000, 0o2004000)),),)),
    "fcntl": (
        (72, 25),
        (
            (ArgumentCheck(1, "among", (F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC)),),
            (ArgumentCheck(1, "among", (F_SETFL,)), ArgumentCheck(2, "without", (O_ASYNC,))),
        ),
    ),
    "ioctl": (
        (16, 29),
        ((ArgumentCheck(1, "among", (TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX)),),),
    ),
    "mmap": ((9, 222), ((ArgumentCheck(3, "without", (MAP_LOCKED | MAP_HUGETLB,)),),)),
    "madvise": ((28, 233), ((ArgumentCheck(2, "among", ADVICE),),)),
    "prctl": ((157, 167), ((ArgumentCheck(0, "among", (PR_SET_NAME, PR_GET_NAME)),),)),
    "clock_gettime": ((228, 113), ((ArgumentCheck(0, "among", CLOCKS),),)),
    "clock_getres": ((229, 114), ((ArgumentCheck(0, "among", CLOCKS),),)),
    "prlimit64": ((302, 261), ((ArgumentCheck(0, "among", (0,)), ArgumentCheck(2, "zero")),)),
    "sched_getaffinity": ((204, 123), ((ArgumentCheck(0, "among", (0,)),),)),
}
"""Calls that are allowed with certain arguments only."""

PRETENDED = {"close_range": (436, 436)}
"""Calls that return 0 and do nothing: libc aborts if it cannot close all descriptors, and a program has none that it must close."""

NEW = 424
"""From this number on, all machines share one table. Refused calls from here on return ENOSYS, as on an older kernel, so that libc uses the older
call; those before return EPERM."""

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: the column of the call numbers, and its architecture number in seccomp."""

Line = tuple[int, int, int, int]
"""An instruction: code, jump if true, jump if false, operand."""

LOAD, EQUAL, ANY_BIT, AT_LEAST, GIVE = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X32 = 0x40000000


def lines(machine: str, refused: int = errno.EPERM, absent: int = errno.ENOSYS) -> list[Line]:
    """The filter for a machine of MACHINES. refused, absent: errno of calls that are not allowed, before NEW and from NEW on."""
    column, arch = MACHINES[machine]
    code: list[Line] = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, arch), (GIVE, 0, 0, KILL), (LOAD, 0, 0, 0)]
    code += [(AT_LEAST, 0, 1, X32), (GIVE, 0, 0, REFUSE | refused)]
    for pair in FREE.values():
        if (number := pair[column]) is not None:
            code += [(EQUAL, 0, 1, number), (GIVE, 0, 0, ALLOW)]
    for numbers, alternatives in CHECKED.values():
        if (number := numbers[column]) is not None:
            block = [
                *(line for checks in alternatives for line in _alternative(checks)),
                (GIVE, 0, 0, REFUSE | refused),
            ]
            code += [(EQUAL, 0, len(block), number), *block]
    for pair in PRETENDED.values():
        code += [(EQUAL, 0, 1, pair[column]), (GIVE, 0, 0, REFUSE)]
    return [*code, (AT_LEAST, 0, 1, NEW), (GIVE, 0, 0, REFUSE | absent), (GIVE, 0, 0, REFUSE | refused)]


def packed(code: Sequence[Line]) -> bytes:
    """The filter in the kernel's format (struct sock_filter)."""
    return b"".join(struct.pack("HBBI", *line) for line in code)


def _alternative(checks: Sequence[ArgumentCheck]) -> list[Line]:
    """Allow the call if all checks hold, else continue after these lines."""
    out: list[Line] = [(GIVE, 0, 0, ALLOW)]
    for check in reversed(checks):
        out = [*_check(check, len(out)), *out]
    return out


def _check(check: ArgumentCheck, rest: int) -> list[Line]:
    """Continue if the check holds, else skip the `rest` lines that follow."""
    low = 16 + 8 * check.argument  # struct seccomp_data, on little-endian machines
    if check.how == "zero":
        return [(LOAD, 0, 0, low), (EQUAL, 0, rest + 2, 0), (LOAD, 0, 0, low + 4), (EQUAL, 0, rest, 0)]
    if check.how == "without":
        return [(LOAD, 0, 0, low), (ANY_BIT, rest, 0, check.values[0])]
    n = len(check.values)
    if check.how == "outside":
        return [(LOAD, 0, 0, low), *((EQUAL, rest + n - 1 - i, 0, v) for i, v in enumerate(check.values))]
    among = [(EQUAL, n - 1 - i, rest if i == n - 1 else 0, v) for i, v in enumerate(check.values)]
    return [(LOAD, 0, 0, low), *among]
