"""Rows of all processes in one tensor, with their gradient. b rows of one process, B of all."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gathered(x: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes in the order of their ranks, [B, ...], and the number of this one's first. Each process must have as many. The
    gradient of a row is the sum of what all processes' losses give it. With one process: the rows as they are."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x, 0
    whole: Tensor = _Gathered.apply(x)  # type: ignore[no-untyped-call]
    return whole, dist.get_rank() * len(x)
