"""Feed-forward by kind of token: each token goes through that of its group, text is what it was, what is absent learns nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onebase.errors import ConfigError
from onebase.methods.lowrank import Lora
from onebase.model import count
from onebase.model.cache import Cache
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, InitConfig, NormConfig, TrunkConfig
from onebase.model.mask import Cols, mixed
from onebase.model.proj import AdapterRouting
from onebase.model.trunk import Trunk, init_trunk

WIDTH = 24
BLOCK = BlockConfig(
    attn=AttnConfig(heads=3, kv_heads=3, head_dim=8, qk_norm=NormConfig()),
    ff=FFConfig(hidden=20, activation="relu2"),
)
SHARED = TrunkConfig(
    width=WIDTH,
    blocks=(BLOCK,) * 2,
    lambdas=True,
    init=InitConfig(std=0.2),
)
CFG = replace(SHARED, groups=("text", "vision", "audio"))


def trunk_of(cfg: TrunkConfig, seed: int = 0) -> Trunk:
    trunk = Trunk("text", cfg)
    init_trunk(trunk, torch.Generator().manual_seed(seed))
    return trunk.eval()


def columns() -> Cols:
    """Two rows: text with an image and a sound in it, and text with a noised image and its clean copy."""
    kind = torch.tensor([[0, 0, 1, 1, 1, 0, 2, 2, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]])
    pos = torch.tensor([[0, 1, 2, 2, 2, 3, 4, 4, 5, 6], [0, 1, 1, 1, 2, 2, 2, 3, 4, 5]])
    block = torch.tensor([[-1, -1, 0, 0, 0, -1, 1, 1, -1, -1], [-1, 0, 0, 0, 1, 1, 1, -1, -1, -1]])
    noisy = torch.zeros(2, 10, dtype=torch.bool)
    noisy[1, 1:4] = True
    return Cols(pos, torch.zeros_like(pos), block, kind, noisy)


def states(batch: int = 2, length: int = 10) -> Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(1))


def test_each_token_goes_through_the_feed_forward_of_its_kind() -> None:
    block = trunk_of(CFG).blocks[0]
    x, kind = states(), columns().kind
    seen: list[tuple[str, int]] = []
    for name, part in {"text": block.ff, **dict(block.group_ff.items())}.items():
        part.register_forward_hook(lambda m, i, o, name=name: seen.append((name, i[0].shape[0])))
    assert kind is not None
    tokens = trunk_of(CFG)._token_groups(columns())
    with torch.no_grad():
        found = block._feed_forward(x, tokens, None)
        parts = [block.ff, *block.group_ff.values()]
        for b in range(2):
            for t in range(10):
                torch.testing.assert_close(found[b, t], parts[int(kind[b, t])](x[b, t]))
    assert seen[:3] == [("text", 9), ("vision", 9), ("audio", 2)]


def test_text_is_what_it_was() -> None:
    joint, alone = trunk_of(CFG), trunk_of(SHARED)
    missing = alone.load_state_dict(joint.state_dict(), strict=False)
    assert all(".group_ff." in k for k in missing.unexpected_keys) and not missing.missing_keys
    x, cols = states(), Cols.simple(2, 10)
    kinds = replace(cols, kind=torch.zeros(2, 10, dtype=torch.long))
    with torch.no_grad():
        wanted = alone(x, cols).hidden
        assert torch.equal(joint(x, cols).hidden, wanted)
        assert torch.equal(joint(x, kinds).hidden, wanted)
    assert torch.equal(joint(x, cols).hidden, alone(x, cols).hidden)  # with gradients


@pytest.mark.parametrize("given", ["no kinds", "text", "text and vision"])
def test_the_gradient_of_what_is_absent_is_zero(given: str) -> None:
    trunk, cols = trunk_of(CFG), Cols.simple(2, 10)
    if given != "no kinds":
        kind = torch.zeros(2, 10, dtype=torch.long)
        kind[:, 3:5] = int(given == "text and vision")
        cols = replace(cols, kind=kind)
    trunk(states(), cols).hidden.square().sum().backward()
    for name, p in trunk.named_parameters():
        assert p.grad is not None, name
        absent = ".audio." in name or (".vision." in name and given != "text and vision")
        assert (not p.grad.any()) == absent, name


@pytest.mark.parametrize("impl", ["plain", "sdpa", "blocked", "flex"])
def test_a_noised_block_changes_nothing_outside(impl: str) -> None:
    trunk, cols, x = trunk_of(CFG), columns(), states()
    other = x.clone()
    other[1, 1:4] += 1.0
    with torch.no_grad():
        a, b = (trunk(v, cols, mixed(), impl=impl).hidden for v in (x, other))
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1, 4:], b[1, 4:])
    assert not torch.allclose(a[1, 1:4], b[1, 1:4])


@pytest.mark.parametrize("first", [1, 4, 7])
def test_a_cache_changes_nothing(first: int) -> None:
    """Cut where no block is open: a block is read at once."""
    trunk, cols, x = trunk_of(CFG), columns(), states()
    cols, x = cols.rows(slice(1, 2)), x[1:]
    with torch.no_grad():
        wanted = trunk(x, cols, mixed()).hidden
        cache = Cache(CFG, 1, 10, "cpu", torch.float32)
        parts = [
            trunk(x[:, a:b], cols.cut(a, b), mixed(), cache=cache).hidden
            for a, b in ((0, first), (first, 9), (9, 10))
        ]
    torch.testing.assert_close(torch.cat(parts, 1), wanted, atol=1e-5, rtol=1e-5)


def test_adapters_of_rows_act_in_the_groups() -> None:
    trunk, cols, x = trunk_of(CFG), columns(), states()
    for i, name in enumerate(("a", "b")):
        for site, proj in trunk.sites().items():
            if site.endswith(("up", "down")):
                delta = Lora(proj.d_in, proj.d_out, 2, 1.0)
                for j, p in enumerate(delta.parameters()):
                    torch.nn.init.normal_(p, 0, 0.3, torch.Generator().manual_seed(7 * i + j + len(site)))
                proj.deltas[name] = delta
    with torch.no_grad():
        both = trunk(x, cols, mixed(), routing=AdapterRouting.per_row(["a", "b"])).hidden
        for i, name in enumerate(("a", "b")):
            row = cols.rows(slice(i, i + 1))
            alone = trunk(x[i : i + 1], row, mixed(), routing=AdapterRouting.all_rows(name)).hidden
            torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(both[1], trunk(x, cols, mixed()).hidden[1])


def test_sites_and_counts() -> None:
    trunk = trunk_of(CFG)
    assert {"text.1.ff.up", "text.1.ff.vision.up", "text.1.ff.audio.down"} <= set(trunk.sites())
    assert count.parameters(CFG) == sum(p.numel() for p in trunk.parameters())
    matrices = sum(p.weight.numel() for p in trunk.sites().values())
    assert count.matrix_parameters(CFG, len(CFG.groups)) == matrices
    assert count.matrix_parameters(CFG) == count.matrix_parameters(SHARED)


def test_groups_have_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match="'vision', 'vision'"):
        replace(CFG, groups=("text", "vision", "vision"))
    with pytest.raises(ConfigError, match="letters"):
        replace(CFG, groups=("text", "a.b"))
