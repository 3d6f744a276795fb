"""The page of `multilabel inspect` in a real browser, wide and narrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import OpenPage, axe
from PIL import Image

from multilabel.inspection import inspect_labels
from multilabel.inspection_page import inspection_html
from multilabel.page import write

pytestmark = pytest.mark.slow  # a browser starts


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section: many attributes, a tag with many classes, copies, gaps, broken and absent files."""
    folder = tmp_path_factory.mktemp("inspected")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    names = [f"attribute with a long name {number}" for number in range(12)]
    lines = [",".join(["image", *names, "a tag"]), f"absent.jpg{',1' * 12},x", f"broken.jpg{',0' * 12},x"]
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")
    for row in range(80):
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((int(rng.integers(60, 300)), 120)).save(folder / "images" / f"{row}.png")
        cells = [("1", "0", "NA")[number] for number in rng.choice(3, 12, p=[0.3, 0.6, 0.1])]
        lines.append(",".join([f"{row}.png", *cells, f"a class called {min(row % 40, row % 23)}"]))
    copy = (folder / "images" / "0.png").read_bytes()
    (folder / "images" / "<b>copy & paste</b>.png".replace("/", "")).write_bytes(copy)
    lines.append(f"<b>copy & paste<b>.png{',1' * 12},a class called 5")
    (folder / "labels.csv").write_text("\n".join(lines))
    write(folder / "page.html", inspection_html(inspect_labels(folder / "labels.csv", tags=["a tag"])))
    return folder / "page.html"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("colour_scheme", ["light", "dark"])
def test_the_page_is_whole_and_fits(open_page: OpenPage, written: Path, width: int, colour_scheme: str) -> None:
    page, problems = open_page(written, width, colour_scheme=colour_scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("section h2").all_inner_texts() == [
        "Rows and files",
        "Attributes",
        "Attributes together",
        "Tags",
        "Unknown labels",
        "Copies",
        "Pictures",
    ]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert axe(page) == []
    assert problems == []


def test_the_first_thing_to_read_is_what_to_look_at(open_page: OpenPage, written: Path) -> None:
    page, _ = open_page(written)
    assert page.locator(".lead h2").inner_text() == "What to look at before training"
    first = page.locator(".lead li").first
    assert first.inner_text().startswith("1 picture of the labels file is not there: absent.jpg.")
    assert first.bounding_box()["y"] < 400


def test_copies_stand_side_by_side_with_what_they_say(open_page: OpenPage, written: Path) -> None:
    page, _ = open_page(written, 390)
    group = page.locator("#copies .pictures").first
    one, other = (picture.bounding_box() for picture in group.locator("img").all()[:2])
    assert one["y"] == pytest.approx(other["y"], abs=1)
    assert group.locator("li").nth(1).inner_text().startswith("<b>copy & paste<b>.png")
    assert "attribute with a long name" in group.locator("li").nth(1).inner_text()
