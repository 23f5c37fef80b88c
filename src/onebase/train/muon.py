"""Muon: momentum orthogonalised by Newton-Schulz (Jordan 2024, https://kellerjordan.github.io/posts/muon/), as torch.optim.Muon.

The rule, the state and its name are torch's. The number format of Newton-Schulz differs: torch always multiplies in bf16, and a chip without native
bf16 emulates it, a hundred times slower than fp32. Here such a chip uses fp32; with native bf16 the result equals torch's bit for bit.
R rows, C columns, N matrices of one shape.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from onebase.model.device import has_bf16
from onebase.train.parallel import is_split

A, B, C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan's post
EPS = 1e-7
SMALL = 50_000
"""Elements of a matrix below which matrices of one shape are batched in fp32: 192 x 192 or less does not fill two cores. Larger ones are as fast
one by one, which needs less memory."""


def newton_schulz_dtype(device: torch.device) -> torch.dtype:
    """bf16 if the chip supports it, else fp32. Not decided by measurement, because it affects the trained weights."""
    return torch.bfloat16 if has_bf16(device) else torch.float32


def orthogonal(x: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Approximate U V^T of x = U S V^T, [R, C] or [N, R, C] like x, in `dtype`: singular values end between 0.7 and 1.2, which suffices."""
    tall = x.shape[-2] > x.shape[-1]
    o = x.to(dtype)
    if tall:
        o = o.mT
    size = o.norm() if o.ndim == 2 else torch.linalg.vector_norm(o, dim=(-2, -1), keepdim=True)
    o = o / size.clamp(min=EPS)
    add = torch.addmm if o.ndim == 2 else torch.baddbmm
    for _ in range(steps):
        gram = o @ o.mT
        o = add(o, add(gram, gram, gram, beta=B, alpha=C), o, beta=A)
    return o.mT if tall else o


class Muon(torch.optim.Optimizer):
    """Muon for matrices only. dtype: format of Newton-Schulz; momentum and weights keep theirs."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        ns_steps: int,
        dtype: torch.dtype,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "ns_steps": ns_steps}
        super().__init__(params, defaults)
        assert all(p.ndim == 2 for g in self.param_groups for p in g["params"]), "Muon is for matrices"
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # the loop gives no closure
        for group in self.param_groups:
            options = (group["ns_steps"], self.dtype)
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = self._momentum(p, group["momentum"])
                if self.dtype == torch.float32 and p.numel() < SMALL and not is_split(p):
                    by_shape[p.shape].append((p, update))
                else:
                    _move(p, orthogonal(update, *options), group)
            for pairs in by_shape.values():
                o_NRC = orthogonal(torch.stack([u for _, u in pairs]), *options)
                for (p, _), o in zip(pairs, o_NRC, strict=True):
                    _move(p, o, group)

    def _momentum(self, p: nn.Parameter, momentum: float) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        kept: Tensor = state["momentum_buffer"]
        kept.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(kept, momentum)


def _move(p: nn.Parameter, direction: Tensor, group: dict[str, float]) -> None:
    """Update the weights; the step is larger for tall matrices, so that every matrix changes its output by about as much."""
    rows, columns = p.shape
    p.mul_(1 - group["lr"] * group["weight_decay"])
    p.add_(direction, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))
