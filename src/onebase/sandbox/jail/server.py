"""Forks, for each program that it is sent, a supervisor, and passes its word on. It never sees a program or its tests itself, so that none of it is in
the processes that are made of it later."""

import os
import struct
import sys
from functools import partial

from .supervisor import JailRequest, supervised

HEAD = struct.Struct("<QdQQ?QQ")
"""seconds, wall, memory, newest, spaces (`JailRequest`), bytes of the program, bytes of the tests."""


def main() -> None:
    """Standard input: a head, the program, the tests, again and again. Standard output: a line for each."""
    readable, sys.argv[1:] = sys.argv[1:], []
    while len(head := _read(HEAD.size)) == HEAD.size:
        *asked, of_program, of_tests = HEAD.unpack(head)
        child = os.fork()
        if not child:
            status = 1
            try:
                word = supervised(JailRequest(*asked), readable, _read(of_program), partial(_read, of_tests))
                os.write(1, f"{word}\n".encode())
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
