"""Trains extractive question answering, by a head on the state of each token. B rows, T time, D width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onebase.base.model import BaseModel
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.padding import states
from onebase.objective.pooled import one_text_batch


@dataclass(frozen=True)
class Extract:
    """Mean of the cross-entropies of the first and the last token of the answer, over the tokens of the text. A row is a question and a text;
    by id `targets` has the positions of the two tokens, `texts` those where the text begins and ends (exclusive)."""

    head: str
    targets: dict[str, tuple[int, int]]
    texts: dict[str, tuple[int, int]]
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        ids = [row[0].id for row in rows]
        places_B4 = torch.tensor([(*self.targets[i], *self.texts[i]) for i in ids])
        return one_text_batch(rows, "extract", places_B4, len(rows))

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read, places_B4 = batch.inputs["text"], batch.targets["extract"]
        z_BT2 = base.heads[self.head](states(base, read, self.routing))
        at_1T = torch.arange(z_BT2.shape[1], device=z_BT2.device)[None]
        outside_BT = (at_1T < places_B4[:, 2:3]) | (at_1T >= places_B4[:, 3:4])
        z_BT2 = z_BT2.masked_fill(outside_BT[..., None], -torch.inf)
        loss = sum(F.cross_entropy(z_BT2[..., k], places_B4[:, k], reduction="sum") for k in (0, 1))
        return {"extract": (torch.as_tensor(loss) / 2, batch.counts["extract"])}
