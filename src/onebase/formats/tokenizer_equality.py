"""Compares two text codecs: ids of probe texts, of every token's text and of conversations, and the tokens that frame and end a text.

An export is complete only after the exported tokenizer was read back and compared with the original.
"""

import random
from collections.abc import Iterator, Sequence

from onebase.errors import UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.pieces import Follows
from onebase.modality.text.tokenizer import Tokenizer

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
    """Texts that expose differences between tokenizers: typical cases, every token's text, triples of tokens, added tokens inside words."""
    yield from TEXTS
    shown = (i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids)
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
    """A description of the first text with different ids; None if there is none. nearest: texts only need to survive a round trip, except
    for spaces."""
    texts = list(probes(ours))
    for kind in follows:
        pair = (_ids(codec, texts, kind) for codec in (ours, theirs))
        for text, a, b in zip(texts, *pair, strict=True):
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
    """A description of the first conversation with different ids; None if there is none."""
    for talk in TALKS:
        try:
            a = ours.chat_ids(talk)
        except UserError:  # the template does not support this conversation, or any
            continue
        if (b := theirs.chat_ids(talk)) != a:
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            return f"from token {at + 1} on it is {b[at : at + 4]} there, {a[at : at + 4]} here"
    return None


def other_frame(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    """The tokens around a whole text, as a description, if they differ."""
    if ours.framed([]) == theirs.framed([]) and ours.begun([]) == theirs.begun([]):
        return None
    return " ".join([*ours.roles.before, "...", *ours.roles.after])


def lost_ends(ours: Tokenizer, theirs: Tokenizer) -> list[str]:
    """Stop tokens of `ours` that are none of `theirs`."""
    return [n for n in ours.roles.stop if ours.specials[n] not in theirs.stop_ids]


def _ids(tokenizer: Tokenizer, texts: list[str], follows: Follows) -> list[list[int] | None]:
    """Ids of each text; None for a text that is refused because it would become a special token."""
    try:
        return list(tokenizer.encode_batch(texts, follows=follows))
    except UserError:
        if len(texts) == 1:
            return [None]
        half = len(texts) // 2
        return _ids(tokenizer, texts[:half], follows) + _ids(tokenizer, texts[half:], follows)


def _bare(text: str) -> str:
    """A text without its spaces, in either form."""
    return text.replace("▁", "").replace(" ", "")
