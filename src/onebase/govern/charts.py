"""The charts of our pages as plain SVG: no plotting library, sharp at any size, colours from the page's style sheet.

Every chart is one <svg> with a title and a description for screen readers; all text in it is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from onebase.evaluation.bootstrap import Score

WIDTH = 900  # user units; the page scales the chart, and scrolls it on narrow screens
HALF = 440  # of a chart that stands beside another
POINTS = 700  # of a line at most: a long run draws every k-th step
_LEFT, _RIGHT = 62, 14
_LEAST = 1e-100  # a span that can be divided by
_LANE, _HEAD, _GAP = 17, 22, 8  # of the interval chart: a system's lane, a row's label, the space below a row


@dataclass(frozen=True)
class Dot:
    """One score in a chart: `kind` is "base", "untrained", "open" or "classical" and gives its shape and colour."""

    name: str
    kind: str
    score: Score


@dataclass(frozen=True)
class Panel:
    """Scores of one metric under a common axis: `rows` are (label, dots)."""

    metric: str
    better: str
    digits: int
    rows: tuple[tuple[str, tuple[Dot, ...]], ...]


def finite(value: Any) -> bool:
    """Whether a value from a log or record is a number that can be drawn."""
    return isinstance(value, (int, float)) and abs(value) <= 1e100  # not nan, not inf, no endless integer


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that lie in [low, high]."""
    if not high - low > _LEAST:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw * 0.999)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def smooth(values: Sequence[float]) -> list[float]:
    """Centred moving mean over about a thirtieth of the values; the window shrinks alike on both sides at the ends."""
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
    """Index of the first step of the warm-down: the rate only falls from there. None when it never falls."""
    factors = [line.get("factor") for line in lines]
    if not factors or not all(finite(f) for f in factors):
        return None
    top = max(range(len(factors)), key=lambda i: (factors[i], i))
    return top + 1 if top + 1 < len(factors) else None


def curve_chart(lines: Sequence[dict[str, Any]]) -> Markup | None:
    """Loss against tokens read (raw and smoothed, the warm-down shaded), and below it the tokens a second.

    lines: those of log.jsonl; steps without a finite loss are left out. None when fewer than two are left.
    """
    used = [x for x in lines if finite(x.get("loss")) and finite(x.get("tokens")) and not x.get("skipped")]
    if len(used) < 2:
        return None
    tokens = [float(x["tokens"]) for x in used]
    x_at = _scale(0, tokens[-1], _LEFT, WIDTH - _RIGHT)
    loss, mean = [float(x["loss"]) for x in used], smooth([float(x["loss"]) for x in used])
    top, bottom, strip, floor = 16, 286, 322, 392
    low, high = min(loss), max(loss)
    pad = max((high - low) * 0.04, 1e-3)
    y_at = _scale(low - pad, high + pad, bottom, top)
    parts = []
    start = warmdown_start(used)
    if start is not None:
        left = x_at(tokens[start - 1])
        parts.append(_rect("shade", left, top, WIDTH - _RIGHT - left, bottom - top))
    parts += _y_axis(y_at, ticks(low - pad, high + pad), _LEFT, WIDTH - _RIGHT)
    if start is not None:
        parts.append(_text("note", left + 6, top + 14, "warm-down: the learning rate falls"))
    parts.append(_text("axis-title", _LEFT, top - 4, "loss, nats per token (lower is better)"))
    parts.append(_line("raw", tokens, loss, x_at, y_at))
    parts.append(_line("smooth", tokens, mean, x_at, y_at))
    speed = [(t, float(x["tokens_per_second"])) for t, x in zip(tokens, used, strict=True) if _speed(x)]
    if len(speed) > 1:
        most = sorted(s for _, s in speed)[int(0.99 * (len(speed) - 1))] * 1.1  # one odd step sets no scale
        s_at = _scale(0, most, floor, strip)
        parts += _y_axis(s_at, ticks(0, most, 2), _LEFT, WIDTH - _RIGHT)
        parts.append(_text("axis-title", _LEFT, strip - 6, "tokens a second"))
        parts.append(_line("speed", [t for t, _ in speed], [min(s, most) for _, s in speed], x_at, s_at))
    unit, name = (1e6, "million tokens read") if tokens[-1] >= 1e6 else (1e3, "thousand tokens read")
    for t in ticks(0, tokens[-1] / unit, 8):
        parts.append(_text("tick", x_at(t * unit), floor + 18, _number(t), "middle"))
    parts.append(_text("axis-title", WIDTH - _RIGHT, floor + 38, name, "end"))
    says = (
        f"The loss falls from {loss[0]:.2f} to {mean[-1]:.2f} nats per token over {tokens[-1]:,.0f} tokens"
        if mean[-1] < loss[0]
        else f"The loss goes from {loss[0]:.2f} to {mean[-1]:.2f} nats per token"
    )
    return _svg(floor + 46, "Training loss and speed", says + ".", parts)


