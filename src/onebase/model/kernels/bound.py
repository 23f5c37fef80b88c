"""Blocks prepared for decoding: everything that is constant between tokens is bound in advance, and a block becomes one plain function.

A token of a small base takes a thousand small operations; looking up modules, parameters and kernels for each costs as much as they do.
The functions here compute the same as the modules' `forward`, in the same order of operations. They are valid only while no weight
changes (`FastDecode` checks that). B batch, T time, D width, N query heads, G key heads, H head features.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.attention import Attention
from onebase.model.cache import LayerCache
from onebase.model.feedforward import ACTIVATIONS, FeedForward
from onebase.model.kernels.attention import Lowered, attend
from onebase.model.kernels.packed import PackedLinear
from onebase.model.kernels.weight_cache import Place, place
from onebase.model.norm import Norm, inference_rms
from onebase.model.position import rotate
from onebase.model.proj import Proj

RotaryFactors = tuple[Tensor, Tensor] | None
Fn = Callable[[Tensor], Tensor]
Fused = Any
"""The module `fused` (`compiled.loops_for`), for one token per row; None: torch's operations, for any number of tokens."""
Step = Callable[[Tensor, RotaryFactors, Lowered, LayerCache], Tensor]
"""x [B, T, D], the tables of `rotary_factors`, the mask and the cache of this block, to the block's output [B, T, D]."""


def bound_product(dtype: torch.dtype, decoding: bool, packed: PackedLinear, *parts: Proj) -> Fn:
    """x [B, T, I] in `dtype` to the parts' outputs, concatenated to [B, T, sum of O]; packed: their PackedLinear; decoding: as there."""
    dense = _dense(dtype, parts)
    on_cpu = parts[0].device.type == "cpu" and dtype in (torch.bfloat16, torch.float32)
    made = packed.ready(dtype, decoding) if on_cpu else None
    if made is None or made.product is None:
        return dense
    product, most = made.product, made.most

    def run(x: Tensor) -> Tensor:
        B, T, width = x.shape
        return product(x.view(-1, width)).view(B, T, -1) if B * T * width <= most else dense(x)

    return run


def _dense(dtype: torch.dtype, parts: Sequence[Proj]) -> Fn:
    """The product with the matrices as stored. Weights in another dtype are cast at each use, as in `Proj`."""
    if len(parts) > 1:
        each = [_dense(dtype, (p,)) for p in parts]
        return lambda x: torch.cat([f(x) for f in each], -1)
    weight, store, bias = parts[0].weight, parts[0].store, parts[0].bias
    cast = None if bias is None else bias.to(dtype)
    if weight is not None:
        return lambda x: F.linear(x, weight.to(dtype), cast)
    assert store is not None
    return lambda x: store(x) if cast is None else store(x) + cast


def bound_norm(norm: nn.Module | None, fused: Fused) -> Fn | None:
    """A norm with its gain precomputed; None for no norm."""
    if not isinstance(norm, Norm):
        return None
    if norm.cfg.kind != "rms":
        return norm
    gain, floor = norm.gain(), norm.floor
    if fused is not None:
        gain_D, least = gain_of(norm), float(floor)
        return lambda x: fused.rms(x, gain_D, least)
    return lambda x: inference_rms(x, floor, gain)


def gain_of(norm: Norm) -> Tensor:
    """The gain of a norm, fp32 [D], even if it is a single number."""
    gain = norm.gain()
    return gain if isinstance(gain, Tensor) else torch.full((norm.width,), gain)


def bound_attention(attn: Attention, dtype: torch.dtype, fused: Fused) -> Step:
    """`Attention.forward` with a cache and without adapters."""
    cfg = attn.cfg
    N, G, H, scale, softcap = cfg.heads, cfg.kv_heads, cfg.head_dim, attn.scale, cfg.softcap
    qkv = bound_product(dtype, fused is not None, attn.qkv.packed, attn.q, attn.k, attn.v)
    out = bound_product(dtype, fused is not None, attn.o.packed, attn.o)
    whole = cfg.qk_norm_whole and attn.q_norm is not None
    q_norm, k_norm = (bound_norm(n, None if whole else fused) for n in (attn.q_norm, attn.k_norm))
    look = None if fused is None or whole else _bound_attend(attn, fused)
    if look is not None:
        one = look
        return lambda x_B1D, *seen: out(one(qkv(x_B1D), *seen))

    def run(x_BTD: Tensor, turns: RotaryFactors, lowered: Lowered, cache: LayerCache) -> Tensor:
        B, T, _ = x_BTD.shape
        qkv_BTF = qkv(x_BTD)
        if whole and q_norm is not None and k_norm is not None:
            q, k, v = qkv_BTF.split_with_sizes((N * H, G * H, G * H), -1)
            qkv_BTF = torch.cat((q_norm(q), k_norm(k), v), -1)
        qkv_BTXH = qkv_BTF.view(B, T, N + 2 * G, H)
        if whole or q_norm is None or k_norm is None:
            qk_BTXH = qkv_BTXH.narrow(2, 0, N + G)
            if turns is not None:
                qk_BTXH = rotate(qk_BTXH, *turns)  # queries and keys in one call
            q_BTNH, k_BTGH = qk_BTXH.narrow(2, 0, N), qk_BTXH.narrow(2, N, G)
        else:
            q_BTNH, k_BTGH = q_norm(qkv_BTXH.narrow(2, 0, N)), k_norm(qkv_BTXH.narrow(2, N, G))
            if turns is not None:
                q_BTNH, k_BTGH = rotate(q_BTNH, *turns), rotate(k_BTGH, *turns)
        v_BTGH = qkv_BTXH.narrow(2, N + G, G)
        k_BGSH, v_BGSH = cache.append(k_BTGH.transpose(1, 2), v_BTGH.transpose(1, 2))
        o_BNTH = attend(q_BTNH.transpose(1, 2), k_BGSH, v_BGSH, lowered, scale=scale, softcap=softcap)
        return out(o_BNTH.transpose(1, 2).reshape(B, T, N * H))

    return run


