"""The image codec's ends: configs that fit together, sizes that are refused, counts, and starting weights."""

from typing import Any

import pytest
import torch

from onebase.base.config import BaseConfig, base_parameters
from onebase.base.model import BaseModel
from onebase.errors import ConfigError, UserError
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig, PoolConfig
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, TrunkConfig

WIDTH = 16


def base(**codec: Any) -> BaseModel:
    block = BlockConfig(
        attn=AttnConfig(heads=2, kv_heads=2, head_dim=8, rope=None),
        ff=FFConfig(hidden=24, activation="gelu"),
        layer_scale=True,
    )
    cfg = BaseConfig(
        trunks={"image": TrunkConfig(width=WIDTH, blocks=(block,), direction="both")},
        codecs={"image": ImageCodecConfig(**{"kind": "image", "size": 12, "patch": 4} | codec)},
    )
    model = BaseModel(cfg)
    model.reset(0)
    return model


LAYER = NormConfig(kind="layer")
POOLS = [
    PoolConfig(),
    PoolConfig(kind="mean"),
    PoolConfig(kind="both"),
    PoolConfig(kind="attention", heads=2, ff=FFConfig(hidden=8, activation="gelu", bias=True), norm=LAYER),
]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("front", [{"class_token": False}, {}, {"registers": 2}, {"place_class": False}])
def test_one_vector_an_image_and_every_number_counted(pool: PoolConfig, front: dict[str, Any]) -> None:
    model = base(pool=pool, classes=("a", "b"), **front)
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    out = model.states("image", torch.randn(3, 3, 12, 12)).hidden
    assert out.shape == (3, 9 + model.image.front, WIDTH)
    pooled = model.image.pooled(out)
    assert pooled.shape == (3, WIDTH * (2 if pool.kind == "both" else 1))
    assert model.image.scores(pooled).shape == (3, 2)


def test_what_pooling_reads() -> None:
    states = torch.randn(2, 12, WIDTH)  # class token, two registers, nine patches
    kinds = {k: base(registers=2, pool=PoolConfig(kind=k)).image.pooled(states) for k in ("first", "mean")}
    assert torch.equal(kinds["first"], states[:, 0])
    torch.testing.assert_close(kinds["mean"], states[:, 3:].mean(1))
    both = base(registers=2, pool=PoolConfig(kind="both")).image.pooled(states)
    assert torch.equal(both, torch.cat((kinds["first"], kinds["mean"]), 1))


def test_a_patch_is_the_convolution_that_others_write() -> None:
    model = base(places_fit="bicubic")
    with torch.no_grad():
        pixels = torch.randn(2, 3, 14, 23)  # with pixels left over
        x, _ = model.image.embed(pixels, torch.float32)
        kernel = model.image.patch.view(WIDTH, 3, 4, 4)
        want = torch.nn.functional.conv2d(pixels, kernel, model.image.bias, stride=4).flatten(2).mT
        assert model.image.class_token is not None
        torch.testing.assert_close(x[:, 1:] - model.image.places(14, 23)[1:], want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(12, 16), (16, 16), (8, 8), (3, 12)])
def test_a_size_that_positions_are_not_for_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]}"):
        base().states("image", torch.randn(1, 3, *size))


def test_less_than_a_patch_and_other_channels_are_refused() -> None:
    with pytest.raises(UserError, match="one patch"):
        base(places_fit="bicubic").states("image", torch.randn(1, 3, 3, 12))
    with pytest.raises(UserError, match="1 channels"):
        base().states("image", torch.randn(1, 1, 12, 12))


def test_a_base_without_classes_says_so() -> None:
    model = base()
    with pytest.raises(UserError, match="no image classes"):
        model.image.scores(torch.randn(1, WIDTH))


def test_starting_weights_follow_from_the_seed_and_nothing_learned_is_left_at_nought() -> None:
    pool = POOLS[-1]
    one, two = base(pool=pool, registers=1), base(pool=pool, registers=1)
    for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert name.endswith("bias") or a.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ({"patch": 13}, "cannot be split"),
        ({"patch": 0}, "cannot be split"),
        ({"pixels": PixelsConfig(mean=(0.1, 0.2))}, "2 means"),
        ({"pixels": PixelsConfig(size=24)}, "positions are for 12"),
        ({"pool": {"kind": "attention"}}, "attention"),
    ],
)
def test_a_codec_that_does_not_fit_together(codec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        if isinstance(codec.get("pool"), dict):
            codec = {"pool": PoolConfig(**codec["pool"])}
        base(**codec)
