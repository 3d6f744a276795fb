from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from multilabel import page
from multilabel.charts import Mark, Series, bar_chart, heatmap, line_chart
from multilabel.charts.heatmaps import DARK, SHADES
from multilabel.errors import MultilabelError
from multilabel.page import Cell, GridPicture, Section

ANY_TEXT = st.text(alphabet=st.characters(codec=None, exclude_categories=()))
HOSTILE = st.sampled_from(["<script>alert(1)</script>", "\"'><img src=x onerror=y>", "</title></style>", "&lt;&#60;"])
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Parsed(HTMLParser):
    """The tags with their attributes, and the text, of a document."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def every(self, name: str) -> list[str | None]:
        return [value for attribute, value in self.attributes if attribute == name]


@given(ANY_TEXT | HOSTILE)
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    escaped = page.escape(text)
    inside = Parsed(f"<p>{escaped}</p>")
    attribute = Parsed(f"<p title=\"{escaped}\"></p><p title='{escaped}'></p>")
    assert inside.tags == ["p"]
    assert attribute.attributes == [("title", inside.text)] * 2
    assert attribute.text == ""
    shown = UNPRINTABLE.split(text)
    assert re.fullmatch(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4})".join(map(re.escape, shown)), inside.text)
    escaped.encode("utf-8")


def test_what_no_page_can_hold_is_shown_as_python_does() -> None:
    assert page.escape(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"
    assert page.escape("a\x00b\rc\ud800d\te\n") == "a\\x00b\\x0dc\\ud800d\te\n"
    assert page.escape("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"


def everything(text: str) -> str:
    """A page in which every text is this one."""
    charts = [
        line_chart(text, [Series(text, [0, 1], [0, 1]), Series(text, [0], [1], "points")], text, text),
        line_chart(text, [Series(text, [0, 1], [0, 1])] * 2, text, text, marks=[Mark(0, 0, text)]),
        bar_chart(text, [text] * 4, [1, 2, 3, 4], errors=[(0, 1)] * 4, chance=0.5, max_bars=3),
        heatmap(text, [text] * 2, [text] * 2, [[1000, 0], [2000, 3000]], row_title=text, column_title=text),
    ]
    body = "".join(page.figure(chart, text) for chart in charts)
    body += page.table([text, text], [[text, Cell(text, "wrong")]], text) + page.note(text)
    body += page.picture_grid([GridPicture(text, text, [text], "right"), GridPicture(None, text, [text])], text)
    return page.page(text, page.warning(text), [Section(text, text, body), Section(text, text, "")])


@given(ANY_TEXT | HOSTILE | st.builds("{}{}".format, HOSTILE, ANY_TEXT))
@settings(max_examples=60, deadline=None)
def test_no_text_gets_through_as_markup(text: str) -> None:
    harmless, given_text = Parsed(everything("x")), Parsed(everything(text or "y"))
    # Long names leave cells of a heatmap no room for their counts, so labels in charts are counted apart.
    assert [tag for tag in given_text.tags if tag != "text"] == [tag for tag in harmless.tags if tag != "text"]
    assert {name for name, _ in given_text.attributes} == {name for name, _ in harmless.attributes}
    assert given_text.tags.count("script") == 0


def test_a_page_is_one_document_in_order() -> None:
    html = page.page("A < B", "<p>The lead.</p>", [Section("one", "First & last", "<p>1</p>"), Section("two", "2", "")])
    parsed = Parsed(html)
    assert html.startswith('<!doctype html>\n<html lang="en">')
    assert parsed.tags.count("h1") == 1
    assert parsed.tags.count("h2") == 2
    assert parsed.tags.count("main") == 1
    assert set(parsed.every("href")) == {"#one", "#two", "data:,"}
    assert {"one", "two", "one-title", "two-title", "content"} == set(filter(None, parsed.every("id")))
    order = [
        "A &lt; B</h1>",
        "The lead.",
        '<nav aria-label="Contents">',
        'id="one"',
        "First &amp; last</h2>",
        'id="two"',
    ]
    assert [html.index(part) for part in order] == sorted(html.index(part) for part in order)
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|@import|url\(", html)


def test_a_page_of_one_section_needs_no_contents() -> None:
    assert "<nav" not in page.page("t", "", [Section("one", "One", "")])
    assert 'href="#content"' in page.page("t", "", [])


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    page.write(path, "old")
    page.write(path, "é\udcff\n")
    assert path.read_bytes() == "é\\udcff\n".encode()
    link = tmp_path / "link.html"
    link.symlink_to(path)
    page.write(link, "new")
    assert (path.read_text(), link.is_symlink()) == ("new", True)
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "page.html"
    with pytest.raises(MultilabelError) as caught:
        page.write(path, "text")
    assert str(caught.value) == (
        f"{path} cannot be written (No such file or directory); choose another place for the page."
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(MultilabelError, match="cannot be written"):
        page.write(folder, "text")
    assert list(tmp_path.iterdir()) == [folder]


def test_columns_of_numbers_are_right_aligned() -> None:
    header = ["name", "known", "interval", "share", "mixed", "empty", "large"]
    rows = [
        ["1", "1,204", "0.71 (0.65 to 0.77)", "−3.5%", "12", "", "1e+30"],
        ["b", "0", "0.31–0.47", "n/a", "twelve", "–", "-5.2e-07"],
    ]
    html = page.table(header, rows, "Scores")
    assert re.findall(r'<th scope="col"( class="number")?>(\w+)', html) == [
        ("", "name"),
        (' class="number"', "known"),
        (' class="number"', "interval"),
        (' class="number"', "share"),
        ("", "mixed"),
        ("", "empty"),
        (' class="number"', "large"),
    ]
    assert '<th scope="row">b</th><td class="number">0</td>' in html
    assert 'role="region" aria-label="Scores" tabindex="0"' in html


def test_what_is_wrong_has_a_sign_beside_its_colour() -> None:
    html = page.table(["a", "b"], [["x", Cell("no", "wrong")], ["y", Cell("yes", "right")]], "t")
    assert '<td class="wrong"><span aria-hidden="true">✗ </span><span class="unseen">wrong: </span>no</td>' in html
    assert "✓" in html


def test_long_tables_say_what_they_leave_out() -> None:
    html = page.table(["a"], [[str(i)] for i in range(30)], "Numbers", max_rows=10)
    assert html.count("<tr>") == 11
    assert "<caption>Numbers (the first 10 of 30 rows)</caption>" in html
    classes = [f"class {i}" for i in range(1200)]
    assert "(the first 300 of 1,200 rows)" in page.figure(bar_chart("t", classes, range(1200)), "c")


def test_a_figure_holds_the_chart_and_its_table() -> None:
    chart = bar_chart("Known", ["hat", "smile"], [3, 7], max_bars=1)
    html = page.figure(chart, "How many & how few.")
    assert chart.svg in html
    assert "<figcaption><strong>Known</strong> How many &amp; how few.</figcaption>" in html
    assert '<p class="remark">Drawn are the 0 largest of 2.</p>' in html
    assert '<summary>Show as table<span class="unseen">: Known</span></summary>' in html
    assert '<th scope="row">smile</th><td class="number">7</td>' in html


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    kind, data = uri.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("size", "expected"), [((200, 100), (96, 48)), ((30, 300), (10, 96)), ((900, 2), (96, 1))])
def test_thumbnails_keep_proportions(size: tuple[int, int], expected: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (200, 30, 60)).save(tmp_path / "a.png")
    image = opened(page.thumbnail(tmp_path / "a.png"))
    assert image.size == expected
    assert np.abs(np.asarray(image).mean(axis=(0, 1)) - (200, 30, 60)).max() < 4
    assert opened(page.thumbnail(np.zeros((*size[::-1], 3), np.uint8))).size == expected


def test_thumbnails_stand_upright_and_tell_nothing_else(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "somebody"
    Image.new("RGB", (200, 100)).save(tmp_path / "a.jpg", exif=exif)
    image = opened(page.thumbnail(str(tmp_path / "a.jpg"), side=50))
    assert image.size == (25, 50)
    assert dict(image.getexif()) == {}


def test_small_pictures_are_not_blown_up() -> None:
    assert opened(page.thumbnail(np.zeros((8, 9, 3), np.uint8))).size == (9, 8)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\xff\xd8\xff\xe0"])
def test_a_picture_that_cannot_be_read_has_no_thumbnail(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    assert page.thumbnail(tmp_path / "a.jpg") is None


def test_truncated_pictures_have_no_thumbnail(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue()[:3000])
    assert page.thumbnail(tmp_path / "a.png") is None


def test_pictures_come_with_name_lines_and_sign() -> None:
    pictures = [GridPicture("data:,", "a.jpg", ("hat 0.9", "label: no"), "wrong"), GridPicture(None, "b.jpg", ())]
    html = page.picture_grid(pictures, "Mistakes")
    assert html.count("<li") == 2
    assert '<img src="data:," alt="">' in html
    assert "✗ </span>" in html
    assert "<p>hat 0.9</p><p>label: no</p>" in html
    assert '<div class="blank">no picture</div>' in html


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2 for two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def blend(above: str, below: str, opacity: float) -> str:
    pairs = [(int(above[i : i + 2], 16), int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * a + (1 - opacity) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("colours", [page.LIGHT, page.DARK], ids=["light", "dark"])
def test_everything_is_readable(colours: dict[str, str]) -> None:
    assert set(colours) == set(page.LIGHT)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    text = [name for name in colours if name not in {"paper", "raised", "grid"}]
    for ground in ("paper", "raised"):
        assert [name for name in text if contrast(colours[name], colours[ground]) < 4.5] == []
    for shade, opacity in enumerate(SHADES):
        cell = blend(colours["series-1"], colours["paper"], opacity)
        assert contrast(cell, colours["paper" if shade >= DARK else "ink"]) >= 4.5
    bar = blend(colours["series-1"], colours["paper"], 0.8)
    assert contrast(bar, colours["paper"]) >= 3
    assert contrast(bar, colours["ink"]) >= 1.5  # intervals on bars, which go on beyond them


def test_a_page_is_small() -> None:
    assert len(page.page("t", "", [])) < 9000
