"""What stands between the products of a block, each as one loop in place of a dozen operations: decoding in bf16 on a CPU.

A token of a small base is a thousand small operations, and each begins cold: the weights of the product before it have driven its code out of the
cache. Compiled by numba (extra `fast`), kept on disk; without it the operations of torch say the same.
B rows, N query heads, G key heads, X = N + 2 G, H head features, R features that turn, S slots, D width, F hidden features.
"""

import math

import torch
from torch import Tensor

from onebase.model import loops
from onebase.model.cache import LayerCache
from onebase.model.direct import threads

CURVES = {
    "swiglu": (1.0, 0.0),
    "geglu_tanh": (2 * math.sqrt(2 / math.pi), 2 * 0.044715 * math.sqrt(2 / math.pi)),
}
"""Activations g * sigmoid(slope g + bend g^3), as (slope, bend): SiLU, and GELU by tanh, for (1 + tanh z) / 2 is sigmoid(2 z)."""


def rms(x: Tensor, gain_D: Tensor, floor: float) -> Tensor:
    """x / hypot(|x|, floor) * gain over the last axis, x bf16 [..., D], gain fp32 [D]."""
    x = x.contiguous()
    out = torch.empty_like(x)
    width = gain_D.numel()
    loops.rms(
        x.dtype, x.data_ptr(), gain_D.data_ptr(), out.data_ptr(), x.numel() // width, width, floor * floor
    )
    return out


def gated(gu: Tensor, slope: float, bend: float) -> Tensor:
    """g * sigmoid(slope g + bend g^3) * u of bf16 [..., 2 F], g before u; see `CURVES`."""
    gu = gu.contiguous()
    hidden = gu.shape[-1] // 2
    out = gu.new_empty((*gu.shape[:-1], hidden))
    loops.gated(gu.dtype, gu.data_ptr(), out.data_ptr(), out.numel() // hidden, hidden, slope, bend)
    return out


Gains = tuple[Tensor, Tensor, float] | None
"""What queries and keys are normalised by: the gains fp32 [H] of both, and the floor."""


def turned(
    qkv: Tensor,
    heads: tuple[int, int, int],
    turns: tuple[Tensor, Tensor] | None,
    gains: Gains,
    cache: LayerCache,
) -> Tensor:
    """Of qkv bf16 [B, X H], one token a row, and heads (N, G, H): the queries, normalised and turned, [B, N, H]. Keys, treated alike, and
    values are put into the cache's next slot. The tables are those of `position.turns`, fp32 [B, 1, 1, R]."""
    qkv = qkv.contiguous()
    N, G, H = heads
    q_BNH = qkv.new_empty(qkv.shape[0], N, H)
    own, other = (t.contiguous() for t in turns) if turns is not None else (qkv, qkv)
    q_gain, k_gain, floor = gains if gains is not None else (None, None, 0.0)
    loops.turned(
        qkv.dtype,
        qkv.data_ptr(),
        q_BNH.data_ptr(),
        own.data_ptr(),
        other.data_ptr(),
        0 if q_gain is None else q_gain.data_ptr(),
        0 if k_gain is None else k_gain.data_ptr(),
        cache.k.data_ptr(),
        cache.v.data_ptr(),
        qkv.shape[0],
        N,
        G,
        H,
        0 if turns is None else own.shape[-1],
        cache.k.shape[2],
        cache.used,
        floor * floor,
    )
    cache.used += 1
    return q_BNH


def looked(
    q_BNH: Tensor, cache: LayerCache, seen: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """softmax(scale * q k^T, capped by tanh if given, over the keys seen) v of one query a head: bf16 [B, N H].

    seen: bool [B, 1, 1, K] or [1, 1, 1, K], K keys in the cache; None: all.
    """
    rows, N, H = q_BNH.shape
    mask = None if seen is None else seen.expand(rows, 1, 1, -1).contiguous()
    out = q_BNH.new_empty(rows, N * H)
    threads()
    loops.looked(
        q_BNH.dtype,
        q_BNH.data_ptr(),
        cache.k.data_ptr(),
        cache.v.data_ptr(),
        0 if mask is None else mask.data_ptr(),
        out.data_ptr(),
        rows,
        N,
        cache.k.shape[1],
        H,
        cache.k.shape[2],
        cache.used,
        scale,
        softcap or 0.0,
    )
    return out
