"""ViT: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.errors import ArtifactError, ConfigError
from onebase.formats.hf.folder import HFFolder, save_folder
from tests.formats.parity import imported, shaken
from tests.formats.vision import check_vision, said_here, said_there

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "qkv_bias": False},
        {"num_channels": 1, "patch_size": 4},
        {"image_size": 27},  # with pixels left over
    ],
)
def test_bare(more: dict[str, Any], tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(**SMALL | more))
    check_vision(theirs, tmp_path)


def test_at_other_sizes(tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(**SMALL), add_pooling_layer=False)
    # The third with pixels left over, the last with as many patches as its own.
    sizes = ((32, 32), (16, 40), (35, 17), (8, 72))
    check_vision(theirs, tmp_path, sizes, interpolate_pos_encoding=True)


@pytest.mark.parametrize("labels", [2, 5])
def test_with_classes(labels: int, tmp_path: Path) -> None:
    cfg = transformers.ViTConfig(**SMALL, num_labels=labels)
    model = check_vision(transformers.ViTForImageClassification(cfg), tmp_path)
    assert model.cfg.image.classes == tuple(f"LABEL_{i}" for i in range(labels))


def test_names_of_classes_are_kept_and_written(tmp_path: Path) -> None:
    names = {0: "cat", 1: "dog", 2: "crane"}
    cfg = transformers.ViTConfig(**SMALL, id2label=names, label2id={n: i for i, n in names.items()})
    assert check_vision(transformers.ViTForImageClassification(cfg), tmp_path).cfg.image.classes == (
        "cat",
        "dog",
        "crane",
    )
    assert transformers.AutoConfig.from_pretrained(tmp_path / "back").id2label == names


def test_sizes_as_pairs(tmp_path: Path) -> None:
    cfg = transformers.ViTConfig(**SMALL | {"image_size": [24, 24], "patch_size": [8, 8]})
    theirs = shaken(transformers.ViTModel(cfg))
    theirs.save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    pixels = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(said_here(model, pixels), said_there(theirs, pixels), atol=1e-5, rtol=1e-5)


def test_a_table_that_would_fill_the_memory_is_refused_before_it_is_made(tmp_path: Path) -> None:
    transformers.ViTModel(transformers.ViTConfig(**SMALL)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    save_folder(tmp_path, source.config | {"image_size": 2**20, "patch_size": 1}, tensors)
    with pytest.raises(ArtifactError, match="has shape"):
        imported(tmp_path)


def test_a_decoder_of_pixels_is_refused_by_name(tmp_path: Path) -> None:
    cfg = transformers.ViTConfig(**SMALL)
    transformers.ViTForMaskedImageModeling(cfg).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"no rule reads tensor 'decoder\.0\.bias'"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", [24, 32]),
        ("image_size", [24, "x"]),
        ("patch_size", 0),
        ("image_size", 2**40),
        ("num_channels", 4),
        ("hidden_act", "mish"),
        ("head_dim", 16),
        ("num_hidden_layers", 10**6),
        ("id2label", {"0": "a", "2": "b"}),
        ("id2label", {"0": "a", "1": 3}),
        ("num_labels", 2**40),
    ],
)
def test_what_we_lack_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    save_folder(tmp_path, source.config | {key: value}, tensors)
    with pytest.raises(ConfigError, match=key):
        imported(tmp_path)
