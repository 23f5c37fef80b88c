"""Orders and draws repeat for ever: golden values, and Philox written out by hand."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.draws import Draws, permutation

WORD = 2**64 - 1
GOLDEN: dict[str, object] = {
    "permutation": [4, 5, 8, 6, 2, 3, 7, 0, 1, 9],
    "long": "5a556da548e76967997d2a699b1719c9f3cd55506ab4519017098f8a5c9dff79",
    "below": [973, 6, 797, 144, 367, 648],
    "uniform": [0.6586657806235664, 0.931858777320466],
    "seeds": [2019551058, 3939181208, 1992145661],
    "shuffled": ["f", "a", "c", "d", "e", "b"],
}


def philox(key: int, count: int) -> list[int]:
    """Philox 4x64-10 after Salmon et al. (2011), in plain integers; numpy counts its blocks from 1."""
    out: list[int] = []
    for block in itertools.count(1):
        x, k = [block, 0, 0, 0], [key & WORD, key >> 64]
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
            x = [(b >> 64) ^ x[1] ^ k[0], b & WORD, (a >> 64) ^ x[3] ^ k[1], a & WORD]
            k = [(k[0] + 0x9E3779B97F4A7C15) & WORD, (k[1] + 0xBB67AE8584CAA73B) & WORD]
        out += x
        if len(out) >= count:
            return out[:count]
    raise AssertionError


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=20), st.integers(0, 2**40), st.integers(0, 50))
def test_words_are_those_of_the_paper(name: str, seed: int, count: int) -> None:
    name = name.encode("utf-8", "replace").decode()
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "big")
    words = philox(key, count)
    assert Draws(seed, name).words(count).tolist() == words
    assert Draws(seed, name).uniform(count).tolist() == [(w >> 11) / 2**53 for w in words]
    assert permutation(seed, name, count).tolist() == sorted(range(count), key=lambda i: (words[i], i))


def test_golden_values() -> None:
    """Changing any of these changes what every run learns next: raise the identities of checkpoints when it must be."""
    assert permutation(0, 0, 10).tolist() == GOLDEN["permutation"]
    digest = hashlib.sha256(permutation("7:text", 3, 100_000).astype("<i8").tobytes()).hexdigest()
    assert digest == GOLDEN["long"]
    assert Draws(1, "infill", 2).below(1000, 6).tolist() == GOLDEN["below"]
    assert Draws(1).uniform(2).tolist() == GOLDEN["uniform"]
    assert Draws(5, "completions", 0).seeds(3) == GOLDEN["seeds"]
    assert Draws("x").shuffled("abcdef") == GOLDEN["shuffled"]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 300), st.integers(1, 2**40))
def test_every_number_once_and_none_outside(count: int, limit: int) -> None:
    assert sorted(permutation(3, 1, count).tolist()) == list(range(count))
    drawn = Draws(count, limit).below(limit, 20)
    assert drawn.min() >= 0 and drawn.max() < limit


def test_a_stream_goes_on() -> None:
    one, two = Draws("a"), Draws("a")
    assert np.concatenate([one.words(1), one.words(7)]).tolist() == two.words(8).tolist()


def test_nothing_else_of_numpy_or_python_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later numpy may do: its generators give other numbers, our orders stay."""
    before = permutation(9, 9, 1000)
    monkeypatch.setattr(np.random, "default_rng", lambda *_: 1 / 0)
    monkeypatch.setattr(np.random, "Generator", lambda *_: 1 / 0)
    assert (permutation(9, 9, 1000) == before).all()
