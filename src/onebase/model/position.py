"""Rotary positions and relative position bias. B batch, T time, N heads, H head features."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.errors import UserError
from onebase.model.config import RelativeConfig, RopeConfig, RopeScaling, TrunkConfig


def rotary_table(cfg: RopeConfig, head_dim: int, pos_BT: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 [B, 1, T, R/2], for the R rotated features of each head."""
    dim = cfg.dim or head_dim
    # The order of operations of the published models: far from the start a single bit of an angle matters.
    period = cfg.base ** (torch.arange(0, dim, 2, device=pos_BT.device, dtype=torch.float32) / dim)
    inv, size = 1.0 / period, 1.0
    inv = inv.half().float() if cfg.half else inv
    if cfg.scaling is not None:
        inv, size = _scaled(period, cfg, pos_BT), cfg.scaling.attention
    angle_BTR = pos_BT.float()[..., None] * inv
    return angle_BTR.cos()[:, None] * size, angle_BTR.sin()[:, None] * size


def _scaled(period_R: Tensor, rope: RopeConfig, pos_BT: Tensor) -> Tensor:
    """The scaled frequencies, [R/2] or [B, 1, R/2], see RopeScaling; `period` is 1 / frequency before."""
    cfg, inv_R = rope.scaling, 1.0 / period_R
    assert cfg is not None
    if cfg.kind == "linear":
        return inv_R / cfg.factor
    if cfg.kind == "dynamic":
        if int(pos_BT.max()) >= cfg.original:
            raise UserError(
                f"this base supports at most {cfg.original:,} tokens (dynamic rope scaling is not applied beyond its original context)",
                "shorten the text",
            )
        return inv_R
    if cfg.kind == "longrope":
        # As in the published models, the divisors depend on the length of the text: here of each row separately.
        far_B11 = (pos_BT.amax(-1) >= cfg.original)[:, None, None]
        long, short = (torch.tensor(x, device=period_R.device) for x in (cfg.long, cfg.short))
        return 1.0 / (torch.where(far_B11, long, short) * period_R)
    if cfg.kind == "yarn":
        ramp_R = _ramp(cfg, rope.base, len(period_R)).to(period_R.device)
        kept_R = 1 - ramp_R
        return 1.0 / (cfg.factor * period_R) * (1 - kept_R) + inv_R * kept_R
    turns_R = cfg.original / (2 * math.pi / inv_R)  # rotations over the original context
    kept_R = ((turns_R - cfg.low) / (cfg.high - cfg.low)).clamp(0, 1)
    return (1 - kept_R) * inv_R / cfg.factor + kept_R * inv_R


