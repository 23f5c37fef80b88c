"""Converts spans of a text to tags of its tokens and back. T tokens.

Tags are BIO (Ramshaw and Marcus, cmp-lg/9505040): 0 is outside, 1 + 2 i begins a span of label i, 2 + 2 i continues one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onebase.modality.text.long import Long, ReadPart, parts_of, picked
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer


@dataclass(frozen=True, order=True)
class Span:
    """A span of a text: characters `start` to `end` (exclusive), and its label."""

    start: int
    end: int
    label: str


Place = tuple[int, int]


@dataclass(frozen=True)
class Placed(Tokens):
    """A text as a base reads whole texts, without a loss. places: start and end (exclusive) of each token in characters, without begin and
    end tokens; tokens that are parts of one character all have its place."""

    places: tuple[Place, ...] = ()


def placed(
    tokenizer: Tokenizer, text: str, name: str = "", limit: int | None = None, long: Long = "refuse"
) -> Placed:
    """A text with its tokens' places; beyond the limit it is treated by `long` ("refuse": returned whole). Raises DataError where the text has
    the name of a special token that the vocabulary must split."""
    ids, places = tokenizer.encode_placed(text)
    most = len(ids) if limit is None or long == "refuse" else max(1, limit - len(tokenizer.framed([])))
    parts = [ReadPart(((0, len(ids)),))] if len(ids) <= most else parts_of(len(ids), most, long)
    windows = [tokenizer.framed(picked(ids, p)) for p in parts]
    framed = np.asarray([i for w in windows for i in w], np.int32)
    return Placed(
        framed,
        np.zeros(len(framed), np.bool_),
        name,
        "labelled",
        windows=tuple(map(len, windows)) if len(windows) > 1 else (),
        left_out=sum(p.left_out for p in parts),
        places=tuple(places[i] for p in parts for i in picked(range(len(ids)), p)),
    )


def trimmed(text: str, span: Span) -> Span | None:
    """The span trimmed of white space; None if it has nothing else."""
    part = text[span.start : span.end]
    if not part.strip():
        return None
    start = span.start + len(part) - len(part.lstrip())
    return Span(start, start + len(part.strip()), span.label)


def tags_of(
    spans: Sequence[Span], places: Sequence[Place], labels: Sequence[str] | Mapping[str, int], text: str
) -> tuple[list[int], str | None]:
    """The tag of each token [T], and what is wrong if two spans share a token or a span has none. A token that is partly in a span belongs to
    it; white space at the ends of a span does not count."""
    tags = [0] * len(places)
    number = labels if isinstance(labels, Mapping) else {label: i for i, label in enumerate(labels)}
    for span in sorted(spans):
        inner = trimmed(text, span)
        assert inner is not None, "spans of white space are refused before"
        at = [i for i, (a, b) in enumerate(places) if a < inner.end and b > inner.start]
        what = f"the span {span.start} to {span.end} ({text[span.start : span.end]!r})"
        if not at:
            return tags, f"{what} has no token"
        if any(tags[i] for i in at):
            return tags, f"{what} shares a token with another"
        first = 1 + 2 * number[span.label]
        for i in at:
            tags[i] = first if i == at[0] else first + 1
    return tags, None


def spans_of(tags: Sequence[int], places: Sequence[Place], labels: Sequence[str], text: str) -> list[Span]:
    """The spans of tagged tokens, in the order of the text. A continuing tag after another label or outside of a span begins one. White space
    at the ends of a span is not part of it."""
    found: list[tuple[int, int, int]] = []
    before = 0
    for tag, (start, end) in zip(tags, places, strict=True):
        if tag:
            label = (tag - 1) // 2
            if tag % 2 == 0 and before and (before - 1) // 2 == label:
                found[-1] = (found[-1][0], max(end, found[-1][1]), label)
            else:
                found.append((start, end, label))
        before = tag
    spans = (trimmed(text, Span(a, b, labels[i])) for a, b, i in found)
    return [s for s in spans if s is not None]
