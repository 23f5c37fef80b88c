"""Packed products: they say what the dense matrices say, a row the same in any batch, and a changed weight is noticed."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.model.config import StorageConfig
from onebase.model.kernels.compiled import direct
from onebase.model.kernels.onednn import has_onednn
from onebase.model.kernels.packed import FEW_ROWS, PackedLinear
from onebase.model.proj import AdapterRouting, Delta, Proj, Projs

IN, OUTS = 64, (48, 16, 16)
needs_kernels = pytest.mark.skipif(not has_onednn(), reason="this chip multiplies no bf16 by oneDNN")


def projs(bits: int | None, seed: int = 0) -> list[Proj]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, out in enumerate(OUTS):
        proj = Proj(f"s.{i}", IN, out, bias=i != 1)
        with torch.no_grad():
            for p in proj.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        if bits is not None:
            proj.keep_in(StorageConfig(bits=bits), take=True)  # type: ignore[arg-type]
        made.append(proj.requires_grad_(False))
    return made


def dense(proj: Proj) -> Tensor:
    if proj.weight is not None:
        return proj.weight
    assert proj.store is not None
    return proj.store.dense(torch.float32)


def skip_without(bits: int | None) -> None:
    """Few bits have a kernel wherever numba is, bf16 matrices where the chip multiplies bf16."""
    if not has_onednn() and (bits is None or direct() is None):
        pytest.skip("there is no kernel for this here")


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("rows", [1, 3, 16, 64, 80])
@torch.no_grad()
def test_joined_products_are_those_of_the_matrices(bits: int | None, rows: int) -> None:
    """Within 8e-3 of the sum of what is added up: inputs, scales or outputs are rounded to 8 bits of precision."""
    skip_without(bits)
    parts = projs(bits)
    x = torch.randn(1, rows, IN, generator=torch.Generator().manual_seed(rows)).bfloat16()
    joined = Projs(*parts)(x)
    for proj, y in zip(parts, joined, strict=True):
        assert y.shape == (1, rows, proj.d_out) and y.dtype == torch.bfloat16
        want = F.linear(x.float(), dense(proj), proj.bias)
        size = float((x.float().abs() @ dense(proj).abs().T).max())
        torch.testing.assert_close(y.float(), want, atol=8e-3 * size, rtol=0)
    if has_onednn() and (bits is None or rows <= FEW_ROWS[bits]):
        assert PackedLinear(*parts)(x) is not None  # the kernel was really there


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.skipif(direct() is None, reason="numba is not installed")
@torch.no_grad()
def test_few_bits_in_fp32_are_the_numbers_of_the_matrices(bits: int, rows: int) -> None:
    parts = projs(bits)
    x = torch.randn(1, rows, IN, generator=torch.Generator().manual_seed(rows))
    assert PackedLinear(*parts)(x) is not None
    for proj, y in zip(parts, Projs(*parts)(x), strict=True):
        want = F.linear(x.double(), dense(proj).double(), None if proj.bias is None else proj.bias.double())
        torch.testing.assert_close(y.double(), want, atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(direct() is None, reason="numba is not installed")
@torch.no_grad()
def test_fp32_matrices_are_multiplied_as_they_lie_when_an_answer_is_decoded() -> None:
    parts = projs(None)
    x = torch.randn(2, IN)
    found = PackedLinear(*parts)(x, decoding=True)
    assert found is not None
    torch.testing.assert_close(found, torch.cat([p(x) for p in parts], -1), atol=1e-5, rtol=1e-5)
    assert parts[0].weight is not None
    parts[0].weight.add_(1.0)  # no copy was made that could be old
    again = PackedLinear(*parts)(x, decoding=True)
    assert again is not None and torch.allclose(again[:, :48], parts[0](x), atol=1e-4)


@pytest.mark.parametrize("bits", [None, 8, 4])
@torch.no_grad()
def test_a_row_says_the_same_in_any_batch(bits: int | None) -> None:
    skip_without(bits)
    both = Projs(*projs(bits))
    x = torch.randn(7, IN, generator=torch.Generator().manual_seed(1)).bfloat16()
    x[3] *= 100  # a loud neighbour
    whole = torch.cat(both(x), -1)
    alone = torch.cat([torch.cat(both(x[i : i + 1]), -1) for i in range(7)])
    torch.testing.assert_close(whole.float(), alone.float(), atol=0, rtol=2**-7)


@needs_kernels
@torch.no_grad()
def test_a_changed_weight_is_noticed() -> None:
    (proj, *_), other = projs(None), projs(None, seed=1)[0]
    assert proj.weight is not None and other.weight is not None
    x = torch.randn(1, IN, generator=torch.Generator().manual_seed(2)).bfloat16()

    def right() -> bool:
        return torch.allclose(
            proj(x).float(), F.linear(x.float(), dense(proj), proj.bias), atol=0.3, rtol=0.02
        )

    before = proj(x)
    assert right()
    copied = copy.deepcopy(proj)
    proj.weight.add_(1.0)
    assert right() and not torch.equal(proj(x), before)
    proj.weight.data = other.weight.data.clone()
    assert right()
    proj.weight = torch.nn.Parameter(other.weight * 2, requires_grad=False)
    assert right()
    proj.load_state_dict({k: v * 3 for k, v in proj.state_dict().items()}, assign=True)
    assert right()
    assert torch.equal(copied(x), before)


def test_where_something_is_learnt_the_matrix_itself_multiplies() -> None:
    (proj, *_) = projs(None)
    x = torch.randn(2, IN).bfloat16()
    assert PackedLinear(proj)(x) is None  # gradients are on
    with torch.no_grad():
        assert PackedLinear(proj)(x.float()) is None  # fp32 is the reference
        proj.requires_grad_(True)  # it may change at any step
        assert PackedLinear(proj)(x) is None and PackedLinear(proj)(x.float(), decoding=True) is None


class Added(Delta):
    """A delta that is a whole matrix."""

    def __init__(self, d_out: int) -> None:
        super().__init__()
        self.matrix = torch.nn.Linear(IN, d_out, bias=False, dtype=torch.bfloat16)

    def forward(self, x: Tensor, y: Tensor, proj: Proj) -> Tensor:
        assert y.shape == (*x.shape[:-1], proj.d_out)
        out: Tensor = self.matrix(x)
        return out


@needs_kernels
@torch.no_grad()
def test_adapters_act_beside_it() -> None:
    parts = projs(None)
    for p in parts[:2]:
        p.deltas["a"] = Added(p.d_out)
    x = torch.randn(3, 2, IN)
    for routing in (AdapterRouting.all_rows("a"), AdapterRouting.per_row([None, "a", None])):
        for proj, y in zip(parts, Projs(*parts)(x.bfloat16(), routing), strict=True):
            delta: Any = dict(proj.deltas.items()).get("a")
            want = F.linear(x.bfloat16().float(), dense(proj), proj.bias)
            if delta is not None:
                rows = torch.tensor(
                    [True] * 3 if routing == AdapterRouting.all_rows("a") else [False, True, False]
                )
                want = want + delta.matrix(x.bfloat16()).float() * rows[:, None, None]
            torch.testing.assert_close(y.float(), want, atol=0.3, rtol=0)
