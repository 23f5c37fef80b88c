"""Trains distances of residues, in bins, by a head on pairs of their states. B texts, L residues of the longest, D width, C bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.base.pairs import PairHead
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, count_sources
from onebase.objective.padding import states
from onebase.objective.pooled import text_batch

Bins = NDArray[np.int8]
"""The bin of each pair of residues, [L, L]; IGNORE where the distance is not known or not learnt."""


@dataclass(frozen=True)
class PairDistances:
    """Cross-entropy of the bin of each pair of residues. A row is one protein, read as a whole text; `targets` has its bins by its id. before: tokens that the
    base puts before the residues. known: states of the residues by id, [L, D], where the trunk does not change."""

    head: str
    targets: Mapping[str, Bins]
    before: int = 1
    routing: AdapterRouting | None = None
    known: Mapping[str, Tensor] = field(default_factory=dict)
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        bins = [torch.from_numpy(self.targets[t.id]) for t in texts]
        L = max(map(len, bins))
        bins_BLL = torch.stack([F.pad(x, (0, L - len(x), 0, L - len(x)), value=IGNORE) for x in bins])
        return Batch(
            inputs={"text": text_batch(texts)},
            targets={"distance": bins_BLL},
            counts={"distance": int((bins_BLL != IGNORE).sum())},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        bins_BLL = batch.targets["distance"]
        L = bins_BLL.shape[1]
        if self.known:
            each = [self.known[i] for i in batch.ids]
            h_BLD = torch.stack([F.pad(h, (0, 0, 0, L - len(h))) for h in each]).to(bins_BLL.device)
        else:
            h_BTD = states(base, batch.inputs["text"], self.routing)
            h_BLD = h_BTD[:, self.before : self.before + L]
        head = base.heads[self.head]
        assert isinstance(head, PairHead)
        loss = F.cross_entropy(head.pairs(h_BLD), bins_BLL.long(), ignore_index=IGNORE, reduction="sum")
        return {"distance": (loss, batch.counts["distance"])}


def separation_counts(targets: Sequence[Bins], classes: Sequence[Tensor], bins: int, sizes: int) -> Tensor:
    """How often each bin occurs at each class of separation, fp32 [S, C]; classes: of each protein's pairs, [L, L]."""
    out_SC = torch.zeros(sizes, bins)
    for known_LL, class_LL in zip(targets, classes, strict=True):
        bin_LL = torch.from_numpy(known_LL).long()
        seen_N = bin_LL != IGNORE
        out_SC.index_put_((class_LL[seen_N], bin_LL[seen_N]), torch.ones(()), accumulate=True)
    return out_SC
