"""Forks a supervisor for each program that it receives, and forwards the verdict. It never reads a program or its tests itself, so that later child
processes do not inherit them."""

import os
import struct
import sys
from functools import partial

from .supervisor import JailRequest, supervised

HEAD = struct.Struct("<QdQQ?QQ")
"""seconds, wall, memory, newest, spaces (`JailRequest`), bytes of the program, bytes of the tests."""


def main() -> None:
    """Serve requests: standard input has a head, the program and the tests of each; standard output gets one line for each."""
    readable, sys.argv[1:] = sys.argv[1:], []
    while len(head := _read(HEAD.size)) == HEAD.size:
        *request, of_program, of_tests = HEAD.unpack(head)
        child = os.fork()
        if not child:
            status = 1
            try:
                verdict = supervised(
                    JailRequest(*request), readable, _read(of_program), partial(_read, of_tests)
                )
                os.write(1, f"{verdict}\n".encode())
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(child, 0)[1]:
            return


def _read(n: int) -> bytes:
    parts = []
    while n and (part := os.read(0, min(n, 2**20))):
        parts.append(part)
        n -= len(part)
    return b"".join(parts)
