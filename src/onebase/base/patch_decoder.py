"""A small transformer that fills in hidden patches from the states of visible ones; it is dropped when training ends (MAE, 2111.06377).

N patches of one codec in a batch, M pictures or sounds, L patches of the longest, D width of the trunk, E of the decoder, P values of a patch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.config import BaseConfig, TextShape, text_base
from onebase.modality.patches.config import PatchConfig
from onebase.modality.patches.modules import positions
from onebase.model.mask import Cols
from onebase.model.trunk import Trunk, init_trunk


@dataclass(frozen=True)
class Places:
    """Of the patches of one codec in a batch, the visible and the hidden ones: whose they are [N], their number in it [N], coordinates [N, K], and where the
    trunk has its state, b * T + t, or -1 where it is hidden [N]."""

    owner_N: Tensor
    index_N: Tensor
    at_NK: Tensor
    state_N: Tensor


class PatchDecoder(nn.Module):
    """For each codec: a matrix from states, a vector that stands for hidden patches, and a matrix to the values of a patch; one trunk for all."""

    def __init__(self, base: BaseConfig, width: int, depth: int, head_dim: int) -> None:
        super().__init__()
        self.width = width
        codecs: dict[str, PatchConfig] = {k: c for k, c in base.codecs.items() if k != "text"}  # type: ignore[misc]
        states = base.trunks["text"].width
        self.enter = nn.ModuleDict({k: nn.Linear(states, width) for k in codecs})
        self.mask = nn.ParameterDict({k: nn.Parameter(torch.empty(width)) for k in codecs})
        self.leave = nn.ModuleDict({k: nn.Linear(width, c.values) for k, c in codecs.items()})
        shape = TextShape(width=width, depth=depth, head_dim=head_dim)
        self.trunk = Trunk("decoder", text_base(shape, "both").trunks["text"])

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Starting weights: matrices that keep the size of what they are given, patches that are predicted as zero."""
        generator = torch.Generator().manual_seed(seed)
        init_trunk(self.trunk, generator)
        for name in sorted(self.mask):
            enter, leave = self.enter[name], self.leave[name]
            assert isinstance(enter, nn.Linear) and isinstance(leave, nn.Linear)
            nn.init.normal_(enter.weight, 0.0, enter.in_features**-0.5, generator)
            nn.init.normal_(self.mask[name], 0.0, 1.0, generator)
            for p in (enter.bias, leave.weight, leave.bias):
                nn.init.zeros_(p)

    def forward(self, codec: str, h_BTD: Tensor, places: Places) -> Tensor:
        """The hidden patches of a codec in their order, as the decoder imagines them, fp32 [n, P]."""
        enter, leave = self.enter[codec], self.leave[codec]
        hidden_N = places.state_N < 0
        if not len(hidden_N):  # the gradient of its weights is zero and not missing
            nothing_D = h_BTD.reshape(-1, h_BTD.shape[-1])[:0].float()
            none: Tensor = leave(enter(nothing_D) + self.mask[codec])
            return none
        seen_nE = enter(h_BTD.reshape(-1, h_BTD.shape[-1])[places.state_N[~hidden_N]].float())
        x_NE = self.mask[codec].expand(len(hidden_N), -1)
        x_NE = x_NE.index_copy(0, (~hidden_N).nonzero()[:, 0], seen_nE)
        x_NE = x_NE + positions(places.at_NK, self.width)
        M, L = int(places.owner_N.max()) + 1, int(places.index_N.max()) + 1
        flat_N = places.owner_N * L + places.index_N
        x_MLE = x_NE.new_zeros(M * L, self.width).index_copy(0, flat_N, x_NE).reshape(M, L, self.width)
        doc = torch.full((M * L,), -1, device=flat_N.device).index_fill(0, flat_N, 0).reshape(M, L)
        y_MLE = self.trunk(x_MLE, Cols(torch.zeros_like(doc), doc)).hidden
        made: Tensor = leave(y_MLE.reshape(M * L, self.width)[flat_N[hidden_N]].float())
        return made


def normalised(patch_NP: Tensor) -> Tensor:
    """Each patch with mean 0 and deviation 1: what has no contrast is zero."""
    return F.layer_norm(patch_NP.float(), patch_NP.shape[-1:], eps=1e-6)


def places_of(targets: Mapping[str, Tensor], codec: str) -> Places:
    """The places of a codec's patches among the targets of a batch."""
    return Places(*(targets[f"{codec}.{k}"] for k in ("owner", "index", "at", "state")))
