"""Two systems on the same examples: the interval, the number of examples that would tell, and the sums that scores are made of."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.evaluation.bootstrap import paired_difference
from onebase.evaluation.likelihood import DocumentNats
from onebase.evaluation.paired import RowSums, difference, mean_sums, rounded
from onebase.evaluation.predictions import (
    ContactMaps,
    Documents,
    Drawn,
    Graded,
    Labels,
    LabelSets,
    MaskPairs,
    Numbers,
    Passages,
    Retrieved,
    SpanSets,
    Transcripts,
    Written,
)
from onebase.evaluation.scores import scores_of
from onebase.tasks.table import TASKS

EXAMPLES = {
    Labels: Labels(["a", "b", "a"], ["a", "a", "a"], np.ones((3, 2)), np.ones((3, 2))),
    LabelSets: LabelSets(
        np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]]),
        np.array([[1.0, 1, 0], [0, 1, 0], [1, 0, 1]]),
        np.ones((3, 3)),
    ),
    Numbers: Numbers([1.0, 2.0, 5.0], [1.5, 2.0, 3.0]),
    SpanSets: SpanSets([[(0, 3, "x")], [(1, 2, "y")], []], [[(0, 3, "x"), (4, 5, "x")], [], [(0, 1, "y")]]),
    Written: Written(["a", "b"], ["a", "c"], np.array([3.0, 9.0]), np.array([2.0, 5.0])),
    Transcripts: Transcripts(["a b", "c"], ["a", "c"], np.array([3.0, 9.0]), np.array([2.0, 5.0])),
    MaskPairs: MaskPairs(np.array([0.5, 0.9]), np.array([0.4, 0.8])),
    Drawn: Drawn(np.array([0.5, 0.25]), ["a", "b"], np.eye(2), np.eye(2)),
    ContactMaps: ContactMaps(np.array([0.5, 0.9]), np.array([0.1, 0.2])),
    Retrieved: Retrieved([np.array([1]), np.array([3, 12])]),
    Graded: Graded([[0.0, 2.0, 1.0], [1.0, 0.0]], [[0.1, 0.9, 0.3], [0.2, 0.5]]),
    Passages: Passages([["the red fox"], ["tea", "green tea"]], ["red dog", "tea"]),
    Documents: Documents([DocumentNats("domain", 30.0, 10, 20), DocumentNats("domain", 90.0, 20, 70)]),
}


@pytest.mark.parametrize("of", EXAMPLES, ids=lambda of: of.__name__)
def test_scores_are_the_ratios_of_their_sums(of: type) -> None:
    said = EXAMPLES[of]
    found = {name: m for name, m in scores_of(of).items() if m.sums is not None}
    assert found
    for name, m in found.items():
        score = m.score(said, 0)
        assert score is not None and m.sums is not None
        assert m.sums(said).value == pytest.approx(score.value), name


def test_every_task_that_is_tuned_has_a_score_that_can_be_paired() -> None:
    paired = {name for of in EXAMPLES for name, m in scores_of(of).items() if m.sums is not None}
    assert all(set(t.tuned_by) <= paired for t in TASKS.values() if t.tuned_by)


def test_the_difference_is_that_of_paired_difference() -> None:
    rng = np.random.default_rng(0)
    a, b, per = rng.random(80), rng.random(80), rng.integers(1, 9, 80).astype(float)
    for ours, theirs in (
        (difference(mean_sums(a), mean_sums(b)).score, paired_difference(a, b)),
        (difference(RowSums(a, per), RowSums(b, per)).score, paired_difference(a, b, weights=per)),
    ):
        assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))


def test_the_deviation_is_that_of_the_differences_and_gives_the_standard_error() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random(400) < 0.8).astype(float), (rng.random(400) < 0.7).astype(float)
    d = difference(mean_sums(a), mean_sums(b))
    assert d.deviation == pytest.approx(float((a - b).std(ddof=1)))
    # Of a ratio whose denominators differ: beside the bootstrap's own standard error, a quarter of the width of its interval.
    over, under = rng.poisson(2, 400).astype(float), 2.0 + rng.poisson(3, 400)
    more = np.minimum(over + (rng.random(400) < 0.2), under)
    found = difference(RowSums(more, under + 1), RowSums(over, under))
    assert found.deviation / 20 == pytest.approx((found.score.high - found.score.low) / (2 * 1.96), rel=0.1)


@pytest.mark.parametrize(("mean", "deviation"), [(0.05, 0.4), (0.2, 0.5), (-0.1, 0.6)])
def test_with_so_many_examples_a_difference_of_this_size_is_found_in_80_of_100_cases(
    mean: float, deviation: float
) -> None:
    rng = np.random.default_rng(2)
    pilot = rng.normal(mean, deviation, 40)
    pilot = (pilot - pilot.mean()) / pilot.std(
        ddof=1
    ) * deviation + mean  # its mean and deviation are the true ones
    n = difference(mean_sums(pilot), mean_sums(np.zeros(40))).needed
    assert n is not None and n == math.ceil(((1.959964 + 0.841621) * deviation / mean) ** 2)
    drawn = rng.normal(mean, deviation, (4000, n))
    z = drawn.mean(1) / (drawn.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.025)  # 0.0063 a standard deviation
    few = rng.normal(mean, deviation, (4000, n // 3))
    z = few.mean(1) / (few.std(1, ddof=1) / math.sqrt(n // 3))
    assert np.mean(np.abs(z) > 1.96) < 0.5


def test_answers_and_what_would_tell() -> None:
    ones, zeros = np.ones(50), np.zeros(50)
    few = np.r_[np.ones(3), np.zeros(47)]
    assert difference(mean_sums(ones), mean_sums(zeros)).answer == "yes"
    assert difference(mean_sums(zeros), mean_sums(ones)).answer == "no"
    alike = difference(mean_sums(ones), mean_sums(ones))
    assert (alike.answer, alike.needed, alike.would) == (
        "cannot tell",
        None,
        "both answer each of them alike",
    )
    other = difference(mean_sums(few), mean_sums(few[::-1]))
    assert other.needed is None and "more than a million" in other.would
    near = difference(mean_sums(few), mean_sums(np.r_[np.zeros(48), 1, 1]))
    assert near.answer == "cannot tell" and near.needed is not None and near.needed > 100
    assert near.would == f"about {rounded(near.needed):,} would"
    with pytest.raises(DataError, match="paired comparison of 50 and 3"):
        difference(mean_sums(ones), mean_sums(ones[:3]))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10**7))
def test_rounded_upwards_to_two_digits(n: int) -> None:
    assert n <= rounded(n) <= 1.1 * n
    assert rounded(n) % 10 ** max(0, len(str(n)) - 2) == 0
