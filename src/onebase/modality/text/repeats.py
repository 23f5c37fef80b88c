"""Finds repeated samples by hashes of their text, ignoring white space.

Two samples match in one of two ways. Whole: prompt and answer together are the same text, wherever the boundary is. By answer: a
supervised span and everything before it are the same; that finds a conversation that continues differently.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np

from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.modality.text.validation import stretches

# Separators of texts and special tokens: normalised text cannot contain them, so no text can imitate several parts.
_TEXT, _SPECIAL, _ANSWER = "\n", "\t", "\r"


class RepeatedTexts:
    """A set of samples, compared by their text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._special = np.zeros(tokenizer.vocab_size, np.bool_)
        self._special[list(tokenizer.special_ids)] = True
        self._joint = "" if tokenizer.pieces else " "
        self._whole: set[str] = set()
        self._answers: set[str] = set()

    def add(self, item: Tokens) -> bool:
        """Add a sample; returns whether the same whole sample was added before."""
        whole, answers = self._keys(item)
        known = whole in self._whole
        self._whole.add(whole)
        self._answers.update(answers)
        return known

    def holds(self, item: Tokens) -> bool:
        """Whether the whole sample, or one of its answers with everything before it, was added."""
        whole, answers = self._keys(item)
        return whole in self._whole or not self._answers.isdisjoint(answers)

    def _keys(self, item: Tokens) -> tuple[str, list[str]]:
        """Hashes of the whole sample and of each answer, in one pass: each token is decoded once, however many answers there are."""
        ids, special = item.ids.tolist(), self._special[item.ids]
        ends = {b: a for a, b in stretches(item)}
        begins = set(ends.values())
        at = np.flatnonzero(special)
        cuts = sorted({0, len(ids), *at.tolist(), *(at + 1).tolist(), *begins, *ends})
        whole, answer = _TextHash(self._joint), None
        for media in item.media:
            whole.state.update(_bytes(f"{_SPECIAL}{media.content.digest}"))
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
    """A running hash over a sample: its special tokens, and the text between them with white space normalised."""

    def __init__(self, joint: str, before: Any = None) -> None:
        self.joint = joint
        self.state = hashlib.sha256() if before is None else before
        self.run: list[str] = []  # the parts since the last special token

    def add(self, id: int, part: str | None) -> None:
        """Add a part of text, or with None the special token `id`."""
        if part is not None:
            self.run.append(part)
            return
        self._update(f"{self._open()}{_SPECIAL}{id}")
        self.run = []

    def answered(self) -> _TextHash:
        """The hash of an answer that begins here: all text so far, and everything added from here on."""
        before = self.state.copy()
        before.update(_bytes(self._open() + _ANSWER))
        return _TextHash(self.joint, before)

    def key(self) -> str:
        """The final hash; nothing may be added afterwards."""
        self._update(self._open())
        return str(self.state.hexdigest())

    def _open(self) -> str:
        return _TEXT + _plain(self.joint.join(self.run))

    def _update(self, text: str) -> None:
        self.state.update(_bytes(text))


def text_key(text: str) -> str:
    """Hash of a text, ignoring white space."""
    return _hash(_plain(text))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _hash(text: str) -> str:
    return hashlib.sha256(_bytes(text)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
