"""Blocks bound in advance for decoding: they follow the weights, whatever changes them, and stand back where somebody looks on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onebase.base.config import TextShape, text_base
from onebase.base.model import BaseModel
from onebase.model.config import BlockConfig, NormConfig, Norms, RopeConfig, StorageConfig
from onebase.model.kernels.compiled import direct
from onebase.model.mask import Cols
from onebase.model.norm import Norm
from onebase.train.config import AdamWConfig
from onebase.train.optim import Optimizers

IDS = torch.tensor([[3, 1, 4, 1, 5]])


Change = Callable[[BlockConfig], BlockConfig]


def made(dtype: torch.dtype = torch.float32, change: Change | None = None) -> BaseModel:
    cfg = text_base(
        TextShape(width=64, depth=2, head_dim=32, vocab_size=64, context=32, portable=True, zero_out=False)
    )
    if change is not None:
        trunk = cfg.trunks["text"]
        cfg = replace(cfg, trunks={"text": replace(trunk, blocks=tuple(change(b) for b in trunk.blocks))})
    model = BaseModel(cfg)
    model.reset(0)
    model.compute_dtype = dtype
    return model.requires_grad_(False).eval()


@torch.no_grad()
def decoded(model: BaseModel) -> Tensor:
    """States of the tokens one by one, with a cache: the blocks bound in advance."""
    cache = model.new_cache(1, IDS.shape[1])
    parts = [
        model.hidden(IDS[:, t : t + 1], Cols.simple(1, 1, start=t), cache=cache).hidden
        for t in range(IDS.shape[1])
    ]
    return torch.cat(parts, 1)


@torch.no_grad()
def follows(model: BaseModel) -> bool:
    """Does decoding say what the weights say? They are asked in the plain way: no cache, and as for gradients, where nothing is kept."""
    bound = model.trunk._decode.ready(model.compute_dtype, True) is not None
    tolerance = 1e-5 if model.compute_dtype == torch.float32 else 0.05
    with torch.enable_grad():
        plain = model.hidden(IDS).hidden
    return bound and torch.allclose(decoded(model), plain, atol=tolerance, rtol=tolerance)


def in_place(model: BaseModel) -> None:
    for p in model.trunks.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))


def replaced(model: BaseModel) -> None:
    for m in model.trunks.modules():
        if isinstance(m, Norm) and m.weight is not None:
            m.weight = torch.nn.Parameter(m.weight * 1.5, requires_grad=False)


def loaded(model: BaseModel) -> None:
    model.load_state_dict({k: v * 1.3 for k, v in model.state_dict().items()}, assign=True)


def quantised(model: BaseModel) -> None:
    model.quantise(StorageConfig(bits=8))


def trained(model: BaseModel) -> None:
    """A step of the loop's own optimizers; AdamW's is fused, which changes weights and not their version."""
    model.requires_grad_(True)
    optim = Optimizers(model, None, AdamWConfig(matrix=0.1, embed=0.1, head=0.1, other=0.1))
    with torch.enable_grad():
        model.logits(IDS).square().sum().backward()
    optim.step()
    optim.zero_grad()
    model.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [in_place, replaced, loaded, quantised, trained])
def test_decoding_follows_the_weights(change: Callable[[BaseModel], None], dtype: torch.dtype) -> None:
    model = made(dtype)
    before = decoded(model)
    assert follows(model)
    with torch.no_grad():
        change(model)
    assert follows(model)
    assert not torch.equal(decoded(model), before)


def test_what_may_learn_is_not_bound() -> None:
    """Another's fused step changes no version: while weights may learn, the modules themselves are asked."""
    model = made()
    assert follows(model)
    model.requires_grad_(True)
    assert model.trunk._decode.ready(torch.float32, True) is None
    optim = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        model.logits(IDS).square().sum().backward()
        optim.step()
        optim.zero_grad()
        torch.testing.assert_close(decoded(model), model.hidden(IDS).hidden, atol=1e-5, rtol=1e-5)


def test_hooks_are_called() -> None:
    model = made()
    decoded(model)
    seen: list[int] = []
    block = model.trunk.blocks[0]
    handle = block.get_submodule("ff.down").register_forward_hook(lambda *_: seen.append(1))
    decoded(model)
    assert len(seen) == IDS.shape[1]
    handle.remove()
    decoded(model)
    assert len(seen) == IDS.shape[1] and follows(model)


