"""A page with every element of `page` and `charts`, in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import Opened, OpenPage, axe

from multilabel import page
from multilabel.charts import Chart, Mark, Series, bar_chart, heatmap, line_chart

pytestmark = pytest.mark.slow  # a browser starts

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)></title></style></svg>'&amp;\x00\udcff"
LONG = "a_name_without_any_space_that_is_far_too_long_for_a_table_on_a_phone_or_for_the_label_of_a_bar"


def all_charts() -> list[Chart]:
    rng = np.random.default_rng(0)
    epochs = np.arange(1, 41)
    unit = np.linspace(0, 1, 2000)
    counts = (6000 / np.arange(1, 121) ** 1.3).astype(int) + 1
    scores = rng.uniform(0.3, 0.9, 6)

    def confusion(classes: int) -> Chart:
        values = rng.poisson(0.9 / classes, (classes, classes)) + np.diag(rng.integers(5, 60, classes))
        names = [f"class {i}" for i in range(classes - 1)] + [LONG]
        return heatmap(f"{classes} classes", names, names, values, row_title="labelled", column_title="predicted")

    return [
        line_chart("Loss", [Series(name, epochs, 1 / epochs) for name in ("training", HOSTILE)], "epoch", "loss"),
        line_chart(
            "Precision and recall",
            [Series("model", 1 - unit, unit, "step"), Series("chance", [0, 1], [0.3, 0.3], dashed=True)],
            "recall",
            "precision",
            xlim=(0, 1),
            ylim=(0, 1),
            marks=[Mark(0.99, 0.01, "threshold 0.420"), Mark(0.98, 0.02, "threshold 0.500"), Mark(0, 1, HOSTILE)],
        ),
        line_chart("Eight", [Series(f"{LONG} {i}", unit, unit * i * 1e6, "points") for i in range(8)], "x", "y"),
        line_chart("Large", [Series("only", [-1e30, 1e30], [-1e-30, 1e-30])], "x in something", "y"),
        line_chart("Nothing", [], "epoch", "loss"),
        bar_chart("Pictures of classes", [LONG, *(f"class {i}" for i in range(119))], counts, max_bars=15),
        bar_chart(
            "F1",
            [*"abcde", HOSTILE],
            scores,
            errors=[(s - 0.1, s + 0.1) for s in scores],
            chance=0.25,
            value_format="{:.2f}",
        ),
        bar_chart("Differences", ["up", "down", "none", "unknown"], [3.5, -7.25, 0, np.nan], value_format="{:+.2f}"),
        *map(confusion, (2, 9, 33, 150)),
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    pictures = [
        page.GridPicture(page.thumbnail(pixels), LONG, ("predicted: hat 0.93", "label: hat"), "right"),
        page.GridPicture(page.thumbnail(pixels), HOSTILE, (HOSTILE, LONG), "wrong"),
        page.GridPicture(None, "broken.jpg", ("no such file",)),
    ]
    rows = [
        ["hat", "1,204", "0.71 (0.65 to 0.77)", page.Cell("better than chance", "right")],
        [LONG, "12", "n/a", page.Cell(HOSTILE, "wrong")],
        [HOSTILE, "0", "–", LONG],
    ]
    text = "<p>The model beats chance on one attribute of two.</p>" + page.warning(f"Do not rely on {LONG}: {HOSTILE}")
    sections = [
        page.Section("charts", "Charts", "".join(page.figure(chart, "What it tells.") for chart in all_charts())),
        page.Section("scores", HOSTILE, page.table(["attribute", "known", "F1", "verdict"], rows, "Scores")),
        page.Section("pictures", "Pictures", page.note(HOSTILE) + page.picture_grid(pictures, "The surest mistakes")),
    ]
    path = tmp_path_factory.mktemp("page") / "démo page #1.html"
    page.write(path, page.page(f"Report of {HOSTILE}", text, sections))
    return path


def eventually(opened: Opened, condition: str) -> bool:
    """Whether a condition comes to hold; Playwright's own waiting is forbidden by the page's security policy."""
    for _ in range(100):
        if opened.page.evaluate(condition):
            return True
        opened.page.wait_for_timeout(50)
    return False


@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_is_accessible_and_asks_for_nothing(
    demo: Path, open_page: OpenPage, width: int, colour_scheme: str
) -> None:
    opened = open_page(demo, width, colour_scheme=colour_scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert axe(opened.page) == []
    assert opened.problems == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.page.locator("script").count() == 0
    assert opened.page.locator("img").count() == 2


def test_colours_follow_the_system_but_paper_is_light(demo: Path, open_page: OpenPage) -> None:
    opened = open_page(demo, colour_scheme="dark")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    assert opened.page.evaluate(background) == "rgb(20, 23, 27)"
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"


def test_tables_open_and_scroll_by_keyboard(demo: Path, open_page: OpenPage) -> None:
    opened = open_page(demo, 390)
    table = opened.page.locator("details table").first
    assert not table.is_visible()
    for _ in range(10):
        opened.page.keyboard.press("Tab")
        if opened.page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    opened.page.keyboard.press("Enter")
    assert table.is_visible()
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.getAttribute('role')") == "region"
    opened.page.keyboard.press("End")
    assert eventually(opened, "document.activeElement.scrollTop > 0")


def test_the_skip_link_comes_first_and_shows_when_focused(demo: Path, open_page: OpenPage) -> None:
    opened = open_page(demo)
    opened.page.keyboard.press("Tab")
    link = opened.page.locator(".skip")
    assert link.evaluate("link => link === document.activeElement")
    assert link.bounding_box()["x"] > 0
    opened.page.keyboard.press("Enter")
    assert eventually(opened, "location.hash === '#charts'")


def test_print_shows_the_tables_in_full(demo: Path, open_page: OpenPage) -> None:
    opened = open_page(demo)
    opened.page.emulate_media(media="print")
    heights = opened.page.evaluate("[...document.querySelectorAll('details table')].map(t => t.offsetHeight)")
    assert len(heights) == len(all_charts())
    assert min(heights) > 20
    clipped = "[...document.querySelectorAll('.scroll')].filter(s => s.scrollHeight > s.clientHeight + 1).length"
    assert opened.page.evaluate(clipped) == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_text_of_charts_is_readable_and_inside(demo: Path, open_page: OpenPage, width: int) -> None:
    opened = open_page(demo, width)
    texts = opened.page.evaluate("""[...document.querySelectorAll('svg.chart text')].map(text => {
        const size = parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a
        const [inner, outer] = [text, text.closest('.chart')].map(one => one.getBoundingClientRect())
        const beyond = Math.max(outer.left - inner.left, inner.right - outer.right,
                                outer.top - inner.top, inner.bottom - outer.bottom)
        return [text.textContent, size, beyond]
    })""")
    assert [text for text in texts if text[1] < 11] == []
    assert [text for text in texts if text[2] > 1.5] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_no_texts_of_a_chart_overlap(demo: Path, open_page: OpenPage, width: int) -> None:
    opened = open_page(demo, width)
    overlaps = opened.page.evaluate("""[...document.querySelectorAll('svg.chart')].flatMap(chart => {
        const texts = [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
        const pairs = texts.flatMap((one, i) => texts.slice(i + 1).map(other => [one, other]))
        return pairs.filter(([[, a], [, b]]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4).map(([[a], [b]]) => [a, b])
    })""")
    assert overlaps == []
