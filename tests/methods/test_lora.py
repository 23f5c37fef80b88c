"""LoRA's forms: DoRA by its formula, scalings, ranks by site, patterns, and learning over a base in few bits."""

import copy
import math
from typing import Any

import pytest
import torch

from onebase.api.base import Base
from onebase.config_plain import without_defaults
from onebase.errors import ConfigError
from onebase.methods import lora
from onebase.methods.dora import Dora
from onebase.methods.lora import LoraConfig
from onebase.methods.lowrank import Lora
from onebase.methods.merge import merge
from onebase.model.proj import AdapterRouting, Proj
from onebase.model.sites import fits, value_at, worded
from tests.helpers import tiny_base

CHATS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}] * 6
IDS = torch.tensor([[3, 17, 5, 90, 41]])


def shaken(params: list[Any], seed: int = 3) -> None:
    """Numbers that change what a base says; a magnitude stays near what it was."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in params:
            drawn = torch.randn(p.shape, generator=g) * 0.3
            p.copy_(p * (1 + drawn) if p.ndim == 1 else drawn)


def projection(dora: bool, bias: bool = True) -> tuple[Proj, Lora]:
    proj = Proj("text.0.attn.q", 6, 5, bias)
    with torch.no_grad():
        for p in proj.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    made = (Dora if dora else Lora)(6, 5, 2, 1.5)
    made.reset(torch.Generator().manual_seed(0), proj)
    proj.deltas["x"] = made
    return proj, made


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_as_one_function_is_lora(dtype: torch.dtype, bias: bool) -> None:
    """The same value and gradients as step by step, within one rounding of the number format."""
    proj, made = projection(False, bias)
    shaken(list(made.parameters()))
    assert proj.weight is not None
    found = []
    for alone in (True, False):
        proj.requires_grad_(not alone)  # where the matrix learns too it goes step by step
        made.requires_grad_(True)
        x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        assert (made.whole(x, proj) is not None) == alone
        y = proj(x, AdapterRouting.all_rows("x"))
        made.zero_grad()
        y.square().sum().backward()
        found.append([y.detach(), x.grad, made.a_RI.grad, made.b_OR.grad])
    close = 1e-5 if dtype == torch.float32 else 2e-2
    for a, b in zip(*found, strict=True):
        assert a is not None and b is not None
        torch.testing.assert_close(a, b, rtol=close, atol=close * float(b.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
def test_dora_is_a_length_and_a_direction(bias: bool) -> None:
    torch.manual_seed(0)
    proj, dora = projection(True, bias)
    x = torch.randn(3, 6)
    torch.testing.assert_close(proj(x, AdapterRouting.all_rows("x")), proj(x), atol=1e-6, rtol=0)
    shaken(list(dora.parameters()))
    assert isinstance(dora, Dora) and proj.weight is not None
    whole = proj.weight + dora.delta_OI()
    wanted = dora.m_O[:, None] * whole / whole.norm(dim=1, keepdim=True)
    y = torch.nn.functional.linear(x, wanted, proj.bias)
    torch.testing.assert_close(proj(x, AdapterRouting.all_rows("x")), y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dora.merged_OI(proj), wanted, atol=1e-6, rtol=1e-5)


def test_dora_sends_no_gradient_through_the_norm() -> None:
    """Equation 11 of 2402.09353: the gradient is that of m (W + delta) x / C with C a constant."""
    torch.manual_seed(1)
    proj, dora = projection(True, False)
    assert isinstance(dora, Dora) and proj.weight is not None
    shaken(list(dora.parameters()))
    x, ahead = torch.randn(4, 6), torch.randn(4, 5)
    (proj(x, AdapterRouting.all_rows("x")) * ahead).sum().backward()
    got = {n: p.grad.clone() for n, p in dora.named_parameters() if p.grad is not None}
    dora.zero_grad()
    whole = proj.weight.detach() + dora.delta_OI()
    const = whole.detach().norm(dim=1, keepdim=True)
    (torch.nn.functional.linear(x, dora.m_O[:, None] * whole / const) * ahead).sum().backward()
    assert got.keys() == {"a_RI", "b_OR", "m_O"}
    for n, p in dora.named_parameters():
        torch.testing.assert_close(got[n], p.grad, atol=1e-5, rtol=1e-5)


def test_what_dora_keeps_follows_what_changes() -> None:
    """Where nothing learns the gain is made once; a changed weight or tensor makes it anew."""
    proj, dora = projection(True)
    assert isinstance(dora, Dora) and proj.weight is not None
    proj.requires_grad_(False)
    first = dora.gain_O(proj)
    assert dora.gain_O(proj) is first
    for change in (proj.weight, dora.b_OR, dora.m_O):
        with torch.no_grad():
            change.add_(0.5)
        second = dora.gain_O(proj)
        assert not torch.equal(first, second)
        first = second


def test_rows_of_zeros_stay_finite() -> None:
    proj, dora = projection(True)
    with torch.no_grad():
        proj.weight.zero_()  # type: ignore[union-attr]
        dora.reset(torch.Generator().manual_seed(0), proj)
    y = proj(torch.randn(2, 6), AdapterRouting.all_rows("x"))
    y.sum().backward()
    assert torch.isfinite(y).all() and all(torch.isfinite(p.grad).all() for p in dora.parameters())  # type: ignore[union-attr]


def test_scaling_and_ranks_by_site() -> None:
    cfg = LoraConfig(rank=4, alpha=8.0, ranks={"q": 9, "text.1.*": 2}, alphas={"text.1.attn.q": 6.0})
    rs = LoraConfig(rank=4, alpha=8.0, rslora=True, ranks={"q": 9})
    assert cfg.scaling_at("text.0.attn.v") == 2.0 and rs.scaling_at("text.0.attn.v") == 4.0
    assert cfg.rank_at("text.0.attn.q") == 9 and rs.scaling_at("text.0.attn.q") == pytest.approx(8 / 3)
    assert cfg.rank_at("text.1.attn.q") == 2, "the longer pattern wins"
    assert cfg.scaling_at("text.1.attn.q") == 3.0
    base = tiny_base()
    lora.inject(base.model, "x", cfg)
    found = lora.tensors(base.model, "x")
    assert found["text.0.attn.q.a"].shape[0] == 9 and found["text.1.ff.up.b"].shape[1] == 2
    assert found["text.0.attn.v.a"].shape[0] == 4


def test_what_is_not_said_is_not_in_the_fingerprint() -> None:
    assert without_defaults(LoraConfig()) == {} and without_defaults(LoraConfig(rank=4)) == {"rank": 4}


def test_patterns() -> None:
    known = list(tiny_base().model.sites())
    for pattern, some in [
        ("q", ["text.0.attn.q", "text.1.attn.q"]),
        ("attn.q", ["text.0.attn.q", "text.1.attn.q"]),
        ("text.*.attn.q", ["text.0.attn.q", "text.1.attn.q"]),
        ("text.[1-3].attn.[qk]", ["text.1.attn.q", "text.1.attn.k"]),
        ("text.1.attn.k", ["text.1.attn.k"]),
        ("ext.1.attn.k", []),
        ("TEXT.*", []),
    ]:
        assert sorted(s for s in known if fits(s, pattern)) == sorted(some), pattern
    assert value_at({"text.1.*": 2, "q": 3}, "text.1.attn.q", 0) == 2
    assert value_at({"q": 3}, "text.1.attn.k", 0) == 0 == value_at(None, "q", 0)
    assert worded(["text.0.attn.q", "text.1.attn.q"], known) == ("q",)
    assert worded(["text.0.attn.q"], known) == ("text.0.attn.q",) and worded(known, known) == ()


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"sites": ("text.7.*",)}, "site 'text.7"),
        ({"sites": ("q",), "ranks": {"v": 3}}, "ranks 'v' matches no site with LoRA"),
        ({"alphas": {"head": 3.0}}, "alphas 'head'"),
        ({"ranks": {"q": 0}}, "rank is 0"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(cfg: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lora.inject(tiny_base().model, "x", LoraConfig(**cfg))


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("dora", [False, True])
def test_it_learns_over_few_bits(bits: int | None, dora: bool) -> None:
    """The gradients are those over the same numbers kept whole, the loss falls, and the base stays as it was."""
    base = Base(tiny_base())
    small = base if bits is None else base.quantize(bits, group=16, head=None)
    model, cfg = small.loaded.model, LoraConfig(rank=2, dora=dora)
    whole = copy.deepcopy(base.loaded.model)
    with torch.no_grad():
        for site, proj in whole.sites().items():
            proj.weight.copy_(model.sites()[site].matrix_OI(torch.float32))  # type: ignore[union-attr]
    grads = []
    for m in (model, whole):
        m.requires_grad_(False)
        params = lora.inject(m, "x", cfg)
        shaken(params)
        for p in params:
            p.requires_grad_(True)
        m.logits(IDS, AdapterRouting.all_rows("x")).square().mean().backward()
        grads.append([p.grad for p in params])
        lora.remove(m, "x")
    for one, two in zip(*grads, strict=True):
        assert one is not None and float(one.abs().max()) > 0
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    before = small.logits(IDS[0].tolist())
    losses = []
    for epochs in (1, 12):
        made = small.adapt(CHATS, task="chat", method="lora", rank=2, dora=dora, epochs=epochs)
        losses.append(made.record.get("train.final_loss"))
    assert losses[1] < 0.8 * losses[0], losses
    assert torch.equal(small.logits(IDS[0].tolist()), before)
    said = small.with_adapter(made).logits(IDS[0].tolist())
    assert torch.isfinite(said).all() and not torch.equal(said, before)


def test_kinds_mixed_in_a_batch_are_each_alone() -> None:
    base = tiny_base()
    names = ["plain", "dora", "ranks"]
    for seed, (name, cfg) in enumerate(
        zip(names, [LoraConfig(), LoraConfig(dora=True), LoraConfig(dora=True, ranks={"q": 2})], strict=True)
    ):
        shaken(lora.inject(base.model, name, cfg), seed)
    base.model.requires_grad_(False)
    order = ["dora", None, "ranks", "plain", "dora"]
    mixed = base.model.logits(IDS.expand(5, -1), AdapterRouting.per_row(order))
    for row, name in zip(mixed, order, strict=True):
        alone = base.model.logits(IDS, AdapterRouting.all_rows(name) if name else None)[0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-5)


def test_dora_merged_is_unmerged() -> None:
    base = tiny_base()
    base.model.double()
    base.model.compute_dtype = torch.float64
    shaken(lora.inject(base.model, "x", LoraConfig(dora=True, rslora=True, tokens=(5, 90))))
    with torch.no_grad():
        one = base.model.logits(IDS, AdapterRouting.all_rows("x"))
        plain = base.model.logits(IDS)
        merge(base.model, [(lora.METHOD, "x")])
        torch.testing.assert_close(base.model.logits(IDS), one, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(one, plain, atol=1e-2) and math.isfinite(float(one.sum()))
