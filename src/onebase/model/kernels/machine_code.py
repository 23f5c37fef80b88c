"""Compiles loops to machine code with numba, on addresses of contiguous arrays in bf16 or fp32, with a cache on disk.

numba has no bf16: the 16 bits are widened to fp32 and rounded back. Loops are written so that LLVM can vectorise them: no branch, no 64-bit
integer, no call. Each is compiled per dtype at first use; the type of its last argument, `like`, selects the dtype.
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
"""Sums may be reordered for vectorisation; infinities and NaN keep their meaning."""

_I16, _I32, _F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()


_BF16, _FP32 = 0, 0.0
LIKE: dict[torch.dtype, int | float] = {torch.bfloat16: _BF16, torch.float32: _FP32}
"""Values of `like`: an int for bf16, a float for fp32."""


log = logging.getLogger(__name__)

SOURCES = ("machine_code", "loops", "tiles", "dots", "chain")
TEXT = hashlib.sha256(b"".join(Path(__file__).with_name(f"{n}.py").read_bytes() for n in SOURCES)).hexdigest()
"""Hash of all source files of compiled code."""
HOW: dict[str, Any] = {"fastmath": LOOSE, "error_model": "numpy", "nogil": True}
"""Options for all compiled functions. They release the GIL."""


class _Kept(FunctionCache):
    """numba's cache on disk, valid for one state of all `SOURCES`: numba itself checks only the file of the outermost function."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), TEXT)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        code = super().load_overload(sig, target_context)
        if code is None:
            _log_compiling()
        return code


@functools.cache
def _log_compiling() -> None:
    log.warning("compiling the decoding kernels for this processor, once: about half a minute")


class Compiled:
    """A function of addresses and numbers as machine code for these argument types: compiled at the first call, cached on disk if there is
    a writable folder. `inner` is the function for other loops to call."""

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
        except RuntimeError:  # no folder for the cache: compiled once per process
            _log_compiling()
        made.compile(self._arguments)
        made.disable_compile()
        return made


class Loop:
    """A function compiled for each dtype at first use. arguments: the types of all but the last argument. `inner` is the function for other
    loops to call."""

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
    """Decorator that turns a function into a `Loop`."""
    return lambda function: Loop(function, arguments, parallel)


@intrinsic
def wide(typing: Any, bits: Any) -> Any:
    """The fp32 value of 16 bits of bf16; an fp32 number unchanged."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if bits == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return types.float32(bits), make


@intrinsic
def narrow(typing: Any, number: Any, like: Any) -> Any:
    """The 16 bits of a number rounded to bf16, ties to even; in fp32 the number unchanged."""
    if like == types.float64:
        return types.float32(types.float32, like), lambda context, builder, signature, args: args[0]

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(builder.add(bits, _I32(0x7FFF)), odd)
        # NaN stays NaN: rounding its bits up could give a number.
        none = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.trunc(builder.lshr(builder.select(none, _I32(0x7FC00000), rounded), _I32(16)), _I16)

    return types.uint16(types.float32, like), make


@intrinsic
def _whole(typing: Any, number: Any) -> Any:
    """Floor."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [_F32]), args)

    return types.float32(types.float32), make


@intrinsic
def _power(typing: Any, whole: Any) -> Any:
    """2 to the power of an integer from -126 to 127."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        exponent = builder.add(builder.fptosi(args[0], _I32), _I32(127))
        return builder.bitcast(builder.shl(exponent, _I32(23)), _F32)

    return types.float32(types.float32), make


@intrinsic
def _clamp(typing: Any, number: Any, low: Any, high: Any) -> Any:
    """Clamp; NaN stays NaN."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, low, high = args
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        return builder.select(builder.fcmp_ordered(">", x, high), high, x)

    return types.float32(types.float32, types.float32, types.float32), make


@njit(inline="always", error_model="numpy")
def exp(x: Any) -> Any:
    """e^x in fp32, relative error 2e-7, from e^-87 to e^88 (Cody and Waite's reduction, a polynomial of degree 7 as in Cephes' expf)."""
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
