from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.data import Dataset, Row, RowPlan, TokenSet, packing, split
from onebase.errors import ConfigError, DataError
from onebase.modality.text import Tokenizer, Tokens

BOS = 0


def token_set(lengths: list[int]) -> TokenSet:
    """Documents whose tokens are all different numbers, so that any loss or repeat shows."""
    out, at = [], 1
    for i, n in enumerate(lengths):
        ids = np.concatenate([[BOS], np.arange(at, at + n - 1)]).astype(np.int32)
        at += n - 1
        out.append(Tokens(ids, ids % 3 != 0, f"d{i}", "s"))
    return TokenSet.from_tokens(out)


def flat(rows: list[Row]) -> list[list[list[int]]]:
    return [[piece.ids.tolist() for piece in row] for row in rows]


def epoch_of_rows(plan: RowPlan, epoch: int) -> list[Row]:
    first = sum(plan.epoch_rows(e) for e in range(epoch))
    numbers = range(first, first + plan.epoch_rows(epoch))
    return [plan.rows(n // plan.batch_size)[n % plan.batch_size] for n in numbers]


many_lengths = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(
    lengths=many_lengths,
    length=st.integers(4, 24),
    per_step=st.integers(1, 7),
    seed=st.integers(0, 3),
    reserve=st.integers(0, 2),
)
def test_every_epoch_holds_every_token_once(
    lengths: list[int], length: int, per_step: int, seed: int, reserve: int
) -> None:
    tokens = token_set(lengths)
    plan = RowPlan(tokens, length, per_step, seed, reserve=reserve)
    wanted = Counter(int(t) for doc in tokens for t in doc.ids if t != BOS)
    for epoch in (0, 1):
        rows = epoch_of_rows(plan, epoch)
        assert Counter(int(t) for row in rows for p in row for t in p.ids if t != BOS) == wanted
        for row in rows:
            assert row
            assert sum(len(p) + reserve for p in row) <= length
            for piece in row:
                assert piece.ids[0] == BOS
                assert not piece.loss[0]
                assert (piece.loss[1:] == (piece.ids[1:] % 3 != 0)).all()
        assert sum(len(p) for row in rows for p in row) == plan.tokens_per_epoch


@settings(deadline=None, max_examples=40)
@given(lengths=many_lengths, times=st.integers(1, 4), seed=st.integers(0, 3))
def test_an_epoch_holds_the_documents_of_a_repeated_source_so_often(
    lengths: list[int], times: int, seed: int
) -> None:
    two = [replace(t, source="ab"[i % 2]) for i, t in enumerate([*token_set([5, *lengths])])]
    tokens = TokenSet.from_tokens(two)
    plan = RowPlan(tokens, 12, 3, seed, repeat={"a": times})
    own = Counter({int(t): times if d.source == "a" else 1 for d in two for t in d.ids if t != BOS})
    for epoch in (0, 1):
        rows = epoch_of_rows(plan, epoch)
        assert Counter(int(t) for row in rows for p in row for t in p.ids if t != BOS) == own
        assert sum(len(p) for row in rows for p in row) == plan.tokens_per_epoch
    same = RowPlan(tokens, 12, 3, seed, repeat={"a": 1})
    assert (plan.digest == same.digest) == (times == 1)
    assert same.digest == RowPlan(tokens, 12, 3, seed).digest


def test_a_repeated_source_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="data.repeat names the source 'b'"):
        RowPlan(token_set([5]), 12, 3, repeat={"b": 2})


@settings(deadline=None, max_examples=30)
@given(
    lengths=many_lengths, steps=st.lists(st.integers(0, 25), min_size=1, max_size=6), seed=st.integers(0, 3)
)
def test_a_step_is_the_same_whatever_was_asked_before(
    lengths: list[int], steps: list[int], seed: int
) -> None:
    tokens = token_set(lengths)
    walked = RowPlan(tokens, 16, 3, seed)
    for step in range(26):
        walked.rows(step)
    for step in steps:
        fresh = RowPlan(tokens, 16, 3, seed)
        assert flat(fresh.rows(step)) == flat(walked.rows(step))
        assert fresh.epoch(step) == walked.epoch(step)


@settings(deadline=None, max_examples=20)
@given(lengths=many_lengths, per_step=st.integers(1, 24))
def test_ranks_share_out_the_global_batch_in_order(lengths: list[int], per_step: int) -> None:
    tokens = token_set(lengths)
    for step in (0, 3):
        whole = flat(RowPlan(tokens, 16, per_step).rows(step))
        for world in (1, 2, 3, 4, 8):
            # each rank has a plan of its own, as it would in a process of its own
            shares = [flat(RowPlan(tokens, 16, per_step).rows(step, rank, world)) for rank in range(world)]
            assert [row for share in shares for row in share] == whole
            assert [list(split(whole, rank, world)) for rank in range(world)] == shares
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_many_windows_and_a_step_over_several_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "WINDOW_PIECES", 8)
    monkeypatch.setattr(packing, "WINDOW_ROWS", 2)
    rng = np.random.default_rng(0)
    tokens = token_set(rng.integers(2, 30, 100).tolist())
    plan = RowPlan(tokens, 16, 5, seed=1)
    assert len(plan._bounds) > 5
    wanted = {int(t) for doc in tokens for t in doc.ids}
    for epoch in range(3):
        rows = epoch_of_rows(plan, epoch)
        assert {int(t) for row in rows for p in row for t in p.ids} == wanted
    assert flat(RowPlan(tokens, 16, 5, seed=1).rows(40)) == flat(plan.rows(40))
    large = RowPlan(token_set([5, 6]), 16, 10)  # an epoch is one row, a step is ten
    assert len(large.rows(2)) == 10
    assert large.epoch(2) == 20


