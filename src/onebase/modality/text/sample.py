"""A sample is a list of segments, whatever the task; a tokenised sample is ids and a loss mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Message = Mapping[str, Any]

BOS, EOS, PAD, END = "<|bos|>", "<|eos|>", "<|pad|>", "<|end|>"
MASK = "<|mask|>"
"""The mask token of tokenizers that are trained for masked language modelling."""
SPECIALS = (
    BOS,
    EOS,
    PAD,
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    END,
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
)


@dataclass(frozen=True)
class Segment:
    """A segment of one kind of data.

    Text kinds: `text` (data is str, never parsed for special tokens), `special` (data is the name of one special
    token), `end` (no data: the EOS token), `chat` (data is a list of messages; the codec's template turns it
    into the first two). `loss`: the segment is supervised.
    """

    kind: str
    data: Any
    loss: bool = False
    noise: float | None = None


@dataclass(frozen=True)
class Sample:
    """One example of any task, before it is tokenised."""

    segments: tuple[Segment, ...]
    id: str = ""
    source: str = ""
    target: Any = None


@dataclass(frozen=True, eq=False)
class MediaContent:
    """An image or a sound, decoded when it is needed. digest: hash of its encoded bytes; count: its patches; load: returns them, fp32 [N, P], and
    their coordinates, int [N, K]; name: of the file, for messages; shape: patches along each coordinate, the last coordinate changing fastest;
    shown: what it is, for the token ledger; raw: its encoded bytes and the name of its file, where they are at hand."""

    digest: str
    count: int
    load: Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]]
    name: str = ""
    shape: tuple[int, ...] = ()
    shown: str = "media"
    raw: Callable[[], tuple[bytes, str]] | None = None


@dataclass(frozen=True, eq=False)
class Media:
    """An image or a sound in a tokenised sample, of the codec `kind`: its patches take the tokens from `start` on. noise: it is trained to be generated,
    by flow matching; otherwise it is only read. opening: tokens directly before it that announce it."""

    kind: str
    start: int
    content: MediaContent
    noise: bool = False
    opening: int = 1

    def __len__(self) -> int:
        return self.content.count

    @property
    def stop(self) -> int:
        return self.start + len(self)


@dataclass(frozen=True)
class Tokens:
    """A tokenised sample: `ids` int32 [T]; `loss` bool [T], true where token t is a target of the loss. types: int32 [T], 0 or 1 by the
    text of a pair that a token belongs to; None: all 0. windows: the token count of each window, for a text that is read in several
    (empty: read at once). left_out: tokens of the text that are not read. media: images and sounds, in the
    places of their tokens."""

    ids: NDArray[np.int32]
    loss: NDArray[np.bool_]
    id: str = ""
    source: str = ""
    types: NDArray[np.int32] | None = None
    windows: tuple[int, ...] = ()
    left_out: int = 0
    media: tuple[Media, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def parts(self) -> list[Tokens]:
        """The windows in order, or the sample itself."""
        if not self.windows:
            return [self]
        ends = np.cumsum((0, *self.windows)).tolist()
        return [
            Tokens(
                self.ids[a:b],
                self.loss[a:b],
                self.id,
                self.source,
                None if self.types is None else self.types[a:b],
            )
            for a, b in pairwise(ends)
        ]


def document_sample(text: str, *, id: str = "", source: str = "") -> Sample:
    """A document to pretrain on: all of its text and its EOS are supervised."""
    return Sample((Segment("text", text, loss=True), Segment("end", None, loss=True)), id, source)


def completion_sample(prompt: str, completion: str, *, id: str = "", source: str = "") -> Sample:
    """A prompt, and a supervised completion with its EOS."""
    spans = (Segment("text", prompt), Segment("text", completion, loss=True), Segment("end", None, loss=True))
    return Sample(spans, id, source, completion)


def chat_sample(messages: Sequence[Message], *, id: str = "", source: str = "") -> Sample:
    """A conversation of `{"role", "content"}` messages; the template marks the supervised part (the assistant's turns)."""
    return Sample((Segment("chat", list(messages), loss=True),), id, source)


PROBE = "probe"
"""A text to test how a template renders content."""


def is_part(part: Any) -> bool:
    """Whether it is a content part: {"type": "image"} or {"type": "text", "text": ...}, as templates of multimodal models accept them."""
    return isinstance(part, Mapping) and (
        part == {"type": "image"} or (part.get("type") == "text" and isinstance(part.get("text"), str))
    )


def in_parts(message: Message) -> Message:
    """The message with its content as a list of parts."""
    content = message.get("content")
    return (
        {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
    )


def joined(message: Message) -> Message:
    """The message with its content as one text; it has no images."""
    content = message.get("content")
    return (
        {**message, "content": "".join(p["text"] for p in content)} if isinstance(content, list) else message
    )
