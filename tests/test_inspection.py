"""What `multilabel inspect` finds, against pandas, NumPy and pictures whose copies were planted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from broken_pictures import broken_pictures
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageFilter
from sklearn.metrics import f1_score, matthews_corrcoef

from multilabel import inspection as room
from multilabel.cli import main
from multilabel.duplicates import SIZE, Look, find_similar
from multilabel.errors import DataError
from multilabel.findings import counted, findings
from multilabel.images import read_image
from multilabel.inspection import Inspection, inspect_labels
from multilabel.inspection_page import inspection_html, inspection_text
from multilabel.labels import UNKNOWN, LabelTable, Tag


def table_of(y: np.ndarray, tag_y: np.ndarray | None = None, classes: int = 3) -> LabelTable:
    y = np.asarray(y, np.int8)
    names = tuple(f"a{column}" for column in range(y.shape[1]))
    tag_y = np.empty((len(y), 0), np.int16) if tag_y is None else np.asarray(tag_y, np.int16)
    tags = tuple(Tag(f"t{column}", tuple(f"c{n}" for n in range(classes))) for column in range(tag_y.shape[1]))
    return LabelTable(tuple(f"{row}.jpg" for row in range(len(y))), y, names, tags=tags, tag_y=tag_y)


def photograph(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Shapes and colours of all sizes, as photographs have them."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, weight, (side, side, 3)) for side, weight in ((2, 50), (5, 40), (12, 25), (40, 10))]
    stretched = [
        np.stack(
            [
                np.asarray(Image.fromarray(layer[..., c].astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
                for c in range(3)
            ],
            -1,
        )
        for layer in layers
    ]
    return Image.fromarray(np.clip(128 + sum(stretched), 0, 255).astype(np.uint8))


def product(seed: int, size: tuple[int, int] = (60, 80)) -> Image.Image:
    """A small thing in the middle of a white ground."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", size, "white")
    width, height = rng.integers(size[0] // 4, size[0] // 2), rng.integers(size[1] // 4, size[1] // 2)
    thing = photograph(seed, (int(width), int(height)))
    picture.paste(thing, ((size[0] - thing.width) // 2, (size[1] - thing.height) // 2))
    return picture


def write_data(folder: Path, pictures: dict[str, Image.Image | bytes], lines: Sequence[str]) -> Path:
    (folder / "images").mkdir(parents=True)
    for name, picture in pictures.items():
        path = folder / "images" / name
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            picture.save(path)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


# Counts


@st.composite
def labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows = draw(st.integers(1, 30))
    y = draw(arrays.arrays(np.int8, (rows, draw(st.integers(0, 5))), elements=st.integers(-1, 1)))
    return y, draw(arrays.arrays(np.int16, (rows, draw(st.integers(1, 3))), elements=st.integers(-1, 2)))


@settings(max_examples=60, deadline=None)
@given(labels())
def test_counts_equal_those_of_pandas(given_labels: tuple[np.ndarray, np.ndarray]) -> None:
    y, tag_y = given_labels
    table = table_of(y, tag_y)
    frame = pd.DataFrame(y, columns=list(table.names)).replace(UNKNOWN, np.nan)
    for facts in room._attributes(table):
        column = frame[facts.name]
        assert (facts.positives, facts.negatives, facts.unknown) == (
            (column == 1).sum(),
            (column == 0).sum(),
            column.isna().sum(),
        )
        assert facts.known == column.count()
        assert facts.share == pytest.approx(column.mean(), nan_ok=True)
        if facts.known and facts.positives:
            known = column.dropna()
            assert facts.f1_of_always_yes == pytest.approx(f1_score(known, np.ones(len(known))))
    for number, facts in enumerate(room._tags(table)):
        column = pd.Series(tag_y[:, number])
        expected = column[column != UNKNOWN].value_counts()
        assert {name: count for name, count in facts.counts if count} == {f"c{n}": c for n, c in expected.items()}
        assert [count for _, count in facts.counts] == sorted((count for _, count in facts.counts), reverse=True)
        assert (facts.known, facts.unknown) == (expected.sum(), (column == UNKNOWN).sum())


@settings(max_examples=60, deadline=None)
@given(labels())
def test_pairs_of_attributes_equal_a_crosstab_of_the_known_ones(given_labels: tuple[np.ndarray, np.ndarray]) -> None:
    y, _ = given_labels
    together = room._together(table_of(y))
    phi, expected, few = together.phi, together.expected, together.few
    for a in range(y.shape[1]):
        for b in range(y.shape[1]):
            known = (y[:, a] != UNKNOWN) & (y[:, b] != UNKNOWN)
            first, second = pd.Categorical(y[known, a], [0, 1]), pd.Categorical(y[known, b], [0, 1])
            counts = pd.crosstab(first, second, dropna=False).reindex(index=[0, 1], columns=[0, 1], fill_value=0)
            cells = counts.to_numpy()
            assert together.both[a, b] == cells[1, 1]
            assert together.only[a, b] == cells[1, 0]
            assert together.only[b, a] == cells[0, 1]
            assert together.neither[a, b] == cells[0, 0]
            assert together.known[a, b] == known.sum()
            by_chance = cells.sum(1)[:, None] * cells.sum(0)[None] / max(known.sum(), 1)
            assert few[a, b] == (by_chance.min() < 5)
            if known.any():
                assert expected[a, b] == pytest.approx(by_chance[1, 1])
            if (cells.sum(0) > 0).all() and (cells.sum(1) > 0).all():
                assert phi[a, b] == pytest.approx(matthews_corrcoef(y[known, a], y[known, b]))
            else:
                assert np.isnan(phi[a, b])


@settings(max_examples=60, deadline=None)
@given(labels())
def test_missing_labels_equal_a_group_by(given_labels: tuple[np.ndarray, np.ndarray]) -> None:
    y, tag_y = given_labels
    missing = room._missing(table_of(y, tag_y))
    unknown = np.concatenate([y, tag_y], axis=1) == UNKNOWN
    np.testing.assert_array_equal(missing.together, unknown.T.astype(int) @ unknown.astype(int))
    expected = pd.Series((~unknown).sum(axis=1)).value_counts()
    assert {k: c for k, c in enumerate(missing.known_per_picture) if c} == dict(expected)
    frame = pd.DataFrame(unknown, columns=list(missing.names))
    patterns = {
        tuple(name for name, gone in zip(missing.names, key, strict=True) if gone): count
        for key, count in frame.value_counts().items()
    }
    assert dict(missing.patterns).items() <= patterns.items()
    assert len(missing.patterns) + missing.more_patterns == len(patterns)
    shown = [count for _, count in missing.patterns]
    assert sorted(patterns.values(), reverse=True)[: len(shown)] == shown


def test_many_attributes_are_compared_by_those_with_most_positives() -> None:
    y = np.zeros((5, room._PAIRED + 3), np.int8)
    y[:, 3:] = 1
    together = room._together(table_of(y))
    assert together.names == tuple(f"a{n}" for n in range(3, room._PAIRED + 3))
    assert together.both.shape == (room._PAIRED, room._PAIRED)


# Copies


def look(picture: Image.Image, folder: Path, **options: object) -> Look:
    path = folder / "look.jpg"
    picture.save(path, "JPEG", **options)
    return Look.of(read_image(path, SIZE))


COPIES = {
    "recompressed": lambda picture: (picture, {"quality": 60}),
    "halved": lambda picture: (picture.resize((picture.width // 2, picture.height // 2)), {"quality": 85}),
    "doubled": lambda picture: (picture.resize((picture.width * 2, picture.height * 2)), {"quality": 85}),
    "softened": lambda picture: (picture.filter(ImageFilter.GaussianBlur(0.5)), {"quality": 90}),
}


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    originals = [photograph(seed) for seed in range(25)]
    copies = [COPIES[kind](picture) for picture in originals]
    looks = [look(picture, tmp_path, quality=92) for picture in originals]
    looks += [look(picture, tmp_path, **options) for picture, options in copies]
    assert find_similar(looks) == [(number, number + 25) for number in range(25)]


def test_products_on_white_are_not_taken_for_each_other(tmp_path: Path) -> None:
    looks = [look(product(seed), tmp_path, quality=90) for seed in range(150)]
    bits = np.array([one.bits for one in looks])
    distances = np.bitwise_count(bits[:, None] ^ bits[None])[np.triu_indices(150, 1)]
    assert (distances <= 8).sum() > 50  # by the hash alone, many would be
    assert find_similar(looks) == []
    again = look(product(7), tmp_path, quality=80)
    assert find_similar([*looks, again]) == [(7, 150)]


def test_another_colour_of_a_detail_is_another_picture(tmp_path: Path) -> None:
    plain = product(1, (160, 120))
    red = plain.copy()
    red.paste((200, 20, 20), (65, 45, 95, 75))
    assert find_similar([look(plain, tmp_path), look(red, tmp_path)]) == []


def test_pictures_of_one_colour_are_no_copies_of_each_other(tmp_path: Path) -> None:
    blank = [look(Image.new("RGB", (50, 50), colour), tmp_path) for colour in ("white", "white", (254, 254, 254))]
    assert all(one.plain for one in blank)
    assert not look(product(0), tmp_path).plain
    assert find_similar(blank) == []
    assert find_similar([]) == find_similar([None, None]) == []


def test_every_picture_is_in_one_group_at_most(tmp_path: Path) -> None:
    looks = [look(photograph(seed % 4), tmp_path, quality=60 + seed) for seed in range(24)]
    assert find_similar([None, *looks]) == [tuple(range(start + 1, 25, 4)) for start in range(4)]


def test_45_000_pictures_take_seconds() -> None:
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 256, (45_000, 4, 3, 3), dtype=np.uint8).repeat(4, 1).repeat(6, 2)
    bits = rng.integers(0, 2**63, 45_000, dtype=np.uint64)
    looks = [Look(one, bit, 60.0) for one, bit in zip(cells, bits, strict=True)]
    looks[44_999] = looks[5]
    seconds = -os.times().user
    assert find_similar(looks) == [(5, 44_999)]
    assert seconds + os.times().user < 30


# The whole


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Identical files, a copy saved again, a broken and an absent file, a blank picture, and labels that contradict."""
    folder = tmp_path_factory.mktemp("planted")
    pictures: dict[str, Image.Image | bytes] = {f"{seed}.png": photograph(seed) for seed in range(12)}
    pictures["grey.png"] = photograph(50).convert("L")
    pictures["clear.png"] = photograph(51, (300, 320)).convert("RGBA")
    pictures["blank.png"] = Image.new("RGB", (40, 40), "white")
    pictures["broken.png"] = b"no picture"
    lines = ["image,long,red,kind,part"]
    lines += [
        f"{seed}.png,{seed % 2},{'NA' if seed < 3 else 1},{'shirt' if seed else 'hat'},train" for seed in range(12)
    ]
    lines += [
        "grey.png,0,1,shirt,train",
        "clear.png,1,NA,,val",
        "blank.png,1,0,shirt,train",
        "broken.png,1,1,shirt,val",
    ]
    lines += ["same.png,1,,shirt,test", "again.jpg,,0,shirt,val", "gone.png,1,1,shirt,train"]
    labels_path = write_data(folder, pictures, lines)
    shutil.copy(folder / "images" / "0.png", folder / "images" / "same.png")  # 0 says 0, same says 1
    photograph(5).resize((80, 60)).save(folder / "images" / "again.jpg")  # 5 says red, again says not
    return labels_path


@pytest.fixture(scope="module")
def inspected(planted: Path) -> Inspection:
    return inspect_labels(planted, tags=["kind"], split="part", min_count=3)


def test_what_was_planted_is_found(inspected: Inspection) -> None:
    row = {name: number for number, name in enumerate(inspected.names)}
    assert inspected.absent == ("gone.png",)
    assert inspected.pictures.broken == (
        ("broken.png", "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"),
    )
    assert inspected.pictures.plain == ("blank.png",)
    identical, similar = inspected.groups
    assert (identical.identical, identical.rows) == (True, (row["0.png"], row["same.png"]))
    assert identical.parts == ("test", "training")
    assert [(c.column, c.said) for c in identical.conflicts] == [
        ("long", ((row["0.png"], "0"), (row["same.png"], "1"))),
        ("kind", ((row["0.png"], "hat"), (row["same.png"], "shirt"))),
    ]
    assert (similar.identical, similar.rows) == (False, (row["5.png"], row["again.jpg"]))
    assert [(c.column, c.said) for c in similar.conflicts] == [("red", ((row["5.png"], "1"), (row["again.jpg"], "0")))]


def test_the_files_are_described_as_pillow_sees_them(inspected: Inspection) -> None:
    readable = [path for path in inspected.table.images if not path.endswith("broken.png")]
    opened = [Image.open(path) for path in readable]
    assert inspected.pictures.sizes.tolist() == [list(image.size) for image in opened]
    assert inspected.pictures.file_sizes.tolist() == [Path(path).stat().st_size for path in readable]
    assert dict(inspected.pictures.modes) == dict(pd.Series([image.mode for image in opened]).value_counts())
    assert dict(inspected.pictures.formats) == dict(pd.Series([image.format for image in opened]).value_counts())
    assert inspected.pictures.readable.sum() == len(readable)
    assert inspected.pictures.smaller == sum(image.width < 224 or image.height < 224 for image in opened)
    y = inspected.table.y
    assert inspected.known == (y != UNKNOWN).sum() + (inspected.table.tag_y != UNKNOWN).sum()
    assert inspected.cells == 3 * len(inspected.names)


def test_a_picture_turned_by_exif_has_the_size_that_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    labels_path = write_data(tmp_path, {}, ["image,a", "a.jpg,1"])
    Image.new("RGB", (90, 30), "red").save(tmp_path / "images" / "a.jpg", exif=exif)
    assert inspect_labels(labels_path).pictures.sizes.tolist() == [[30, 90]]


def test_what_stands_out_is_said_in_sentences(inspected: Inspection) -> None:
    assert [found.what for found in findings(inspected)] == [
        "1 picture of the labels file is not there: gone.png.",
        "1 file cannot be read: broken.png (not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or "
        "TIFF)).",
        "red has only 2 negatives in 13 known labels.",
        "red is present in 85% of its known labels, so always saying yes scores F1 0.92.",
        "Classes with fewer than 3 labels: 1 of 2 classes of kind (hat: 1).",
        "kind is 'shirt' in 94% of its known labels, so always saying that scores accuracy 0.94.",
        "The labels of copies of a picture disagree on long (0.png, same.png), kind (0.png, same.png).",
        "The labels of pictures that look alike disagree on red (5.png, again.jpg).",
        "The split puts copies or look-alikes into different parts: 2 groups, such as 0.png, same.png.",
        "2 pictures are copies, byte for byte: 0.png, same.png.",
        "Pictures look alike (saved again, resized or retouched): 5.png, again.jpg.",
        "1 picture is of nearly one colour: blank.png.",
        "16 of 17 pictures are narrower or lower than 224×224 pixels, and would be enlarged; typical is 160×120.",
    ]


def attribute_findings(y: list[list[int]], tmp_path: Path, **options: object) -> list[str]:
    names = [f"a{column}" for column in range(len(y[0]))]
    lines = [",".join(["image", *names])] + [",".join([f"{row}.png", *map(str, cells)]) for row, cells in enumerate(y)]
    pictures = {f"{row}.png": photograph(row, (230, 230)) for row in range(len(y))}
    inspection = inspect_labels(write_data(tmp_path, pictures, lines), **options)
    return [found.what for found in findings(inspection)]


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        ([[1], [0]] * 2, []),
        ([[1, -1], [0, -1]], ["No picture has a known label for a1."]),
        ([[1], [1]], ["a0 is never absent: all 2 known labels say present."]),
        ([[0], [-1]], ["a0 is never present: all 1 known label says absent."]),
        ([[1], [-1], [0], [-1], [-1]], ["Most labels are unknown of a0 (60%)."]),
        ([[1, 1], [0, 0]] * 10, ["1 pair of attributes nearly always goes together: a0 and a1 (phi 1.00)."]),
        ([[1, 0], [0, 1]] * 10, ["1 pair of attributes nearly always goes together: a0 and a1 (opposite, phi -1.00)."]),
        ([[1, 1], [0, 0]] * 2, []),  # so few agree by chance
    ],
)
def test_attributes_that_stand_out(y: list[list[int]], expected: list[str], tmp_path: Path) -> None:
    assert attribute_findings(y, tmp_path, min_count=1) == expected


def test_the_sentences_count_as_people_do() -> None:
    assert [counted(1, "class"), counted(2, "class"), counted(2, "copy"), counted(3_000, "picture")] == [
        "1 class",
        "2 classes",
        "2 copies",
        "3,000 pictures",
    ]


def test_every_broken_picture_is_named_and_none_stops_it(tmp_path: Path) -> None:
    broken = dict(broken_pictures(60))
    lines = ["image,a", "good.png,1", *(f"{name},{number % 2}" for number, name in enumerate(broken))]
    inspection = inspect_labels(write_data(tmp_path, {**broken, "good.png": photograph(0)}, lines))
    assert [name for name, _ in inspection.pictures.broken] == list(broken)
    assert inspection.pictures.readable.sum() == 1
    assert len(inspection_html(inspection)) < 200_000


def test_nothing_but_broken_pictures_can_be_described(tmp_path: Path) -> None:
    inspection = inspect_labels(write_data(tmp_path, {"a.png": b"x", "b.png": b""}, ["image,a", "a.png,1", "b.png,0"]))
    assert "Pictures: none can be read." in inspection_text(inspection)
    assert "No picture can be read." in inspection_html(inspection)


# Terminal and page


def test_the_terminal_is_short_and_the_page_has_everything(inspected: Inspection) -> None:
    text, page = inspection_text(inspected), inspection_html(inspected)
    unwrapped = " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if len(line.split()) > 1) <= 100
    assert (
        "18 pictures found, 1 absent, 1 unreadable; 2 attributes and 1 tag, 47 of 54 labels known (87%)." in unwrapped
    )
    for found in findings(inspected):
        assert f"{found.what} → {found.advice}" in unwrapped
        assert f"<strong>{escape(found.what)}</strong> {escape(found.advice)}" in page
    for said in ("gone.png", "broken.png", "Identical files; labels contradict on long, kind; in different parts"):
        assert said in page
    assert page.count("data:image/jpeg") > 10


def test_names_are_text_on_the_page(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    lines = [f"image,{name},kind", f"a.png,1,{name}", "b.png,0,other", "c.png,0,other"]
    pictures = {"a.png": photograph(1), "b.png": photograph(1), "c.png": photograph(2)}
    page = inspection_html(inspect_labels(write_data(tmp_path, pictures, lines), tags=["kind"]))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_page_of_very_much_is_below_5_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(60):  # noise makes the largest thumbnails
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "images" / f"{number}.png")
    attributes, tags, classes = 300, 40, 150
    names = [f"{'n' * 60}{n}" for n in range(attributes)] + [f"tag{n}" for n in range(tags)]
    lines = [",".join(["image", *names])]
    for row in range(3_000):
        image = f"{row}.png"
        if row >= 60:
            shutil.copyfile(tmp_path / "images" / f"{row % 60}.png", tmp_path / "images" / image)
        cells = [
            *rng.integers(0, 2, attributes).astype(str),
            *(f"{'c' * 60}{n}" for n in rng.integers(0, classes, tags)),
        ]
        lines.append(",".join([image, *cells]))
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    inspection = inspect_labels(tmp_path / "labels.csv", tags=[f"tag{n}" for n in range(tags)])
    assert len(inspection_html(inspection).encode()) < 5_000_000
    assert len(inspection_text(inspection).splitlines()) < 150


# The command


def test_the_command_prints_and_writes_the_page(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = run("--labels", planted, "--tags", "kind", "--split", "part", "--out", out)
    assert result.exit_code == 0, result.output
    assert "What to look at before training" in result.stdout
    assert result.stdout.endswith(f"The page is {out}.\n")
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_without_out_nothing_is_written(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("--labels", planted, "--tags", "kind", "--split", "part").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_one_sentence(planted: Path, tmp_path: Path) -> None:
    result = run("--labels", planted, "--tags", "kind", "--split", "part", "--out", tmp_path / "no" / "page.html")
    assert result.exit_code == 1
    assert (
        "page.html cannot be written (No such file or directory); choose another place for the page." in result.stderr
    )


def test_a_terminal_without_unicode_gets_its_text(planted: Path) -> None:
    command = [sys.executable, "-m", "multilabel", "inspect", "--labels", planted, "--tags", "kind", "--split", "part"]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"What to look at before training" in done.stdout


def test_wrong_use_is_one_sentence(planted: Path, tmp_path: Path) -> None:
    unknown_column = run("--labels", planted, "--tags", "kin")
    assert (unknown_column.exit_code, "did you mean 'kind'?" in unknown_column.stderr) == (2, True)
    absent = run("--labels", planted, "--tags", "kind", "--split", "part", "--images", tmp_path)
    assert (absent.exit_code, "is --images right?" in absent.stderr) == (1, True)
    with pytest.raises(DataError, match="is --labels right"):
        inspect_labels(tmp_path / "none.csv")


def test_it_needs_neither_keras_nor_tensorflow(planted: Path, tmp_path: Path) -> None:
    arguments = ["inspect", "--labels", str(planted), "--tags", "kind", "--split", "part", "--out", str(tmp_path / "p")]
    code = (
        "import sys\nfrom multilabel.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nobody watches, so no bar


def test_real_labels(shared: Path) -> None:
    inspection = inspect_labels(shared / "data" / "aimonk" / "labels.txt")
    raw = pd.read_csv(shared / "data" / "aimonk" / "labels.txt", sep=r"\s+", header=None, index_col=0)
    raw = raw.drop(list(inspection.absent))
    for column, facts in zip(raw, inspection.attributes, strict=True):
        assert (facts.positives, facts.negatives) == ((raw[column] == 1).sum(), (raw[column] == 0).sum())
    names = [[inspection.names[row] for row in group.rows] for group in inspection.groups]
    assert ["image_297.jpg", "image_452.jpg"] in names  # byte for byte
    assert ["image_22.jpg", "image_37.jpg"] in names  # saved again
    assert len(names) < 10
