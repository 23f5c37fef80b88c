"""Trains masks from points and boxes, as Segment Anything does (2304.02643): cross-entropy of the pixels, dice loss of the mask, and its quality.

B masks, S pixels of a side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from onebase.base.masks import BESIDE, FIRST, LAST, OBJECT, MaskHead, Prompt, Prompts
from onebase.base.model import BaseModel
from onebase.draws import Draws
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.image.pixels import prepared, whole_picture
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources

if TYPE_CHECKING:
    from PIL.Image import Image

Bools = NDArray[np.bool_]
CLICK, BOX = 0.6, 0.8
"""Of the masks without prompts of their own, this share is learnt from one click; up to this share from a box, the rest from several clicks."""
CLICKS = 4
"""Clicks, at most."""
SHIFT = 0.1
"""How far a corner of a box is moved at most, as a share of the box: people draw boxes loosely."""


@dataclass(frozen=True)
class MaskExample:
    """A picture and the mask of one object in it, bool [H, W] of the picture's size. prompt: what is given for it; empty: drawn from the mask."""

    picture: "Image"
    mask: Bools
    prompt: Prompt = ()


@dataclass(frozen=True)
class Segmentation:
    """Masks from prompts. A row represents one mask: it has as many tokens as the image has vectors, and an id, by which `read` returns its
    example when a batch is built. Where an example has no prompts, other ones are drawn each time that it is read."""

    head: str
    read: Callable[[str], MaskExample]
    codec: ImageCodecConfig
    seed: int = 0
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        ids = tuple(row[0].id for row in rows)
        found = [self.read(i) for i in ids]
        given = [
            e.prompt or drawn_prompt(e.mask, Draws(self.seed, "segment", first + b))
            for b, e in enumerate(found)
        ]
        return mask_batch(found, given, self.codec, rows)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return prompted_losses(base, self.head, batch, self.routing)


def prompted_losses(
    base: BaseModel, name: str, batch: Batch, routing: AdapterRouting | None = None
) -> Losses:
    """Sums over the masks of a batch of `mask_batch`, by the head of this name: of the masks, and of what it thinks of them."""
    head = base.heads[name]
    assert isinstance(head, MaskHead)
    prompts = Prompts(batch.targets["prompt.at"], batch.targets["prompt.kind"])
    z_BSS, quality_B = head.masks(base, batch.inputs["image"].ids_BT, prompts, routing)
    mask_BSS = batch.targets["mask"][:, : z_BSS.shape[1], : z_BSS.shape[2]]
    iou_B = overlap(z_BSS.detach() > 0, mask_BSS > 0.5)
    return {
        "mask": (mask_losses(z_BSS, mask_BSS).sum(), batch.counts["mask"]),
        "quality": ((quality_B.sigmoid() - iou_B).square().sum(), batch.counts["quality"]),
    }


def mask_batch(
    examples: Sequence[MaskExample], prompts: Sequence[Prompt], codec: ImageCodecConfig, rows: Sequence[Row]
) -> Batch:
    """The pictures of these rows as the codec reads them, with the masks that their prompts ask for."""
    codec = whole_picture(codec)
    pixels = torch.stack([prepared(e.picture, codec) for e in examples])
    given = Prompts.of(prompts)
    targets = {
        "mask": torch.stack([resized(e.mask, codec.side) for e in examples]),
        "prompt.at": given.at_BQ2,
        "prompt.kind": given.kind_BQ,
    }
    read = TrunkInput(pixels, Cols.simple(len(examples), codec.patches + codec.class_token + codec.registers))
    counts = dict.fromkeys(("mask", "quality"), len(examples))
    ids = tuple(piece.id for row in rows for piece in row)
    return Batch({"image": read}, targets, counts, ids, count_sources(rows))


def mask_losses(z_BSS: Tensor, mask_BSS: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels, and dice loss (1606.04797) of each mask, fp32 [B]."""
    entropy_B = F.binary_cross_entropy_with_logits(z_BSS, mask_BSS, reduction="none").mean((1, 2))
    p_BSS = z_BSS.sigmoid()
    both_B, sizes_B = (p_BSS * mask_BSS).sum((1, 2)), p_BSS.sum((1, 2)) + mask_BSS.sum((1, 2))
    return entropy_B + 1 - (2 * both_B + 1) / (sizes_B + 1)


def overlap(found_BSS: Tensor, true_BSS: Tensor) -> Tensor:
    """Intersection over union of boolean masks, fp32 [B]; 1 for two empty ones."""
    both_B = (found_BSS & true_BSS).sum((1, 2)).float()
    either_B = (found_BSS | true_BSS).sum((1, 2)).float()
    return torch.where(either_B > 0, both_B / either_B.clamp(min=1), 1.0)


def resized(mask: Bools, side: int) -> Tensor:
    """The share of each pixel that the mask covers, after it is stretched to a square, fp32 [side, side]."""
    from PIL import Image

    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(grey, np.float32) / 255)


def drawn_prompt(mask: Bools, draws: Draws) -> Prompt:
    """A click on the object, a loose box around it, or several clicks on it and beside it."""
    (how,) = draws.uniform(1).tolist()
    if how < CLICK:
        return [pixel(mask, draws, OBJECT)]
    if how < BOX:
        return _box(mask, draws)
    several = [pixel(mask, draws, OBJECT)]
    for more in draws.uniform(1 + int(draws.below(CLICKS - 1, 1)[0])).tolist():
        on = more < 0.5 or bool(mask.all())
        several.append(pixel(mask, draws, OBJECT) if on else pixel(~mask, draws, BESIDE))
    return several


def central_click(mask: Bools) -> Prompt:
    """A click on the pixel that is furthest from the object's edge (2304.02643): as people click."""
    left = np.pad(mask, 1)
    while True:
        less = left[1:-1, 1:-1] & left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
        if not less.any():
            break
        left = np.pad(less, 1)
    ys, xs = np.nonzero(left[1:-1, 1:-1])
    i = int(((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2).argmin())
    return [((float(xs[i]) + 0.5) / mask.shape[1], (float(ys[i]) + 0.5) / mask.shape[0], OBJECT)]


def pixel(mask: Bools, draws: Draws, kind: int = OBJECT) -> tuple[float, float, int]:
    """A click on any pixel of a mask."""
    at = np.flatnonzero(mask)
    y, x = divmod(int(at[draws.below(len(at), 1)[0]]), mask.shape[1])
    return (x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0], kind


def _box(mask: Bools, draws: Draws) -> Prompt:
    H, W = mask.shape
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = xs[0] / W, ys[0] / H, (xs[-1] + 1) / W, (ys[-1] + 1) / H
    wide, high = right - left, bottom - top
    a, b, c, d = ((2 * draws.uniform(4) - 1) * SHIFT).tolist()
    first = max(0.0, left + a * wide), max(0.0, top + b * high), FIRST
    return [first, (min(1.0, right + c * wide), min(1.0, bottom + d * high), LAST)]
