"""The fused head and loss is the plain one: values, gradients, memory."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onebase.objective.cross_entropy import IGNORE, linear_cross_entropy, per_token_nll, token_nll


def example(
    T: int, D: int, V: int, seed: int = 0, ignored: float = 0.3, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    h, w, b = (torch.randn(shape, generator=g, dtype=dtype) for shape in ((T, D), (V, D), (V,)))
    targets = torch.randint(0, V, (T,), generator=g)
    targets[torch.rand(T, generator=g) < ignored] = IGNORE
    return h.requires_grad_(), w.requires_grad_(), b.requires_grad_(), targets


def naive(h: Tensor, w: Tensor, b: Tensor | None, targets: Tensor, softcap: float | None) -> Tensor:
    logits = F.linear(h, w, b)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")


@settings(max_examples=40)
@given(
    T=st.integers(1, 20),
    D=st.integers(1, 6),
    V=st.integers(2, 12),
    chunk=st.integers(1, 25),
    softcap=st.sampled_from([None, 1.5, 15.0]),
    bias=st.booleans(),
    ignored=st.sampled_from([0.0, 0.4, 1.0]),
    upstream=st.floats(-3, 3),
)
def test_value_and_gradients_are_the_plain_ones(
    T: int, D: int, V: int, chunk: int, softcap: float | None, bias: bool, ignored: float, upstream: float
) -> None:
    h, w, b, targets = example(T, D, V, ignored=ignored)
    wanted = (h, w, b) if bias else (h, w)
    want = naive(h, w, b if bias else None, targets, softcap)
    loss, count = linear_cross_entropy(h, w, targets, softcap=softcap, chunk=chunk, bias=b if bias else None)
    assert loss.dtype == torch.float32
    assert int(count) == int((targets != IGNORE).sum())
    torch.testing.assert_close(loss, want.sum(), atol=1e-4, rtol=1e-5)
    nll = per_token_nll(h, w, targets, softcap, chunk, b if bias else None)
    torch.testing.assert_close(nll, want.detach(), atol=1e-5, rtol=1e-5)
    got = torch.autograd.grad(loss * upstream, wanted)
    for a, r in zip(got, torch.autograd.grad(want.sum() * upstream, wanted)):
        torch.testing.assert_close(a, r, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("learns", [(True, True, True), (True, False, False), (False, True, False)])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_each_token_by_itself_is_the_plain_one(softcap: float | None, learns: tuple[bool, ...]) -> None:
    """Values, and gradients where every token's is multiplied by another number (and once by a sum of squares, known in backward alone)."""
    *given, targets = example(20, 5, 9, dtype=torch.float64)
    h, w, b = (x.detach().requires_grad_(n) for x, n in zip(given, learns, strict=True))
    wanted = [x for x in (h, w, b) if x.requires_grad]
    want, got = naive(h, w, b, targets, softcap), token_nll(h, w, targets, softcap=softcap, chunk=7, bias=b)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    factor = torch.linspace(-2, 3, 20, dtype=torch.float64)
    for of in (lambda nll: (nll * factor).sum(), lambda nll: nll[:9].sum().square() - nll[9:].sum()):
        for a, r in zip(
            torch.autograd.grad(of(got), wanted, retain_graph=True),
            torch.autograd.grad(of(want), wanted, retain_graph=True),
        ):
            torch.testing.assert_close(a, r, atol=1e-10, rtol=0)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_in_double_precision(softcap: float | None) -> None:
    h, w, b, targets = example(9, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_cross_entropy(h, w, targets, softcap=softcap, chunk=4, bias=b)[0], (h, w, b)
    )


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_compiled_chunks_give_the_same(softcap: float | None) -> None:
    h, w, _, targets = example(20, 8, 40)
    found = []
    for fast in (False, True):  # 16 tokens compiled, the last 4 not
        loss, _ = linear_cross_entropy(h, w, targets, softcap=softcap, chunk=16, fast=fast)
        found.append((loss, *torch.autograd.grad(loss, (h, w))))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_only_the_gradients_asked_for() -> None:
    h, w, _, targets = example(6, 4, 5)
    loss, _ = linear_cross_entropy(h, w.detach(), targets)
    (dh,) = torch.autograd.grad(loss, (h,))
    full, _ = linear_cross_entropy(h, w, targets)
    torch.testing.assert_close(dh, torch.autograd.grad(full, (h,))[0])
    assert not linear_cross_entropy(h.detach(), w.detach(), targets)[0].requires_grad


def test_large_logits_stay_finite_and_exact() -> None:
    h, targets = torch.full((2, 1), 1.0, requires_grad=True), torch.tensor([0, 1])
    w = torch.tensor([[1000.0], [-1000.0], [0.0]], requires_grad=True)
    loss, _ = linear_cross_entropy(h, w, targets)
    assert loss.item() == 2000.0
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (h, w)))


def test_bf16_inputs_have_fp32_sums_and_gradients_of_the_weights_dtype() -> None:
    h, w, _, targets = example(300, 16, 50)
    exact = naive(h, w, None, targets, None).sum()
    want = torch.autograd.grad(exact, (h, w))
    low = h.detach().bfloat16().requires_grad_()
    loss, _ = linear_cross_entropy(low, w, targets, chunk=64)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=5e-3, atol=0.0)
    dh, dw = torch.autograd.grad(loss, (low, w))
    assert dh.dtype == torch.bfloat16
    assert dw.dtype == torch.float32
    for got, ref in zip((dh, dw), want):
        assert float((got.float() - ref).norm() / ref.norm()) < 0.01


def test_no_tokens_no_loss() -> None:
    h, w, _, targets = example(0, 4, 5)
    loss, count = linear_cross_entropy(h, w, targets)
    assert loss.item() == 0.0
    assert int(count) == 0
    assert per_token_nll(h, w, targets).shape == (0,)
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (h, w)))


PEAK = """
import json, resource, torch
from onebase.objective.cross_entropy import linear_cross_entropy
T, D, V = 16384, 8, 16384
h = torch.randn(T, D).requires_grad_(); w = torch.randn(V, D).requires_grad_(); t = torch.randint(0, V, (T,))
linear_cross_entropy(h[:8], w, t[:8])[0].backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_cross_entropy(h, w, t, chunk=256)[0].backward()
print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_all_logits_are_never_held() -> None:
    """All logits would be 1 GiB; a chunk of them is 16 MiB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert (after - before) / 1024 < 200
