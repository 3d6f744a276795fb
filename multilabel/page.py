"""Self-contained HTML pages: one file that works without a network and without scripts, on paper too.

A page is text, tables, charts (`charts.py`) and small pictures, light or dark as the reader's system wishes. Its
content security policy lets it load and run nothing, so that no name in the data can either.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from . import images
from .charts import STYLE as CHART_STYLE
from .charts import Chart, escape
from .errors import ImageError
from .writing import replacing

Kind = Literal["right", "wrong", "neutral"]

LIGHT = {
    "paper": "#ffffff",
    "raised": "#f4f5f7",
    "ink": "#1c2026",
    "muted": "#59616e",
    "grid": "#dfe3e8",
    "link": "#1a55a3",
    "good": "#1a6e3f",
    "bad": "#b3261e",
    "series-1": "#1f5fa8",
    "series-2": "#a84e08",
    "series-3": "#1f7446",
    "series-4": "#7a3fa0",
    "series-5": "#b3254e",
    "series-6": "#0f6d80",
}
"""Colours by the name of their CSS variable; those of text and lines have a contrast of 4.5 on paper and raised."""

DARK = {
    "paper": "#14171b",
    "raised": "#1e2228",
    "ink": "#e6e8eb",
    "muted": "#a5adb8",
    "grid": "#333a43",
    "link": "#8bbcf5",
    "good": "#6fcf97",
    "bad": "#ff8f85",
    "series-1": "#7db4f0",
    "series-2": "#f0a35e",
    "series-3": "#6fcf97",
    "series-4": "#c79bec",
    "series-5": "#f48aa7",
    "series-6": "#66c6d6",
}


@dataclass(frozen=True)
class Section:
    """A part of a page; the contents list links to it.

    Attributes:
        id: its anchor, unique on the page, without spaces.
        title: its heading, plain text.
        body: HTML.
    """

    id: str
    title: str
    body: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table that says more than its text: what is right or wrong gets a sign and a colour."""

    text: str
    kind: Kind = "neutral"


@dataclass(frozen=True)
class GridPicture:
    """One picture of a grid.

    Attributes:
        src: what `thumbnail` gave; `None` leaves a blank.
        name: the picture's, plain text.
        lines: what to say of it, such as prediction and label; plain text.
        kind: whether the prediction is right.
    """

    src: str | None
    name: str
    lines: Sequence[str]
    kind: Kind = "neutral"


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """A complete HTML document.

    Args:
        title: its heading, plain text.
        lead: HTML that comes first.
        sections: what follows, below a list of links to them.
    """
    heading = escape(title)
    start = escape(sections[0].id) if sections else "content"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{heading}</title>
