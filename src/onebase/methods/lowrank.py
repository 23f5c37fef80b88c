"""The LoRA module: a low-rank delta at one projection.

I inputs, O outputs, R rank.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.proj import Delta, Proj


class Lora(Delta):
    """x -> scaling * x A^T B^T (Hu et al., 2106.09685). B starts at zero, so a new adapter changes nothing."""

    def __init__(
        self, d_in: int, d_out: int, rank: int, scaling: float, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.a_RI = nn.Parameter(torch.empty(rank, d_in, device=device))
        self.b_OR = nn.Parameter(torch.zeros(d_out, rank, device=device))
        self.scaling = scaling

    @torch.no_grad()
    def reset(self, generator: torch.Generator, proj: Proj) -> None:
        """Initialise A as PEFT does: uniform with bound 1/sqrt(d_in) (Kaiming, a = sqrt 5)."""
        bound = 1 / math.sqrt(self.a_RI.shape[1])
        self.a_RI.copy_(torch.empty(self.a_RI.shape).uniform_(-bound, bound, generator=generator))
        self.b_OR.zero_()

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        return self.low(x)

    def low(self, x: Tensor) -> Tensor:
        """The low-rank product of x [..., I]: [..., O]."""
        return F.linear(F.linear(x, self.a_RI.to(x.dtype)) * self.scaling, self.b_OR.to(x.dtype))

    def whole(self, x: Tensor, proj: Proj) -> Tensor | None:
        """The whole projection as one autograd function, where LoRA is trained on a frozen matrix: it saves only x and the low-rank activations."""
        weight = proj.weight
        if (
            weight is None
            or weight.requires_grad
            or not torch.is_grad_enabled()
            or torch.compiler.is_compiling()
        ):
            return None
        dtype = x.dtype
        bias = None if proj.bias is None else proj.bias.to(dtype)
        y: Tensor = _LowRank.apply(  # type: ignore[no-untyped-call]
            x, weight.to(dtype), bias, self.a_RI.to(dtype), self.b_OR.to(dtype), self.scaling
        )
        return y

    def delta_OI(self) -> Tensor:
        """The full matrix of the low-rank product."""
        return self.scaling * (self.b_OR @ self.a_RI)

    def merged_OI(self, proj: Proj) -> Tensor:
        """The projection's matrix with the delta added: a new tensor in fp32, or in the weight's dtype if that is finer."""
        delta = self.delta_OI()
        return proj.matrix_OI(exact(proj)) + delta.to(exact(proj))


class _LowRank(torch.autograd.Function):
    """y = x W^T + bias + scaling * x A^T B^T, each product added to the one before it; W and the bias have no gradient. N rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_OI: Tensor, bias: Tensor | None, a_RI: Tensor, b_OR: Tensor, scaling: float
    ) -> Tensor:
        x_NI = x.flatten(0, -2)
        low_NR = (x_NI @ a_RI.T).mul_(scaling)
        y_NO = F.linear(x_NI, w_OI, bias).addmm_(low_NR, b_OR.T)
        ctx.save_for_backward(x, w_OI, a_RI, b_OR, low_NR)
        ctx.scaling = scaling
        return y_NO.view(*x.shape[:-1], len(w_OI))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        x, w_OI, a_RI, b_OR, low_NR = ctx.saved_tensors
        g_NO = upstream[0].flatten(0, -2)
        low_NR_grad = (g_NO @ b_OR).mul_(ctx.scaling)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (g_NO @ w_OI).addmm_(low_NR_grad, a_RI).view_as(x)
        return dx, None, None, low_NR_grad.T @ x.flatten(0, -2), g_NO.T @ low_NR, None


def exact(proj: Proj) -> torch.dtype:
    """fp32, or the weight's dtype where that is finer."""
    own = torch.float32 if proj.weight is None else proj.weight.dtype
    return torch.promote_types(own, torch.float32)
