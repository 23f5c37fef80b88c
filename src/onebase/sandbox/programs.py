"""Runs generated programs in a sandbox, with tests that the programs cannot access (`jail`).

docs/reinforcement.md says what it guarantees, and what not.
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
"""Seconds beyond the limit, for starting and ending processes on a busy machine."""
REMEDY = "use Linux 5.13 or later with landlock on x86-64 or arm64, or give your own reward function that runs them elsewhere"


@dataclass(frozen=True)
class SandboxLimits:
    """Limits of a run. seconds: of CPU. wall: seconds of wall time. memory: bytes of address space."""

    seconds: int = 5
    wall: float = 10.0
    memory: int = 512 * 2**20


@dataclass(frozen=True)
class Locks:
    """The restrictions of this machine: landlock's version, and whether namespaces are available."""

    landlock: int
    namespaces: bool

    @property
    def weaker(self) -> str:
        """A warning about what only one restriction covers instead of two; empty if there is none."""
        if self.landlock >= SCOPED:
            return ""
        return (
            f"landlock has version {self.landlock} here (Linux 6.12 has {SCOPED}): signals and sockets of a program are restricted only by the list of "
            "system calls"
        )

    def __str__(self) -> str:
        return f"landlock {self.landlock}, seccomp{', namespaces' if self.namespaces else ''}"


class Sandbox:
    """Runs one program at a time. Its server is started on first use, and ends with it. newest, spaces: use fewer restrictions than this machine has."""

    def __init__(self, newest: int = 99, spaces: bool = True) -> None:
        self._newest, self._spaces = newest, spaces
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self.locks: Locks | None = None

    def passes(self, program: str, tests: str, limits: SandboxLimits = SandboxLimits()) -> bool:
        """Whether the tests pass; names that they do not bind are the program's. Raises UserError if this machine cannot isolate a program, or the sandbox
        itself fails: that is not a verdict."""
        with self._lock:
            answer = self._ask(program, tests, limits)
        if answer.startswith("!"):
            raise _cannot(answer[1:])
        verdict, version, spaces = answer.split()
        self.locks = Locks(int(version), spaces == "1")
        return verdict == "right"

    def _ask(self, program: str, tests: str, limits: SandboxLimits) -> str:
        for _ in range(2):  # a server that was killed from outside is restarted once
            server = self._started()
            # Lone surrogates cannot be sent, nor be part of a program.
            parts = [text.encode(errors="replace") for text in (program, tests)]
            head = HEAD.pack(
                *(limits.seconds, limits.wall, limits.memory, self._newest, self._spaces), *map(len, parts)
            )
            assert server.stdin is not None and server.stdout is not None
            with contextlib.suppress(OSError):
                server.stdin.write(head + b"".join(parts))
                server.stdin.flush()
                if select.select([server.stdout], [], [], limits.wall + GRACE)[0]:
                    line = server.stdout.readline().decode()
                    if line.startswith("!"):
                        self._end()
                    if line.endswith("\n"):
                        return line.strip()
            self._end()
        raise UserError(
            "the sandbox does not respond: its process was killed twice, or hangs",
            "check that the machine has free memory and processes",
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
    """Whether a Python program finishes within the limits, without an error and without an early exit. The program itself reports this."""
    return Sandbox().passes(program, "", limits)


def check_sandbox(sandbox: Sandbox | None = None) -> None:
    """Raise UserError if this machine cannot isolate a program. Logs a warning if a restriction is weaker here."""
    sandbox = sandbox or Sandbox()
    if not sandbox.passes("import math\ndef f():\n    return math.floor(2.5)", "assert f() == 2"):
        raise _cannot("Python does not start with only its standard library")
    if sandbox.locks is not None and sandbox.locks.weaker:
        log.warning(sandbox.locks.weaker)


def _cannot(why: str) -> UserError:
    return UserError(f"programs cannot be sandboxed on this machine: {why}", REMEDY)


def _ended(server: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    for pipe in (server.stdin, server.stdout):
        with contextlib.suppress(OSError):
            assert pipe is not None
            pipe.close()
