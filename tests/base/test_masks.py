"""Prompts on an image trunk: a point is a patch centred on it, what prompts say about pixels, and a prompt alone or in a batch."""

from pathlib import Path

import pytest
import torch

from onebase.base.config import image_base
from onebase.base.folder import load_base
from onebase.base.masks import (
    BESIDE,
    FIRST,
    LAST,
    NEAR,
    OBJECT,
    MaskHead,
    Prompts,
    dense_prompts,
    prompt_vectors,
)
from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.methods.config import HeadConfig
from tests.pictures import sighted


def test_a_point_at_the_centre_of_a_patch_is_that_patch(tmp_path: Path) -> None:
    model = load_base(sighted(tmp_path / "base")).model
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x_BTD, _ = model.image.embed(pixels, torch.float32)
    at = torch.tensor([[[(j + 0.5) / 4, (i + 0.5) / 4] for i in range(4) for j in range(4)]]).expand(
        2, -1, -1
    )
    made = prompt_vectors(model.image, pixels, at)
    assert torch.allclose(made, x_BTD[:, model.image.front :], atol=1e-5)
    between = prompt_vectors(model.image, pixels, at[:, :1] + 0.1)
    assert not torch.allclose(between, made[:, :1], atol=1e-2)


def test_a_mask_is_the_same_alone_and_beside_one_with_more_prompts(tmp_path: Path) -> None:
    model = load_base(sighted(tmp_path / "base")).model
    head = MaskHead(32, 16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in head.parameters():
            p.normal_(0, 0.1, generator=generator)
    pixels = torch.randn(2, 3, 16, 16, generator=generator)
    one, more = [(0.3, 0.6, OBJECT)], [(0.1, 0.2, FIRST), (0.8, 0.9, LAST), (0.5, 0.5, BESIDE)]
    with torch.no_grad():
        both = head.masks(model, pixels, Prompts.of([one, more]), None)
        alone = head.masks(model, pixels[:1], Prompts.of([one]), None)
        other = head.masks(model, pixels[:1], Prompts.of([[(0.8, 0.6, OBJECT)]]), None)
    assert both[0].shape == (2, 16, 16)
    for found, first, changed in zip(both, alone, other, strict=True):
        assert torch.allclose(found[0], first[0], atol=1e-5)
        assert not torch.allclose(first, changed, atol=1e-3)


def test_what_prompts_say_about_pixels() -> None:
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[0, :, 2:5, 3:7] = 1.0
    given = [
        (2 / 8, 1 / 8, FIRST),
        (5 / 8, 4 / 8, LAST),
        (3.5 / 8, 2.5 / 8, OBJECT),
        (0.5 / 8, 7.5 / 8, BESIDE),
    ]
    near, beside, box, alike = dense_prompts(pixels, Prompts.of([given]))[0]
    for y in range(8):
        for x in range(8):
            far = ((x - 3) / 8) ** 2 + ((y - 2) / 8) ** 2
            assert near[y, x] == pytest.approx(float(torch.exp(torch.tensor(-far / (2 * NEAR**2)))), abs=1e-5)
            assert box[y, x] == (2 <= x < 5 and 1 <= y < 4)
            assert (alike[y, x] > 0.9) == (2 <= y < 5 and 3 <= x < 7)
    assert beside.argmax() == 7 * 8
    assert not dense_prompts(pixels, Prompts.of([[(0.5, 0.5, BESIDE)]]))[0, [0, 2, 3]].any()


def test_positions_that_start_as_sines_are_alike_for_neighbours() -> None:
    model = BaseModel(image_base(64, 8, width=64, depth=1))
    model.reset(0)
    grid = torch.nn.functional.normalize(model.image.positions, dim=-1).reshape(8, 8, 64)
    near, far = (grid[3, 3] * grid[3, 4]).sum(), (grid[3, 3] * grid[3, 7]).sum()
    assert near > far + 0.1
    assert len(torch.unique(model.image.positions.round(decimals=4), dim=0)) == 64


def test_a_head_of_masks_has_the_patch_of_its_codec() -> None:
    assert HeadConfig(reads="image", gives="masks", patch=4).outputs == 16
    for wrong in ({"gives": "masks"}, {"gives": "value", "patch": 4}):
        with pytest.raises(ConfigError, match="patches of"):
            HeadConfig(**wrong)
