"""Whether two codecs of text are alike: ids of probe texts, of the text of every token and of conversations, and what frames and ends a text.

An exported tokenizer is read back and compared with the one it came from before the export is called done.
"""

import random
from collections.abc import Iterator, Sequence

from onebase.codec.text.codec import TextCodec
from onebase.codec.text.pieces import Follows
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import UserError

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


def probes(tokenizer: Tokenizer) -> Iterator[str]:
    """Texts that turn on what tokenizers differ in, the text of every token, some of three, and added tokens inside words."""
    yield from TEXTS
    shown = (i for i in range(tokenizer.vocab_size) if i not in tokenizer.hidden)
    words = [w for w in (tokenizer.decode([i], start=False) for i in shown) if "\ufffd" not in w]
    yield from words
    draw = random.Random(0)
    for _ in range(min(len(words), 2000)):
        yield "".join(draw.choices(words, k=3))
    for added in tokenizer.inner.get_added_tokens_decoder().values():
        yield from (f"a{added.content}b", f"a {added.content} b")


def other_ids(
    ours: Tokenizer, theirs: Tokenizer, follows: Sequence[Follows], *, nearest: bool = False
) -> str | None:
    """The first text that is read otherwise, as words; None where all are alike. nearest: all but spaces must come through, no more."""
    texts = list(probes(ours))
    for kind in follows:
        found = (_ids(codec, texts, kind) for codec in (ours, theirs))
        for text, a, b in zip(texts, *found, strict=True):
            if a is None or b is None:
                if a is not b:
                    return f"{text[:60]!r} has ids only {'here' if b is None else 'there'}"
                continue
            if nearest and _bare(theirs.decode(b)) in (_bare(text), _bare(ours.decode(a))):
                continue
            if a != b:
                after = (
                    ""
                    if kind == "nothing"
                    else f" after a {kind} token"
                    if kind == "special"
                    else " inside a text"
                )
                return f"{text[:60]!r}{after} becomes {b[:8]} there, {a[:8]} here"
    return None


def other_talk(ours: TextCodec, theirs: TextCodec) -> str | None:
    """Where a conversation is read otherwise, as words."""
    for talk in TALKS:
        try:
            a = ours.chat_ids(talk)
        except UserError:  # a template that takes other conversations, or none
            continue
        if (b := theirs.chat_ids(talk)) != a:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            return f"from token {at + 1} on it is {b[at : at + 4]} there, {a[at : at + 4]} here"
    return None


def other_frame(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    """What stands around a text that is read whole, where that differs, as words."""
    if ours.framed([]) == theirs.framed([]) and ours.begun([]) == theirs.begun([]):
        return None
    return " ".join([*ours.roles.before, "...", *ours.roles.after])


def lost_ends(ours: Tokenizer, theirs: Tokenizer) -> list[str]:
    """Tokens that end a generation here and not there."""
    return [n for n in ours.roles.closing if ours.specials[n] not in theirs.closing]


def _ids(tokenizer: Tokenizer, texts: list[str], follows: Follows) -> list[list[int] | None]:
    """Ids of each text; None for one that would become a special token and is refused."""
    try:
        return list(tokenizer.encode_batch(texts, follows=follows))
    except UserError:
        if len(texts) == 1:
            return [None]
        half = len(texts) // 2
        return _ids(tokenizer, texts[:half], follows) + _ids(tokenizer, texts[half:], follows)


def _bare(text: str) -> str:
    """A text without its spaces, however written."""
    return text.replace("▁", "").replace(" ", "")