def series_chart(
    points: Iterable[tuple[float, float]], title: str, of: str, ends: Sequence[float] = ()
) -> Markup | None:
    """One number against another, as it is and smoothed; half as wide as the page.

    of: what counts whole numbers along x. ends: values that the axis of y reaches in any case. None with fewer than two points.
    """
    used = [(float(x), float(y)) for x, y in points if finite(x) and finite(y)]
    if len(used) < 2:
        return None
    xs, ys = [x for x, _ in used], [y for _, y in used]
    low, high = min(*ys, *ends), max(*ys, *ends)
    pad = max((high - low) * 0.06, abs(high) * 1e-3, 1e-12)
    low, high = (v if v in ends else v + by for v, by in ((low, -pad), (high, pad)))
    top, bottom = 30, 176
    x_at, y_at = _scale(min(xs), max(xs), _LEFT, HALF - _RIGHT), _scale(low, high, bottom, top)
    parts = [_text("panel", 0, 14, title), *_y_axis(y_at, ticks(low, high, 4), _LEFT, HALF - _RIGHT)]
    for t in ticks(min(xs), max(xs), 6):
        if t == round(t):
            parts.append(_text("tick", x_at(t), bottom + 18, _number(t), "middle"))
    parts.append(_text("axis-title", HALF - _RIGHT, bottom + 36, of, "end"))
    parts += [_line("raw", xs, ys, x_at, y_at), _line("smooth", xs, smooth(ys), x_at, y_at)]
    says = f"From {_number(ys[0])} to {_number(ys[-1])}, between {_number(min(ys))} and {_number(max(ys))}."
    return _svg(bottom + 42, title, says, parts, HALF)


def interval_chart(panels: Iterable[Panel], title: str) -> Markup | None:
    """Dots with their 95% intervals, a lane a system, a panel with its own axis for each metric. None without a score."""
    parts: list[Markup] = []
    says, y = [], 0.0
    left, right = 340, WIDTH - 66
    for panel in panels:
        found = [d.score for _, dots in panel.rows for d in dots if finite(d.score.value)]
        if not found:
            continue
        low, high = min(s.low for s in found), max(s.high for s in found)
        pad = max((high - low) * 0.06, 1e-6)
        x_at = _scale(low - pad, high + pad, left, right)
        parts.append(_text("panel", 0, y + 16, f"{panel.metric}, {panel.better} is better"))
        y += 30
        height = sum(_HEAD + _LANE * len(dots) + _GAP for _, dots in panel.rows)
        for t in ticks(low - pad, high + pad):
            parts.append(_segment("grid", x_at(t), y, x_at(t), y + height))
            parts.append(_text("tick", x_at(t), y + height + 16, _number(t), "middle"))
        for label, dots in panel.rows:
            parts.append(_segment("rule", 0, y, WIDTH, y))
            parts.append(_text("label", 0, y + 17, label))
            y += _HEAD
            for dot in dots:
                if finite(dot.score.value):
                    parts += _dot(dot, x_at, y + _LANE / 2, left, panel.digits)
                y += _LANE
            says.append(label + ": " + ", ".join(f"{d.name} {d.score.value:.{panel.digits}f}" for d in dots))
            y += _GAP
        y += 38
    return _svg(y, title, ". ".join(says) + ".", parts) if parts else None


def _dot(dot: Dot, x_at: _scale, y: float, left: float, digits: int) -> list[Markup]:
    x, s = x_at(dot.score.value), dot.score
    shape = {
        "base": Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y),
        "untrained": Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4.2"/>').format(x, y),
        "open": Markup('<rect x="{:.1f}" y="{:.1f}" width="9" height="9"/>').format(x - 4.5, y - 4.5),
    }.get(
        dot.kind,
        Markup('<path d="M{:.1f} {:.1f}l5 5l-5 5l-5 -5z"/>').format(x, y - 5),
    )
    name = dot.name if len(dot.name) <= 52 else dot.name[:51] + "…"
    return [
        _text("system", left - 12, y + 4, name, "end"),
        Markup('<g class="dot {}">{}{}</g>').format(
            dot.kind, _segment("bar", x_at(s.low), y, x_at(s.high), y), shape
        ),
        _text("value", WIDTH, y + 4, f"{s.value:.{digits}f}", "end"),
    ]


class _scale:
    """A straight map from data to user units."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.by = (end - start) / (high - low if abs(high - low) > _LEAST else 1.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.by


def _speed(line: dict[str, Any]) -> bool:
    return finite(line.get("tokens_per_second")) and line["tokens_per_second"] > 0


def _number(value: float) -> str:
    return f"{value:,.6g}"


def _y_axis(at: _scale, marks: list[float], left: float, right: float) -> list[Markup]:
    out = []
    for m in marks:
        out.append(_segment("grid", left, at(m), right, at(m)))
        out.append(_text("tick", left - 8, at(m) + 4, _number(m), "end"))
    return out


def _line(kind: str, xs: Sequence[float], ys: Sequence[float], x_at: _scale, y_at: _scale) -> Markup:
    every = max(1, math.ceil(len(xs) / POINTS))
    keep = [*range(0, len(xs) - 1, every), len(xs) - 1]
    points = " ".join(f"{x_at(xs[i]):.1f},{y_at(ys[i]):.1f}" for i in keep)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, points)


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _rect(kind: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x, y, width, height
    )


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, text
    )


def _svg(height: float, title: str, says: str, parts: Sequence[Markup], width: int = WIDTH) -> Markup:
    return Markup('<svg role="img" viewBox="0 0 {} {:.0f}" aria-label="{}"><desc>{}</desc>{}</svg>').format(
        width, height, title, says, Markup("").join(escape(p) for p in parts)
    )
