"""Contrastive training of text vectors: pulls texts that belong together close, and pushes the others of the step away.

B pairs, C candidates, U different texts, T time, D width. InfoNCE (van den Oord et al., 1807.03748) over cosines, with the other pairs
of the step as negatives. Such a loss is not a sum over rows, so it does not add up over micro-batches: `whole_step` requests all rows of
a step at once. They are embedded chunk by chunk without storing activations, the loss is computed over all vectors, and each chunk is
read again for its gradient (GradCache, Gao et al., 2101.06983): the memory of one chunk, the gradient of the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.modality.text.pooling import EmbeddingConfig, pooled
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.padding import states
from onebase.objective.pooled import by_text, text_batch


@dataclass(frozen=True)
class Contrastive:
    """Each anchor must rank its positive first among all positives and negatives of the step. A row is [anchor, positive, negative ...].

    embedding: how a text becomes a vector. temperature: divides the cosines. symmetric: also ranks anchors for each positive, with the mean
    of both losses. chunk: texts embedded at a time. Raises ConfigError for an invalid temperature or chunk.
    """

    embedding: EmbeddingConfig
    temperature: float = 0.05
    symmetric: bool = False
    routing: AdapterRouting | None = None
    chunk: int = 32
    reserve: int = 0
    whole_step: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}", "give a number above 0, such as 0.05")
        if self.chunk < 1:
            raise ConfigError(f"chunk is {self.chunk}", "give at least 1 text at a time")

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        """Equal texts are read once; texts of similar length share a chunk. Targets are numbers of texts: [B] anchors, [C] candidates, the
        first B of which are the positives in the order of the rows."""
        different: dict[bytes, Tokens] = {}
        for row in rows:
            for text in row:
                different.setdefault(text.ids.tobytes(), text)
        ordered = sorted(different.items(), key=lambda item: len(item[1].ids))
        number = {key: i for i, (key, _) in enumerate(ordered)}
        texts = [text for _, text in ordered]
        candidates = [row[1] for row in rows] + [text for row in rows for text in row[2:]]
        starts = range(0, len(texts), self.chunk)
        return Batch(
            inputs={f"chunk {i}": text_batch(texts[i : i + self.chunk]) for i in starts},
            targets={
                "anchor": torch.tensor([number[row[0].ids.tobytes()] for row in rows]),
                "candidate": torch.tensor([number[text.ids.tobytes()] for text in candidates]),
            },
            counts={"contrastive": len(rows)},
            ids=tuple(row[0].id for row in rows),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        v_UD = chunk_vectors(base, list(batch.inputs.values()), self.embedding, self.routing)
        nats = info_nce(
            v_UD, batch.targets["anchor"], batch.targets["candidate"], self.temperature, self.symmetric
        )
        return {"contrastive": (nats, batch.counts["contrastive"])}


def chunk_vectors(
    base: BaseModel, chunks: Sequence[TrunkInput], embedding: EmbeddingConfig, routing: AdapterRouting | None
) -> Tensor:
    """The vectors of the texts of all chunks, [U, D], with the memory of one chunk."""

    def vectors(chunk: TrunkInput) -> Tensor:
        h_BTD = states(base, chunk, routing)
        return by_text(pooled(h_BTD, chunk.cols.doc >= 0, embedding), chunk, embedding)

    if len(chunks) == 1:  # reading it twice would save no memory
        return vectors(chunks[0])
    parts = [checkpoint(vectors, c, use_reentrant=False, preserve_rng_state=False) for c in chunks]
    return torch.cat(parts)


def info_nce(
    v_UD: Tensor, anchor_B: Tensor, candidate_C: Tensor, temperature: float, symmetric: bool = False
) -> Tensor:
    """Summed over the anchors: -log softmax of cosine(anchor, candidate) / temperature at the anchor's own positive, in nats.

    v: vectors of the different texts. anchor, candidate: the number of each one's text; the first B candidates are the anchors' positives.
    symmetric: the mean of this loss and that with anchors and positives swapped. Candidates known to belong to the anchor (`related`) are
    not negatives.
    """
    B = len(anchor_B)
    unit_UD = F.normalize(v_UD, dim=-1)
    z_BC = unit_UD[anchor_B] @ unit_UD[candidate_C].T / temperature
    z_BC = z_BC.masked_fill(related(anchor_B, candidate_C), -torch.inf)
    own_B = torch.arange(B, device=z_BC.device)
    nats = F.cross_entropy(z_BC, own_B, reduction="sum")
    if not symmetric:
        return nats
    return (nats + F.cross_entropy(z_BC[:, :B].T, own_B, reduction="sum")) / 2


def related(anchor_B: Tensor, candidate_C: Tensor) -> Tensor:
    """Bool [B, C]: the candidate is not a negative of the anchor, because it is the anchor's own text, or that of its positive, or the positive
    of an anchor with the same text. Never true for the row's own positive."""
    B = len(anchor_B)
    out_BC = candidate_C[None, :] == candidate_C[:B, None]
    out_BC |= candidate_C[None, :] == anchor_B[:, None]
    out_BC[:, :B] |= anchor_B[None, :] == anchor_B[:, None]
    return out_BC.fill_diagonal_(False)
