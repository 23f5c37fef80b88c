"""Texts longer than the limit: refused, truncated, or read in windows. T tokens of a text, W windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from onebase.modality.text.sample import Tokens

Cut = Literal["refuse", "head", "tail", "middle"]
Long = Literal["refuse", "head", "tail", "middle", "windows"]
"""What to do with a text beyond the limit: refuse it; keep its head, its tail, or both (`middle` drops the middle); or read it in windows
and average their vectors."""
WINDOWS = 16
"""Maximum windows of a text; a longer text loses its middle."""


@dataclass(frozen=True)
class ReadPart:
    """The token ranges [start, end) of a text that are read, and how many tokens are in none."""

    stretches: tuple[tuple[int, int], ...]
    left_out: int = 0


def parts_of(size: int, room: int, long: Long) -> list[ReadPart]:
    """The windows, of at most `room` tokens each, of a text of `size` tokens: one, unless `long` is windows. With `middle` it has two
    ranges. Not for `refuse`."""
    if size <= room:
        return [ReadPart(((0, size),))]
    if long == "head":
        return [ReadPart(((0, room),), size - room)]
    if long == "tail":
        return [ReadPart(((size - room, size),), size - room)]
    if long == "middle":
        first = room - room // 2
        return [ReadPart(((0, first), (size - room // 2, size)), size - room)]
    assert long == "windows"
    # Windows of about equal size have equal weight in the mean.
    count = min(-(-size // room), WINDOWS)
    if size <= count * room:
        ends = [size * i // count for i in range(count + 1)]
        return [ReadPart(((a, b),)) for a, b in pairwise(ends)]
    first = count - count // 2
    starts = [room * i for i in range(first)] + [size - room * i for i in range(count // 2, 0, -1)]
    lost = size - count * room
    return [ReadPart(((a, a + room),), 0 if i else lost) for i, a in enumerate(starts)]


def picked(items: Sequence[int], part: ReadPart) -> list[int]:
    """The items in a window."""
    return [x for a, b in part.stretches for x in items[a:b]]


@dataclass(frozen=True)
class LongTexts:
    """How many texts are over the limit, and how many of their tokens are not read. windows: of the texts that are read in several."""

    texts: int
    windowed: int = 0
    windows: int = 0
    cut: int = 0
    left_out: int = 0
    tokens: int = 0

    def __str__(self) -> str:
        parts = []
        if self.windowed:
            parts.append(f"{self.windowed} of {self.texts} texts are read in windows, {self.windows} in all")
        if self.cut:
            share = 100 * self.left_out / (self.tokens + self.left_out)
            parts.append(
                f"{self.cut} of {self.texts} texts are truncated: {share:.3g}% of all tokens are not read"
            )
        return "; ".join(parts)


def long_texts(texts: Iterable[Tokens]) -> LongTexts:
    """Count the texts over the limit."""
    texts = list(texts)
    windowed = [t for t in texts if t.windows]
    return LongTexts(
        len(texts),
        len(windowed),
        sum(len(t.windows) for t in windowed),
        sum(t.left_out > 0 for t in texts),
        sum(t.left_out for t in texts),
        sum(map(len, texts)),
    )
