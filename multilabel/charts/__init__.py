"""Charts as inline SVG: lines, bars and heatmaps, each with its numbers as a table.

They belong into a page of `page.py`, whose style sheet holds `STYLE` and the colours.
"""

from __future__ import annotations

from .bars import bar_chart
from .heatmaps import heatmap
from .lines import Mark, Series, line_chart
from .svg import STYLE, Chart, escape

__all__ = ["STYLE", "Chart", "Mark", "Series", "bar_chart", "escape", "heatmap", "line_chart"]
