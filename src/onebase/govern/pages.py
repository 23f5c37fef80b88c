"""Shared parts of our HTML pages: templates that escape all text, and filters that format values.

A page is one file without scripts or external resources; its style is `style.css.jinja`, which every template includes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onebase.govern.charts import curve_chart, finite, smooth, trained_lines
from onebase.govern.show import UNKNOWN

ROWS = 20
"""Rows of the table that replaces a chart without matplotlib."""


def environment(folder: Path) -> Environment:
    """Templates of `folder` and of this package, with the filters known, whole, seconds, size and visible."""
    templates = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(known=known, whole=whole, seconds=seconds, size=size, visible=visible)
    return templates


def learning(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Variables of `curve.html.jinja` from the lines of log.jsonl."""
    good = [x for x in lines if finite(x.get("loss")) and not x.get("skipped")]
    speeds = sorted(x["tokens_per_second"] for x in good if finite(x.get("tokens_per_second")))
    facts = {
        "steps": len(lines),
        "left_out": len(lines) - len(good),
        "first": f"{good[0]['loss']:.3f}" if good else UNKNOWN,
        "last": f"{smooth([x['loss'] for x in good])[-1]:.3f}" if good else UNKNOWN,
        "speed": whole(speeds[len(speeds) // 2]) if speeds else UNKNOWN,
    }
    chart, used = curve_chart(lines), trained_lines(lines)
    every = max(1, len(used) // ROWS)
    rows = [] if chart or len(used) < 2 else [*used[:-1:every], used[-1]]
    return {"curve": facts, "curve_svg": chart, "curve_rows": rows}


def known(value: Any) -> str:
    """Text of a value; "unknown" if it is missing."""
    if value is None or value == "" or value == [] or value == {}:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def whole(value: Any) -> str:
    """A count with thousands separators."""
    return f"{value:,.0f}" if finite(value) else UNKNOWN


def seconds(value: Any) -> str:
    """ "0.43 s", "12 s", "6 min 40 s"."""
    if not finite(value) or value < 0:
        return UNKNOWN
    if value >= 120:
        return f"{round(value) // 60} min {round(value) % 60} s"
    return "<0.01 s" if 0 < value < 0.005 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def size(value: Any) -> str:
    """Bytes in kB or MB."""
    if not finite(value):
        return UNKNOWN
    if value < 1000:
        return f"{value:.0f} B"
    return f"{value / 1e3:,.1f} kB" if value < 1e6 else f"{value / 1e6:,.2f} MB"


def visible(text: Any) -> str:
    """`text` with control and direction characters shown as escapes."""
    return "".join(
        c if c.isprintable() or c in "\n\t\u200d" else c.encode("unicode_escape").decode() for c in str(text)
    )
