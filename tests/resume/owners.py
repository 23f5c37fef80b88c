"""Processes of their own for the tests of who may write a folder."""

import os
import sys
import time
from pathlib import Path

from onebase.artifact.owned import owned
from onebase.errors import UserError


def hold(folder: str) -> None:
    """Have the folder until killed."""
    with owned(Path(folder)):
        print("ready", flush=True)
        time.sleep(300)


def take_turns(folder: str, times: str) -> None:
    """Have it again and again, and find nobody else in it."""
    inside = Path(folder) / "inside"
    for _ in range(int(times)):
        with owned(Path(folder), wait=True):
            fd = os.open(inside, os.O_CREAT | os.O_EXCL)  # raises where another is inside
            os.close(fd)
            inside.unlink()


def tokenise(dataset: str, vocabulary: str, seen: str) -> None:
    """Build a token set, slowly, and leave a mark each time that texts are really read."""
    from onebase.data import Dataset, TokenSet
    from onebase.data.tokenising import Tokenising
    from onebase.modality.text import Tokenizer

    inner = Tokenising.write

    def slow(*args: object) -> None:
        Path(seen, str(os.getpid())).touch()
        time.sleep(1)
        inner(*args)  # type: ignore[arg-type]

    Tokenising.write = slow  # type: ignore[method-assign,assignment]
    TokenSet.build(Dataset.open(dataset), "train", Tokenizer.from_file(vocabulary))


if __name__ == "__main__":
    try:
        {"hold": hold, "take_turns": take_turns, "tokenise": tokenise}[sys.argv[1]](*sys.argv[2:])
    except UserError as e:
        sys.exit(f"refused: {e}")
