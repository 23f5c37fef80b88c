"""Pretraining objectives of pictures and sounds alone, for the table in `objectives`: their configs, and what builds, begins, ends and scores them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, Literal

from onebase.base.config import BaseConfig, TextShape, image_base
from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.patches.config import ImagePatchesConfig, PatchConfig

if TYPE_CHECKING:  # a recipe is read without torch
    from onebase.base.folder import LoadedBase
    from onebase.base.head import HeadConfig
    from onebase.base.model import BaseModel
    from onebase.evaluation.bootstrap import Score
    from onebase.objective.base import Objective
    from onebase.pretraining.heldout import Heldout
    from onebase.pretraining.setting import Setting

SEGMENT = "segment"
"""The name of the head of masks in a base that is being trained, and its task."""


@config
class SegmentConfig:
    """Masks of objects from points and boxes. detail: channels of the convolutions that draw masks at the resolution of pixels; 0: each patch gives
    the mask of its own pixels."""

    kind: Literal["segment"] = "segment"
    detail: int = 16

    def __post_init__(self) -> None:
        if self.detail < 0:
            raise ConfigError(f"objective.detail is {self.detail}", "give at least 0, for example 16")


def segment_base(cfg: SegmentConfig, shape: TextShape, patches: Sequence[PatchConfig]) -> BaseConfig:
    """A base of square pictures of `limit` patches. Raises ConfigError for other modalities."""
    found = patches[0] if len(patches) == 1 else None
    side = isqrt(found.limit) if isinstance(found, ImagePatchesConfig) else 0
    if not isinstance(found, ImagePatchesConfig) or side**2 != found.limit or found.channels != 3:
        raise ConfigError(
            "objective segment reads square pictures of three channels, and nothing else",
            "set modalities: [{kind: image_patches, patch: 8, limit: 64}]: pictures of 8 x 8 patches, 64 x 64 pixels",
        )
    size, patch = side * found.patch, found.patch
    return image_base(size, patch, width=shape.width, depth=shape.depth, head_dim=shape.head_dim)


def head_config(cfg: SegmentConfig, base: BaseConfig) -> HeadConfig:
    """Of the head of masks."""
    from onebase.base.head import HeadConfig

    return HeadConfig(reads="image", gives="masks", patch=base.image.patch, detail=cfg.detail)


def segment(cfg: SegmentConfig, run: Setting) -> Objective:
    """Masks of cut-outs that are composed, or of pictures with masks."""
    from onebase.objective.cutouts import Cutouts

    assert run.base is not None, "a run passes the config of its base"
    return Cutouts(SEGMENT, run.base.image, run.seed)


def begin_segment(cfg: SegmentConfig, model: BaseModel) -> None:
    """Put an untrained head of masks on."""
    from onebase.base.masks import MaskHead

    image = model.cfg.image
    width = model.cfg.trunks["image"].width
    model.heads[SEGMENT] = MaskHead.new(head_config(cfg, model.cfg), width, image.channels).to(model.device)


def end_segment(cfg: SegmentConfig, base: LoadedBase) -> None:
    """The head becomes the base's own."""
    from onebase.base.head import Head, OwnHead

    head = base.model.heads[SEGMENT]
    assert isinstance(head, Head)
    tensors = {k: t.cpu().clone() for k, t in head.tensors.items()}
    base.head = OwnHead(SEGMENT, head_config(cfg, base.model.cfg), tensors)
    del base.model.heads[SEGMENT]


def mask_scores(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Mean IoU after one click, of each source."""
    from onebase.pretraining.mask_scores import one_click

    return one_click(base, held, SEGMENT)
