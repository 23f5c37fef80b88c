"""A user's regular expression on what a base wrote, within a time limit: some need longer than the world has stood for 40 letters.

Python's engine cannot be stopped in a match, not even by a signal, so it runs in a process of its own: this file, run as a program. It
imports the standard library alone.
"""

import faulthandler
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SECONDS = 2.0
"""For one text; what is written sensibly takes a millionth of it."""


def matches(pattern: str, texts: Sequence[str], seconds: float = SECONDS) -> list[bool | None]:
    """Does the whole of each text match (`.` is any letter, a new line too)? None, and an end of the list, at the first that needs longer."""
    asked = json.dumps({"pattern": pattern, "texts": list(texts), "seconds": seconds})
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(__file__))],
        input=asked.encode(),
        capture_output=True,
        check=False,
    )
    found: list[bool | None] = [line == b"1" for line in done.stdout.split()]
    return found if len(found) == len(texts) else [*found, None]


def main() -> None:
    """The other process. From standard input {"pattern", "texts", "seconds"}; to standard output a line for each text, 1 or 0."""
    asked = json.load(sys.stdin.buffer)
    wanted = re.compile(asked["pattern"], re.DOTALL)
    with open(os.devnull, "wb") as nowhere:
        for text in asked["texts"]:
            # A watch in a thread of C: it needs no turn of Python's, which a match does not give.
            faulthandler.dump_traceback_later(asked["seconds"], exit=True, file=nowhere)
            found = wanted.fullmatch(text) is not None
            faulthandler.cancel_dump_traceback_later()
            print(int(found), flush=True)


if __name__ == "__main__":
    main()
