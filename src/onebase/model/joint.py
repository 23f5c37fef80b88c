"""Matrices that read the same input, multiplied as one where a CPU kernel does it. M rows, O outputs, I inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from onebase.model.derived import Derived, Place, place
from onebase.model.kernels import Product, dense_product, has_onednn, int4_product, int8_product
from onebase.model.store import Int4, Int8, Stored

FEW_ROWS = {8: 16, 4: 64}
"""By bits: up to here their kernel wins over making the matrix dense and multiplying by that (a core with AMX, 1536 x 576)."""


@dataclass(frozen=True)
class Part:
    """A matrix [O, I], as numbers or in few bits, its bias [O], and where these stand."""

    matrix: Tensor | Stored
    bias: Tensor | None
    places: tuple[Place, ...]


class HasPart(Protocol):
    """What has one matrix that multiplies."""

    @property
    def part(self) -> Part: ...


@dataclass(frozen=True)
class Packed:
    """The product of packed parts, for at most so many numbers of x; None where there is no kernel for them."""

    product: Product | None
    most: int


class Joint:
    """Packs the parts when it is first asked to multiply, keeps what it packed, and packs anew when a part changes.

    It works in bf16 on a CPU, on frozen matrices, where no gradient is wanted: decoding and scoring. Elsewhere each part multiplies for
    itself, which is the reference.
    """

    def __init__(self, *owners: HasPart) -> None:
        self._owners = owners
        self._made: Derived[Packed] = Derived()

    def __call__(self, x: Tensor) -> Tensor | None:
        """x [..., I] to [..., sum of O], the parts' outputs side by side; None where there is no kernel for it."""
        if x.dtype != torch.bfloat16 or torch.is_grad_enabled() or x.device.type != "cpu":
            return None
        if torch.compiler.is_compiling():
            return None
        made = self.packed()
        if made.product is None or x.numel() > made.most:
            return None
        shape = x.shape
        return made.product(x.reshape(-1, shape[-1])).view(*shape[:-1], -1)

    def packed(self) -> Packed:
        """The parts as they are packed now."""
        made = self._made.current()
        if made is not None:
            return made
        places = [place for owner in self._owners for place in owner.part.places]
        return self._made.make(places, lambda: pack(self._owners))


def pack(owners: Sequence[HasPart]) -> Packed:
    """Parts packed for the kernel of their kind. There is none for what may still learn, or where the parts are of several kinds."""
    parts = [owner.part for owner in owners]
    biases = [p.bias for p in parts]
    int8 = [p.matrix for p in parts if isinstance(p.matrix, Int8)]
    int4 = [p.matrix for p in parts if isinstance(p.matrix, Int4)]
    dense = [p.matrix for p in parts if isinstance(p.matrix, Tensor)]
    plain = all(type(m) in (Tensor, nn.Parameter) and m.is_floating_point() for m in dense)
    learns = any(isinstance(t, Tensor) and t.requires_grad for p in parts for t in (p.matrix, p.bias))
    product: Product | None = None
    most = 2**62
    if learns or not has_onednn():
        pass
    elif len(dense) == len(parts):
        product = dense_product(dense, biases) if plain else None
    elif len(int8) == len(parts):
        if all(m.d_out % 16 == 0 and m.d_in % 32 == 0 for m in int8):
            product = int8_product([m.codes_OI for m in int8], [m.scale_O for m in int8], biases)
            most = FEW_ROWS[8] * int8[0].d_in
    elif len(int4) == len(parts):
        outputs, group = sum(m.d_out for m in int4), int4[0].group
        if outputs % 16 == 0 and group % 32 == 0 and all(m.group == group for m in int4):
            codes, scales, lows = zip(*((m.codes_OJ, m.scale_OG, m.low_OG) for m in int4), strict=True)
            product, most = int4_product(codes, scales, lows, biases, group), FEW_ROWS[4] * int4[0].d_in
    return Packed(product, most)


def places_of(owner: nn.Module, matrix: Stored | None) -> tuple[Place, ...]:
    """Where an owner's `weight`, `store` and `bias` stand, and what is in its store."""
    found = [place(owner, name) for name in ("weight", "bias", "store")]
    if matrix is not None:
        found += [place(matrix, name) for name in matrix._parameters]
    return tuple(found)
