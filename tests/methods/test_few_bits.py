"""Statistics of what a user gives keep its bits: rewards, values to predict and features that are equal, large, or large and near each other."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onebase.api.base import Base
from onebase.engine.labels import labelled
from onebase.errors import UserError
from onebase.evaluation.probabilities import macro_auroc
from onebase.methods.head import fit_head, standardised
from onebase.methods.ridge import fit_ridge
from onebase.objective.policy import bounded, generalised_advantages, group_advantages, normalised
from tests.helpers import tiny_base

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(reward=NUMBERS, n=st.integers(2, 9))
def test_equal_rewards_have_no_advantage_at_all(reward: float, n: int) -> None:
    same = torch.full((3, n), reward, dtype=torch.float64)
    for how in ("std", "mean"):
        assert not group_advantages(same, how).any()
        assert not torch.cat(normalised([same[0], same[1]], how)).any()


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=8),
    st.sampled_from([0.0, 1e6, 1e12]),
    st.sampled_from(["std", "mean"]),
)
def test_advantages_are_those_of_exact_fractions(rewards: list[float], offset: float, how: str) -> None:
    exact = [Fraction(r + offset) for r in rewards]
    less = [r - sum(exact) / len(exact) for r in exact]
    spread = math.sqrt(sum(x * x for x in less) / (len(exact) - 1)) + 1e-4 if how == "std" else 1.0
    found = group_advantages(torch.tensor([[r + offset for r in rewards]], dtype=torch.float64), how)[0]
    largest = float(max(map(abs, less))) / spread
    near = max(1e-12 * largest, 1e-300)  # differences of the least numbers that there are underflow
    assert found.tolist() == pytest.approx([float(x) / spread for x in less], rel=1e-9, abs=near)


@pytest.mark.parametrize("rewards", [(1e6, 1e6 + 0.01), (1e39, -1e39), (1.7e9, 1.7e9 + 1), (1e308, -1e308)])
def test_large_rewards_keep_their_order(rewards: tuple[float, float]) -> None:
    made = bounded(group_advantages(torch.tensor([rewards * 4], dtype=torch.float64), "std"))[0]
    sign = 1 if rewards[0] > rewards[1] else -1
    assert torch.isfinite(made).all() and (made[::2] * sign > 0.5).all() and (made[1::2] * sign < -0.5).all()
    ppo = normalised([generalised_advantages(r, torch.zeros(3), 1.0, 1.0)[0] for r in rewards * 2], "std")
    assert all((a * sign > 0.5).all() for a in ppo[::2]) and all((a * sign < -0.5).all() for a in ppo[1::2])


def test_what_the_loss_cannot_hold_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"1e\+39.*maximum is 1e\+18"):
        bounded(torch.tensor([1e39], dtype=torch.float64))


def judge(folder: Path, body: str) -> str:
    (folder / "judge.py").write_text(f"def judge(prompt, completion, row):\n    return {body}\n")
    return f"{folder / 'judge.py'}:judge"


@pytest.mark.parametrize("reward", [0.2, 1e39, 1e6 + 0.01, -1 / 3])
def test_a_policy_stays_where_it_is_when_all_rewards_are_equal(reward: float, tmp_path: Path) -> None:
    base = Base(tiny_base())
    how: dict[str, Any] = {"reward": judge(tmp_path, repr(reward)), "max_tokens": 3, "kl": 0.0, "group": 8}
    rows = [{"prompt": f"say {w}:"} for w in "abcd"]
    made = base.adapt(rows, task="reinforce", method="lora", batch_size=2, epochs=8, lr=0.02, reinforce=how)
    ids = [1, 5, 9, 20]
    assert torch.equal(base.with_adapter(made).logits(ids), base.logits(ids))
    assert {c["reward"] for c in made.record.get("reinforce.curve")} == {reward}


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1e6, 1e6 + 0.01), (9e38, 1e39), (-1e300, 1e300)])
def test_a_difference_on_a_large_offset_is_learnt(low: float, high: float, tmp_path: Path) -> None:
    base = Base(tiny_base())
    body = f"{high!r} if completion.islower() else {low!r}"
    how: dict[str, Any] = {
        "reward": judge(tmp_path, body),
        "max_tokens": 1,
        "kl": 0.0,
        "success": high,
    }
    rows = [{"prompt": f"say {w}:"} for w in "abcdefgh"]
    made = base.adapt(rows, task="reinforce", method="lora", batch_size=8, epochs=12, lr=0.05, reinforce=how)
    success = [c["success"] for c in made.record.get("reinforce.curve")]
    assert all(math.isfinite(c["reward"]) for c in made.record.get("reinforce.curve"))
    assert sum(success[-6:]) / 6 > sum(success[:3]) / 3 + 0.1, success


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ([1.7e9 + i for i in range(24)], 3.0),
        ([1e6 + 0.01 * (i % 2) for i in range(24)], 0.004),
        ([1e15 + 2 * (i % 2) for i in range(24)], 0.5),
        ([3.0 * i for i in range(24)], 9.0),
    ],
)
def test_values_on_a_large_offset_are_learnt(values: list[float], near: float) -> None:
    base = Base(tiny_base())
    words = (
        ("red", "blue")
        if len(set(values)) == 2
        else tuple("ab " * (i // 2 + 1) + "c" * (i % 2) for i in range(24))
    )
    rows = [{"text": f"{words[i % len(words)]}", "value": v} for i, v in enumerate(values)]
    made = base.adapt(rows, task="regress", method="head")
    said = base.with_adapter(made).predict([r["text"] for r in rows])
    off = np.abs(np.array(said) - np.array(values))
    assert float(np.mean(off)) < near
    assert made.record.get("data.mean") == pytest.approx(
        values[0] + float(np.mean(np.array(values) - values[0])), rel=0, abs=1e-6 if values[0] < 1e12 else 1
    )


@pytest.mark.parametrize("value", [0.2, 1e6 + 0.01, 1.7e9, 1e300])
def test_features_that_are_all_alike_are_no_signal(value: float) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.c_[np.full(31, value), rng.normal(size=(31, 2))])
    mean, _, z = standardised(x)
    assert mean[0] == value and not z[:, 0].any()
    y = torch.tensor([i % 2 for i in range(31)])
    assert not fit_head(x, y, 2).head.weight_CP[:, 0].any()
    assert not fit_ridge(x, y.double()).head.weight_CP[:, 0].any()


def test_auroc_orders_texts_that_are_all_but_certain() -> None:
    """Logits 20 to 29: in fp32 the probability of each is 1."""
    logits = torch.tensor([[0.0, 20.0 + i] for i in range(10)])
    chances = logits.double().log_softmax(-1).exp()
    scores = np.array([list(x.scores.values()) for x in labelled(("a", "b"), chances)])
    truth = np.array([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5)
    assert macro_auroc(truth, scores).value == 1.0


def test_classes_are_read_in_full() -> None:
    """A head so sure that fp32 would call all of its answers certain still orders the texts."""
    base = Base(tiny_base())
    rows = [{"text": f"{w} {i}", "label": w} for i in range(6) for w in ("red", "blue")]
    on = base.with_adapter(base.adapt(rows, task="classify", method="head"))
    texts = [f"red {i} {'x' * i}" for i in range(12)]

    def sure() -> list[float]:
        return [max(x.scores.values()) for x in on.classify(texts)]

    odds = [math.log(p / (1 - p)) for p in sure()]
    assert on.attached is not None
    head = on.loaded.model.heads[on.attached.name]
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(18 / max(odds))
    chances = sure()
    assert len(set(chances)) == len(texts) and torch.tensor(max(chances), dtype=torch.float32) == 1.0