def test_epochs_seeds_and_data_order_differ() -> None:
    tokens = token_set([9, 5, 7, 3, 12, 8, 6, 4, 10, 11] * 4)
    plan = RowPlan(tokens, 16, 1)
    assert flat(epoch_of_rows(plan, 0)) != flat(epoch_of_rows(plan, 1))
    assert flat(epoch_of_rows(RowPlan(tokens, 16, 1, 1), 0)) != flat(epoch_of_rows(plan, 0))
    digests = {
        p.digest for p in (plan, RowPlan(tokens, 16, 1, 1), RowPlan(tokens, 16, 2), RowPlan(tokens, 17, 1))
    }
    assert len(digests) == 4
    assert RowPlan(tokens, 16, 1).digest == plan.digest


def test_the_order_is_what_it_was() -> None:
    """A run begun with an earlier version goes on with the same rows. Change it only on purpose."""
    tokens = token_set([4, 9, 3, 7, 5, 20])
    plan = RowPlan(tokens, 8, 2, seed=7)
    names = [[[f"{p.id}:{p.ids[-1]}" for p in row] for row in plan.rows(step)] for step in range(3)]
    assert names == GOLDEN


GOLDEN = [[["d3:19"], ["d1:11", "d5:42"]], [["d5:30"], ["d1:10"]], [["d0:3"], ["d5:37"]]]


def test_waste_is_under_two_percent_on_a_realistic_mix(
    dataset: Dataset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5.0, 1.0, 4000), 3, None).astype(int)
    plan = RowPlan(token_set(lengths.tolist()), 512, 16)
    assert plan.waste() < 0.005
    assert plan.rows_per_epoch == plan.epoch_rows(0)
    built = RowPlan(TokenSet.build(dataset, "train", tokenizer, tmp_path / "c"), 64, 4)
    assert built.waste() < 0.05  # a hundred documents
    for row in epoch_of_rows(built, 0):
        assert all(p.ids[0] == tokenizer.bos and not p.loss[0] and p.loss[1:].all() for p in row)


def test_mistakes() -> None:
    tokens = token_set([5, 40, 50])
    with pytest.raises(
        DataError, match="sample d1 has 40 tokens, the limit of a row is 15; 2 of 3 samples are too long"
    ):
        RowPlan(tokens, 16, 1, reserve=1, long="refuse")
    for sizes in ({"length": 1}, {"batch_size": 0}, {"reserve": 15}, {"reserve": -1}):
        with pytest.raises(ConfigError):
            RowPlan(tokens, **{"length": 16, "batch_size": 1, **sizes})
    with pytest.raises(ConfigError, match="step is -1"):
        RowPlan(tokens, 16, 1).rows(-1)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        split([1], 2, 2)
