"""Fused operations for decoding on a CPU: one loop in place of a dozen operations between the products of a block, or all blocks as one call.

A token of a small base takes a thousand small operations, and each starts cold: the weights of the product before it have evicted its code
from the cache. Compiled by numba (extra `fast`) and cached on disk; without numba, torch's operations give the same result.
B rows, N query heads, G key heads, X = N + 2 G, H head features, R rotated features, S slots, D width, F hidden features.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.model.cache import LayerCache
from onebase.model.kernels import chain, loops
from onebase.model.kernels.attention import Lowered
from onebase.model.kernels.direct import Direct, threads

CURVES = {
    "swiglu": (1.0, 0.0),
    "geglu_tanh": (2 * math.sqrt(2 / math.pi), 2 * 0.044715 * math.sqrt(2 / math.pi)),
}
"""Activations g * sigmoid(slope g + bend g^3), as (slope, bend): SiLU, and tanh GELU, because (1 + tanh z) / 2 = sigmoid(2 z)."""


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
    """g * sigmoid(slope g + bend g^3) * u for bf16 [..., 2 F], g before u; see `CURVES`."""
    gu = gu.contiguous()
    hidden = gu.shape[-1] // 2
    out = gu.new_empty((*gu.shape[:-1], hidden))
    loops.gated(gu.dtype, gu.data_ptr(), out.data_ptr(), out.numel() // hidden, hidden, slope, bend)
    return out


Gains = tuple[Tensor, Tensor, float] | None
"""QK-norm: the gains fp32 [H] of queries and keys, and the floor."""


def rotate_into_cache(
    qkv: Tensor,
    heads: tuple[int, int, int],
    turns: tuple[Tensor, Tensor] | None,
    gains: Gains,
    cache: LayerCache,
) -> Tensor:
    """The normalised and rotated queries [B, N, H] from qkv bf16 [B, X H], one token per row, with heads (N, G, H). Keys, processed the same
    way, and values are written to the cache's next slot. turns: tables of `position.rotary_factors`, fp32 [B, 1, 1, R]."""
    qkv = qkv.contiguous()
    N, G, H = heads
    q_BNH = qkv.new_empty(qkv.shape[0], N, H)
    own, other = (t.contiguous() for t in turns) if turns is not None else (qkv, qkv)
    q_gain, k_gain, floor = gains if gains is not None else (None, None, 0.0)
    loops.rotate_into_cache(
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


def attend_cached(
    q_BNH: Tensor, cache: LayerCache, seen: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    """softmax(scale * q k^T, capped by tanh if given, over the visible keys) v for one query per head: bf16 [B, N H].

    seen: bool [B, 1, 1, K] or [1, 1, 1, K], K keys in the cache; None: all.
    """
    rows, N, H = q_BNH.shape
    mask = None if seen is None else seen.expand(rows, 1, 1, -1).contiguous()
    out = q_BNH.new_empty(rows, N * H)
    threads()
    loops.attend_cached(
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


RotaryFactors = tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class Parts:
    """The parts of a block for `Chain`. sizes: (D, N, G, H, F); gains: [D] or [H], and floors of the norms in the order of `chain`, None for
    no norm; products: of q, k, v together, of o, of gate and up together, of down, valid for up to `most` rows."""

    sizes: tuple[int, int, int, int, int]
    gains: Sequence[Tensor | None]
    floors: Sequence[float]
    products: Sequence[Direct]
    most: int
    scale: float
    softcap: float | None
    curve: tuple[float, float]


class Chain:
    """All blocks of a trunk as one call for one token per row, in fp32, up to `most` rows. lambdas [L, 2]: the weights of the residual stream
    and of the trunk's input in a block's input; None: 1 and 0."""

    def __init__(self, blocks: Sequence[Parts], lambdas: Tensor | None) -> None:
        self.most = min(b.most for b in blocks)
        self._whole = np.array([_fields(b) for b in blocks], np.int64)
        weights = [(1.0, 0.0)] * len(blocks) if lambdas is None else lambdas.tolist()
        self._reals = np.array([_reals(b, w) for b, w in zip(blocks, weights, strict=True)], np.float32)
        assert self._whole.shape[1:] == (chain.WHOLE,) and self._reals.shape[1:] == (chain.REALS,)
        self._at = len(blocks), self._whole.ctypes.data, self._reals.ctypes.data
        self._room = max(chain.room(*b.sizes) for b in blocks)
        products = {(p.bits, p.inputs, p.group): p for b in blocks for p in b.products}
        self._products = list(products.values())
        self._held = blocks  # keeps the addresses valid

    def __call__(
        self, x_B1D: Tensor, looks: Sequence[tuple[RotaryFactors, Lowered]], layers: Sequence[LayerCache]
    ) -> Tensor:
        """[B, 1, D] after the last block. looks: the rotary tables and the mask of each block."""
        rows = x_B1D.shape[0]
        assert rows <= self.most
        x = x_B1D.contiguous()
        y_B1D = torch.empty_like(x)
        used = layers[0].used
        held: dict[tuple[int, int], _AttendInputs] = {}
        table: list[int] = []
        for (turns, lowered), layer in zip(looks, layers, strict=True):
            key = id(turns), id(lowered)
            if key not in held:
                held[key] = _AttendInputs(turns, lowered, rows)
            at = held[key]
            k = layer.k
            table += (*at.tables, k.data_ptr(), layer.v.data_ptr(), k.shape[2], *at.masks)
        seen = np.array(table, np.int64)
        wanted = rows * self._room + max(p.room(rows) for p in self._products)
        chain.blocks(*self._at, seen.ctypes.data, x.data_ptr(), y_B1D.data_ptr(), rows, used, _room(wanted))
        for layer in layers:
            layer.used = used + 1
        return y_B1D


class _AttendInputs:
    """Addresses of rotary tables and masks for one token per row, and the tensors that they point to."""

    def __init__(self, turns: RotaryFactors, lowered: Lowered, rows: int) -> None:
        masks = [
            None if t is None else t.expand(rows, 1, 1, -1).contiguous() for t in (lowered.seen, lowered.live)
        ]
        tables = () if turns is None else tuple(t.contiguous() for t in turns)
        self._held = masks, tables
        self.tables = (*(t.data_ptr() for t in tables), tables[0].shape[-1]) if tables else (0, 0, 0)
        self.masks = [0 if t is None else t.data_ptr() for t in masks]


def _fields(b: Parts) -> list[int]:
    gains = [0 if g is None else g.data_ptr() for g in b.gains]
    return [*b.sizes, *gains, *(int(n) for p in b.products for n in p.fields)]


def _reals(b: Parts, weights: Sequence[float]) -> list[float]:
    return [*(f * f for f in b.floors), b.scale, b.softcap or 0.0, *b.curve, *weights]


def _room(wanted: int) -> int:
    """The address of a workspace of `wanted` fp32; each Python thread has its own."""
    if getattr(_kept, "size", 0) < wanted:
        _kept.room, _kept.size = np.empty(wanted, np.float32), wanted
        _kept.at = _kept.room.ctypes.data
    at: int = _kept.at
    return at


_kept: Any = threading.local()
