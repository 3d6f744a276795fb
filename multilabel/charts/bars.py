"""Horizontal bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .svg import WIDTH, Chart, legend, number, shortened, svg, text, text_width, usable

_BAR = 24  # from one bar to the next
_INTERVAL_SAMPLE = '<path class="interval" d="M2 -5h22M2 -8.5v7M24 -8.5v7"/>'
_CHANCE_SAMPLE = '<path class="chance" d="M13 -13v18"/>'


def bar_chart(
    title: str,
    labels: Sequence[str],
    values: ArrayLike,
    *,
    errors: Sequence[tuple[float, float] | None] | None = None,
    chance: float | Sequence[float | None] | None = None,
    value_format: str = "{:,.0f}",
    max_bars: int = 60,
) -> Chart:
    """Draws horizontal bars from zero, each with its label and its value.

    Args:
        title: what it shows.
        labels: one per bar.
        values: numbers (n,), drawn in this order; a bar whose value is not finite stays empty.
        errors: the lowest and highest value of each bar's interval, or `None` for a bar without.
        chance: the chance level of all bars, or of each.
        value_format: for `str.format`, how a value is written.
        max_bars: of more bars only the largest are drawn, in falling order, and one line sums up the others; the
            table has all of them.
    """
    bars = _bars(labels, values, errors, chance)

    def written(value: float) -> str:
        return value_format.format(value) if usable(value) else "–"

    drawn, others = bars, []
    if len(bars) > max_bars:
        largest_first = sorted(bars, key=lambda bar: -bar.value if usable(bar.value) else math.inf)
        drawn, others = largest_first[: max_bars - 1], largest_first[max_bars - 1 :]
    kinds = [("95% interval", _INTERVAL_SAMPLE)] if any(usable([bar.low, bar.high]).all() for bar in drawn) else []
    kinds += [("chance", _CHANCE_SAMPLE)] if any(usable(bar.chance) for bar in drawn) else []
    names, top = legend(kinds)
    body, height = [names, _drawn(drawn, top, written)], top + _BAR * len(drawn) + 4
    if others or not bars:
        line = _summed_up(others, written) if others else "nothing to show"
        body.append(text(0, height + 17, line, "minor"))
        height += _BAR
    columns = {"label": [bar.label for bar in bars], "value": [written(bar.value) for bar in bars]}
    if errors is not None:
        columns |= {"lowest": [written(bar.low) for bar in bars], "highest": [written(bar.high) for bar in bars]}
    if chance is not None:
        columns["chance"] = [written(bar.chance) for bar in bars]
    about = f"{len(bars):,} bars; the first: " + ", ".join(f"{bar.label} {written(bar.value)}" for bar in drawn[:3])
    note = f"Drawn are the {len(drawn)} largest of {len(bars):,}." if others else ""
    rows = tuple(zip(*columns.values(), strict=True))
    return Chart(svg(title, about, height, body), title, tuple(columns), rows, note)


class _Bar(NamedTuple):
    """One bar; NaN for what it does not have."""

    label: str
    value: float
    low: float
    high: float
    chance: float


def _bars(
    labels: Sequence[str],
    values: ArrayLike,
    errors: Sequence[tuple[float, float] | None] | None,
    chance: float | Sequence[float | None] | None,
) -> list[_Bar]:
    numbers = np.asarray(values, dtype=float).ravel().tolist()
    nothing = (math.nan, math.nan)
    intervals = [nothing if pair is None else pair for pair in ([None] * len(labels) if errors is None else errors)]
    levels = np.broadcast_to(np.array(chance, dtype=float), len(labels)).tolist()  # NaN for None
    return [
        _Bar(str(label), value, low, high, level)
        for label, value, (low, high), level in zip(labels, numbers, intervals, levels, strict=True)
    ]


def _drawn(bars: Sequence[_Bar], top: float, written: Callable[[float], str]) -> str:
    ends = [0.0, *(value for bar in bars for value in bar[1:] if usable(value))]
    low, high = min(ends), max(ends)
    names = [shortened(bar.label, 0.42 * WIDTH) for bar in bars]
    left = 8 + max(map(text_width, names), default=0)
    room = WIDTH - left - 8 - max((text_width(written(bar.value)) for bar in bars), default=0)

    def across(value: float) -> float:
        return left + room * (value - low) / ((high - low) or 1)

    parts = []
    for i, (bar, name) in enumerate(zip(bars, names, strict=True)):
        y = int(top) + _BAR * i
        zero = end = across(0)
        parts.append(text(left - 8, y + 17, name, "end"))
        if usable(bar.value) and bar.value:
            end = across(bar.value)
            length = math.copysign(max(abs(end - zero), 1.5), bar.value)  # what is little is still to be seen
            parts.append(f'<path class="bar" d="M{number(zero)} {y + 4}h{number(length)}v16H{number(zero)}z"/>')
        if usable([bar.low, bar.high]).all():
            a, b = number(across(bar.low)), number(across(bar.high))
            parts.append(f'<path class="interval" d="M{a} {y + 12}H{b}M{a} {y + 8.5}v7M{b} {y + 8.5}v7"/>')
            end = max(end, across(bar.high))
        if usable(bar.chance):
            parts.append(f'<path class="chance" d="M{number(across(bar.chance))} {y + 3}v18"/>')
            end = max(end, across(bar.chance))
        parts.append(text(max(end, zero) + 6, y + 17, written(bar.value)))
    if bars:
        parts.append(f'<path class="axis" d="M{number(across(0))} {number(top)}v{_BAR * len(bars)}"/>')
    return "".join(parts)


def _summed_up(bars: Sequence[_Bar], written: Callable[[float], str]) -> str:
    values = [bar.value for bar in bars if usable(bar.value)]
    if not values:
        return f"{len(bars):,} others, without a value"
    counts = all(value >= 0 and value == math.floor(value) for value in values)
    together = f", together {written(sum(values))}" if counts else ""
    return f"{len(bars):,} others: {written(min(values))} to {written(max(values))}{together}"
