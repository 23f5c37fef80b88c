"""Few bits: what is stored comes back, products are those of the dense matrix, adapters learn over it and the matrix does not."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ConfigError
from onebase.model.config import StorageConfig
from onebase.model.kernels.storage import Int4, Int8, storage_bytes, stored
from onebase.model.proj import Proj

OUT, IN = 48, 64


def weight(seed: int = 0) -> torch.Tensor:
    return (
        torch.randn(OUT, IN, generator=torch.Generator().manual_seed(seed))
        * torch.logspace(-3, 1, OUT)[:, None]
    )


@given(st.sampled_from([8, 4]), st.integers(0, 50))
@settings(max_examples=20)
def test_rounding_is_to_the_nearest_that_can_be_kept(bits: int, seed: int) -> None:
    w, made = weight(seed), stored(bits, 32, IN, OUT)
    made.take(w)
    parts = w.view(OUT, -1, 32) if bits == 4 else w[:, None]
    step = (parts.amax(-1) - parts.amin(-1)) / 15 if bits == 4 else parts.abs().amax(-1) / 127
    error = (made.dense(torch.float32) - w).view(parts.shape).abs()
    # fp16 scales and least values are off by a part in 2,048 themselves, codes up to 15 times that.
    slack = 0.0 if bits == 8 else 16 * parts.abs().amax(-1) / 2048
    assert bool((error <= (step * 0.5001 + slack)[..., None]).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_what_was_rounded_once_is_kept(bits: int) -> None:
    one, two = stored(bits, 32, IN, OUT), stored(bits, 32, IN, OUT)
    one.take(weight())
    two.take(one.dense(torch.float32))
    torch.testing.assert_close(one.dense(torch.float32), two.dense(torch.float32), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("made", [Int8(IN, OUT), Int4(IN, OUT, 32)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_products_are_those_of_the_dense_matrix(made: Int8 | Int4, dtype: torch.dtype) -> None:
    made.take(weight())
    dense = made.dense(torch.float32)
    x = torch.randn(3, IN, generator=torch.Generator().manual_seed(0)).to(dtype)
    size = float((x.float().abs() @ dense.abs().T).max())
    torch.testing.assert_close(
        made(x).float(),
        F.linear(x.float(), dense),
        atol=size * (8e-3 if dtype == torch.bfloat16 else 1e-6),
        rtol=0,
    )
    torch.testing.assert_close(made(x[None])[0], made(x))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_made_dense_in_parts_is_one_matrix(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards and backwards, five rows at a time, the last part smaller."""
    monkeypatch.setattr("onebase.model.kernels.storage.BLOCK", 5 * IN)
    made = stored(bits, 32, IN, OUT)
    made.take(weight())
    dense = made.dense(torch.float32)
    assert len(list(made.blocks(torch.float32))) == -(-OUT // 5)
    x = torch.randn(3, IN, requires_grad=True)
    given = torch.randn(3, OUT)
    y = made(x)
    torch.testing.assert_close(y, x @ dense.T, atol=1e-5, rtol=1e-5)
    y.backward(given)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, given @ dense, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(made(x), x @ dense.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_are_those_of_the_dense_matrix(bits: int) -> None:
    made = stored(bits, 32, IN, OUT)
    made.take(weight())
    index = torch.tensor([[3, 0], [47, 3]])
    assert torch.equal(made.rows(index, torch.float32), made.dense(torch.float32)[index])


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_reach_the_input_and_not_the_matrix(bits: int) -> None:
    proj = Proj("s", IN, OUT, bias=True)
    with torch.no_grad():
        assert proj.weight is not None and proj.bias is not None
        proj.weight.copy_(weight())
        proj.bias.normal_()
    proj.keep_in(StorageConfig(bits=bits), take=True)  # type: ignore[arg-type]
    assert proj.store is not None
    for rows in (2, 20):
        x = torch.randn(rows, IN, generator=torch.Generator().manual_seed(rows)).requires_grad_()
        proj(x).square().sum().backward()
        again = x.detach().clone().requires_grad_()
        F.linear(again, proj.store.dense(torch.float32), proj.bias).square().sum().backward()
        assert x.grad is not None and again.grad is not None
        torch.testing.assert_close(x.grad, again.grad, rtol=0, atol=1e-5 * float(again.grad.abs().max()))
    assert all(p.grad is None for p in proj.store.parameters())


@pytest.mark.parametrize("bits", [8, 4])
def test_bytes_are_counted_from_the_config(bits: int) -> None:
    made = stored(bits, 32, IN, OUT)
    held = sum(p.numel() * p.element_size() for p in made.parameters())
    assert held == storage_bytes(StorageConfig(bits=bits), IN, OUT)  # type: ignore[arg-type]


def test_a_group_must_divide_the_inputs() -> None:
    with pytest.raises(ConfigError, match="50 inputs cannot be split into groups of 32"):
        Int4(50, 8, 32)
