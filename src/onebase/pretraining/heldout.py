"""Held-out documents of a run, and their bits per byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a recipe is read without torch
    import numpy as np
    from numpy.typing import NDArray

    from onebase.base.folder import LoadedBase
    from onebase.data.sources import Document
    from onebase.evaluation.bootstrap import Score
    from onebase.evaluation.likelihood import DocumentIds
    from onebase.modality.text.sample import Tokens


@dataclass(frozen=True)
class Heldout:
    """Held-out documents by source, tokens per row, and the total of tokens to score. known, media: caches of tokenised documents by source, of text and
    with media (None: they do not fit), shared by all scores of a run. ranks: what several scores of one evaluation share."""

    documents: Mapping[str, Sequence[Document]]
    length: int
    tokens: int
    known: dict[str, list[DocumentIds]] = field(default_factory=dict)
    media: dict[str, dict[int, Tokens | None]] = field(default_factory=dict)
    ranks: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def read(self, base: LoadedBase, source: str) -> list[DocumentIds]:
        """The documents of a source as tokens, up to its even share of `tokens`; each is tokenised once."""
        from onebase.evaluation.likelihood import document_ids

        known, total = self.known.setdefault(source, []), 0
        for n, document in enumerate(self.documents[source]):
            if n == len(known):
                known += document_ids(base, [document])
            total += len(known[n].ids)
            if total >= self.tokens // len(self.documents):
                return known[: n + 1]
        return known[:]


def bits_per_byte(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Bits per byte of each source, by next-token prediction; the tokens are shared evenly by the sources."""
    from onebase.evaluation.likelihood import by_source, nats_of

    nats = []
    for source, documents in held.documents.items():
        if documents:
            nats += nats_of(base, held.read(base, source), length=held.length)
    return by_source(nats)
