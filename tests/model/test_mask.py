"""Masks against a brute-force reference in plain Python, as values, and what they say of themselves."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onebase.model.mask import (
    And,
    Causal,
    Clean,
    Cols,
    Everything,
    Mask,
    Or,
    SameBlock,
    SameDocument,
    Unblocked,
    Window,
    mixed,
    prefix,
)


@dataclass(frozen=True)
class Token:
    pos: int
    doc: int
    block: int
    noisy: bool = False


def reference(mask: Mask, q: Token, k: Token) -> bool:
    """What each predicate means, token by token."""
    match mask:
        case Everything():
            return True
        case Causal():
            return k.pos <= q.pos
        case Window(size):
            return -size < q.pos - k.pos < size
        case SameDocument():
            return q.doc == k.doc
        case SameBlock():
            return q.block >= 0 and q.block == k.block
        case Unblocked():
            return k.block < 0
        case Clean():
            return not k.noisy
        case And(left, right):
            return reference(left, q, k) and reference(right, q, k)
        case Or(left, right):
            return reference(left, q, k) or reference(right, q, k)
    raise AssertionError(mask)


leaves = st.one_of(
    st.just(Everything()),
    st.just(Causal()),
    st.builds(Window, st.integers(1, 6)),
    st.just(SameDocument()),
    st.just(SameBlock()),
    st.just(Unblocked()),
    st.just(Clean()),
)
masks: st.SearchStrategy[Mask] = st.recursive(
    leaves, lambda inner: st.one_of(st.builds(And, inner, inner), st.builds(Or, inner, inner)), max_leaves=5
)
tokens = st.builds(Token, st.integers(0, 8), st.integers(-1, 2), st.integers(-1, 2), st.booleans())


def rows_of(draw: Any, batch: int, label: str) -> list[list[Token]]:
    length = draw(st.integers(1, 7), label=label)
    return [[draw(tokens) for _ in range(length)] for _ in range(batch)]


def columns(rows: list[list[Token]], block: bool = True) -> Cols:
    pos, doc, blk, noisy = (
        torch.tensor([[getattr(t, n) for t in row] for row in rows]) for n in ("pos", "doc", "block", "noisy")
    )
    return Cols(pos, doc, blk if block else None, noisy=noisy)


@given(mask=masks, data=st.data())
def test_dense_is_the_reference(mask: Mask, data: Any) -> None:
    batch = data.draw(st.integers(1, 3), label="batch")
    q, k = rows_of(data.draw, batch, "queries"), rows_of(data.draw, batch, "keys")
    dense = mask.dense(columns(q), columns(k))
    assert dense.shape == (batch, 1, len(q[0]), len(k[0]))
    assert dense.dtype == torch.bool
    for b in range(batch):
        for i, one in enumerate(q[b]):
            for j, other in enumerate(k[b]):
                want = reference(mask, one, other) and one.doc >= 0 and other.doc >= 0
                assert bool(dense[b, 0, i, j]) == want


@given(mask=masks, data=st.data())
def test_what_a_mask_says_of_itself_is_true(mask: Mask, data: Any) -> None:
    q, k = data.draw(tokens), data.draw(tokens)
    seen = reference(mask, q, k)
    same = q.doc == k.doc
    if seen and not mask.ahead():
        assert k.pos <= q.pos
    reach = mask.reach()
    if seen and reach is not None:
        assert abs(q.pos - k.pos) <= reach
    if seen and mask.apart():
        assert same
    if same:  # `alone` is promised for rows of one document
        assert reference(mask.alone(), q, k) == seen


def test_a_mask_is_a_value() -> None:
    assert Causal() & SameDocument() == Causal() & SameDocument()
    assert Window(3) != Window(4)
    assert len({Causal() | SameBlock(), prefix(), Causal()}) == 2
    with pytest.raises(FrozenInstanceError):
        Window(3).size = 4  # type: ignore[misc]


def test_no_block_column_means_no_blocks() -> None:
    q = columns([[Token(0, 0, 1), Token(1, 0, 1)]], block=False)
    assert not SameBlock().dense(q, q).any()
    assert torch.equal(prefix().dense(q, q), Causal().dense(q, q))


def test_prefix_sees_both_ways_inside_and_causally_outside() -> None:
    row = columns([[Token(0, 0, 0), Token(1, 0, 0), Token(2, 0, -1), Token(3, 0, -1)]])
    want = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(prefix().dense(row, row)[0, 0], want)


def test_columns_join_cut_and_choose_rows() -> None:
    a, b = Cols.simple(2, 3), columns([[Token(3, 0, 1)], [Token(3, -1, 1)]])
    both = Cols.cat((a, b))
    assert both.pos.tolist() == [[0, 1, 2, 3]] * 2
    assert both.doc.tolist() == [[0, 0, 0, 0], [0, 0, 0, -1]]
    assert both.block is not None and both.block.tolist() == [[-1, -1, -1, 1]] * 2
    assert not both.single
    assert both.cut(2, 4).pos.tolist() == [[2, 3]] * 2
    assert both.rows(torch.tensor([1])).doc.tolist() == [[0, 0, 0, -1]]
    assert a.cut(0, 2).single
    assert not a.cut(1, 3).single
    assert Cols.cat((a,)) is a


def test_padded_rows_end_where_their_lengths_say() -> None:
    cols = Cols.padded(torch.tensor([3, 1]), 3)
    assert cols.doc.tolist() == [[0, 0, 0], [0, -1, -1]]
    assert not cols.single


spans = st.lists(
    st.tuples(st.sampled_from(["text", "clean", "noisy"]), st.integers(1, 4)), min_size=1, max_size=5
)


@given(documents=st.lists(spans, min_size=1, max_size=3))
def test_mixed_documents_see_what_the_rule_says(documents: list[list[tuple[str, int]]]) -> None:
    """The rule by index, as it is published, against the mask by columns: a block has one position."""
    row, block = [], 0
    for doc, document in enumerate(documents):
        pos = 0
        for kind, size in document:
            media = kind != "text"
            row += [
                Token(pos if media else pos + i, doc, block if media else -1, kind == "noisy")
                for i in range(size)
            ]
            pos += 1 if media else size
            block += media
    seen = mixed().dense(columns([row]), columns([row]))[0, 0]
    for q, a in enumerate(row):
        for k, b in enumerate(row):
            same = a.block >= 0 and a.block == b.block
            wanted = a.doc == b.doc and (k <= q or same) and not (b.noisy and not same)
            assert bool(seen[q, k]) == wanted, (q, k, row)


def test_all_columns_join_cut_pad_and_move() -> None:
    pos = torch.arange(6).reshape(2, 3)
    full = Cols(pos, pos * 0, pos - 2, pos % 3, pos > 2)
    bare = Cols(pos, pos * 0)
    both = Cols.cat((bare, full))
    assert both.block is not None and both.kind is not None and both.noisy is not None
    assert both.block.tolist()[0] == [-1, -1, -1, -2, -1, 0] and both.noisy.dtype == torch.bool
    assert both.kind.tolist() == [[0, 0, 0, 0, 1, 2]] * 2
    assert both.noisy.tolist() == [[False] * 6, [False] * 3 + [True] * 3]
    cut = both.cut(3, 6).rows(torch.tensor([1]))
    assert cut.kind is not None and cut.kind.tolist() == [[0, 1, 2]] and cut.shape == (1, 3)
    longer = cut.padded_to(5)
    assert longer.doc.tolist() == [[0, 0, 0, -1, -1]] and longer.noisy is not None
    assert longer.noisy.tolist() == [[True, True, True, False, False]]
