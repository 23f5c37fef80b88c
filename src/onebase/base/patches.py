"""Patches of media among the tokens of rows. N patches, P values of a patch, K coordinates, B batch, T time, D width."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from onebase.modality.patches.modules import PatchModule


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


def nothing(module: PatchModule, device: torch.device) -> Patches:
    """No patches of a codec."""
    none = torch.empty(0, device=device)
    return Patches(
        none.reshape(0, module.cfg.values), none.reshape(0, module.cfg.axes).long(), none, none.long()
    )