def _ramp(cfg: RopeScaling, base: float, count: int) -> Tensor:
    """YaRN: 0 for frequencies that stay, 1 for those that are divided by `factor`, fp32 [count]."""

    def number(turns: float) -> float:
        """The (fractional) index of the frequency with this many rotations over the original context."""
        return 2 * count * math.log(cfg.original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = number(cfg.high), number(cfg.low)
    if cfg.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * count - 1)
    high += 0.001 if low == high else 0
    return ((torch.arange(count, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)


def room(cfg: TrunkConfig, context: int, prompt: int) -> int:
    """The maximum length of a text that continues a cached prompt of `prompt` tokens: the context, or the length from which rotary angles
    change (longrope), because the cached keys would have to be recomputed."""
    turns = [b.attn.rope.scaling for b in cfg.blocks if b.attn.rope and b.attn.rope.scaling]
    ends = [
        s.original for s in turns if s.kind == "dynamic" or (s.kind == "longrope" and prompt <= s.original)
    ]
    return min([context, *ends])


def refuse_crossing(cfg: TrunkConfig, held_BS: Tensor, pos_BT: Tensor) -> None:
    """Raise UserError where new tokens are beyond `original` of longrope, but the cached keys were rotated with the short divisors."""
    for end in {
        b.attn.rope.scaling.original
        for b in cfg.blocks
        if b.attn.rope and b.attn.rope.scaling and b.attn.rope.scaling.kind == "longrope"
    }:
        if bool(((held_BS.amax(-1) < end) & (pos_BT.amax(-1) >= end)).any()):
            raise UserError(
                f"from token {end + 1:,} on this base uses other rotary angles (longrope): a shorter cache cannot continue beyond it",
                "give the longer text in one call",
            )


def rotary_factors(cos_B1TR: Tensor, sin_B1TR: Tensor) -> tuple[Tensor, Tensor]:
    """The tables for `rotate`, fp32 [B, T, 1, R]: the factor of each feature, and the factor of its partner, R / 2 features away."""
    cos, sin = cos_B1TR.transpose(1, 2), sin_B1TR.transpose(1, 2)
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


def rotate(x_BTNH: Tensor, own_BT1R: Tensor, other_BT1R: Tensor) -> Tensor:
    """Rotate the first R features of each head by their positions' angles (half-split layout), in fp32. Tables: `rotary_factors`."""
    dim = own_BT1R.shape[-1]
    x = x_BTNH[..., :dim]
    if torch.compiler.is_compiling():  # in halves: roll, and its backward, is twice as slow when compiled
        cos, sin = own_BT1R[..., : dim // 2], other_BT1R[..., dim // 2 :]
        a, b = x.float().chunk(2, -1)
        rotated = torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)
    elif torch.is_grad_enabled() and x.requires_grad:
        rotated = _Rotate.apply(x, own_BT1R, other_BT1R)  # type: ignore[no-untyped-call]
    else:
        rotated = _rotated(x, own_BT1R, other_BT1R)
    return rotated if dim == x_BTNH.shape[-1] else torch.cat((rotated, x_BTNH[..., dim:]), -1)


def _rotated(x_BTNR: Tensor, own_BT1R: Tensor, other_BT1R: Tensor) -> Tensor:
    """In place where it is a copy: allocating memory costs more than the arithmetic."""
    x = x_BTNR.float()
    partner = x.roll(x.shape[-1] // 2, -1)
    own = x * own_BT1R if x.dtype == x_BTNR.dtype else x.mul_(own_BT1R)
    return own.addcmul_(partner, other_BT1R).to(x_BTNR.dtype)


class _Rotate(torch.autograd.Function):
    """The gradient is rotated back by the same angles, so only the tables are saved."""

    @staticmethod
    def forward(ctx: Any, x_BTNR: Tensor, own_BT1R: Tensor, other_BT1R: Tensor) -> Tensor:
        ctx.save_for_backward(own_BT1R, other_BT1R)
        return _rotated(x_BTNR, own_BT1R, other_BT1R)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        own_BT1R, other_BT1R = ctx.saved_tensors
        return _rotated(upstream[0], own_BT1R, -other_BT1R), None, None


def relative_bias(cfg: RelativeConfig, table_RN: Tensor, q_BQ: Tensor, k_BK: Tensor) -> Tensor:
    """The bias on scores of keys at positions k for queries at positions q, fp32 [B, N, Q, K] (one row where all rows have the same
    positions)."""
    if q_BQ.stride(0) == 0 and k_BK.stride(0) == 0:
        q_BQ, k_BK = q_BQ[:1], k_BK[:1]
    far_BQK = k_BK[:, None, :] - q_BQ[:, :, None]
    half = cfg.buckets // 2
    exact = half // 2
    n = far_BQK.abs()
    # In fp32, as published models were trained: rounding decides at the bounds of buckets.
    wide = (n.clamp(min=1).float() / exact).log() / math.log(cfg.distance / exact) * (half - exact)
    bucket = torch.where(n < exact, n, (exact + wide.long()).clamp(max=half - 1))
    return F.embedding(bucket + (far_BQK > 0) * half, table_RN.float()).permute(0, 3, 1, 2)
