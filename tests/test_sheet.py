"""Contact sheets: they say what `infer` says, beside the labels, and stay small and whole."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_bundle import COLOURS, SHAPES, small_bundle, tag_bundle

from multilabel import sheet as sheets
from multilabel.bundle import save
from multilabel.cli import main
from multilabel.errors import MultilabelError, UsageError
from multilabel.inference import Prediction, TagPrediction, predict
from multilabel.labels import UNKNOWN, LabelTable, Tag
from multilabel.sheet import Sheet, write

BROKEN = "error: not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"


@pytest.fixture(scope="module")
def bundle():
    """Two attributes and two tags, whose predictions differ from picture to picture."""
    made = tag_bundle()
    rng = np.random.default_rng(3)
    for head in made.heads:
        layer = made.model.get_layer(head.name)
        layer.set_weights([rng.normal(size=array.shape) * 2 for array in layer.get_weights()])
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bundle):
    """A bundle, ten pictures, one of which is broken, and labels of eight of them."""
    folder, rng = tmp_path_factory.mktemp("sheet"), np.random.default_rng(0)
    (folder / "model").mkdir()
    save(replace(bundle, not_better_than_chance=("coat",)), folder / "model")
    (folder / "images").mkdir()
    for number in range(10):
        pixels = np.clip(rng.normal(rng.integers(0, 256, 3), 40, (300, 200, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
    (folder / "images" / "4.jpg").write_bytes(b"no picture")
    cells = [
        f"{number}.jpg,{rng.integers(2)},{rng.choice(['', '0', '1'])},{rng.choice(COLOURS)},{rng.choice(['', *SHAPES])}"
        for number in range(8)
    ]
    (folder / "labels.csv").write_text("\n".join(["image,hat,coat,colour,shape", *cells]) + "\n")
    return folder


def infer(folder, *arguments):
    return CliRunner().invoke(main, ["infer", "--model", str(folder / "model"), *map(str, arguments)])


def items(path):
    """The pictures of a page: their class, name and lines."""
    found = re.findall(r'<li class="(\w+)">(.*?)</li>', path.read_text(), re.DOTALL)
    texts = [[html.unescape(re.sub("<[^>]*>", "", p)) for p in re.findall("<p.*?</p>", body)] for _, body in found]
    return [(kind, text[0], text[1:]) for (kind, _), text in zip(found, texts, strict=True)]


def expected(prediction, labels):
    """What shall be said of a picture, from its prediction and its row of the labels file."""
    if prediction.error is not None:
        return "neutral", [BROKEN]
    lines, right, wrong = [], 0, 0
    absent = 0
    for name in ("hat", "coat"):
        p, present = f"{prediction.probabilities[name]:.2f}", prediction.present[name]
        label = labels[name]
        if label == "":
            lines += [f"? {name} {p}, not labelled"] if present else []
        elif label == "1" and present:
            lines.append(f"✓ {name} {p}, right")
        elif label == "0" and present:
            lines.append(f"✗ {name} {p}, wrong: labelled absent")
        elif label == "1":
            lines.append(f"✗ {name} absent ({p}), wrong: labelled present")
        else:
            absent += 1
        right += label != "" and (label == "1") == present
        wrong += label != "" and (label == "1") != present
    for name in ("colour", "shape"):
        best, p = prediction.tags[name].top[0]
        label = labels[name]
        said = f"{name} {best} {p:.2f}"
        lines.append(
            f"? {said}, not labelled" if not label
            else f"✓ {said}, right" if label == best
            else f"✗ {said}, wrong: {label}"
        )  # fmt: skip
        right += label == best
        wrong += label not in ("", best)
    lines += [f"✓ {absent} rightly absent"] if absent else []
    return "wrong" if wrong else "right" if right else "neutral", lines


# --- through `infer`


def test_a_page_says_what_infer_says_beside_the_labels(folder, bundle, tmp_path):
    out = tmp_path / "sheet.html"
    done = infer(folder, folder / "images", "--sheet", out, "--labels", folder / "labels.csv")
    assert done.exit_code == 1  # one picture is broken
    assert "The labels file has 8 of the 10 pictures." in done.stderr
    rows = [line.split(",") for line in (folder / "labels.csv").read_text().splitlines()]
    labels = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    predictions = list(predict(bundle, [str(folder / "images")]))
    found = items(out)
    assert len(found) == 10
    for prediction, (kind, name, lines) in zip(predictions, found, strict=True):
        file = Path(prediction.image).name
        assert name.endswith(prediction.image)
        if file in labels:
            assert (kind, lines) == expected(prediction, labels[file])
        else:
            assert kind == "neutral"
            assert lines[-1] == "? not in the labels file"
    signs = "".join(line[0] for _, _, lines in found for line in lines)
    assert {"✓", "✗", "?"} <= set(signs)  # else this would say little
    right = sum(
        line.startswith("✓") if "rightly" not in line else int(line.split()[1]) for *_, lines in found for line in lines
    )
    wrong = sum(line.startswith("✗") for *_, lines in found for line in lines)
    share = f"{right / (right + wrong):.0%}"
    text = out.read_text()
    assert f"<p>Of {right + wrong} labels, {right} are as predicted ({share}) and {wrong} are not.</p>" in text
    assert "<p>10 pictures, 1 cannot be read.</p>" in text
    assert "do not rely on: coat.</p>" in text
    assert "✓ right, ✗ wrong, ? not labelled or undecided. Numbers are probabilities." in text


@pytest.mark.parametrize("style", ["text", "csv", "json", "jsonl"])
def test_the_usual_output_is_the_same_with_a_sheet(folder, tmp_path, style):
    without = infer(folder, folder / "images", "--format", style)
    with_sheet = infer(folder, folder / "images", "--format", style, "--sheet", tmp_path / "sheet.html")
    assert with_sheet.stdout == without.stdout
    assert (with_sheet.stderr, with_sheet.exit_code) == (without.stderr, without.exit_code)


def test_without_labels_it_names_what_is_present(folder, bundle, tmp_path):
    out = tmp_path / "sheet.htm"
    infer(folder, folder / "images", "--sheet", out, "--min-confidence", "0.7", "--threshold", "0.4")
    page = out.read_text()
    assert "✓" not in page.partition("<body>")[2]
    predictions = list(predict(bundle, [str(folder / "images")]))
    for prediction, (kind, name, lines) in zip(predictions, items(out), strict=True):
        assert (kind, name) == ("neutral", prediction.image)
        if prediction.error is not None:
            assert lines == [BROKEN]
            continue
        said = [f"{name} {p:.2f}" for name, p in prediction.probabilities.items() if p > 0.4]
        for tag, value in prediction.tags.items():
            best, p = value.top[0]
            said.append(f"{tag} {best} {p:.2f}" if p >= 0.7 else f"{tag} undecided ({best} {p:.2f})")
        assert lines == said


def test_a_page_needs_nothing_else_and_its_pictures_are_small(folder, tmp_path):
    out = tmp_path / "sheet.html"
    infer(folder, folder / "images", "--sheet", out)
    text = out.read_text()
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 9
    assert 'class="blank"' in text
    assert not re.search(r'https?:|(src|href)="(?!data:|#)', text)
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,")))) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) == 160
            assert picture.height / picture.width == pytest.approx(300 / 200, abs=0.02)


def test_a_png_shows_the_pictures(folder, tmp_path):
    out = tmp_path / "sheet.PNG"
    done = infer(folder, folder / "images", "--sheet", out, "--labels", folder / "labels.csv")
    assert done.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.PNG"]
    with Image.open(out) as opened:
        assert opened.format == "PNG"
        drawn = np.asarray(opened.convert("RGB"), int)
    assert drawn.shape[1] == 752
    # The first picture, 107 x 160 pixels, in the left column: its mean colour is there, below the header.
    mean = np.asarray(Image.open(folder / "images" / "0.jpg"), int).mean(axis=(0, 1))
    near = (np.abs(drawn[:, 20:127] - mean).mean(axis=(1, 2)) < 60).nonzero()[0]
    top = near[0]
    assert 60 < top < 250
    np.testing.assert_allclose(drawn[top : top + 160, 20:127].mean(axis=(0, 1)), mean, atol=4)
    assert (drawn[top - 5, 20:] == 255).all()
    # Three rows of pictures, of 4, 4 and 2.
    assert drawn.shape[0] > top + 3 * 160


def test_a_broken_picture_leaves_a_gap_in_a_png(folder, tmp_path):
    out = tmp_path / "sheet.png"
    assert infer(folder, folder / "images" / "4.jpg", "--sheet", out).exit_code == 1
    with Image.open(out) as opened:
        grey = (0xF4, 0xF5, 0xF7)
        assert sum(count for count, colour in opened.getcolors(100_000) if colour == grey) == 158 * 158


@pytest.mark.parametrize("ending", [".html", ".png"])
def test_a_sheet_shows_no_more_than_its_limit(folder, tmp_path, monkeypatch, ending):
    monkeypatch.setitem(sheets.LIMITS, ending, 3)
    out = tmp_path / f"sheet{ending}"
    done = infer(folder, folder / "images", "--sheet", out)
    sentence = f"sheet{ending} shows the first 3 of 10 pictures."
    assert sentence in done.stderr.splitlines()
    assert len(done.stdout.splitlines()) == 10
    if ending == ".html":
        assert len(items(out)) == 3
        assert f"<p>{sentence}</p>" in out.read_text()


def test_no_pictures_are_an_empty_sheet(folder, tmp_path):
    for name in ("sheet.html", "sheet.png"):
        done = CliRunner().invoke(
            main, ["infer", "--model", str(folder / "model"), "--sheet", str(tmp_path / name), "-"], input=""
        )
        assert done.exit_code == 0, done.output
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--labels", "labels.csv"],
            2,
            "--labels stand beside the predictions of a --sheet; give one, such as --sheet sheet.html.",
        ),
        (["--sheet", "sheet.pdf"], 2, "--sheet sheet.pdf: expected a file that ends in .html or .png."),
        (["--sheet", "sheet"], 2, "--sheet sheet: expected a file that ends in .html or .png."),
        (
            ["--sheet", "folder.html"],
            1,
            "folder.html cannot be written (it is a folder); choose another --sheet.",
        ),
        (
            ["--sheet", "absent/sheet.png"],
            1,
            "absent/sheet.png cannot be written ({here}/absent is no folder that you may write to); "
            "choose another --sheet.",
        ),
        (
            ["--sheet", "sheet.html", "--labels", "other.csv"],
            2,
            "other.csv: there is no column 'colour'; there are size.",
        ),
    ],
)
def test_a_wrong_call_is_one_sentence_before_anything_is_predicted(
    folder, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    shutil.copy(folder / "labels.csv", tmp_path)
    (tmp_path / "other.csv").write_text("image,size\n0.jpg,1\n")
    before = sorted(tmp_path.iterdir())
    done = infer(folder, folder / "images", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr == f"Error: {message.format(here=tmp_path)}\n"
    assert sorted(tmp_path.iterdir()) == before


def test_a_sheet_never_replaces_one_of_the_pictures(folder, tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(picture)
    before = picture.read_bytes()
    done = infer(folder, tmp_path, "--sheet", picture)
    assert done.exit_code == 2
    assert done.stderr == f"Error: --sheet {picture} is one of the pictures to predict; put it elsewhere.\n"
    assert picture.read_bytes() == before


# --- the sheet itself


def made(image="a.jpg", hat=0.9, coat=0.2, colour="red", decided=True, error=None):
    if error is not None:
        return Prediction(image, {}, {}, error)
    return Prediction(
        image,
        {"hat": hat, "coat": coat},
        {"hat": hat > 0.5, "coat": coat > 0.5},
        tags={"colour": TagPrediction(((colour, 0.75),), decided)},
    )


def table(images, y, tag_y):
    tags = (Tag("colour", COLOURS),)
    return LabelTable(tuple(images), np.array(y, np.int8), ("hat", "coat"), (), tags, np.array(tag_y, np.int16))


def test_undecided_is_neither_right_nor_wrong(tmp_path, bundle):
    out = tmp_path / "sheet.html"
    actual = table(["a.jpg", "b.jpg"], [[UNKNOWN, UNKNOWN]] * 2, [[1], [UNKNOWN]])
    predictions = [made("a.jpg", hat=0.1, decided=False), made("b.jpg", hat=0.1, decided=False)]
    assert write(predictions, bundle, out, actual) == []
    assert [(kind, lines) for kind, _, lines in items(out)] == [
        ("neutral", ["? colour undecided (red 0.75), labelled green"]),
        ("neutral", ["? colour undecided (red 0.75), not labelled"]),
    ]
    assert "Of 0 labels, 0 are as predicted and 0 are not." in out.read_text()


def test_nothing_present_is_said(tmp_path):
    attributes_alone = small_bundle()
    nothing = Prediction("a.jpg", dict.fromkeys("ab", 0.1), dict.fromkeys("ab", False))
    write([nothing], attributes_alone, tmp_path / "sheet.html")
    assert items(tmp_path / "sheet.html") == [("neutral", "a.jpg", ["nothing present"])]


def test_many_lines_are_cut(tmp_path):
    names = [f"name{number}" for number in range(30)]
    many = Prediction("a.jpg", dict.fromkeys(names, 0.9), dict.fromkeys(names, True))
    write([many], small_bundle(), tmp_path / "sheet.html")
    ((_, _, lines),) = items(tmp_path / "sheet.html")
    assert lines == [*(f"name{number} 0.90" for number in range(20)), "... and 10 more"]


@pytest.mark.parametrize(
    ("image", "names", "row"),
    [
        ("images/a.jpg", ["a.jpg", "b.jpg"], 0),
        ("/elsewhere/b.jpg", ["a.jpg", "b.jpg"], 1),
        ("x/a.jpg", ["y/a.jpg", "x/a.jpg"], 1),
        ("z/a.jpg", ["y/a.jpg", "x/a.jpg"], None),
        ("x/a.jpg", ["a.jpg", "x/a.jpg"], 1),
        ("x/../a.jpg", ["./a.jpg"], 0),
        ("pictures/a.jpg", ["../pictures/a.jpg"], 0),
        ("/pictures/a.jpg", ["/pictures/a.jpg"], 0),
        ("/other/pictures/a.jpg", ["/pictures/a.jpg"], None),
        ("ba.jpg", ["a.jpg"], None),
        ("nul\0", ["a.jpg"], None),
    ],
)
def test_labels_belong_to_the_path_that_ends_with_their_name(tmp_path, bundle, image, names, row):
    labels = [[UNKNOWN, UNKNOWN]] * len(names)
    if row is not None:
        labels[row] = [1, 0]
    write([made(image)], bundle, tmp_path / "sheet.html", table(names, labels, [[UNKNOWN]] * len(names)))
    ((kind, _, lines),) = items(tmp_path / "sheet.html")
    assert kind == ("neutral" if row is None else "right")
    assert ("? not in the labels file" in lines) == (row is None)


def test_what_people_write_is_text(tmp_path, bundle):
    odd = made("<script>alert(1)</script>&\udcff.jpg", colour="<b>")
    for name in ("sheet.html", "sheet.png"):
        write([odd], replace(bundle, run_name="<i>$x$"), tmp_path / name)
    text = (tmp_path / "sheet.html").read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "Predictions of &lt;i&gt;$x$" in text
    assert "colour &lt;b&gt; 0.75" in text


def test_a_picture_that_has_gone_meanwhile_leaves_a_gap(tmp_path, bundle):
    for name in ("sheet.html", "sheet.png"):
        write([made(str(tmp_path / "gone.jpg"))], bundle, tmp_path / name)
    assert 'class="blank"' in (tmp_path / "sheet.html").read_text()


def test_predictions_pass_one_by_one_and_are_not_kept_beyond_the_limit(tmp_path, bundle, monkeypatch):
    monkeypatch.setitem(sheets.LIMITS, ".html", 5)
    taken = []

    def endless():
        for number in range(1000):
            taken.append(number)
            yield made(f"{number}.jpg")

    sheet = Sheet(bundle, tmp_path / "sheet.html")
    for number, prediction in enumerate(sheet.gather(endless())):
        assert len(taken) == number + 1  # nothing is read ahead
        assert prediction.image == f"{number}.jpg"
    assert sheet.remarks() == ["sheet.html shows the first 5 of 1,000 pictures."]
    sheet.write()
    assert [name for _, name, _ in items(tmp_path / "sheet.html")] == [f"{number}.jpg" for number in range(5)]


@pytest.mark.parametrize("name", ["sheet.html", "sheet.png"])
def test_a_sheet_that_cannot_be_written_leaves_the_old_one(tmp_path, bundle, monkeypatch, name):
    out = tmp_path / name
    out.write_text("old")
    sheet = Sheet(bundle, out)
    list(sheet.gather([made()]))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MultilabelError, match=re.escape(f"{out} cannot be written (No space left on device)")):
        sheet.write()
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_other_endings_are_refused(tmp_path, bundle):
    with pytest.raises(UsageError, match=r"expected a file that ends in \.html or \.png"):
        Sheet(bundle, tmp_path / "sheet.jpg")


@given(st.text(max_size=200), st.integers(60, 300))
def test_text_is_wrapped_to_the_width(text, width):
    font = sheets._font(14)
    lines = sheets._wrapped(text, font, width)
    assert all(font.getlength(line.rstrip()) <= width for line in lines)
    printed = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    assert "".join(lines) == printed
