"""Decodes tokens to text incrementally: characters and stop strings may span tokens, special tokens are hidden."""

import codecs
from collections.abc import Sequence

from onebase.modality.text.tokenizer import Tokenizer


class TextStream:
    """The text of one answer, token by token.

    Text that may be the start of a stop string, and incomplete characters, are held back. The joined results of `push` and `flush` are the text of
    the answer, however it was tokenised. start: the answer begins a text (as for `Tokenizer.decode`), instead of continuing one.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, start: bool = True) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._special = tokenizer.special_ids
        self._start = start
        # Tokens without bytes of their own (WordPiece): all of them are decoded again each time.
        self._whole: list[int] | None = [] if tokenizer.pieces is None else None
        self._said = 0
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        """A stop string was found; no text follows."""

    def push(self, id: int) -> str:
        """Add a token; returns the text that is now final. Special tokens have none."""
        if id in self._special or self.stopped:
            return ""
        if self._whole is not None:
            self._whole.append(id)
            return self._take(self._more())
        raw = self._tokenizer.bytes_of(id)
        if self._start:
            raw, self._start = self._tokenizer.begins(raw), False
        return self._take(self._bytes.decode(raw))

    def flush(self) -> str:
        """End the answer; returns the text that was held back. An incomplete character becomes U+FFFD."""
        if self.stopped:
            return ""
        out = self._take(self._more(final=True) if self._whole else self._bytes.decode(b"", final=True))
        if self.stopped:
            return out
        held, self._held = self._held, ""
        return out + held

    def _more(self, final: bool = False) -> str:
        """New text from decoding all tokens. The last word is held back, because the next token may change it."""
        text = self._tokenizer.decode(self._whole or ())
        end = len(text) if final else max(self._said, text.rfind(" "))
        out, self._said = text[self._said : end], end
        return out

    def _take(self, text: str) -> str:
        if not self._stop:
            return text
        self._held += text
        # The stop string that is complete first; of those the longest. This does not depend on the tokenisation.
        matches = [(at + len(s), at) for s in self._stop if (at := self._held.find(s)) >= 0]
        if matches:
            out, self._held, self.stopped = self._held[: min(matches)[1]], "", True
            return out
        keep = max(self._begun(s) for s in self._stop)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def _begun(self, stop: str) -> int:
        """How many characters at the end of the held text may be the start of `stop`."""
        most = min(len(stop) - 1, len(self._held))
        return next((n for n in range(most, 0, -1) if self._held.endswith(stop[:n])), 0)
