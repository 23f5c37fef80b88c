"""CLIP: both towers, their space, and the configs of other years."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from onebase.artifact.tensors import save_tensors
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.families import clip
from onebase.formats.reader import Reader
from tests.formats.parity import close, exported, imported, shaken, weights_of
from tests.formats.together import TEXT, VISION, check_pair, pixels

END = 39


def tiny(end: int = END, text: dict[str, object] | None = None, **vision: object) -> CLIPModel:
    return CLIPModel(
        CLIPConfig(
            text_config=TEXT | {"eos_token_id": end} | (text or {}),
            vision_config=VISION | vision,
            projection_dim=12,
        )
    )


def ended(*lengths: int) -> Tensor:
    """Texts of so many tokens, the last the ending one, and what stands for padding behind it."""
    ids = torch.randint(3, END, (len(lengths), 12), generator=torch.Generator().manual_seed(1))
    for row, n in zip(ids, lengths, strict=True):
        row[n - 1 :] = END
    return ids


def test_clip_says_the_same(tmp_path: Path) -> None:
    model = check_pair(tiny(), tmp_path, ended(12, 12))
    assert model.cfg.trunks["text"].direction == "causal"
    assert model.cfg.trunks["text"].blocks[0].ff.activation == "gelu_sigmoid"


def test_with_padding_it_reads_the_token_that_ends_the_text(tmp_path: Path) -> None:
    check_pair(tiny(), tmp_path, ended(12, 7, 3, 2), lengths=(12, 7, 3, 2))


def test_old_configs_read_the_place_of_the_greatest_id(tmp_path: Path) -> None:
    model = check_pair(tiny(end=2), tmp_path, ended(12, 7), lengths=(12, 7))
    pair = model.cfg.links[0].pair
    assert pair is not None and pair.pool.ends is None


def test_other_activations_and_a_side_that_patches_do_not_fill(tmp_path: Path) -> None:
    theirs = tiny(text={"hidden_act": "gelu"}, hidden_act="gelu", image_size=9)
    shaken(theirs).save_pretrained(tmp_path / "theirs")
    _, model = imported(tmp_path / "theirs")
    with torch.no_grad():
        there = theirs.get_image_features(pixel_values=pixels(side=9)).pooler_output
        pair = model.link("pair")
        found = pair.placed(model.image.pooled(model.states("image", pixels(side=9)).hidden), "src")  # type: ignore[operator]
        close(found, there / there.norm(dim=-1, keepdim=True))


def test_the_tower_of_images_alone(tmp_path: Path) -> None:
    theirs = shaken(CLIPVisionModel(CLIPVisionConfig(**VISION)))
    theirs.save_pretrained(tmp_path / "theirs")
    family, model = imported(tmp_path / "theirs")
    with torch.no_grad():
        want = theirs(pixel_values=pixels())
        close(model.image.pooled(model.states("image", pixels()).hidden), want.pooler_output)
        exported(tmp_path / "back", family, model)
        again = CLIPVisionModel.from_pretrained(tmp_path / "back").eval()
        close(again(pixel_values=pixels()).pooler_output, want.pooler_output)


def test_buffers_of_older_checkpoints_are_looked_at_and_left_out(tmp_path: Path) -> None:
    theirs = tiny()
    theirs.save_pretrained(tmp_path)
    weights = weights_of(tmp_path)
    old = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_tensors(tmp_path / "model.safetensors", weights | old)
    imported(tmp_path)
    save_tensors(tmp_path / "model.safetensors", weights | {k: v.flip(1) for k, v in old.items()})
    with pytest.raises(ArtifactError, match="position_ids"):
        imported(tmp_path)


def test_a_part_under_its_older_key_wins() -> None:
    tree = {"text_config": {"hidden_size": 64}, "text_config_dict": {"hidden_size": 32}, "vision_config": {}}
    cfg = clip.FAMILY.read(Reader(tree, "config.json"))
    assert cfg.trunks["text"].width == 32
    assert (cfg.text.context, cfg.image.size, cfg.image.patch, cfg.image.patches) == (77, 224, 32, 49)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"text_config": {"eos_token_id": 49408}}, "eos_token_id"),
        ({"text_config": {"num_attention_heads": 7}}, "num_attention_heads"),
        ({"vision_config": {"hidden_act": "tanh"}}, "hidden_act"),
        ({"vision_config": {"patch_size": 512}}, "vision_config"),
        ({"projection_dim": 0}, "projection_dim"),
        ({"text_config": []}, "text_config"),
    ],
)
def test_what_cannot_be_is_named(tree: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        clip.FAMILY.read(Reader(tree, "config.json"))


def test_a_projection_without_the_other_tower_is_named(tmp_path: Path) -> None:
    from transformers import CLIPVisionModelWithProjection

    CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"visual_projection\.weight"):
        imported(tmp_path)
