"""Tables, where their pictures are, and what becomes of rare classes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multilabel.errors import DataError, UsageError
from multilabel.formats import read_labels
from multilabel.labels import UNKNOWN, LabelTable, Tag, class_counts, locate_images, pool_rare, pos_weight


def as_lists(table: LabelTable) -> tuple[list[str], list[list[int]], list[str]]:
    return list(table.images), table.y.tolist(), list(table.names)


def test_unknown_is_minus_one() -> None:
    assert UNKNOWN == -1


# The table


def test_take() -> None:
    table = LabelTable(("a", "b", "c"), np.array([[1], [0], [-1]], np.int8), ("x",), ("note",))
    for indices in ([2, 0], np.array([2, 0]), (2, 0)):
        taken = table.take(indices)
        assert as_lists(taken) == (["c", "a"], [[-1], [1]], ["x"])
        assert taken.notes == ("note",)
    assert table.take(np.array([True, False, True])).images == ("a", "c")
    assert table.take([]).y.shape == (0, 1)


def test_take_takes_tags_and_parts() -> None:
    tags = (Tag("t", ("x", "y")), Tag("u", ("p", "q")))
    tag_y = np.array([[0, 1], [1, -1], [-1, 0]], np.int16)
    table = LabelTable(("a", "b", "c"), np.empty((3, 0), np.int8), (), (), tags, tag_y, ("test", "", "training"))
    taken = table.take([2, 0])
    assert (taken.images, taken.y.shape, taken.tags) == (("c", "a"), (2, 0), tags)
    assert taken.tag_y.tolist() == [[-1, 0], [0, 1]]
    assert taken.tag_y.dtype == np.int16
    assert taken.parts == ("training", "test")
    plain = LabelTable(("a", "b"), np.zeros((2, 1), np.int8), ("x",))
    assert (plain.tag_y.shape, plain.take([0]).tag_y.shape, plain.take([0]).parts) == ((2, 0), (1, 0), None)


def test_pos_weight_against_a_plain_loop() -> None:
    y = np.random.default_rng(0).choice([1, 0, -1], p=[0.2, 0.5, 0.3], size=(40, 5)).astype(np.int8)
    y[:, 3] = np.where(y[:, 3] == 1, -1, y[:, 3])  # no positives
    y[:, 4] = -1
    positives, negatives = class_counts(y)
    for column in range(5):
        ones = sum(1 for value in y[:, column] if value == 1)
        zeros = sum(1 for value in y[:, column] if value == 0)
        assert (positives[column], negatives[column]) == (ones, zeros)
        assert pos_weight(y)[column] == (zeros / ones if ones and zeros else 1.0)
    assert pos_weight(np.ones((3, 1), np.int8)).tolist() == [1.0]
    assert pos_weight(y).dtype == np.float64


# Locating


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labels folder with `images/` (a, b), two pictures beside the labels (b, c) and another folder (a, d)."""
    for name in ("images/a.jpg", "images/b.jpg", "b.jpg", "c.jpg", "other/a.jpg", "other/sub/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path


def named(*images: str) -> LabelTable:
    return LabelTable(images, np.arange(len(images), dtype=np.int8)[:, None] % 2, ("x",), ("note",))


def test_pictures_beside_the_labels(folder: Path) -> None:
    table, absent = locate_images(named("./a.jpg", "b.jpg", "c.jpg", "z.jpg"), folder / "labels.txt", None)
    assert table.images == tuple(str(folder / name) for name in ("images/a.jpg", "images/b.jpg", "c.jpg"))
    assert table.y.tolist() == [[0], [1], [0]]
    assert table.notes == ("note",)
    assert absent == ("z.jpg",)


def test_relative_labels_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert locate_images(named("c.jpg"), "labels.txt", None)[0].images == (str(folder / "c.jpg"),)
    assert locate_images(named("a.jpg"), "labels.txt", Path("other"))[0].images == (str(folder / "other/a.jpg"),)


def test_a_given_folder_is_the_only_one(folder: Path) -> None:
    absolute = str(folder / "c.jpg")
    pictures = named("a.jpg", "sub/d.jpg", absolute, "b.jpg", str(folder / "z.jpg"))
    table, absent = locate_images(pictures, folder / "labels.txt", folder / "other")
    assert table.images == (str(folder / "other/a.jpg"), str(folder / "other/sub/d.jpg"), absolute)
    assert absent == ("b.jpg", str(folder / "z.jpg"))


def test_half_absent_is_accepted_and_more_is_not(folder: Path) -> None:
    labels = folder / "labels.txt"
    assert locate_images(named("a.jpg", "z.jpg"), labels, None)[1] == ("z.jpg",)
    with pytest.raises(DataError) as caught:
        locate_images(named("a.jpg", "y.jpg", "z.jpg"), labels, None)
    assert str(caught.value) == (
        f"{labels}: 2 of 3 pictures are not in {folder / 'images'} or {folder} (y.jpg, z.jpg); is --images right?"
    )
    with pytest.raises(DataError) as caught:
        locate_images(named(*(f"{n}.jpg" for n in range(9))), labels, folder / "other")
    assert str(caught.value) == (
        f"{labels}: 9 of 9 pictures are not in {folder / 'other'} "
        "(0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...); is --images right?"
    )


def test_strict_names_every_absent_picture(folder: Path) -> None:
    present = [str(folder / name) for name in ("images/a.jpg", "b.jpg", "c.jpg", "other/a.jpg")]
    present += ["images/b.jpg", "sub/d.jpg"]
    absent = [f"{n}.jpg" for n in range(6)]
    labels = folder / "labels.txt"
    (folder / "sub").mkdir()
    (folder / "sub/d.jpg").touch()
    with pytest.raises(DataError) as caught:
        locate_images(named(*present, *absent), labels, None, strict=True)
    assert str(caught.value) == (
        f"{labels}: 6 of 12 pictures are not in {folder / 'images'} or {folder} "
        "(0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg); without --strict they are left out."
    )
    assert locate_images(named(*present), labels, None, strict=True)[1] == ()


def test_the_images_folder_must_be_one(folder: Path) -> None:
    for wrong in (folder / "absent", folder / "c.jpg"):
        with pytest.raises(DataError) as caught:
            locate_images(named("a.jpg"), folder / "labels.txt", wrong)
        assert str(caught.value) == f"{wrong}: is not a folder; give the folder of the pictures with --images."


def test_a_folder_is_not_a_picture(folder: Path) -> None:
    assert locate_images(named("a.jpg", "other"), folder / "labels.txt", None)[1] == ("other",)


def test_one_file_under_two_names(folder: Path) -> None:
    labels = folder / "labels.txt"
    with pytest.raises(DataError) as caught:
        locate_images(named("a.jpg", "images/a.jpg"), labels, None)
    assert str(caught.value) == f"{labels}: 'a.jpg' and 'images/a.jpg' are the same file; name it once."


def test_pictures_beside_a_folder_of_labels(folder: Path) -> None:
    (folder / "styles").mkdir()
    for labels in (folder / "styles", f"{folder / 'styles'}/"):
        table, absent = locate_images(named("a.jpg", "c.jpg"), labels, None)
        assert table.images == (str(folder / "images/a.jpg"), str(folder / "c.jpg"))
        assert absent == ()


def test_located_tables_keep_tags_and_parts(folder: Path) -> None:
    tags, tag_y = (Tag("t", ("x", "y")),), np.array([[0], [1], [-1]], np.int16)
    images = ("a.jpg", "z.jpg", "c.jpg")
    table = LabelTable(images, np.empty((3, 0), np.int8), (), (), tags, tag_y, ("test", "", "training"))
    located, absent = locate_images(table, folder / "labels.csv", None)
    assert absent == ("z.jpg",)
    assert (located.tags, located.tag_y.tolist(), located.parts) == (tags, [[0], [-1]], ("test", "training"))


# Rare classes


def tagged(*labels: str, classes: str = "") -> LabelTable:
    """One tag; a character is a class, and `?` unknown."""
    names = tuple(sorted(set(classes or labels) - {"?"}))
    tag_y = np.array([[-1 if label == "?" else names.index(label)] for label in labels], np.int16).reshape(-1, 1)
    images = tuple(f"{number}.jpg" for number in range(len(labels)))
    return LabelTable(images, np.empty((len(labels), 0), np.int8), (), (), (Tag("t", names),), tag_y)


def said(table: LabelTable, column: int = 0) -> list[str]:
    return ["?" if number < 0 else table.tags[column].classes[number] for number in table.tag_y[:, column]]


def test_rare_classes_are_pooled_or_dropped() -> None:
    table = tagged(*"aaabbbcdd??")
    pooled, rare = pool_rare(table, min_count=3)
    assert pooled.tags == (Tag("t", ("a", "b", "None")),)
    assert said(pooled) == ["a"] * 3 + ["b"] * 3 + ["None"] * 3 + ["?"] * 2
    assert pooled.tag_y.dtype == np.int16
    dropped, dropped_too = pool_rare(table, min_count=3, rare="drop")
    assert dropped.tags == (Tag("t", ("a", "b")),)
    assert said(dropped) == ["a"] * 3 + ["b"] * 3 + ["?"] * 5
    assert rare == dropped_too == {"t": {"c": 1, "d": 2}}
    assert table.tags[0].classes == ("a", "b", "c", "d")
    assert said(table) == list("aaabbbcdd??")


def test_an_existing_pool_takes_in_and_is_exempt() -> None:
    table, rare = pool_rare(tagged(*"aaabccc"), min_count=2, pool_name="b")
    assert (table.tags[0].classes, rare) == (("a", "b", "c"), {})
    table, rare = pool_rare(tagged(*"aaabcdd"), min_count=2, pool_name="b")
    assert (table.tags[0].classes, said(table), rare) == (("a", "d", "b"), list("aaabbdd"), {"t": {"c": 1}})
    table, rare = pool_rare(tagged(*"aaabcdd"), min_count=2, pool_name="b", rare="drop")
    assert (table.tags[0].classes, said(table), rare) == (("a", "d"), list("aaa??dd"), {"t": {"b": 1, "c": 1}})


def test_classes_without_labels_make_no_pool() -> None:
    table, rare = pool_rare(tagged(*"aabb", classes="abc"), min_count=1)
    assert (table.tags[0].classes, rare) == (("a", "b"), {"t": {"c": 0}})


def test_a_share_is_met_exactly() -> None:
    labels = "a" * 93 + "b" * 7
    assert pool_rare(tagged(*labels), min_share=0.07)[1] == {}
    assert pool_rare(tagged(*labels, "a"), min_share=0.07)[1] == {"t": {"b": 7}}
    assert pool_rare(tagged(*labels, *"?" * 50), min_share=0.07)[1] == {}


def test_only_tags_with_rare_classes_change() -> None:
    tags = (Tag("t", ("x", "y")), Tag("u", ("None", "p", "q", "r")))
    tag_y = np.array([[0, 1], [1, 1], [0, 2], [1, 2], [-1, 3]], np.int16)
    table = LabelTable(tuple("abcde"), np.array([[1], [0], [-1], [1], [1]], np.int8), ("z",), ("n",), tags, tag_y)
    pooled, rare = pool_rare(table, min_count=2)
    assert rare == {"u": {"r": 1}}
    assert pooled.tags == (tags[0], Tag("u", ("p", "q", "None")))
    assert said(pooled, 0) == said(table, 0)
    assert said(pooled, 1) == ["p", "p", "q", "q", "None"]
    assert (pooled.y == table.y).all()
    assert (pooled.images, pooled.names, pooled.notes) == (table.images, table.names, table.notes)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    labels=st.lists(st.sampled_from("aaaabbbcd?"), min_size=1, max_size=60),
    min_count=st.integers(0, 8),
    percent=st.integers(0, 40),
    rare=st.sampled_from(["pool", "drop"]),
    pool_name=st.sampled_from(["None", "a", "c"]),
)
def test_pooling_against_counters_and_fractions(
    labels: list[str], min_count: int, percent: int, rare: str, pool_name: str
) -> None:
    table = tagged(*labels)
    counts = Counter(label for label in labels if label != "?")
    assume(len(counts) >= 2)
    needed = max(Fraction(min_count), Fraction(percent, 100) * counts.total())
    few = {name: count for name, count in counts.items() if count < needed}
    if rare == "pool":
        few.pop(pool_name, None)
    instead = pool_name if rare == "pool" else "?"
    expected = [instead if label in few else label for label in labels]
    arguments = {"min_count": min_count, "min_share": percent / 100, "rare": rare, "pool_name": pool_name}
    if few and len(set(expected) - {"?"}) < 2:
        with pytest.raises(DataError, match="ask for less, or leave the tag out"):
            pool_rare(table, **arguments)
        return
    pooled, taken = pool_rare(table, **arguments)
    assert said(pooled) == expected
    assert taken == ({"t": few} if few else {})
    last = [pool_name] if few and rare == "pool" else []
    assert list(pooled.tags[0].classes) == sorted(set(expected) - {"?", *last}) + last


def test_message_of_too_few_classes() -> None:
    with pytest.raises(DataError) as caught:
        pool_rare(tagged(*"aaab"), min_count=2, min_share=0.01, rare="drop")
    assert str(caught.value) == (
        "Tag t: 1 of 2 classes would be left, because a class needs 2 labels and 0.01 of all; "
        "ask for less, or leave the tag out."
    )
    with pytest.raises(UsageError) as caught:
        pool_rare(tagged(*"ab"), rare="keep")
    assert str(caught.value) == "'keep' is nothing to do with rare classes; choose pool or drop."


# The real file

AIMONK = "data/aimonk/labels.txt"


def test_aimonk_pictures(shared: Path) -> None:
    table, absent = locate_images(read_labels(shared / AIMONK), shared / AIMONK, None)
    assert absent == ("image_489.jpg", "image_624.jpg", "image_875.jpg")
    assert len(table.images) == len(table.y) == 700


# The floor


def test_importing_labels_is_light(root: Path) -> None:
    code = (
        "import sys, multilabel.formats, multilabel.labels, multilabel.splits; "
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'sklearn', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
