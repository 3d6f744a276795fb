"""The page of `multilabel serve`, in a real browser, as a person uses it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import OpenPage, axe
from serving import Running, served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow  # a server and a browser start
PICTURES = ["garment_000.jpg", "garment_001.jpg", "garment_002.jpg"]
BROKEN = "broken, really.jpg"
NAMES = ["long_sleeves", "stripes", "buttons", "heart"]
TAGGED = ["a.jpg", "b.jpg"]


def multilabel(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multilabel", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Three pictures and a broken file, and a model of attributes, of which one is called no better than chance."""
    folder = tmp_path_factory.mktemp("page")
    for name in PICTURES:
        (folder / name).write_bytes((root / "data" / "images" / name).read_bytes())
    (folder / BROKEN).write_bytes(b"\xff\xd8 no picture")
    options = ["--backbone", "cnn", "--names", ",".join(NAMES), "--precision", "float32", "--cache", folder / "cache"]
    done = multilabel("fit", "--labels", root / "data" / "labels.txt", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    described = json.loads((folder / "model" / "multilabel.json").read_text())
    described["not_better_than_chance"] = ["heart"]
    (folder / "model" / "multilabel.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Running]:
    with served(folder / "model", folder / "log") as running:
        yield running


def choose(page: Page, folder: Path, names: list[str]) -> None:
    page.set_input_files("#files", [folder / name for name in names])
    page.wait_for_selector(f"#status:has-text('{len(names)} pictures done')")


def dropped(page: Page, folder: Path, names: list[str]) -> None:
    """Drops files on the page, as a hand would."""
    transfer = page.evaluate_handle("() => new DataTransfer()")
    for name in names:
        transfer.evaluate(
            "(transfer, [name, bytes]) => transfer.items.add(new File([new Uint8Array(bytes)], name))",
            [name, list((folder / name).read_bytes())],
        )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    page.wait_for_selector(f"#status:has-text('{len(names)} pictures done')")


def saved(page: Page, button: str, into: Path) -> Path:
    """What a button downloads, under the name that it suggests."""
    with page.expect_download() as waiting:
        page.click(button)
    file = into / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def assert_same_table(mine: str, wanted: str) -> None:
    """CSV is the same but for the last of six digits of probabilities, which batches of other sizes may change."""
    assert mine.endswith("\n")
    for row, expected in zip(mine.split("\n"), wanted.split("\n"), strict=True):
        for cell, value in zip(row.split(","), expected.split(","), strict=True):
            assert cell == value or float(cell) == pytest.approx(float(value), abs=2e-6)


def loaded(open_page: OpenPage, server: Running, width: int = 1280, **options: str) -> tuple[Page, list[str]]:
    page, problems = open_page(server.url, width, **options)
    page.wait_for_selector("#about:has-text('Knows')")
    return page, problems


def test_pictures_become_cards_that_say_what_infer_says(
    open_page: OpenPage, server: Running, folder: Path, tmp_path: Path
) -> None:
    page, problems = loaded(open_page, server)
    assert page.inner_text("#about") == "Knows long_sleeves, stripes, buttons, heart."
    assert page.inner_text("#chance").endswith("do not rely on: heart.")
    dropped(page, folder, [*PICTURES, BROKEN])
    assert page.inner_text("#status") == "4 pictures done; 1 could not be read."

    done = multilabel("infer", "--format", "csv", *PICTURES, BROKEN, cwd=folder)
    expected = list(csv.DictReader(done.stdout.splitlines()))
    cards = page.query_selector_all("article")
    assert [card.query_selector("h2 span").inner_text() for card in cards] == [*PICTURES, BROKEN]
    for card, said in zip(cards[:3], expected, strict=False):
        assert card.query_selector("img.photo").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        for row, name in zip(card.query_selector_all(".rows > li"), NAMES, strict=True):
            present = "present" if said[f"{name}_present"] == "1" else "absent"
            assert row.query_selector(".name").inner_text().startswith(name)
            assert ("no better than chance" in row.inner_text()) == (name == "heart")
            assert row.query_selector(".value").inner_text() == f"{float(said[f'{name}_probability']):.2f} {present}"
    assert expected[3]["error"] in cards[3].inner_text()

    assert_same_table(saved(page, "#csv", tmp_path).read_text(), done.stdout)
    records = json.loads(saved(page, "#json", tmp_path).read_text())
    wanted = json.loads(multilabel("infer", "--format", "json", *PICTURES, BROKEN, cwd=folder).stdout)
    for record, said in zip(records, wanted, strict=True):
        for name in NAMES if said["attributes"] else []:
            probability = said["attributes"][name].pop("probability")
            assert record["attributes"][name].pop("probability") == pytest.approx(probability, abs=1e-6)
        assert record == said
    assert problems == []


def test_a_slider_flips_an_attribute_and_tells_the_command_line(
    open_page: OpenPage, server: Running, folder: Path, tmp_path: Path
) -> None:
    page, problems = loaded(open_page, server)
    choose(page, folder, PICTURES)
    first = page.locator("article").first.locator(".rows > li").first
    assert "present" in first.locator(".value").inner_text()
    page.get_by_label("Threshold of long_sleeves").fill("0.999")
    assert "absent" in first.locator(".value").inner_text()
    assert page.inner_text("#flips") == "Changed: long_sleeves of garment_000.jpg."
    line = page.input_value("#line")
    assert line.startswith("--threshold long_sleeves=0.999 --threshold stripes=0.")
    done = multilabel("infer", "--format", "csv", *line.split(), *PICTURES, cwd=folder)
    assert_same_table(saved(page, "#csv", tmp_path).read_text(), done.stdout)
    page.click("#reset")
    assert page.inner_text("#flips") == ""
    assert "present" in first.locator(".value").inner_text()
    assert problems == []


def test_numbers_are_written_as_infer_writes_them(open_page: OpenPage, server: Running) -> None:
    page, _ = loaded(open_page, server)
    values = [
        0,
        1,
        0.5,
        0.1 + 0.2,
        1 / 3,
        0.0001234565,
        0.000123,
        0.00001234567,
        9.9999996e-5,
        1e-12,
        0.9999999,
        5e-324,
    ]
    values += [10.0**-power * digits for power in range(1, 20) for digits in (1, 1.2345678, 9.9999999)]
    assert page.evaluate("values => values.map(sixDigits)", values) == [f"{value:.6g}" for value in values]


def test_the_keyboard_alone_is_enough(open_page: OpenPage, server: Running, folder: Path) -> None:
    page, problems = loaded(open_page, server)
    choose(page, folder, PICTURES[:2])
    row = page.locator("article .row").first
    row.focus()
    page.wait_for_selector("article .view.explained .map")
    assert page.locator(".map").first.get_attribute("alt") == (
        "Where in garment_000.jpg the evidence for long_sleeves lies: red speaks for it, blue against it"
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("stripes")
    slider = page.get_by_label("Threshold of stripes")
    slider.focus()
    before = page.locator("#sliders .value").nth(1).inner_text()
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#sliders .value").nth(1).inner_text()) > float(before)
    page.get_by_role("button", name="Remove garment_000.jpg").focus()
    page.keyboard.press("Enter")
    assert page.locator("article").count() == 1
    assert problems == []


def test_corrected_labels_train_a_model(open_page: OpenPage, server: Running, folder: Path, root: Path) -> None:
    page, problems = loaded(open_page, server)
    names = [f"garment_{number:03}.jpg" for number in range(24)]
    for name in names:
        (folder / name).write_bytes((root / "data" / "images" / name).read_bytes())
    choose(page, folder, names)
    page.click("#correct")
    wrong = page.locator("article").nth(1).get_by_role("group", name="Label of heart")
    wrong.get_by_label("yes").check()
    page.locator("article").nth(2).get_by_role("group", name="Label of stripes").get_by_label("no", exact=True).check()
    written = saved(page, "#labels-txt", folder)
    assert written.name == "labels.txt"
    assert written.read_text().splitlines()[:4] == [
        "garment_000.jpg NA NA NA NA",
        "garment_001.jpg NA NA NA 1",
        "garment_002.jpg NA 0 NA NA",
        "garment_003.jpg NA NA NA NA",
    ]
    page.click("#confirm")
    lines = [line.split() for line in saved(page, "#labels-txt", folder).read_text().splitlines()]
    assert lines[1][4] == "1"  # what a person said stays
    assert lines[2][2] == "0"
    assert "NA" not in {label for line in lines for label in line[1:]}
    rows = list(csv.reader(saved(page, "#labels-csv", folder).read_text().splitlines()))
    assert rows == [["image", *NAMES], *lines]
    said = page.inner_text("#fit")
    assert said.startswith("Saved. Beside the pictures: multilabel fit --labels labels.csv")
    for labels, options in (("labels.txt", ["--names", ",".join(NAMES)]), ("labels.csv", [])):
        options += ["--backbone", "cnn", "--folds", "0", "--epochs", "1", "--out", f"of_{labels}", "--cache", "cache"]
        done = multilabel("fit", "--labels", labels, *options, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert problems == []


def test_tags_become_classes_and_labels_of_them(open_page: OpenPage, folder: Path, root: Path, tmp_path: Path) -> None:
    with (root / "data" / "labels.txt").open() as file:
        rows = [line.split() for line in file if not line.startswith("#")][:120]
    table = ["image,sleeves,heart"] + [
        f"{root / 'data' / 'images' / row[0]},{({'1': 'long', '0': 'short'}).get(row[1], '')},{row[4]}" for row in rows
    ]
    (tmp_path / "labels.csv").write_text("\n".join(table))
    options = ["--tags", "sleeves", "--backbone", "cnn", "--folds", "0", "--epochs", "2", "--precision", "float32"]
    done = multilabel("fit", "--labels", "labels.csv", "--images", "/", *options, "--cache", "cache", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with served(tmp_path / "model", tmp_path / "log") as server:
        page, problems = loaded(open_page, server)
        choose(page, folder, PICTURES)
        done = multilabel("infer", "--model", tmp_path / "model", "--format", "csv", *PICTURES, cwd=folder)
        assert_same_table(saved(page, "#csv", tmp_path).read_text(), done.stdout)
        assert re.search("long|short", page.locator("article .tag").first.inner_text())
        page.click("#correct")
        assert page.locator("#labels-txt").is_hidden()  # it has no room for classes
        page.locator("article").first.get_by_label("Label of sleeves").select_option("long")
        assert saved(page, "#labels-csv", tmp_path / "out").read_text().splitlines() == [
            "image,heart,sleeves",
            "garment_000.jpg,NA,long",
            "garment_001.jpg,NA,",
            "garment_002.jpg,NA,",
        ]
        assert problems == []


def test_two_pictures_of_one_name_are_not_saved_as_labels(open_page: OpenPage, server: Running, folder: Path) -> None:
    page, problems = loaded(open_page, server)
    choose(page, folder, PICTURES)
    choose(page, folder, PICTURES)
    page.click("#correct")
    page.click("#labels-csv")
    assert page.inner_text("#fit") == "Two pictures are called garment_000.jpg; remove one, or rename its file."
    assert problems == []


@pytest.mark.parametrize(("width", "colour_scheme"), [(1280, "light"), (360, "light"), (360, "dark"), (1280, "dark")])
def test_it_fits_every_screen_and_reader(
    open_page: OpenPage, server: Running, folder: Path, tmp_path: Path, width: int, colour_scheme: str
) -> None:
    page, problems = loaded(open_page, server, width, colour_scheme=colour_scheme)
    long_name = "a_name_without_any_space_that_is_far_too_long_for_a_card_on_a_phone_or_anywhere_else.jpg"
    (folder / long_name).write_bytes((folder / PICTURES[0]).read_bytes())
    choose(page, folder, [*PICTURES, BROKEN, long_name])
    page.click("#correct")
    page.click("#scores summary")
    page.locator("article .row").first.focus()
    page.wait_for_selector(".map")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#table tr").count() == 2 * len(NAMES)
    page.goto(f"{server.url}docs")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []


def test_a_key_is_asked_for(open_page: OpenPage, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    with served(folder / "model", tmp_path / "log", "--api-key-file", tmp_path / "key") as server:
        page, problems = open_page(server.url)
        page.wait_for_selector("#key-form:visible")
        page.get_by_label("This server wants a key").fill("0123456789abcdef")
        page.keyboard.press("Enter")
        page.wait_for_selector("#about:has-text('Knows')")
        choose(page, folder, PICTURES)
        assert page.locator("article .row").count() == 3 * len(NAMES)
        # The browser itself remarks on the first answer.
        assert [problem for problem in problems if "401" not in problem] == []
