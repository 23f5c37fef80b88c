"""How loops become machine code: numba, on addresses of contiguous arrays in bf16 or fp32, kept on disk.

numba knows no bf16: its 16 bits are widened to fp32 and rounded back. Loops are written for LLVM to make vectors of: no branch, no 64-bit
integer, no call. Each is compiled for one number format when it is first asked for in it: the type of its last argument, `like`, says which.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import carray, float32, njit, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

LOOSE = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be made in any order, as a vector makes them; infinities and NaN keep their meaning."""

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


_BF16, _FP32 = 0, 0.0
LIKE: dict[torch.dtype, int | float] = {torch.bfloat16: _BF16, torch.float32: _FP32}
"""What is given as `like`: an int stands for bf16, a float for fp32."""


log = logging.getLogger(__name__)

SOURCES = ("machine_code", "loops", "tiles", "dots", "chain")
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
