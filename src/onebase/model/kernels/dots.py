"""Few rows times a matrix as it is stored, in fp32, on addresses, by the tiles of `tiles`. R rows, O outputs, I inputs, g inputs per group.

fp32 matrices are read in place; so are quantized ones for one row. For several rows, four rows of the matrix at a time are dequantized in
the cache.
"""

from typing import Any

from numba import carray, float32, get_thread_id, njit, prange, types

from onebase.model.kernels.machine_code import HOW, Compiled, singles
from onebase.model.kernels.tiles import (
    at_int8,
    at_int64,
    half_at,
    one,
    one4,
    one4_by_one,
    one8,
    one_by_one,
    row4,
    two,
    two_by_one,
)

BLOCK = 16
"""Rows of a matrix that one thread processes at a time."""
FIELDS = 5
"""int64 fields of a block: addresses of its weights, scales and minimums; its first column in the output; its rows."""
PRODUCT = 7
"""int64 fields of a product: bits, address and number of its blocks, I, O, g (0 except for 4 bits), address of its bias or 0."""


def _rows_by(two: Any, one: Any) -> Any:
    """A product of all rows of x with as many fp32 matrix rows as the tiles have: two rows of x at a time, then one."""

    @njit(**HOW)
    def product(w: Any, x: Any, out: Any, rows: Any, inputs: Any, outputs: Any) -> None:
        step, across = 4 * inputs, 4 * outputs
        for r in range(0, rows - 1, 2):
            two(w, step, 0, x + r * step, step, out + r * across, across, inputs)
        if rows % 2:
            one(w, step, 0, x + (rows - 1) * step, step, out + (rows - 1) * across, across, inputs)

    return product


_four, _single = _rows_by(two, one), _rows_by(two_by_one, one_by_one)


@njit(**HOW)
def _numbers(w: Any, count: Any, x: Any, out: Any, rows: Any, inputs: Any, outputs: Any) -> None:
    """out [R, count] of all O outputs = x times `count` rows of fp32 at w."""
    whole = count // 4 * 4
    for o in range(0, whole, 4):
        _four(w + 4 * o * inputs, x, out + 4 * o, rows, inputs, outputs)
    for o in range(whole, count):
        _single(w + 4 * o * inputs, x, out + 4 * o, rows, inputs, outputs)


@njit(**HOW)
def _codes8(w: Any, scales: Any, room: Any, n: Any, inputs: Any) -> None:
    """Dequantize n rows of 8 bits to `room`."""
    scale = singles(scales, (n,))
    for k in range(n):
        codes, row, by = (
            carray(at_int8(w + k * inputs), (inputs,)),
            singles(room + 4 * k * inputs, (inputs,)),
            scale[k],
        )
        for i in range(inputs):
            row[i] = float32(codes[i]) * by


@njit(**HOW)
def _codes4(w: Any, scales: Any, lows: Any, room: Any, n: Any, inputs: Any, group: Any) -> None:
    """Dequantize n rows of 4 bits to `room`, even inputs before odd ones."""
    half, groups, share = inputs // 2, inputs // group, group // 2
    for k in range(n):
        row = room + 4 * k * inputs
        for g in range(groups):
            at, j = 2 * (k * groups + g), g * share
            codes, even = w + k * half + j, row + 4 * j
            row4(codes, half_at(scales + at), half_at(lows + at), even, even + 4 * half, share)


@njit(**HOW)
def _block8(
    w: Any, scales: Any, count: Any, x: Any, out: Any, rows: Any, inputs: Any, outputs: Any, room: Any
) -> None:
    """Like `_numbers`, for 8 bits. room: fp32 [4, I] for several rows."""
    if rows == 1:
        for o in range(count):
            one8(w + o * inputs, inputs, scales + 4 * o, x, 0, out + 4 * o, 0, inputs)
        return
    for o in range(0, count, 4):
        n = min(4, count - o)
        _codes8(w + o * inputs, scales + 4 * o, room, n, inputs)
        _numbers(room, n, x, out + 4 * o, rows, inputs, outputs)


@njit(**HOW)
def _block4(
    w: Any,
    scales: Any,
    lows: Any,
    count: Any,
    parted: Any,
    out: Any,
    rows: Any,
    inputs: Any,
    outputs: Any,
    group: Any,
    room: Any,
) -> None:
    """Like `_numbers`, for 4 bits. parted, room: as in `_parted` and `_block8`."""
    half, of_row, sums = inputs // 2, 2 * (inputs // group), parted + 4 * rows * inputs
    if rows == 1:
        whole = count // 4 * 4
        for o in range(0, whole, 4):
            s, m = scales + o * of_row, lows + o * of_row
            one4(w + o * half, s, m, parted, sums, out + 4 * o, inputs, group)
        for o in range(whole, count):
            s, m = scales + o * of_row, lows + o * of_row
            one4_by_one(w + o * half, s, m, parted, sums, out + 4 * o, inputs, group)
        return
    for o in range(0, count, 4):
        n, at = min(4, count - o), o * of_row
        _codes4(w + o * half, scales + at, lows + at, room, n, inputs, group)
        _numbers(room, n, parted, out + 4 * o, rows, inputs, outputs)


