"""Supervised contrastive training: pulls vectors of texts with the same label together, and pushes those of other labels away.

B texts, D width, T time. The supervised contrastive loss (Khosla et al., 2004.11362, with the sum outside the logarithm) over the texts of a
step. SetFit (Tunstall et al., 2209.11055) found that few labelled texts suffice to train a sentence encoder so. The loss is not a sum over
rows: as in `objective.contrastive`, all rows of a step are one batch, read chunk by chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, count_sources
from onebase.objective.contrastive import chunk_vectors
from onebase.objective.pooled import text_batch


@config
class ContrastConfig:
    """first: train vectors contrastively, then fit the head on them. temperature: divides the cosines."""

    first: bool = False
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"'contrast.temperature' is {self.temperature}", "give a number above 0")


@dataclass(frozen=True)
class SupervisedContrast:
    """A row is one text; `targets` has the class number by text id. embedding: how a text becomes a vector; chunk: texts read at a time."""

    embedding: EmbeddingConfig
    targets: dict[str, int]
    temperature: float = 0.1
    routing: AdapterRouting | None = None
    chunk: int = 32
    reserve: int = 0
    whole_step: bool = True

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = sorted((row[0] for row in rows), key=len)
        targets_B = torch.tensor([self.targets[t.id] for t in texts])
        same_BB = (targets_B[:, None] == targets_B).fill_diagonal_(False)
        starts = range(0, len(texts), self.chunk)
        return Batch(
            inputs={f"chunk {i}": text_batch(texts[i : i + self.chunk]) for i in starts},
            targets={"grouped": targets_B},
            counts={"grouped": int(same_BB.any(1).sum())},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        v_BD = chunk_vectors(base, list(batch.inputs.values()), self.embedding, self.routing)
        nats = supervised_contrast(v_BD, batch.targets["grouped"], self.temperature)
        return {"grouped": (nats, batch.counts["grouped"])}


def supervised_contrast(v_BD: Tensor, target_B: Tensor, temperature: float) -> Tensor:
    """Summed over texts with others of their label in the step: the mean, over these others, of -log softmax of cosine / temperature among all
    other texts, in nats."""
    unit_BD = F.normalize(v_BD, dim=-1)
    own_BB = torch.eye(len(v_BD), dtype=torch.bool, device=v_BD.device)
    z_BB = (unit_BD @ unit_BD.T / temperature).masked_fill(own_BB, -torch.inf)
    logp_BB = z_BB.log_softmax(-1)
    same_BB = (target_B[:, None] == target_B) & ~own_BB
    # A text without another of its label contributes 0.
    return -(logp_BB.masked_fill(~same_BB, 0.0).sum(1) / same_BB.sum(1).clamp(min=1)).sum()
