"""Run as a program by `matching`: match texts, a line for each, and end where one needs too long. It imports nothing of ours."""

import faulthandler
import json
import os
import re
import sys


def main() -> None:
    """From standard input {"pattern", "texts", "seconds"}; to standard output 1 or 0 for each text."""
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
