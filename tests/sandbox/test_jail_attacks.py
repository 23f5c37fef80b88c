"""Real attacks on what is outside of the jail, each of which once worked: as the user who runs the tests and, for root, as nobody too; with all locks of
this machine, and with the fewest (landlock of the first version, no namespaces), where the list of system calls is alone.

**Each attack aims at something that the test made.** With a lock broken it succeeds, as root: nothing here may be sent to all processes, or to
numbers that others may have."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from onebase.errors import UserError
from onebase.sandbox import jail
from onebase.sandbox.programs import Sandbox, SandboxLimits, check_sandbox

NOBODY = 65534
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
C = "import ctypes, os\nL = ctypes.CDLL(None, use_errno=True)\nL.shmat.restype = ctypes.c_void_p\n"


def isolated() -> bool:
    try:
        check_sandbox()
    except UserError:
        return False
    return True


pytestmark = pytest.mark.skipif(not isolated(), reason="this machine has no landlock or no seccomp")


class Who:
    """A sandbox, and how processes are started as the user that it runs as."""

    def __init__(self, sandbox: Sandbox, user: int) -> None:
        self.sandbox, self.user = sandbox, user

    def victim(self) -> "subprocess.Popen[bytes]":
        user = self.user if os.geteuid() == 0 else None
        return subprocess.Popen(["sleep", "60"], user=user, start_new_session=True)

    def attack(self, program: str) -> None:
        """Run a program to its end or its failure."""
        self.sandbox.passes(program, "", SandboxLimits(seconds=2, wall=4))


@pytest.fixture(params=[(u, locks) for u in ("own", "nobody") for locks in ("all", "fewest")], ids="-".join)
def who(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Who:
    user, locks = request.param
    sandbox = Sandbox() if locks == "all" else Sandbox(newest=1, spaces=False)
    if user == "own":
        return Who(sandbox, os.geteuid())
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.geteuid() != 0 or python is None:
        pytest.skip("only root can be nobody, with a Python that nobody may run")
    popen = partial(subprocess.Popen, user=NOBODY, group=NOBODY, extra_groups=[])
    reads = f"import sys; sys.exit(sys.version_info < (3, 11) or not open({str(Path(jail.__file__))!r}))"
    if popen([python, "-c", reads], stderr=subprocess.DEVNULL).wait():
        pytest.skip("nobody may not read the package, or has an older Python")
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr("onebase.sandbox.programs.subprocess.Popen", popen)
    assert sandbox.passes("import os\ndef user(): return os.getuid()", f"assert user() == {NOBODY}")
    monkeypatch.undo()
    return Who(sandbox, NOBODY)


@pytest.fixture
def victim(who: Who) -> Iterator["subprocess.Popen[bytes]"]:
    process = who.victim()
    yield process
    process.kill()
    process.wait()


SIGNALS = {
    "F_SETOWN": "L.fcntl(r, 8, {pid})",
    "F_SETOWN of the group": "L.fcntl(r, 8, -{pid})",
    "F_SETOWN_EX": "L.fcntl(r, 15, (ctypes.c_int * 2)(1, {pid}))",
    "FIOSETOWN": "L.ioctl(r, 0x8901, (ctypes.c_int * 1)({pid}))",
}


@pytest.mark.parametrize("how", SIGNALS)
def test_no_pipe_signals_another_process(how: str, who: Who, victim: "subprocess.Popen[bytes]") -> None:
    for numbered in ("L.fcntl(r, 10, 9)", "L.fcntl(r, 10, 15)", "pass"):
        for switched in ("L.fcntl(r, 4, 0o24000)", "L.ioctl(r, 0x5452, (ctypes.c_int * 1)(1))"):
            asked = SIGNALS[how].format(pid=victim.pid)
            who.attack(f"{C}r, w = os.pipe()\n{asked}\n{numbered}\n{switched}\nos.write(w, b'x')")
    time.sleep(0.1)
    assert victim.poll() is None


def test_no_call_signals_another_process(who: Who, victim: "subprocess.Popen[bytes]") -> None:
    pid = victim.pid
    calls = {
        "x86_64": [
            (62, pid, 9),
            (200, pid, 9),
            (234, pid, pid, 9),
            (129, pid, 9, 0),
            (297, pid, pid, 9, 0),
        ],
        "aarch64": [
            (129, pid, 9),
            (130, pid, 9),
            (131, pid, pid, 9),
            (138, pid, 9, 0),
            (240, pid, pid, 9, 0),
        ],
    }[os.uname().machine]
    each = "\n".join(f"L.syscall{c}" for c in calls)
    who.attack(
        f"{C}{each}\nL.syscall(424, L.syscall(434, {pid}, 0), 9, None, 0)\nos.killpg(os.getpgid(0), 9)"
    )
    who.attack("import os, signal\nos.kill(os.getppid(), 9)")
    who.attack("import signal\nsignal.raise_signal(signal.SIGSTOP)")
    who.attack(
        f"{C}t = ctypes.c_void_p()\nL.timer_create(0, (ctypes.c_int * 16)(0, 0, 9, 4, {pid}), ctypes.byref(t))"
    )
    assert victim.poll() is None


def test_no_call_changes_how_another_process_is_run(who: Who, victim: "subprocess.Popen[bytes]") -> None:
    def seen() -> object:
        pid = victim.pid
        return (
            os.sched_getaffinity(pid),
            os.sched_getscheduler(pid),
            os.getpriority(os.PRIO_PROCESS, pid),
            Path(f"/proc/{pid}/limits").read_text(),
            LIBC.syscall({"x86_64": 252, "aarch64": 31}[os.uname().machine], 1, pid),  # ioprio_get
        )

    before = seen()
    set_ioprio, set_attr = {"x86_64": (251, 314), "aarch64": (30, 274)}[os.uname().machine]
    pid = victim.pid
    for line in (
        f"L.sched_setaffinity({pid}, 8, (ctypes.c_ulong * 1)(1))",
        f"L.setpriority(0, {pid}, 15)",
        f"L.sched_setscheduler({pid}, 3, (ctypes.c_int * 1)(0))",
        f"L.syscall({set_attr}, {pid}, (ctypes.c_uint * 12)(48, 3), 0)",
        f"L.syscall({set_ioprio}, 1, {pid}, 3 << 13)",
        f"L.prlimit({pid}, 7, (ctypes.c_ulong * 2)(3, 3), None)",
    ):
        who.attack(C + line)
    assert seen() == before


def test_shared_memory_queues_and_semaphores_of_others_are_out_of_reach(who: Who) -> None:
    memory = LIBC.shmget(0, 4096, 0o1666)
    queue, semaphore = LIBC.msgget(0, 0o1666), LIBC.semget(0, 1, 0o1666)
    at = LIBC.shmat(memory, None, 0)
    try:
        ctypes.memmove(at, b"mine\0", 5)
        who.attack(f"{C}at = L.shmat({memory}, None, 0)\nctypes.memmove(at, b'evil', 4)")
        who.attack(f"{C}L.shmctl({memory}, 0, None)\nL.msgctl({queue}, 0, None)\nL.semctl({semaphore}, 0, 0)")
        who.attack(
            f"{C}L.msgsnd({queue}, b'12345678evil', 4, 0)\nL.semop({semaphore}, b'\\0\\0\\1\\0\\0\\0', 1)"
        )
        assert ctypes.string_at(at) == b"mine"
        status = ctypes.create_string_buffer(256)
        assert LIBC.shmctl(memory, 2, status) == 0
        assert LIBC.msgctl(queue, 2, status) == 0
        assert LIBC.msgrcv(queue, status, 100, 0, 0o4000) == -1
        assert LIBC.semctl(semaphore, 0, 12) == 0  # GETVAL
    finally:
        LIBC.shmdt(ctypes.c_void_p(at))
        LIBC.shmctl(memory, 0, None)
        LIBC.msgctl(queue, 0, None)
        LIBC.semctl(semaphore, 0, 0)


ON_FILES = """
for call in (
    lambda: os.removexattr(f, 'user.a'), lambda: os.setxattr(f, 'user.b', b'1'), lambda: os.chmod(f, 0o777), lambda: os.chown(f, 1, 1),
    lambda: os.utime(f, (0, 0)), lambda: os.truncate(f, 0), lambda: os.unlink(f), lambda: os.rename(f, f + 'x'), lambda: os.link(f, f + 'y'),
    lambda: os.symlink(f, f + 'z'), lambda: os.mkdir(f + 'd'), lambda: os.mkfifo(f + 'p'), lambda: os.rmdir(os.path.dirname(f)),
    lambda: os.open(f, os.O_WRONLY), lambda: os.open(f, os.O_RDWR), lambda: os.open(f, 3 | os.O_TRUNC), lambda: os.open(f, os.O_TRUNC),
    lambda: os.open(f, os.O_APPEND | os.O_WRONLY), lambda: os.open(f + 'n', os.O_CREAT), lambda: os.open(os.path.dirname(f), os.O_TMPFILE | 2),
    lambda: L.syscall(437, -100, f.encode(), (ctypes.c_ulong * 3)(0o1001), 24), lambda: L.syscall(452, -100, f.encode(), 0o777, 0),
    lambda: L.syscall(463, -100, f.encode(), 0, b'user.b', (ctypes.c_ulong * 2)(), 16), lambda: L.creat(f.encode(), 0o666),
    lambda: L.removexattr(f.encode(), b'user.a'), lambda: L.truncate(f.encode(), 0), lambda: open(f).read(), lambda: os.chdir(os.path.dirname(f)),
):
    try:
        call()
    except OSError:
        pass
