"""The trunk: every config value does what it says, packed documents never meet, a cache changes nothing."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.model import count
from onebase.model.config import (
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    RopeConfig,
    RopeScaling,
    TrunkConfig,
)
from onebase.model.mask import Causal, Cols, SameBlock, SameDocument
from onebase.model.trunk import Trunk, init_trunk

LLAMA3 = RopeScaling(kind="llama3", factor=8.0, original=16)

configs = st.builds(
    lambda heads, share, window, softcap, qk, bias, act, where, kind, affine, ends, lambdas, direction, rope: (
        TrunkConfig(
            width=24,
            blocks=tuple(
                BlockConfig(
                    attn=AttnConfig(
                        heads=heads * share,
                        kv_heads=heads,
                        head_dim=8,
                        rope=rope,
                        window=window if i == 0 else None,
                        softcap=softcap,
                        qk_norm=NormConfig(affine=affine) if qk else None,
                        bias=("q", "v", "o") if bias else (),
                    ),
                    ff=FFConfig(hidden=20, activation=act, bias=bias),
                    norms=Norms(
                        norm=NormConfig(kind=kind, affine=affine, bias=bias), where=where, attn=i > 0
                    ),
                )
                for i in range(2)
            ),
            final_norm=NormConfig(kind=kind) if ends else None,
            input_norm=NormConfig(affine=False) if ends else None,
            lambdas=lambdas,
            direction=direction,
        )
    ),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from([None, 3]),
    st.sampled_from([None, 5.0]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(get_args(Activation)),
    st.sampled_from(["pre", "post", "sandwich"]),
    st.sampled_from(["rms", "layer"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["causal", "both"]),
    st.sampled_from([None, RopeConfig(), RopeConfig(dim=4), RopeConfig(scaling=LLAMA3)]),
)


def made(cfg: TrunkConfig, seed: int = 0) -> Trunk:
    trunk = Trunk("text", cfg)
    init_trunk(trunk, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trunk.parameters():
            if p.ndim == 2 and p is not trunk.lambdas:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return trunk.eval()


def normed(h_BTD: torch.Tensor) -> torch.Tensor:
    """States of size one, as a head reads them: a trunk without a final norm leaves them as large as the draw of its weights."""
    return torch.nn.functional.rms_norm(h_BTD, h_BTD.shape[-1:], eps=1e-6)


@settings(max_examples=40)
@given(configs)
@torch.no_grad()
def test_documents_of_a_pack_do_not_meet(cfg: TrunkConfig) -> None:
    """A packed row gives each document what it gives alone, and changing one document changes only that one."""
    trunk = made(cfg)
    lengths = (5, 3, 4)
    parts = [torch.randn(1, n, 24, generator=torch.Generator().manual_seed(n)) for n in lengths]
    pos = torch.cat([torch.arange(n) for n in lengths])[None]
    doc = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])[None]
    packed = trunk(torch.cat(parts, 1), Cols(pos, doc)).hidden
    alone = torch.cat([trunk(x, Cols.simple(1, x.shape[1])).hidden for x in parts], 1)
    torch.testing.assert_close(normed(packed), normed(alone), atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(configs, st.integers(1, 8))
@torch.no_grad()
def test_a_cache_changes_nothing(cfg: TrunkConfig, first: int) -> None:
    from onebase.model.cache import Cache

    cfg = replace(cfg, direction="causal")
    trunk = made(cfg)
    x_BTD = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(1))
    whole = trunk(x_BTD, Cols.simple(2, 9)).hidden
    cache = Cache(cfg, 2, 9, "cpu", torch.float32)
    parts = [trunk(x_BTD[:, :first], Cols.simple(2, first), cache=cache).hidden]
    for t in range(first, 9):
        parts.append(trunk(x_BTD[:, t : t + 1], Cols.simple(2, 1, start=t), cache=cache).hidden)
    torch.testing.assert_close(normed(torch.cat(parts, 1)), normed(whole), atol=1e-5, rtol=1e-5)


@settings(max_examples=60)
@given(configs)
def test_parameters_are_counted_from_the_config(cfg: TrunkConfig) -> None:
    assert sum(p.numel() for p in Trunk("text", cfg).parameters()) == count.parameters(cfg)


def test_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    cfg = TrunkConfig(
        width=32,
        blocks=(BlockConfig(attn=AttnConfig(heads=4, kv_heads=2, head_dim=8), ff=FFConfig(hidden=48)),) * 2,
        direction="both",
    )
    trunk = made(cfg)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        trunk(torch.randn(1, 16, 32), Cols.simple(1, 16), impl="plain")
    assert counter.get_total_flops() == count.forward_flops(cfg, 16) * 16


def test_window_bounds_what_is_seen() -> None:
    """With windows of 3 in each of 2 blocks, a token depends on the 5 before and itself, no further."""
    attn = AttnConfig(heads=2, kv_heads=2, head_dim=8, window=3)
    cfg = TrunkConfig(width=24, blocks=(BlockConfig(attn=attn, ff=FFConfig(hidden=20)),) * 2)
    trunk = made(cfg)
    x_BTD = torch.randn(1, 12, 24, requires_grad=True)
    trunk(x_BTD, Cols.simple(1, 12)).hidden[0, 9].sum().backward()
    assert x_BTD.grad is not None
    seen = x_BTD.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [5 <= t <= 9 for t in range(12)]


def test_prefix_mask_is_a_union() -> None:
    attn = AttnConfig(heads=2, kv_heads=1, head_dim=8)
    trunk = made(TrunkConfig(width=24, blocks=(BlockConfig(attn=attn, ff=FFConfig(hidden=20)),)))
    cols = Cols.simple(1, 6)
    cols = Cols(cols.pos, cols.doc, torch.tensor([[0, 0, 0, -1, -1, -1]]))
    x_BTD = torch.randn(1, 6, 24, requires_grad=True)
    trunk(x_BTD, cols, (Causal() | SameBlock()) & SameDocument()).hidden[0, 0].sum().backward()
    assert x_BTD.grad is not None
    assert (x_BTD.grad[0].abs().sum(-1) > 0).tolist() == [True, True, True, False, False, False]


def test_padding_gives_finite_numbers() -> None:
    trunk = made(
        TrunkConfig(
            width=24,
            blocks=(BlockConfig(attn=AttnConfig(heads=2, kv_heads=1, head_dim=8), ff=FFConfig(hidden=20)),),
        )
    )
    out = trunk(torch.randn(2, 5, 24), Cols.padded(torch.tensor([5, 2]), 5)).hidden
    assert torch.isfinite(out).all()


def test_zero_out_starts_as_the_identity() -> None:
    from onebase.model.config import InitConfig

    attn = AttnConfig(heads=2, kv_heads=1, head_dim=8)
    cfg = TrunkConfig(
        width=24,
        blocks=(BlockConfig(attn=attn, ff=FFConfig(hidden=20)),),
        final_norm=None,
        init=InitConfig(zero_out=True),
    )
    trunk = Trunk("text", cfg)
    init_trunk(trunk, torch.Generator().manual_seed(0))
    x_BTD = torch.randn(1, 4, 24)
    assert torch.equal(trunk(x_BTD, Cols.simple(1, 4)).hidden, x_BTD)


def test_sites_are_stable_names() -> None:
    trunk = made(
        TrunkConfig(
            width=24,
            blocks=(BlockConfig(attn=AttnConfig(heads=2, kv_heads=1, head_dim=8), ff=FFConfig(hidden=20)),),
        )
    )
    assert sorted(trunk.sites()) == [
        f"text.0.{s}" for s in ("attn.k", "attn.o", "attn.q", "attn.v", "ff.down", "ff.gate", "ff.up")
    ]


@pytest.mark.parametrize(
    "wrong", [{"heads": 3, "kv_heads": 2}, {"heads": 0, "kv_heads": 1}, {"head_dim": 7}, {"window": 0}]
)
def test_wrong_attention(wrong: dict[str, int]) -> None:
    from onebase.errors import ConfigError

    with pytest.raises(ConfigError):
        AttnConfig(**({"heads": 2, "kv_heads": 1, "head_dim": 8} | wrong))
