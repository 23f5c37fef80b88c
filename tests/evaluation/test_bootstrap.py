import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.evaluation.bootstrap import bootstrap, mean_score, paired_difference, ratio_score

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(numbers)
def test_interval_holds_the_value_and_lies_within_the_data(values: list[float]) -> None:
    s = mean_score("m", values)
    assert s.low <= s.value <= s.high and s.n == len(values)
    assert s.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= s.low and s.high <= max(values) + 1e-9


def test_width_is_that_of_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=2000)
    s = mean_score("m", values)
    assert s.high - s.low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)


def test_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    held = [s.low <= 0.7 <= s.high for s in (mean_score("m", rng.random(200) < 0.7) for _ in range(200))]
    assert 0.89 <= np.mean(held) <= 0.99


def test_same_seed_same_interval_and_another_seed_another() -> None:
    v = np.random.default_rng(3).random(50)
    assert mean_score("m", v, seed=1) == mean_score("m", v, seed=1) != mean_score("m", v, seed=2)


def test_ratio_is_of_sums_and_resamples_documents() -> None:
    s = ratio_score("r", [1.0, 30.0], [1, 10])
    assert s.value == pytest.approx(31 / 11) and s.n == 2
    assert (s.low, s.high) == (1.0, 3.0)


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(4)
    hard = rng.random(400)  # what both find hard
    a, b = hard + 0.02, hard + rng.normal(0, 0.01, 400)
    d = paired_difference(a, b)
    assert d.low > 0 and d.high - d.low < 0.1 * (mean_score("a", a).high - mean_score("a", a).low)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_difference_turns_its_sign_with_the_systems(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.value == pytest.approx(-other.value) and one.low == pytest.approx(-other.high, abs=1e-9)


def test_weighted_difference_is_per_token() -> None:
    d = paired_difference([10.0, 20.0], [14.0, 32.0], weights=[2, 6])
    assert d.value == pytest.approx(-2.0)


def test_undefined_resamples_are_left_out() -> None:
    s = bootstrap("x", lambda w: np.where(w[:, 0] > 0, 1.0, np.nan), 2)
    assert (s.low, s.value, s.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_score("m", []),
        lambda: mean_score("m", [float("nan")]),
        lambda: mean_score("m", [[1.0]]),
        lambda: ratio_score("r", [1.0], [0]),
        lambda: ratio_score("r", [1.0], [1, 2]),
        lambda: paired_difference([1.0, 0.0], [1.0]),
    ],
)
def test_bad_input_is_one_clear_error(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError) as e:
        call()
    assert e.value.cause and e.value.remedy
