"""The loops of `fused`, compiled by numba and kept on disk: on addresses of contiguous arrays, bf16 if not said otherwise.

numba knows no bf16: its 16 bits are widened to fp32 and rounded back. All is in this file, for numba keeps what it compiled until the
file of the function changes, whatever changes elsewhere. Loops are written for LLVM to make vectors of: no branch, no 64-bit integer, no call.
B rows, N query heads, G key heads, X = N + 2 G, H head features, R features that turn, S slots, D width, F hidden features.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, float32, njit, prange, types
from numba.extending import intrinsic

LOOSE = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be made in any order, as a vector makes them; infinities and NaN keep their meaning."""

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


def kernel(*arguments: Any, parallel: bool = False) -> Any:
    """Compile for these argument types, once on this machine; the lock of Python is let go meanwhile."""
    how: dict[str, Any] = {"fastmath": LOOSE, "error_model": "numpy", "nogil": True, "parallel": parallel}

    def compiled(function: Any) -> Any:
        try:
            return njit(arguments, cache=True, **how)(function)
        except RuntimeError:  # no folder to keep it in: once in each process
            return njit(arguments, **how)(function)

    return compiled


@intrinsic
def wide(typing: Any, bits: Any) -> Any:
    """The fp32 number of 16 bits of bf16."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return types.float32(types.uint16), make


@intrinsic
def narrow(typing: Any, number: Any) -> Any:
    """The 16 bits of a number rounded to bf16, to even where it stands between two."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(builder.add(bits, _I32(0x7FFF)), odd)
        # What is no number stays none: its bits could be rounded up to those of one.
        none = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.lshr(builder.select(none, _I32(0x7FC00000), rounded), _I32(16)), _I16)

    return types.uint16(types.float32), make


@intrinsic
def _whole(typing: Any, number: Any) -> Any:
    """The next whole number below."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [_F32]), args)

    return types.float32(types.float32), make


@intrinsic
def _power(typing: Any, whole: Any) -> Any:
    """2 to a whole number from -126 to 127."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        exponent = builder.add(builder.fptosi(args[0], _I32), _I32(127))
        return builder.bitcast(builder.shl(exponent, _I32(23)), _F32)

    return types.float32(types.float32), make