@njit(**HOW)
def _parted(x_at: Any, parted_at: Any, rows: Any, inputs: Any, group: Any) -> None:
    """fp32 [R, I], x with its even inputs before its odd ones, and [I / g], the sums of the groups of its first row."""
    x, half = singles(x_at, (rows, inputs)), inputs // 2
    parted, sums = (
        singles(parted_at, (rows, inputs)),
        singles(parted_at + 4 * rows * inputs, (inputs // group,)),
    )
    for r in range(rows):
        for j in range(half):
            parted[r, j], parted[r, half + j] = x[r, 2 * j], x[r, 2 * j + 1]
    for g in range(inputs // group):
        total = float32(0)
        for i in range(g * group, (g + 1) * group):
            total += x[0, i]
        sums[g] = total


@njit(**HOW)
def _block(
    bits: Any,
    block_at: Any,
    x_at: Any,
    out_at: Any,
    rows: Any,
    inputs: Any,
    outputs: Any,
    group: Any,
    room_at: Any,
) -> None:
    block = carray(at_int64(block_at), (FIELDS,))
    w, scales, lows, out, count = block[0], block[1], block[2], out_at + 4 * block[3], block[4]
    if bits == 32:
        _numbers(w, count, x_at, out, rows, inputs, outputs)
    elif bits == 8:
        _block8(w, scales, count, x_at, out, rows, inputs, outputs, room_at)
    else:
        _block4(w, scales, lows, count, x_at, out, rows, inputs, outputs, group, room_at)


@njit(parallel=True, **HOW)
def _blocks(
    bits: Any,
    blocks_at: Any,
    n: Any,
    x_at: Any,
    out_at: Any,
    rows: Any,
    inputs: Any,
    outputs: Any,
    group: Any,
    room_at: Any,
) -> None:
    """Parallel over blocks, for all kinds, with a minimal loop body: numba needs seconds to compile each parallel loop."""
    for b in prange(n):
        room = room_at + get_thread_id() * 16 * inputs
        _block(bits, blocks_at + 8 * FIELDS * b, x_at, out_at, rows, inputs, outputs, group, room)


def _times(product_at: Any, x_at: Any, out_at: Any, rows: Any, room_at: Any) -> None:
    """out [R, O] = x [R, I] W^T (+ b). room: see `room`."""
    p = carray(at_int64(product_at), (PRODUCT,))
    bits, blocks_at, n, inputs, outputs, group, bias_at = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
    if bits == 4:
        _parted(x_at, room_at, rows, inputs, group)
        x_at, room_at = room_at, room_at + 4 * (rows * inputs + inputs // group)
    _blocks(bits, blocks_at, n, x_at, out_at, rows, inputs, outputs, group, room_at)
    if bias_at:
        bias = singles(bias_at, (outputs,))
        for r in range(rows):
            y = singles(out_at + 4 * r * outputs, (outputs,))
            for o in range(outputs):
                y[o] += bias[o]


def room(bits: int, inputs: int, group: int, rows: int, threads: int) -> int:
    """fp32 workspace of a product with this many rows."""
    four = 0 if bits == 32 or rows == 1 else 4 * threads * inputs
    return four + (rows * inputs + inputs // group if group else 0)


def _wide4(
    w: Any, scales: Any, lows: Any, out_at: Any, outputs: Any, inputs: Any, group: Any, room_at: Any
) -> None:
    """room: fp32 [threads, I]."""
    out, half, of_row = singles(out_at, (outputs, inputs)), inputs // 2, 2 * (inputs // group)
    for r in prange(outputs):
        row_at = room_at + get_thread_id() * 4 * inputs
        _codes4(w + r * half, scales + r * of_row, lows + r * of_row, row_at, 1, inputs, group)
        row, to = singles(row_at, (inputs,)), out[r]
        for j in range(half):
            to[2 * j], to[2 * j + 1] = row[j], row[half + j]


def _wide8(w: Any, scales: Any, out_at: Any, outputs: Any, inputs: Any) -> None:
    out, scale = singles(out_at, (outputs, inputs)), singles(scales, (outputs,))
    for r in prange(outputs):
        codes, row, by = carray(at_int8(w + r * inputs), (inputs,)), out[r], scale[r]
        for i in range(inputs):
            row[i] = float32(codes[i]) * by


_INT = types.int64
times = Compiled(_times, (_INT,) * 5)
wide4 = Compiled(_wide4, (_INT,) * 8, parallel=True)
wide8 = Compiled(_wide8, (_INT,) * 5, parallel=True)
