"""Trains regression of a number from a text, by a head on the pooled hidden state. B texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onebase.base.model import BaseModel
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.pooled import How, one_text_batch, outputs


@dataclass(frozen=True)
class Regression:
    """Huber loss of standardised values (Huber, 1964): squared up to 1, one standard deviation of the training values, and linear beyond, so
    that outliers do not dominate. A row is one text; `targets` has the value by text id."""

    head: str
    targets: dict[str, float]
    pooling: How = "both"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        targets = torch.tensor([self.targets[row[0].id] for row in rows], dtype=torch.float32)
        return one_text_batch(rows, "value", targets, len(rows))

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        z_B = outputs(base, batch, self.head, self.pooling, self.routing)[:, 0]
        return {"value": (F.huber_loss(z_B, batch.targets["value"], reduction="sum"), batch.counts["value"])}
