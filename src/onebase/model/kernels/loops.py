"""The loops of `fused`, on addresses of contiguous arrays in bf16 or fp32, with sums in fp32.

B rows, N query heads, G key heads, X = N + 2 G, H head features, R rotated features, S slots, D width, F hidden features.
"""

from typing import Any

import numpy as np
from numba import float32, njit, prange, types

from onebase.model.kernels.machine_code import HOW, exp, loop, narrow, numbers, singles, truths, wide

_INT, _FLOAT = types.int64, types.float32


@loop(_INT, _INT, _INT, _INT, _INT, _FLOAT)
def rms(x_at: Any, gain_at: Any, out_at: Any, rows: Any, width: Any, floor: Any, like: Any) -> None:
    x, out = numbers(x_at, (rows, width), like), numbers(out_at, (rows, width), like)
    gain = singles(gain_at, (width,))
    for r in range(rows):
        total = float32(0)
        for d in range(width):
            total += wide(x[r, d]) * wide(x[r, d])
        by = float32(1) / np.sqrt(total + floor)
        for d in range(width):
            out[r, d] = narrow(wide(x[r, d]) * by * gain[d], like)


@loop(_INT, _INT, _INT, _INT, _FLOAT, _FLOAT)
def gated(gu_at: Any, out_at: Any, rows: Any, hidden: Any, slope: Any, bend: Any, like: Any) -> None:
    gu, out = numbers(gu_at, (rows, 2 * hidden), like), numbers(out_at, (rows, hidden), like)
    for r in range(rows):
        gate, up, y = gu[r, :hidden], gu[r, hidden:], out[r]
        for d in range(hidden):
            g = wide(gate[d])
            y[d] = narrow(g / (float32(1) + exp(-(slope + bend * g * g) * g)) * wide(up[d]), like)


@njit(inline="always", error_model="numpy")
def _rotate(x: Any, own: Any, other: Any, gain: Any, floor: Any, room: Any, y: Any, like: Any) -> None:
    """One head: normalised if it has a gain, its first features rotated, the others unchanged."""
    width, dim = len(x), len(own)
    for d in range(width):
        room[d] = wide(x[d])
    if len(gain):
        total = float32(0)
        for d in range(width):
            total += room[d] * room[d]
        by = float32(1) / np.sqrt(total + floor)
        for d in range(width):
            room[d] = wide(narrow(room[d] * by * gain[d], like))
    half = dim // 2
    for d in range(half):
        y[d] = narrow(room[d] * own[d] + room[d + half] * other[d], like)
    for d in range(half, dim):
        y[d] = narrow(room[d] * own[d] + room[d - half] * other[d], like)
    for d in range(dim, width):
        y[d] = narrow(room[d], like)


@loop(*[_INT] * 15, _FLOAT)
def rotate_into_cache(
    qkv_at: Any,
    q_at: Any,
    own_at: Any,
    other_at: Any,
    q_gain_at: Any,
    k_gain_at: Any,
    k_at: Any,
    v_at: Any,
    rows: Any,
    N: Any,
    G: Any,
    H: Any,
    dim: Any,
    slots: Any,
    slot: Any,
    floor: Any,
    like: Any,
) -> None:
    qkv, q = numbers(qkv_at, (rows, N + 2 * G, H), like), numbers(q_at, (rows, N, H), like)
    k, v = numbers(k_at, (rows, G, slots, H), like), numbers(v_at, (rows, G, slots, H), like)
    own, other = singles(own_at, (rows, dim)), singles(other_at, (rows, dim))
    q_gain = singles(q_gain_at, (H if q_gain_at else 0,))
    k_gain = singles(k_gain_at, (H if k_gain_at else 0,))
    room = np.empty(H, np.float32)
    for r in range(rows):
        for n in range(N):
            _rotate(qkv[r, n], own[r], other[r], q_gain, floor, room, q[r, n], like)
        for g in range(G):
            _rotate(qkv[r, N + g], own[r], other[r], k_gain, floor, room, k[r, g, slot], like)
            x, y = qkv[r, N + G + g], v[r, g, slot]
            for d in range(H):
                y[d] = x[d]


