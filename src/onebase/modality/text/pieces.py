"""The bytes of each token, read off the tokenizer's decoder; and tokenisation of text that continues other text.

Byte-level vocabularies write bytes as characters. Vocabularies from SentencePiece write a space as U+2581 and rare bytes as `<0xE4>`.
Other decoders (WordPiece) join tokens by their own rules and have no bytes per token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import tokenizers

Follows = Literal["nothing", "special", "text"]
"""What precedes a text: nothing, a special token, or text that is tokenised separately."""


def _byte_letters() -> dict[str, int]:
    """GPT-2's byte alphabet, inverted: printable character to byte."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


LETTERS = _byte_letters()
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Pieces:
    """bytes: maps a vocabulary entry to its bytes. strip: what decoding strips at the start of a text: nothing, one space (`one`), or
    every space of the first token (`token`)."""

    bytes: Callable[[str], bytes]
    strip: Literal["", "one", "token"] = ""


def pieces(inner: tokenizers.Tokenizer) -> Pieces | None:
    """How tokens become bytes; None where only the tokenizer's own decoder can tell."""
    tree = _tree(inner.decoder)
    if tree is None:
        return None
    if tree["type"] == "ByteLevel":
        return Pieces(letters)
    if tree["type"] == "Metaspace":
        mark = tree["replacement"]
        strip: Literal["", "token"] = "" if tree["prepend_scheme"] == "never" else "token"
        return Pieces(lambda token: token.replace(mark, " ").encode(), strip)
    if tree["type"] == "Sequence":
        return _sequence(tree["decoders"])
    return None


def letters(token: str) -> bytes:
    """The bytes of an entry of a byte-level vocabulary; an entry added as plain text stands for itself."""
    if all(c in LETTERS for c in token):
        return bytes(LETTERS[c] for c in token)
    return token.encode()


def _sequence(parts: list[dict[str, Any]]) -> Pieces | None:
    """Replace, ByteFallback, Fuse and optionally Strip, in this order: the decoder of converted SentencePiece vocabularies."""
    kinds = [p["type"] for p in parts]
    swaps = []
    while kinds and kinds[0] == "Replace":
        pattern = parts[0]["pattern"]
        if set(pattern) != {"String"}:
            return None
        swaps.append((pattern["String"], parts[0]["content"]))
        kinds, parts = kinds[1:], parts[1:]
    fallback = kinds[:1] == ["ByteFallback"]
    kinds, parts = (kinds[1:], parts[1:]) if fallback else (kinds, parts)
    if kinds[:1] == ["Fuse"]:
        kinds, parts = kinds[1:], parts[1:]
    strip: Literal["", "one"] = ""
    if kinds == ["Strip"] and (parts[0]["content"], parts[0]["start"], parts[0]["stop"]) == (" ", 1, 0):
        kinds, strip = [], "one"
    if kinds:
        return None

    def of(token: str) -> bytes:
        for old, new in swaps:
            token = token.replace(old, new)
        byte = _BYTE.fullmatch(token) if fallback else None
        return bytes([int(byte[1], 16)]) if byte else token.encode()

    return Pieces(of, strip)


def following(inner: tokenizers.Tokenizer, follows: Follows) -> tokenizers.Tokenizer:
    """The tokenizer for text after a special token or after other text: without the space that some tokenizers prepend.

    The library prepends it to the first piece of a text (`first`) or to every piece between special tokens (the other schemes).
    """
    if follows == "nothing":
        return inner
    normalizer, splitter = _tree(inner.normalizer), _tree(inner.pre_tokenizer)
    new_normalizer = _without_prefix(normalizer) if follows == "text" else normalizer
    new_splitter = _without_prefix(splitter, every=follows == "text")
    if (new_normalizer, new_splitter) == (normalizer, splitter):
        return inner
    tree = json.loads(inner.to_str()) | {"normalizer": new_normalizer, "pre_tokenizer": new_splitter}
    changed = tokenizers.Tokenizer.from_str(json.dumps(tree))
    changed.encode_special_tokens = True
    return changed


def _without_prefix(tree: Any, every: bool = True) -> Any:
    if tree is None:
        return None
    kind = tree["type"]
    if kind == "Prepend":
        return None
    if (
        kind == "Metaspace"
        and tree["prepend_scheme"] != "never"
        and (every or tree["prepend_scheme"] == "first")
    ):
        return tree | {"prepend_scheme": "never"}
    if kind == "ByteLevel" and every:
        return tree | {"add_prefix_space": False}
    for key in ("normalizers", "pretokenizers"):
        if kind == "Sequence" and key in tree:
            parts = [_without_prefix(p, every) for p in tree[key]]
            return tree | {key: [p for p in parts if p is not None]}
    return tree


def _tree(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
