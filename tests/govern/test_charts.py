"""The charts of pages: well-formed SVG, true to the numbers, and calm about odd ones."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onebase.evaluation.bootstrap import Score
from onebase.govern.charts import (
    HALF,
    WIDTH,
    Dot,
    Panel,
    curve_chart,
    interval_chart,
    interval_figure,
    series_chart,
    series_figure,
    smooth,
    warmdown_start,
)
from onebase.govern.drawing import POINTS
from tests.pages import drawn

NUMBERS = st.floats(-1e6, 1e6)


def log(losses: list[float]) -> list[dict[str, float]]:
    return [
        {"loss": x, "tokens": 100.0 * (i + 1), "tokens_per_second": 50.0, "factor": 1.0 - i / len(losses)}
        for i, x in enumerate(losses)
    ]


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


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0.1, 12), min_size=2, max_size=60))
def test_any_curve_is_drawn_inside_the_frame(losses: list[float]) -> None:
    svg = curve_chart(log(losses))
    assert svg is not None
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    for kind in ("raw", "smooth", "speed"):
        assert len(points := drawn(svg, kind)) == len(losses)
        assert all(0 <= x <= WIDTH and 0 <= y <= height for x, y in points)


def test_a_long_curve_is_thinned_and_a_short_one_left_out() -> None:
    svg = curve_chart(log([5.0 + i % 3 for i in range(10_000)]))
    assert svg is not None and len(svg) < 100_000
    assert len(drawn(svg, "raw")) <= POINTS + 1
    assert curve_chart(log([5.0])) is None
    assert curve_chart([{"loss": float("nan"), "tokens": 1}, {"tokens": 2}]) is None


ODD = st.one_of(NUMBERS, st.floats(), st.integers(), st.just(10**400))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ODD, ODD), max_size=40), st.sampled_from([(), (0.0,), (0.0, 100.0)]))
@example([(0.0, 1.0), (5e-324, 2.0)], ())
@example([(0.0, 1e100), (1.0, -1e100)], (0.0,))
@example([(0.0, 1.0), (1e100, -1e100), (-1e100, 3.0)], (0.0,))
def test_any_series_is_drawn_inside_the_frame(
    points: list[tuple[float, float]], ends: tuple[float, ...]
) -> None:
    svg = series_chart(points, "<a> & b $x^2$", "rollout", ends)
    usable = [p for p in points if all(abs(v) <= 1e100 for v in p)]
    assert (svg is None) == (len(usable) < 2)
    if svg is None:
        return
    root = ElementTree.fromstring(svg)
    height = float(root.attrib["viewBox"].split()[3])
    assert root.attrib["aria-label"] == "<a> & b $x^2$" and root.attrib["viewBox"].split()[2] == str(HALF)
    assert "<a> & b $x^2$" in [t.text for t in root.iter("text")]
    for kind in ("raw", "smooth"):
        assert len(found := drawn(svg, kind)) == len(usable)
        assert all(-0.1 <= x <= HALF + 0.1 and -0.1 <= y <= height + 0.1 for x, y in found)


def test_a_series_stands_where_its_axis_says() -> None:
    """With ends of 0 and 100 the frame is 0 to 100: its lower edge is at y = 176, its upper at 30."""
    svg = series_chart([(0, 0), (5, 50), (10, 100)], "t", "rollout", (0, 100))
    assert svg is not None
    assert drawn(svg, "raw") == [(62.0, 176.0), (244.0, 103.0), (426.0, 30.0)]
    texts = [t.text for t in ElementTree.fromstring(svg).iter("text")]
    assert {"0", "2", "10", "50", "100", "rollout", "t"} <= set(texts)


def test_rollouts_are_counted_in_whole_numbers() -> None:
    ax = series_figure([(0, 1.0), (1, 2.0), (2, 1.5)], "t", "rollout", ()).axes[0]
    assert [t for t in ax.get_xticks() if 0 <= t <= 2] == [0, 1, 2]


def test_charts_of_one_page_share_no_ids() -> None:
    """And say nothing that a browser would load."""
    panel = Panel("m", "higher", 2, (("t", tuple(dots_of(4))),))
    svgs = [interval_chart([panel], "a"), interval_chart([panel], "b"), curve_chart(log([3.0, 2.0, 1.0]))]
    ids = [i for svg in svgs for i in re.findall(r'id="(.*?)"', str(svg))]
    assert ids and len(ids) == len(set(ids))
    assert not re.search(r"url\(|https?:|<style|<metadata", "".join(map(str, svgs)))
    assert set(re.findall(r"#[0-9a-f]{6}\b", "".join(map(str, svgs)))) == set(), "a colour not of the page"


def dots_of(count: int) -> list[Dot]:
    kinds = ("base", "untrained", "open", "classical")
    values = (0.9, 0.5, 0.7, 0.6)
    return [
        Dot(f"<s{i}>", k, Score("accuracy", v, v - 0.05, v + 0.03, 100))
        for i, (k, v) in enumerate(zip(kinds[:count], values, strict=False))
    ]


def test_dots_stand_where_their_scores_say() -> None:
    panel = Panel("accuracy", "higher", 3, (("a task & more", tuple(dots_of(3))),))
    page, ax = interval_figure([panel]).axes
    places = [line.get_xdata()[0] for line in ax.lines]
    assert places == [0.9, 0.5, 0.7]
    bars = [c.get_segments()[0][:, 0].tolist() for c in ax.collections]
    assert bars == [pytest.approx([v - 0.05, v + 0.03]) for v in places]
    lanes = [line.get_ydata()[0] for line in ax.lines]
    named = {t.get_text(): t.get_position()[1] for t in page.texts}
    assert [named[f"<s{i}>"] - 4 for i in range(3)] == lanes == sorted(lanes)
    svg = interval_chart([panel], "Scores")
    assert svg is not None and "<s0> 0.900" in (ElementTree.fromstring(svg).findtext("desc") or "")


def test_no_scores_make_no_chart() -> None:
    nan = Score("accuracy", float("nan"), float("nan"), float("nan"), 1)
    assert interval_chart([], "x") is None
    assert interval_chart([Panel("m", "higher", 2, (("t", (Dot("s", "base", nan),)),))], "x") is None


def test_equal_scores_are_drawn() -> None:
    one = Score("accuracy", 1.0, 1.0, 1.0, 5)
    panel = Panel("m", "higher", 2, (("t", (Dot("s", "classical", one),)),))
    svg = interval_chart([panel], "x")
    assert svg is not None and "NaN" not in svg and "nan" not in svg
