"""Tiles: a few rows of x times a few rows of a matrix, with all sums in registers of eight numbers. Written as LLVM code, because compilers
do not generate it from loops. R rows, O outputs, I inputs, g inputs per group.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from onebase.model.kernels.machine_code import LOOSE

LANES = 8

_F16, _F32, _I8, _I32, _I64 = ir.HalfType(), ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_V, _V8, _V32 = (ir.VectorType(t, LANES) for t in (_F32, _I8, _I32))
_ZERO = ir.Constant(_V, [0.0] * LANES)
_FAST = tuple(sorted(LOOSE))


class _Code:
    """Emits LLVM code; addresses are 64-bit integers."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    def at(self, address: Any, index: Any, size: int) -> Any:
        return self.b.add(address, self.b.mul(index, _I64(size)))

    def load(self, address: Any, kind: Any, align: int) -> Any:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=4)

    def variable(self, value: Any) -> Any:
        """A variable that LLVM turns into a register."""
        return cgutils.alloca_once_value(self.b, value)

    def add_to(self, place: Any, x: Any, y: Any) -> None:
        """place += x y."""
        product = self.b.fmul(x, y, flags=_FAST)
        self.b.store(self.b.fadd(self.b.load(place), product, flags=_FAST), place)

    def steps(self, start: Any, stop: Any, step: int) -> Any:
        return cgutils.for_range_slice(self.b, start, stop, _I64(step), intp=_I64)

    def spread(self, number: Any) -> Any:
        """Broadcast a number to a register."""
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
        """One value or a register of values as fp32, from storage of `size` bytes each."""
        if size == 4:
            return self.load(address, _V if several else _F32, 4)
        codes = self.load(address, _V8 if several else _I8, 1)
        return self.b.sitofp(self.b.sext(codes, _V32 if several else _I32), _V if several else _F32)


def _tile(rows: int, outputs: int, chains: int, size: int) -> Any:
    """out [rows, outputs] = x [rows, I] w^T [outputs, I] for weights of `size` bytes: fp32, or int8 times a scale per output.

    There are `chains` independent sums, to hide latency. w, x and out are given as (address, row stride in bytes).
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
    """out [outputs] = x [I] w^T for 4-bit codes, two per byte, with fp16 scales and minimums for each group of g inputs.

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
def half_at(typing: Any, address: Any) -> Any:
    """The fp16 at an address, as fp32."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(_Code(builder).load(args[0], _F16, 2), _F32)

    return types.float32(types.int64), make


@intrinsic
def row4(typing: Any, codes: Any, scale: Any, low: Any, even: Any, odd: Any, n: Any) -> Any:
    """even, odd [n] = code * scale + low for the low and the high four bits of n bytes, n a multiple of 8."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        codes, scale, low, even, odd, n = args
        c = _Code(builder)
        by, least = c.spread(scale), c.spread(low)
        with c.steps(_I64(0), n, LANES) as (j, _):
            wide = builder.zext(c.load(builder.add(codes, j), _V8, 1), _V32)
            low = builder.and_(wide, ir.Constant(_V32, [15] * LANES))
            high = builder.lshr(wide, ir.Constant(_V32, [4] * LANES))
            for code, out in ((low, even), (high, odd)):
                # Not fused: bitwise equal to torch's result.
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


at_int64, at_int8, at_uint8 = _pointer(types.int64), _pointer(types.int8), _pointer(types.uint8)

# The fastest on two cores with AVX2 (Zen 3), of 1 to 6 rows and outputs and 1 to 4 chains.
one, one_by_one, two, two_by_one = (
    _tile(1, 4, 2, 4),
    _tile(1, 1, 2, 4),
    _tile(2, 4, 1, 4),
    _tile(2, 1, 2, 4),
)
one8 = _tile(1, 1, 4, 1)  # one stream of memory: 24 GB/s, against 10 to 12 for two
one4, one4_by_one = _tile4(4), _tile4(1)
