"""The loops of `fused`, compiled by numba and kept on disk: on addresses of contiguous arrays in bf16 or fp32, sums in fp32.

numba knows no bf16: its 16 bits are widened to fp32 and rounded back. Loops are written for LLVM to make vectors of: no branch, no 64-bit
integer, no call.
Each loop is compiled for one number format when it is first asked for in it: the type of its last argument, `like`, says which.
B rows, N query heads, G key heads, X = N + 2 G, H head features, R features that turn, S slots, D width, F hidden features.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, float32, njit, prange, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

LOOSE = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be made in any order, as a vector makes them; infinities and NaN keep their meaning."""

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


_BF16, _FP32 = 0, 0.0
LIKE: dict[torch.dtype, int | float] = {torch.bfloat16: _BF16, torch.float32: _FP32}
"""What is given as `like`: an int stands for bf16, a float for fp32."""


log = logging.getLogger(__name__)

SOURCES = ("loops", "dots", "chain")
TEXT = hashlib.sha256(b"".join(Path(__file__).with_name(f"{n}.py").read_bytes() for n in SOURCES)).hexdigest()
"""Of the files that compiled code may come from."""
HOW: dict[str, Any] = {"fastmath": LOOSE, "error_model": "numpy", "nogil": True}
"""How all is compiled. The lock of Python is let go meanwhile."""


class _Kept(FunctionCache):
    """numba's code on disk, good for one state of all `SOURCES`: numba itself looks at the file of the outermost function alone."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), TEXT)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            _say_compiling()
        return found


@functools.cache
def _say_compiling() -> None:
    log.warning("compiling the loops of decoding for this processor, once: about half a minute")


class Compiled:
    """A function of addresses and numbers as machine code for these argument types: made at the first call, kept on disk where there is a
    folder for it. `inner` is the function for other loops to call."""

    def __init__(
        self, function: Callable[..., None], arguments: tuple[Any, ...], *, parallel: bool = False
    ) -> None:
        self.inner = njit(parallel=parallel, **HOW)(function)
        self._function, self._arguments, self._parallel = function, arguments, parallel
        self._made: Any = None

    def __call__(self, *arguments: int | float) -> None:
        if self._made is None:
            self._made = self._compile()
        self._made(*arguments)

    def _compile(self) -> Any:
        made = njit(parallel=self._parallel, **HOW)(self._function)
        try:
            made._cache = _Kept(self._function)
        except RuntimeError:  # no folder to keep it in: once in each process
            _say_compiling()
        made.compile(self._arguments)
        made.disable_compile()
        return made


class Loop:
    """A function compiled for each number format that it is asked for in. arguments: the types of all but the last argument. `inner` is
    the function for other loops to call."""

    def __init__(self, function: Callable[..., None], arguments: tuple[Any, ...], parallel: bool) -> None:
        self.inner = njit(parallel=parallel, **HOW)(function)
        self._made = {
            dtype: Compiled(
                function,
                (*arguments, types.int64 if isinstance(like, int) else types.float64),
                parallel=parallel,
            )
            for dtype, like in LIKE.items()
        }

    def __call__(self, dtype: torch.dtype, *arguments: int | float) -> None:
        self._made[dtype](*arguments, LIKE[dtype])


def loop(*arguments: Any, parallel: bool = False) -> Callable[[Callable[..., None]], Loop]:
    """Makes a `Loop` of a function."""
    return lambda function: Loop(function, arguments, parallel)


@intrinsic
def wide(typing: Any, bits: Any) -> Any:
    """The fp32 number of 16 bits of bf16; of an fp32 number itself."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if bits == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return types.float32(bits), make


@intrinsic
def narrow(typing: Any, number: Any, like: Any) -> Any:
    """The 16 bits of a number rounded to bf16, to even where it stands between two; in fp32 itself."""
    if like == types.float64:
        return types.float32(types.float32, like), lambda context, builder, signature, args: args[0]

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(builder.add(bits, _I32(0x7FFF)), odd)
        # What is no number stays none: its bits could be rounded up to those of one.
        none = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.lshr(builder.select(none, _I32(0x7FC00000), rounded), _I32(16)), _I16)

    return types.uint16(types.float32, like), make


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


_at32, _at8 = _pointer(types.float32), _pointer(types.uint8)


@intrinsic
def _at(typing: Any, address: Any, like: Any) -> Any:
    pointer = types.CPointer(types.float32 if like == types.float64 else types.uint16)

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.int64, like), make


@njit(inline="always")
def numbers(address: Any, shape: Any, like: Any) -> Any:
    """The contiguous array of bf16 or fp32 at an address."""
    return carray(_at(address, like), shape)


@njit(inline="always")
def singles(address: Any, shape: Any) -> Any:
    """The contiguous array of fp32 at an address."""
    return carray(_at32(address), shape)


@njit(inline="always")
def truths(address: Any, shape: Any) -> Any:
    """The contiguous array of bool at an address."""
    return carray(_at8(address), shape)


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
def _turn(x: Any, own: Any, other: Any, gain: Any, floor: Any, room: Any, y: Any, like: Any) -> None:
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
            room[d] = wide(narrow(room[d] * by * gain[d], like))
    half = dim // 2
    for d in range(half):
        y[d] = narrow(room[d] * own[d] + room[d + half] * other[d], like)
    for d in range(half, dim):
        y[d] = narrow(room[d] * own[d] + room[d - half] * other[d], like)
    for d in range(dim, width):
        y[d] = narrow(room[d], like)


@loop(*[_INT] * 15, _FLOAT)
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
            _turn(qkv[r, n], own[r], other[r], q_gain, floor, room, q[r, n], like)
        for g in range(G):
            _turn(qkv[r, N + g], own[r], other[r], k_gain, floor, room, k[r, g, slot], like)
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


@njit(**HOW)
def _look(
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
    """The queries of one row that share a key head: q and out [share, H], k and v [used, H]."""
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
    """Of one number."""
    return 4 if isinstance(like, float) else 2


@loop(*[_INT] * 11, _FLOAT, _FLOAT, parallel=True)
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
    like: Any,
) -> None:
    share = N // G
    for task in prange(rows * G):
        size = _bytes(like)
        mine, held = task * share * H * size, task * slots * H * size
        seen = seen_at + task // G * used if seen_at else 0
        _look(
            share, q_at + mine, k_at + held, v_at + held, seen, out_at + mine, H, used, scale, softcap, like
        )
