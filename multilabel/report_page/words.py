"""Words and small pieces of HTML that the chapters share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from .. import page
from ..charts import Chart

OPEN = 4  # up to so many attributes or tags, their details are open
TAG_DECIMALS = 3  # of many pictures, which make a difference of 0.01 a large one
_COLUMNS = (
    "display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:0 2.5rem;align-items:start"
)


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """HTML that unfolds below its summary (plain text)."""
    shown = f'<summary style="overflow-wrap:anywhere">{page.escape(summary)}</summary>'
    return f"<details{' open' if opened else ''}>{shown}{body}</details>"


def figures(*made: tuple[Chart, str]) -> str:
    """Charts with their captions (plain text), side by side where there is room."""
    return side_by_side(*(page.figure(chart, caption) for chart, caption in made))


def side_by_side(*blocks: str) -> str:
    """HTML in columns where there is room for several."""
    return f'<div style="{_COLUMNS}">{"".join(blocks)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{page.escape(text)}</p>"


def heading(text: str) -> str:
    """A heading within a chapter, of plain text."""
    return f"<h3>{page.escape(text)}</h3>"


def bullets(sentences: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{page.escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence; of many the first."""
    shown = list(names[:10])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def count(number: int, one: str, many: str = "") -> str:
    """A number of things: `1 picture`, `1,200 pictures`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def presence(value: object) -> str:
    """What 1 and 0 mean."""
    return "present" if value else "absent"


def capital(text: str) -> str:
    """The text with a capital letter first."""
    return text[:1].upper() + text[1:]


def number(value: float, decimals: int = 2) -> str:
    """A score, or a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def mean(values: Sequence[float]) -> float:
    """The mean, NaN of nothing."""
    return sum(values) / len(values) if values else math.nan
