"""Objectives: the right targets, the right sums, randomness from the row's number alone."""

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from onebase.base.head import Head, Pooling
from onebase.draws import Draws
from onebase.errors import DataError
from onebase.modality.text.sample import Tokens
from onebase.objective.base import IGNORE
from onebase.objective.infill import Infill, InfillMarks, infill
from onebase.objective.label import Classification
from onebase.objective.next_token import NextToken
from onebase.objective.pooled import narrowed, pool
from tests.helpers import tiny_base

MARKS = InfillMarks(101, 102, 103)
pieces = st.lists(st.integers(5, 99), min_size=3, max_size=20).map(
    lambda ids: Tokens(
        np.array([0, *ids, 1], np.int32), np.array([False] + [True] * (len(ids) + 1)), "x", "code"
    )
)


def tokens(*ids: int, loss: list[bool] | None = None, id: str = "x") -> Tokens:
    mask = loss or [False] + [True] * (len(ids) - 1)
    return Tokens(np.array(ids, np.int32), np.array(mask), id, "s")


def test_targets_stay_inside_their_piece() -> None:
    batch = NextToken(8).batch([[tokens(0, 5, 6, 1), tokens(0, 7, 1)]], 0)
    assert batch.inputs["text"].ids_BT.tolist() == [[0, 5, 6, 1, 0, 7, 1, 0]]
    assert batch.targets["next_token"].tolist() == [[5, 6, 1, IGNORE, 7, 1, IGNORE, IGNORE]]
    cols = batch.inputs["text"].cols
    assert cols.pos.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0]]
    assert cols.doc.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1]]
    assert batch.counts == {"next_token": 5}
    assert batch.sources == {"s": 7}


def test_masked_tokens_are_read_but_not_learnt() -> None:
    batch = NextToken(5).batch([[tokens(0, 5, 6, 7, 1, loss=[False, False, False, True, True])]], 0)
    assert batch.targets["next_token"].tolist() == [[IGNORE, IGNORE, 7, 1, IGNORE]]


def test_loss_is_the_plain_cross_entropy() -> None:
    base = tiny_base()
    rows = [[tokens(0, 5, 6, 1), tokens(0, 7, 9, 9, 1)], [tokens(0, 8, 1)]]
    batch = NextToken(12).batch(rows, 0)
    total, n = NextToken(12).losses(base.model, batch)["next_token"]
    plain = sum(
        F.cross_entropy(
            base.model.logits(torch.tensor([p.ids.tolist()]))[0, :-1],
            torch.tensor(p.ids[1:]).long(),
            reduction="sum",
        )
        for row in rows
        for p in row
    )
    assert n == 9
    torch.testing.assert_close(total, torch.as_tensor(plain), atol=1e-4, rtol=1e-5)


def test_few_targets_give_the_same_loss() -> None:
    """With mostly masked rows logits are made for the targets only; the sum is the same."""
    base = tiny_base()
    mask = [False] * 7 + [True] * 2
    row = [tokens(0, 5, 6, 7, 8, 9, 10, 11, 1, loss=mask)]
    total, _ = NextToken(9).losses(base.model, NextToken(9).batch([row], 0))["next_token"]
    logp = base.model.logits(torch.tensor([row[0].ids.tolist()]))[0].log_softmax(-1)
    assert float(total.detach()) == pytest.approx(-float((logp[6, 11] + logp[7, 1]).detach()), abs=1e-4)


def test_a_row_that_is_too_long() -> None:
    with pytest.raises(DataError, match="does not fit in 3"):
        NextToken(3).batch([[tokens(0, 5, 6, 1)]], 0)


@given(pieces, st.integers(0, 2**32 - 1))
def test_infill_keeps_every_token(piece: Tokens, seed: int) -> None:
    turned = infill(piece, MARKS, Draws(seed))
    ids = turned.ids.tolist()
    assert len(ids) == len(piece.ids) + 3
    assert ids[0] == 0
    assert ids[-1] == 1
    p, s, m = ids.index(101), ids.index(103), ids.index(102)
    assert p == 1 < s < m
    prefix, suffix, middle = ids[p + 1 : s], ids[s + 1 : m], ids[m + 1 : -1]
    assert [0, *prefix, *middle, *suffix, 1] == piece.ids.tolist()
    assert not turned.loss[[p, s, m]].any()
    assert turned.loss.sum() == piece.loss.sum()


def test_infill_depends_on_the_row_number_alone() -> None:
    rows = [[tokens(0, *range(5, 25), 1)] for _ in range(8)]
    objective = Infill(32, MARKS, 0.5, seed=3)
    whole = objective.batch(rows, 16).inputs["text"].ids_BT
    parts = torch.cat([objective.batch(rows[i : i + 3], 16 + i).inputs["text"].ids_BT for i in (0, 3, 6)])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, objective.batch(rows, 24).inputs["text"].ids_BT)


def test_infill_of_named_sources_only() -> None:
    objective = Infill(32, MARKS, 1.0, sources=("code",))
    batch = objective.batch([[tokens(0, 5, 6, 7, 8, 1)]], 0)
    assert 101 not in batch.inputs["text"].ids_BT


def test_label_reads_the_pooled_state() -> None:
    base = tiny_base()
    torch.manual_seed(0)
    head = Head(64, 3)
    torch.nn.init.normal_(head.weight_CP)
    base.model.heads["h"] = head
    texts = [tokens(0, 5, 6, id="a"), tokens(0, 7, id="b")]
    objective = Classification("h", {"a": 2, "b": 0}, "both")
    batch = objective.batch([[t] for t in texts], 0)
    total, n = objective.losses(base.model, batch)["label"]
    plain = 0.0
    for t, y in zip(texts, (2, 0), strict=True):
        h = base.model.hidden(torch.tensor([t.ids.tolist()])).hidden[0]
        z = head(torch.cat((h[-1], h.mean(0)))[None])
        plain += float(F.cross_entropy(z, torch.tensor([y])).detach())
    assert n == 2
    assert float(total.detach()) == pytest.approx(plain, abs=1e-4)


def test_pooling_ignores_padding() -> None:
    h = torch.tensor([[[1.0], [3.0], [100.0]]])
    doc = torch.tensor([[0, 0, -1]])
    assert pool(h, doc, "last").tolist() == [[3.0]]
    assert pool(h, doc, "mean").tolist() == [[2.0]]
    assert pool(h, doc, "both").tolist() == [[3.0, 2.0]]
    every = pool(h - 10, doc, "all")
    assert every.tolist() == [[-7.0, -8.0, -7.0]]
    assert pool(h, doc, "cls").tolist() == [[1.0]]
    for how in set(get_args(Pooling)) - {"cls"}:  # which "all" does not have
        assert torch.equal(narrowed(every, how), pool(h - 10, doc, how))
