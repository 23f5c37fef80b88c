"""Run a program that a base wrote, where it can do no harm: a process of its own behind limits, landlock and seccomp (`jail`).

What holds, and what does not, is in docs/reinforcement.md.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from onebase.errors import UserError

JAIL = Path(__file__).with_name("jail.py")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
WORD = 32
"""Letters of the word by which a program that came to its end is known."""


@dataclass(frozen=True)
class Limits:
    """seconds: of CPU. wall: seconds on the clock. memory: bytes of address space."""

    seconds: int = 5
    wall: float = 10.0
    memory: int = 512 * 2**20


def runs(program: str, limits: Limits = Limits()) -> bool:
    """Does a Python program come to its end within the limits, without an error and without leaving early?"""
    return _run(program, limits)[0]


def check_sandbox() -> None:
    """Raise UserError where this machine cannot keep a program in."""
    fine, said = _run("import math", Limits())
    if not fine:
        raise UserError(
            f"programs cannot be shut in on this machine: {said or 'Python does not start alone'}",
            "use Linux 5.13 or later with landlock on x86-64 or arm64, or give a reward function of your own that runs them elsewhere",
        )


def _run(program: str, limits: Limits) -> tuple[bool, str]:
    """Whether the program came to its end, and what the jail misses on this machine."""
    word = secrets.token_hex(WORD // 2)
    paths = sysconfig.get_paths()
    asked = {
        "program": program,
        "word": word,
        "seconds": limits.seconds,
        "memory": limits.memory,
        "readable": [paths["stdlib"], paths["platstdlib"], *LIBRARIES],
    }
    if sys.platform != "linux":
        return False, f"{sys.platform} has neither landlock nor seccomp"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(JAIL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        # A child that died reads no more; its exit status says so.
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(json.dumps(asked).encode())
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limits.wall)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with process.stdout as answer:
        said = answer.read(1000).decode(errors="replace")
    missing = said[1:] if said.startswith("!") else ""
    return process.returncode == 0 and said == word, missing
