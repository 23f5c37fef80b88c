"""Normalisation. Statistics are taken in fp32 whatever the dtype of the input."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import NormConfig
from onebase.model.derived import Derived, place


class Norm(nn.Module):
    """RMS (1910.07467) or layer norm over the last axis, as its config says."""

    def __init__(self, cfg: NormConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.weight = nn.Parameter(torch.empty(width)) if cfg.affine else None
        self.bias = (
            nn.Parameter(torch.empty(width)) if cfg.affine and cfg.bias and cfg.kind == "layer" else None
        )
        self._gain: Derived[Tensor] = Derived()
        # sqrt(D * eps): no parameter, it follows from the config.
        self.floor = torch.tensor((width * cfg.eps) ** 0.5, device="cpu")
        self.reset()

    def reset(self) -> None:
        """Start as plain normalisation."""
        if self.weight is not None:
            nn.init.constant_(self.weight, 1.0 - self.cfg.offset)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.cfg.kind == "rms" and not torch.compiler.is_compiling():
            return self._rms(x)
        x32 = x.float()
        weight = None if self.weight is None else self.weight.float() + self.cfg.offset
        if self.cfg.kind == "rms":
            y = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.cfg.eps)
            y = y if weight is None else y * weight
        else:
            bias = None if self.bias is None else self.bias.float()
            y = F.layer_norm(x32, (self.width,), weight, bias, self.cfg.eps)
        return y.to(x.dtype)

    def _rms(self, x: Tensor) -> Tensor:
        """RMS norm in the fewest operations: x / hypot(|x|, sqrt(D eps)) * sqrt(D) w is the same number. What is learnt comes out as what is
        used, bit for bit."""
        if not torch.is_grad_enabled():
            return lean_rms(x, self.floor, self.gain())
        learns = self.weight is not None and self.weight.requires_grad
        gain = self._gain_now() if learns else self.gain()
        wide = gain if isinstance(gain, Tensor) else torch.tensor(gain, device=x.device)
        y: Tensor = _Rms.apply(x, wide, self.floor)  # type: ignore[no-untyped-call]
        return y

    def gain(self) -> Tensor | float:
        """sqrt(D) times the weight, as the few operations want it; kept while the weight stays."""
        weight = self.weight
        if weight is None:
            return self.width**0.5
        kept = self._gain.current()
        if kept is not None:
            return kept
        # Made while decoding, it may be wanted again where something learns.
        with torch.inference_mode(False), torch.no_grad():
            return self._gain.make([place(self, "weight")], self._gain_now)

    def _gain_now(self) -> Tensor:
        assert self.weight is not None
        return (self.weight.float() + self.cfg.offset) * self.width**0.5


def lean_rms(x: Tensor, floor: Tensor, gain: Tensor | float) -> Tensor:
    """x / hypot(|x|, floor) * gain over the last axis, in fp32 and in the memory of one copy: fresh memory costs more than the sums."""
    wide = x.float()  # itself, if it is fp32
    return _over(wide, _size(wide, floor), x).mul_(gain).to(x.dtype)


def _size(wide: Tensor, floor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(wide, 2, -1, True).hypot_(floor)


def _over(wide: Tensor, size: Tensor, x: Tensor) -> Tensor:
    return wide.div(size) if wide is x else wide.div_(size)


class _Rms(torch.autograd.Function):
    """`lean_rms` with a gradient; it keeps its input as it came and one number a row, and no copies in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, floor: Tensor) -> Tensor:
        wide = x.float()
        size = _size(wide, floor)
        ctx.save_for_backward(x, gain, size)
        return _over(wide, size, x).mul_(gain).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        x, gain, size = ctx.saved_tensors
        wide, g = x.float(), upstream[0].float()
        dgain = None
        if ctx.needs_input_grad[1]:
            dgain = (g * wide).div_(size).flatten(0, -2).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, dgain, None
        g = g * gain
        along = (g * wide).sum(-1, keepdim=True).div_(size.pow(3))
        return g.div_(size).addcmul_(wide, along, value=-1).to(x.dtype), dgain, None
