"""Quantised storage of a matrix: whole numbers of 8 or 4 bits and their scales. O outputs, I inputs, g inputs share a scale.

What is stored is exact and the same on every device; what a kernel wants is a cache made at run time. Few rows of x go through the
kernels that PyTorch has for CPUs, many through a dense copy, and so does every backward pass: the matrix itself never learns.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.errors import ConfigError
from onebase.model.config import StorageConfig

FEW_ROWS = 8
"""Up to here the kernels that read few bits win over a dense product (2 cores with AMX; at 16 rows they lose)."""


class Stored(nn.Module):
    """A matrix [O, I] kept in few bits. `dense` and `rows` give its numbers back, `forward` multiplies by it."""

    d_in: int
    d_out: int

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix [O, I] as numbers."""
        return self.rows(None, dtype)

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Rows of the matrix, [*index.shape, I]; all for None."""
        raise NotImplementedError

    def few(self, x_MI: Tensor) -> Tensor | None:
        """x W^T [M, O] by a kernel that reads the few bits; None where there is none for this device or number format."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x W^T, [..., O]."""
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return out
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        if x.numel() <= FEW_ROWS * self.d_in:
            y_MO = self.few(x.reshape(-1, self.d_in))
            if y_MO is not None:
                return y_MO.view(*x.shape[:-1], self.d_out)
        return F.linear(x, self.dense(x.dtype))


class _Product(torch.autograd.Function):
    """x W^T whose backward makes the matrix dense again instead of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Stored) -> Tensor:
        ctx.stored = stored
        return stored._product(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.stored.dense(grad.dtype), None


class Int8(Stored):
    """Symmetric, one scale a row: w = code * scale."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.d_in, self.d_out = d_in, d_out
        self.codes_OI = nn.Parameter(torch.zeros(d_out, d_in, dtype=torch.int8), requires_grad=False)
        self.scale_O = nn.Parameter(torch.ones(d_out), requires_grad=False)

    def take(self, weight_OI: Tensor) -> None:
        """Round a matrix to the nearest that can be kept."""
        w = weight_OI.detach().float()
        scale_O = w.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.scale_O.data = scale_O
        self.codes_OI.data = (w / scale_O[:, None]).round().clamp(-127, 127).to(torch.int8)

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        codes, scale = (
            (self.codes_OI, self.scale_O) if index is None else (self.codes_OI[index], self.scale_O[index])
        )
        return (codes * scale[..., None]).to(dtype)

    def few(self, x_MI: Tensor) -> Tensor | None:
        if x_MI.device.type != "cpu":
            return None
        out: Tensor = torch.ops.aten._weight_int8pack_mm(x_MI, self.codes_OI, self.scale_O.to(x_MI.dtype))
        return out


class Int4(Stored):
    """Asymmetric, a scale and a lowest value for every g inputs: w = code * scale + low, code 0 .. 15, two to a byte."""

    def __init__(self, d_in: int, d_out: int, group: int) -> None:
        super().__init__()
        if d_in % group or d_in % 2:
            raise ConfigError(
                f"{d_in} inputs cannot be cut into groups of {group}", "choose a group that divides them"
            )
        self.d_in, self.d_out, self.group = d_in, d_out, group
        self.codes_OJ = nn.Parameter(torch.zeros(d_out, d_in // 2, dtype=torch.uint8), requires_grad=False)
        shape = (d_out, d_in // group)
        self.scale_OG = nn.Parameter(torch.ones(shape, dtype=torch.float16), requires_grad=False)
        self.low_OG = nn.Parameter(torch.zeros(shape, dtype=torch.float16), requires_grad=False)
        self._kernel: tuple[Tensor, Tensor] | None = None

    def take(self, weight_OI: Tensor) -> None:
        """Round a matrix to the nearest that can be kept, each group between its least and its greatest value."""
        w_OGg = weight_OI.detach().float().view(self.d_out, -1, self.group)
        low, high = w_OGg.amin(-1), w_OGg.amax(-1)
        scale = ((high - low) / 15).to(torch.float16)
        low = low.to(torch.float16)
        step = torch.where(scale > 0, scale, 1).float()
        codes = ((w_OGg - low.float()[..., None]) / step[..., None]).round().clamp(0, 15)
        codes_OI = codes.to(torch.uint8).view(self.d_out, self.d_in)
        self.scale_OG.data, self.low_OG.data = scale, low
        self.codes_OJ.data = codes_OI[:, ::2] | (codes_OI[:, 1::2] << 4)
        self._kernel = None

    def rows(self, index: Tensor | None, dtype: torch.dtype) -> Tensor:
        parts = (self.codes_OJ, self.scale_OG, self.low_OG)
        pairs, scale, low = parts if index is None else (p[index] for p in parts)
        codes = torch.stack((pairs & 15, pairs >> 4), -1).flatten(-2).unflatten(-1, (-1, self.group))  # type: ignore[no-untyped-call]
        return (codes * scale.float()[..., None] + low.float()[..., None]).flatten(-2).to(dtype)

    def few(self, x_MI: Tensor) -> Tensor | None:
        # In fp32 the kernel is thirty times slower than a dense product; its scales are in x's format.
        if x_MI.device.type != "cpu" or x_MI.dtype != torch.bfloat16 or self.d_out % 16 or self.group % 32:
            return None
        if self._kernel is None:
            codes_OI = torch.stack((self.codes_OJ & 15, self.codes_OJ >> 4), -1).flatten(-2).int()
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1)
            scale, low = self.scale_OG.float(), self.low_OG.float()  # the kernel's codes stand around 8
            scales_GO2 = torch.stack((scale, low + 8 * scale), -1).transpose(0, 1).contiguous()
            self._kernel = packed, scales_GO2.to(torch.bfloat16)
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            x_MI, self._kernel[0], self.group, self._kernel[1]
        )
        return out


def stored(bits: int, group: int, d_in: int, d_out: int) -> Int8 | Int4:
    """Empty room for a matrix in `bits`."""
    return Int8(d_in, d_out) if bits == 8 else Int4(d_in, d_out, group)


def storage_bytes(cfg: StorageConfig, d_in: int, d_out: int) -> int:
    """Bytes of one matrix as it is stored."""
    if cfg.bits == 8:
        return d_in * d_out + 4 * d_out
    return d_in * d_out // 2 + 4 * d_out * (d_in // cfg.group)
