"""The learned ends of latents: noised latents to vectors, time and class to conditions, states to noise.

B batch, C channels, S side in latents, T patches, D width, L conditions, P numbers of a patch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.modality.latents.config import TIMES, LatentsConfig
from onebase.modality.patches.modules import positions
from onebase.modality.patches.pictures import grid
from onebase.model.config import StorageConfig
from onebase.model.mask import Cols


class Condition(nn.Module):
    """A time and a class as one vector; the class after the last stands for none."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.time_in = nn.Linear(TIMES, width)
        self.time_out = nn.Linear(width, width)
        self.classes = nn.Parameter(torch.empty(classes + 1, width))

    def forward(self, time_BF: Tensor, class_B: Tensor) -> Tensor:
        return _linear(self.time_out, F.silu(_linear(self.time_in, time_BF))) + self.classes[class_B].to(
            time_BF.dtype
        )


class LatentModule(nn.Module):
    """The stem, the conditions and the head of a diffusion transformer (DiT, 2212.09748)."""

    def __init__(self, cfg: LatentsConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.patch = nn.Parameter(torch.empty(width, cfg.channels * cfg.patch**2))
        self.bias = nn.Parameter(torch.empty(width))
        self.conditions = nn.ModuleList(Condition(cfg.classes, width) for _ in range(cfg.conditions))
        self.modulate = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, cfg.out * cfg.patch**2)

    def embed(self, z_BCSS: Tensor, dtype: torch.dtype) -> tuple[Tensor, Cols]:
        """Vectors [B, T, D] of the patches, row by row, and their columns."""
        B, C, S, _ = z_BCSS.shape
        p = self.cfg.patch
        z_BTP = z_BCSS.reshape(B, C, S // p, p, S // p, p).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * p * p)
        x_BTD = F.linear(z_BTP.to(dtype), self.patch.to(dtype), self.bias.to(dtype))
        # The column goes first.
        at_TK = grid(S // p, S // p).flip(1).to(z_BCSS.device)
        x_BTD = x_BTD + positions(at_TK, self.width).to(dtype)
        return x_BTD, Cols.simple(B, x_BTD.shape[1], z_BCSS.device)

    def condition(self, t_B: Tensor, class_B: Tensor, dtype: torch.dtype) -> Tensor:
        """Conditions [B, L, D] of times from 0 to `noise.steps` - 1 and of classes."""
        half = TIMES // 2
        step = torch.exp(torch.arange(half, device=t_B.device) * (-math.log(10_000) / (half - 1)))
        angle = t_B.float()[:, None] * step
        time_BF = torch.cat((angle.cos(), angle.sin()), -1).to(dtype)
        return torch.stack([c(time_BF, class_B) for c in self.conditions], 1)

    def predict(self, hidden_BTD: Tensor, condition_BD: Tensor) -> Tensor:
        """The noise [B, C, S, S], fp32, by the trunk's states (and the first conditions)."""
        cfg = self.cfg
        shift_B1D, scale_B1D = _linear(self.modulate, F.silu(condition_BD))[:, None].chunk(2, -1)
        h_BTD = (hidden_BTD * (1 + scale_B1D) + shift_B1D).float()
        out_BTP = F.linear(h_BTD, self.head.weight.float(), self.head.bias.float())
        side, p = cfg.size // cfg.patch, cfg.patch
        cut = out_BTP.reshape(-1, side, side, p, p, cfg.out)[..., : cfg.channels]
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(-1, cfg.channels, cfg.size, cfg.size)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Starting weights: normal with deviation 0.02; the head predicts zero whatever the conditions."""
        for name, p in self.named_parameters():
            if p.ndim == 1 or name.startswith(("modulate", "head")):
                nn.init.zeros_(p)
            else:
                nn.init.normal_(p, 0.0, 0.02, generator)

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """The ends stay as they are."""


def _linear(m: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, m.weight.to(x.dtype), m.bias.to(x.dtype))
