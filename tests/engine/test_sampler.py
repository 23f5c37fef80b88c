"""Choosing tokens: what the options mean, and that a request's draws are its own."""

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.engine.sampler import Sampler, Sampling
from onebase.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2.0},
        {"seed": "x"},
        {"stop": ("",)},
        {"stop": (3,)},
        {"logprobs": -1},
    ],
)
def test_values_out_of_range_are_refused_with_a_remedy(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as e:
        Sampling(**wrong)
    assert next(iter(wrong)) in e.value.cause
    assert e.value.remedy


def test_one_stop_string_is_not_read_as_letters() -> None:
    assert Sampling(stop="ab").stop == ("ab",)  # type: ignore[arg-type]


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert Sampler([Sampling()] * 2, CPU)(logits).tolist() == [1, 0]


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        Sampler([Sampling()], CPU)(torch.tensor([[0.0, math.nan]]))


def frequencies(sampling: Sampling, logits_V: torch.Tensor, n: int = 4000) -> torch.Tensor:
    """Of a request's draws, one after the other: as many rows that share its generator."""
    drawn = Sampler([sampling] * n, CPU, [random.Random(sampling.seed)] * n)(logits_V.expand(n, -1))
    return torch.bincount(drawn, minlength=len(logits_V)) / n


def test_draws_follow_the_probabilities_at_the_temperature() -> None:
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0])
    for t in (0.5, 1.0, 2.0):
        got = frequencies(Sampling(temperature=t, seed=1), logits)
        assert torch.allclose(got, (logits / t).softmax(-1), atol=0.03)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, [0, 2]),
        ({"top_p": 0.7}, [0, 2]),  # 0.5 alone is too little
        ({"top_p": 0.49}, [2]),
        ({"top_p": 1e-9}, [2]),
        ({"min_p": 0.5}, [0, 2]),
        ({"top_k": 3, "top_p": 0.5}, [2]),  # of the three that are left 0.5 becomes 0.526
    ],
)
def test_cuts_keep_the_likeliest_and_their_proportions(options: dict[str, Any], kept: list[int]) -> None:
    p = torch.tensor([0.3, 0.15, 0.5, 0.05])
    got = frequencies(Sampling(temperature=1.0, seed=3, **options), p.log())
    assert got.nonzero().flatten().tolist() == kept
    assert torch.allclose(got[kept], p[kept] / p[kept].sum(), atol=0.03)


def test_a_tiny_temperature_is_greedy_and_finite() -> None:
    got = frequencies(Sampling(temperature=1e-30, seed=0), torch.tensor([1.0, 1.1, -4.0]), 20)
    assert got.tolist() == [0.0, 1.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 0.7, 1.3]),
            top_p=st.sampled_from([1.0, 0.8]),
            top_k=st.sampled_from([0, 5]),
            min_p=st.sampled_from([0.0, 0.05]),
            seed=st.integers(0, 9),
        ),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_a_row_draws_the_same_alone_in_any_batch_and_after_rows_left(
    samplings: list[Sampling], data: st.DataObject
) -> None:
    V, steps = 30, 4
    logits = torch.randn(steps, len(samplings), V, generator=torch.Generator().manual_seed(0))
    together = Sampler(samplings, CPU)
    keep = sorted(data.draw(st.sets(st.sampled_from(range(len(samplings))), min_size=1)))
    got = [together(logits[0]).tolist(), together(logits[1]).tolist()]
    fewer = together.rows(keep)
    rest = [fewer(logits[s][keep]).tolist() for s in (2, 3)]
    for n, i in enumerate(keep):
        alone = Sampler([samplings[i]], CPU)
        said = [alone(logits[s, i : i + 1]).item() for s in range(steps)]
        assert said == [got[0][i], got[1][i], rest[0][n], rest[1][n]]


def test_without_a_seed_draws_differ() -> None:
    logits = torch.zeros(1, 10_000)
    assert len({Sampler([Sampling(temperature=1.0)], CPU)(logits).item() for _ in range(5)}) > 1