@intrinsic
def _clamp(typing: Any, number: Any, low: Any, high: Any) -> Any:
    """What is no number stays none."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, low, high = args
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        return builder.select(builder.fcmp_ordered(">", x, high), high, x)

    return types.float32(types.float32, types.float32, types.float32), make


@njit(inline="always", error_model="numpy")
def exp(x: Any) -> Any:
    """e^x in fp32 within 2e-7 of itself, from e^-87 to e^88 (Cody and Waite's reduction, a polynomial of degree 7 as in Cephes' expf)."""
    x = _clamp(x, float32(-87.0), float32(88.0))
    k = _whole(x * float32(1.44269504) + float32(0.5))
    r = x - k * float32(0.693359375) + k * float32(2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    return (p * r * r + r + float32(1.0)) * _power(k)


def _pointer(kind: Any) -> Any:
    @intrinsic
    def at(typing: Any, address: Any) -> Any:
        pointer = types.CPointer(kind)

        def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), make

    return at


_at16, _at32, _at8 = _pointer(types.uint16), _pointer(types.float32), _pointer(types.uint8)


@njit(inline="always")
def halves(address: Any, shape: Any) -> Any:
    """The contiguous array of bf16 at an address."""
    return carray(_at16(address), shape)


@njit(inline="always")
def singles(address: Any, shape: Any) -> Any:
    """The contiguous array of fp32 at an address."""
    return carray(_at32(address), shape)


@njit(inline="always")
def truths(address: Any, shape: Any) -> Any:
    """The contiguous array of bool at an address."""
    return carray(_at8(address), shape)


_INT, _FLOAT = types.int64, types.float32


@kernel(_INT, _INT, _INT, _INT, _INT, _FLOAT)
def rms(x_at: Any, gain_at: Any, out_at: Any, rows: Any, width: Any, floor: Any) -> None:
    x, out = halves(x_at, (rows, width)), halves(out_at, (rows, width))
    gain = singles(gain_at, (width,))
    for r in range(rows):
        total = float32(0)
        for d in range(width):
            total += wide(x[r, d]) * wide(x[r, d])
        by = float32(1) / np.sqrt(total + floor)
        for d in range(width):
            out[r, d] = narrow(wide(x[r, d]) * by * gain[d])


@kernel(_INT, _INT, _INT, _INT, _FLOAT, _FLOAT)
def gated(gu_at: Any, out_at: Any, rows: Any, hidden: Any, slope: Any, bend: Any) -> None:
    gu, out = halves(gu_at, (rows, 2 * hidden)), halves(out_at, (rows, hidden))
    for r in range(rows):
        gate, up, y = gu[r, :hidden], gu[r, hidden:], out[r]
        for d in range(hidden):
            g = wide(gate[d])
            y[d] = narrow(g / (float32(1) + exp(-(slope + bend * g * g) * g)) * wide(up[d]))


@njit(inline="always", error_model="numpy")
def _turn(x: Any, own: Any, other: Any, gain: Any, floor: Any, room: Any, y: Any) -> None:
    """One head: normalised where it has a gain, its first features turned, the others as they are."""
    width, dim = len(x), len(own)
    for d in range(width):
        room[d] = wide(x[d])
    if len(gain):
        total = float32(0)
        for d in range(width):
            total += room[d] * room[d]
        by = float32(1) / np.sqrt(total + floor)
        for d in range(width):
            room[d] = wide(narrow(room[d] * by * gain[d]))
    half = dim // 2
    for d in range(half):
        y[d] = narrow(room[d] * own[d] + room[d + half] * other[d])
    for d in range(half, dim):
        y[d] = narrow(room[d] * own[d] + room[d - half] * other[d])
    for d in range(dim, width):
        y[d] = narrow(room[d])


@kernel(*[_INT] * 15, _FLOAT)
def turned(
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
) -> None:
    qkv, q = halves(qkv_at, (rows, N + 2 * G, H)), halves(q_at, (rows, N, H))
    k, v = halves(k_at, (rows, G, slots, H)), halves(v_at, (rows, G, slots, H))
    own, other = singles(own_at, (rows, dim)), singles(other_at, (rows, dim))
    q_gain = singles(q_gain_at, (H if q_gain_at else 0,))
    k_gain = singles(k_gain_at, (H if k_gain_at else 0,))
    room = np.empty(H, np.float32)
    for r in range(rows):
        for n in range(N):
            _turn(qkv[r, n], own[r], other[r], q_gain, floor, room, q[r, n])
        for g in range(G):
            _turn(qkv[r, N + g], own[r], other[r], k_gain, floor, room, k[r, g, slot])
            x, y = qkv[r, N + G + g], v[r, g, slot]
            for d in range(H):
                y[d] = x[d]


@njit(inline="always", error_model="numpy")
def _scores(query: Any, k: Any, p: Any) -> None:
    """p = k query. Four keys at a time: four sums that do not wait for each other."""
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


@kernel(*[_INT] * 11, _FLOAT, _FLOAT, parallel=True)
def looked(
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
) -> None:
    q, out = halves(q_at, (rows, N, H)), halves(out_at, (rows, N, H))
    k, v = halves(k_at, (rows, G, slots, H)), halves(v_at, (rows, G, slots, H))
    seen = truths(seen_at, (rows if seen_at else 0, used))
    share = N // G
    for task in prange(rows * G):
        r, g = task // G, task % G
        query, sums, p = np.empty(H, np.float32), np.empty(H, np.float32), np.empty(used, np.float32)
        for n in range(g * share, (g + 1) * share):
            x, y = q[r, n], out[r, n]
            for d in range(H):
                query[d] = wide(x[d]) * scale
                sums[d] = float32(0)
            _scores(query, k[r, g], p)
            if softcap > 0:
                for s in range(used):  # tanh z = 1 - 2 / (1 + e^2z)
                    p[s] = softcap - float32(2) * softcap / (float32(1) + exp(float32(2) * p[s] / softcap))
            if seen_at:
                for s in range(used):
                    p[s] = p[s] if seen[r, s] else float32(-1e30)
            _shares(p)
            _sums(p, v[r, g], sums)
            for d in range(H):
                y[d] = narrow(sums[d])
