"""Pictures composed of cut-outs and drawn shapes on backgrounds, with the mask of one of them: training data of masks where nobody has drawn any.

All is a function of the random draws. H, W pixels.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onebase.draws import Draws
from onebase.objective.segment import Bools, MaskExample

if TYPE_CHECKING:
    from PIL.Image import Image

SOLID = 127
"""A pixel is of a cut-out if it is more opaque than this, of 255."""
SIZES, SHAPES = (0.25, 0.63), (0.22, 0.56)
"""How long cut-outs and drawn shapes are at least and at most, as a share of the picture's side."""
TURN = 30
"""Degrees that cut-outs are turned at most, either way."""
SEEN, PIXELS = 0.5, 0.012
"""What is asked for shows this share of itself, and at least this share of the picture."""
TRIES = 100


def solid(thing: "Image") -> Bools:
    """The pixels of a cut-out, bool [H, W]."""
    return np.asarray(thing.getchannel("A")) > SOLID


def composed(things: "Sequence[Image]", draws: Draws, side: int) -> MaskExample:
    """A picture of side x side pixels with these cut-outs (RGBA) somewhere on a background, one over the other. The first is asked for; where it is
    hidden, all are placed again."""
    for _ in range(TRIES):
        canvas, owner = texture(draws, (side, side)), np.full((side, side), -1)
        area = 0
        for i in draws.permutation(len(things)).tolist():
            thing = things[i]
            x, y = (int(draws.below(side - n + 1, 1)[0]) for n in thing.size)
            here = solid(thing)
            canvas.paste(thing, (x, y), thing)
            owner[y : y + thing.height, x : x + thing.width][here] = i
            area = int(here.sum()) if i == 0 else area
        mask: Bools = owner == 0
        if mask.sum() >= max(SEEN * area, PIXELS * side**2):
            return MaskExample(canvas, mask)
    return composed([shape(draws, side)], draws, side)  # too thin a thing to be seen


def placed(thing: "Image", draws: Draws, side: int) -> "Image":
    """A cut-out, mirrored or not, turned and sized for a picture of this side."""
    from PIL.Image import Resampling, Transpose

    size, angle, mirror = draws.uniform(3).tolist()
    if mirror < 0.5:
        thing = thing.transpose(Transpose.FLIP_LEFT_RIGHT)
    thing = thing.rotate(TURN * (2 * angle - 1), resample=Resampling.BILINEAR, expand=True)
    longest = side * (SIZES[0] + (SIZES[1] - SIZES[0]) * size)
    scale = longest / max(thing.size)
    return thing.resize([min(side, max(8, round(n * scale))) for n in thing.size], Resampling.BILINEAR)


def shape(draws: Draws, side: int) -> "Image":
    """An ellipse, a polygon or a star with a texture, as a cut-out."""
    from PIL import Image, ImageDraw

    least, most = (round(side * s) for s in SHAPES)
    w, h = (least + int(n) for n in draws.below(most - least + 1, 2))
    cut = Image.new("L", (w, h))
    pen = ImageDraw.Draw(cut)
    corners = int(draws.below(6, 1)[0]) + 2
    turn, inner = draws.uniform(2).tolist()
    if corners == 2:
        pen.ellipse((0, 0, w - 1, h - 1), fill=255)
    else:
        star = inner < 0.4
        n = corners * 2 if star else corners
        points = []
        for k in range(n):
            r, a = (0.22 if star and k % 2 else 0.5), 2 * math.pi * (k / n + turn)
            points.append((w / 2 + r * w * math.cos(a), h / 2 + r * h * math.sin(a)))
        pen.polygon(points, fill=255)
    thing = texture(draws, (w, h)).convert("RGBA")
    thing.putalpha(cut)
    return thing


def texture(draws: Draws, size: tuple[int, int]) -> "Image":
    """One colour, a gradient, stripes, or soft noise around a colour, of this width and height."""
    from PIL import Image

    first, second = draws.below(256, 6).reshape(2, 3).astype(np.float32)
    how = int(draws.below(4, 1)[0])
    w, h = size
    ys, xs = np.mgrid[:h, :w].astype(np.float32)
    turn, pitch = draws.uniform(2).tolist()
    along = np.cos(2 * np.pi * turn) * xs + np.sin(2 * np.pi * turn) * ys
    if how == 0:
        t = np.zeros((h, w), np.float32)
    elif how == 1:
        t = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif how == 2:
        t = (np.sin(along * 2 * np.pi / (6 + 14 * pitch)) > 0).astype(np.float32)
    else:
        coarse = draws.uniform(36).reshape(6, 6).astype(np.float32)
        t = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    values = first + t[..., None] * (second - first) * (0.5 if how == 3 else 1.0)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
