"""Norms that a vector of conditions shifts and scales, and gates on what follows them (adaLN-Zero, 2212.09748). B batch, T time, D width."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.model.proj import AdapterRouting, Proj


@dataclass(frozen=True)
class Adapted:
    """The change of one part of a block, each [B, 1, D]. The gate multiplies the part's output."""

    shift_B1D: Tensor
    scale_B1D: Tensor
    gate_B1D: Tensor

    def shifted(self, x_BTD: Tensor) -> Tensor:
        """What a norm gives, scaled by 1 + scale and shifted."""
        return torch.addcmul(self.shift_B1D, x_BTD, 1 + self.scale_B1D)


def adapted(adapt: Proj, condition_BD: Tensor, routing: AdapterRouting | None) -> tuple[Adapted, Adapted]:
    """The changes of attention and feed-forward, by a block's projection to [B, 1, 6 D]."""
    each = adapt(F.silu(condition_BD)[:, None], routing).chunk(6, -1)
    return Adapted(*each[:3]), Adapted(*each[3:])
