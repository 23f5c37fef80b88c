"""Byte-level BPE over the `tokenizers` library.

Two promises: `decode(encode(x)) == x` for every text, and no text a user writes ever becomes a special token:
the name `<|eos|>` in a document is seven letters, not the end of the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from onebase.artifact.files import canonical_json, sha256_bytes, write_atomic
from onebase.codec.text.sample import BOS, EOS, PAD, SPECIALS
from onebase.errors import ArtifactError, ConfigError, DataError

# GPT-4's pre-tokenisation with numbers cut into one or two digits (three waste a small vocabulary; nanochat
# dev/LOG.md).
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def _byte_letters() -> dict[str, int]:
    """GPT-2's alphabet: the printable letter that stands for each byte, inverted."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(shown)]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


_LETTERS = _byte_letters()


class Tokenizer:
    """A trained byte-level BPE. Immutable; safe to share between threads."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        # Text from outside never becomes a special token. The flag is not part of the library's file, so set
        # it here.
        inner.encode_special_tokens = True
        self._inner = inner
        added = inner.get_added_tokens_decoder()
        #: special tokens by name
        self.specials: dict[str, int] = {t.content: i for i, t in sorted(added.items()) if t.special}
        missing = [name for name in (BOS, EOS, PAD) if name not in self.specials]
        if missing:
            raise ArtifactError(
                f"the tokenizer has no special token {', '.join(missing)}", "train it with Tokenizer.train"
            )
        self.bos, self.eos, self.pad = self.specials[BOS], self.specials[EOS], self.specials[PAD]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = SPECIALS) -> Tokenizer:
        """Learn merges from `texts` (streamed). The same texts in any order give the same tokenizer.

        The vocabulary is smaller than `vocab_size` when the texts have too few repeats to fill it.
        Raises ConfigError when `vocab_size` cannot hold the 256 bytes and the specials.
        """
        least = 256 + len(specials)
        if vocab_size < least:
            raise ConfigError(
                f"vocab_size {vocab_size} cannot hold 256 bytes and {len(specials)} specials",
                f"use at least {least}",
            )
        inner = tokenizers.Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=2,
            show_progress=False,
        )
        inner.train_from_iterator(_checked(texts), trainer)
        return cls(inner)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`. Raises ArtifactError when it is missing or no byte-level BPE of ours."""
        try:
            inner = tokenizers.Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtifactError(f"no tokenizer at {path}", "give the path of a tokenizer.json") from None
        except Exception as e:
            raise ArtifactError(
                f"{path} is not a tokenizer file: {e}", "give the path of a tokenizer.json"
            ) from None
        made = cls(inner)
        if not made._lossless():
            raise ArtifactError(
                f"{path} is not a byte-level tokenizer: text would not survive it", "use a byte-level BPE"
            )
        return made

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`; `from_file` reads an equal tokenizer back."""
        write_atomic(Path(path), self.as_json.encode())

    @cached_property
    def as_json(self) -> str:
        """The tokenizer whole, as `tokenizer.json` holds it, in one canonical form."""
        return canonical_json(json.loads(self._inner.to_str()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's canonical JSON."""
        return sha256_bytes(self.as_json.encode())

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(self._inner.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Ids of `text`. Raises DataError on text that is no Unicode (a lone surrogate)."""
        try:
            ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise _not_text(text) from None
        return [self.bos] * bos + ids + [self.eos] * eos

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        try:
            return [e.ids for e in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise next((_not_text(t) for t in texts if not _is_unicode(t)), _not_text(texts)) from None

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 (a sequence cut inside a letter) become U+FFFD."""
        hidden = set(self.specials.values()) if skip_special else set()
        return b"".join(self.bytes_of(i) for i in ids if i not in hidden).decode("utf-8", errors="replace")

    def bytes_of(self, id: int) -> bytes:
        """The exact bytes a token stands for; a special token stands for its name. Raises DataError for an
        unknown id.
        """
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
        by_name = {i: name for name, i in self.specials.items()}
        table = {}
        for token, i in self._inner.get_vocab(with_added_tokens=True).items():
            table[i] = by_name[i].encode() if i in by_name else _raw(token)
        return table

    def _lossless(self) -> bool:
        probe = " a\u00e9\u4e2d\U0001f600\n\t12345 <|eos|>"
        return self.decode(self.encode(probe)) == probe


def _raw(token: str) -> bytes:
    if all(c in _LETTERS for c in token):
        return bytes(_LETTERS[c] for c in token)
    return token.encode()  # a token that a foreign file added as plain text


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if not _is_unicode(text):
            raise _not_text(text)
        yield text


def _is_unicode(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_text(text: object) -> DataError:
    if isinstance(text, str):
        at = next(i for i, c in enumerate(text) if 0xD800 <= ord(c) <= 0xDFFF)
        return DataError(
            f"the text has a lone surrogate at character {at}, so it is no valid Unicode",
            "repair how it was read",
        )
    return DataError(f"a text is expected, this is {type(text).__name__}", "give str values")
