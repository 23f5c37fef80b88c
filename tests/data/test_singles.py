"""The order of rows that are not packed: golden, a pure function of the step, made once an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebase.codec.text.sample import Tokens
from onebase.data import singles
from onebase.data.singles import SinglesPlan


def texts(n: int) -> list[Tokens]:
    return [Tokens(np.array([0, i + 5], np.int32), np.array([False, True]), str(i)) for i in range(n)]


def ids(plan: SinglesPlan, step: int) -> list[int]:
    return [int(row[0].id) for row in plan.rows(step)]


def test_golden_order() -> None:
    plan = SinglesPlan(texts(7), 3, seed=1)
    assert [ids(plan, s) for s in range(5)] == [[0, 3, 5], [1, 2, 6], [4, 4, 5], [6, 3, 1], [2, 0, 3]]


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 3))
def test_every_text_once_an_epoch_whatever_was_asked_before(n: int, per_step: int, seed: int) -> None:
    plan, asked = SinglesPlan(texts(n), per_step, seed), range(2 * n)
    backwards = {s: ids(plan, s) for s in reversed(asked)}
    order = [i for s in asked for i in ids(SinglesPlan(texts(n), per_step, seed), s)]
    assert [i for s in asked for i in backwards[s]] == order
    for epoch in range(len(order) // n):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_an_order_is_made_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    inner = singles.permutation
    monkeypatch.setattr(singles, "permutation", lambda *a: made.append(a[1]) or inner(*a))
    plan = SinglesPlan(texts(10), 3)
    for step in range(20):
        plan.rows(step)
    assert made == [0, 1, 2, 3, 4, 5]
