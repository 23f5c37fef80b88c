"""Text to ids and back with the `tokenizers` library: our own byte-level BPE, and the tokenizers of open models.

Text from a user never becomes a special token: the name `<|eos|>` in a document is seven characters, not the end of the document. For
our own tokenizers also `decode(encode(x)) == x`; others may change the text (a lower-case WordPiece does).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import tokenizers

from onebase.artifact.files import canonical_json, sha256_bytes, write_atomic
from onebase.config_plain import to_hash
from onebase.errors import ArtifactError, DataError
from onebase.modality.text.bpe import train_bpe
from onebase.modality.text.pieces import Follows, Pieces, following, pieces
from onebase.modality.text.roles import Roles
from onebase.modality.text.sample import SPECIALS
from onebase.modality.text.valid import is_unicode, not_text


class Tokenizer:
    """A tokenizer and the roles of its special tokens. Immutable; safe to share between threads.

    Raises ArtifactError when a role names a token that is not a special token of the vocabulary.
    """

    def __init__(self, inner: tokenizers.Tokenizer, roles: Roles | None = None) -> None:
        # Input text never becomes a special token. The flag is not part of the library's file, so set it here.
        inner.encode_special_tokens = True
        # Some files also set truncation and padding; here the code that builds batches decides.
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self.roles = Roles.own() if roles is None else roles
        added = inner.get_added_tokens_decoder()
        #: special tokens by name
        self.specials: dict[str, int] = {t.content: i for i, t in sorted(added.items()) if t.special}
        #: special tokens that strip white space on their left, on their right
        self.strips = (
            frozenset(t.content for t in added.values() if t.special and t.lstrip),
            frozenset(t.content for t in added.values() if t.special and t.rstrip),
        )
        missing = [name for name in self.roles.names if name not in self.specials]
        if missing:
            raise ArtifactError(
                f"the tokenizer has no special token {', '.join(missing)}",
                "train it with Tokenizer.train, or give `roles` with the names of its special tokens",
            )
        self.bos, self.eos, self.pad = (
            None if name is None else self.specials[name]
            for name in (self.roles.bos, self.roles.eos, self.roles.pad)
        )
        #: ids that end a generation
        self.stop_ids = frozenset(self.specials[n] for n in self.roles.stop)
        self._before, self._after = (
            [self.specials[n] for n in names] for names in (self.roles.before, self.roles.after)
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = SPECIALS, portable: bool = False
    ) -> Tokenizer:
        """Train merges on `texts` (streamed). The same texts in any order give the same tokenizer.

        portable: pre-tokenise as Llama 3 does, which other programs support. The vocabulary is smaller than `vocab_size` when the texts
        have too few repeats to fill it. Raises ConfigError when `vocab_size` cannot hold the 256 bytes and the special tokens."""
        return cls(train_bpe(texts, vocab_size, specials, portable))

    @classmethod
    def from_file(cls, path: str | Path, roles: Roles | None = None) -> Tokenizer:
        """Read a `tokenizer.json`. Raises ArtifactError when it is missing or no tokenizer. Without `roles` (a tokenizer trained by
        onebase) also when it is no byte-level BPE.
        """
        try:
            inner = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtifactError(f"no tokenizer at {path}", "give the path of a tokenizer.json") from None
        except Exception as e:  # the library raises bare Exception
            raise ArtifactError(
                f"{path} is not a tokenizer file: {e}", "give the path of a tokenizer.json"
            ) from None
        tokenizer = cls(inner, roles)
        if roles is None and not tokenizer._lossless():
            raise ArtifactError(
                f"{path} is not a byte-level tokenizer: decoding would not restore the text",
                "use a byte-level BPE",
            )
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, from which `from_file` reads an equal tokenizer."""
        write_atomic(Path(path), self.as_json.encode())

    @cached_property
    def as_json(self) -> str:
        """The complete tokenizer as in `tokenizer.json`, as canonical JSON."""
        return canonical_json(json.loads(self._inner.to_str()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's canonical JSON, and of its roles unless they are our own."""
        if self.roles == Roles.own():
            return sha256_bytes(self.as_json.encode())
        roles = {k: v for k, v in to_hash(self.roles).items() if k not in ("others", "extra")}
        return sha256_bytes(canonical_json([json.loads(self.as_json), roles]).encode())

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(self._inner.get_vocab(with_added_tokens=True).values())

    @property
    def inner(self) -> tokenizers.Tokenizer:
        """The library's object, for exporters. Do not change it."""
        return self._inner

    def with_stop(self, name: str) -> Tokenizer:
        """The same tokenizer with one more stop token."""
        return Tokenizer(self._inner, replace(self.roles, stop=(*self.roles.stop, name)))

    def naming(self, others: dict[str, str], extra: tuple[str, ...]) -> Tokenizer:
        """The same tokenizer, with the names that other formats give its special tokens (Roles)."""
        return Tokenizer(self._inner, replace(self.roles, others=others, extra=extra))

    def framed(self, ids: Sequence[int]) -> list[int]:
        """A text's ids in the frame of a complete text: `roles.before`, the ids, `roles.after` (empty for a decoder)."""
        return [*self._before, *ids, *self._after]

    def begun(self, ids: Sequence[int]) -> list[int]:
        """A text's ids as the start of a text to be continued: `roles.before` (BOS, or nothing) and the ids."""
        return [*self._before, *ids]

    def encode(
        self, text: str, *, bos: bool = False, eos: bool = False, follows: Follows = "nothing"
    ) -> list[int]:
        """Ids of `text`. bos: prepend `roles.before`; eos: append EOS (each if there is one).

        follows: what precedes this text, where it is a part of a longer one: some tokenizers prepend a space to a text.
        Raises DataError on text that is not valid Unicode (a lone surrogate).
        """
        ids = self._plain(text, follows)
        ids = self.begun(ids) if bos else ids
        return [*ids, self.eos] if eos and self.eos is not None else ids

    def encode_batch(self, texts: Sequence[str], *, follows: Follows = "nothing") -> list[list[int]]:
        """`encode` of each text, on all cores."""
        inner = self._following(follows)
        try:
            encoded = [e.ids for e in inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise next((not_text(t) for t in texts if not is_unicode(t)), not_text(texts)) from None
        return [
            ids if self._watched.isdisjoint(ids) else self._plain(text, follows)
            for text, ids in zip(texts, encoded, strict=True)
        ]

    def encode_placed(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`encode` of a text, with the offset of each token: (start, end) in characters, end exclusive. Raises DataError where the text
        contains the name of a special token that the vocabulary must split."""
        try:
            encoding = self._following("nothing").encode(text, add_special_tokens=False)
        except TypeError:
            raise not_text(text) from None
        if not self._watched.isdisjoint(encoding.ids) and self._plain(text, "nothing") != encoding.ids:
            raise DataError(
                "the text contains the name of a special token, and this vocabulary cannot give token offsets for it",
                "remove the name from the text",
            )
        return encoding.ids, encoding.offsets

    def _plain(self, text: str, follows: Follows) -> list[int]:
        ids = self._raw(text, follows)
        if self._watched.isdisjoint(ids):
            return ids
        # Some models (Unigram) encode the name of a special token as the token itself: split every name after its first character.
        cuts = [m.start() + 1 for m in self._names.finditer(text)]
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = [i for n, part in enumerate(parts) for i in self._raw(part, "text" if n else follows)]
        bad = sorted(self._reserved & set(ids))
        if bad:
            raise DataError(
                f"the text would become the special token {self._inner.id_to_token(bad[0])!r}",
                "this vocabulary cannot write it otherwise: remove it from the text",
            )
        return ids

    def _raw(self, text: str, follows: Follows) -> list[int]:
        try:
            ids: list[int] = self._following(follows).encode(text, add_special_tokens=False).ids
        except TypeError:
            raise not_text(text) from None
        return ids

    def _following(self, follows: Follows) -> tokenizers.Tokenizer:
        if follows == "nothing":
            return self._inner
        return self._after_special if follows == "special" else self._after_text

    @cached_property
    def _after_special(self) -> tokenizers.Tokenizer:
        return following(self._inner, "special")

    @cached_property
    def _after_text(self) -> tokenizers.Tokenizer:
        return following(self._inner, "text")

    @cached_property
    def _reserved(self) -> frozenset[int]:
        """Ids that no text may become."""
        return frozenset(i for name, i in self.specials.items() if name != self.roles.unk)

    @cached_property
    def _watched(self) -> frozenset[int]:
        """Those of `_reserved`, and UNK if it has another role too (GPT-2 has one token for all): its name in a text must not end the
        text."""
        roles = self.roles
        parts = (roles.bos, roles.eos, *roles.stop, *roles.before, *roles.after)
        return self._reserved | (
            {self.specials[roles.unk]} if roles.unk in parts and roles.unk else frozenset()
        )

    @cached_property
    def _names(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(n) for n in self.specials) or "(?!)")

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, start: bool = True) -> str:
        """Text of `ids`; bytes that are not valid UTF-8 (a sequence cut inside a character) become U+FFFD.

        start: the ids begin a text, so the space that some tokenizers prepend is removed.
        """
        shown = [int(i) for i in ids if i not in self.special_ids] if skip_special else list(map(int, ids))
        if self.pieces is None:
            return str(self._inner.decode(shown, skip_special_tokens=False))
        table = self._bytes
        try:
            parts = [table[i] for i in shown]
        except KeyError:
            parts = [self.bytes_of(i) for i in shown]  # raises an error that names the unknown id
        if start and parts:
            parts[0] = self.begins(parts[0])
        return b"".join(parts).decode("utf-8", errors="replace")

    def begins(self, first: bytes) -> bytes:
        """The bytes of a text's first token without the space that the tokenizer prepended."""
        strip = self.pieces.strip if self.pieces else ""
        if strip == "token":
            return first.replace(b" ", b"")
        return first.removeprefix(b" ") if strip == "one" else first

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens."""
        return frozenset(self.specials.values())

    @cached_property
    def pieces(self) -> Pieces | None:
        """How tokens become bytes; None where only complete texts can be decoded (WordPiece)."""
        return pieces(self._inner)

    def bytes_of(self, id: int) -> bytes:
        """The exact bytes of a token; of a special token, its name. Raises DataError for an unknown id."""
        value = self._bytes.get(int(id))
        if value is None:
            raise DataError(
                f"token id {id} is not in the vocabulary of {self.vocab_size}",
                "decode with the tokenizer that encoded",
            )
        return value

    def id_of(self, name: str) -> int:
        """Id of a special token by name. Raises DataError when there is none."""
        if name not in self.specials:
            raise DataError(
                f"the tokenizer has no special token {name!r}", f"it has: {', '.join(self.specials)}"
            )
        return self.specials[name]

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        of = self.pieces.bytes if self.pieces else str.encode
        table = {i: of(token) for token, i in self._inner.get_vocab(with_added_tokens=True).items()}
        table |= {i: name.encode() for name, i in self.specials.items()}
        # Foreign vocabularies may have unused ids. A model can still generate one; it decodes to nothing.
        return dict.fromkeys(range(self.vocab_size), b"") | table

    def _lossless(self) -> bool:
        probe = " a\u00e9\u4e2d\U0001f600\n\t12345 <|eos|>"
        return self.decode(self.encode(probe)) == probe
