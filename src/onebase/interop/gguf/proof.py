"""A tokenizer written as GGUF is read back and compared with the one it came from before a byte of the file is written.

The format keeps a vocabulary, a name for how text is split and a few switches. What of a tokenizer does not fit into them shows in the
ids of texts: of some that turn on what tokenizers differ in, of the text of every token, and of conversations by the chat template.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers

from onebase.codec.text.codec import TextCodec
from onebase.codec.text.pieces import Follows
from onebase.codec.text.roles import Roles
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ConfigError, UserError
from onebase.interop.gguf.vocab import read_tokenizer
from onebase.interop.reader import Reader
from onebase.interop.words import with_turns

TEXTS = (
    "",
    " ",
    "a",
    " a",
    "  a  b   c ",
    "Hello there, HELLO World! don't they'LL I've",
    "1 12 123 1234 12345 3.14159 1,000,000 x1y22",
    "a\n\n\n b\r\n\r\n\tc  \n d   \n",
    "    return a + b  # done\n\n",
    "naïve Grüße café e\u0301 ½ ² Ⅷ ١٢٣ \u00a0x\u2028y\u3000z",
    "中文字 日本語 한국어 हिन्दी עברית ไทย 😀👍🏽",
    "!!! ??? --- ... <a href='b'>[c](d) {e: \"f\"} _g_ \\h",
    "▁ odd▁mark <0x41> <s> </s> [INST] <|eos|>",
    "\x00\x7f\ufffd\U0010ffff",
)
TALKS = (
    [{"role": "user", "content": "Hello there"}],
    [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": " 12, well"},
        {"role": "user", "content": "\nmore "},
    ],
)
_REMEDY = "export to hf"


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
    _same_frame(ours, theirs)
    follows: list[Follows] = ["nothing", "special"] if template else ["nothing"]
    for kind in follows:
        for text, a, b in _read(ours, theirs, kind):
            if nearest:
                a, b = [], [] if _bare(theirs.decode(b)) in (_bare(text), _bare(ours.decode(a))) else b
            if a != b:
                after = " after a special token" if kind == "special" else ""
                raise ConfigError(
                    f"llama.cpp would not read text as this tokenizer does: {text[:60]!r}{after} becomes {b[:8]} there, {a[:8]} here",
                    f"{_REMEDY}; or name a splitting (pre=default), and have some texts split otherwise there",
                )
    chat = chat or ChatTemplate(template or "", tuple(ours.specials), where, roles)
    there = ChatTemplate(template or "", tuple(theirs.specials), where, found_roles)
    _same_ends(ours, with_turns(theirs, there))
    if template and not nearest:
        _same_talks(TextCodec(ours, chat), TextCodec(theirs, there))


def _read(ours: Tokenizer, theirs: Tokenizer, follows: Follows) -> Iterator[tuple[str, list[int], list[int]]]:
    """Texts with the ids of both."""
    texts = list(_probes(ours))
    yield from zip(
        texts,
        ours.encode_batch(texts, follows=follows),
        theirs.encode_batch(texts, follows=follows),
        strict=True,
    )


def _probes(tokenizer: Tokenizer) -> Iterator[str]:
    yield from TEXTS
    words = [
        tokenizer.decode([i], start=False) for i in range(tokenizer.vocab_size) if i not in tokenizer.hidden
    ]
    words = [w for w in words if "\ufffd" not in w]
    yield from words
    draw = random.Random(0)
    for _ in range(min(len(words), 2000)):
        yield "".join(draw.choices(words, k=3))
    for added in tokenizer.inner.get_added_tokens_decoder().values():
        yield from (f"a{added.content}b", f"a {added.content} b")


def _bare(text: str) -> str:
    """A text without its spaces, however written."""
    return text.replace("▁", "").replace(" ", "")


def _same_frame(ours: Tokenizer, theirs: Tokenizer) -> None:
    """What stands around a text that is read whole."""
    if ours.framed([]) != theirs.framed([]) or ours.begun([]) != theirs.begun([]):
        frame = [*ours.roles.before, "...", *ours.roles.after]
        raise ConfigError(
            f"this tokenizer reads a text as {' '.join(frame)}: GGUF can only say whether BOS stands before it and EOS behind it",
            _REMEDY,
        )


def _same_ends(ours: Tokenizer, theirs: Tokenizer) -> None:
    lost = [n for n in ours.roles.closing if ours.specials[n] not in theirs.closing]
    if lost:
        raise ConfigError(
            f"a generation ends with any of {len(ours.roles.closing)} tokens, GGUF has names for three: {lost[0]!r} would not end one there",
            _REMEDY,
        )


def _same_talks(ours: TextCodec, theirs: TextCodec) -> None:
    for talk in TALKS:
        try:
            a = ours.chat_ids(talk)
        except UserError:  # a template that takes other conversations, or is broken here too
            continue
        if (b := theirs.chat_ids(talk)) != a:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            raise ConfigError(
                f"llama.cpp would not read a conversation as this base does: from token {at + 1} on it is {b[at : at + 4]} there, "
                f"{a[at : at + 4]} here",
                f"{_REMEDY}; or name a splitting (pre=default), and have some texts split otherwise there",
            )
