"""The demo's raw data, all from packages that pip installs: chats, topic-labelled exchanges, and the Python library (see `library`).

Everything is read from files of installed packages; nothing is downloaded. Readers are cached: the corpus and the tasks share
one pass. Licences: chitchat-dataset MIT, chatterbot-corpus BSD-3-Clause.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from onebase.data.sources import Document
from onebase.errors import DataError, UserError

_EMAIL = re.compile(r"\w@\w")
_NUMBER = re.compile(r"\d[\d\s().-]{6,}\d")  # as long as a telephone number
Turns = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chat:
    """One conversation: turns in order, each a tuple of messages by the same person."""

    id: str
    turns: Turns


@dataclass(frozen=True)
class Exchange:
    """A remark, its answer and their topic."""

    question: str
    answer: str
    topic: str


def share(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on (seed, key) alone, so that splits and orders do not depend on the order of files."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") / 2**64


def lines(turns: Turns) -> Iterator[tuple[str, str]]:
    """(line of the transcript, message) in order: "- " before the first message of a turn, two spaces before the others.

    With one message a line a question mark is at the end of a line, where P("?") and P(".") can be compared. The dash marks
    a change of speaker and costs about one token a turn.
    """
    for turn in turns:
        for i, message in enumerate(turn):
            yield ("  " if i else "- ") + message, message


def dialogue(chat: Chat) -> Document:
    """A chat as a document: its lines, each ended by a newline."""
    text = "".join(line + "\n" for line, _ in lines(chat.turns))
    return Document(
        text=text, source="dialogue", licence="MIT", id=f"chitchat/{chat.id}", meta={"turns": len(chat.turns)}
    )


@functools.cache
def chats() -> tuple[Chat, ...]:
    """Every chat of at least two turns (4,016 of 7,168), without messages that are noise or contain an e-mail address or a telephone number.

    Raises UserError when chitchat-dataset is not installed.
    """
    path = _package("chitchat_dataset", "chitchat-dataset") / "dataset.json"
    try:
        raw = json.loads(_read(path))
        read = [(key, [[m["text"] for m in turn] for turn in chat["messages"]]) for key, chat in raw.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path} does not have the expected content: {e!r}", _REINSTALL) from None
    out = []
    for key, messages in read:
        turns = (tuple(filter(None, map(_clean, turn))) for turn in messages)
        kept = tuple(t for t in turns if t)
        if len(kept) >= 2:
            out.append(Chat(key, kept))
    return tuple(out)


@functools.cache
def exchanges() -> tuple[Exchange, ...]:
    """The unique English exchanges: the first two lines of each conversation, by topic (898 of 2,026 in version 1.3.3).

    Raises UserError when chatterbot-corpus is not installed.
    """
    folder = _package("chatterbot_corpus", "chatterbot-corpus") / "data" / "english"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    seen: dict[tuple[str, str], Exchange] = {}
    for path in sorted(folder.glob("*.yml")):
        for talk in yaml.load(_read(path), Loader=loader)["conversations"]:
            question, answer = (str(x).strip() for x in talk[:2])
            seen.setdefault((question, answer), Exchange(question, answer, path.stem))
    if not seen:
        raise DataError(f"no exchanges under {folder}", _REINSTALL)
    return tuple(seen.values())


_REINSTALL = (
    "reinstall it: pip install --force-reinstall --no-deps chitchat-dataset==0.9.0 chatterbot-corpus==1.3.3"
)


def _package(module: str, name: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the demo's data needs the package {name}, which is not installed", 'pip install "onebase[demo]"'
        )
    return Path(next(iter(found.submodule_search_locations)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"cannot read {path}: {e}", _REINSTALL) from None


def _clean(message: str) -> str:
    """The message on one line, or "" for noise: an e-mail address or telephone number, repeated words, no letters or digits."""
    words = message.split()
    text = " ".join(words)
    if len(text) < 4:
        return text
    if ("@" in text and _EMAIL.search(text)) or _NUMBER.search(text):
        return ""
    if len(words) >= 4 and len(set(words)) <= 1 + len(words) // 8:
        return ""
    if max(map(len, words)) > 40 and "/" not in text:  # keyboard mashing; links stay
        return ""
    return text if any(map(str.isalnum, text)) else ""
