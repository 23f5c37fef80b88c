"""Tensors that are split over processes (DTensor), and whole ones. What defines them takes a second to import: only a sharded run does."""

import sys
from typing import Any

from torch import Tensor


def whole(t: Tensor) -> Tensor:
    """All of a tensor. A collective where it is split: every rank must call it."""
    if not is_split(t):
        return t
    found: Tensor = t.full_tensor()  # type: ignore[attr-defined]
    return found


def split_like(t: Tensor, like: Tensor) -> Tensor:
    """A whole tensor split as another one is; itself, on the other's device, where that is not split."""
    t = t.to(like.device)
    if not is_split(like):
        return t
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    return distribute_tensor(t, sharded.device_mesh, sharded.placements)


def is_split(t: Tensor) -> bool:
    """Whether a tensor is split over processes. There are none before their module is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(t, module.DTensor)
