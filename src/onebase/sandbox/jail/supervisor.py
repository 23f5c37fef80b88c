"""Runs one program against its tests: judge and program as two processes, each shut in. This one reads nothing of theirs but the judge's word."""

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
    """seconds: of CPU, of each of the two. wall: seconds on the clock. memory: bytes, of each. newest, spaces: less than this machine has (tests)."""

    seconds: int
    wall: float
    memory: int
    newest: int
    spaces: bool


def supervised(
    asked: JailRequest, readable: Sequence[str], program: bytes, tests: Callable[[], bytes]
) -> str:
    """`right` or `wrong` with the locks that held, or `!` and what this machine misses. tests: reads them; called in the judge alone, so that the
    program's process, which is made of this one, has never had them."""
    spaces = asked.spaces and own_spaces()
    to_program, to_judge, word, both = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    hear, say = word

    def judge() -> None:
        text = tests().decode()
        os.write(say, READ)
        os.close(both[1])
        os.read(
            both[0], 1
        )  # the program is there: in a namespace whose first process has ended nothing can be started
        _keep(to_judge[0], to_program[1], say)
        version = shut(readable, asked.seconds, asked.memory, asked.newest)
        os.write(say, f"{version} ".encode())
        if passed(text, to_judge[0], to_program[1]):
            os.write(say, RIGHT)

    def program_() -> None:
        os.dup2(to_program[0], FROM_JUDGE)
        os.dup2(to_judge[1], TO_JUDGE)
        _keep(FROM_JUDGE, TO_JUDGE)
        source = program.decode()
        shut(readable, asked.seconds, asked.memory, asked.newest)
        run(source)

    # The judge is the first of its namespace: where it ends, the kernel ends the program.
    children = [_forked(judge, say)]
    try:
        first = os.read(hear, 1)
        if first == READ:
            children.append(_forked(program_, say))
        for fd in (*to_program, *to_judge, *both, say):
            os.close(fd)
        said = first + _heard(hear, asked.wall)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in reversed(children):  # the first of a namespace is gone only when the others are
            os.waitpid(child, 0)
    text = said.removeprefix(READ).decode(errors="replace")
    if "!" in text:
        return text[text.index("!") :]
    version, _, verdict = text.partition(" ")
    return f"{verdict or 'wrong'} {version or 0} {int(spaces)}"


def _forked(work: Callable[[], None], say: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
    except Missing as e:
        os.write(say, f"!{e}".encode())
    except BaseException:  # nothing goes back into the supervisor's code
        pass
    finally:
        os._exit(0)


def _heard(fd: int, wall: float) -> bytes:
    """What the judge says until it ends, or its time is over."""
    end, said = time.monotonic() + wall, b""
    while (left := end - time.monotonic()) > 0 and select.select([fd], [], [], left)[0]:
        part = os.read(fd, 1000)
        if not part:
            break
        said += part
    return said


def _keep(*kept: int) -> None:
    """Close all descriptors but these, and let standard input and output be nothing, opened anew: what another process holds open too would have
    its flags changed there."""
    last = 0
    for fd in sorted(kept):
        os.closerange(last, fd)
        last = fd + 1
    os.closerange(last, 4096)
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
