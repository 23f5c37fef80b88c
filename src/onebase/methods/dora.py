"""The DoRA module: LoRA that also trains the magnitude of each output row. O outputs, I inputs."""

import torch
from torch import Tensor, nn

from onebase.methods.lowrank import Lora, exact
from onebase.model.kernels.weight_cache import WeightCache, place
from onebase.model.proj import Proj


class Dora(Lora):
    """DoRA (2402.09353): W' = m (W + delta) / ||W + delta||, row by row; `m_O` is trained and starts as the norms of W's rows.

    As in the paper (section 4.3) no gradient flows through the norm. A row of zeros has no direction and is not scaled.
    """

    def __init__(
        self, d_in: int, d_out: int, rank: int, scaling: float, device: torch.device | None = None
    ) -> None:
        super().__init__(d_in, d_out, rank, scaling, device)
        self.m_O = nn.Parameter(torch.ones(d_out, device=device))
        self._gain: WeightCache[Tensor] = WeightCache()

    @torch.no_grad()
    def reset(self, generator: torch.Generator, proj: Proj) -> None:
        super().reset(generator, proj)
        self.m_O.copy_(row_norms(proj.matrix_OI(exact(proj))))

    def whole(self, x: Tensor, proj: Proj) -> Tensor | None:
        return None

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        gain_O = self.gain_O(proj)
        plain = y if proj.bias is None else y - proj.bias.to(y.dtype)
        return (gain_O - 1).to(x.dtype) * plain + gain_O.to(x.dtype) * self.low(x)

    def gain_O(self, proj: Proj) -> Tensor:
        """The factor of each output of W + delta. It is cached where nothing is trained."""
        if any(p.requires_grad for p in self.parameters()):
            return self._computed(proj)
        cached = self._gain.current()
        if cached is not None:
            return cached
        places = [*proj.part.places, *(place(self, n) for n in self._parameters)]
        return self._gain.make(places, lambda: self._computed(proj))

    def merged_OI(self, proj: Proj) -> Tensor:
        return self.gain_O(proj)[:, None] * super().merged_OI(proj)

    def _computed(self, proj: Proj) -> Tensor:
        with torch.no_grad():
            norm_O = row_norms(super().merged_OI(proj))
        nonzero_O = norm_O > 0  # 0 / 0 has no gradient either, so zeros are excluded before the division
        return torch.where(nonzero_O, self.m_O / torch.where(nonzero_O, norm_O, 1), 1)


def row_norms(weight_OI: Tensor) -> Tensor:
    """Euclidean norms of the rows, [O]."""
    out: Tensor = torch.linalg.vector_norm(weight_OI, dim=1)
    return out
