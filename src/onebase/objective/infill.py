"""Fill in the middle: some documents are trained on as prefix, suffix, then middle (Bavarian et al., 2207.14255).

The model learns to complete code between a given prefix and suffix, and still reads left to right everywhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onebase.base.model import BaseModel
from onebase.draws import Draws
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.next_token import packed_batch, text_loss


@dataclass(frozen=True)
class InfillMarks:
    """Ids of the three marker tokens."""

    prefix: int
    middle: int
    suffix: int


def infill(piece: Tokens, marks: InfillMarks, draws: Draws) -> Tokens:
    """BOS <prefix> p <suffix> s <middle> m END: three tokens longer, same text, cut at two random positions.

    The first token (BOS) stays first and the last (EOS, or the piece's end) last, so the middle ends where the document ends and the model
    learns to stop. The markers are never targets.
    """
    body, last = piece.ids[1:-1], piece.ids[-1:]
    body_loss, last_loss = piece.loss[1:-1], piece.loss[-1:]
    i, j = sorted(draws.below(len(body) + 1, 2).tolist())
    parts = [
        (piece.ids[:1], piece.loss[:1]),
        (np.array([marks.prefix]), np.array([False])),
        (body[:i], body_loss[:i]),
        (np.array([marks.suffix]), np.array([False])),
        (body[j:], body_loss[j:]),
        (np.array([marks.middle]), np.array([False])),
        (body[i:j], body_loss[i:j]),
        (last, last_loss),
    ]
    ids = np.concatenate([p[0] for p in parts]).astype(np.int32)
    return replace(piece, ids=ids, loss=np.concatenate([p[1] for p in parts]).astype(bool))


@dataclass(frozen=True)
class Infill:
    """Next-token prediction where a share `rate` of the pieces of `sources` (empty: all) is rearranged by `infill`."""

    length: int
    marks: InfillMarks
    rate: float = 0.5
    sources: tuple[str, ...] = ()
    seed: int = 0
    routing: AdapterRouting | None = None
    reserve: int = 3

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        turned = [self.turned(row, first + i) for i, row in enumerate(rows)]
        return packed_batch("next_token", turned, self.length)

    def turned(self, row: Row, number: int) -> list[Tokens]:
        """The pieces of the row with this global number, as they are trained on."""
        # The row's global number is the seed, so ranks, workers and micro-batches do not change the result.
        draws = Draws(self.seed, "infill", number)
        out = []
        for piece in row:
            chosen = float(draws.uniform(1)[0]) < self.rate and len(piece.ids) > 4
            fits = not self.sources or piece.source in self.sources
            out.append(infill(piece, self.marks, draws) if chosen and fits else piece)
        return out

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return {"next_token": text_loss(base, batch, "next_token", self.routing)}
