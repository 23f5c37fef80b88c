"""Products with matrices packed by oneDNN, or for its 4-bit kernel, on CPUs with bf16 arithmetic. M rows, O outputs, I inputs.

Matrices are packed at run time (one row of 576 x 1536 on a core with AMX: bf16 by aten 260 us, packed by oneDNN 130, 4 bits 50).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onebase.model.device import has_bf16
from onebase.model.kernels.compiled import is_plain

Product = Callable[[Tensor], Tensor]
"""x [M, I] to x W^T (+ b) [M, O], in x's dtype: bf16 for packed matrices, fp32 for our own loops (`direct`)."""


@functools.cache
def has_onednn() -> bool:
    """Whether oneDNN is available and multiplies bf16 natively on this chip."""
    supported = torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(supported) and has_bf16(torch.device("cpu")) and not is_plain()


def dense_product(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Product:
    """Matrices [O_i, I], concatenated, in bf16, packed by oneDNN."""
    # Packed for one row: this layout is best for up to 16 rows too (up to 1.6 times faster than packed for any number).
    packed: Any = torch.ops.mkldnn._reorder_linear_weight(_joined(weights, torch.bfloat16), 1)
    bias = _bias(weights, biases, torch.bfloat16)
    product = torch.ops.mkldnn._linear_pointwise.default

    def run(x_MI: Tensor) -> Tensor:
        out: Tensor = product(x_MI, packed, bias, "none", [], "")
        return out

    return run


def int8_product(
    codes: Sequence[Tensor], scales: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> Product:
    """Codes int8 [O_i, I] with a scale per row, fp32 [O_i].

    Uses the 4-bit kernel twice: a code + 128 is 16 h + l with h and l of 4 bits each, so the product is that of two such matrices, without
    loss. The 8-bit kernels are slower (weights only) or round the input to 8 bits too, which raised perplexity by 6% for a model whose
    inputs have a few large values.
    """
    whole_OI = _joined(codes, torch.int8).to(torch.int32) + 128
    outputs, inputs = whole_OI.shape
    packed: Any = _packed4(torch.cat((whole_OI >> 4, whole_OI & 15)))
    group = next(g for g in (256, 128, 64, 32) if inputs % g == 0)
    # (code - 8) * scale + low: 16 h - 128 for the first half, l for the second.
    halves = torch.tensor([[16.0, 0.0]] * outputs + [[1.0, 8.0]] * outputs, dtype=torch.bfloat16)
    scales_GO2 = halves.expand(inputs // group, -1, -1).contiguous()
    scale_O = torch.cat(tuple(scales)).float()
    bias = _bias(codes, biases, torch.float32)
    product = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    def run(x_MI: Tensor) -> Tensor:
        both_M2O: Tensor = product(x_MI, packed, group, scales_GO2)
        y_MO = both_M2O[:, :outputs].float().add_(both_M2O[:, outputs:]).mul_(scale_O)
        return (y_MO if bias is None else y_MO.add_(bias)).to(x_MI.dtype)

    return run


def int4_product(
    codes: Sequence[Tensor],
    scales: Sequence[Tensor],
    lows: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    group: int,
) -> Product:
    """Codes uint8 [O_i, I / 2], two per byte, with a scale and a minimum for each `group` of inputs [O_i, I / g]."""
    pairs_OJ = torch.cat(tuple(codes))
    codes_OI = torch.stack((pairs_OJ & 15, pairs_OJ >> 4), -1).flatten(-2).int()
    packed: Any = _packed4(codes_OI)
    scale, low = torch.cat(tuple(scales)).float(), torch.cat(tuple(lows)).float()
    # The kernel's codes are centred at 8.
    scales_GO2 = torch.stack((scale, low + 8 * scale), -1).transpose(0, 1).contiguous().to(torch.bfloat16)
    bias = _bias(codes, biases, torch.bfloat16)
    product = torch.ops.aten._weight_int4pack_mm_for_cpu.default

    def run(x_MI: Tensor) -> Tensor:
        y_MO: Tensor = product(x_MI, packed, group, scales_GO2)
        return y_MO if bias is None else y_MO + bias

    return run


def _packed4(codes_OI: Tensor) -> Any:
    """Codes 0 .. 15, int32 [O, I], in the kernel's layout."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_OI, 1)


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    made = [p.detach().to(dtype) for p in parts]
    return made[0].contiguous() if len(made) == 1 else torch.cat(made)


def _bias(parts: Sequence[Tensor], biases: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor | None:
    """The concatenated biases, zeros where a part has none; None where no part has one."""
    if all(b is None for b in biases):
        return None
    made = [
        torch.zeros(len(p), dtype=dtype) if b is None else b.detach().to(dtype)
        for p, b in zip(parts, biases, strict=True)
    ]
    return torch.cat(made)
