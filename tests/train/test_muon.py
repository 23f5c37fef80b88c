"""Muon beside torch's: bitwise in bf16, near an fp64 reference in fp32, batched or not."""

import copy

import pytest
import torch
from torch import Tensor, nn

from onebase.train import muon
from onebase.train.muon import SMALL, Muon, newton_schulz_dtype, orthogonal

SHAPES = [(24, 24), (24, 24), (96, 24), (24, 96), (96, 24), (1, 7), (10, 5000)]  # the last is not small
HOW = {"lr": 0.03, "momentum": 0.95, "weight_decay": 0.1, "ns_steps": 5}


def matrices(seed: int = 0) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(s)) for s in SHAPES]


def learn(
    optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int = 4, first: int = 0
) -> None:
    """Steps with gradients that are functions of the step; the last matrix has none at the second."""
    for step in range(first, first + steps):
        torch.manual_seed(100 + step)
        for p in params:
            p.grad = torch.randn(p.shape) * 10.0 ** (step - 2)
        if step == 1:
            params[-1].grad = None
        optimizer.step()


def test_in_bf16_every_bit_is_torchs() -> None:
    ours, theirs = matrices(), matrices()
    mine, other = Muon(ours, **HOW, dtype=torch.bfloat16), torch.optim.Muon(theirs, **HOW)
    learn(mine, ours)
    learn(other, theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for a, b in zip(ours, theirs, strict=True):
        assert mine.state[a].keys() == other.state[b].keys()
        assert all(torch.equal(mine.state[a][k], other.state[b][k]) for k in mine.state[a])


def exact(x: Tensor) -> Tensor:
    """Newton-Schulz as the post has it, in fp64 on singular values alone: each goes through the quintic by itself."""
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / x.double().norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(24, 24), (96, 24), (24, 96), (200, 100), (1, 7)])
def test_in_fp32_it_is_the_quintic_of_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    wanted = exact(x)
    near, far = (
        (orthogonal(x, 5, t).double() - wanted).norm() / wanted.norm()
        for t in (torch.float32, torch.bfloat16)
    )
    assert near < 1e-4
    assert near < far / 20
    many = orthogonal(torch.stack([x, 3 * x, x.flip(0)]), 5, torch.float32)
    assert torch.allclose(many[0].double(), wanted, atol=1e-4)
    assert torch.allclose(many[1], many[0], atol=1e-4)
    assert torch.allclose(many[2], many[0].flip(0), atol=1e-4)


def test_in_fp32_the_weights_go_where_torchs_go_within_its_rounding() -> None:
    ours, theirs, start = matrices(), matrices(), matrices()
    learn(Muon(ours, **HOW, dtype=torch.float32), ours)
    learn(torch.optim.Muon(theirs, **HOW), theirs)
    for a, b, s in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (a - s).norm()


def test_small_matrices_of_one_shape_go_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    true = muon.orthogonal
    monkeypatch.setattr(muon, "orthogonal", lambda x, *how: (seen.append(x.shape), true(x, *how))[1])
    params = matrices()
    learn(Muon(params, **HOW, dtype=torch.float32), params, steps=1)
    assert sorted(x[0] for x in seen if len(x) == 3) == [1, 1, 2, 2]
    assert all(x.numel() >= SMALL for x in seen if len(x) == 2)


def test_its_state_is_torchs_and_goes_on_either_way() -> None:
    """A checkpoint of torch's Muon is resumed by ours."""
    ours, theirs = matrices(), matrices()
    other = torch.optim.Muon(theirs, **HOW)
    learn(other, theirs, 2)
    mine = Muon(ours, **HOW, dtype=torch.bfloat16)
    for a, b in zip(ours, theirs, strict=True):
        a.data.copy_(b)
        mine.state[a] = copy.deepcopy(other.state[b])
    learn(mine, ours, 2, first=2)
    learn(other, theirs, 2, first=2)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_chip_decides_the_format(
    native: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "has_bf16", lambda _: native)
    assert newton_schulz_dtype(torch.device("cpu")) == dtype


def test_the_same_steps_give_the_same_bits() -> None:
    runs = []
    for _ in range(2):
        params = matrices()
        learn(Muon(params, **HOW, dtype=torch.float32), params)
        runs.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
