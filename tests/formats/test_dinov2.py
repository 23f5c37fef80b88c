"""DINOv2, with and without registers: what transformers says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onebase.errors import ConfigError
from onebase.formats.families import dinov2, vit
from onebase.formats.family import written
from onebase.formats.hf.folder import HFFolder, save_folder
from tests.formats.parity import imported
from tests.formats.vision import check_vision

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "mlp_ratio": 2,
    "image_size": 42,
    "patch_size": 14,
}
# The third with pixels left over, the last with as many patches as its own.
SIZES = ((28, 28), (56, 42), (70, 60), (14, 126))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_swiglu_ffn": True, "mlp_ratio": 4},
        {"hidden_act": "gelu_pytorch_tanh", "qkv_bias": False, "layer_norm_eps": 1e-4},
        {"use_mask_token": False, "num_channels": 1},
    ],
)
def test_bare(more: dict[str, Any], tmp_path: Path) -> None:
    check_vision(transformers.Dinov2Model(transformers.Dinov2Config(**SMALL | more)), tmp_path, SIZES)


def test_with_classes(tmp_path: Path) -> None:
    cfg = transformers.Dinov2Config(**SMALL, num_labels=5)
    model = check_vision(transformers.Dinov2ForImageClassification(cfg), tmp_path, SIZES)
    assert model.image.head is not None and model.image.head.shape == (5, 64)


@pytest.mark.parametrize("more", [{}, {"use_swiglu_ffn": True, "num_register_tokens": 2}])
def test_with_registers(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.Dinov2WithRegistersConfig(**SMALL | more)
    check_vision(transformers.Dinov2WithRegistersModel(cfg), tmp_path, SIZES)


def test_with_registers_and_classes(tmp_path: Path) -> None:
    cfg = transformers.Dinov2WithRegistersConfig(**SMALL, num_labels=3)
    check_vision(transformers.Dinov2WithRegistersForImageClassification(cfg), tmp_path, SIZES)


def test_the_layouts_do_not_take_each_other(tmp_path: Path) -> None:
    """What one family cannot say is refused, not left out."""
    transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**SMALL)).save_pretrained(
        tmp_path
    )
    _, model = imported(tmp_path)
    for family, named in ((dinov2.FAMILY, "places_fit"), (vit.FAMILY, "places_fit")):
        with pytest.raises(ConfigError, match=named):
            written(family, model.cfg)
    bicubic = replace(model.cfg.image, places_fit="bicubic")
    with pytest.raises(ConfigError, match="registers = 4"):
        written(dinov2.FAMILY, replace(model.cfg, codecs={"image": bicubic}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("mlp_ratio", 1e300), ("mlp_ratio", 0), ("hidden_act", "mish"), ("image_size", [42, 14])],
)
def test_what_we_lack_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    save_folder(tmp_path, source.config | {key: value}, tensors)
    with pytest.raises(ConfigError, match=key):
        imported(tmp_path)
