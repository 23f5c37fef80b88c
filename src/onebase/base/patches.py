"""Patches of media among the tokens of rows. N patches, P values of a patch, K coordinates, B batch, T time, D width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from onebase.modality.patches.modules import PatchModule
from onebase.modality.text.sample import Media
from onebase.model.mask import Cols


@dataclass(frozen=True)
class Patches:
    """The patches of one codec in a batch: their values, coordinates and times (1: clean), and the place of each, b * T + t."""

    patch_NP: Tensor
    at_NK: Tensor
    t_N: Tensor
    place_N: Tensor

    def to(self, device: torch.device) -> "Patches":
        return Patches(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def with_patches(ends: Mapping[str, PatchModule], x_BTD: Tensor, media: Mapping[str, Patches]) -> Tensor:
    """`x` with the vectors of patches in their places. Where gradients are taken a codec without patches runs on none, so that the gradient of
    its weights is zero and not missing."""
    B, T, D = x_BTD.shape
    places, vectors = [], []
    for name, module in ends.items():
        if (found := media.get(name)) is None and not torch.is_grad_enabled():
            continue
        found = nothing(module, x_BTD.device) if found is None else found
        vectors.append(module.embed(found.patch_NP, found.at_NK, found.t_N, x_BTD.dtype))
        places.append(found.place_N)
    if not vectors:
        return x_BTD
    return x_BTD.reshape(-1, D).index_copy(0, torch.cat(places), torch.cat(vectors)).reshape(B, T, D)


def with_media(
    cols: Cols, media: Sequence[Sequence[Media]], first: Sequence[int]
) -> tuple[Cols, dict[str, Patches]]:
    """Columns [B, T] of rows of one document, with the media of each row (clean) in their places, and the patches by codec. first: the place of each
    row's first token. The columns have no groups: `grouped` fills them in."""
    T, device = cols.shape[1], cols.pos.device
    pos, block = cols.pos.clone(), torch.full_like(cols.pos, -1)
    parts: dict[str, list[Patches]] = {}
    for b, row in enumerate(media):
        for n, m in enumerate(row):
            start = first[b] + m.start
            stop = start + len(m)
            pos[b, start:stop] = pos[b, start].clone()
            pos[b, stop:] -= len(m) - 1
            block[b, start:stop] = n
            patch_NP, at_NK = (torch.from_numpy(x).to(device) for x in m.content.load())
            clean = torch.ones(len(m), device=device)
            place = b * T + torch.arange(start, stop, device=device)
            parts.setdefault(m.kind, []).append(Patches(patch_NP, at_NK, clean, place))
    joined = {
        name: Patches(*(torch.cat([getattr(p, f.name) for p in found]) for f in fields(Patches)))
        for name, found in parts.items()
    }
    return Cols(pos, cols.doc, block), joined


def grouped(cols: Cols, media: Mapping[str, Patches], groups: Mapping[str, int]) -> Cols:
    """The columns with the feed-forward group of each patch, where they do not have it. groups: the number of each codec's group."""
    if cols.kind is not None or not media:
        return cols
    kind = torch.zeros_like(cols.pos).flatten()
    for name, found in media.items():
        kind[found.place_N] = groups[name]
    return replace(cols, kind=kind.view_as(cols.pos))


def nothing(module: PatchModule, device: torch.device) -> Patches:
    """No patches of a codec."""
    none = torch.empty(0, device=device)
    return Patches(
        none.reshape(0, module.cfg.values), none.reshape(0, module.cfg.axes).long(), none, none.long()
    )
