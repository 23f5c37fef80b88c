"""What learning one kind of text did to another: bits per byte of the same documents before and after."""

import math
from collections.abc import Sequence
from dataclasses import replace

from onebase.evaluation.bootstrap import Score, paired_difference
from onebase.evaluation.likelihood import DocumentNats, by_source

DOMAIN, GENERAL = "domain", "general"
"""Sources of documents: what was learnt, and what should not be forgotten over it."""


def changes(
    before: Sequence[DocumentNats], after: Sequence[DocumentNats], *, seed: int = 0
) -> dict[str, Score]:
    """Bits per byte of each source before and after, and the change with its paired interval over documents; below 0 the text became
    likelier. The change of general text is called forgetting. Both are of the same documents in the same order."""
    out: dict[str, Score] = {}
    old, new = by_source(before, seed=seed), by_source(after, seed=seed)
    for source in new:
        pairs = [(a, b) for a, b in zip(before, after, strict=True) if b.source == source]
        change = paired_difference(
            [b.nats / math.log(2) for _, b in pairs],
            [a.nats / math.log(2) for a, _ in pairs],
            weights=[b.bytes for _, b in pairs],
            name="forgetting" if source == GENERAL else f"{source}_change",
            seed=seed,
        )
        names = f"{source}_bits_per_byte_before", f"{source}_bits_per_byte"
        for name, score in zip(names, (old[source], new[source]), strict=True):
            out[name] = replace(score, name=name)
        out[change.name] = change
    return out