<link rel="icon" href="data:,">
<style>{style()}</style>
</head>
<body>
<a class="skip" href="#{start}">Skip to the first section</a>
<header><h1>{heading}</h1></header>
<main id="content">
<div class="lead">{lead}</div>
{_contents(sections)}
{"".join(_section(section) for section in sections)}</main>
</body>
</html>
"""


def write(path: str | os.PathLike[str], html: str) -> None:
    """Writes a page; the file appears when it is complete, and a failure leaves the old one.

    Raises:
        MultilabelError: the file cannot be written.
    """
    with replacing(path, "choose another place for the page") as new:
        new.write_text(html, encoding="utf-8", errors="backslashreplace", newline="\n")


def table(
    header: Sequence[str], rows: Sequence[Sequence[str | Cell]], caption: str, *, max_rows: int | None = None
) -> str:
    """A table that scrolls by itself where it is too wide; columns of numbers are right-aligned.

    Args:
        header: names of the columns, plain text.
        rows: cells, plain text; the first names its row.
        caption: what the table shows, plain text.
        max_rows: of more rows only the first are shown, and the caption says so.
    """
    cells = [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in rows]
    if max_rows is not None and len(cells) > max_rows:
        caption = f"{caption} (the first {max_rows:,} of {len(cells):,} rows)".strip()
        cells = cells[:max_rows]
    numeric = [_is_numeric(row[column].text for row in cells if column < len(row)) for column in range(len(header))]
    head = "".join(f'<th scope="col"{_number(numeric, i)}>{escape(name)}</th>' for i, name in enumerate(header))
    body = "".join(f"<tr>{''.join(_cell(i, cell, numeric) for i, cell in enumerate(row))}</tr>\n" for row in cells)
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption or "Table")}" tabindex="0"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def figure(chart: Chart, caption: str) -> str:
    """A chart with its title and a caption (plain text); its numbers fold out below it as a table."""
    title = escape(chart.title)
    note = f'<p class="remark">{escape(chart.note)}</p>' if chart.note else ""
    return (
        f'<figure class="charted"><figcaption><strong>{title}</strong> {escape(caption)}</figcaption>\n'
        f'{chart.svg}\n{note}<details><summary>Show as table<span class="unseen">: {title}</span></summary>\n'
        f"{table(chart.header, chart.rows, chart.title, max_rows=_MAX_ROWS)}</details></figure>\n"
    )


def thumbnail(picture: np.ndarray | str | os.PathLike[str], side: int = 96, quality: int = 70) -> str | None:
    """A small JPEG in the proportions of the picture, as a `data:` URI.

    Args:
        picture: `uint8` pixels (height, width, 3), or a file.
        side: of the square that it fits into, in pixels.
        quality: of the JPEG, 1..95.

    Returns:
        `None` where the picture cannot be read.
    """
    try:
        pixels = picture if isinstance(picture, np.ndarray) else images.read_image(picture, _fitting(picture, side))
    except ImageError:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def picture_grid(pictures: Sequence[GridPicture], caption: str) -> str:
    """Pictures side by side, each with its name, its lines, and a sign where it is right or wrong."""
    items = "".join(_grid_picture(picture) for picture in pictures)
    return f'<figure class="pictures"><figcaption>{escape(caption)}</figcaption>\n<ul>{items}</ul></figure>\n'


def note(text: str) -> str:
    """A quiet paragraph (plain text)."""
    return f'<p class="note">{escape(text)}</p>\n'


def warning(text: str) -> str:
    """A paragraph in a box that nobody overlooks (plain text)."""
    return f'<p class="warning"><strong>Warning.</strong> {escape(text)}</p>\n'


_MAX_ROWS = 300
_SIGNS = {
    "right": '<span aria-hidden="true">✓ </span><span class="unseen">right: </span>',
    "wrong": '<span aria-hidden="true">✗ </span><span class="unseen">wrong: </span>',
    "neutral": "",
}
_NUMBER = re.compile(r"([\d\s.,:;%+\-−–—±×/()\[\]<>≤≥*…]|to|e(?=[+-]?\d))*(n/a|nan)?", re.IGNORECASE)


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    links = "".join(f'<li><a href="#{escape(section.id)}">{escape(section.title)}</a></li>' for section in sections)
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>'


def _section(section: Section) -> str:
    anchor = escape(section.id)
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title" tabindex="-1">\n'
        f'<h2 id="{anchor}-title">{escape(section.title)}</h2>\n{section.body}</section>\n'
    )


def _is_numeric(texts: Iterable[str]) -> bool:
    """Whether a column holds numbers, intervals of numbers, or nothing, and some number at all."""
    seen = list(texts)
    return all(_NUMBER.fullmatch(text) for text in seen) and any(sign.isdigit() for text in seen for sign in text)


def _number(numeric: Sequence[bool], column: int) -> str:
    return ' class="number"' if column < len(numeric) and numeric[column] else ""


def _cell(column: int, cell: Cell, numeric: Sequence[bool]) -> str:
    names = [name for name in ("number" if column < len(numeric) and numeric[column] else "", cell.kind) if name]
    classes = " ".join(name for name in names if name != "neutral")
    attribute = f' class="{classes}"' if classes else ""
    text = _SIGNS[cell.kind] + escape(cell.text)
    return f'<th scope="row"{attribute}>{text}</th>' if column == 0 else f"<td{attribute}>{text}</td>"


def _grid_picture(picture: GridPicture) -> str:
    name = escape(picture.name)
    shown = f'<img src="{escape(picture.src)}" alt="">' if picture.src else '<div class="blank">no picture</div>'
    lines = "".join(f"<p>{escape(line)}</p>" for line in picture.lines)
    return (
        f'<li class="{picture.kind}">{shown}<div><p class="name">{_SIGNS[picture.kind]}{name}</p>{lines}</div></li>\n'
    )


def _fitting(path: str | os.PathLike[str], side: int) -> tuple[int, int]:
    """Height and width of a picture in its own proportions, the longer of them `side`."""
    height, width = images.upright_size(path)
    scale = side / max(width, height)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def style() -> str:
    """The style sheet of every page."""
    light, dark = (
        "".join(f"--{name}: {colour}; " for name, colour in colours.items()).strip() for colours in (LIGHT, DARK)
    )
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n{_STYLE}{CHART_STYLE}"
    )


_STYLE = """
:root { --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { font: 1rem/1.55 var(--font); max-width: 70rem; margin: 0 auto; padding: 2.5rem 1rem 4rem; }
h1, h2, h3, h4 { line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; font-weight: 650; margin: 0 0 1rem; }
h3 { font-size: 1.1rem; font-weight: 650; margin: 1.5rem 0 .5rem; }
p, ul, ol, dl { margin: 0 0 1rem; }
p, li, dd { max-width: 44rem; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 1rem; }
a { color: var(--link); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 3px; border-radius: 2px; }
section:focus, main:focus { outline: none; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.lead { font-size: 1.1rem; }
.lead > :last-child { margin-bottom: 0; }
nav { margin-top: 2rem; padding: 1rem 0; border-block: 1px solid var(--grid); }
nav ol { columns: 16rem auto; column-gap: 2rem; margin: 0; padding-left: 1.6rem; }
nav li { break-inside: avoid; }
nav li::marker { color: var(--muted); }
section, .columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  column-gap: 2.5rem; align-items: start; }
section { margin-top: 3.5rem; scroll-margin-top: 1rem; }
section > *, .columns > * { grid-column: 1 / -1; min-width: 0; }
section > .charted, .columns > .charted { grid-column: auto; }
:is(section, .columns) > .charted:has(> .wide) { grid-column: 1 / -1; }
figure { margin: 0 0 2.25rem; min-width: 0; }
figcaption { margin-bottom: .75rem; color: var(--muted); max-width: 44rem; overflow-wrap: anywhere; }
figcaption strong { display: block; color: var(--ink); font-weight: 650; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--link); width: fit-content; }
.remark { color: var(--muted); font-size: .9rem; margin: .5rem 0 0; }
.scroll { position: relative; overflow: auto; max-width: 100%; max-height: 36rem; margin: 0 0 1.5rem;
  border-block: 1px solid var(--grid); }
