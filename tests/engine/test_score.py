"""Scoring: log-probabilities of given tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.engine import PromptTooLong, score
from onebase.engine.scoring import SPARSE, batches
from onebase.errors import UserError
from onebase.model.proj import AdapterRouting
from tests.helpers import add_lora, tiny_base

BASE = tiny_base()
add_lora(BASE, "one")


def ids(n: int) -> list[int]:
    return torch.randint(10, 260, (n,), generator=torch.Generator().manual_seed(n)).tolist()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=7), st.sampled_from([1, 70, 8192]), st.booleans())
def test_scores_are_those_of_the_whole_logits(lengths: list[int], tokens: int, adapted: bool) -> None:
    names = ["one" if adapted and i % 2 else None for i in range(len(lengths))]
    rows = [ids(n) for n in lengths]
    got = score(BASE, rows, AdapterRouting.per_row(names), tokens=tokens)
    assert len(got) == len(rows)
    for row, name, said in zip(rows, names, got):
        with torch.no_grad():
            z = BASE.model.logits(torch.tensor([row]), AdapterRouting.all_rows(name) if name else None)[0]
        want = z.log_softmax(-1)[:-1].gather(-1, torch.tensor(row[1:])[:, None]).squeeze(-1)
        assert said.dtype == np.float32
        assert said.tolist() == pytest.approx(want.tolist(), abs=1e-5)


def test_a_row_may_fill_the_context_but_not_more() -> None:
    assert len(score(BASE, [ids(64)])[0]) == 63
    with pytest.raises(PromptTooLong, match="65 tokens"):
        score(BASE, [ids(65)])
    with pytest.raises(UserError):
        score(BASE, [[]])


@given(st.lists(st.integers(1, 300), max_size=60), st.sampled_from([1, 256, 2048]))
def test_batches_hold_every_row_once_and_little_padding(lengths: list[int], tokens: int) -> None:
    """A fifth of a batch at most, but for what keeps a device busy anyhow: an eighth of the tokens allowed, and one row more."""
    made = list(batches(lengths, tokens))
    assert sorted(i for part in made for i in part) == list(range(len(lengths)))
    for part in made:
        longest = max(lengths[i] for i in part)
        real, padded = sum(lengths[i] for i in part), len(part) * longest
        assert padded <= tokens or len(part) == 1
        assert padded <= SPARSE * real or real - longest < tokens // 8
