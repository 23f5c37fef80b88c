"""The charts of pages: well-formed SVG, true to the numbers, and calm about odd ones."""

from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onebase.evaluation.bootstrap import Score
from onebase.govern.charts import (
    HALF,
    POINTS,
    WIDTH,
    Dot,
    Panel,
    curve_chart,
    interval_chart,
    series_chart,
    smooth,
    ticks,
    warmdown_start,
)

NUMBERS = st.floats(-1e6, 1e6)


def log(losses: list[float]) -> list[dict[str, float]]:
    return [
        {"loss": x, "tokens": 100.0 * (i + 1), "tokens_per_second": 50.0, "factor": 1.0 - i / len(losses)}
        for i, x in enumerate(losses)
    ]


@given(NUMBERS, st.floats(1e-3, 1e6), st.integers(1, 9))
def test_ticks_are_few_and_inside(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    slack = 1e-6 * (abs(low) + span)
    assert len(found) <= count + 1
    assert all(low - slack <= t <= low + span + slack for t in found)


@given(st.lists(NUMBERS, min_size=1, max_size=200))
def test_a_smoothed_line_keeps_its_ends_and_its_range(values: list[float]) -> None:
    out = smooth(values)
    assert len(out) == len(values)
    assert out[0] == pytest.approx(values[0], abs=1e-3) and out[-1] == pytest.approx(values[-1], abs=1e-3)
    assert min(values) - 1e-3 <= min(out) and max(out) <= max(values) + 1e-3


def test_the_warmdown_starts_after_the_last_step_at_full_rate() -> None:
    lines = [{"factor": f} for f in (0.5, 1.0, 1.0, 0.6, 0.2)]
    assert warmdown_start(lines) == 3
    assert warmdown_start([{"factor": 0.5}, {"factor": 1.0}]) is None
    assert warmdown_start([{}, {}]) is None and warmdown_start([]) is None


@given(st.lists(st.floats(0.1, 12), min_size=2, max_size=60))
def test_any_curve_is_drawn_inside_the_frame(losses: list[float]) -> None:
    svg = curve_chart(log(losses))
    assert svg is not None
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    lines = root.findall("polyline")
    assert [line.attrib["class"] for line in lines] == ["raw", "smooth", "speed"]
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH and 0 <= y <= height


def test_a_long_curve_is_thinned_and_a_short_one_left_out() -> None:
    svg = curve_chart(log([5.0 + i % 3 for i in range(10_000)]))
    assert svg is not None and len(svg) < 100_000
    points = ElementTree.fromstring(svg).find("polyline")
    assert points is not None and len(points.attrib["points"].split()) <= POINTS + 1
    assert curve_chart(log([5.0])) is None
    assert curve_chart([{"loss": float("nan"), "tokens": 1}, {"tokens": 2}]) is None


ODD = st.one_of(NUMBERS, st.floats(), st.integers(), st.just(10**400))


@given(st.lists(st.tuples(ODD, ODD), max_size=40), st.sampled_from([(), (0.0,), (0.0, 100.0)]))
@example([(0.0, 1.0), (5e-324, 2.0)], ())
@example([(0.0, 1e100), (1.0, -1e100)], (0.0,))
def test_any_series_is_drawn_inside_the_frame(
    points: list[tuple[float, float]], ends: tuple[float, ...]
) -> None:
    svg = series_chart(points, "<a> & b", "rollout", ends)
    usable = [p for p in points if all(abs(v) <= 1e100 for v in p)]
    assert (svg is None) == (len(usable) < 2)
    if svg is None:
        return
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    assert root.attrib["aria-label"] == "<a> & b" and root.attrib["viewBox"].split()[2] == str(HALF)
    assert [line.attrib["class"] for line in root.findall("polyline")] == ["raw", "smooth"]
    for line in root.findall("polyline"):
        assert len(line.attrib["points"].split()) == len(usable)
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= HALF and 0 <= y <= height


def test_a_series_stands_where_its_axis_says() -> None:
    """With ends of 0 and 100 the frame is 0 to 100: its lower edge is at y = 176, its upper at 30."""
    svg = series_chart([(0, 0), (5, 50), (10, 100)], "t", "rollout", (0, 100))
    assert svg is not None and 'points="62.0,176.0 244.0,103.0 426.0,30.0"' in svg
    assert [t.text for t in ElementTree.fromstring(svg).iter("text") if t.attrib["class"] == "tick"][:3] == [
        "0",
        "50",
        "100",
    ]


def test_dots_stand_in_the_order_of_their_scores() -> None:
    dots = tuple(
        Dot(f"<s{i}>", kind, Score("accuracy", v, v - 0.05, v + 0.05, 100))
        for i, (kind, v) in enumerate((("base", 0.9), ("untrained", 0.5), ("untrained", 0.7)))
    )
    svg = interval_chart([Panel("accuracy", "higher", 3, (("a task & more", dots),))], "Scores")
    assert svg is not None
    root = ElementTree.fromstring(svg)
    at = [float(c.attrib["cx"]) for c in root.iter("circle")]
    assert at[1] < at[2] < at[0]
    assert "<s0> 0.900" in (root.findtext("desc") or "")


def test_no_scores_make_no_chart() -> None:
    nan = Score("accuracy", float("nan"), float("nan"), float("nan"), 1)
    assert interval_chart([], "x") is None
    assert interval_chart([Panel("m", "higher", 2, (("t", (Dot("s", "base", nan),)),))], "x") is None


def test_equal_scores_are_drawn() -> None:
    one = Score("accuracy", 1.0, 1.0, 1.0, 5)
    panel = Panel("m", "higher", 2, (("t", (Dot("s", "classical", one),)),))
    svg = interval_chart([panel], "x")
    assert svg is not None and "NaN" not in svg and "nan" not in svg
