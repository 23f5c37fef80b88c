"""Attention to a memory, and scaled parts: what they see, that a cache changes nothing, that they are counted."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ConfigError
from onebase.model import count
from onebase.model.cache import Cache
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, Norms, TrunkConfig
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from onebase.model.trunk import Trunk
from tests.model.test_trunk import made

LOOK = AttnConfig(heads=4, kv_heads=2, head_dim=8, rope=None, bias=("q", "v", "o"))

configs = st.builds(
    lambda where, scaled, qk, memory, first: TrunkConfig(
        width=24,
        blocks=tuple(
            BlockConfig(
                attn=AttnConfig(heads=2, kv_heads=1, head_dim=8),
                ff=FFConfig(hidden=20),
                norms=Norms(norm=NormConfig(kind="layer"), where=where),
                cross=replace(LOOK, qk_norm=NormConfig() if qk else None) if looks else None,
                layer_scale=scaled,
            )
            for looks in (first, True)
        ),
        memory=memory,
    ),
    st.sampled_from(["pre", "post", "sandwich"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 12]),
    st.booleans(),
)


def memory_of(cfg: TrunkConfig, lengths: list[int]) -> Memory:
    states = torch.randn(len(lengths), 7, cfg.memory or cfg.width, generator=torch.Generator().manual_seed(3))
    return Memory(states, Cols.padded(torch.tensor(lengths), 7))


@settings(max_examples=20)
@given(configs)
def test_parameters_are_counted_from_the_config(cfg: TrunkConfig) -> None:
    assert sum(p.numel() for p in Trunk("text", cfg).parameters()) == count.parameters(cfg)


@settings(max_examples=20)
@given(configs, st.integers(1, 8))
@torch.no_grad()
def test_a_cache_keeps_the_memory(cfg: TrunkConfig, first: int) -> None:
    """Token by token with a cache, the memory given once, and with rows dropped on the way: as the whole row at once."""
    trunk, memory = made(cfg), memory_of(cfg, [7, 4])
    x_BTD = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))
    whole = trunk(x_BTD, Cols.simple(2, 9), memory=memory).hidden
    cache = Cache(cfg, 2, 9, "cpu", torch.float32)
    parts = [trunk(x_BTD[:, :first], Cols.simple(2, first), cache=cache, memory=memory).hidden[1:]]
    cache.keep(torch.tensor([1]))
    for t in range(first, 9):
        parts.append(trunk(x_BTD[1:, t : t + 1], Cols.simple(1, 1, start=t), cache=cache).hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole[1:], atol=1e-5, rtol=1e-5)


def test_padding_and_other_documents_of_a_memory_are_not_seen() -> None:
    block = BlockConfig(attn=AttnConfig(heads=2, kv_heads=1, head_dim=8), ff=FFConfig(hidden=20), cross=LOOK)
    trunk = made(TrunkConfig(width=24, blocks=(block,)))
    states = torch.randn(1, 5, 24, requires_grad=True)
    memory = Memory(states, Cols(torch.tensor([[0, 1, 0, 1, 0]]), torch.tensor([[0, 0, 1, 1, -1]])))
    x_BTD, pos = torch.randn(1, 4, 24), torch.tensor([[0, 1, 0, 1]])
    cols = Cols(pos, torch.tensor([[0, 0, 1, 1]]))
    trunk(x_BTD, cols, memory=memory).hidden[0, 3].sum().backward()
    assert states.grad is not None
    assert (states.grad[0].abs().sum(-1) > 0).tolist() == [False, False, True, True, False]


def test_a_layer_scale_of_zero_is_the_identity() -> None:
    block = BlockConfig(
        attn=AttnConfig(heads=2, kv_heads=1, head_dim=8), ff=FFConfig(hidden=20), layer_scale=True
    )
    trunk = made(TrunkConfig(width=24, blocks=(block,) * 2, final_norm=None))
    x_BTD = torch.randn(1, 4, 24)
    assert not torch.equal(trunk(x_BTD, Cols.simple(1, 4)).hidden, x_BTD)
    with torch.no_grad():
        for name, p in trunk.named_parameters():
            if name.endswith("_scale.weight"):
                p.zero_()
    assert torch.equal(trunk(x_BTD, Cols.simple(1, 4)).hidden, x_BTD)


def test_a_memory_has_no_rotary_positions() -> None:
    with pytest.raises(ConfigError, match="contain their own positions"):
        BlockConfig(attn=LOOK, ff=FFConfig(hidden=8), cross=AttnConfig(heads=1, kv_heads=1, head_dim=8))
