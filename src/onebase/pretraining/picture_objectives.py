"""Pretraining objectives of pictures and sounds alone, for the table in `objectives`: their configs, and what builds, begins, ends and scores them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING, Literal

from onebase.base.config import BaseConfig, TextShape, image_base, native_base
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

SEGMENT, DECODER = "segment", "masked_patches"
"""Names of what is learnt beside a base: the head of masks (and its task), the decoder of hidden patches."""


@config
class SegmentConfig:
    """Masks of objects from points and boxes. detail: channels of the convolutions that draw masks at the resolution of pixels; 0: each patch gives
    the mask of its own pixels."""

    kind: Literal["segment"] = "segment"
    detail: int = 16

    def __post_init__(self) -> None:
        if self.detail < 0:
            raise ConfigError(f"objective.detail is {self.detail}", "give at least 0, for example 16")


@config
class MaskedPatchesConfig:
    """Hide a share `rate` of the patches of pictures and sounds, and predict them from the others. normalise: each with mean 0 and deviation 1. width,
    depth, head_dim: of the decoder, which is dropped at the end."""

    kind: Literal["masked_patches"] = "masked_patches"
    rate: float = 0.75
    normalise: bool = True
    width: int = 128
    depth: int = 2
    head_dim: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ConfigError(
                f"objective.rate is {self.rate}", "give a share between 0 and 1, for example 0.75"
            )
        for name in ("width", "depth", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"objective.{name} is {getattr(self, name)}", "give at least 1")
        if self.width % self.head_dim:
            raise ConfigError(
                f"objective.width {self.width} is not a multiple of objective.head_dim {self.head_dim}",
                "choose a head_dim that divides width",
            )


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


def masked_patches_base(
    cfg: MaskedPatchesConfig, shape: TextShape, patches: Sequence[PatchConfig]
) -> BaseConfig:
    """A base whose patches attend to each other both ways. Raises ConfigError without modalities."""
    if not patches:
        raise ConfigError(
            "objective masked_patches reads pictures and sounds, and there are no modalities",
            "set modalities: [{kind: image_patches, patch: 8, limit: 64}]",
        )
    return native_base(shape, *patches, direction="both")


def masked_patches(cfg: MaskedPatchesConfig, run: Setting) -> Objective:
    """Masked patches of the media of a base."""
    from onebase.objective.masked_patches import MaskedPatches

    assert run.base is not None, "a run passes the config of its base"
    return MaskedPatches.of(DECODER, run.base, cfg.rate, cfg.normalise, run.seed)


def begin_masked_patches(cfg: MaskedPatchesConfig, model: BaseModel) -> None:
    """Put an untrained decoder on."""
    from onebase.base.patch_decoder import PatchDecoder

    decoder = PatchDecoder(model.cfg, cfg.width, cfg.depth, cfg.head_dim)
    decoder.reset(0)
    model.heads[DECODER] = decoder.to(model.device)


def end_masked_patches(cfg: MaskedPatchesConfig, base: LoadedBase) -> None:
    """The decoder is dropped."""
    del base.model.heads[DECODER]


def patch_scores(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """The error of hidden patches, by source and codec."""
    from onebase.pretraining.media_scores import masked_patch_scores

    return masked_patch_scores(base, held, DECODER)
