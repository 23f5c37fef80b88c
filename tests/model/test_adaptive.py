"""Adaptive norms: a block written out, its start, its counts, and trunks without them, which stay what they were."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.errors import ConfigError
from onebase.model import count
from onebase.model.cache import Cache
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, Norms, TrunkConfig
from onebase.model.kernels.bound import bound
from onebase.model.mask import Cols
from onebase.model.trunk import Trunk, init_trunk

WIDTH = 12
BARE = NormConfig(kind="layer", affine=False)
BLOCK = BlockConfig(
    attn=AttnConfig(heads=2, kv_heads=2, head_dim=6, rope=None),
    ff=FFConfig(hidden=20, activation="gelu"),
    norms=Norms(norm=BARE, ff_eps=0.5),
    adaptive=True,
)
CFG = TrunkConfig(width=WIDTH, blocks=(BLOCK,) * 2, final_norm=None, direction="both")


def trunk_of(cfg: TrunkConfig, std: float = 0.3) -> Trunk:
    """With drawn weights; std 0: as it starts."""
    trunk = Trunk("latents", cfg)
    g = torch.Generator().manual_seed(0)
    init_trunk(trunk, g)
    with torch.no_grad():
        for p in trunk.parameters() if std else ():
            p.copy_(torch.randn(p.shape, generator=g) * std)
    return trunk.eval().requires_grad_(False)


def written_out(trunk: Trunk, i: int, x_TD: Tensor, c_D: Tensor) -> Tensor:
    """One block for one row, by the formula of the paper."""
    b = trunk.blocks[i]
    change = F.linear(F.silu(c_D), b.adapt.weight, b.adapt.bias).reshape(6, WIDTH)
    shift, scale, gate, shift2, scale2, gate2 = change
    h_TD = F.layer_norm(x_TD, (WIDTH,), eps=1e-6) * (1 + scale) + shift
    heads = []
    for n in (slice(0, 6), slice(6, 12)):
        q, k, v = (h_TD @ m.weight.T[:, n] for m in (b.attn.q, b.attn.k, b.attn.v))
        heads.append((q @ k.T / 6**0.5).softmax(-1) @ v)
    x_TD = x_TD + gate * (torch.cat(heads, -1) @ b.attn.o.weight.T)
    h_TD = F.layer_norm(x_TD, (WIDTH,), eps=0.5) * (1 + scale2) + shift2
    return x_TD + gate2 * (F.gelu(h_TD @ b.ff.up.weight.T) @ b.ff.down.weight.T)


@pytest.mark.parametrize("each", [1, 2])
def test_a_trunk_is_its_formula(each: int) -> None:
    """With one vector of conditions for all blocks, and with one for each."""
    trunk = trunk_of(CFG)
    g = torch.Generator().manual_seed(1)
    x_BTD, c_BLD = torch.randn(3, 5, WIDTH, generator=g), torch.randn(3, each, WIDTH, generator=g)
    got = trunk(x_BTD, Cols.simple(3, 5, x_BTD.device), condition_BLD=c_BLD).hidden
    for row in range(3):
        want = x_BTD[row]
        for i in range(2):
            want = written_out(trunk, i, want, c_BLD[row, i if each == 2 else 0])
        torch.testing.assert_close(got[row], want, atol=2e-5, rtol=1e-5)


def test_a_block_starts_as_the_identity_and_learns() -> None:
    trunk = trunk_of(CFG, std=0.0)
    x_BTD, c_BLD = torch.randn(1, 4, WIDTH), torch.randn(1, 1, WIDTH)
    cols = Cols.simple(1, 4, x_BTD.device)
    torch.testing.assert_close(trunk(x_BTD, cols, condition_BLD=c_BLD).hidden, x_BTD)
    trunk.requires_grad_(True)
    trunk(x_BTD, cols, condition_BLD=c_BLD).hidden.square().sum().backward()
    assert all(float(b.adapt.weight.grad.abs().max()) > 0 for b in trunk.blocks)


def test_sites_and_counts() -> None:
    trunk = trunk_of(CFG)
    assert "latents.1.adapt" in trunk.sites()
    assert count.parameters(CFG) == sum(p.numel() for p in trunk.parameters())
    plain = replace(CFG, blocks=tuple(replace(b, adaptive=False) for b in CFG.blocks))
    assert count.matrix_parameters(CFG) == count.matrix_parameters(plain), "conditions are read once a row"


def test_conditions_are_asked_for() -> None:
    x_BTD = torch.randn(1, 4, WIDTH)
    with pytest.raises(AssertionError, match="no conditions"):
        trunk_of(CFG)(x_BTD, Cols.simple(1, 4, x_BTD.device))


def test_a_trunk_without_them_has_nothing_more() -> None:
    """No parameter, and the fast decode path of before."""
    plain = replace(CFG, blocks=tuple(replace(b, adaptive=False, norms=Norms(norm=BARE)) for b in CFG.blocks))
    trunk = trunk_of(plain)
    assert not [n for n, _ in trunk.named_parameters() if "adapt" in n]
    assert bound(trunk.blocks[0], torch.float32, None) is not None  # type: ignore[arg-type]
    assert bound(trunk_of(CFG).blocks[0], torch.float32, None) is None  # type: ignore[arg-type]


def test_a_cache_changes_nothing() -> None:
    """A causal adaptive trunk in parts: the fast decode path leaves it to its modules."""
    cfg = replace(CFG, direction="causal")
    trunk, c_BLD = trunk_of(cfg), torch.randn(2, 1, WIDTH)
    x_BTD, cols = torch.randn(2, 6, WIDTH), Cols.simple(2, 6, torch.device("cpu"))
    whole = trunk(x_BTD, cols, condition_BLD=c_BLD).hidden
    cache = Cache(cfg, 2, 6, torch.device("cpu"), torch.float32)
    parts = []
    for a, b in ((0, 5), (5, 6)):
        own = Cols(cols.pos[:, a:b], cols.doc[:, a:b])
        parts.append(trunk(x_BTD[:, a:b], own, cache=cache, condition_BLD=c_BLD).hidden)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"layer_scale": True}, {"residual": 0.5}, {"norms": Norms(where="post")}, {"cross": BLOCK.attn}],
)
def test_blocks_that_cannot_be_adaptive(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="adaptive block"):
        replace(BLOCK, **wrong)
