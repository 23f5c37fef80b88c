"""Run a program that a base wrote, where it can do no harm, and let tests judge it that it cannot reach (`jail`).

What holds, and what does not, is in docs/reinforcement.md.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from onebase.errors import UserError
from onebase.sandbox.jail.locks import SCOPED
from onebase.sandbox.jail.server import HEAD

log = logging.getLogger(__name__)

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
START = "import sys; sys.path.append({!r}); from jail.server import main; sys.path.pop(); main()"
GRACE = 60.0
"""Seconds beyond the limit in which a busy machine starts and ends processes."""
REMEDY = "use Linux 5.13 or later with landlock on x86-64 or arm64, or give a reward function of your own that runs them elsewhere"


@dataclass(frozen=True)
class SandboxLimits:
    """seconds: of CPU. wall: seconds on the clock. memory: bytes of address space."""

    seconds: int = 5
    wall: float = 10.0
    memory: int = 512 * 2**20


@dataclass(frozen=True)
class Locks:
    """What this machine shuts a program in with: landlock's version, and whether it has namespaces of its own."""

    landlock: int
    namespaces: bool

    @property
    def weaker(self) -> str:
        """What is kept in by one lock instead of two, if anything."""
        if self.landlock >= SCOPED:
            return ""
        return (
            f"landlock is of version {self.landlock} here (Linux 6.12 has {SCOPED}): signals and sockets of a program are kept in by the list of "
            "system calls alone"
        )

    def __str__(self) -> str:
        return f"landlock {self.landlock}, seccomp{', namespaces' if self.namespaces else ''}"


class Sandbox:
    """Runs one program at a time. Its server is started when it is first needed, and ends with it. newest, spaces: use less than this machine has."""

    def __init__(self, newest: int = 99, spaces: bool = True) -> None:
        self._newest, self._spaces = newest, spaces
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self.locks: Locks | None = None

    def passes(self, program: str, tests: str, limits: SandboxLimits = SandboxLimits()) -> bool:
        """Do the tests come to their end, the names that they do not bind being the program's? Raises UserError where this machine cannot keep a
        program in, or the sandbox itself fails: that is no judgement."""
        with self._lock:
            said = self._asked(program, tests, limits)
        if said.startswith("!"):
            raise _cannot(said[1:])
        verdict, version, spaces = said.split()
        self.locks = Locks(int(version), spaces == "1")
        return verdict == "right"

    def _asked(self, program: str, tests: str, limits: SandboxLimits) -> str:
        for _ in range(2):  # a server that was ended from outside is started once more
            server = self._started()
            # Letters that are no text (half a pair of UTF-16) cannot be sent, nor be a program
            parts = [text.encode(errors="replace") for text in (program, tests)]
            head = HEAD.pack(
                *(limits.seconds, limits.wall, limits.memory, self._newest, self._spaces), *map(len, parts)
            )
            assert server.stdin is not None and server.stdout is not None
            with contextlib.suppress(OSError):
                server.stdin.write(head + b"".join(parts))
                server.stdin.flush()
                if select.select([server.stdout], [], [], limits.wall + GRACE)[0]:
                    said = server.stdout.readline().decode()
                    if said.startswith("!"):
                        self._end()
                    if said.endswith("\n"):
                        return said.strip()
            self._end()
        raise UserError(
            "the sandbox does not answer: its process was ended twice, or hangs",
            "look whether the machine has memory and processes left",
        )

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._server is not None and self._owner == os.getpid() and self._server.poll() is None:
            return self._server
        if sys.platform != "linux":
            raise _cannot(f"{sys.platform} has neither landlock nor seccomp")
        paths = sysconfig.get_paths()
        start = START.format(str(Path(__file__).parent))
        self._server = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-B", "-c", start),
                paths["stdlib"],
                paths["platstdlib"],
                *LIBRARIES,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        self._owner = os.getpid()
        weakref.finalize(self, _ended, self._server)
        return self._server

    def _end(self) -> None:
        if self._server is not None and self._owner == os.getpid():
            _ended(self._server)
        self._server = None


def runs(program: str, limits: SandboxLimits = SandboxLimits()) -> bool:
    """Does a Python program come to its end within the limits, without an error and without leaving early? By its own word."""
    return Sandbox().passes(program, "", limits)


def check_sandbox(sandbox: Sandbox | None = None) -> None:
    """Raise UserError where this machine cannot keep a program in. Says in a notice what is weaker here."""
    sandbox = sandbox or Sandbox()
    if not sandbox.passes("import math\ndef f():\n    return math.floor(2.5)", "assert f() == 2"):
        raise _cannot("Python does not start alone")
    if sandbox.locks is not None and sandbox.locks.weaker:
        log.warning(sandbox.locks.weaker)


def _cannot(why: str) -> UserError:
    return UserError(f"programs cannot be shut in on this machine: {why}", REMEDY)


def _ended(server: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    for pipe in (server.stdin, server.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()
