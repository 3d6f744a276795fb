"""Tables of counts as shaded cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .svg import LINE, WIDTH, Chart, escape, number, shortened, svg, text, text_width, usable

SHADES = (0.1, 0.2, 0.32, 0.44, 0.86, 1.0)
"""How strongly a cell is coloured, for equal steps of its share of the row."""
DARK = 4
"""The first shade that takes light text; between 0.44 and 0.86 neither kind of text could be read."""

_LABELLED = 40  # of more rows or columns, none is named
_ROW, _COLUMN = 18, 16  # the least height and width for a name


def heatmap(
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    values: ArrayLike,
    *,
    row_title: str,
    column_title: str,
) -> Chart:
    """Draws a table of counts as cells, the darker the larger their share of their row.

    Few columns have the counts in the cells; of many rows or columns the names are left out. The table lists the cells
    that are not empty, the largest first.

    Args:
        title: what it shows.
        row_labels: names of the rows.
        column_labels: names of the columns.
        values: counts (rows, columns); what is negative or not finite counts as 0.
        row_title: what the rows are.
        column_title: what the columns are.
    """
    counts = np.array(values, dtype=float).reshape(len(row_labels), len(column_labels))
    counts[~usable(counts) | (counts < 0)] = 0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    cells = _Cells(counts, shares, row_labels, column_labels)
    body = [
        text(0, 14, f"{row_title} ↓", "minor"),
        text(max(cells.left, text_width(row_title) + 48), 14, f"{column_title} →", "minor"),
        cells.names(),
        cells.shaded(),
        cells.numbers(),
        _shade_legend(cells.bottom + 2 * LINE),
    ]
    about = f"{row_title} by {column_title}: {len(row_labels)} rows and {len(column_labels)} columns"
    drawing = svg(title, about, cells.bottom + 2 * LINE + 8, body, wide=max(counts.shape) > _LABELLED)
    rows = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[: np.count_nonzero(counts)]:
        row, column = divmod(int(cell), counts.shape[1])
        share = f"{shares[row, column]:.1%}"
        rows.append((str(row_labels[row]), str(column_labels[column]), f"{counts[row, column]:,.0f}", share))
    return Chart(drawing, title, (row_title, column_title, "count", "share of row"), tuple(rows), cells.note)


class _Cells:
    """The cells of a heatmap, and where they lie."""

    def __init__(
        self, counts: np.ndarray, shares: np.ndarray, row_labels: Sequence[str], column_labels: Sequence[str]
    ) -> None:
        self.counts, self.row_labels, self.column_labels = counts, row_labels, column_labels
        self.shade = np.clip(np.ceil(shares * len(SHADES)) - 1, 0, len(SHADES) - 1).astype(int)
        self.shade[counts == 0] = -1
        rows, columns = counts.shape
        self.named = rows <= _LABELLED and columns <= _LABELLED
        self.left, self.top = 0.0, 24.0
        if self.named:
            self.left = 8 + min(max((text_width(str(label)) for label in row_labels), default=0), 150)
            self.top = 34 + min(max((text_width(str(label)) for label in column_labels), default=0), 150)
        self.width = min((WIDTH - self.left - 6) / max(columns, 1), 60)
        self.height = min(max(self.width, _ROW), 36) if self.named else min(self.width, WIDTH / max(rows, 1))
        self.bottom = self.top + self.height * rows
        self.every = math.ceil(_COLUMN / self.width)  # so many columns share a name
        self.note = ""
        if not self.named:
            self.note = "There are too many names to show here; they are in the table."
        elif self.every > 1:
            self.note = f"Only one in {self.every} columns is named here; all names are in the table."

    def names(self) -> str:
        if not self.named:
            return ""
        parts = []
        for row, label in enumerate(self.row_labels):
            y = self.top + (row + 0.5) * self.height + 5
            parts.append(text(self.left - 6, y, shortened(str(label), self.left - 8), "end"))
        for column, label in list(enumerate(self.column_labels))[:: self.every]:
            x, name = self.left + (column + 0.5) * self.width + 5, shortened(str(label), self.top - 34)
            place = f"translate({number(x)} {number(self.top - 6)}) rotate(-90)"
            parts.append(f'<text transform="{place}">{escape(name)}</text>')
        return "".join(parts)

    def shaded(self) -> str:
        """One path per shade, neighbours in a row as one line; empty cells cost nothing.

        The paths are drawn in cells and scaled to units, which makes their numbers short.
        """
        paths = [""] * len(SHADES)
        for row, shades in enumerate(self.shade.tolist()):
            column = 0
            for shade, run in itertools.groupby(shades):
                length = len(list(run))
                if shade >= 0:
                    paths[shade] += f"M{column} {row}h{length}"
                column += length
        place = f"translate({number(self.left)} {number(self.top + self.height / 2)})"
        cells = "".join(
            f'<path stroke-opacity="{SHADES[shade]}" d="{path}"/>' for shade, path in enumerate(paths) if path
        )
        rows, columns = self.counts.shape
        size = f'width="{number(columns * self.width)}" height="{number(rows * self.height)}"'
        return (
            f'<g class="cells" transform="{place} scale({self.width:.4f} {self.height:.4f})">{cells}</g>'
            f'<rect class="grid" x="{number(self.left)}" y="{number(self.top)}" {size}/>'
        )

    def numbers(self) -> str:
        """The counts, where all fit into their cells."""
        widest = max((text_width(f"{count:,.0f}") for count in self.counts.flat), default=0)
        if not self.named or widest + 2 > self.width:
            return ""
        return "".join(
            text(
                self.left + (column + 0.5) * self.width,
                self.top + (row + 0.5) * self.height + 5,
                f"{self.counts[row, column]:,.0f}",
                "middle on" if self.shade[row, column] >= DARK else "middle",
            )
            for row, column in zip(*np.nonzero(self.counts), strict=True)
        )


def _shade_legend(y: float) -> str:
    steps = "".join(
        f'<path stroke-opacity="{shade}" stroke-width="14" d="M{20 * i} {number(y - 5)}h20"/>'
        for i, shade in enumerate(SHADES)
    )
    return f'<g class="cells">{steps}</g>{text(20 * len(SHADES) + 10, y, "0 to 100% of the row", "minor")}'
