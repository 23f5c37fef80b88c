"""The vocabulary for llguidance: the bytes of each token, which tokens are text, and the stop tokens. V tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onebase.errors import UserError
from onebase.modality.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer


@dataclass(frozen=True)
class TokenBytes:
    """inner: the library's object, shared by all grammars over this vocabulary. usable_V: tokens with text, and stop tokens."""

    inner: LLTokenizer
    usable_V: NDArray[np.bool_]


@dataclass
class _TokenizerFacts:
    """The attributes that the library needs of a tokenizer."""

    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    tokenizer: Tokenizer
    bos_token_id: int | None = None

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, follows="text")


def token_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """Read a vocabulary once (0.4 s for 50,000 tokens). Raises UserError without the extra `structured`, and for a vocabulary whose tokens
    have no bytes of their own (WordPiece)."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError:
        raise UserError(
            "constrained decoding needs the package 'llguidance', which is not installed",
            'pip install "onebase[structured]"',
        ) from None
    if tokenizer.pieces is None:
        raise UserError(
            "this base's tokens have no bytes of their own (WordPiece), so no grammar can be applied token by token",
            "generate without a constraint, or use a base with byte-level BPE or SentencePiece",
        )
    V, special = tokenizer.vocab_size, tokenizer.special_ids
    tokens = [tokenizer.bytes_of(i) for i in range(V)]
    usable_V = np.array([bool(t) and i not in special for i, t in enumerate(tokens)])
    usable_V[list(tokenizer.stop_ids)] = True
    # One more token, which cannot be chosen: the library requires an EOS, and not every vocabulary has one.
    end = V
    tokens.append(b"<end>")
    facts: Any = _TokenizerFacts(tokens, [*special, end], end, tokenizer)
    inner = LLTokenizer(TokenizerWrapper(facts), eos_token=[end, *sorted(tokenizer.stop_ids)])
    return TokenBytes(inner, usable_V)
