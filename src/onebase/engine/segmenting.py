"""Masks of objects in a picture, from points and boxes, by an adapter (or a base's own head) of task segment. N masks, H rows, W columns."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from onebase.base.masks import BESIDE, FIRST, LAST, OBJECT, MaskHead, Prompt, Prompts
from onebase.engine.scoring import batch_tokens
from onebase.errors import UserError
from onebase.methods.bound import Bound
from onebase.modality.image.pixels import prepared, read_picture, whole_picture

if TYPE_CHECKING:
    from PIL.Image import Image

POINT = "a point is (x, y), or (x, y, 0) for one that is not on the object; pixels from the upper left, 0 to width - 1 and height - 1"
CORNERS = "a box is (x0, y0, x1, y1): pixels from the upper left, x1 and y1 behind the last one"


@dataclass(frozen=True, eq=False)
class Masks:
    """masks: bool [N, H, W], of the picture's size. scores: how good the base thinks each of them is (its intersection over union with the
    object), float32 [N]."""

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


def segmented(bound: Bound, image: "str | Path | Image", points: Any = None, boxes: Any = None) -> Masks:
    """A mask for each object. points: of one object [(x, y), ...], or a list of such lists; boxes: one, or one for each object. Objects that have
    both have them in the same order. Raises DataError for a file that cannot be read, UserError for prompts that do not fit the picture."""
    picture = read_picture(image) if isinstance(image, (str, Path)) else image.convert("RGB")
    return masks_of(bound, picture, prompts_of(points, boxes, picture.size))


@torch.no_grad()
def masks_of(bound: Bound, picture: "Image", prompts: Sequence[Prompt]) -> Masks:
    """A mask for each prompt."""
    base, on, head = bound.loaded.model, bound.attached, None
    if on is not None and on.task == "segment" and on.name in base.heads:
        head = base.heads[on.name]
    if not isinstance(head, MaskHead):
        what = "the base has no adapter" if on is None else f"this adapter is for task {on.task}"
        raise UserError(f"{what}, and masks need one of task segment", "train one: docs/segmentation.md")
    codec = whole_picture(base.cfg.image)
    pixels_1CSS = prepared(picture, codec)[None].to(base.device)
    size, found, scores = picture.size[::-1], [], []
    step = max(1, batch_tokens(base.device) // codec.patches)
    for i in range(0, len(prompts), step):
        given = Prompts.of(prompts[i : i + step]).to(base.device)
        pixels = pixels_1CSS.expand(len(given.kind_BQ), -1, -1, -1)
        z_BSS, quality_B = head.masks(base, pixels, given, bound.routing)
        if z_BSS.shape[1] != codec.side:  # pixels at the right and the bottom that no patch reads
            z_BSS = F.pad(
                z_BSS, (0, codec.side - z_BSS.shape[2], 0, codec.side - z_BSS.shape[1]), mode="replicate"
            )
        found += [F.interpolate(z_SS[None, None], size, mode="bilinear")[0, 0].cpu() > 0 for z_SS in z_BSS]
        scores.append(quality_B.sigmoid().cpu())
    return Masks(torch.stack(found).numpy(), torch.cat(scores).numpy())


def png(mask: NDArray[np.bool_]) -> bytes:
    """A mask as a PNG file: white is the object."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(out, "PNG")
    return out.getvalue()


def prompts_of(points: Any, boxes: Any, size: tuple[int, int]) -> list[Prompt]:
    """The prompts of each object in a picture of (width, height) pixels. Raises UserError naming what does not fit."""
    clicks, corners = _listed(points), _listed(boxes)
    for given, found, what in ((points, clicks, POINT), (boxes, corners, CORNERS)):
        if given is not None and (not found or isinstance(given, str)):
            raise UserError(f"{_shown(given)} is no list of points or boxes", what)
    if clicks and isinstance(clicks[0], Real):
        clicks = [clicks]
    of_objects = [clicks] if clicks and _is_point(clicks[0]) else [_listed(c) for c in clicks]
    around = [corners] if corners and isinstance(corners[0], Real) else corners
    if not of_objects and not around:
        raise UserError("neither a point nor a box is given", "give points, boxes, or both")
    if of_objects and around and len(of_objects) != len(around):
        raise UserError(
            f"points of {len(of_objects)} objects and {len(around)} boxes are given",
            "give one box for each object; points=[[(x, y)], [(x, y), (x, y)]] are those of two objects",
        )
    out: list[Prompt] = []
    for i in range(max(len(of_objects), len(around))):
        prompt = [_click(p, size) for p in of_objects[i]] if of_objects else []
        prompt += _box(around[i], size) if around else []
        if not prompt:
            raise UserError(f"object {i + 1} has no point and no box", "give it one")
        out.append(prompt)
    return out


def _listed(given: Any) -> list[Any]:
    """Lists, tuples and arrays as a list; anything else as an empty one."""
    return list(given) if isinstance(given, (list, tuple, np.ndarray)) else []


def _is_point(given: Any) -> bool:
    numbers = _listed(given)
    return bool(numbers) and all(isinstance(n, Real) for n in numbers)


def _click(given: Any, size: tuple[int, int]) -> tuple[float, float, int]:
    if not _is_point(given) or len(given) not in (2, 3) or (len(given) == 3 and given[2] not in (0, 1)):
        raise UserError(f"{_shown(given)} is no point", POINT)
    x, y = float(given[0]), float(given[1])
    if not (0 <= x < size[0] and 0 <= y < size[1]):
        raise UserError(
            f"the point {_shown(given)} is outside the picture of {size[0]} x {size[1]} pixels", POINT
        )
    kind = BESIDE if len(given) == 3 and given[2] == 0 else OBJECT
    return min(1.0, (x + 0.5) / size[0]), min(1.0, (y + 0.5) / size[1]), kind


def _box(given: Any, size: tuple[int, int]) -> list[tuple[float, float, int]]:
    if not _is_point(given) or len(given) != 4:
        raise UserError(f"{_shown(given)} is no box", CORNERS)
    x0, y0, x1, y1 = map(float, given)
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise UserError(
            f"the box {_shown(given)} is empty or outside the picture of {size[0]} x {size[1]} pixels",
            CORNERS,
        )
    return [(x0 / size[0], y0 / size[1], FIRST), (x1 / size[0], y1 / size[1], LAST)]


def _shown(given: Any) -> str:
    numbers = _listed(given)
    return f"({', '.join(map(str, numbers))})" if numbers else repr(given)
