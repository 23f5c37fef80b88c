"""Runs the trunk over texts of unequal length with little padding. B texts, T the longest, R rows, D width."""

from collections.abc import Sequence

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import TrunkInput

FULL = 0.85
"""Above this ratio of shared rows to texts, the texts are read unpacked."""


def states(base: BaseModel, read: TrunkInput, routing: AdapterRouting | None) -> Tensor:
    """Hidden states [B, T, D] of rows of one text each, padded on the right; values at padding are arbitrary.

    In the trunk several short texts share a row, like packed documents: the mask separates them, and positions are those in the text. The
    result is the same to rounding, with half the work where texts are half as long as the longest.
    """
    lengths = (read.cols.doc >= 0).sum(1).tolist()
    B, T = read.ids_BT.shape
    rows = shared_rows(lengths, T)
    if len(rows) > FULL * B or not _may_share(base, read, routing):
        return whole(base, read, routing)
    device = read.ids_BT.device
    from_RT = torch.zeros(len(rows), T, dtype=torch.long)
    doc_RT = torch.full((len(rows), T), -1)
    back_BT = torch.zeros(B, T, dtype=torch.long)
    for r, texts in enumerate(rows):
        start = 0
        for n, b in enumerate(texts):
            end = start + lengths[b]
            from_RT[r, start:end] = torch.arange(b * T, b * T + lengths[b])
            doc_RT[r, start:end] = n
            back_BT[b, : lengths[b]] = torch.arange(r * T + start, r * T + end)
            start = end
    from_RT, doc_RT, back_BT = from_RT.to(device), doc_RT.to(device), back_BT.to(device)
    cols = Cols(read.cols.pos.flatten()[from_RT], doc_RT)
    types_RT = None if read.types_BT is None else read.types_BT.flatten()[from_RT]
    h_RTD = base.hidden(read.ids_BT.flatten()[from_RT], cols, routing=routing, types_BT=types_RT).hidden
    return h_RTD.flatten(0, 1).index_select(0, back_BT.flatten()).view(B, T, -1)


def whole(base: BaseModel, read: TrunkInput, routing: AdapterRouting | None) -> Tensor:
    """Hidden states [B, T, D] of rows as they are, with their media."""
    return base.hidden(
        read.ids_BT, read.cols, read.mask, routing=routing, types_BT=read.types_BT, media=read.media
    ).hidden


def shared_rows(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of texts, packed into rows of `room` tokens by first-fit decreasing: longest first, each into the first row with enough space."""
    rows: list[list[int]] = []
    left: list[int] = []
    for b in sorted(range(len(lengths)), key=lambda b: -lengths[b]):
        r = next((r for r, free in enumerate(left) if free >= lengths[b]), len(rows))
        if r == len(rows):
            rows.append([])
            left.append(room)
        rows[r].append(b)
        left[r] -= lengths[b]
    return rows


def _may_share(base: BaseModel, read: TrunkInput, routing: AdapterRouting | None) -> bool:
    """Whether rows may be packed: nothing applies to a whole row (virtual tokens, an adapter on some rows, blocks, a mask)."""
    whole = routing is None or all(rows is None for _, rows in routing.groups)
    plain = read.mask is None and read.cols.block is None
    return whole and plain and not any(base.virtual_counts(routing, len(read.ids_BT)))
