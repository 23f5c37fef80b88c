"""Rotary positions. B batch, T time, N heads, H head features."""

import torch
from torch import Tensor

from onebase.model.config import RopeConfig


def rotary_table(cfg: RopeConfig, head_dim: int, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 [B, 1, T, R/2], for the R rotated features of each head."""
    dim = cfg.dim or head_dim
    inv = cfg.base ** (-torch.arange(0, dim, 2, device=pos_BT.device, dtype=torch.float32) / dim)
    angle_BTR = pos_BT.float()[..., None] * inv
    return angle_BTR.cos()[:, None], angle_BTR.sin()[:, None]


def rotate(x_BNTH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R features of each head by their positions' angles (halves layout), in fp32."""
    dim = cos.shape[-1] * 2
    a, b = x_BNTH[..., :dim].float().chunk(2, -1)
    turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x_BNTH.dtype)
    return turned if dim == x_BNTH.shape[-1] else torch.cat((turned, x_BNTH[..., dim:]), -1)
