from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.data import cut, pack


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), limit=st.integers(2, 20))
def test_pieces_hold_every_token_once(lengths: list[int], limit: int) -> None:
    document, start, stop = cut(np.array(lengths), limit)
    covered = [(d, t) for d, a, b in zip(document, start, stop, strict=True) for t in range(a, b)]
    assert covered == [(d, t) for d, n in enumerate(lengths) for t in range(n)]
    sizes = stop - start + (start > 0)  # a continuation has a BOS of its own
    assert sizes.max() <= limit
    assert sizes.min() >= 1


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 17), max_size=60))
def test_rows_hold_every_piece_once_and_no_two_could_be_one(sizes: list[int]) -> None:
    row_of, count = pack(np.array(sizes, np.int64), 17)
    filled = np.bincount(row_of, weights=sizes, minlength=count)
    assert len(row_of) == len(sizes)
    assert (filled <= 17).all()
    assert (filled > 0).all()
    # what best fit promises: a row is opened only when no other has room, so no two rows fit together
    assert count < 2 or np.sort(filled)[:2].sum() > 17


def test_best_fit_takes_the_fullest_row() -> None:
    row_of, count = pack(np.array([7, 5, 3, 2, 3]), 10)
    assert count == 2
    assert row_of[0] == row_of[2]
    assert row_of[1] == row_of[3] == row_of[4]


def test_quick_and_tight_on_a_realistic_mix() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 1.0, 50_000), 3, None).astype(np.int64)
    _, start, stop = cut(lengths, 512)
    sizes = stop - start + (start > 0)
    began = time.process_time()  # of this process alone: others may be busy
    _, count = pack(sizes, 512)
    assert time.process_time() - began < 3  # it takes 0.04 s
    assert 1 - sizes.sum() / (count * 512) < 0.01
