"""The roles of special tokens in a vocabulary: BOS, EOS, padding, stop tokens, and the frame of a complete text."""

from __future__ import annotations

from dataclasses import field

from onebase.config import config
from onebase.config_fields import renamed
from onebase.modality.text.sample import BOS, END, EOS, PAD


@config
class Roles:
    """Names of special tokens. `bos`, `eos`, `pad` as in chat templates and other formats; any may be missing.

    stop: each of them ends a generation. before, after: the frame of a complete text (a decoder with a BOS: ("<s>",) and ();
    BERT: ("[CLS]",) and ("[SEP]",)); a text to be continued gets only `before`. unk: replaces what the vocabulary cannot write, so it
    is the only special token that plain text may become. chat_framed: the codec puts `before` in front of a conversation; if false,
    the chat template alone decides how a conversation begins. others, extra: special tokens that onebase does not use, with the name
    that other formats give them (`mask_token`) or without one: kept for export, and no part of the tokenizer's hash.
    """

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    stop: tuple[str, ...] = renamed("closing", ())
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    chat_framed: bool = False
    others: dict[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @classmethod
    def own(cls) -> Roles:
        """The roles of tokenizers that onebase trains."""
        return cls(bos=BOS, eos=EOS, pad=PAD, stop=(EOS, END), before=(BOS,), chat_framed=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Every token with a role, without duplicates."""
        single = [n for n in (self.bos, self.eos, self.pad, self.unk) if n is not None]
        return tuple(dict.fromkeys([*single, *self.stop, *self.before, *self.after]))
