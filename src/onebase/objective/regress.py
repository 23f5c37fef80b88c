"""Predict a number from a text, by a head on its pooled hidden state. B texts, T time, D width."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onebase.base.model import BaseModel
from onebase.model.proj import Active
from onebase.objective.base import Batch, Losses, Row, count_sources
from onebase.objective.label import Pooling, pool, text_batch


@dataclass(frozen=True)
class Value:
    """Huber loss of standardised values (Huber, 1964): squared up to 1, that is one standard deviation of the training values, and
    linear beyond, so that single far-off values do not rule. A row is one text; `targets` gives the value of each text id."""

    head: str
    targets: dict[str, float]
    pooling: Pooling = "both"
    active: Active | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        return Batch(
            inputs={"text": text_batch(texts)},
            targets={"value": torch.tensor([self.targets[t.id] for t in texts], dtype=torch.float32)},
            counts={"value": len(texts)},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read = batch.inputs["text"]
        h_BTD = base.hidden(read.ids_BT, read.cols, active=self.active).hidden
        z_B = base.heads[self.head](pool(h_BTD, read.cols.doc, self.pooling))[:, 0]
        return {"value": (F.huber_loss(z_B, batch.targets["value"], reduction="sum"), batch.counts["value"])}
