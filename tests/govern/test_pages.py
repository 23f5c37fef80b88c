"""How values are printed in pages, and the part about a run's log."""

import pytest

from onebase.govern import charts, drawing, pages
from onebase.govern.pages import known, learning, seconds, size, visible, whole


def test_formats() -> None:
    assert [seconds(x) for x in (0.001, 0.43, 12.4, 400, None)] == [
        "<0.01 s",
        "0.43 s",
        "12 s",
        "6 min 40 s",
        "unknown",
    ]
    assert [size(x) for x in (0, 1500, 2_500_000, None)] == ["0 B", "1.5 kB", "2.50 MB", "unknown"]
    assert visible("a\tb\n\x00é😀") == "a\tb\n\\x00é😀"
    assert [known(x) for x in (None, "", [], 0, True, 1234567)] == ["unknown"] * 3 + [
        "0",
        "True",
        "1,234,567",
    ]
    assert [whole(x) for x in (1234.4, float("nan"), 10**400, None)] == ["1,234"] + ["unknown"] * 3


def test_what_a_log_says() -> None:
    lines = [{"loss": 4.0 - i, "tokens": i + 1, "tokens_per_second": 100 * i} for i in range(3)]
    said = learning([*lines, {"loss": "nan", "tokens": 4, "skipped": True}])
    assert said["curve"] == {"steps": 4, "left_out": 1, "first": "4.000", "last": "2.000", "speed": "100"}
    assert said["curve_svg"] is not None
    assert learning([])["curve"]["first"] == "unknown" and learning([])["curve_svg"] is None


def test_without_matplotlib_a_curve_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    lines = [{"loss": 4.0 - i / 100, "tokens": 1000 * (i + 1), "tokens_per_second": None} for i in range(300)]
    said = learning(lines)
    assert said["curve_svg"] is None and len(said["curve_rows"]) <= pages.ROWS + 2
    template = pages.environment(pages.Path(pages.__file__).parent).get_template("curve.html.jinja")
    text = template.render(**said, train={}, model={})
    assert "onebase[charts]" in text and "<svg" not in text
    for cell in ("1,000", "300,000", "4.000", "1.010", "unknown"):
        assert f">{cell}</td>" in text
    assert charts.series_chart([(0, 1), (1, 2)], "a", "rollout") is None
