"""Trains text classification, by a head on the pooled hidden state. B texts, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.pooled import How, one_text_batch, outputs


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the label. A row is one text; `targets` has the class number by text id."""

    head: str
    targets: dict[str, int]
    pooling: How = "last"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        targets = torch.tensor([self.targets[row[0].id] for row in rows])
        return one_text_batch(rows, "label", targets, len(rows))

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        z_BC = outputs(base, batch, self.head, self.pooling, self.routing)
        loss = F.cross_entropy(z_BC, batch.targets["label"], reduction="sum")
        return {"label": (loss, batch.counts["label"])}


@dataclass(frozen=True)
class MultiLabel:
    """Binary cross-entropy per label, the mean over texts and labels. A row is one text; `targets` has the label numbers by text id, of
    `labels` in total."""

    head: str
    targets: dict[str, tuple[int, ...]]
    labels: int
    pooling: How = "last"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        targets = marks([self.targets[row[0].id] for row in rows], self.labels)
        return one_text_batch(rows, "labels", targets, len(rows) * self.labels)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        z_BC = outputs(base, batch, self.head, self.pooling, self.routing)
        loss = F.binary_cross_entropy_with_logits(z_BC, batch.targets["labels"], reduction="sum")
        return {"labels": (loss, batch.counts["labels"])}


def marks(has: Sequence[Sequence[int]], labels: int) -> Tensor:
    """1 where a text has a label, fp32 [B, C]; `has`: the label numbers of each text."""
    out_BC = torch.zeros(len(has), labels)
    for b, numbers in enumerate(has):
        out_BC[b, list(numbers)] = 1.0
    return out_BC
