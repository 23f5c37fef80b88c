"""Trains a reward model on preferences, so that chosen answers get larger numbers than rejected ones. n pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onebase.base.model import BaseModel
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, count_sources
from onebase.objective.pooled import How, outputs, text_batch


@dataclass(frozen=True)
class PairwiseReward:
    """Bradley and Terry, 1952: -log of the probability that the chosen answer wins, sigmoid(its reward - the other's), in nats. A row is
    [chosen, rejected]; rewards are the outputs of `head`, which has one output."""

    head: str
    pooling: How = "both"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [text for row in rows for text in row]
        return Batch(
            inputs={"text": text_batch(texts)},
            targets={},
            counts={"reward": len(rows)},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        z_n2 = outputs(base, batch, self.head, self.pooling, self.routing).view(-1, 2)
        lost: torch.Tensor = -F.logsigmoid(z_n2[:, 0] - z_n2[:, 1]).sum()
        return {"reward": (lost, batch.counts["reward"])}
