"""Few rows times a matrix as it is stored, in fp32: compiled by numba and kept on disk, on addresses. R rows, O outputs, I inputs, g inputs a group.

A tile is a few rows of x times a few rows of the matrix, all its sums in registers, eight numbers a register: written as LLVM code, for no
compiler makes it of loops. Matrices of numbers are read as they lie; so are few bits for one row; for several rows four rows of the
matrix at a time are made fp32 in the cache. Sums are fp32.
"""

from typing import Any

from llvmlite import ir
from numba import carray, float32, get_thread_id, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from onebase.model.loops import HOW, LOOSE, Compiled, singles

LANES = 8
BLOCK = 16
"""Rows of a matrix that one thread takes at a time."""
FIELDS = 5
"""int64 of a block: addresses of its weights, scales and lowest values; its first column in the output; its rows."""
PRODUCT = 7
"""int64 of a product: its bits, the address and the number of its blocks, I, O, g (0 but for 4 bits), the address of its bias or 0."""

_F16, _F32, _I8, _I32, _I64 = ir.HalfType(), ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_V, _V8, _V32 = (ir.VectorType(t, LANES) for t in (_F32, _I8, _I32))
_ZERO = ir.Constant(_V, [0.0] * LANES)
_FAST = tuple(sorted(LOOSE))


class _Code:
    """LLVM code under way: addresses are 64-bit integers."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    def at(self, address: Any, index: Any, size: int) -> Any:
        return self.b.add(address, self.b.mul(index, _I64(size)))

    def load(self, address: Any, kind: Any, align: int) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def variable(self, value: Any) -> Any:
        """A place that LLVM turns into a register."""
        return cgutils.alloca_once_value(self.b, value)

    def add_to(self, place: Any, x: Any, y: Any) -> None:
        """place += x y."""
        product = self.b.fmul(x, y, flags=_FAST)
        self.b.store(self.b.fadd(self.b.load(place), product, flags=_FAST), place)

    def steps(self, start: Any, stop: Any, step: int) -> Any:
        return cgutils.for_range_slice(self.b, start, stop, _I64(step), intp=_I64)

    def spread(self, number: Any) -> Any:
        """A register full of one number."""
        one = self.b.insert_element(ir.Constant(_V, ir.Undefined), number, _I32(0))
        return self.b.shuffle_vector(one, one, ir.Constant(_V32, [0] * LANES))

    def sum(self, vector: Any) -> Any:
        """The sum of a register's numbers."""
        width = LANES
        while width > 1:
            width //= 2
            low, high = (
                self.b.shuffle_vector(
                    vector,
                    vector,
                    ir.Constant(ir.VectorType(_I32, width), list(range(k * width, (k + 1) * width))),
                )
                for k in (0, 1)
            )
            vector = self.b.fadd(low, high, flags=_FAST)
        return self.b.extract_element(vector, _I32(0))

    def weights(self, address: Any, size: int, several: bool) -> Any:
        """The fp32 of one number or of a register full of them: stored in `size` bytes."""
        if size == 4:
            return self.load(address, _V if several else _F32, 4)
        codes = self.load(address, _V8 if several else _I8, 1)
        return self.b.sitofp(self.b.sext(codes, _V32 if several else _I32), _V if several else _F32)


