"""Parts with a gradient of their own, beside what autograd makes of the plain formula."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.model.config import FFConfig, NormConfig, RopeConfig
from onebase.model.feedforward import FeedForward
from onebase.model.norm import Norm
from onebase.model.position import rotary_factors, rotary_table, rotate

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of the largest number: fp32 rounds otherwise in another order, and bf16 has 8 bits."""
both = pytest.mark.parametrize("dtype", list(CLOSE))


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(ours: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """The same values and the same gradients; `plain` is computed in fp32."""
    mine = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
    wide = [x.detach().float().requires_grad_(x.requires_grad) for x in inputs]
    y, true = ours(*mine), plain(*wide)
    up = numbers(*true.shape, seed=9)
    y.backward(up.to(y.dtype))
    true.backward(up)
    for found, wanted in ((y, true), *((a.grad, b.grad) for a, b in zip(mine, wide, strict=True))):
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            rel = CLOSE[inputs[0].dtype]
            torch.testing.assert_close(
                found.float(), wanted, rtol=rel, atol=rel * float(wanted.detach().abs().max())
            )


@both
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("cfg", [NormConfig(), NormConfig(offset=1.0), NormConfig(affine=False)])
def test_rms(cfg: NormConfig, learns: bool, dtype: torch.dtype) -> None:
    norm = Norm(cfg, 24)
    if norm.weight is not None:
        with torch.no_grad():
            norm.weight.copy_(numbers(24, seed=1))
        norm.weight.requires_grad_(learns)
    kept = None if norm.weight is None else norm.weight.detach().clone().requires_grad_(learns)

    def plain(x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + cfg.eps)
        return y if kept is None else y * (kept + cfg.offset)

    same(norm, plain, [numbers(3, 5, 24, dtype=dtype).requires_grad_()])
    if kept is not None and learns:
        assert norm.weight is not None and norm.weight.grad is not None and kept.grad is not None
        rel = CLOSE[dtype]
        torch.testing.assert_close(
            norm.weight.grad, kept.grad, rtol=rel, atol=rel * float(kept.grad.abs().max())
        )


def test_what_decoding_made_is_not_in_the_way_of_learning() -> None:
    norm = Norm(NormConfig(), 24).requires_grad_(False)
    with torch.inference_mode():
        norm(numbers(2, 24))
    x = numbers(2, 24).requires_grad_()
    norm(x).sum().backward()
    assert x.grad is not None


@both
@pytest.mark.parametrize("dim", [16, 8])
def test_turns(dim: int, dtype: torch.dtype) -> None:
    table = rotary_factors(*rotary_table(RopeConfig(dim=dim), 16, torch.arange(7)[None] * 3))

    def plain(x: Tensor) -> Tensor:
        cos, sin = table[0][..., : dim // 2], table[1][..., dim // 2 :]
        a, b = x[..., :dim].chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin, x[..., dim:]), -1)

    same(lambda x: rotate(x, *table), plain, [numbers(2, 7, 3, 16, dtype=dtype).requires_grad_()])


@both
def test_gated(dtype: torch.dtype) -> None:
    ff = FeedForward("text.0.ff", FFConfig(hidden=20), 12)
    with torch.no_grad():
        for i, p in enumerate(ff.parameters()):
            p.copy_(numbers(*p.shape, seed=i))
    assert ff.gate is not None and ff.cfg.activation == "swiglu"
    up, gate, down = (p.weight.detach() for p in (ff.up, ff.gate, ff.down))  # type: ignore[union-attr]
    same(
        ff,
        lambda x: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down),
        [numbers(2, 5, 12, dtype=dtype).requires_grad_()],
    )
