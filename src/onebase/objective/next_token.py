"""Next-token prediction over packed rows. B rows, T time, D width, V vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.errors import DataError
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.cross_entropy import linear_cross_entropy


def pack_rows(rows: Sequence[Row], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ids, targets, positions and documents, each int64 [B, length].

    Every piece predicts its own next tokens only; a token whose `loss` is False is read but never a target.
    """
    B = len(rows)
    ids, targets = np.zeros((B, length), np.int64), np.full((B, length), IGNORE, np.int64)
    pos, doc = np.zeros((B, length), np.int64), np.full((B, length), -1, np.int64)
    for b, row in enumerate(rows):
        at = 0
        for d, piece in enumerate(row):
            n = len(piece.ids)
            if at + n > length:
                raise DataError(f"a row of {at + n} tokens does not fit in {length}", "pack at this length")
            ids[b, at : at + n] = piece.ids
            targets[b, at : at + n - 1] = np.where(piece.loss[1:], piece.ids[1:], IGNORE)
            pos[b, at : at + n], doc[b, at : at + n] = np.arange(n), d
            at += n
    return ids, targets, pos, doc


def packed_batch(name: str, rows: Sequence[Row], length: int) -> Batch:
    """A batch of rows for the text trunk, for the loss `name`."""
    ids, targets, pos, doc = pack_rows(rows, length)
    single = bool((doc == 0).all())
    cols = Cols(torch.from_numpy(pos), torch.from_numpy(doc), single=single)
    return Batch(
        inputs={"text": TrunkInput(torch.from_numpy(ids), cols)},
        targets={name: torch.from_numpy(targets)},
        counts={name: int((targets != IGNORE).sum())},
        ids=tuple(piece.id for row in rows for piece in row),
        sources=count_sources(rows),
    )


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of each supervised token given those before it in its document."""

    length: int
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        return packed_batch("next_token", rows, self.length)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return {"next_token": text_loss(base, batch, "next_token", self.routing)}


def text_loss(base: BaseModel, batch: Batch, name: str, routing: AdapterRouting | None) -> tuple[Tensor, int]:
    """Sum of the negative log-probabilities (nats) of the targets `name`, and their count."""
    read = batch.inputs["text"]
    h_BTD = base.hidden(read.ids_BT, read.cols, read.mask, routing=routing).hidden
    return states_loss(base, h_BTD, batch.targets[name], batch.counts[name], routing), batch.counts[name]


def states_loss(
    base: BaseModel, h_BTD: Tensor, targets_BT: Tensor, count: int, routing: AdapterRouting | None
) -> Tensor:
    """Sum of the negative log-probabilities (nats) of `count` targets by the trunk's states."""
    h_BTD, totals = base.text.ready(h_BTD), []
    for rows, head in base.text.head_weights(routing, len(h_BTD)):
        h_ND, targets_N = h_BTD[rows].flatten(0, 1), targets_BT[rows].flatten()
        if 2 * count < targets_BT.numel():  # mostly prompt or padding: logits of the supervised only
            used = (targets_N != IGNORE).nonzero()[:, 0]
            h_ND, targets_N = h_ND[used], targets_N[used]
        total, _ = linear_cross_entropy(
            h_ND,
            head,
            targets_N,
            softcap=base.text.cfg.softcap,
            bias=base.text.head.bias,
            fast=base.compiled,
        )
        totals.append(total)
    return torch.stack(totals).sum()