@njit(inline="always", error_model="numpy")
def _scores(query: Any, k: Any, p: Any) -> None:
    """p = k query. Four keys at a time, for four independent sums."""
    used, width = len(p), len(query)
    whole = used // 4 * 4
    for s in range(0, whole, 4):
        k0, k1, k2, k3 = k[s], k[s + 1], k[s + 2], k[s + 3]
        z0, z1, z2, z3 = float32(0), float32(0), float32(0), float32(0)
        for d in range(width):
            z0 += query[d] * wide(k0[d])
            z1 += query[d] * wide(k1[d])
            z2 += query[d] * wide(k2[d])
            z3 += query[d] * wide(k3[d])
        p[s], p[s + 1], p[s + 2], p[s + 3] = z0, z1, z2, z3
    for s in range(whole, used):
        k0 = k[s]
        z0 = float32(0)
        for d in range(width):
            z0 += query[d] * wide(k0[d])
        p[s] = z0


@njit(inline="always", error_model="numpy")
def _shares(p: Any) -> None:
    """Softmax, in place."""
    top, total = p[0], float32(0)
    for s in range(len(p)):
        top = max(top, p[s])
    for s in range(len(p)):
        p[s] = exp(p[s] - top)
        total += p[s]
    by = float32(1) / total
    for s in range(len(p)):
        p[s] *= by


@njit(inline="always", error_model="numpy")
def _sums(p: Any, v: Any, sums: Any) -> None:
    """sums += p v, four values at a time."""
    used, width = len(p), len(sums)
    whole = used // 4 * 4
    for s in range(0, whole, 4):
        v0, v1, v2, v3 = v[s], v[s + 1], v[s + 2], v[s + 3]
        p0, p1, p2, p3 = p[s], p[s + 1], p[s + 2], p[s + 3]
        for d in range(width):
            sums[d] += p0 * wide(v0[d]) + p1 * wide(v1[d]) + p2 * wide(v2[d]) + p3 * wide(v3[d])
    for s in range(whole, used):
        v0, p0 = v[s], p[s]
        for d in range(width):
            sums[d] += p0 * wide(v0[d])


@njit(**HOW)
def _attend(
    share: Any,
    q_at: Any,
    k_at: Any,
    v_at: Any,
    seen_at: Any,
    out_at: Any,
    H: Any,
    used: Any,
    scale: Any,
    softcap: Any,
    like: Any,
) -> None:
    """Attention for the queries of one row that share a key head: q and out [share, H], k and v [used, H]."""
    q, out = numbers(q_at, (share, H), like), numbers(out_at, (share, H), like)
    k, v = numbers(k_at, (used, H), like), numbers(v_at, (used, H), like)
    seen = truths(seen_at, (used if seen_at else 0,))
    query, sums, p = np.empty(H, np.float32), np.empty(H, np.float32), np.empty(used, np.float32)
    for n in range(share):
        x, y = q[n], out[n]
        for d in range(H):
            query[d] = wide(x[d]) * scale
            sums[d] = float32(0)
        _scores(query, k, p)
        if softcap > 0:
            for s in range(used):  # tanh z = 1 - 2 / (1 + e^2z)
                p[s] = softcap - float32(2) * softcap / (float32(1) + exp(float32(2) * p[s] / softcap))
        if seen_at:
            for s in range(used):
                p[s] = p[s] if seen[s] else float32(-1e30)
        _shares(p)
        _sums(p, v, sums)
        for d in range(H):
            y[d] = narrow(sums[d], like)


@njit(inline="always")
def _bytes(like: Any) -> Any:
    """Bytes of one number."""
    return 4 if isinstance(like, float) else 2


@loop(*[_INT] * 11, _FLOAT, _FLOAT, parallel=True)
def attend_cached(
    q_at: Any,
    k_at: Any,
    v_at: Any,
    seen_at: Any,
    out_at: Any,
    rows: Any,
    N: Any,
    G: Any,
    H: Any,
    slots: Any,
    used: Any,
    scale: Any,
    softcap: Any,
    like: Any,
) -> None:
    share = N // G
    for task in prange(rows * G):
        size = _bytes(like)
        mine, held = task * share * H * size, task * slots * H * size
        seen = seen_at + task // G * used if seen_at else 0
        _attend(
            share, q_at + mine, k_at + held, v_at + held, seen, out_at + mine, H, used, scale, softcap, like
        )
