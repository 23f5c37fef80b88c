"""The learned ends: positions, types, scale, the masked head's transform; and a codec that predicts nothing."""

import pytest
import torch
import torch.nn.functional as F

from onebase.errors import ConfigError, UserError
from onebase.modality.text.config import TextCodecConfig, TransformConfig, codec_parameters
from onebase.modality.text.modules import TextModule
from onebase.model.config import NormConfig

FULL = TextCodecConfig(
    vocab_size=20,
    context=6,
    tied=True,
    scale=3.0,
    positions=8,
    first_position=2,
    types=2,
    head_bias=True,
    transform=TransformConfig(norm=NormConfig(kind="layer")),
)


def made(cfg: TextCodecConfig) -> TextModule:
    ends = TextModule(cfg, 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in ends.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return ends


def test_a_vector_is_of_token_position_and_type() -> None:
    ends = made(FULL)
    positions, types = ends.stem.positions, ends.stem.types
    assert positions is not None and types is not None
    ids, pos = torch.tensor([[7, 3]]), torch.tensor([[0, 5]])
    x = ends.embed(ids, pos, torch.float32)
    for t, (i, p) in enumerate(zip(ids[0], pos[0], strict=True)):
        assert torch.allclose(x[0, t], 3 * ends.stem.weight[i] + positions[2 + p] + types[0])


def test_logits_go_through_the_transform() -> None:
    ends = made(FULL)
    h = torch.randn(3, 4)
    head = ends.head.transform
    assert head is not None and head.bias is not None and ends.head.bias is not None
    norm = head.norm
    y = F.layer_norm(F.gelu(h @ head.weight.T + head.bias), (4,), norm.weight, norm.bias, 1e-6)
    assert torch.allclose(ends.logits(h), y @ ends.stem.weight.T + ends.head.bias, atol=1e-5)


@pytest.mark.parametrize(
    "cfg",
    [FULL, TextCodecConfig(vocab_size=9, context=4), TextCodecConfig(vocab_size=9, context=4, head=False)],
)
def test_parameters_are_counted_from_the_config(cfg: TextCodecConfig) -> None:
    assert codec_parameters(cfg, 4) == sum(p.numel() for p in TextModule(cfg, 4).parameters())


def test_a_codec_without_a_head_says_so() -> None:
    ends = made(TextCodecConfig(vocab_size=9, context=4, head=False))
    with pytest.raises(UserError, match="predicts no tokens"):
        ends.logits(torch.zeros(1, 4))
    with pytest.raises(ConfigError, match="head is false"):
        TextCodecConfig(vocab_size=9, context=4, head=False, tied=True)
    with pytest.raises(ConfigError, match="too short for a context of 5 that starts at row 2"):
        TextCodecConfig(vocab_size=9, context=5, positions=6, first_position=2)
