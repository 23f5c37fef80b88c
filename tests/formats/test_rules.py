"""Rules: every step has an exact inverse, and a plan fits a checkpoint whole or names what does not fit."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onebase.errors import ArtifactError
from onebase.formats.rules import (
    Ignore,
    Reshape,
    Rotary,
    Rule,
    Rules,
    Shape,
    Split,
    Step,
    TensorPlan,
    Tie,
    Transpose,
    plan,
    rename,
    split,
    their_shapes,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
small = st.integers(1, 4)


def numbered(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of which no two numbers are equal, for what is smaller than 256."""
    x = torch.arange(int(torch.tensor(shape).prod())) - 3
    return x.to(dtype).reshape(shape)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Step, list[Shape], list[Shape]]:
    """A step with shapes of theirs and of ours."""
    a, b, c = draw(small), draw(small), draw(small)
    kind = draw(st.sampled_from(["split", "split1", "transpose", "rotary", "rotary1", "reshape"]))
    if kind == "split":
        sizes = tuple(draw(st.lists(small, min_size=1, max_size=4)))
        return Split(sizes), [(sum(sizes), b)], [(n, b) for n in sizes]
    if kind == "split1":
        return Split((a, b), dim=1), [(c, a + b)], [(c, a), (c, b)]
    if kind == "transpose":
        return Transpose(), [(a, b), (b, c)], [(b, a), (c, b)]
    if kind == "reshape":
        return Reshape((a, b, c), (a, b * c)), [(a, b, c)], [(a, b * c)]
    shape = (a * 2 * b, c) if kind == "rotary" else (a * 2 * b,)
    return Rotary(a), [shape], [shape]


def equal(xs: list[Tensor], ys: list[Tensor]) -> None:
    assert len(xs) == len(ys)
    for x, y in zip(xs, ys):
        assert x.dtype == y.dtype and torch.equal(x, y)


@given(steps(), st.sampled_from(DTYPES))
def test_a_step_goes_there_and_back_bitwise(
    made: tuple[Step, list[Shape], list[Shape]], dtype: torch.dtype
) -> None:
    step, theirs, ours = made
    xs = [numbered(s, dtype) for s in theirs]
    there = step.there(xs)
    assert [tuple(x.shape) for x in there] == ours
    equal(step.back(there), xs)
    ys = [numbered(s, dtype) for s in ours]
    equal(step.there(step.back(ys)), ys)


def test_a_rule_undoes_its_steps_in_reverse() -> None:
    rule = split("qkv", ["q", "k", "v"], (4, 2, 2), 0, Transpose())
    x = numbered((3, 8))
    ours = rule.there([x])
    equal(ours, [x[:, :4].T, x[:, 4:6].T, x[:, 6:].T])
    equal(rule.back(ours), [x])
    assert their_shapes(rule, {"q": (4, 3), "k": (2, 3), "v": (2, 3)}) == [(3, 8)]


def test_rotary_puts_pairs_into_halves() -> None:
    """Row 2i of a head (the first of a pair) becomes row i, row 2i + 1 becomes row i + H/2."""
    (x,) = Rotary(2).there([torch.arange(12)])
    assert x.tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


RULES: Rules = [
    rename("wte", "stem"),
    split("fused", ["a", "b"], (2, 3)),
    Tie("lm_head", "stem"),
    Ignore(r"buffer\.\d+", "follows from the config"),
]
OURS: Mapping[str, Shape] = {"stem": (7, 4), "a": (2, 4), "b": (3, 4)}
THEIRS: Mapping[str, Shape] = {"wte": (7, 4), "fused": (5, 4)}


def planned(more: Mapping[str, Shape] | None = None, without: str = "") -> TensorPlan:
    return plan(RULES, {k: v for k, v in (THEIRS | (more or {})).items() if k != without}, OURS, "x.st")


def test_a_plan_of_what_fits() -> None:
    assert planned() == TensorPlan((RULES[0], RULES[1]), (), ())  # type: ignore[arg-type]
    found = planned({"lm_head": (7, 4), "buffer.0": (1,)})
    assert [t.theirs for t in found.ties] == ["lm_head"]
    assert [name for name, _ in found.ignored] == ["buffer.0"]


@pytest.mark.parametrize(
    ("more", "without", "named"),
    [
        ({}, "fused", r"'fused' is missing"),
        ({"fusd": (5, 4)}, "fused", r"'fused' is missing.*the nearest is 'fusd'"),
        ({"extra.bias": (3,)}, "", r"no rule reads tensor 'extra.bias' \[3\]"),
        ({"buffer.x": (3,)}, "", r"'buffer.x'"),
        ({"buffer.0.more": (3,)}, "", r"'buffer.0.more'"),
        ({"fused": (6, 4)}, "", r"'fused' has shape \[6, 4\], its config says \[5, 4\]"),
        ({"wte": (4, 7)}, "", r"'wte' has shape \[4, 7\], its config says \[7, 4\]"),
        ({"wte": (28,)}, "", r"'wte' has shape"),
    ],
)
def test_what_does_not_fit_is_named(more: Mapping[str, Shape], without: str, named: str) -> None:
    with pytest.raises(ArtifactError, match=named) as e:
        planned(more, without)
    assert "x.st" in e.value.cause


def test_one_of_two_equal_tensors_is_enough() -> None:
    """Some savers keep of tied tensors the other one."""
    found = planned({"lm_head": (7, 4)}, without="wte")
    assert found.rules[0] == Rule(("lm_head",), ("stem",))


@pytest.mark.parametrize(
    "rules",
    [
        RULES[1:],  # a parameter that nobody makes
        [*RULES, rename("more", "stem")],  # two rules make one
        [*RULES, rename("wte", "other")],  # two rules read one
    ],
)
def test_rules_that_are_wrong_themselves_are_a_bug(rules: Rules) -> None:
    with pytest.raises(AssertionError):
        plan(rules, {**THEIRS, "more": (7, 4)}, OURS, "x.st")
