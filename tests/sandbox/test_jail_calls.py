"""Which system calls the jail lets through: by reading its filter as the kernel does, on both machines, and by trying every number of this one's table."""

import functools
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebase.sandbox import jail
from onebase.sandbox.jail.calls import CHECKED, FREE, MACHINES, lines, packed

ALLOWED, REFUSED, ABSENT, PRETENDED, KILLED = 0x7FFF0000, 0x50001, 0x50026, 0x50000, 0x80000000

LET_THROUGH = {
    "x86_64": {
        *(
            0,
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15,
            16,
            17,
            18,
            19,
            20,
            21,
            22,
            23,
            24,
            25,
            28,
            32,
            33,
        ),
        *(
            35,
            36,
            37,
            38,
            39,
            60,
            63,
            72,
            79,
            96,
            97,
            98,
            99,
            100,
            102,
            104,
            107,
            108,
            110,
            131,
            157,
            186,
            201,
            202,
        ),
        *(204, 217, 219, 228, 229, 230, 231, 257, 262, 269, 270, 271, 292, 293, 302, 309, 318, 332, 439),
    },
    "aarch64": {
        *(
            17,
            23,
            24,
            25,
            29,
            48,
            56,
            57,
            59,
            61,
            62,
            63,
            64,
            65,
            66,
            67,
            68,
            72,
            73,
            79,
            80,
            93,
            94,
            98,
            101,
            102,
        ),
        *(
            103,
            113,
            114,
            115,
            123,
            124,
            128,
            132,
            134,
            135,
            139,
            153,
            160,
            163,
            165,
            167,
            168,
            169,
            172,
            173,
            174,
        ),
        *(175, 176, 177, 178, 179, 214, 215, 216, 222, 226, 233, 261, 278, 291, 439),
    },
}
"""All that may ever be let through, with whatever arguments. A number that is added to the jail is added here by hand, with a reason."""

GOOD = {
    # name: arguments that are let through; each of the others is a brother that is not
    "open": [(0, 0), (0, 0o2000000)],
    "openat": [(2**64 - 100, 0, 0), (0, 0, 0o2200000)],
    "close": [(0,), (59,), (62,)],
    "dup2": [(0, 5)],
    "dup3": [(0, 5, 0)],
    "pipe2": [(0, 0), (0, 0o2000000)],
    "fcntl": [(3, 0, 9), (3, 1), (3, 2, 1), (3, 3), (3, 4, 0o4000), (3, 1030, 9)],
    "ioctl": [(0, 0x5401), (0, 0x5413), (0, 0x541B), (0, 0x5421), (0, 0x5450), (0, 0x5451)],
    "mmap": [(0, 1, 7, 0x22)],
    "madvise": [(0, 1, 4), (0, 1, 8)],
    "prctl": [(15,), (16,)],
    "clock_gettime": [(0,), (1,), (3,)],
    "clock_getres": [(1,)],
    "prlimit64": [(0, 7, 0, 1)],
    "sched_getaffinity": [(0, 8, 1)],
}
BAD = {
    "open": [(0, 1), (0, 2), (0, 3), (0, 0o100), (0, 0o1000), (0, 0o1003), (0, 0o20200000), (0, 2**32 + 1)],
    "openat": [(0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 0o100), (0, 0, 0o1000), (0, 0, 0o20200000)],
    "close": [(60,), (61,), (2**32 + 60,)],
    "dup2": [(0, 60), (0, 61), (0, 2**32 + 61)],
    "dup3": [(0, 60, 0), (0, 61, 0)],
    "pipe2": [(0, 0o40000), (0, 0o200)],  # O_DIRECT; O_NOTIFICATION_PIPE
    # SETLK, SETOWN, SETSIG, SETOWN_EX, SETLEASE, NOTIFY, SETPIPE_SZ, ADD_SEALS, SET_RW_HINT, and O_ASYNC
    "fcntl": [
        *((3, c, 0) for c in (6, 7, 8, 10, 15, 37, 38, 1024, 1026, 1031, 1033, 1036, 1038)),
        (3, 4, 0o24000),
    ],
    # TCSETS, TIOCSTI, TIOCSCTTY, TIOCLINUX, FIOASYNC, FIOSETOWN, SIOCSPGRP, FS_IOC_SETFLAGS, FICLONE
    "ioctl": [
        (0, c) for c in (0x5402, 0x5412, 0x540E, 0x541C, 0x5452, 0x8901, 0x8902, 0x40086602, 0x40049409)
    ],
    "mmap": [(0, 1, 7, 0x40022), (0, 1, 7, 0x2022)],
    "madvise": [(0, 1, 9), (0, 1, 12), (0, 1, 100), (0, 1, 101)],  # REMOVE, MERGEABLE, HWPOISON, SOFT_OFFLINE
    # PDEATHSIG, DUMPABLE, KEEPCAPS, SECCOMP, CAPBSET_DROP, SECUREBITS, NO_NEW_PRIVS, SET_MM, SET_PTRACER
    "prctl": [(c, 0) for c in (1, 4, 8, 22, 24, 28, 38, 35, 0x59616D61)],
    "clock_gettime": [(2**32 - 6,), (2**64 - 6,)],
    "clock_getres": [(2**32 - 6,)],
    "prlimit64": [(0, 7, 1, 0), (1, 7, 0, 1), (0, 7, 2**32, 0)],
    "sched_getaffinity": [(1, 8, 1)],
}


@functools.cache
def filtered(machine: str) -> list[tuple[int, ...]]:
    raw = packed(lines(machine))
    return [struct.unpack_from("HBBI", raw, i) for i in range(0, len(raw), 8)]


