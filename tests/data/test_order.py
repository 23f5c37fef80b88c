"""One protocol of order for packed rows, single texts, pairs and mixtures: golden, a pure function of the step, and no dearer for more data."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.data import Order, Row, RowPlan, TokenSet, order, packing, split
from onebase.data.mixed import MixedOrder
from onebase.data.order import ExampleOrder, one_by_one
from onebase.data.tokens import PLACE
from onebase.modality.text.sample import Tokens


def text(i: int, name: str = "") -> Tokens:
    return Tokens(np.array([0, i + 5], np.int32), np.array([False, True]), name or str(i))


class Names(Sequence[str]):
    """`a0`, `a1` and so on, made when they are asked for."""

    def __init__(self, first: str, n: int) -> None:
        self.first, self.n = first, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: Any) -> Any:
        return f"{self.first}{i}"


def packed(n: int, per_step: int, seed: int, epochs: int | None, source: str = "a") -> RowPlan:
    """Documents of 2 to 5 tokens, in rows of 12."""
    places = np.zeros(n, PLACE)
    places["length"] = 2 + np.arange(n) % 4
    places["start"] = np.cumsum(places["length"]) - places["length"]
    ids = np.full(int(places["length"].sum()), 7, np.int32)
    ids[places["start"]] = 0
    tokens = TokenSet([ids], None, places, Names(source, n), [source], 0, f"tk1-{n}{source}")
    return RowPlan(tokens, 12, per_step, seed, epochs=epochs)


def single(n: int, per_step: int, seed: int, epochs: int | None) -> ExampleOrder:
    return ExampleOrder(one_by_one(text(i) for i in range(n)), per_step, seed, epochs)


def paired(n: int, per_step: int, seed: int, epochs: int | None) -> ExampleOrder:
    pairs = [(text(i), text(i + n, f"{i} other")) for i in range(n)]
    return ExampleOrder(pairs, per_step, seed, epochs, alike=True)


def mixed(n: int, per_step: int, seed: int, epochs: int | None) -> MixedOrder:
    """A quarter of the rows are of another source, which has no end."""
    return MixedOrder(packed(n, 1, seed, epochs), packed(n, 1, seed, None, "b"), 0.25, per_step)


KINDS: dict[str, Any] = {"packed": packed, "single": single, "paired": paired, "mixed": mixed}
every_kind = pytest.mark.parametrize("kind", KINDS)
sizes = {"n": st.integers(1, 40), "per_step": st.integers(1, 9), "seed": st.integers(0, 3)}


def ids(rows: Sequence[Row]) -> list[list[str]]:
    return [[t.id for t in row] for row in rows]


def own(found: list[list[str]]) -> list[str]:
    """Of what is not mixed in, the texts that stand for an example."""
    return [
        row[0] if row[-1].endswith("other") else t
        for row in found
        for t in row
        if t[0] != "b" and "other" not in t
    ]


@every_kind
@settings(max_examples=25, deadline=None)
@given(**sizes, epochs=st.integers(1, 3))
def test_every_item_once_an_epoch(kind: str, n: int, per_step: int, seed: int, epochs: int) -> None:
    plan: Order = KINDS[kind](n, per_step, seed, epochs)
    steps = [ids(plan.rows(s)) for s in range(plan.steps)]
    found = own([row for step in steps for row in step])
    assert len(found) == n * epochs and plan.total == sum(map(len, steps)) and plan.rows(plan.steps) == []
    if kind != "paired":  # sorted by length within a step, which may span two epochs
        assert all(len(set(found[e * n : (e + 1) * n])) == n for e in range(epochs))
    assert set(Counter(found).values()) == {epochs}
    if kind == "paired":
        assert all(a + " other" == b for step in steps for a, b in step)


@every_kind
@settings(max_examples=25, deadline=None)
@given(**sizes, epochs=st.sampled_from([None, 2]), first=st.integers(0, 12))
def test_a_run_that_goes_on_at_any_step_has_the_same_rows(
    kind: str, n: int, per_step: int, seed: int, epochs: int | None, first: int
) -> None:
    whole = KINDS[kind](n, per_step, seed, epochs)
    walked = [ids(whole.rows(s)) for s in range(first + 3)]
    resumed = KINDS[kind](n, per_step, seed, epochs)
    assert [ids(resumed.rows(s)) for s in range(first, first + 3)] == walked[first:]
    assert resumed.digest == whole.digest != KINDS[kind](n + 1, per_step, seed, epochs).digest


@every_kind
@settings(max_examples=25, deadline=None)
@given(**sizes, step=st.integers(0, 9))
def test_ranks_share_out_a_step_and_steps_share_out_the_stream(
    kind: str, n: int, per_step: int, seed: int, step: int
) -> None:
    plan = KINDS[kind](n, per_step, seed, None)
    rows = ids(plan.rows(step))
    for world in range(1, 5):
        assert [row for rank in range(world) for row in split(rows, rank, world)] == rows
    if kind in ("packed", "single"):  # the order of rows does not hang on how many make a step
        ones = KINDS[kind](n, 1, seed, None)
        assert [ids(ones.rows(i))[0] for i in range(step * per_step, (step + 1) * per_step)] == rows


class Lazy(Sequence[Row]):
    """So many examples, each made when it is asked for."""

    def __init__(self, n: int) -> None:
        self.n, self.asked, self.ids, self.loss = n, 0, np.array([0, 7], np.int32), np.array([False, True])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < self.n:
            raise IndexError(i)
        self.asked += 1
        return (Tokens(self.ids, self.loss, str(i)),)


def seconds(plan: Order, steps: range) -> float:
    """The quickest of some steps."""
    taken = []
    for step in steps:
        start = time.perf_counter()
        assert len(plan.rows(step)) == 16
        taken.append(time.perf_counter() - start)
    return min(taken)


@pytest.mark.parametrize("kind", ["packed", "single", "mixed"])
def test_a_step_is_no_dearer_for_a_million_items(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the order of the epoch made: no permutation, no packing, no look at an example that is not in the step."""
    made: list[int] = []
    for room in (order, packing):
        real = room.permutation
        monkeypatch.setattr(room, "permutation", lambda *a, real=real: made.append(a[2]) or real(*a))
    taken = {}
    for n in (1_000, 1_000_000):
        examples = Lazy(n)
        plan: Order = ExampleOrder(examples, 16) if kind == "single" else KINDS[kind](n, 16, 0, None)
        plan.rows(0)
        examples.asked = 0
        made.clear()
        taken[n] = seconds(plan, range(1, 9))
        assert made == [], "a permutation was made within an epoch"
        assert examples.asked == (8 * 16 if kind == "single" else 0)
    # To look at a million numbers once takes a millisecond or more.
    assert taken[1_000_000] < 3 * taken[1_000] + 3e-4, taken


def test_golden_order() -> None:
    plan = single(7, 3, 1, None)
    assert [[int(row[0].id) for row in plan.rows(s)] for s in range(5)] == [[0, 3, 5], [1, 2, 6], [4, 4, 5], [6, 3, 1], [2, 0, 3]]  # fmt: skip


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 3))
def test_every_text_once_an_epoch_whatever_was_asked_before(n: int, per_step: int, seed: int) -> None:
    plan, asked = single(n, per_step, seed, None), range(2 * n)
    backwards = {s: plan.numbers(s) for s in reversed(asked)}
    found = [i for s in asked for i in single(n, per_step, seed, None).numbers(s)]
    assert [i for s in asked for i in backwards[s]] == found
    for epoch in range(len(found) // n):
        assert sorted(found[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_an_order_is_made_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    inner = order.permutation
    monkeypatch.setattr(order, "permutation", lambda *a: made.append(a[1]) or inner(*a))
    plan = single(10, 3, 0, None)
    for step in range(20):
        plan.rows(step)
    assert made == [0, 1, 2, 3, 4, 5]
