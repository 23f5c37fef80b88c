"""Quantized storage of a matrix: integers of 8 or 4 bits and their scales. O outputs, I inputs, g inputs share a scale.

Stored values are exact and the same on every device; layouts for kernels are cached at run time (`packed`). Here the matrix is dequantized for each
product, also in the backward pass; it is never trained.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.errors import ConfigError
from onebase.model.config import StorageConfig
from onebase.model.kernels.compiled import loaded

BLOCK = 2**20
"""Values dequantized at a time: 4 MB of fp32."""


class Stored(nn.Module):
    """A quantized matrix [O, I]. `dense` and `rows` dequantize it, `forward` multiplies by it."""

    d_in: int
    d_out: int

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The dequantized matrix [O, I]."""
        return self.rows(None, dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
        """(start, end, rows start .. end of the matrix), in blocks that fit in the CPU cache."""
        step = max(1, BLOCK // self.d_in)
        for start in range(0, self.d_out, step):
            end = min(start + step, self.d_out)
            yield start, end, self.some(start, end, dtype)

    def some(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """Rows start .. end of the matrix: equal to `rows`, but faster if the compiled loops are loaded."""
        raise NotImplementedError

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Rows of the matrix, [*index.shape, I]; all for None."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x W^T, [..., O]."""
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return out
        return self.times(x)

    def times(self, x: Tensor) -> Tensor:
        """x W^T without a gradient."""
        parts = [F.linear(x, w) for _, _, w in self.blocks(x.dtype)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


class _Product(torch.autograd.Function):
    """x W^T whose backward dequantizes the matrix again instead of saving it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Stored) -> Tensor:
        ctx.stored = stored
        return stored.times(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total: Tensor | None = None
        for start, end, w in ctx.stored.blocks(grad.dtype):
            part = grad[..., start:end] @ w
            total = part if total is None else total.add_(part)
        assert total is not None
        return total, None


class Int8(Stored):
    """Symmetric, one scale per row: w = code * scale."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        self.codes_OI = nn.Parameter(torch.zeros(d_out, d_in, dtype=torch.int8), requires_grad=False)
        self.scale_O = nn.Parameter(torch.ones(d_out), requires_grad=False)

    def take(self, weight_OI: Tensor) -> None:
        """Quantize a matrix, rounding to nearest."""
        w = weight_OI.detach().float()
        scale_O = w.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.scale_O.data = scale_O
        self.codes_OI.data = (w / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8)

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        codes, scale = (
            (self.codes_OI, self.scale_O) if index is None else (self.codes_OI[index], self.scale_O[index])
        )
        return (codes * scale[..., None]).to(dtype)

    def some(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        codes, scale, loops = self.codes_OI[start:end], self.scale_O[start:end], _loops(self.codes_OI)
        if loops is None:
            return (codes * scale[..., None]).to(dtype)
        made: Tensor = loops.numbers(codes, scale, None, self.d_in)
        return made.to(dtype)


class Int4(Stored):
    """Asymmetric, a scale and a minimum per g inputs: w = code * scale + low, code 0 .. 15, two per byte."""

    def __init__(self, d_in: int, d_out: int, group: int) -> None:
        super().__init__()
        if d_in % group or d_in % 2:
            raise ConfigError(
                f"{d_in} inputs cannot be split into groups of {group}",
                "choose a group size that divides them",
            )
        self.d_in, self.d_out, self.group = d_in, d_out, group
        self.codes_OJ = nn.Parameter(torch.zeros(d_out, d_in // 2, dtype=torch.uint8), requires_grad=False)
        shape = (d_out, d_in // group)
        self.scale_OG = nn.Parameter(torch.ones(shape, dtype=torch.float16), requires_grad=False)
        self.low_OG = nn.Parameter(torch.zeros(shape, dtype=torch.float16), requires_grad=False)

    def take(self, weight_OI: Tensor) -> None:
        """Quantize a matrix, rounding to nearest, each group between its minimum and maximum."""
        w_OGg = weight_OI.detach().float().view(self.d_out, -1, self.group)
        low, high = w_OGg.amin(-1), w_OGg.amax(-1)
        scale = ((high - low) / 15).to(torch.float16)
        low = low.to(torch.float16)
        step = torch.where(scale > 0, scale, 1).float()
        codes = ((w_OGg - low.float()[..., None]) / step[..., None]).round().clamp(0, 15)
        codes_OI = codes.to(torch.uint8).view(self.d_out, self.d_in)
        self.scale_OG.data, self.low_OG.data = scale, low
        self.codes_OJ.data = codes_OI[:, ::2] | (codes_OI[:, 1::2] << 4)

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        parts = (self.codes_OJ, self.scale_OG, self.low_OG)
        return self._numbers(parts if index is None else tuple(p[index] for p in parts), dtype)

    def some(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        parts = self.codes_OJ[start:end], self.scale_OG[start:end], self.low_OG[start:end]
        loops = _loops(self.codes_OJ) if self.group % 16 == 0 else None
        if loops is None:
            return self._numbers(parts, dtype)
        made: Tensor = loops.numbers(*parts, self.d_in)
        return made.to(dtype)

    def _numbers(self, parts: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
        pairs, scale, low = parts
        codes = torch.stack((pairs & 15, pairs >> 4), -1).flatten(-2).unflatten(-1, (-1, self.group))  # type: ignore[no-untyped-call]
        return (codes * scale.float()[..., None] + low.float()[..., None]).flatten(-2).to(dtype)


def _loops(codes: Tensor) -> Any:
    """The compiled loops, if they are loaded and can read these codes."""
    return loaded() if codes.device.type == "cpu" and not torch.compiler.is_compiling() else None


def stored(bits: int, group: int, d_in: int, d_out: int) -> Int8 | Int4:
    """Empty storage for a matrix in `bits`."""
    return Int8(d_in, d_out) if bits == 8 else Int4(d_in, d_out, group)


def storage_bytes(cfg: StorageConfig, d_in: int, d_out: int) -> int:
    """Bytes of one matrix as it is stored."""
    if cfg.bits == 8:
        return d_in * d_out + 4 * d_out
    return d_in * d_out // 2 + 4 * d_out * (d_in // cfg.group)
