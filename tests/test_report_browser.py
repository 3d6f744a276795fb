"""`report.html` in a real browser: by keyboard, on a phone, in the dark, on paper, and large."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from browser import OpenPage, axe
from report_sample import make_report

from multilabel.report_page import write_report

pytestmark = pytest.mark.slow  # a browser starts

SECTIONS = ["scores", "curves", "calibration", "tags", "learning", "pictures", "labels", "provenance"]
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'\udcff"
LONG = "a_name_without_any_space_that_is_far_too_long_for_a_phone"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    names = [f"folder/{HOSTILE}{row}.jpg" if row % 2 else f"{LONG}{row}.jpg" for row in range(300)]
    report = make_report(folder, attributes=[HOSTILE, LONG, "noise"], classes=(5,), names=names, test=True)
    write_report(folder / "report.html", report)
    return folder / "report.html"


def test_all_sections_are_there_and_nothing_goes_wrong(small: Path, open_page: OpenPage) -> None:
    page, problems = open_page(small)
    assert page.locator("section").evaluate_all("all => all.map(one => one.id)") == SECTIONS
    for section in SECTIONS:
        page.locator(f'nav a[href="#{section}"]').click()
        assert page.locator(f"#{section} h2").is_visible()
    assert page.locator("script").count() == 0
    assert page.locator(".warning").first.is_visible()
    assert problems == []


def test_pictures_are_shown(small: Path, open_page: OpenPage) -> None:
    page, _ = open_page(small)
    sizes = page.locator("#pictures img").evaluate_all("all => all.map(one => one.naturalHeight)")
    assert len(sizes) > 30
    assert set(sizes) == {96}


@pytest.mark.parametrize(("width", "colour_scheme"), [(1280, "light"), (390, "dark")])
def test_people_with_a_screen_reader_can_use_it(
    small: Path, open_page: OpenPage, width: int, colour_scheme: str
) -> None:
    page, problems = open_page(small, width, colour_scheme=colour_scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert axe(page) == []
    assert problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(small: Path, open_page: OpenPage, width: int) -> None:
    page, _ = open_page(small, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_chart_shows_its_numbers_by_keyboard(small: Path, open_page: OpenPage) -> None:
    page, _ = open_page(small)
    shown = page.locator("#learning figure details").first
    summary, table = shown.locator("summary"), shown.locator("table")
    assert not table.is_visible()
    page.locator("#learning").focus()
    page.keyboard.press("Tab")
    assert summary.evaluate("one => one === document.activeElement")
    page.keyboard.press("Enter")
    assert table.is_visible()
    page.keyboard.press("Tab")
    assert shown.locator(".scroll").evaluate("one => one === document.activeElement")


def test_wide_tables_scroll_by_keyboard(small: Path, open_page: OpenPage) -> None:
    page, _ = open_page(small, 390)
    region = page.locator("#scores > .scroll").first
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0")
    assert region.get_attribute("role") == "region"


def test_a_report_on_45_000_pictures_is_small_and_quick(tmp_path: Path, open_page: OpenPage) -> None:
    report = make_report(
        tmp_path,
        rows=45_000,
        attributes=[f"attribute {number}" for number in range(6)],
        classes=(140, 2, 3, 5, 8, 20, 45),
        pictures=20,
    )
    path = tmp_path / "report.html"
    started = time.perf_counter()
    write_report(path, report)
    assert time.perf_counter() - started < 20
    assert path.stat().st_size < 5_000_000
    started = time.perf_counter()
    page, problems = open_page(path)
    assert page.locator("#provenance h2").is_visible()
    assert time.perf_counter() - started < 3
    assert problems == []
    assert page.locator("#tags svg[role=img]").count() == 7
    assert page.locator("#curves svg[role=img]").count() == 18


def test_many_attributes_stay_small_and_usable(tmp_path: Path, open_page: OpenPage) -> None:
    report = make_report(
        tmp_path, rows=3000, attributes=[f"attribute {number}" for number in range(75)], classes=(), pictures=20
    )
    path = tmp_path / "report.html"
    write_report(path, report)
    assert path.stat().st_size < 5_000_000
    page, problems = open_page(path)
    assert page.locator("#curves > details").count() == 75
    assert page.locator("#curves svg[role=img]").first.is_hidden()
    page.locator("#curves > details > summary").first.click()
    assert page.locator("#curves svg[role=img]").first.is_visible()
    assert page.locator("#scores tbody tr").count() >= 75
    assert problems == []