BLOCKS: dict[str, Change] = {
    "plain": lambda b: b,
    "one_key_head": lambda b: replace(b, attn=replace(b.attn, kv_heads=1)),
    "no_rope": lambda b: replace(b, attn=replace(b.attn, rope=None)),
    "some_turn": lambda b: replace(b, attn=replace(b.attn, rope=RopeConfig(dim=8))),
    "window": lambda b: replace(b, attn=replace(b.attn, window=3)),
    "softcap": lambda b: replace(b, attn=replace(b.attn, softcap=0.5, scale=1.0)),
    "qk_norm": lambda b: replace(b, attn=replace(b.attn, qk_norm=NormConfig(offset=1.0))),
    "bare_qk_norm": lambda b: replace(b, attn=replace(b.attn, qk_norm=NormConfig(affine=False))),
    "layer_qk_norm": lambda b: replace(b, attn=replace(b.attn, qk_norm=NormConfig(kind="layer"))),
    "biases": lambda b: replace(
        b, attn=replace(b.attn, bias=("q", "k", "v", "o")), ff=replace(b.ff, bias=True)
    ),
    "gelu": lambda b: replace(b, ff=replace(b.ff, activation="geglu_tanh")),
    "exact_gelu": lambda b: replace(b, ff=replace(b.ff, activation="geglu")),
    "no_gate": lambda b: replace(b, ff=replace(b.ff, activation="relu2")),
    "sandwich": lambda b: replace(b, norms=Norms(where="sandwich")),
    "post": lambda b: replace(b, norms=Norms(where="post")),
    "layer_norm": lambda b: replace(b, norms=Norms(norm=NormConfig(kind="layer", bias=True))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BLOCKS)
def test_bound_blocks_say_what_modules_say(name: str, dtype: torch.dtype) -> None:
    """Two rows, one of them padded on the left: token by token with a cache, against all at once."""
    model = made(dtype, BLOCKS[name])
    for i, p in enumerate(model.parameters()):  # no two alike: a gain in another's place would go unseen
        p.data += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [0, 0, 6, 5, 3, 5, 8]])
    doc = torch.tensor([[0] * 7, [-1, -1] + [0] * 5])
    pos = torch.tensor([[*range(7)], [0, 0, *range(5)]])
    cache = model.new_cache(2, 7)
    with torch.no_grad():
        parts = [
            model.hidden(ids[:, t : t + 1], Cols(pos[:, t : t + 1], doc[:, t : t + 1]), cache=cache).hidden
            for t in range(7)
        ]
        ready = model.trunk._decode.ready(dtype, True)
    assert ready is not None and None not in ready.steps
    one_by_one = name in ("layer_qk_norm", "exact_gelu", "no_gate", "post", "layer_norm")
    if dtype == torch.float32 and direct() is not None:
        assert (ready.chain is None) == one_by_one
    plain = model.hidden(ids, Cols(pos, doc)).hidden
    own = doc >= 0
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(torch.cat(parts, 1)[own], plain[own], atol=tolerance, rtol=tolerance)


needs_loops = pytest.mark.skipif(direct() is None, reason="numba is not installed")


@needs_loops
def test_all_blocks_as_one_call_mix_in_the_input() -> None:
    model = made()
    trunk = model.trunk
    trunk.lambdas = torch.nn.Parameter(
        torch.tensor([[0.7, 0.3], [1.2, -0.4]])[: len(trunk.blocks)], requires_grad=False
    )
    assert follows(model)
    before = decoded(model)
    with torch.no_grad():
        trunk.lambdas[1, 1] += 0.5
    assert follows(model) and not torch.equal(decoded(model), before)


@needs_loops
@torch.no_grad()
def test_one_call_and_one_by_one_say_the_same() -> None:
    """Also where the outputs of blocks are asked for, which the one call has none of, and beyond the rows that it is quick for."""
    model = made()
    ready = model.trunk._decode.ready(torch.float32, True)
    assert ready is not None and ready.chain is not None
    rows = ready.chain.most + 1
    said = []
    for count, taps in ((rows, ()), (2, ()), (2, (0, 1))):
        cache = model.new_cache(count, 3)
        for t in range(3):
            ids = torch.full((count, 1), t + 1)
            out = model.hidden(ids, Cols.simple(count, 1, start=t), cache=cache, taps=taps)
        assert set(out.taps) == set(taps)
        said.append(out.hidden[:2])
    torch.testing.assert_close(said[0], said[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(said[2], said[1], atol=1e-5, rtol=1e-5)
