"""Charts of our pages, drawn with matplotlib (extra `charts`) as inline SVG in the colours of the style sheet.

Every chart is one <svg> with a title and a description for screen readers. It is built in two steps: a figure, then SVG. Without matplotlib
there are no charts; the pages have the same numbers as tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from onebase.evaluation.bootstrap import Score
from onebase.govern.drawing import (
    COLOURS,
    as_svg,
    axes_at,
    can_draw,
    new_figure,
    number,
    page_of,
    plain,
    set_ticks,
    thinned,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 900  # user units; the page scales the chart, and scrolls it on narrow screens
HALF = 440  # width of a chart next to another
_LEAST = 1e-100  # smallest span to divide by
_LANE, _HEAD, _GAP = 17, 22, 8  # of the interval chart: a system's lane, a row's label, the space below a row


@dataclass(frozen=True)
class Dot:
    """One score in a chart. kind: "base", "untrained", "open" or "classical"; determines shape and colour."""

    name: str
    kind: str
    score: Score


@dataclass(frozen=True)
class Panel:
    """Scores of one metric on a common axis. rows: (label, dots)."""

    metric: str
    better: str
    digits: int
    rows: tuple[tuple[str, tuple[Dot, ...]], ...]


def finite(value: Any) -> bool:
    """Whether a value from a log or record is a number that can be plotted."""
    return isinstance(value, (int, float)) and abs(value) <= 1e100  # not nan, not inf, no endless integer


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving mean over about a thirtieth of the values; at the ends the window shrinks symmetrically."""
    half = max(1, len(values) // 60)
    sums = [0.0]
    for v in values:
        sums.append(sums[-1] + v)
    out = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        out.append((sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1))
    return out


def warmdown_start(lines: Sequence[dict[str, Any]]) -> int | None:
    """Index of the first step of the warm-down, from which the learning rate only falls. None if it never falls."""
    factors = [line.get("factor") for line in lines]
    if not factors or not all(finite(f) for f in factors):
        return None
    top = max(range(len(factors)), key=lambda i: (factors[i], i))
    return top + 1 if top + 1 < len(factors) else None


def trained_lines(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of log.jsonl whose step had a finite loss and changed weights."""
    return [x for x in lines if finite(x.get("loss")) and finite(x.get("tokens")) and not x.get("skipped")]


def curve_chart(lines: Sequence[dict[str, Any]]) -> Markup | None:
    """Loss over tokens read (raw and smoothed, the warm-down shaded), and below it tokens per second.

    lines: those of log.jsonl; steps without a finite loss are skipped. None with fewer than two steps, or without matplotlib.
    """
    used = trained_lines(lines)
    if len(used) < 2 or not can_draw():
        return None
    loss, tokens = [float(x["loss"]) for x in used], float(used[-1]["tokens"])
    last = smooth(loss)[-1]
    text = f"The loss {{}} from {loss[0]:.2f} to {last:.2f} nats per token"
    text = f"{text.format('falls')} over {tokens:,.0f} tokens" if last < loss[0] else text.format("goes")
    return as_svg(curve_figure(used), "Training loss and speed", text + ".")


def curve_figure(used: Sequence[dict[str, Any]]) -> Figure:
    """The figure of `curve_chart`: axes of the loss, and of the speed if known."""
    end = float(used[-1]["tokens"])
    unit, name = (1e6, "million tokens read") if end >= 1e6 else (1e3, "thousand tokens read")
    tokens, loss = [float(x["tokens"]) / unit for x in used], [float(x["loss"]) for x in used]
    speed = [(t, float(x["tokens_per_second"])) for t, x in zip(tokens, used, strict=True) if _speed(x)]
    fig = new_figure(WIDTH, 438)
    ax = axes_at(fig, 20, 266)
    ax.set_xlim(0, max(tokens[-1], _LEAST))
    pad = max((max(loss) - min(loss)) * 0.04, 1e-3)
    ax.set_ylim(min(loss) - pad, max(loss) + pad)
    start = warmdown_start(used)
    if start is not None:
        ax.axvspan(tokens[start - 1], tokens[-1], color=COLOURS["panel"], lw=0, zorder=0)
        ax.annotate("warm-down: the learning rate falls", (1, 1), (-6, -14), "axes fraction",
                    "offset points", ha="right", size=12, color=COLOURS["soft"])  # fmt: skip
    ax.set_title("loss, nats per token (lower is better)", loc="left", size=12, color=COLOURS["soft"])
    _lines(ax, tokens, loss)
    low = ax
    if len(speed) > 1:
        low = axes_at(fig, 326, 70)
        most = (
            sorted(s for _, s in speed)[int(0.99 * (len(speed) - 1))] * 1.1
        )  # so that one outlier does not set the scale
        low.set_xlim(ax.get_xlim())
        low.set_ylim(0, most)
        low.set_title("tokens per second", loc="left", size=12, color=COLOURS["soft"])
        low.plot(
            *thinned([t for t, _ in speed], [min(s, most) for _, s in speed]),
            gid="speed",
            color=COLOURS["soft"],
            lw=1.2,
        )
        set_ticks(low, 2, 8)
    set_ticks(ax, 5, 8 if low is ax else 0)
    low.set_xlabel(name, loc="right")
    return fig


def series_chart(
    points: Iterable[tuple[float, float]], title: str, of: str, ends: Sequence[float] = ()
) -> Markup | None:
    """A series of points, raw and smoothed; half as wide as the page.

    of: label of the x axis. ends: values that the y axis always includes. None with fewer than two points, or without matplotlib.
    """
    used = [(float(x), float(y)) for x, y in points if finite(x) and finite(y)]
    if len(used) < 2 or not can_draw():
        return None
    ys = [y for _, y in used]
    text = f"From {number(ys[0])} to {number(ys[-1])}, between {number(min(ys))} and {number(max(ys))}."
    return as_svg(series_figure(used, title, of, ends), title, text)


def series_figure(used: Sequence[tuple[float, float]], title: str, of: str, ends: Sequence[float]) -> Figure:
    """The figure of `series_chart`."""
    xs, ys = [x for x, _ in used], [y for _, y in used]
    low, high = min(*ys, *ends), max(*ys, *ends)
    pad = max((high - low) * 0.06, abs(high) * 1e-3, 1e-12)
    fig = new_figure(HALF, 218)
    ax = axes_at(fig, 30, 146)
    span = max(xs) - min(xs)
    ax.set_xlim(min(xs), max(xs) if span > _LEAST else min(xs) + 1)
    ax.set_ylim(*(v if v in ends else v + by for v, by in ((low, -pad), (high, pad))))
    page_of(fig).text(0, 14, plain(title), weight="bold", size=14)
    _lines(ax, xs, ys)
    ax.set_xlabel(of, loc="right")
    set_ticks(ax, 4, 6, whole=span >= 1)
    return fig


def interval_chart(panels: Iterable[Panel], title: str) -> Markup | None:
    """Dots with 95% intervals, one lane per system, and a panel with its own axis per metric. None without a score, or without matplotlib."""
    used = [p for p in panels if any(finite(d.score.value) for _, dots in p.rows for d in dots)]
    if not used or not can_draw():
        return None
    text = [
        label + ": " + ", ".join(f"{d.name} {d.score.value:.{p.digits}f}" for d in dots)
        for p in used
        for label, dots in p.rows
    ]
    return as_svg(interval_figure(used), title, ". ".join(text) + ".")


def interval_figure(panels: Sequence[Panel]) -> Figure:
    """The figure of `interval_chart`: the page's own axes, and one for each panel."""
    heights = [sum(_HEAD + _LANE * len(dots) + _GAP for _, dots in p.rows) for p in panels]
    fig = new_figure(WIDTH, sum(heights) + 68 * len(heights))
    page, y = page_of(fig), 0.0
    for panel, height in zip(panels, heights, strict=True):
        page.text(0, y + 16, plain(f"{panel.metric}, {panel.better} is better"), weight="bold", size=14)
        y += 30
        ax = axes_at(fig, y, height, 340, 66)
        scores = [d.score for _, dots in panel.rows for d in dots if finite(d.score.value)]
        low, high = min(s.low for s in scores), max(s.high for s in scores)
        pad = max((high - low) * 0.06, 1e-6)
        ax.set(xlim=(low - pad, high + pad), ylim=(y + height, y))
        for label, dots in panel.rows:
            page.plot((0, WIDTH), (y, y), color=COLOURS["rule"], lw=1)
            page.text(0, y + 17, plain(label), weight="bold", size=13, backgroundcolor=COLOURS["page"])
            y += _HEAD
            for dot in dots:
                if finite(dot.score.value):
                    _dot(page, ax, dot, y + _LANE / 2, panel.digits)
                y += _LANE
            y += _GAP
        y += 38
        set_ticks(ax, 0, 5)
    return fig


def _dot(page: Axes, ax: Axes, dot: Dot, y: float, digits: int) -> None:
    s, colour = dot.score, COLOURS[dot.kind]
    shape, size = {"base": ("o", 10.0), "untrained": ("o", 8.4), "open": ("s", 9.0)}.get(dot.kind, ("D", 7.0))
    inside = COLOURS["page"] if dot.kind == "untrained" else colour
    reach = [[s.value - s.low], [s.high - s.value]]
    line, *_ = ax.errorbar(s.value, y, xerr=reach, fmt=shape, ms=size, color=colour, elinewidth=2)
    line.set(mfc=inside, mew=2 if inside != colour else 0, gid=dot.kind)
    name = dot.name if len(dot.name) <= 46 else dot.name[:45] + "…"
    page.text(328, y + 4, plain(name), ha="right", size=12)
    page.text(WIDTH, y + 4, f"{s.value:.{digits}f}", ha="right", size=12)


def _speed(line: dict[str, Any]) -> bool:
    return finite(line.get("tokens_per_second")) and line["tokens_per_second"] > 0


def _lines(ax: Axes, xs: Sequence[float], ys: Sequence[float]) -> None:
    """A line, raw and smoothed."""
    ax.plot(*thinned(xs, ys), color=COLOURS["base"], lw=1, alpha=0.55, gid="raw")
    ax.plot(*thinned(xs, smooth(ys)), color=COLOURS["base"], lw=2.2, gid="smooth")
