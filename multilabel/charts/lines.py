"""Curves and points over two axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .svg import COLOURS, LINE, WIDTH, Chart, legend, number, shortened, svg, text, text_width, usable

Limits = tuple[float, float]

_DASHES = ("", "11 5", "2 4", "11 4 2 4", "17 3 2 3 2 3", "6 3")
_REFERENCE = "4 4"
_MARKERS = (  # circle, square, triangle, diamond about the current point
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0",
    "m-3 -3h6v6h-6z",
    "m0 -4l4 7h-8z",
    "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
)
_HEIGHT = 250  # of the area between the axes
_TABLE_ROWS = 120  # about so many points of all curves together go into the table
_FAR = 10_000  # in units; what lies farther outside is cut off anyway


@dataclass(frozen=True, eq=False)
class Series:
    """One curve or cloud of points.

    Attributes:
        name: for the legend.
        x: numbers (n,), in the order in which the curve is drawn.
        y: numbers (n,); a value that is not finite interrupts the curve.
        style: "step" keeps a value until the next x.
        dashed: with short dashes, as for a reference line.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    style: Literal["line", "points", "step"] = "line"
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A point with a label, such as the chosen threshold."""

    x: float
    y: float
    label: str


def line_chart(
    title: str,
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    *,
    xlim: Limits | None = None,
    ylim: Limits | None = None,
    marks: Sequence[Mark] = (),
    max_points: int = 200,
) -> Chart:
    """Draws curves or points over two axes.

    Args:
        title: what it shows.
        series: the curves; where there are several, a legend names them.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        xlim: from where to where x is shown; `None`: all there is.
        ylim: the same for y, and `None` goes on to round numbers.
        marks: points with labels.
        max_points: about so many points of a series are drawn; its ends and extremes always are.
    """
    curves = [_Curve.of(one) for one in series]
    marks = [mark for mark in marks if usable([mark.x, mark.y]).all()]
    x = _axis([*(curve.x for curve in curves), np.array([mark.x for mark in marks])], xlim)
    y = _axis([*(curve.y for curve in curves), np.array([mark.y for mark in marks])], ylim, rounded=True)
    names, top = legend([(one.name, _sample(i, one)) for i, one in enumerate(series)] if len(series) > 1 else [])
    plot = _Plot(top + LINE + 8, x, y)
    lines = "".join(
        _curve(plot, i, one, curve.thinned(max_points)) for i, (one, curve) in enumerate(_both(series, curves))
    )
    body = [names, text(0, top + 14, ylabel, "minor"), _axes(plot), _clipped(plot, lines), _marks(plot, marks)]
    body.append(text(plot.left + plot.width / 2, plot.bottom + 2 * LINE, xlabel, "minor middle"))
    if not any(curve.x.size for curve in curves):
        body.append(text(plot.left + plot.width / 2, plot.top + _HEIGHT / 2, "nothing to show", "minor middle"))
    about = f"{ylabel} against {xlabel}: {', '.join(one.name for one in series)}"
    header, rows, note = _table(series, curves, xlabel, ylabel, max_points)
    return Chart(svg(title, about, plot.bottom + 2 * LINE + 6, body), title, header, rows, note)


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Which points of a long curve to draw: its ends, its extremes, and the lowest and highest y of every stretch.

    Args:
        x: finite numbers (n,).
        y: finite numbers (n,).
        most: up to so many all are kept; of more, at most so many and four.

    Returns:
        Indices in rising order.
    """
    if len(x) <= most:
        return np.arange(len(x))
    kept = {0, len(x) - 1, *(int(end(values)) for values in (x, y) for end in (np.argmin, np.argmax))}
    for stretch in np.array_split(np.arange(len(x)), max((most - 2) // 2, 1)):
        kept |= {int(stretch[y[stretch].argmin()]), int(stretch[y[stretch].argmax()])}
    return np.array(sorted(kept))


class _Curve(NamedTuple):
    """The usable points of a series, and how many interruptions there are before each."""

    x: np.ndarray
    y: np.ndarray
    interruptions: np.ndarray

    @classmethod
    def of(cls, series: Series) -> _Curve:
        x, y = (np.asarray(values, dtype=float).ravel() for values in (series.x, series.y))
        kept = usable(x) & usable(y)
        return cls(x[kept], y[kept], np.cumsum(~kept)[kept])

    def thinned(self, most: int) -> _Curve:
        kept = thinned(self.x, self.y, most)
        return _Curve(*(values[kept] for values in self))


class _Axis(NamedTuple):
    low: float
    high: float
    ticks: list[float]
    labels: list[str]


def _axis(parts: Iterable[np.ndarray], limits: Limits | None, *, rounded: bool = False) -> _Axis:
    """From the lowest to the highest value, or between the limits, with ticks at round numbers."""
    values = np.concatenate([np.zeros(0), *parts])
    given = limits is not None and bool(usable(limits).all()) and limits[0] < limits[1]
    low, high = limits if given and limits else (values.min(), values.max()) if values.size else (0, 1)
    low, high = float(low), float(high)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-90):  # all values the same, or as good as
        low, high = low - (abs(low) / 10 or 0.5), high + (abs(high) / 10 or 0.5)
    step = _round_step((high - low) / 6)
    if values.size and not given and (values == np.floor(values)).all():
        step = max(step, 1.0)  # epochs and counts have no halves
    if rounded and not given:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    ticks = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return _Axis(low, high, ticks, _tick_labels(ticks, step))


def _round_step(at_least: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, ... and of their tenths."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= at_least * (1 - 1e-9)), 10 * power)


def _tick_labels(ticks: Sequence[float], step: float) -> list[str]:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    short = max(map(abs, ticks), default=0) < 1e7 and decimals <= 6
    return [(f"{tick:,.{decimals}f}" if short else f"{tick:.4g}").replace("-", "−") for tick in ticks]


class _Plot:
    """The area between the axes, in units."""

    def __init__(self, top: float, x: _Axis, y: _Axis) -> None:
        self.x, self.y = x, y
        self.top, self.bottom = top, top + _HEIGHT
        self.left = 8 + max(map(text_width, y.labels), default=0)
        self.width = WIDTH - self.left - 14

    def across(self, values: ArrayLike) -> np.ndarray:
        share = (np.asarray(values) - self.x.low) / (self.x.high - self.x.low)
        return np.clip(self.left + self.width * share, -_FAR, _FAR)

    def down(self, values: ArrayLike) -> np.ndarray:
        share = (np.asarray(values) - self.y.low) / (self.y.high - self.y.low)
        return np.clip(self.bottom - _HEIGHT * share, -_FAR, _FAR)


def _both(series: Sequence[Series], curves: Sequence[_Curve]) -> Iterable[tuple[Series, _Curve]]:
    return zip(series, curves, strict=True)


def _axes(plot: _Plot) -> str:
    xs, ys, right = plot.across(plot.x.ticks), plot.down(plot.y.ticks), number(plot.left + plot.width)
    lines = "".join(f"M{number(plot.left)} {number(y)}H{right}" for y in ys)
    lines += "".join(f"M{number(x)} {number(plot.top)}V{number(plot.bottom)}" for x in xs)
    parts = [f'<path class="grid" d="{lines}"/>']
    parts.append(f'<path class="axis" d="M{number(plot.left)} {number(plot.bottom)}H{right}"/>')
    parts += [text(plot.left - 6, y + 5, label, "minor end") for y, label in zip(ys, plot.y.labels, strict=True)]
    room = plot.width / max(len(xs) - 1, 1)
    every = math.ceil((max(map(text_width, plot.x.labels), default=0) + 8) / room)
    for x, label in list(zip(xs, plot.x.labels, strict=True))[::every]:
        parts.append(text(min(x, WIDTH - text_width(label) / 2), plot.bottom + 18, label, "minor middle"))
    return "".join(parts)


def _clipped(plot: _Plot, content: str) -> str:
    """Cut off outside of the axes; an inner `<svg>` does so without an id, of which a page must have no two."""
    x, y, width, height = map(number, (plot.left - 6, plot.top - 6, plot.width + 12, _HEIGHT + 12))
    box = f"{x} {y} {width} {height}"
    return f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{box}">{content}</svg>'


def _curve(plot: _Plot, index: int, series: Series, curve: _Curve) -> str:
    points = zip(map(number, plot.across(curve.x)), map(number, plot.down(curve.y)), curve.interruptions, strict=True)
    if series.style == "points":
        shapes = "".join(f"M{x} {y}{_MARKERS[index % len(_MARKERS)]}" for x, y, _ in points)
        return f'<path class="p{index % COLOURS + 1}" d="{shapes}"/>'
    path, before = "", -1
    for x, y, interruptions in points:
        if interruptions != before:
            path += f"M{x} {y}h0"  # with round ends, a point without neighbours is a dot
        else:
            path += f"H{x}V{y}" if series.style == "step" else f"L{x} {y}"
        before = interruptions
    return f'<path class="line s{index % COLOURS + 1}"{_dash(index, series)} d="{path}"/>'


def _sample(index: int, series: Series) -> str:
    colour = index % COLOURS + 1
    if series.style == "points":
        return f'<path class="p{colour}" d="M13 -5{_MARKERS[index % len(_MARKERS)]}"/>'
    return f'<path class="line s{colour}"{_dash(index, series)} d="M0 -5h26"/>'


def _dash(index: int, series: Series) -> str:
    pattern = _REFERENCE if series.dashed else _DASHES[(index + index // COLOURS) % len(_DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not beside and self.top < other.bottom and other.top < self.bottom


def _marks(plot: _Plot, marks: Sequence[Mark]) -> str:
    """Rings with labels, each label where it covers no other and stays between the axes."""
    rings, labels = [], []
    taken: list[_Box] = []
    for mark in marks:
        x, y = float(plot.across(mark.x)), float(plot.down(mark.y))
        label = shortened(mark.label, plot.width / 2)
        box = _free_place(plot, x, y, text_width(label), taken)
        taken.append(box)
        rings.append(f'<circle class="mark" cx="{number(x)}" cy="{number(y)}" r="5"/>')
        labels.append(text(box.left, box.bottom - 4, label, "halo"))
    return "".join(rings + labels)


def _free_place(plot: _Plot, x: float, y: float, width: float, taken: Sequence[_Box]) -> _Box:
    """The first place about a point that is free, or the first of all."""
    places = []
    for line in (-0.4, 1, -1.4, 2, -2.4, 3):
        for left in (x + 10, x - 10 - width):
            base = y + line * LINE
            places.append(_Box(left, base - 14, left + width, base + 4))
    inside = [
        box
        for box in places
        if plot.left <= box.left and box.right <= WIDTH and plot.top - 6 <= box.top and box.bottom <= plot.bottom
    ]
    free = (box for box in inside if not any(box.overlaps(other) for other in taken))
    return next(free, (inside or places)[0])


def _table(
    series: Sequence[Series], curves: Sequence[_Curve], xlabel: str, ylabel: str, max_points: int
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], str]:
    """Header, rows and note: a column for each series where all have the same x, else a row for each point."""
    most = min(max_points, max(_TABLE_ROWS // max(len(series), 1), 12))
    note = "The table has some points of each curve only." if any(len(curve.x) > most for curve in curves) else ""
    if curves and all(np.array_equal(curve.x, curves[0].x) for curve in curves):
        kept = sorted({int(i) for curve in curves for i in thinned(curve.x, curve.y, most)})
        names = [one.name for one in series] if len(series) > 1 else [ylabel]
        rows = [tuple(_written(values[i]) for values in (curves[0].x, *(c.y for c in curves))) for i in kept]
        return (xlabel, *names), tuple(rows), note
    rows = [
        (one.name, _written(x), _written(y))
        for one, curve in _both(series, curves)
        for x, y, _ in zip(*curve.thinned(most), strict=True)
    ]
    return ("series", xlabel, ylabel), tuple(rows), note


def _written(value: float) -> str:
    """Whole numbers as such, others in four significant digits."""
    return f"{value:,.0f}" if value == math.floor(value) and abs(value) < 1e15 else f"{value:.4g}"
