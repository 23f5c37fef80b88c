"""Normalisation. Statistics are computed in fp32, whatever the dtype of the input."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import NormConfig
from onebase.model.kernels.weight_cache import WeightCache, place


class Norm(nn.Module):
    """RMS (1910.07467) or layer norm over the last axis, by its config."""

    def __init__(self, cfg: NormConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.weight = nn.Parameter(torch.empty(width)) if cfg.affine else None
        self.bias = (
            nn.Parameter(torch.empty(width)) if cfg.affine and cfg.bias and cfg.kind == "layer" else None
        )
        self._gain: WeightCache[Tensor] = WeightCache()
        # sqrt(D * eps): no parameter, it follows from the config.
        self.floor = torch.tensor((width * cfg.eps) ** 0.5, device="cpu")
        self.reset()

    def reset(self) -> None:
        """Initialise as plain normalisation."""
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
        """RMS norm in the fewest operations: for inference, x / hypot(|x|, sqrt(D eps)) * sqrt(D) w, which is equal."""
        if not torch.is_grad_enabled():
            return inference_rms(x, self.floor, self.gain())
        weight = None if self.weight is None else self.weight.float() + self.cfg.offset
        y: Tensor = _Rms.apply(x, weight, self.cfg.eps)  # type: ignore[no-untyped-call]
        return y

    def gain(self) -> Tensor | float:
        """sqrt(D) times the weight, for `inference_rms`; cached until the weight changes."""
        weight = self.weight
        if weight is None:
            return self.width**0.5
        gain = self._gain.current()
        if gain is not None:
            return gain
        return self._gain.make(
            [place(self, "weight")], lambda: (weight.float() + self.cfg.offset) * self.width**0.5
        )


def inference_rms(x: Tensor, floor: Tensor, gain: Tensor | float) -> Tensor:
    """x / hypot(|x|, floor) * gain over the last axis, in fp32 with one temporary: allocating memory costs more than the arithmetic."""
    wide = x.float()  # x itself, if it is fp32
    size = torch.linalg.vector_norm(wide, 2, -1, True).hypot_(floor)
    return wide.div(size).mul_(gain) if wide is x else wide.div_(size).mul_(gain).to(x.dtype)


class _Rms(torch.autograd.Function):
    """x / sqrt(mean of squares + eps) * weight that saves its input in its own dtype and one number per row, no fp32 copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        wide = x.float()
        inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        y = _scaled(wide, inverse, x)
        return (y if weight is None else y.mul_(weight)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        g, y = upstream[0].float(), _scaled(x.float(), inverse, x)
        dw = (g * y).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, dw, None
        g = g * inverse if weight is None else (g * weight).mul_(inverse)
        along = (g * y).mean(-1, keepdim=True)
        return g.addcmul_(y, along, value=-1).to(x.dtype), dw, None


def _scaled(wide: Tensor, inverse: Tensor, x: Tensor) -> Tensor:
    """In place where `wide` is a copy of x."""
    return wide * inverse if wide is x else wide.mul_(inverse)
