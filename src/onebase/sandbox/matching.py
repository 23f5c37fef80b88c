"""Matches a user's regular expression against generated text, within a time limit: some patterns take exponential time on 40 characters.

Python's engine cannot be interrupted during a match, not even by a signal, so it runs in a separate process: this file as a program. It
imports only the standard library.
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
"""Time limit for one text; a reasonable pattern takes a millionth of it."""


def matches(pattern: str, texts: Sequence[str], seconds: float = SECONDS) -> list[bool | None]:
    """Whether each text matches completely (`.` matches any character, including new lines). At the first text that exceeds the time, the list ends with
    None."""
    request = json.dumps({"pattern": pattern, "texts": list(texts), "seconds": seconds})
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(__file__))],
        input=request.encode(),
        capture_output=True,
        check=False,
    )
    results: list[bool | None] = [line == b"1" for line in done.stdout.split()]
    return results if len(results) == len(texts) else [*results, None]


def main() -> None:
    """The child process. Standard input: {"pattern", "texts", "seconds"}. Standard output: a line for each text, 1 or 0."""
    request = json.load(sys.stdin.buffer)
    pattern = re.compile(request["pattern"], re.DOTALL)
    with open(os.devnull, "wb") as nowhere:
        for text in request["texts"]:
            # A timer in a C thread: it does not need the GIL, which a match does not release.
            faulthandler.dump_traceback_later(request["seconds"], exit=True, file=nowhere)
            matched = pattern.fullmatch(text) is not None
            faulthandler.cancel_dump_traceback_later()
            print(int(matched), flush=True)


if __name__ == "__main__":
    main()
