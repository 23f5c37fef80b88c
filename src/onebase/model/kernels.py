"""What multiplies by a matrix on a CPU when nothing is learnt: weights packed for a kernel, made at run time. M rows, O outputs, I inputs.

Timings of one row of 576 x 1536 on two cores with AMX: bf16 by aten 200 us, packed by oneDNN 100; 8 bits 50; 4 bits 40. bf16 only: in fp32
the dense product is the reference, and these kernels round their input or their scales.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""x bf16 [M, I] to x W^T (+ b) bf16 [M, O]."""


@functools.cache
def has_onednn() -> bool:
    """Whether oneDNN is there and multiplies bf16 on this chip."""
    return bool(torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def dense_product(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Product:
    """Matrices [O_i, I] side by side, in bf16, packed by oneDNN."""
    packed: Any = torch.ops.mkldnn._reorder_linear_weight(_joined(weights, torch.bfloat16), None)
    bias = _bias(weights, biases, torch.bfloat16)
    product = torch.ops.mkldnn._linear_pointwise.default

    def run(x_MI: Tensor) -> Tensor:
        out: Tensor = product(x_MI, packed, bias, "none", [], "")
        return out

    return run


def int8_product(
    codes: Sequence[Tensor], scales: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> Product:
    """Codes int8 [O_i, I] with a scale a row, fp32 [O_i]. Each row of x is rounded to 8 bits as well, by its own largest value, so that
    a row says the same in any batch; sums are whole numbers."""
    packed: Any = torch.ops.onednn.qlinear_prepack(_joined(codes, torch.int8), None)
    scale_O = torch.cat(tuple(scales)).float()
    zero_O = torch.zeros(len(scale_O), dtype=torch.int8)
    bias = _bias(codes, biases, torch.float32)
    product = torch.ops.onednn.qlinear_pointwise.default

    def run(x_MI: Tensor) -> Tensor:
        x = x_MI.float()
        top_M1 = torch.linalg.vector_norm(x, float("inf"), -1, True).clamp_(min=1e-30)
        codes_MI = (x * (127.0 / top_M1)).round_().to(torch.int8)
        y_MO = product(codes_MI, 1.0, 0, packed, scale_O, zero_O, None, 1.0, 0, torch.float32, "none", [], "")
        y_MO = y_MO.mul_(top_M1 / 127.0)
        return (y_MO if bias is None else y_MO.add_(bias)).to(x_MI.dtype)

    return run


def int4_product(
    codes: Sequence[Tensor],
    scales: Sequence[Tensor],
    lows: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    group: int,
) -> Product:
    """Codes uint8 [O_i, I / 2], two to a byte, with a scale and a lowest value for each `group` of inputs [O_i, I / g]."""
    pairs_OJ = torch.cat(tuple(codes))
    codes_OI = torch.stack((pairs_OJ & 15, pairs_OJ >> 4), -1).flatten(-2).int()
    packed: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1)
    scale, low = torch.cat(tuple(scales)).float(), torch.cat(tuple(lows)).float()
    # The kernel's codes stand around 8.
    scales_GO2 = torch.stack((scale, low + 8 * scale), -1).transpose(0, 1).contiguous().to(torch.bfloat16)
    bias = _bias(codes, biases, torch.bfloat16)
    product = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    def run(x_MI: Tensor) -> Tensor:
        y_MO: Tensor = product(x_MI, packed, group, scales_GO2)
        return y_MO if bias is None else y_MO + bias

    return run


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    made = [p.detach().to(dtype) for p in parts]
    return made[0].contiguous() if len(made) == 1 else torch.cat(made)


def _bias(parts: Sequence[Tensor], biases: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor | None:
    """The biases side by side, zeros where a part has none; None where no part has one."""
    if all(b is None for b in biases):
        return None
    made = [
        torch.zeros(len(p), dtype=dtype) if b is None else b.detach().to(dtype)
        for p, b in zip(parts, biases, strict=True)
    ]
    return torch.cat(made)
