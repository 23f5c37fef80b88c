"""A tokenizer written as GGUF is read back and compared with the one it came from before a byte of the file is written.

The format keeps a vocabulary, a name for how text is split and a few switches. What of a tokenizer does not fit into them shows in ids
(interop/alike.py).
"""

from collections.abc import Mapping
from typing import Any

import tokenizers

from onebase.codec.text.codec import TextCodec
from onebase.codec.text.pieces import Follows
from onebase.codec.text.roles import Roles
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ConfigError
from onebase.interop.alike import lost_ends, other_frame, other_ids, other_talk
from onebase.interop.gguf.vocab import read_tokenizer
from onebase.interop.reader import Reader
from onebase.interop.words import with_turns

_REMEDY = "export to hf"
_NEAREST = f"{_REMEDY}; or name a splitting (pre=default), and have some texts split otherwise there"


def prove(
    metadata: Mapping[str, Any],
    inner: tokenizers.Tokenizer,
    roles: Roles,
    template: str | None,
    *,
    chat: ChatTemplate | None = None,
    nearest: bool = False,
) -> None:
    """Refuse metadata that do not give the tokenizer back. template: as it is written; chat: as it was, where the two differ. nearest: the user
    named how text is split, knowing that some texts are split otherwise: all else but spaces must come through.

    Raises ConfigError naming what differs, with the text."""
    where = "the exported file"
    found, found_roles = read_tokenizer(Reader(dict(metadata), where))
    ours = Tokenizer(tokenizers.Tokenizer.from_str(inner.to_str()), roles)
    theirs = Tokenizer(found, found_roles)
    if frame := other_frame(ours, theirs):
        raise ConfigError(
            f"this tokenizer reads a text as {frame}: GGUF can only say whether BOS stands before it and EOS behind it",
            _REMEDY,
        )
    follows: list[Follows] = ["nothing", "special"] if template else ["nothing"]
    if said := other_ids(ours, theirs, follows, nearest=nearest):
        raise ConfigError(f"llama.cpp would not read text as this tokenizer does: {said}", _NEAREST)
    chat = chat or ChatTemplate(template or "", tuple(ours.specials), where, roles)
    there = ChatTemplate(template or "", tuple(theirs.specials), where, found_roles)
    if lost := lost_ends(ours, with_turns(theirs, there)):
        raise ConfigError(
            f"a generation ends with any of {len(roles.closing)} tokens, GGUF has names for three: {lost[0]!r} would not end one there",
            _REMEDY,
        )
    talk = None if nearest else other_talk(TextCodec(ours, chat), TextCodec(theirs, there))
    if template and talk:
        raise ConfigError(f"llama.cpp would not read a conversation as this base does: {talk}", _NEAREST)
