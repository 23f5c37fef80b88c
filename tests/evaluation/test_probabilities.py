"""Scores of probabilities, numbers and spans, beside scikit-learn's and scipy's where they have them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, roc_auc_score

from onebase.errors import DataError
from onebase.evaluation.metrics import _ranks, mae, spearman
from onebase.evaluation.probabilities import ece, macro_auroc, macro_f1_of_labels, micro_f1
from onebase.evaluation.spans import span_f1, span_scores

tables = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        *[st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=n, max_size=n)] * 2
    )
)
numbers = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30)


@settings(max_examples=30, deadline=None)
@given(tables)
def test_f1_of_many_labels_is_that_of_sklearn(pair: tuple[list[list[int]], list[list[int]]]) -> None:
    y, p = map(np.array, pair)
    for ours, how in ((micro_f1(y, p), "micro"), (macro_f1_of_labels(y, p), "macro")):
        assert ours.value == pytest.approx(f1_score(y, p, average=how, zero_division=0))
        assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_macro_auroc_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 60)
    z = rng.normal(size=(60, 4)) + 1.5 * np.eye(4)[y]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    ours = macro_auroc(np.eye(4)[y], p)
    assert ours.value == pytest.approx(roc_auc_score(y, p, multi_class="ovr", average="macro"))
    assert 0.5 < ours.low <= ours.value <= ours.high <= 1
    lacking = macro_auroc(np.c_[np.eye(4)[y], np.zeros(60)], np.c_[p, p[:, 0]])
    assert lacking.value == pytest.approx(ours.value), "a label that no example has says nothing"
    with pytest.raises(DataError, match="no label has both"):
        macro_auroc([[1], [1]], [[0.2], [0.3]])
    with pytest.raises(DataError, match="shape"):
        macro_auroc([1, 0], [0.2, 0.3])


def test_ece_of_known_probabilities() -> None:
    assert ece([1, 1, 1, 0], [0.75] * 4).value == pytest.approx(0)
    assert ece([0, 0], [0.9, 0.5]).value == pytest.approx(0.7)
    # Two bins, 0.4 over and 0.4 under: they do not cancel.
    assert ece([1, 0], [0.6, 0.4]).value == pytest.approx(0.4)
    assert ece([1, 0], [1.0, 0.0]).value == 0
    rng = np.random.default_rng(1)
    p = rng.uniform(size=20_000)
    assert ece(rng.uniform(size=20_000) < p, p).value < 0.02
    with pytest.raises(DataError, match="from 0 to 1"):
        ece([1], [1.2])


@settings(max_examples=40, deadline=None)
@given(numbers)
def test_spearman_is_that_of_scipy_with_ties(pairs: list[tuple[int, int]]) -> None:
    y, p = map(np.array, zip(*pairs, strict=True))
    if len(set(y)) < 2:
        with pytest.raises(DataError, match="all targets are equal"):
            spearman(y, p)
        return
    ours = spearman(y, p)
    theirs = spearmanr(y, p).statistic if len(set(p)) > 1 else 0.0
    assert ours.value == pytest.approx(theirs, abs=1e-9)
    assert -1 - 1e-9 <= ours.low <= ours.value <= ours.high <= 1 + 1e-9
    assert mae(y, p).value == pytest.approx(np.abs(y - p).mean())


def test_ranks_of_a_resample_are_those_of_the_drawn_examples() -> None:
    v, w = np.array([3.0, 1.0, 3.0, 2.0]), np.array([[2.0, 1.0, 0.0, 1.0]])
    assert _ranks(v, w)[0, [0, 1, 3]].tolist() == [3.5, 1.0, 2.0]  # of 3, 3, 1, 2


def test_spans_must_be_right_in_all_three() -> None:
    truth = [[(0, 3, "a"), (5, 8, "b")], [(1, 2, "a")], []]
    found = [[(0, 3, "a"), (5, 8, "a")], [(1, 3, "a")], [(4, 5, "b")]]
    s = span_scores(truth, found)
    assert s["span_precision"].value == pytest.approx(1 / 4)
    assert s["span_recall"].value == pytest.approx(1 / 3)
    assert s["span_f1"].value == pytest.approx(2 / 7)
    assert all(x.low <= x.value <= x.high and x.n == 3 for x in s.values())
    assert span_f1(truth, truth).value == 1
    assert span_scores(truth, [[], [], []])["span_precision"].value == 0
    with pytest.raises(DataError, match="no text has a span"):
        span_f1([[]], [[(0, 1, "a")]])
    with pytest.raises(DataError, match="2 targets and 1"):
        span_f1([[], []], [[]])
