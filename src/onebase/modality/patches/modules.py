"""The learned ends of a modality of patches: patches to vectors, states to clean patches. N patches, P values of a patch, K coordinates, D width."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.modality.patches.config import TIMES, PatchConfig
from onebase.model.config import StorageConfig

NOISIEST, CLEAN = 0.0, 1.0
"""Times of the flow: z = t x + (1 - t) noise."""


class PatchModule(nn.Module):
    """What is read has t = 1, so a clean patch has the same features when it is understood and when it has just been made. The time is added
    at the input; only the head is scaled and shifted by it (AdaLN, 2212.09748), so that the trunk stays that of text."""

    def __init__(self, cfg: PatchConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.narrow = nn.Parameter(torch.empty(cfg.bottleneck, cfg.values))
        self.wide = nn.Parameter(torch.empty(width, cfg.bottleneck))
        self.bias = nn.Parameter(torch.empty(width))
        self.time_in = nn.Linear(TIMES, width)
        self.time_out = nn.Linear(width, width)
        self.modulate = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, cfg.values)

    def embed(self, patch_NP: Tensor, at_NK: Tensor, t_N: Tensor, dtype: torch.dtype) -> Tensor:
        """Patches at their coordinates, and how clean each is, to vectors [N, D]."""
        x_NR = F.linear(patch_NP.to(dtype), self.narrow.to(dtype))
        x_ND = F.linear(x_NR, self.wide.to(dtype), self.bias.to(dtype))
        return x_ND + positions(at_NK, self.width).to(dtype) + self._time(t_N, dtype)

    def predict(self, hidden_ND: Tensor, t_N: Tensor) -> Tensor:
        """The clean patches, fp32 [N, P], by the trunk's states of noised ones."""
        dtype = hidden_ND.dtype
        change = F.linear(
            F.silu(self._time(t_N, dtype)), self.modulate.weight.to(dtype), self.modulate.bias.to(dtype)
        )
        scale_ND, shift_ND = change.chunk(2, -1)
        h_ND = F.rms_norm(hidden_ND, (self.width,), eps=1e-6) * (1 + scale_ND) + shift_ND
        return F.linear(h_ND.float(), self.head.weight.float(), self.head.bias.float())

    def _time(self, t_N: Tensor, dtype: torch.dtype) -> Tensor:
        """Features of times from 0 to 1 [N, D]."""
        step = torch.exp(torch.arange(TIMES // 2, device=t_N.device) * (-math.log(10_000) / (TIMES // 2)))
        angle = 1000.0 * t_N.float()[:, None] * step
        x = torch.cat((angle.cos(), angle.sin()), -1).to(dtype)
        h = F.silu(F.linear(x, self.time_in.weight.to(dtype), self.time_in.bias.to(dtype)))
        return F.linear(h, self.time_out.weight.to(dtype), self.time_out.bias.to(dtype))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Starting weights: each matrix normal so that it keeps the size of what it is given; the head predicts zero whatever the time."""
        for p in (self.narrow, self.wide, self.time_in.weight, self.time_out.weight):
            nn.init.normal_(p, 0.0, p.shape[1] ** -0.5, generator)
        for p in (self.modulate.weight, self.head.weight, self.bias):
            nn.init.zeros_(p)
        for linear in (self.time_in, self.time_out, self.modulate, self.head):
            nn.init.zeros_(linear.bias)

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """The ends stay as they are."""


def positions(at_NK: Tensor, width: int) -> Tensor:
    """Sines and cosines of the coordinates, fp32 [N, D]: the width is shared among the coordinates (2106.10270); what is left over is zero."""
    half = width // at_NK.shape[1] // 2
    step = torch.exp(torch.arange(half, device=at_NK.device) * (-math.log(10_000) / max(1, half)))
    angle_NKh = at_NK.float()[..., None] * step
    found = torch.cat((angle_NKh.sin(), angle_NKh.cos()), -1).flatten(1)
    return F.pad(found, (0, width - found.shape[1]))
