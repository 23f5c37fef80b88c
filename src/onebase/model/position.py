"""Rotary positions. B batch, T time, N heads, H head features."""

import math

import torch
from torch import Tensor

from onebase.model.config import RopeConfig, RopeScaling


def rotary_table(cfg: RopeConfig, head_dim: int, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 [B, 1, T, R/2], for the R rotated features of each head."""
    dim = cfg.dim or head_dim
    # In this order of operations, which is that of the models read here: far from the start one bit of an angle shows.
    period = cfg.base ** (torch.arange(0, dim, 2, device=pos_BT.device, dtype=torch.float32) / dim)
    inv, size = 1.0 / period, 1.0
    inv = inv.half().float() if cfg.half else inv
    if cfg.scaling is not None:
        inv, size = _scaled(period, cfg.scaling, pos_BT), cfg.scaling.attention
    angle_BTR = pos_BT.float()[..., None] * inv
    return angle_BTR.cos()[:, None] * size, angle_BTR.sin()[:, None] * size


def _scaled(period: Tensor, cfg: RopeScaling, pos_BT: Tensor) -> Tensor:
    """The angles per position after stretching, see RopeScaling; `period` is 1 / angle before."""
    inv = 1.0 / period
    if cfg.kind == "linear":
        return inv / cfg.factor
    if cfg.kind == "longrope":
        # Which divisors hold depends on the longest text seen, as in the models trained so.
        divisors = cfg.long if int(pos_BT.max()) >= cfg.original else cfg.short
        return 1.0 / (torch.tensor(divisors, device=period.device) * period)
    turns = cfg.original / (2 * math.pi / inv)  # of each angle over the original context
    kept = ((turns - cfg.low) / (cfg.high - cfg.low)).clamp(0, 1)
    return (1 - kept) * inv / cfg.factor + kept * inv


def turns(cos_B1TR: Tensor, sin_B1TR: Tensor) -> tuple[Tensor, Tensor]:
    """The table as `rotate` reads it, fp32 [B, T, 1, R]: what each feature is multiplied by, and what its partner, half of R away, is."""
    cos, sin = cos_B1TR.transpose(1, 2), sin_B1TR.transpose(1, 2)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x_BTNH: Tensor, own_BT1R: Tensor, other_BT1R: Tensor) -> Tensor:
    """Turn the first R features of each head by their positions' angles (halves layout), in fp32. The tables are those of `turns`."""
    dim = own_BT1R.shape[-1]
    x = x_BTNH[..., :dim].float()
    turned = torch.addcmul(x * own_BT1R, x.roll(dim // 2, -1), other_BT1R).to(x_BTNH.dtype)
    return turned if dim == x_BTNH.shape[-1] else torch.cat((turned, x_BTNH[..., dim:]), -1)