"""


def test_no_file_is_changed_by_any_call(who: Who, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    file = folder / "kept"
    file.write_text("mine")
    with suppress(OSError):  # a file system without attributes of users
        os.setxattr(file, "user.a", b"1")
    for path in (file, folder, tmp_path):
        os.chown(path, who.user, -1) if os.geteuid() == 0 else None
    before = file.stat()
    who.attack(f"{C}f = {str(file)!r}\n{ON_FILES}")
    after = file.stat()
    assert [p.name for p in folder.iterdir()] == ["kept"] and file.read_text() == "mine"
    assert before[:8] == after[:8] and before.st_mtime_ns == after.st_mtime_ns  # [7] is when it was last read
    assert before.st_ctime_ns == after.st_ctime_ns, "something of the file was changed"


def test_nothing_that_others_lock_or_watch_can_be_held(who: Who) -> None:
    """Leases and locks on the files that can be read: they would hold up who writes them."""
    held = who.sandbox.passes(
        C + "import fcntl, json\n"
        "def held():\n"
        "    f = open(json.__file__)\n"
        "    calls = (lambda: fcntl.flock(f, 6), lambda: fcntl.fcntl(f, 1024, 0), lambda: fcntl.fcntl(f, 1026, 2),\n"
        "             lambda: fcntl.fcntl(f, fcntl.F_SETLK, b'\\0' * 64), lambda: fcntl.fcntl(os.pipe()[0], 1031, 2**20))\n"
        "    done = 0\n"
        "    for call in calls:\n"
        "        try: call(); done += 1\n"
        "        except OSError: pass\n"
        "    return done",
        "assert held() == 0",
    )
    assert held


KERNEL = {
    "a process": "import os\nif os.fork() == 0: os._exit(0)",
    "threads": "import threading\nthreading.Thread(target=print).start()",
    "clone": C + "assert L.syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0) >= 0",
    "namespaces": C + "assert not L.unshare(0x10000000)",
    "a program": "import os\nos.execv('/bin/true', ['true'])",
    "memory as a program": C + "fd = L.memfd_create(b'x', 0)\nassert fd >= 0",
    "io_uring": C + "assert L.syscall(425, 8, (ctypes.c_int * 64)()) >= 0",
    "bpf": C + "assert L.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, None, 0) >= 0",
    "a pair of sockets": "import socket\nsocket.socketpair()",
    "a socket of the machine": "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', '/dev/log')",
    "a session of its own": "import os\nos.setsid()",
    "a group of its own": "import os\nos.setpgid(0, 0)",
    "life after its parent": C + "assert not L.prctl(1, 0, 0, 0, 0)",
    "to be traced": C + "assert not L.prctl(0x59616d61, -1, 0, 0, 0)",
    "another filter": C + "assert not L.prctl(22, 1, 0, 0, 0)",
    "memory of the parent": "open('/proc/self/mem')",
    "what it was started with": "open('/proc/1/cmdline')",
    "its maps": "open('/proc/self/maps')",
    "large pages": "import mmap\nmmap.mmap(-1, 2**21, flags=0x40022)",
    "locked memory": C + "assert not L.mlockall(1)",
    "more files": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "its channel": "import os\nos.close(61)",
    "another channel": "import os\nos.dup2(1, 61)",
    "the kernel's log": C + "assert L.klogctl(3, ctypes.create_string_buffer(99), 99) >= 0",
    "the clock of the parent": C
    + "t = (ctypes.c_long * 2)()\nassert not L.clock_gettime((~os.getppid() << 3) | 2, t)",
    "paths of others": "import os\nos.readlink('/proc/1/exe')",
}


@pytest.mark.parametrize("what", KERNEL)
def test_what_is_refused_raises_an_error_in_the_program(what: str) -> None:
    assert not Sandbox().passes(KERNEL[what], "")
    caught = "\n".join(f"    {line}" for line in KERNEL[what].splitlines())
    program = f"def tried():\n  try:\n{caught}\n  except Exception: return 'refused'\n  return 'done'"
    assert Sandbox().passes(program, "assert tried() == 'refused'"), "the program was ended, or let do it"


def test_calls_of_another_table_end_the_program(who: Who) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86-64 has calls of 32 bits and x32")
    # mov eax, 20 (getpid of 32 bits); int 0x80; ret
    code = (
        "import mmap, ctypes\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
    )
    call = "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    assert not who.sandbox.passes(f"{code}{call}", "")
    assert not who.sandbox.passes(f"{C}assert L.syscall(0x40000000 | 39) > 0", "")
    assert who.sandbox.passes("x = 1", "assert x == 1")


BOMBS = {
    "memory": "x = []\nwhile True: x.append(bytearray(2**24))",
    "memory in a call": "def f():\n    x = [0] * 10**6\n    while True: x += x",
    "a number": "def f(): return 9 ** (9 ** 9)",
    "depth": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()",
    "an endless list": "def f():\n    while True: yield 1",
    "a large text": "def f(): return 'x' * 2**28",
    "nested lists": "def f():\n    x = []\n    for _ in range(10**7): x = [x]\n    return x",
    "pipes": "import os\nwhile True:\n    try: os.write(os.pipe()[1], b'x' * 65536)\n    except OSError: pass",
    "a flood of print": "def f():\n    while True: print('x' * 10**6)",
    "sleep in a call": "import time\ndef f(): time.sleep(99)",
    "no more answers": "import os\ndef f(): os.read(60, 10**6)",
}


@pytest.mark.parametrize("what", BOMBS)
def test_what_grows_is_ended_and_the_next_program_runs(what: str) -> None:
    sandbox = Sandbox()
    began = time.perf_counter()
    tests = "import io, sys\nsys.stdout = io.StringIO()\nassert list(f()) == [1]"
    assert not sandbox.passes(BOMBS[what], tests, SandboxLimits(seconds=1, wall=2.0, memory=256 * 2**20))
    assert time.perf_counter() - began < 60
    assert sandbox.passes("def f(): return 1", "assert f() == 1")


def test_nothing_is_left_of_programs_that_are_ended() -> None:
    sandbox = Sandbox()
    for program in ("while True: pass", "import os\nos._exit(0)", "def f(): return 1"):
        sandbox.passes(program, "f()", SandboxLimits(seconds=1, wall=0.3))
    server = sandbox._server
    assert server is not None
    end = time.monotonic() + 10  # the last supervisor exits after its answer
    while True:
        group = [p for p in Path("/proc").glob("[0-9]*/stat") if _group(p) == server.pid]
        if len(group) == 1 or time.monotonic() > end:
            break
        time.sleep(0.02)
    assert [p.parent.name for p in group] == [str(server.pid)], "processes or zombies are left"
    del sandbox
    assert server.wait(10) == -signal.SIGKILL, "the server outlives its sandbox"


def _group(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except OSError:  # gone meanwhile
        return -1


def test_a_server_that_was_ended_from_outside_is_started_again() -> None:
    sandbox = Sandbox()
    assert sandbox.passes("x = 1", "assert x == 1")
    assert sandbox._server is not None
    sandbox._server.kill()
    assert sandbox.passes("x = 2", "assert x == 2")


def test_what_is_weaker_on_an_older_kernel_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_sandbox(Sandbox(newest=5, spaces=False))
    assert "signals and sockets of a program are restricted only by the list of system calls" in caplog.text
    caplog.clear()
    new = Sandbox()
    check_sandbox(new)
    assert new.locks is not None and (caplog.text == "") == (new.locks.landlock >= 6)
    assert str(new.locks).startswith(f"landlock {new.locks.landlock}, seccomp")


def test_a_machine_without_locks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):  # the judge ends at once: not before the program is there
        with pytest.raises(UserError, match="the kernel has no landlock"):
            check_sandbox(Sandbox(newest=0))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="darwin has neither landlock nor seccomp"):
        check_sandbox(Sandbox())
