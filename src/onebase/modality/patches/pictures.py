"""Pictures as patches and back. C channels, H rows and W columns of pixels from -1 to 1, N patches, P values of a patch."""

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onebase.errors import DataError
from onebase.modality.image.pixels import pillow
from onebase.modality.patches.config import ImagePatchesConfig

if TYPE_CHECKING:
    from PIL.Image import Image


def fitted(width: int, height: int, cfg: ImagePatchesConfig) -> tuple[int, int]:
    """Patches across and down of a picture of so many pixels: its own size to the nearest patch, made smaller in proportion where that is more
    than the limit. Raises DataError for one so long and narrow that it cannot be."""
    across, down = width / cfg.patch, height / cfg.patch
    less = min(1.0, (cfg.limit / (across * down)) ** 0.5)
    w, h = max(1, round(across * less)), max(1, round(down * less))
    if w * h > cfg.limit:  # rounded up: the neighbour that fits and keeps the shape best
        near = [
            (w - i, h - j)
            for i in (0, 1)
            for j in (0, 1)
            if w > i and h > j and (w - i) * (h - j) <= cfg.limit
        ]
        # Sides that are off by a patch at most, where there are; and none of which another has as many patches both ways.
        near = [p for p in near if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in near)] or [
            (min(w, cfg.limit // h), h) if w > h else (w, min(h, cfg.limit // w))
        ]
        close = [p for p in near if abs(p[0] - across * less) <= 1 and abs(p[1] - down * less) <= 1]
        w, h = min(close or near, key=lambda p: abs(math.log(p[0] / p[1] * down / across)))
    if max(w, h) * 4 < max(across, down) * less * 3:
        raise DataError(
            f"a picture of {width:,} x {height:,} pixels does not fit in {cfg.limit:,} patches of {cfg.patch} x {cfg.patch}",
            "cut it into pieces that are less long and narrow",
        )
    return w, h


def picture_values(image: "Image", cfg: ImagePatchesConfig) -> Tensor:
    """A picture as fp32 [C, H, W], in size a multiple of the patch. Raises DataError."""
    w, h = fitted(*image.size, cfg)
    image = image.convert("RGB" if cfg.channels == 3 else "L")
    if image.size != (w * cfg.patch, h * cfg.patch):
        image = image.resize((w * cfg.patch, h * cfg.patch), pillow().Resampling.LANCZOS)
    values_HWC = np.asarray(image, np.float32).reshape(h * cfg.patch, w * cfg.patch, cfg.channels)
    return torch.from_numpy(np.ascontiguousarray(values_HWC.transpose(2, 0, 1))) / 127.5 - 1.0


def to_patches(values_CHW: Tensor, patch: int) -> Tensor:
    """Patches [N, P] row by row; in a patch all values of a channel, then the next."""
    C, H, W = values_CHW.shape
    cut = values_CHW.reshape(C, H // patch, patch, W // patch, patch)
    return cut.permute(1, 3, 0, 2, 4).reshape(-1, C * patch**2)


def from_patches(patch_NP: Tensor, across: int, cfg: ImagePatchesConfig) -> Tensor:
    """What `to_patches` cut, put together again: [C, H, W]."""
    down, p = len(patch_NP) // across, cfg.patch
    cut = patch_NP.reshape(down, across, cfg.channels, p, p)
    return cut.permute(2, 0, 3, 1, 4).reshape(cfg.channels, down * p, across * p)


def png(patch_NP: Tensor, shape: tuple[int, ...], cfg: ImagePatchesConfig) -> bytes:
    """Patches, down and across as in `shape`, as the bytes of a PNG file."""
    out = io.BytesIO()
    to_image(from_patches(patch_NP, shape[1], cfg)).save(out, "PNG")
    return out.getvalue()


def grid(across: int, down: int) -> Tensor:
    """Row and column of each patch, int [N, 2]."""
    return torch.cartesian_prod(torch.arange(down), torch.arange(across)).reshape(-1, 2)


def to_image(values_CHW: Tensor) -> "Image":
    """A picture that can be saved and shown; values beyond -1 and 1 are clipped."""
    bytes_CHW = ((values_CHW.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = bytes_CHW.permute(1, 2, 0).numpy()
    found: Image = pillow().fromarray(array[..., 0] if array.shape[2] == 1 else array)
    return found
