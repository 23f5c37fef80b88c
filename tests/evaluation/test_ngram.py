import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.evaluation.ngram import NGram

V = 6
documents = st.lists(st.lists(st.integers(0, V - 1), max_size=12), min_size=1, max_size=12).filter(any)


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(1, 4), st.lists(st.integers(0, V - 1), max_size=6))
def test_every_distribution_sums_to_one(docs: list[list[int]], order: int, context: list[int]) -> None:
    p = NGram(V, order).fit(docs).distribution(context)
    assert p.sum() == pytest.approx(1.0, abs=1e-6) and (p > 0).all()


@settings(max_examples=30, deadline=None)
@given(documents, documents, st.integers(1, 4))
def test_scores_are_those_of_the_distribution(
    train: list[list[int]], test: list[list[int]], order: int
) -> None:
    m = NGram(V, order).fit(train)
    for doc, nats in zip(test, m.nats(test), strict=True):
        assert len(nats) == len(doc)
        for i, token in enumerate(doc):
            assert nats[i] == pytest.approx(-np.log(m.distribution(doc[:i])[token]))


def test_continuation_counts_and_not_frequency_decide_after_an_unseen_context() -> None:
    # 1 is frequent but only ever follows 0; 2 is rarer but follows three different tokens.
    docs = [[0, 1]] * 9 + [[3, 2], [4, 2], [0, 2]]
    p = NGram(6, 2).fit(docs).distribution([5])
    assert p[2] > p[1] > p[5]


def test_one_order_by_hand() -> None:
    # Counts 3, 1, 1 and no n2: discounts of 0.5; held back 1.5 of 5, shared among V = 4.
    p = NGram(4, 1).fit([[0, 0, 0, 1, 2]]).distribution([])
    assert p == pytest.approx([2.5 / 5 + 0.3 / 4, 0.5 / 5 + 0.3 / 4, 0.5 / 5 + 0.3 / 4, 0.3 / 4])


def test_documents_do_not_see_each_other() -> None:
    m = NGram(V, 3).fit([[1, 2, 3]] * 5)
    together = m.nats([[1, 2, 3], [1, 2, 3]])
    assert together[1] == pytest.approx(together[0])
    assert together[0] == pytest.approx(m.nats([[1, 2, 3]])[0])


def test_longer_context_helps_on_a_pattern() -> None:
    docs = [[0, 1, 2, 0, 1, 3] * 4] * 6
    nats = [NGram(V, n).fit(docs).totals(docs[:1])[0] for n in (1, 2, 3, 4)]
    assert nats == sorted(nats, reverse=True)


def test_cost_is_measured() -> None:
    m = NGram(V, 3).fit([[1, 2, 3]])
    assert m.size > 0 and m.seconds > 0


def test_bad_ids_and_no_tokens() -> None:
    for docs in ([[V]], [[-1]], [[]], []):
        with pytest.raises(DataError):
            NGram(V, 2).fit(docs)
