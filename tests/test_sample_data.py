"""The pictures in data/ are what data/README.md says, and the program that drew them draws them again."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
HEART = 3  # its column


def read_rows() -> dict[str, list[str]]:
    rows = [line.split() for line in (DATA / "labels.txt").read_text(encoding="utf-8").splitlines()]
    return {name: cells for name, *cells in rows}


def read_regions() -> dict[str, tuple[int, ...]]:
    header, *lines = (DATA / "regions.csv").read_text(encoding="utf-8").splitlines()
    assert header == "image,attribute,x0,y0,x1,y1"
    rows = [line.split(",") for line in lines]
    assert {attribute for _, attribute, *_ in rows} == {"heart"}
    return {name: tuple(int(value) for value in box) for name, _, *box in rows}


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def absent_and_broken() -> tuple[list[str], list[str]]:
    absent, broken = [], []
    for name in read_rows():
        path = DATA / "images" / name
        if not path.exists():
            absent.append(name)
            continue
        try:
            read_pixels(path)
        except OSError:
            broken.append(name)
    return absent, broken


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command in data/README.md writes."""
    out = tmp_path_factory.mktemp("redrawn")
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    command = next(line for line in readme.splitlines() if line.startswith("    python "))
    assert command.strip() in (ROOT / "examples" / "make_sample_data.py").read_text(encoding="utf-8")
    _, *arguments = shlex.split(command)
    arguments[arguments.index("--out") + 1] = str(out)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)
    return out


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000


def test_every_row_has_a_name_of_its_own_and_four_cells() -> None:
    text = (DATA / "labels.txt").read_text(encoding="utf-8")
    rows = read_rows()
    assert len(rows) == len(text.splitlines()) == 400
    assert {len(cells) for cells in rows.values()} == {4}
    assert {cell for cells in rows.values() for cell in cells} == {"0", "1", "NA"}


def test_a_tenth_of_the_cells_is_unknown_and_never_a_whole_row() -> None:
    unknown = np.array(list(read_rows().values())) == "NA"
    assert 0.08 < unknown.mean() < 0.12
    assert not unknown.all(axis=1).any()


@pytest.mark.parametrize(("column", "low", "high"), [(0, 0.4, 0.6), (1, 0.4, 0.6), (2, 0.4, 0.6), (HEART, 0.07, 0.09)])
def test_three_attributes_are_balanced_and_one_is_rare(column: int, low: float, high: float) -> None:
    cells = [row[column] for row in read_rows().values()]
    known = [cell for cell in cells if cell != "NA"]
    assert low < known.count("1") / len(known) < high


def test_three_pictures_are_absent_and_one_is_broken_as_the_readme_says() -> None:
    absent, broken = absent_and_broken()
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert len(absent) == 3
    assert len(broken) == 1
    with pytest.raises(OSError, match="truncated"):
        read_pixels(DATA / "images" / broken[0])
    assert f"3 rows name a picture that does not exist: {', '.join(f'`{name}`' for name in absent)};" in readme
    assert f"1 picture is cut off in the middle and cannot be read: `{broken[0]}`." in readme


def test_every_picture_has_a_row() -> None:
    assert {path.name for path in (DATA / "images").iterdir()} <= set(read_rows())


def test_the_readme_counts_the_labels() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    table = [
        line.strip("| ").split(" | ")
        for line in readme.splitlines()
        if line.startswith(("| 1 ", "| 2 ", "| 3 ", "| 4 "))
    ]
    columns = list(zip(*read_rows().values(), strict=True))
    assert [row[1] for row in table] == ["`long_sleeves`", "`stripes`", "`buttons`", "`heart`"]
    assert [[int(count) for count in row[3:]] for row in table] == [
        [column.count(text) for text in ("1", "0", "NA")] for column in columns
    ]


def test_the_regions_are_those_of_the_pictures_with_a_heart() -> None:
    absent, broken = absent_and_broken()
    readable = {name: cells[HEART] for name, cells in read_rows().items() if name not in absent + broken}
    regions = set(read_regions())
    assert {name for name, heart in readable.items() if heart == "1"} <= regions
    assert regions <= {name for name, heart in readable.items() if heart != "0"}


def test_there_is_red_in_the_regions_and_nowhere_else() -> None:
    absent, broken = absent_and_broken()
    regions = read_regions()
    for name in read_rows().keys() - {*absent, *broken}:
        pixels = read_pixels(DATA / "images" / name)
        red = pixels[..., 0] - pixels[..., 1:].max(axis=-1) > 70
        x0, y0, x1, y1 = regions.get(name, (0, 0, 0, 0))
        inside = red[y0:y1, x0:x1]
        assert red.sum() - inside.sum() < 20, name  # an orange stripe's edge may pass for red
        assert name not in regions or inside.mean() > 0.2, name


def test_drawing_again_gives_the_same_labels_and_regions(redrawn: Path) -> None:
    for name in ("labels.txt", "regions.csv", "README.md"):
        expected = (DATA / name).read_text(encoding="utf-8")
        assert (redrawn / name).read_text(encoding="utf-8") == expected


def test_drawing_again_gives_the_same_pictures(redrawn: Path) -> None:
    names = sorted(path.name for path in (DATA / "images").iterdir())
    assert sorted(path.name for path in (redrawn / "images").iterdir()) == names
    _, broken = absent_and_broken()
    for name in set(names) - set(broken):
        difference = read_pixels(DATA / "images" / name) - read_pixels(redrawn / "images" / name)
        assert np.abs(difference).mean() < 2, name  # another Pillow may round and compress a little differently


def test_another_seed_draws_something_else_and_replaces_what_was_there(tmp_path: Path) -> None:
    def draw(seed: int) -> tuple[str, dict[str, bytes]]:
        program = ["examples/make_sample_data.py", "--out", str(tmp_path), "--count", "20", "--seed", str(seed)]
        subprocess.run([sys.executable, *program], cwd=ROOT, check=True)
        pictures = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
        return (tmp_path / "labels.txt").read_text(encoding="utf-8"), pictures

    labels, pictures = draw(seed=0)
    other_labels, other_pictures = draw(seed=1)
    assert len(pictures) == len(other_pictures) == 17
    assert other_labels != labels
    assert not set(pictures.values()) & set(other_pictures.values())
    assert draw(seed=0) == (labels, pictures)
