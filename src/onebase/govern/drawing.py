"""Helpers to draw with matplotlib (extra `charts`) for our pages: figures in user units, and SVG with the colours and fonts of the page."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 700  # maximum of a line: a long run is drawn with every k-th step
LEFT, RIGHT = 62, 14
_NAMES = "page ink soft rule panel base untrained classical open"
COLOURS = {name: f"#0000{i:02x}" for i, name in enumerate(_NAMES.split(), 1)}
"""Placeholders for colours of the style sheet, replaced in the SVG."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def number(value: float, _: Any = None) -> str:
    return f"{value:,.6g}"


def plain(text: str) -> str:
    """Text with `$` escaped, which matplotlib would read as a formula."""
    return text.replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """A figure with its size in user units: 72 of them are matplotlib's inch, so that its points are units too."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72)


def page_of(fig: Figure) -> Axes:
    """Axes over the whole figure in user units, with the origin at the upper left, behind the other axes."""
    width, height = fig.get_size_inches() * 72
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), zorder=-1)
    ax.set_axis_off()
    return ax


def axes_at(fig: Figure, top: float, height: float, left: float = LEFT, right: float = RIGHT) -> Axes:
    """Axes at a position in user units, without frame, with soft tick labels."""
    width, whole = fig.get_size_inches() * 72
    box = (left / width, 1 - (top + height) / whole, (width - left - right) / width, height / whole)
    ax = fig.add_axes(box, facecolor="none")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, pad=8, labelsize=12, labelcolor=COLOURS["soft"])
    ax.xaxis.label.set(color=COLOURS["soft"], size=12)
    return ax


def set_ticks(ax: Axes, up: int, along: int, whole: bool = False) -> None:
    """About `up` and `along` round tick values on y and x. The grid is on y, or on x if y has no ticks."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    for axis, count in ((ax.yaxis, up), (ax.xaxis, along)):
        steps = (
            MaxNLocator(count, steps=[1, 2, 5, 10], integer=whole and axis is ax.xaxis)
            if count
            else NullLocator()
        )
        axis.set_major_locator(steps)
        axis.set_major_formatter(FuncFormatter(number))
    ax.grid(axis="y" if up else "x", color=COLOURS["rule"], lw=1)
    ax.set_axisbelow(True)


def thinned(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    every = max(1, math.ceil(len(xs) / POINTS))
    keep = [*range(0, len(xs) - 1, every), len(xs) - 1]
    return [xs[i] for i in keep], [ys[i] for i in keep]


def as_svg(fig: Figure, title: str, description: str) -> Markup:
    """The figure as SVG for a page: with the page's colours and fonts, and without ids that could clash with another chart."""
    from matplotlib import rc_context

    for artist in fig.findobj():
        artist.set_clip_on(False)  # nothing exceeds the figure, and clip paths would need url(...)
    out = io.StringIO()
    fonts: Any = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}  # the style sheet overrides it
    with rc_context(fonts | {"svg.hashsalt": title, "path.simplify": False}):
        fig.savefig(out, format="svg", transparent=True)
    body = out.getvalue().partition("<defs>")[2].partition("</defs>")[2].rpartition("</svg>")[0]
    body = re.sub(r'<g id="([a-z]+)"', r'<g class="\1"', body).replace("xlink:href", "href")
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    width, height = fig.get_size_inches() * 72
    return Markup(
        '<svg role="img" viewBox="0 0 {:.0f} {:.0f}" aria-label="{}"><desc>{}</desc>{}</svg>'
    ).format(width, height, title, description, Markup(body))
