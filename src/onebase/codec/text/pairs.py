"""Two texts read as one: what a tokenizer puts around and between them, and how both are cut to a limit."""

from dataclasses import dataclass

import tokenizers

from onebase.codec.text.roles import Roles
from onebase.codec.text.tokenizer import Tokenizer

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
        """Tokens beside those of the texts."""
        return len(self.before) + len(self.between) + len(self.after)

    def framed(self, first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
        """(ids, types) of two texts by their ids."""
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
    """As the tokenizer's own post-processor frames two texts; without one each is framed as a text alone."""
    inner = tokenizer.inner
    return (inner.post_processor is not None and _seen(inner)) or _alone(tokenizer, tokenizer.roles)


def _seen(inner: tokenizers.Tokenizer) -> PairFrame | None:
    """What it does to a pair of short texts; None where these have no tokens to tell them by."""
    found = inner.encode("a", "a")
    of, typed = found.sequence_ids, list(zip(found.ids, found.type_ids, strict=True))
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
    """How many tokens of two texts are kept where both must fit in `room`: the longer one loses first, until they are of one length."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)
