"""Trains tagging of tokens, by a head on the state of each. B texts, T time, D width, C tags."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onebase.base.model import BaseModel
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, count_sources
from onebase.objective.padding import states
from onebase.objective.pooled import text_batch


@dataclass(frozen=True)
class Tagging:
    """Cross-entropy of the tag of each token. A row is one text, possibly in windows; by text id `targets` has a tag for each token, IGNORE
    for begin and end tokens that the base adds."""

    head: str
    targets: dict[str, tuple[int, ...]]
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        read = text_batch(texts)
        tags_BT = torch.full(read.ids_BT.shape, IGNORE)
        b = 0
        for t in texts:
            tags = self.targets[t.id]
            assert len(tags) == len(t.ids)
            for own in torch.split(torch.tensor(tags), list(t.windows) or [len(tags)]):
                tags_BT[b, : len(own)] = own
                b += 1
        return Batch(
            inputs={"text": read},
            targets={"tag": tags_BT},
            counts={"tag": int((tags_BT != IGNORE).sum())},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read = batch.inputs["text"]
        h_BTD = states(base, read, self.routing)
        z_BTC = base.heads[self.head](h_BTD)
        wanted_N = batch.targets["tag"].flatten()
        loss = F.cross_entropy(z_BTC.flatten(0, 1), wanted_N, ignore_index=IGNORE, reduction="sum")
        return {"tag": (loss, batch.counts["tag"])}
