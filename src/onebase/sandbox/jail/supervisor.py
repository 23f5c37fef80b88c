"""Runs one program against its tests: judge and program in two restricted processes. The supervisor reads only the judge's verdict."""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .calls import FROM_JUDGE, TO_JUDGE
from .judge import passed
from .locks import Missing, own_spaces, shut
from .program import run

RIGHT = b"right"
READ = b"r"


class JailRequest(NamedTuple):
    """Limits of a run. seconds: of CPU, per process. wall: seconds of wall time. memory: bytes, per process. newest, spaces: use fewer restrictions than
    this machine has (for tests)."""

    seconds: int
    wall: float
    memory: int
    newest: int
    spaces: bool


def supervised(
    request: JailRequest, readable: Sequence[str], program: bytes, tests: Callable[[], bytes]
) -> str:
    """`right` or `wrong` with the restrictions in force, or `!` and what this machine lacks. tests: reads them; called only in the judge, so that
    the program's process, which is forked from this one, never has them."""
    spaces = request.spaces and own_spaces()
    to_program, to_judge, word, both = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    word_reader, word_writer = word

    def judge() -> None:
        text = tests().decode()
        os.write(word_writer, READ)
        os.close(both[1])
        # Wait for the program: no process can start in a namespace whose first process has ended.
        os.read(both[0], 1)
        _keep(to_judge[0], to_program[1], word_writer)
        version = shut(readable, request.seconds, request.memory, request.newest)
        os.write(word_writer, f"{version} ".encode())
        if passed(text, to_judge[0], to_program[1]):
            os.write(word_writer, RIGHT)

    def program_() -> None:
        os.dup2(to_program[0], FROM_JUDGE)
        os.dup2(to_judge[1], TO_JUDGE)
        _keep(FROM_JUDGE, TO_JUDGE)
        source = program.decode()
        shut(readable, request.seconds, request.memory, request.newest)
        run(source)

    # The judge is the first process of its namespace: when it exits, the kernel kills the program.
    children = [_forked(judge, word_writer)]
    try:
        first = os.read(word_reader, 1)
        if first == READ:
            children.append(_forked(program_, word_writer))
        for fd in (*to_program, *to_judge, *both, word_writer):
            os.close(fd)
        output = first + _verdict(word_reader, request.wall)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in reversed(children):  # the first process of a namespace exits only after the others
            os.waitpid(child, 0)
    text = output.removeprefix(READ).decode(errors="replace")
    if "!" in text:
        return text[text.index("!") :]
    version, _, verdict = text.partition(" ")
    return f"{verdict or 'wrong'} {version or 0} {int(spaces)}"


def _forked(work: Callable[[], None], word_writer: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except Missing as e:
        os.write(word_writer, f"!{e}".encode())
    except BaseException:  # a child must never return into the supervisor's code
        pass
    finally:
        os._exit(0)


def _verdict(fd: int, wall: float) -> bytes:
    """The judge's output until it exits or the time is over."""
    end, output = time.monotonic() + wall, b""
    while (left := end - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        part = os.read(fd, 1000)
        if not part:
            break
        output += part
    return output


def _keep(*kept: int) -> None:
    """Close all descriptors except these, and reopen the standard streams on /dev/null: flags of a descriptor that is shared with another process
    would change there too."""
    last = 0
    for fd in sorted(kept):
        os.closerange(last, fd)
        last = fd + 1
    os.closerange(last, 4096)
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
