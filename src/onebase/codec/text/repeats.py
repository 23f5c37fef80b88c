"""Which samples were there before: by hashes of their text, white space aside.

Two ways to be the same. Whole: prompt and answer together are the same text, wherever the one ends and the other begins. By answer: a
learnt stretch is the same, and so is all that stands before it; that finds a conversation that goes on elsewhere.
"""

from __future__ import annotations

import hashlib

from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.codec.text.validation import stretches

# Between texts and special tokens: what normalised text cannot hold, so that no text passes for another's parts.
_TEXT, _SPECIAL, _ANSWER = "\n", "\t", "\r"


class Seen:
    """Samples by what they say."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
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
        ids = item.ids.tolist()
        answers = [_hash(self._text(ids[:a]) + _ANSWER + self._text(ids[a:b])) for a, b in stretches(item)]
        return _hash(self._text(ids)), answers

    def _text(self, ids: list[int]) -> str:
        """Text between special tokens, white space normalised in each piece."""
        tok, out, first = self.tokenizer, list[str](), 0
        for at in [n for n, i in enumerate(ids) if i in tok.hidden]:
            out += [_TEXT, _plain(tok.decode(ids[first:at])), _SPECIAL, str(ids[at])]
            first = at + 1
        return "".join([*out, _TEXT, _plain(tok.decode(ids[first:]))])


def text_key(text: str) -> str:
    """Hash of a text, white space aside."""
    return _hash(_plain(text))


def _plain(text: str) -> str:
    return " ".join(text.split())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
