"""Classify a text by a head on its pooled hidden state. B texts, T time, D width, P pooled features, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.codec.text.sample import Tokens
from onebase.model.mask import Cols
from onebase.model.proj import Active
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources

Pooling = Literal["last", "mean", "both", "all"]


def pool(h_BTD: Tensor, doc_BT: Tensor, how: Pooling) -> Tensor:
    """One fp32 vector a text, [B, P]: its last token's state, the mean over its tokens, the two beside each other, or those and
    the largest value of each channel over its tokens."""
    valid_BT1 = (doc_BT >= 0)[..., None]
    h_BTD = h_BTD.float()
    last_B = valid_BT1[..., 0].sum(1) - 1
    last_BD = h_BTD[torch.arange(len(last_B), device=h_BTD.device), last_B]
    if how == "last":
        return last_BD
    mean_BD = (h_BTD * valid_BT1).sum(1) / valid_BT1.sum(1).clamp(min=1)
    if how == "mean":
        return mean_BD
    if how == "both":
        return torch.cat((last_BD, mean_BD), -1)
    most_BD = h_BTD.masked_fill(~valid_BT1, -torch.inf).amax(1)
    return torch.cat((last_BD, mean_BD, most_BD), -1)


def narrowed(x_NP: Tensor, how: Pooling) -> Tensor:
    """What `pool` would have given with `how`, from what it gave with "all"."""
    width = x_NP.shape[1] // 3
    kept = {
        "last": slice(0, width),
        "mean": slice(width, 2 * width),
        "both": slice(0, 2 * width),
        "all": slice(None),
    }
    return x_NP[:, kept[how]]


def text_batch(texts: Sequence[Tokens]) -> TrunkInput:
    """Texts as rows of one document each, padded on the right."""
    lengths = torch.tensor([len(t.ids) for t in texts])
    length = int(lengths.max())
    ids_BT = torch.zeros(len(texts), length, dtype=torch.long)
    for b, t in enumerate(texts):
        ids_BT[b, : len(t.ids)] = torch.from_numpy(t.ids.astype("int64"))
    return TrunkInput(ids_BT, Cols.padded(lengths, length))


@dataclass(frozen=True)
class Label:
    """Cross-entropy of the label. A row is one text; `targets` gives the class number of each text id."""

    head: str
    targets: dict[str, int]
    pooling: Pooling = "last"
    active: Active | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        return Batch(
            inputs={"text": text_batch(texts)},
            targets={"label": torch.tensor([self.targets[t.id] for t in texts])},
            counts={"label": len(texts)},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read = batch.inputs["text"]
        h_BTD = base.hidden(read.ids_BT, read.cols, active=self.active).hidden
        z_BC = base.heads[self.head](pool(h_BTD, read.cols.doc, self.pooling))
        return {
            "label": (F.cross_entropy(z_BC, batch.targets["label"], reduction="sum"), batch.counts["label"])
        }


@dataclass(frozen=True)
class ManyLabels:
    """Binary cross-entropy of each label by itself, the mean over texts and labels. A row is one text; `targets` gives the numbers of the
    labels that each text id has, of `labels` in all."""

    head: str
    targets: dict[str, tuple[int, ...]]
    labels: int
    pooling: Pooling = "last"
    active: Active | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        return Batch(
            inputs={"text": text_batch(texts)},
            targets={"labels": marks([self.targets[t.id] for t in texts], self.labels)},
            counts={"labels": len(texts) * self.labels},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read = batch.inputs["text"]
        h_BTD = base.hidden(read.ids_BT, read.cols, active=self.active).hidden
        z_BC = base.heads[self.head](pool(h_BTD, read.cols.doc, self.pooling))
        loss = F.binary_cross_entropy_with_logits(z_BC, batch.targets["labels"], reduction="sum")
        return {"labels": (loss, batch.counts["labels"])}


def marks(has: Sequence[Sequence[int]], labels: int) -> Tensor:
    """1 where a text has a label, fp32 [B, C]; `has`: the label numbers of each text."""
    out_BC = torch.zeros(len(has), labels)
    for b, numbers in enumerate(has):
        out_BC[b, list(numbers)] = 1.0
    return out_BC
