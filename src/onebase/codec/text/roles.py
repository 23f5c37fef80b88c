"""Which tokens of a vocabulary play which part: what begins a text, what ends it, what stands around a text that is read whole."""

from __future__ import annotations

from dataclasses import field

from onebase.codec.text.sample import BOS, END, EOS, PAD
from onebase.config import config
from onebase.config_fields import renamed


@config
class Roles:
    """Names of special tokens. `bos`, `eos`, `pad` are what chat templates and other formats call so; any may be missing.

    stop: a generation ends with any of them. before, after: what frames a text that is read whole (a decoder with a BOS: ("<s>",)
    and (); BERT: ("[CLS]",) and ("[SEP]",)); a text to be continued gets `before` alone. unk: stands for what the vocabulary cannot
    write, so it is the one special token that plain text may become. chat_framed: the codec puts `before` in front of a
    conversation; where it is false the chat template alone says what a conversation begins with. others, extra: special tokens that nothing here
    reads or writes with, by the name that others call them (`mask_token`) or without one: kept for them, and no part of what ids depend on.
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
        """The roles in tokenizers that we train."""
        return cls(bos=BOS, eos=EOS, pad=PAD, stop=(EOS, END), before=(BOS,), chat_framed=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Every token that has a role, each once."""
        single = [n for n in (self.bos, self.eos, self.pad, self.unk) if n is not None]
        return tuple(dict.fromkeys([*single, *self.stop, *self.before, *self.after]))
