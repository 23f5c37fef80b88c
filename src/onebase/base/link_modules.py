"""The learned modules of links between trunks. B batch, T vectors of the source, D its width, N output vectors, E the target's width."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.links import ConnectorConfig, Link, PairConfig
from onebase.modality.text.pooling import pooled
from onebase.model.feedforward import ACTIVATIONS
from onebase.model.norm import Norm
from onebase.model.trunk import TrunkOutput


class Connector(nn.Module):
    """Turns the states of one trunk into vectors in the sequence of another, see ConnectorConfig."""

    def __init__(self, cfg: ConnectorConfig, src: int, dst: int) -> None:
        super().__init__()
        self.cfg = cfg
        wide = src * cfg.shuffle**2
        self.norm = Norm(cfg.norm, wide) if cfg.norm else None
        self.first = nn.Linear(wide, cfg.hidden or dst, bias=cfg.bias)
        self.second = nn.Linear(cfg.hidden, dst, bias=cfg.bias) if cfg.hidden else None

    def taps(self, depth: int) -> tuple[int, ...]:
        """The blocks, of a trunk of `depth` blocks, whose output it reads."""
        return () if self.cfg.block is None else (depth - 1 - self.cfg.block,)

    def forward(self, out: TrunkOutput) -> Tensor:
        """[B, N, E] of the source's states."""
        x_BTD = out.hidden if self.cfg.block is None else next(iter(out.taps.values()))
        x_BTD = x_BTD[:, self.cfg.skip :]
        x_BTD = shuffled(pooled_squares(x_BTD, self.cfg.pool), self.cfg.shuffle)
        x_BTD = x_BTD if self.norm is None else self.norm(x_BTD)
        x_BNE = _linear(self.first, x_BTD)
        return x_BNE if self.second is None else _linear(self.second, ACTIVATIONS[self.cfg.activation](x_BNE))


def shuffled(x_BTD: Tensor, by: int) -> Tensor:
    """Pixel shuffle: each square of `by` x `by` patches becomes one vector, [B, T / by^2, D * by^2]; patches in a square are row by row."""
    if by == 1:
        return x_BTD
    B, T, D = x_BTD.shape
    side = round(T**0.5)
    assert side * side == T and side % by == 0, (T, by)
    x = x_BTD.view(B, side // by, by, side // by, by, D).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(B, T // by**2, D * by**2)


def pooled_squares(x_BTD: Tensor, by: int) -> Tensor:
    """Means of squares of `by` x `by` neighbouring patches, [B, T / by^2, D]."""
    if by == 1:
        return x_BTD
    B, T, D = x_BTD.shape
    return shuffled(x_BTD, by).view(B, T // by**2, by**2, D).mean(2)


class PairLink(nn.Module):
    """Two trunks' pooled states in one space, see PairConfig."""

    def __init__(self, cfg: PairConfig, src: int, dst: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.width = width = cfg.width or src
        self.src = nn.Linear(src, width, bias=cfg.src_bias) if cfg.project_src else None
        self.dst = nn.Linear(dst, width, bias=cfg.dst_bias) if cfg.project_dst else None
        self.scale = nn.Parameter(torch.zeros(()))
        self.shift = nn.Parameter(torch.zeros(())) if cfg.shift else None

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise: normal matrices that keep the size of a vector, and the temperature of CLIP (scores are cosines / 0.07) or temperature and bias of SigLIP."""
        for matrix in (self.src, self.dst):
            if matrix is not None:
                nn.init.normal_(matrix.weight, 0.0, matrix.in_features**-0.5, generator)
                if matrix.bias is not None:
                    nn.init.zeros_(matrix.bias)
        self.scale.fill_(math.log(1 / 0.07 if self.shift is None else 10.0))
        if self.shift is not None:
            self.shift.fill_(-10.0)

    def texts(self, hidden_BTD: Tensor, live_BT: Tensor) -> Tensor:
        """fp32 unit vectors of texts from their states. live: false for padding, true at least once in every row."""
        return self.placed(pooled(hidden_BTD, live_BT, self.cfg.pool), "dst")

    def placed(self, pooled_BD: Tensor, side: Literal["src", "dst"]) -> Tensor:
        """fp32 unit vectors in the common space."""
        matrix = self.src if side == "src" else self.dst
        v_BE = pooled_BD if matrix is None else _linear(matrix, pooled_BD)
        return F.normalize(v_BE.float(), dim=-1)

    def scores(self, src_BE: Tensor, dst_CE: Tensor, most: float | None = None) -> Tensor:
        """Scores of every source against every target, [B, C]. most: the largest factor of a cosine (None: no limit)."""
        factor = self.scale.float().exp()
        z_BC = src_BE @ dst_CE.T * (factor if most is None else factor.clamp(max=most))
        return z_BC if self.shift is None else z_BC + self.shift.float()

    def probabilities(self, scores_BC: Tensor) -> Tensor:
        """Probabilities from scores: a sigmoid per pair where there is a shift, else a softmax over the row's targets."""
        return scores_BC.softmax(-1) if self.shift is None else scores_BC.sigmoid()


def _linear(m: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, m.weight.to(x.dtype), None if m.bias is None else m.bias.to(x.dtype))


def link_module(link: Link, src: int, dst: int) -> nn.Module | None:
    """The learned part of a link between trunks of these widths; None where it has none."""
    if link.connector is not None:
        return Connector(link.connector, src, dst)
    return PairLink(link.pair, src, dst) if link.pair is not None else None
