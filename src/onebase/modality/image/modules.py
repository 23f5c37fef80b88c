"""The image codec module: patch embedding, pooling and head. B batch, C channels, T vectors of an image, D width, L classes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.errors import UserError
from onebase.modality.image.config import ImageCodecConfig, PoolConfig
from onebase.model.config import AttnConfig, StorageConfig
from onebase.model.cross import CrossAttention
from onebase.model.feedforward import FeedForward
from onebase.model.kernels.attention import lower
from onebase.model.mask import Cols, Everything
from onebase.model.norm import Norm


class ImageModule(nn.Module):
    """Pixels to vectors; hidden states to one vector per image, and to class scores."""

    def __init__(self, cfg: ImageCodecConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.patch = nn.Parameter(torch.empty(width, cfg.channels * cfg.patch**2))
        self.bias = nn.Parameter(torch.zeros(width)) if cfg.bias else None
        self.class_token = nn.Parameter(torch.empty(width)) if cfg.class_token else None
        self.registers = nn.Parameter(torch.empty(cfg.registers, width)) if cfg.registers else None
        self.positions = nn.Parameter(torch.empty(cfg.places, width))
        self.pool = AttentionPool(cfg.pool, width) if cfg.pool.kind == "attention" else None
        pooled = width * (2 if cfg.pool.kind == "both" else 1)
        self.head = nn.Parameter(torch.empty(len(cfg.classes), pooled)) if cfg.classes else None
        self.head_bias = nn.Parameter(torch.zeros(len(cfg.classes))) if cfg.classes else None

    def embed(self, pixels_BCHW: Tensor, dtype: torch.dtype) -> tuple[Tensor, Cols]:
        """Pixels [B, C, H, W] to vectors [B, T, D] and their columns: class token, registers, patches row by row. Pixels left over at the
        right and the bottom are not read. Raises UserError for a size that the positions do not support."""
        p = self.cfg.patch
        B, C, H, W = pixels_BCHW.shape
        h, w = H // p, W // p
        self._check(C, H, W)
        whole = pixels_BCHW[:, :, : h * p, : w * p]
        patches = whole.reshape(B, C, h, p, w, p).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        bias = None if self.bias is None else self.bias.to(dtype)
        x_BTD = F.linear(patches.to(dtype), self.patch.to(dtype), bias)
        places = self.places(H, W).to(dtype)
        if self.class_token is None:
            x_BTD = x_BTD + places
        else:
            first_D = self.class_token.to(dtype)
            if self.cfg.place_class:
                first_D, places = first_D + places[0], places[1:]
            front = [first_D.expand(B, 1, -1)]
            if self.registers is not None:
                front.append(self.registers.to(dtype).expand(B, -1, -1))
            x_BTD = torch.cat((*front, x_BTD + places), 1)
        return x_BTD, Cols.simple(B, x_BTD.shape[1], x_BTD.device)

    def _check(self, channels: int, height: int, width: int) -> None:
        cfg = self.cfg
        if channels != cfg.channels:
            raise UserError(f"the image has {channels} channels", f"this base reads {cfg.channels}")
        if cfg.places_fit == "fixed" and (height, width) != (cfg.size, cfg.size):
            raise UserError(
                f"the image has {height} x {width} pixels", f"this base reads {cfg.size} x {cfg.size}"
            )
        if min(height, width) < cfg.patch:
            raise UserError(
                f"the image has {height} x {width} pixels",
                f"give at least {cfg.patch} x {cfg.patch}, one patch",
            )

    def places(self, height: int, width: int) -> Tensor:
        """The position table for an image of this size in pixels: unchanged, or interpolated."""
        cfg = self.cfg
        h, w = height // cfg.patch, width // cfg.patch
        if (h * w == cfg.patches and height == width) or cfg.places_fit == "fixed":
            return self.positions
        ahead = cfg.places - cfg.patches
        grid_1Dss = self.positions[ahead:].T.float().reshape(1, self.width, *[cfg.size // cfg.patch] * 2)
        smooth = cfg.places_fit == "smooth"
        made_1Dhw = F.interpolate(grid_1Dss, (h, w), mode="bicubic", align_corners=False, antialias=smooth)
        made = made_1Dhw.flatten(2)[0].T.to(self.positions.dtype)
        return torch.cat((self.positions[:ahead], made))

    @property
    def front(self) -> int:
        """Number of vectors before the patches: class token and registers."""
        return int(self.class_token is not None) + self.cfg.registers

    def pooled(self, hidden_BTD: Tensor) -> Tensor:
        """One vector per image from the trunk's states, [B, D] (2 D for `both`)."""
        kind = self.cfg.pool.kind
        if self.pool is not None:
            out: Tensor = self.pool(hidden_BTD)
            return out
        patches = hidden_BTD[:, self.front :].mean(1) if kind != "first" else hidden_BTD[:, 0]
        return torch.cat((hidden_BTD[:, 0], patches), -1) if kind == "both" else patches

    def scores(self, pooled_BD: Tensor) -> Tensor:
        """fp32 class logits [B, L]. Raises UserError when the base has no image classes."""
        if self.head is None or self.head_bias is None:
            raise UserError("this base has no image classes", "use embed_images, or adapt it with a head")
        return F.linear(pooled_BD.float(), self.head.float(), self.head_bias.float())

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise: normal with deviation 0.02, biases zero."""
        for name, p in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(p)
            elif p.ndim == 1 and name not in ("class_token", "pool.probe"):
                nn.init.zeros_(p)
            else:
                nn.init.normal_(p, 0.0, 0.02, generator)
        if self.cfg.starts == "sines":
            side = self.cfg.size // self.cfg.patch
            self.positions[self.cfg.places - self.cfg.patches :] = sines(side, self.width)

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """Does nothing: stem and head are not quantized, and the projections of the pooling are sites of their own."""


def sines(side: int, width: int) -> Tensor:
    """Positions of a square grid, row by row, fp32 [side ** 2, width]: sines and cosines of row and column, each with a quarter of the features, of
    wavelengths from twice the grid down to two patches. Their size is that of a patch's content at the start."""
    bands = -(-width // 4)
    waves = torch.logspace(0, -1, bands, base=float(max(side, 2))) * 2 * side
    angle_SF = 2 * torch.pi * torch.arange(side)[:, None] / waves.clamp(min=2)
    axis_SF = torch.cat((angle_SF.sin(), angle_SF.cos()), 1)
    rows = axis_SF[:, None].expand(side, side, -1)
    columns = axis_SF[None].expand(side, side, -1)
    return 0.2 * torch.cat((rows, columns), -1).flatten(0, 1)[:, :width]


class AttentionPool(nn.Module):
    """A learned query attends to all states; then a feed-forward (the MAP head of 2106.04560)."""

    def __init__(self, cfg: PoolConfig, width: int) -> None:
        super().__init__()
        assert cfg.ff is not None and cfg.norm is not None
        attn = AttnConfig(
            heads=cfg.heads,
            kv_heads=cfg.heads,
            head_dim=width // cfg.heads,
            rope=None,
            bias=("q", "k", "v", "o"),
        )
        self.probe = nn.Parameter(torch.empty(width))
        self.attn = CrossAttention("image.pool.attn", attn, width, width)
        self.norm = Norm(cfg.norm, width)
        self.ff = FeedForward("image.pool.ff", cfg.ff, width)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        B, T, _ = hidden_BTD.shape
        device = hidden_BTD.device
        lowered = lower(Everything(), Cols.simple(B, 1, device), Cols.simple(B, T, device), device=device)
        probe_B1D = self.probe.to(hidden_BTD.dtype).expand(B, 1, -1)
        x_B1D = self.attn(probe_B1D, self.attn.keys(hidden_BTD), lowered)
        out: Tensor = (x_B1D + self.ff(self.norm(x_B1D)))[:, 0]
        return out
