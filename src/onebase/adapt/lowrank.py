"""The modules of LoRA: a low-rank delta at one projection, and DoRA's, which also learns how long each output's row is.

I inputs, O outputs, R rank.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.kernels.weight_cache import WeightCache, place
from onebase.model.proj import Delta, Proj


class Lora(Delta):
    """x -> scaling * x A^T B^T (Hu et al., 2106.09685). B starts at zero, so a fresh adapter changes nothing."""

    def __init__(
        self, d_in: int, d_out: int, rank: int, scaling: float, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.a_RI = nn.Parameter(torch.empty(rank, d_in, device=device))
        self.b_OR = nn.Parameter(torch.zeros(d_out, rank, device=device))
        self.scaling = scaling

    @torch.no_grad()
    def reset(self, generator: torch.Generator, proj: Proj) -> None:
        """A as PEFT starts it: uniform with bound 1/sqrt(d_in) (Kaiming, a = sqrt 5)."""
        bound = 1 / math.sqrt(self.a_RI.shape[1])
        self.a_RI.copy_(torch.empty(self.a_RI.shape).uniform_(-bound, bound, generator=generator))
        self.b_OR.zero_()

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        return self.low(x)

    def low(self, x: Tensor) -> Tensor:
        """The low-rank product of x [..., I]: [..., O]."""
        return F.linear(F.linear(x, self.a_RI.to(x.dtype)) * self.scaling, self.b_OR.to(x.dtype))

    def whole(self, x: Tensor, proj: Proj) -> Tensor | None:
        """As one function where it learns on a matrix that does not: of its steps only x and the few numbers between A and B are kept."""
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
        """The projection's matrix with the adapter in it, a new tensor in fp32 or the weight's own if that is finer."""
        delta = self.delta_OI()
        return proj.matrix_OI(_exact(proj)) + delta.to(_exact(proj))


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


class Dora(Lora):
    """DoRA (2402.09353): W' = m (W + delta) / ||W + delta||, row by row; `m_O` is learnt and starts as the length of W's rows.

    As in the paper (section 4.3) no gradient goes through the norm. A row of zeros has no direction: there nothing is scaled.
    """

    def __init__(
        self, d_in: int, d_out: int, rank: int, scaling: float, device: torch.device | None = None
    ) -> None:
        super().__init__(d_in, d_out, rank, scaling, device)
        self.m_O = nn.Parameter(torch.ones(d_out, device=device))
        self._gain: WeightCache[Tensor] = WeightCache()

    @torch.no_grad()
    def reset(self, generator: torch.Generator, proj: Proj) -> None:
        super().reset(generator, proj)
        self.m_O.copy_(row_norms(proj.matrix_OI(_exact(proj))))

    def whole(self, x: Tensor, proj: Proj) -> Tensor | None:
        return None

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        gain_O = self.gain_O(proj)
        plain = y if proj.bias is None else y - proj.bias.to(y.dtype)
        return (gain_O - 1).to(x.dtype) * plain + gain_O.to(x.dtype) * self.low(x)

    def gain_O(self, proj: Proj) -> Tensor:
        """What each output of W + delta is multiplied by. Kept from call to call where nothing learns."""
        if any(p.requires_grad for p in self.parameters()):
            return self._made(proj)
        kept = self._gain.current()
        if kept is not None:
            return kept
        places = [*proj.part.places, *(place(self, n) for n in self._parameters)]
        return self._gain.make(places, lambda: self._made(proj))

    def merged_OI(self, proj: Proj) -> Tensor:
        return self.gain_O(proj)[:, None] * super().merged_OI(proj)

    def _made(self, proj: Proj) -> Tensor:
        with torch.no_grad():
            norm_O = row_norms(super().merged_OI(proj))
        some_O = norm_O > 0  # 0 / 0 has no gradient either, so zeros are put aside before the division
        return torch.where(some_O, self.m_O / torch.where(some_O, norm_O, 1), 1)


def row_norms(weight_OI: Tensor) -> Tensor:
    """Euclidean lengths of the rows, [O]."""
    out: Tensor = torch.linalg.vector_norm(weight_OI, dim=1)
    return out


def _exact(proj: Proj) -> torch.dtype:
    """fp32, or the weight's own number format where that is finer."""
    own = torch.float32 if proj.weight is None else proj.weight.dtype
    return torch.promote_types(own, torch.float32)