def _tile(rows: int, outputs: int, chains: int, size: int) -> Any:
    """out [rows, outputs] = x [rows, I] w^T [outputs, I] of numbers of `size` bytes: fp32, or int8 times a scale an output.

    Sums are kept `chains` times over, so that none waits for the one before. Of (address, bytes from row to row): w, x, out.
    """

    @intrinsic
    def tile(
        typing: Any, w: Any, w_row: Any, scales: Any, x: Any, x_row: Any, out: Any, out_row: Any, inputs: Any
    ) -> Any:
        def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w, w_row, scales, x, x_row, out, out_row, inputs = args
            c, pairs = _Code(builder), [(r, o) for r in range(rows) for o in range(outputs)]
            ws = [c.at(w, w_row, o) for o in range(outputs)]
            xs = [c.at(x, x_row, r) for r in range(rows)]
            sums = {(p, k): c.variable(_ZERO) for p in pairs for k in range(chains)}
            whole = builder.mul(builder.sdiv(inputs, _I64(LANES * chains)), _I64(LANES * chains))
            with c.steps(_I64(0), whole, LANES * chains) as (i, _):
                for k in range(chains):
                    at = builder.add(i, _I64(k * LANES))
                    given = [c.load(c.at(row, at, 4), _V, 4) for row in xs]
                    for o in range(outputs):
                        weights = c.weights(c.at(ws[o], at, size), size, True)
                        for r in range(rows):
                            c.add_to(sums[(r, o), k], weights, given[r])
            last = {}
            for p in pairs:
                vector = builder.load(sums[p, 0])
                for k in range(1, chains):
                    vector = builder.fadd(vector, builder.load(sums[p, k]), flags=_FAST)
                last[p] = c.variable(c.sum(vector))
            with c.steps(whole, inputs, 1) as (i, _):
                for r, o in pairs:
                    number = c.weights(c.at(ws[o], i, size), size, False)
                    c.add_to(last[r, o], number, c.load(c.at(xs[r], i, 4), _F32, 4))
            for r, o in pairs:
                y = builder.load(last[r, o])
                if size == 1:
                    y = builder.fmul(y, c.load(builder.add(scales, _I64(4 * o)), _F32, 4), flags=_FAST)
                c.store(y, builder.add(c.at(out, out_row, r), _I64(4 * o)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), make

    return tile


def _tile4(outputs: int) -> Any:
    """out [outputs] = x [I] w^T of codes of 4 bits, two to a byte, fp16 scales and lowest values for each group of g inputs.

    x: the even inputs, then the odd ones; sums: the sum of x over each group.
    """

    @intrinsic
    def tile(
        typing: Any, w: Any, scales: Any, lows: Any, x: Any, sums: Any, out: Any, inputs: Any, group: Any
    ) -> Any:
        def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            w, scales, lows, x, sums, out, inputs, group = args
            c, two = _Code(builder), _I64(2)
            half, bytes_in, groups = (
                builder.sdiv(inputs, two),
                builder.sdiv(group, two),
                builder.sdiv(inputs, group),
            )
            odd = c.at(x, half, 4)
            parts = [[c.variable(_ZERO) for _ in (0, 1)] for _ in range(outputs)]
            wholes = [c.variable(_ZERO) for _ in range(outputs)]
            rests = [c.variable(_F32(0.0)) for _ in range(outputs)]
            with c.steps(_I64(0), groups, 1) as (g, _):
                for part in parts:
                    for place in part:
                        builder.store(_ZERO, place)
                first = builder.mul(g, bytes_in)
                with c.steps(first, builder.add(first, bytes_in), LANES) as (j, _):
                    given = [c.load(c.at(at, j, 4), _V, 4) for at in (x, odd)]
                    for o, part in enumerate(parts):
                        row = builder.add(c.at(w, half, o), j)
                        codes = builder.zext(c.load(row, _V8, 1), _V32)
                        low = builder.and_(codes, ir.Constant(_V32, [15] * LANES))
                        high = builder.lshr(codes, ir.Constant(_V32, [4] * LANES))
                        for place, code, numbers in zip(part, (low, high), given, strict=True):
                            c.add_to(place, builder.sitofp(code, _V), numbers)
                of_group = c.load(c.at(sums, g, 4), _F32, 4)
                for o, part in enumerate(parts):
                    at = builder.add(builder.mul(groups, _I64(o)), g)
                    scale, least = (
                        builder.fpext(c.load(c.at(a, at, 2), _F16, 2), _F32) for a in (scales, lows)
                    )
                    both = builder.fadd(builder.load(part[0]), builder.load(part[1]), flags=_FAST)
                    c.add_to(wholes[o], c.spread(scale), both)
                    c.add_to(rests[o], least, of_group)
            for o in range(outputs):
                y = builder.fadd(c.sum(builder.load(wholes[o])), builder.load(rests[o]), flags=_FAST)
                c.store(y, builder.add(out, _I64(4 * o)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), make

    return tile


@intrinsic
def _half(typing: Any, address: Any) -> Any:
    """The fp16 at an address, as fp32."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(_Code(builder).load(args[0], _F16, 2), _F32)

    return types.float32(types.int64), make


@intrinsic
def _row4(typing: Any, codes: Any, scale: Any, low: Any, even: Any, odd: Any, n: Any) -> Any:
    """even, odd [n] = code * scale + low of the low and the high four bits of n bytes, n a multiple of 8."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, scale, low, even, odd, n = args
        c = _Code(builder)
        by, least = c.spread(scale), c.spread(low)
        with c.steps(_I64(0), n, LANES) as (j, _):
            wide = builder.zext(c.load(builder.add(codes, j), _V8, 1), _V32)
            low = builder.and_(wide, ir.Constant(_V32, [15] * LANES))
            high = builder.lshr(wide, ir.Constant(_V32, [4] * LANES))
            for code, out in ((low, even), (high, odd)):
                # Not fused: the same numbers as torch's, to the bit.
                c.store(builder.fadd(builder.fmul(builder.sitofp(code, _V), by), least), c.at(out, j, 4))
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.float32, *[types.int64] * 3), make


def _pointer(kind: Any) -> Any:
    @intrinsic
    def at(typing: Any, address: Any) -> Any:
        def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.int64), make

    return at