details .scroll { margin: .75rem 0 0; }
table { border-collapse: collapse; width: max-content; font-size: .95rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem .75rem .5rem 0; color: var(--muted); }
th, td { text-align: left; vertical-align: top; padding: .35rem 1.25rem .35rem 0; border-top: 1px solid var(--grid);
  max-width: min(24rem, 45vw); overflow-wrap: break-word; font-weight: 400; }
thead th { position: sticky; top: 0; background: var(--paper); border-top: 0; font-weight: 600; vertical-align: bottom;
  box-shadow: inset 0 -1px var(--muted); }
tbody tr:first-child > * { border-top: 0; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.right { color: var(--good); }
.wrong { color: var(--bad); }
.note { color: var(--muted); }
.warning { padding: .75rem 1rem; background: var(--raised); border-left: 4px solid var(--bad); }
.warning strong { color: var(--bad); }
.pictures ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10.5rem), 1fr)); gap: 1.25rem;
  list-style: none; margin: 0; padding: 0; }
.pictures li { color: var(--ink); font-size: .85rem; line-height: 1.4; }
.pictures li p { margin: 0; }
.pictures img, .blank { display: block; width: 6rem; height: 6rem; object-fit: contain; object-position: left bottom;
  margin-bottom: .35rem; }
.blank { display: grid; place-items: center; background: var(--raised); color: var(--muted); }
.pictures .name { font-weight: 650; }
.pictures .right .name { color: var(--good); }
.pictures .wrong .name { color: var(--bad); }
@page { margin: 15mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  section, .columns { display: block; }
  .chart { max-width: 13cm; }
  .skip, summary { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .scroll { overflow: visible; max-height: none; }
  h2, h3, figcaption, caption, summary { break-after: avoid; }
  .chart, .pictures li, figcaption, tr, .warning { break-inside: avoid; }
  th, td { max-width: 12rem; }
  thead th { position: static; box-shadow: none; border-bottom: 1px solid var(--muted); }
}
"""
