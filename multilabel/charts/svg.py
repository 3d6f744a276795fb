"""What all charts are made of: text, numbers, legends and the style sheet.

An SVG is 480 units wide and grows and shrinks with its page. At a phone's width a unit is about 0.75 pixels, which is
why the layout reckons with a font of 15 units; where there is more room the font is smaller. Values that are not
finite, or beyond 1e100 in size, count as missing.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

WIDTH = 480
LINE = 20  # from one line of text to the next
COLOURS = 6

_FONT = 15
_LARGEST = 1e100  # differences and products of what is smaller do not overflow
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

STYLE = (
    """
.chart { display: block; width: 100%; height: auto; max-width: 34rem; }
.chart.wide { max-width: 52rem; }
.chart text { font: 15px var(--font); fill: var(--ink); font-variant-numeric: tabular-nums; white-space: pre; }
.chart .minor { fill: var(--muted); }
.chart .on { fill: var(--paper); }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .grid { stroke: var(--grid); fill: none; }
.chart .axis { stroke: var(--muted); fill: none; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .dashed { stroke-linecap: butt; }
.chart .chance { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 3 3; fill: none; }
.chart .interval { stroke: var(--ink); stroke-width: 1.5; fill: none; }
.chart .mark { fill: var(--paper); stroke: var(--ink); stroke-width: 2; }
.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4; stroke-linejoin: round; }
.chart .bar { fill: var(--series-1); fill-opacity: .8; }
.chart .cells { stroke: var(--series-1); fill: none; shape-rendering: crispEdges; }
"""
    + "".join(
        f".chart .s{i} {{ stroke: var(--series-{i}); }} .chart .p{i} {{ fill: var(--series-{i}); }}\n"
        for i in range(1, COLOURS + 1)
    )
    + "@media (min-width: 48rem) { .chart text { font-size: 12.5px; } .chart.wide text { font-size: 9px; } }\n"
)
"""The part of a page's style sheet that charts need; the colours are variables of `page.py`."""


@dataclass(frozen=True)
class Chart:
    """A picture of numbers, and the numbers.

    Attributes:
        svg: an `<svg>` element with role "img", a title and a description.
        title: what it shows.
        header: the columns of its table.
        rows: the rows of its table, as text.
        note: what the chart or its table leave out; empty where nothing.
    """

    svg: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def escape(text: object) -> str:
    """Text as HTML that shows this text, whatever it holds.

    What a page cannot hold (bytes of a file name that are no UTF-8, control characters) is shown as Python writes
    it: `\\xff`.
    """
    return html.escape(_UNPRINTABLE.sub(_backslashed, str(text)))


def _backslashed(found: re.Match[str]) -> str:
    code = ord(found[0])
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # a byte, as Python reads it into a file name
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def svg(title: str, about: str, height: float, body: Iterable[str], wide: bool = False) -> str:
    """The `<svg>` element: `WIDTH` by `height` units, read out as `title` and described by `about`."""
    return (
        f'<svg class="chart{" wide" if wide else ""}" role="img" viewBox="0 0 {WIDTH} {number(height)}">'
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>{''.join(body)}</svg>"
    )


def text(x: float, y: float, content: str, classes: str = "") -> str:
    """A `<text>` element; `y` is its base line."""
    attribute = f' class="{classes}"' if classes else ""
    return f'<text{attribute} x="{number(x)}" y="{number(y)}">{escape(content)}</text>'


def legend(entries: Sequence[tuple[str, str]]) -> tuple[str, float]:
    """Names with their samples, in as many lines as needed.

    Args:
        entries: name, and the SVG of its sample: 26 units wide, on a base line at 0.

    Returns:
        The SVG, and the height it takes.
    """
    x, y, parts = 0.0, 14.0, []
    for name, sample in entries:
        name = shortened(name, WIDTH - 32)
        if x + 32 + text_width(name) > WIDTH:
            x, y = 0.0, y + LINE
        parts.append(f'<g transform="translate({number(x)} {number(y)})">{sample}{text(32, 0, name)}</g>')
        x += 48 + text_width(name)
    return "".join(parts), (y + 10 if parts else 0.0)


def text_width(content: str) -> float:
    """About how wide a text is in units, in the widest of the usual fonts."""
    return _FONT * sum(map(_sign_width, content))


def _sign_width(sign: str) -> float:
    if sign in " ijlI.,:;|'!()[]frt":
        return 0.4
    if sign in "mwMW%@+−±=<>…→↓–—" or unicodedata.east_asian_width(sign) in "WF":
        return 1.0
    return 0.7 if sign.isupper() else 0.63


def shortened(content: str, room: float) -> str:
    """The text, or as much of it as fits into `room` units, with an ellipsis."""
    if text_width(content) <= room:
        return content
    kept = len(content)
    while kept and text_width(content[:kept]) > room - _FONT:
        kept -= 1
    return content[:kept].rstrip() + "…"


def usable(values: ArrayLike) -> np.ndarray:
    """Which values can be drawn."""
    return np.abs(np.asarray(values, dtype=float)) <= _LARGEST  # false for NaN


def number(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    rounded = round(float(value), 1) + 0.0  # no negative zero
    return f"{rounded:.0f}" if rounded == math.floor(rounded) else f"{rounded:.1f}"