at_int64, _at_int8, _at_uint8 = _pointer(types.int64), _pointer(types.int8), _pointer(types.uint8)

# What is quickest on two cores with AVX2 (Zen 3), of 1 to 6 rows and outputs and 1 to 4 chains.
_one, _one_by_one, _two, _two_by_one = (
    _tile(1, 4, 2, 4),
    _tile(1, 1, 2, 4),
    _tile(2, 4, 1, 4),
    _tile(2, 1, 2, 4),
)
_one8 = _tile(1, 1, 4, 1)  # one stream of memory: 24 GB/s, where two side by side have 10 to 12
_one4, _one4_by_one = _tile4(4), _tile4(1)


def _rows_by(two: Any, one: Any) -> Any:
    """A product of all rows of x with as many rows of a matrix of fp32 as the tiles take: two rows of x at a time, then one."""

    @njit(**HOW)
    def product(w: Any, x: Any, out: Any, rows: Any, inputs: Any, outputs: Any) -> None:
        step, across = 4 * inputs, 4 * outputs
        for r in range(0, rows - 1, 2):
            two(w, step, 0, x + r * step, step, out + r * across, across, inputs)
        if rows % 2:
            one(w, step, 0, x + (rows - 1) * step, step, out + (rows - 1) * across, across, inputs)

    return product


_four, _single = _rows_by(_two, _one), _rows_by(_two_by_one, _one_by_one)


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
    """n rows of 8 bits as numbers at `room`."""
    scale = singles(scales, (n,))
    for k in range(n):
        codes, row, by = (
            carray(_at_int8(w + k * inputs), (inputs,)),
            singles(room + 4 * k * inputs, (inputs,)),
            scale[k],
        )
        for i in range(inputs):
            row[i] = float32(codes[i]) * by


@njit(**HOW)
def _codes4(w: Any, scales: Any, lows: Any, room: Any, n: Any, inputs: Any, group: Any) -> None:
    """n rows of 4 bits as numbers at `room`, those of even inputs before those of odd ones."""
    half, groups, share = inputs // 2, inputs // group, group // 2
    for k in range(n):
        row = room + 4 * k * inputs
        for g in range(groups):
            at, j = 2 * (k * groups + g), g * share
            codes, even = w + k * half + j, row + 4 * j
            _row4(codes, _half(scales + at), _half(lows + at), even, even + 4 * half, share)


@njit(**HOW)
def _block8(
    w: Any, scales: Any, count: Any, x: Any, out: Any, rows: Any, inputs: Any, outputs: Any, room: Any
) -> None:
    """As `_numbers`, of 8 bits. room: fp32 [4, I] for several rows."""
    if rows == 1:
        for o in range(count):
            _one8(w + o * inputs, inputs, scales + 4 * o, x, 0, out + 4 * o, 0, inputs)
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
    """As `_numbers`, of 4 bits. parted, room: of `_parted` and `_block8`."""
    half, of_row, sums = inputs // 2, 2 * (inputs // group), parted + 4 * rows * inputs
    if rows == 1:
        whole = count // 4 * 4
        for o in range(0, whole, 4):
            s, m = scales + o * of_row, lows + o * of_row
            _one4(w + o * half, s, m, parted, sums, out + 4 * o, inputs, group)
        for o in range(whole, count):
            s, m = scales + o * of_row, lows + o * of_row
            _one4_by_one(w + o * half, s, m, parted, sums, out + 4 * o, inputs, group)
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
    """In threads, for all kinds at once and with next to nothing inside: what numba makes such loops of costs seconds to compile."""
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
    """The fp32 that a product of so many rows wants for itself."""
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
        codes, row, by = carray(_at_int8(w + r * inputs), (inputs,)), out[r], scale[r]
        for i in range(inputs):
            row[i] = float32(codes[i]) * by


_INT = types.int64
times = Compiled(_times, (_INT,) * 5)
wide4 = Compiled(_wide4, (_INT,) * 8, parallel=True)
wide8 = Compiled(_wide8, (_INT,) * 5, parallel=True)