def _bound_attend(attn: Attention, fused: Fused) -> Step | None:
    """From the projections of one token per row [B, 1, X H] to the attention output [B, 1, N H]; None where there is no loop for it."""
    cfg, scale = attn.cfg, attn.scale
    norms = [n for n in (attn.q_norm, attn.k_norm) if n is not None]
    if any(n.cfg.kind != "rms" for n in norms):
        return None
    heads, softcap = (cfg.heads, cfg.kv_heads, cfg.head_dim), cfg.softcap
    gains = (gain_of(norms[0]), gain_of(norms[1]), float(norms[0].floor)) if norms else None

    def run(qkv_B1F: Tensor, turns: RotaryFactors, lowered: Lowered, cache: LayerCache) -> Tensor:
        q_BNH = fused.rotate_into_cache(qkv_B1F, heads, turns, gains, cache)
        o_B1F: Tensor = fused.attend_cached(q_BNH, cache, lowered.seen, scale, softcap).unsqueeze(1)
        return o_B1F if lowered.live is None else o_B1F.masked_fill(~lowered.live[:, 0], 0.0)

    return run


def bound_feedforward(ff: FeedForward, dtype: torch.dtype, fused: Fused) -> Fn:
    """`FeedForward.forward` without adapters."""
    act, hidden = ACTIVATIONS[ff.cfg.activation], ff.cfg.hidden
    down = bound_product(dtype, fused is not None, ff.down.packed, ff.down)
    if ff.gate is None or ff.gate_up is None:
        up = bound_product(dtype, fused is not None, ff.up.packed, ff.up)
        return lambda x: down(act(up(x)))
    both = bound_product(dtype, fused is not None, ff.gate_up.packed, ff.gate, ff.up)
    if fused is not None and ff.cfg.activation in fused.CURVES:
        slope, bend = fused.CURVES[ff.cfg.activation]
        return lambda x: down(fused.gated(both(x), slope, bend))

    def run(x_BTD: Tensor) -> Tensor:
        gu_BTF = both(x_BTD)
        return down(act(gu_BTF.narrow(-1, 0, hidden)).mul_(gu_BTF.narrow(-1, hidden, hidden)))

    return run


def bound_block(
    where: str,
    attn: Step,
    ff: Fn,
    attn_norm: Fn | None,
    ff_norm: Fn | None,
    outs: tuple[Fn | None, Fn | None],
) -> Step:
    """`Block.forward` with bound parts. outs: the norms on the outputs of the parts, if any."""
    attn_out, ff_out = outs
    if where == "post":

        def post(x_BTD: Tensor, turns: RotaryFactors, lowered: Lowered, cache: LayerCache) -> Tensor:
            x_BTD = x_BTD + attn(x_BTD, turns, lowered, cache)
            x_BTD = x_BTD if attn_norm is None else attn_norm(x_BTD)
            x_BTD = x_BTD + ff(x_BTD)
            return x_BTD if ff_norm is None else ff_norm(x_BTD)

        return post

    def run(x_BTD: Tensor, turns: RotaryFactors, lowered: Lowered, cache: LayerCache) -> Tensor:
        a_BTD = attn(x_BTD if attn_norm is None else attn_norm(x_BTD), turns, lowered, cache)
        x_BTD = x_BTD + (a_BTD if attn_out is None else attn_out(a_BTD))
        f_BTD = ff(x_BTD if ff_norm is None else ff_norm(x_BTD))
        return x_BTD + (f_BTD if ff_out is None else ff_out(f_BTD))

    return run


class HasBlock(Protocol):
    """The attributes of a trunk's block that are used here."""

    where: str
    attn: Attention
    ff: FeedForward
    attn_norm: nn.Module
    ff_norm: nn.Module
    attn_out_norm: nn.Module | None
    ff_out_norm: nn.Module | None
    cross: nn.Module | None
    attn_scale: nn.Module | None
    residual: float
    adapt: nn.Module | None


def bound(block: HasBlock, dtype: torch.dtype, fused: Fused) -> Step | None:
    """A block as one function in `dtype`; None where it has parts that these functions do not support."""
    if block.cross is not None or block.attn_scale is not None or block.residual != 1.0:
        return None
    if block.adapt is not None:
        return None
    outs = bound_norm(block.attn_out_norm, fused), bound_norm(block.ff_out_norm, fused)
    attn, ff = bound_attention(block.attn, dtype, fused), bound_feedforward(block.ff, dtype, fused)
    return bound_block(
        block.where, attn, ff, bound_norm(block.attn_norm, fused), bound_norm(block.ff_norm, fused), outs
    )


def places_in(module: nn.Module) -> list[Place]:
    """The locations of the weights of all projections and norms in a module. Empty ones are omitted: one is filled only when another
    becomes empty, and all are checked for every token."""
    found: list[Place] = []
    for part in module.modules():
        if isinstance(part, Proj):
            found += part.part.places
        elif isinstance(part, Norm):
            found += [place(part, "weight"), place(part, "bias")]
    return [(held, name) for held, name in found if held.get(name) is not None]
