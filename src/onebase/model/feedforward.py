"""Feed-forward parts. F hidden features."""

import torch.nn.functional as F
from torch import Tensor, nn

from onebase.model.config import GATED, FFConfig
from onebase.model.proj import Active, Proj


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x) for gated activations (GLU variants, 2002.05202; ReLU^2, 2109.08668)."""

    def __init__(self, site: str, cfg: FFConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.gate = Proj(f"{site}.gate", width, cfg.hidden, cfg.bias) if cfg.activation in GATED else None
        self.up = Proj(f"{site}.up", width, cfg.hidden, cfg.bias)
        self.down = Proj(f"{site}.down", cfg.hidden, width, cfg.bias)

    def forward(self, x_BTD: Tensor, active: Active | None = None) -> Tensor:
        h_BTF = self.up(x_BTD, active)
        if self.gate is not None:
            act = F.silu if self.cfg.activation == "swiglu" else F.gelu
            h_BTF = act(self.gate(x_BTD, active)) * h_BTF
        elif self.cfg.activation == "relu2":
            h_BTF = F.relu(h_BTF).square()
        else:
            h_BTF = F.gelu(h_BTF) if self.cfg.activation == "gelu" else F.relu(h_BTF)
        out: Tensor = self.down(h_BTF, active)
        return out
