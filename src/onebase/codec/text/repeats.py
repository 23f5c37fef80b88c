"""Which samples were there before: by hashes of their text, white space aside.

Two ways to be the same. Whole: prompt and answer together are the same text, wherever the one ends and the other begins. By answer: a
learnt stretch is the same, and so is all that stands before it; that finds a conversation that goes on elsewhere.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.codec.text.validation import stretches

# Between texts and special tokens: what normalised text cannot hold, so that no text passes for another's parts.
_TEXT, _SPECIAL, _ANSWER = "\n", "\t", "\r"


class RepeatedTexts:
    """Samples by what they say."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._special = np.zeros(tokenizer.vocab_size, np.bool_)
        self._special[list(tokenizer.special_ids)] = True
        self._joint = "" if tokenizer.pieces else " "
        self._whole: set[str] = set()
        self._answers: set[str] = set()

    def add(self, item: Tokens) -> bool:
        """Note a sample; was it, whole, there before?"""
        whole, answers = self._keys(item)
        known = whole in self._whole
        self._whole.add(whole)
        self._answers.update(answers)
        return known

    def holds(self, item: Tokens) -> bool:
        """Is the sample here whole, or one of its answers with all that stands before it?"""
        whole, answers = self._keys(item)
        return whole in self._whole or not self._answers.isdisjoint(answers)

    def _keys(self, item: Tokens) -> tuple[str, list[str]]:
        """Hashes of the whole and of each answer, in one pass: every token is decoded once, however many answers there are."""
        ids, special = item.ids.tolist(), self._special[item.ids]
        ends = {b: a for a, b in stretches(item)}
        begins = set(ends.values())
        at = np.flatnonzero(special)
        cuts = sorted({0, len(ids), *at.tolist(), *(at + 1).tolist(), *begins, *ends})
        whole, answer = _TextHash(self._joint), None
        answers = []
        for a, b in itertools.pairwise(cuts):
            if a in begins:
                answer = whole.answered()
            part = (
                None
                if special[a]
                else self.tokenizer.decode(ids[a:b], skip_special=False, start=not whole.run)
            )
            for text in (whole, answer):
                if text is not None:
                    text.add(ids[a], part)
            if answer is not None and b in ends:
                answers.append(answer.key())
                answer = None
        return whole.key(), answers


class _TextHash:
    """A hash that is updated along a sample: its special tokens, and the text between them with white space normalised."""

    def __init__(self, joint: str, before: Any = None) -> None:
        self.joint = joint
        self.state = hashlib.sha256() if before is None else before
        self.run: list[str] = []  # the parts since the last special token

    def add(self, id: int, part: str | None) -> None:
        """A part of text, or None for the special token `id`."""
        if part is not None:
            self.run.append(part)
            return
        self._update(f"{self._open()}{_SPECIAL}{id}")
        self.run = []

    def answered(self) -> _TextHash:
        """The hash of an answer that begins here: all text so far, and what is added from here on."""
        before = self.state.copy()
        before.update(_bytes(self._open() + _ANSWER))
        return _TextHash(self.joint, before)

    def key(self) -> str:
        """The finished hash; nothing may be added after it."""
        self._update(self._open())
        return str(self.state.hexdigest())

    def _open(self) -> str:
        return _TEXT + _plain(self.joint.join(self.run))

    def _update(self, text: str) -> None:
        self.state.update(_bytes(text))


def text_key(text: str) -> str:
    """Hash of a text, white space aside."""
    return _hash(_plain(text))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _hash(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
