"""Texts that are longer than a base reads: refused, cut, or read in windows. T tokens of a text, W windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from onebase.codec.text.sample import Tokens

Cut = Literal["refuse", "head", "tail", "middle"]
Long = Literal["refuse", "head", "tail", "middle", "windows"]
"""What is done with a text beyond the limit: it is refused; its head, its tail, or both of its ends (`middle` is left out) are kept; or it is read in
windows, and what is read of them is averaged."""
WINDOWS = 16
"""Windows of a text at most; of a text with more the middle is left out."""


@dataclass(frozen=True)
class ReadPart:
    """The stretches of a text that are read, each [start, end) in its tokens, and how many tokens are in none."""

    stretches: tuple[tuple[int, int], ...]
    left_out: int = 0


def parts_of(size: int, room: int, long: Long) -> list[ReadPart]:
    """The windows of a text of `size` tokens, where one holds `room`: one of them, unless it is read in windows. Cut at the middle a window has two
    stretches. Not for `refuse`."""
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
    # Windows of like size weigh alike in a mean.
    count = min(-(-size // room), WINDOWS)
    if size <= count * room:
        ends = [size * i // count for i in range(count + 1)]
        return [ReadPart(((a, b),)) for a, b in pairwise(ends)]
    first = count - count // 2
    starts = [room * i for i in range(first)] + [size - room * i for i in range(count // 2, 0, -1)]
    lost = size - count * room
    return [ReadPart(((a, a + room),), 0 if i else lost) for i, a in enumerate(starts)]


def picked(items: Sequence[int], part: ReadPart) -> list[int]:
    """The items of a window."""
    return [x for a, b in part.stretches for x in items[a:b]]


@dataclass(frozen=True)
class LongTexts:
    """How many of some texts are longer than is read at once, and what of them is not read. windows: those of the texts that are read in several."""

    texts: int
    windowed: int = 0
    windows: int = 0
    cut: int = 0
    left_out: int = 0
    tokens: int = 0

    def __str__(self) -> str:
        said = []
        if self.windowed:
            said.append(f"{self.windowed} of {self.texts} texts are read in windows, {self.windows} in all")
        if self.cut:
            share = 100 * self.left_out / (self.tokens + self.left_out)
            said.append(f"{self.cut} of {self.texts} texts are cut: {share:.3g}% of all tokens are not read")
        return "; ".join(said)


def long_texts(texts: Iterable[Tokens]) -> LongTexts:
    """Count them."""
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
