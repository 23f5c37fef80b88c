"""Text pairs in one sequence: the special tokens around and between them, and truncation to a limit."""

from dataclasses import dataclass

import tokenizers

from onebase.modality.text.roles import Roles
from onebase.modality.text.tokenizer import Tokenizer

Typed = tuple[tuple[int, int], ...]
"""(id, type) of each token."""


@dataclass(frozen=True)
class PairFrame:
    """The tokens around and between two texts, and the type of each text (BERT: 0 and 1)."""

    before: Typed
    between: Typed
    after: Typed
    types: tuple[int, int] = (0, 1)

    @property
    def size(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def framed(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """(ids, types) of the sequence for two texts, given by their ids."""
        a, b = self.types
        parts = (
            *self.before,
            *((i, a) for i in first),
            *self.between,
            *((i, b) for i in second),
            *self.after,
        )
        return [i for i, _ in parts], [t for _, t in parts]


def pair_frame(tokenizer: Tokenizer) -> PairFrame:
    """The frame that the tokenizer's post-processor uses; without one, each text is framed as a single text."""
    inner = tokenizer.inner
    return (inner.post_processor is not None and _seen(inner)) or _alone(tokenizer, tokenizer.roles)


def _seen(inner: tokenizers.Tokenizer) -> PairFrame | None:
    """The frame, read off an encoded pair of short texts; None where these have no tokens to identify them by."""
    encoding = inner.encode("a", "a")
    of, typed = encoding.sequence_ids, list(zip(encoding.ids, encoding.type_ids, strict=True))
    if 0 not in of or 1 not in of:
        return None
    first, second, ends = of.index(0), of.index(1), len(of)
    last = max(i for i, x in enumerate(of) if x == 0)
    final = max(i for i, x in enumerate(of) if x == 1)
    return PairFrame(
        tuple(typed[:first]),
        tuple(typed[last + 1 : second]),
        tuple(typed[final + 1 : ends]),
        (typed[first][1], typed[second][1]),
    )


def _alone(tokenizer: Tokenizer, roles: Roles) -> PairFrame:
    before, after = (
        tuple((tokenizer.id_of(name), 0) for name in names) for names in (roles.before, roles.after)
    )
    return PairFrame(before, (*after, *before), after, (0, 0))


def cut_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept so that both fit in `room`: the longer one is truncated first, until both have equal length."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)
