"""SigLIP: both towers, texts filled up with a token that counts, a learned number added to scores."""

from pathlib import Path

import pytest
import torch
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from onebase.errors import ConfigError
from onebase.formats.families import siglip
from onebase.formats.family import written
from onebase.formats.reader import Reader
from tests.formats.parity import close, exported, imported, shaken
from tests.formats.together import TEXT, VISION, check_pair, pixels

PAD = 1


def tiny(text: dict[str, object] | None = None, **vision: object) -> SiglipModel:
    sides = TEXT | {"projection_size": 20} | (text or {})
    return SiglipModel(SiglipConfig(text_config=sides, vision_config=VISION | vision))


def test_siglip_says_the_same(tmp_path: Path) -> None:
    ids = torch.randint(3, 40, (2, 12), generator=torch.Generator().manual_seed(1))
    ids[1, 5:] = PAD
    model = check_pair(tiny(), tmp_path, ids)
    assert model.cfg.trunks["text"].direction == "both"
    pair = model.cfg.links[0].pair
    assert pair is not None and pair.pool.filled and pair.shift and not pair.project_src


def test_equal_widths_and_a_side_that_patches_do_not_fill(tmp_path: Path) -> None:
    theirs = tiny(text={"hidden_size": 20, "projection_size": None}, image_size=9, hidden_act="gelu")
    shaken(theirs).save_pretrained(tmp_path / "theirs")
    _, model = imported(tmp_path / "theirs")
    with torch.no_grad():
        close(
            model.image.pooled(model.states("image", pixels(side=9)).hidden),
            theirs.vision_model(pixel_values=pixels(side=9)).pooler_output,
        )


@pytest.mark.parametrize("head", [True, False])
def test_the_tower_of_images_alone(tmp_path: Path, head: bool) -> None:
    theirs = shaken(SiglipVisionModel(SiglipVisionConfig(**VISION, vision_use_head=head)))
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    with torch.no_grad():
        want = theirs(pixel_values=pixels())
        hidden = model.states("image", pixels()).hidden
        close(hidden, want.last_hidden_state)
        close(model.image.pooled(hidden), want.pooler_output if head else want.last_hidden_state.mean(1))
        exported(tmp_path / "back", family, model)
        again = SiglipVisionModel.from_pretrained(tmp_path / "back").eval()
        close(again(pixel_values=pixels()).last_hidden_state, want.last_hidden_state)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"text_config": {"projection_size": 5}}, "projection_size"),
        ({"vision_config": {"vision_use_head": False}}, "vision_use_head"),
        ({"vision_config": {"image_size": [224, 200]}}, "image_size"),
    ],
)
def test_what_cannot_be_is_named(tree: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        siglip.FAMILY.read(Reader(tree, "config.json"))


def test_clip_cannot_say_what_siglip_is() -> None:
    from onebase.formats.families import clip

    cfg = siglip.FAMILY.read(Reader({}, "config.json"))
    with pytest.raises(ConfigError, match="the clip layout cannot express"):
        written(clip.FAMILY, cfg)
