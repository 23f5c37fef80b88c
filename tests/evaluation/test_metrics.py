import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from onebase.errors import DataError, UserError
from onebase.evaluation import LOWER_IS_BETTER, METRICS, metric
from onebase.evaluation.metrics import (
    accuracy,
    auroc,
    bits_per_byte,
    exact_match,
    macro_f1,
    nats_per_token,
    rouge_l,
    rouge_l_each,
)

labels = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None)
@given(labels)
def test_label_metrics_are_those_of_sklearn_and_lie_in_0_1(pairs: list[tuple[str, str]]) -> None:
    y, p = map(list, zip(*pairs, strict=True))
    for ours, theirs in (
        (accuracy(y, p), accuracy_score(y, p)),
        (macro_f1(y, p), f1_score(y, p, average="macro", zero_division=0)),
    ):
        assert ours.value == pytest.approx(theirs)
        assert 0 <= ours.low <= ours.value <= ours.high <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auroc_is_that_of_sklearn_with_ties(pairs: list[tuple[bool, int]]) -> None:
    y, s = map(list, zip(*pairs, strict=True))
    if len(set(y)) < 2:
        with pytest.raises(DataError, match="one class"):
            auroc(y, s)
        return
    ours = auroc(y, s)
    assert ours.value == pytest.approx(roc_auc_score(y, s))
    assert 0 <= ours.low <= ours.value <= ours.high <= 1
    assert auroc(y, [-x for x in s]).value == pytest.approx(1 - ours.value)


def test_likelihoods_are_ratios_of_sums() -> None:
    assert bits_per_byte([8 * math.log(2), 0.0], [4, 4]).value == pytest.approx(1.0)
    assert nats_per_token([6.0, 2.0], [2, 2]).value == pytest.approx(2.0)
    assert {"bits_per_byte", "nats_per_token", "ece", "mae"} == LOWER_IS_BETTER


def test_exact_match_ignores_surrounding_space_only() -> None:
    assert exact_match(["a b", "c", "d"], [" a b\n", "C", "d"]).value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("target", "prediction", "f"),
    [
        ("police killed the gunman", "police kill the gunman", 0.75),  # Lin (2004), section 3.1
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("Same, words!", "same words", 1.0),
        ("a b c d", "a b", 2 * 1.0 * 0.5 / 1.5),
        ("a", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_rouge_l_of_known_sentences(target: str, prediction: str, f: float) -> None:
    assert rouge_l([target], [prediction]).value == pytest.approx(f)


@settings(max_examples=40, deadline=None)
@given(st.text("ab c", max_size=20), st.text("ab c", max_size=20))
def test_rouge_l_is_bounded_symmetric_and_one_for_itself(x: str, y: str) -> None:
    assert 0 <= rouge_l_each([x], [y])[0] <= 1
    assert rouge_l_each([x], [y])[0] == rouge_l_each([y], [x])[0]
    assert not x.strip() or rouge_l_each([x], [x])[0] == 1


def test_registry_names_the_nearest() -> None:
    assert metric("accuracy") is METRICS["accuracy"]
    with pytest.raises(UserError, match="did you mean 'macro_f1'"):
        metric("macro-f1")


def test_lengths_must_agree() -> None:
    for f in (accuracy, macro_f1, exact_match, rouge_l):
        with pytest.raises(DataError, match="2 targets and 1 predictions"):
            f(["a", "b"], ["a"])
    with pytest.raises(DataError, match="give 1 for positive"):
        auroc([0, 2], np.array([0.1, 0.2]))