def answer(machine: str, number: int, args: tuple[int, ...] = (), arch: int | None = None) -> int:
    """What a filter gives, run as the kernel runs it: over a struct seccomp_data."""
    padded = [a % 2**64 for a in (*args, *(0,) * (6 - len(args)))]
    data = struct.pack("<IIQ6Q", number, MACHINES[machine][1] if arch is None else arch, 0, *padded)
    code, at, a = filtered(machine), 0, 0
    while True:
        what, true, false, k = code[at]
        at += 1
        if what == 0x20:
            a = struct.unpack_from("<I", data, k)[0]
        elif what == 0x06:
            return k
        else:
            held = {0x15: a == k, 0x35: a >= k, 0x45: bool(a & k)}[what]
            at += true if held else false


def numbers(machine: str) -> dict[str, int]:
    column = MACHINES[machine][0]
    pairs = {**FREE, **{name: pair for name, (pair, _) in CHECKED.items()}}
    return {name: n for name, pair in pairs.items() if (n := pair[column]) is not None}


@pytest.mark.parametrize("machine", MACHINES)
def test_no_number_is_let_through_but_those_written_here(machine: str) -> None:
    known = numbers(machine)
    assert set(known.values()) == LET_THROUGH[machine]
    good = {known[name]: args for name, args in GOOD.items() if name in known}
    assert set(good) == {known[name] for name in CHECKED if name in known}
    for n in range(2048):
        given_args = good.get(n, [(), (2**64 - 1,) * 6])
        answers = {answer(machine, n, args) for args in given_args}
        if n in LET_THROUGH[machine]:
            assert answers == {ALLOWED}, n
        else:
            assert answers == {PRETENDED if n == 436 else ABSENT if n >= 424 else REFUSED}, n
        for x32 in (0x40000000, 0x80000000, 0xC0000000):
            assert answer(machine, n | x32) != ALLOWED


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_that_make_a_harmless_call_harmful_are_refused(machine: str) -> None:
    assert set(GOOD) == set(BAD) == set(CHECKED)
    for name, number in numbers(machine).items():
        for args in BAD.get(name, ()):
            assert answer(machine, number, args) == REFUSED, (name, args)


@given(
    st.sampled_from(sorted(MACHINES)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_the_upper_half_of_an_argument_changes_no_answer(
    machine: str, number: int, first: int, second: int
) -> None:
    # but for the pointer of prlimit64, which must be null as a whole
    assert answer(machine, number, (first, second)) == answer(
        machine, number, (first % 2**32, second % 2**32)
    )
    assert (answer(machine, number, (first, second)) == ALLOWED) <= (number in LET_THROUGH[machine])
    assert answer(machine, number, arch=0x40000003) == KILLED  # the calls of 32 bits


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"__NR_(\w+) (\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"__NR(?:3264)?_(\w+) (\d+)"),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    path, pattern = HEADERS[machine]
    if not path.is_file():
        pytest.skip("the kernel's headers are not installed")
    theirs = {name: int(n) for name, n in re.findall(rf"#define {pattern}", path.read_text())}
    theirs.setdefault("newfstatat", theirs.get("fstatat", -1))
    for name, number in numbers(machine).items():
        assert theirs[name] == number, name


TRY = """
import ctypes, json, os, sys
sys.path.append(sys.argv[1])
from jail import calls, locks
spaces, readable = locks.own_spaces(), ["/usr/lib", os.path.dirname(os.__file__)]
if (child := os.fork()):
    os.waitpid(child, 0); sys.exit()
machine = os.uname().machine
locks._limit(20, 2**30); locks._drop_rights(); locks._only_read(readable, 99)
locks.allow_calls(calls.lines(machine, 1234, 1235))
call, found = locks.LIBC.syscall, {}
ends = json.loads(sys.argv[2])
for bit in (0, 0x40000000):
    for number in range(600):
        if bit or number not in ends:
            ctypes.set_errno(0)
            got = call(ctypes.c_long(bit | number), *[ctypes.c_long(-1)] * 6)
            found[bit | number] = ctypes.get_errno() if got == -1 else 0
print(json.dumps(found), flush=True)
call(ctypes.c_long(ends[0]), ctypes.c_long(0))
print("exit_group is not let through", flush=True)
"""
"""Every number, in a process that is shut in, with a filter that answers what the kernel never does, so that a refusal is known from a failure."""


ENDS = {"x86_64": [231, 60, 15, 335, 336], "aarch64": [94, 93, 139]}
"""Calls that end the process, so that they are not among those tried: exit_group, exit, rt_sigreturn; uretprobe and uprobe, which the kernel
(6.14 and 6.18) answers past every filter, with SIGILL for all but its own probes."""


def test_every_number_of_this_machine_s_table_is_tried_in_the_jail() -> None:
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in MACHINES:
        pytest.skip("there is no jail on this machine")
    folder = str(Path(jail.__file__).parents[1])
    command = [*(sys.executable, "-I", "-S", "-c", TRY, folder), json.dumps(ENDS[machine])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = {int(k): v for k, v in json.loads(done.stdout).items()}
    ends = set(ENDS[machine])
    assert len(found) == 1200 - len(ends)
    through = {n for n, error in found.items() if error not in (1234, 1235)}
    # With arguments of -1 the calls with a check are refused, but for those whose check -1 passes; close_range pretends.
    known = numbers(machine)
    passing = {known[name] for name in ("close", "dup2", "dup3") if name in known}
    free = {n for name, n in known.items() if name in FREE}
    assert through == (free - ends) | passing | {436}
    assert all(found[n] == 1235 for n in range(424, 600) if n not in (436, 439))
