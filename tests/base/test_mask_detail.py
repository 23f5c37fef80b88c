"""Convolutions beside the trunk: they start as nothing, draw edges of a pixel, and are saved with the head."""

import pytest
import torch

from onebase.base.config import image_base
from onebase.base.head import HeadConfig
from onebase.base.mask_detail import Detail
from onebase.base.masks import DENSE, OBJECT, MaskHead, Prompts
from onebase.base.model import BaseModel
from onebase.errors import ConfigError

CLICK = Prompts.of([[(0.4, 0.6, OBJECT)]])


def parts(size: int = 24, patch: int = 8, detail: int = 4) -> tuple[BaseModel, MaskHead, torch.Tensor]:
    model = BaseModel(image_base(size, patch, width=32, depth=1, head_dim=16))
    model.reset(0)
    head = MaskHead.new(HeadConfig(reads="image", gives="masks", patch=patch, detail=detail), 32, 3)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return model, head, pixels


def test_it_starts_as_nothing_and_learns_at_the_resolution_of_pixels() -> None:
    model, head, pixels = parts()
    other = MaskHead.new(HeadConfig(reads="image", gives="masks", patch=8), 32, 3)
    with torch.no_grad():
        for z in zip(
            head.masks(model, pixels, CLICK, None), other.masks(model, pixels, CLICK, None), strict=True
        ):
            assert torch.equal(*z)
    assert head.detail is not None
    # A mask that no linear map of constant patches gives: one row of pixels, from the pixels alone.
    wanted = torch.zeros(1, 24, 24)
    wanted[:, 9] = 1
    bright = pixels * 0.1
    bright[:, :, 9] += 2
    adam = torch.optim.Adam([*head.detail.parameters()], lr=0.02)
    for _ in range(60):
        adam.zero_grad()
        z_BSS = head.masks(model, bright, CLICK, None)[0]
        torch.nn.functional.binary_cross_entropy_with_logits(z_BSS, wanted).backward()
        adam.step()
    assert torch.equal(z_BSS > 0, wanted > 0)
    assert head.detail.hint_DC.grad is not None


def test_sizes_that_do_not_halve() -> None:
    """A picture of 30 pixels in patches of 10, and pixels left over at the edge."""
    for size, patch in ((30, 10), (29, 9), (14, 7)):
        model, head, pixels = parts(size, patch)
        z_BSS, quality_B = head.masks(model, pixels, CLICK, None)
        assert z_BSS.shape == (1, size // patch * patch, size // patch * patch) and quality_B.shape == (1,)


def test_the_head_is_read_again_as_it_was_saved() -> None:
    _, head, _ = parts()
    cfg = HeadConfig(reads="image", gives="masks", patch=8, detail=4)
    again = MaskHead.of(cfg, head.tensors)
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    grey = MaskHead.new(cfg, 32, 1)
    assert MaskHead.of(cfg, grey.tensors).tensors.keys() == grey.tensors.keys()
    assert head.tensors["head.detail.down.0.weight"].shape == (4, 3 + DENSE, 3, 3)
    for wrong in (
        {"detail": 8},
        {"detail": 0},
    ):
        with pytest.raises(ConfigError, match="do not match"):
            MaskHead.of(HeadConfig(reads="image", gives="masks", patch=8, **wrong), head.tensors)
    with pytest.raises(ConfigError, match="detail is for masks"):
        HeadConfig(gives="value", detail=4)


def test_starting_weights_are_the_same_each_time() -> None:
    a, b = Detail(7, 4, 16), Detail(7, 4, 16)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
