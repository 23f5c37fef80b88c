"""A head on pairs of tokens: how far apart two residues of a protein are, in bins (a distogram, as AlphaFold has it, 10.1038/s41586-019-1923-7).

B texts, L residues, D width, C bins, R rank, S classes of separation in the chain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.head import Head, LayerConfig
from onebase.errors import ConfigError

RANK = 64
"""Of the product of two states, at most."""
NEAREST, PER_DOUBLING, CLASSES = 6, 8, 50
"""Separations are classed by their logarithm: `PER_DOUBLING` classes as they double, from `NEAREST` residues on."""


def separation_classes(length: int, device: torch.device | None = None) -> Tensor:
    """The class of |i - j| for each pair, int64 [L, L]."""
    at_L = torch.arange(length, device=device)
    apart_LL = (at_L[:, None] - at_L[None]).abs().clamp(min=NEAREST)
    return (PER_DOUBLING * (apart_LL / NEAREST).log2() + 1e-4).long().clamp(max=CLASSES - 1)


class PairHead(Head):
    """z_ij = W (x_i + x_j) + b + P (u_i * v_j + u_j * v_i) / 2 + S[class of |i - j|], where u and v are projections of normalised states x: symmetric, and
    no tensor of pairs and features is formed."""

    def __init__(
        self, features: int, outputs: int, layer: LayerConfig | None = None, vocabulary: int | None = None
    ) -> None:
        super().__init__(features, outputs, layer, vocabulary)
        rank = min(RANK, features)
        self.left_RD = nn.Parameter(torch.zeros(rank, features))
        self.right_RD = nn.Parameter(torch.zeros(rank, features))
        self.product_CR = nn.Parameter(torch.zeros(outputs, rank))
        self.separation_SC = nn.Parameter(torch.zeros(CLASSES, outputs))

    @torch.no_grad()
    def reset(self, generator: torch.Generator, counts_SC: Tensor) -> None:
        """Starting weights: the head says what the separation alone does, by how often each distance occurs at it (counts_SC)."""
        for p in (self.left_RD, self.right_RD):
            nn.init.normal_(p, 0.0, p.shape[1] ** -0.5, generator)
        all_C = counts_SC.sum(0) + 1.0
        smooth_SC = counts_SC + 10.0 * all_C / all_C.sum()  # classes that were hardly seen are like all
        self.separation_SC.copy_((smooth_SC / smooth_SC.sum(1, keepdim=True)).log())

    def pairs(self, h_BLD: Tensor) -> Tensor:
        """Logits of the bins, fp32 [B, C, L, L]."""
        x_BLD = F.layer_norm(h_BLD.float(), h_BLD.shape[-1:])
        one_BCL = F.linear(x_BLD, self.weight_CP).transpose(1, 2)
        u_BLR, v_BLR = F.linear(x_BLD, self.left_RD), F.linear(x_BLD, self.right_RD)
        both_BCLL = torch.einsum("blr,cr,bmr->bclm", u_BLR, self.product_CR, v_BLR)
        z_BCLL = (both_BCLL + both_BCLL.transpose(2, 3)) / 2 + (one_BCL[..., None] + one_BCL[:, :, None])
        apart_CLL = self.separation_SC[separation_classes(h_BLD.shape[1], h_BLD.device)].permute(2, 0, 1)
        return z_BCLL + apart_CLL + self.bias_C[:, None, None]

    def forward(self, x_BP: Tensor, counts_BV: object = None) -> Tensor:
        raise ConfigError("a head on pairs reads residues, not vectors of texts", "use it for contacts")
