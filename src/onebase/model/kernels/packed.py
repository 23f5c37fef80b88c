"""Multiplies matrices with the same input as one, where a CPU kernel supports it. M rows, O outputs, I inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from onebase.model.kernels.compiled import direct
from onebase.model.kernels.onednn import Product, dense_product, has_onednn, int4_product, int8_product
from onebase.model.kernels.quickest import most_rows
from onebase.model.kernels.storage import Int4, Int8, Stored
from onebase.model.kernels.weight_cache import Place, WeightCache, place

FEW_ROWS = {8: 16, 4: 64}
"""By bits, in bf16: up to this many rows the kernel is faster than dequantizing and a dense product (a core with AMX, 1536 x 576)."""


@dataclass(frozen=True)
class WeightPart:
    """A matrix [O, I], dense or quantized, its bias [O], and the locations of both."""

    matrix: Tensor | Stored
    bias: Tensor | None
    places: tuple[Place, ...]


class HasPart(Protocol):
    """An object with one weight matrix."""

    @property
    def part(self) -> WeightPart: ...


@dataclass(frozen=True)
class Packed:
    """The product of packed parts, for inputs of at most `most` elements; None where there is no kernel for them."""

    product: Product | None
    most: int


class PackedLinear:
    """Packs the parts at the first product, caches the result, and packs again when a part changes.

    Only on a CPU, with frozen matrices and without gradients: decoding and scoring, in bf16 and, for quantized matrices, in fp32.
    Otherwise each part multiplies separately, which is the reference.
    """

    def __init__(self, *owners: HasPart) -> None:
        self._owners = owners
        self._made: WeightCache[dict[tuple[torch.dtype, bool], Packed]] = WeightCache()

    def __call__(self, x: Tensor, decoding: bool = False) -> Tensor | None:
        """x [..., I] to [..., sum of O], the parts' outputs concatenated; None where there is no kernel for it. decoding: see `ready`."""
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
            return None
        if x.dtype not in (torch.bfloat16, torch.float32):
            return None
        made = self.ready(x.dtype, decoding)
        if made.product is None or x.numel() > made.most:
            return None
        shape = x.shape
        return made.product(x.reshape(-1, shape[-1])).view(*shape[:-1], -1)

    def ready(self, dtype: torch.dtype, decoding: bool) -> Packed:
        """The packed parts for x in `dtype`. decoding: x are generated tokens, for which our own loops are worth a second of loading for fp32
        matrices too."""
        made = self._made.current()
        if made is None:
            places = [place for owner in self._owners for place in owner.part.places]
            made = self._made.make(places, dict)
        key = dtype, decoding
        if key not in made:
            made[key] = pack(self._owners, dtype, decoding)
        return made[key]


def pack(owners: Sequence[HasPart], dtype: torch.dtype, decoding: bool) -> Packed:
    """Pack parts for the kernel of their kind. There is none for trainable parts, or for parts of several kinds."""
    parts = [owner.part for owner in owners]
    if any(isinstance(t, Tensor) and t.requires_grad for p in parts for t in (p.matrix, p.bias)):
        return Packed(None, 0)
    kinds = {type(p.matrix) for p in parts}
    native = dtype == torch.bfloat16 and has_onednn()
    found = _packed_bf16(parts, kinds) if native else None
    numbers = dtype == torch.float32 and decoding and kinds <= {Tensor, nn.Parameter}
    if found is None and (numbers or kinds in ({Int8}, {Int4})):
        found = _as_stored(parts, dtype)
    return found or Packed(None, 0)


def _packed_bf16(parts: Sequence[WeightPart], kinds: set[type]) -> Packed | None:
    """Pack for oneDNN's kernel, or for the 4-bit kernel, where the shapes allow it."""
    biases = [p.bias for p in parts]
    if kinds <= {Tensor, nn.Parameter}:
        dense = [p.matrix for p in parts if isinstance(p.matrix, Tensor)]
        return (
            Packed(dense_product(dense, biases), 2**62) if all(m.is_floating_point() for m in dense) else None
        )
    int8 = [p.matrix for p in parts if isinstance(p.matrix, Int8)]
    if len(int8) == len(parts):
        if not all(m.d_out % 16 == 0 and m.d_in % 32 == 0 for m in int8):
            return None
        return Packed(
            int8_product([m.codes_OI for m in int8], [m.scale_O for m in int8], biases),
            FEW_ROWS[8] * int8[0].d_in,
        )
    int4 = [p.matrix for p in parts if isinstance(p.matrix, Int4)]
    if len(int4) < len(parts):
        return None
    outputs, group = sum(m.d_out for m in int4), int4[0].group
    if outputs % 16 or group % 32 or any(m.group != group for m in int4):
        return None
    codes, scales, lows = zip(*((m.codes_OJ, m.scale_OG, m.low_OG) for m in int4), strict=True)
    return Packed(int4_product(codes, scales, lows, biases, group), FEW_ROWS[4] * int4[0].d_in)


def _as_stored(parts: Sequence[WeightPart], dtype: torch.dtype) -> Packed | None:
    """Use our own fp32 loops on the weights in place; a bf16 x is widened, because emulated bf16 is slower than anything else."""
    module = direct()
    if module is None:
        return None
    stored: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
    groups = {m.group for p in parts if isinstance(m := p.matrix, Int4)}
    group = next(iter(groups)) if len(groups) == 1 else None
    if len(groups) > 1 or (group is not None and group % 16):
        return None
    for p in parts:
        m = p.matrix
        if isinstance(m, Int4):
            stored.append((m.codes_OJ, m.scale_OG, m.low_OG))
        elif isinstance(m, Int8):
            stored.append((m.codes_OI, m.scale_O, None))
        elif isinstance(m, Tensor) and m.dtype == torch.float32:
            stored.append((m, None, None))
        else:
            return None
    if not all(t is None or t.is_contiguous() for s in stored for t in s):
        return None
    first = parts[0].matrix
    inputs = first.d_in if isinstance(first, Stored) else first.shape[1]
    biases = [p.bias for p in parts]
    bias = None
    if any(b is not None for b in biases):
        each = [
            torch.zeros(len(s[0])) if b is None else b.detach().float()
            for s, b in zip(stored, biases, strict=True)
        ]
        bias = torch.cat(each)
    run: Product = module.Direct(stored, inputs, bias, group)
    kind = "4 bits" if group is not None else "8 bits" if isinstance(first, Stored) else "fp32"
    most = most_rows(kind) * inputs
    if dtype == torch.float32:
        return Packed(run, most)
    return Packed(lambda x: run(x.float()).to(dtype), most)


def places_of(owner: nn.Module, matrix: Stored | None) -> tuple[Place, ...]:
    """The locations of an owner's `weight`, `store` and `bias`, and of the tensors in its store."""
    places = [place(owner, name) for name in ("weight", "bias", "store")]
    if matrix is not None:
        places += [place(matrix, name) for name in matrix._parameters]
    return tuple(places)
