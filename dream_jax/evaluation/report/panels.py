"""Small line charts as SVG that a page can hold: its colours, and its fonts at their own size.

Numbers are rounded before they are written, so equal results give equal bytes.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 260, 170  # CSS pixels at which a panel is drawn; a page may show it larger
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 8, 32  # margins
COLOURS, DASHES = 6, ("", "5 3", "1.5 2.5", "8 3 2 3")  # of lines: all combinations are different
FEW_POINTS = 12  # that are marked, so that a single one is seen
MOST_POINTS = 160  # of a line; means of neighbours where there are more


class Line(NamedTuple):
    """A line of a chart.

    Attributes:
      label: in the legend.
      x, y: its points; one that is not finite leaves a gap.
      style: which colour and dashes it has; lines of one style are the same thing.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: int = 0


class Axis(NamedTuple):
    """What an axis shows; ends that are None follow from the points."""

    label: str
    low: float | None = None
    high: float | None = None


def chart(
    lines: Sequence[Line], x: Axis, y: Axis, height: int = HEIGHT, guide: float | None = None
) -> Markup:
    """Returns a chart as SVG.

    Args:
      lines: drawn one above the other.
      height: in CSS pixels.
      guide: a value of y that a dotted line marks.
    """
    thin = [Line(line.label, *thinned(line.x, line.y), line.style) for line in lines]
    across = _scale(x, [v for line in thin for v in line.x], LEFT, WIDTH - RIGHT)
    up = _scale(y, [v for line in thin for v in line.y], height - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{y.label} by {x.label}")}">'
    ]
    for value in up.ticks:
        at = up.place(value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 3.5:.1f}" class="end">{value:.4g}</text>')
    for value in across.ticks:
        at = across.place(value)
        parts.append(f'<text x="{at:.1f}" y="{height - 18}" class="mid">{value:.4g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 4}" class="mid">{escape(x.label)}</text>')
    if guide is not None:
        at = up.place(guide)
        parts.append(f'<path class="guide" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
    for line in thin:
        points = [(across.place(a), up.place(b)) for a, b in zip(line.x, line.y, strict=True)]
        parts.append(f'<path class="line {style_of(line.style)}" d="{_path(points)}"/>')
        if len(points) <= FEW_POINTS:
            parts += [
                f'<circle class="line {style_of(line.style)}" cx="{a:.1f}" cy="{b:.1f}" r="1.5"/>'
                for a, b in points
                if math.isfinite(a) and math.isfinite(b)
            ]
    return Markup("".join([*parts, "</svg>"]))


def swatch(style: int) -> Markup:
    """Returns a short line of a style, for a legend."""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">'
        f'<path class="line {style_of(style)}" d="M1 4H25"/></svg>'
    )


def style_of(style: int) -> str:
    """Returns the CSS classes of a style: s3 names it, c3 its colour, d0 its dashes."""
    return f"s{style} c{style % COLOURS} d{style // COLOURS % len(DASHES)}"


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Returns a line of at most `MOST_POINTS` points, each the mean of neighbours."""
    parts = min(len(x), MOST_POINTS)
    edges = np.linspace(0, len(x), parts + 1).round().astype(int)
    ranges = list(itertools.pairwise(edges))
    x_of, y_of = ([float(np.mean(v[a:b])) for a, b in ranges] for v in (x, y))
    return x_of, y_of


class _Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        """About four round values."""
        rough = (self.high - self.low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-6)
        last = math.floor(self.high / step + 1e-6)
        return [round(number * step, 12) for number in range(first, last + 1)]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low = min(finite) if axis.low is None else axis.low
    high = max(finite) if axis.high is None else axis.high
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return _Scale(low, high, start, end)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Returns the path through points; it starts anew after one that is not finite."""
    found, command = [], "M"
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            found.append(f"{command}{x:.1f} {y:.1f}")
            command = "L"
        else:
            command = "M"
    return "".join(found)
