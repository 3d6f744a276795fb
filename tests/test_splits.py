"""Parts are a partition, keep equal pictures together, and hold rare labels wherever that is possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilabel.errors import DataError, LabelError, UsageError
from multilabel.labels import PARTS
from multilabel.splits import assign_parts, fixed_parts, read_parts, shared_groups, split_parts

SHARES = (0.8, 0.2)


def sparse_labels(seed, shape=(1000, 8), positives=0.1, unknown=0.5):
    rng = np.random.default_rng(seed)
    chance = [positives, 1 - positives - unknown, unknown]
    return rng.choice(np.array([1, 0, -1], np.int8), size=shape, p=chance)


def proportion_error(y, parts):
    """Mean distance between the labels in the second part and a fifth of them all, in labels per kind."""
    kinds = np.concatenate([y == 1, y == 0], axis=1)
    return np.abs(kinds[parts == 1].sum(0) - SHARES[1] * kinds.sum(0)).mean()


tables = (
    st.integers(1, 4)
    .flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([1, 0, -1, -1]), min_size=width, max_size=width), min_size=2, max_size=30
        )
    )
    .map(lambda rows: np.array(rows, np.int8))
)


@settings(deadline=None, max_examples=200)
@given(y=tables, data=st.data(), seed=st.integers(0, 5), shares=st.sampled_from([SHARES, (1, 1, 1), (0.5, 0.5)]))
def test_equal_groups_share_a_part_and_equal_seeds_give_equal_parts(y, data, seed, shares):
    groups = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(y), max_size=len(y)))
    parts = assign_parts(y, shares, groups=groups, seed=seed)
    assert parts.shape == (len(y),)
    assert set(parts) <= set(range(len(shares)))
    assert len(set(zip(groups, parts, strict=True))) == len(set(groups))
    assert (assign_parts(y, shares, groups=groups, seed=seed) == parts).all()


@settings(deadline=None, max_examples=200)
@given(
    y=tables,
    data=st.data(),
    val_share=st.floats(0.01, 0.49),
    test_share=st.just(0.0) | st.floats(0.01, 0.49),
    seed=st.integers(0, 5),
)
def test_the_parts_are_a_partition_and_none_is_empty(y, data, val_share, test_share, seed):
    groups = data.draw(st.lists(st.binary(min_size=1, max_size=1), min_size=len(y), max_size=len(y)))
    groups[0], groups[1], groups[-1] = b"first", b"second", b"last"
    test_share *= len(set(groups)) > 2
    parts = split_parts(y, val_share, test_share, groups=groups, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(len(y)))
    assert [bool(len(part)) for part in parts] == [True, True, bool(test_share)]
    for part in parts:
        assert (np.diff(part) > 0).all()


@settings(deadline=None, max_examples=100)
@given(count=st.integers(2, 12), label=st.sampled_from([1, 0]), seed=st.integers(0, 20), parts=st.integers(2, 5))
def test_a_rare_label_reaches_every_part_that_it_can(count, label, seed, parts):
    y = np.full((200, 1), -1, np.int8)
    y[np.random.default_rng(seed).choice(200, count, replace=False)] = label
    shares = (1 - 0.05 * (parts - 1),) + (0.05,) * (parts - 1)
    held = np.bincount(assign_parts(y, shares, seed=seed)[y[:, 0] == label], minlength=parts)
    assert (held > 0).sum() == min(count, parts)


@pytest.mark.parametrize("copies", [1, 5], ids=["pictures", "groups of 5 equal pictures"])
@pytest.mark.parametrize("label", [1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_two_positives_or_two_negatives_go_one_to_each_part(copies, label, seed):
    y = np.full((100, 3), 1 - label, np.int8)
    y[[10, 20], 1] = label
    y, groups = np.repeat(y, copies, axis=0), np.repeat(np.arange(100), copies).tolist()
    train, val, _ = split_parts(y, 0.2, groups=groups, seed=seed)
    assert (y[train, 1] == label).sum() == (y[val, 1] == label).sum() == copies


@pytest.mark.parametrize("seed", range(5))
def test_the_only_positive_is_for_training(seed):
    y = np.zeros((50, 2), np.int8)
    y[7, 0] = 1
    train, *_ = split_parts(y, 0.2, seed=seed)
    assert 7 in train


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shares", [SHARES, (0.7, 0.2, 0.1), (1, 1, 1, 1, 1)])
def test_sizes_and_labels_are_close_to_the_shares(shares, seed):
    y = sparse_labels(seed)
    parts = assign_parts(y, shares, seed=seed)
    wanted = np.array(shares) / sum(shares)
    assert np.bincount(parts) / len(y) == pytest.approx(wanted, abs=0.003)
    for kind in (1, 0):
        held = np.array([(y[parts == part] == kind).sum(axis=0) for part in range(len(shares))])
        assert held == pytest.approx(np.outer(wanted, (y == kind).sum(axis=0)), abs=3)


def test_pictures_without_a_known_label_fill_the_parts_to_their_sizes():
    y = np.full((100, 3), -1, np.int8)
    y[:7, 0] = 1
    parts = assign_parts(y, SHARES)
    assert np.bincount(parts).tolist() == [80, 20]
    assert np.bincount(parts[:7]).tolist() == [6, 1]


@pytest.mark.parametrize("positives", [0.02, 0.1, 0.3])
def test_labels_are_spread_far_better_than_by_chance(positives):
    ours, random = [], []
    for seed in range(5):
        y = sparse_labels(seed, positives=positives)
        ours.append(proportion_error(y, assign_parts(y, SHARES, seed=seed)))
        random.append(proportion_error(y, (np.random.default_rng(seed).random(len(y)) < SHARES[1]).astype(int)))
    assert np.mean(ours) < 0.15 * np.mean(random)


def test_the_seed_changes_the_parts():
    y = sparse_labels(0)
    assert (assign_parts(y, SHARES, seed=0) != assign_parts(y, SHARES, seed=1)).any()


@pytest.mark.parametrize(
    ("rows", "groups", "test_share", "message"),
    [
        (0, None, 0.0, "training and validation need at least 2 different pictures, and there are none."),
        (1, None, 0.0, "training and validation need at least 2 different pictures, and there is 1."),
        (3, ["same"] * 3, 0.0, "training and validation need at least 2 different pictures, and there is 1."),
        (2, None, 0.1, "training, validation and test need at least 3 different pictures, and there are 2."),
    ],
)
def test_too_few_pictures_cannot_be_split(rows, groups, test_share, message):
    with pytest.raises(DataError) as error:
        split_parts(np.ones((rows, 2), np.int8), 0.2, test_share, groups=groups)
    assert str(error.value) == f"Parts for {message}"


@pytest.mark.parametrize(
    ("val", "test"),
    [(0, 0), (1, 0), (-0.2, 0), (20, 0), (float("nan"), 0), (0.2, -0.1), (0.5, 0.5), (0.2, float("nan"))],
)
def test_shares_that_are_out_of_range(val, test):
    with pytest.raises(UsageError) as error:
        split_parts(np.ones((10, 2), np.int8), val, test)
    assert str(error.value) == (
        f"The validation share is {val} and the test share {test}; "
        "the first must be above 0, and both together below 1."
    )


# Tags


@pytest.mark.parametrize("seed", range(5))
def test_every_class_reaches_every_part_that_it_can(seed):
    rng = np.random.default_rng(seed)
    chances = 1 / np.arange(1, 21)
    y = np.stack([rng.choice(20, 600, p=chances / chances.sum()), rng.choice([-1, 0, 1], 600)], axis=1)
    parts = split_parts(y, 0.15, 0.15, seed=seed)
    for value, count in zip(*np.unique(y[:, 0], return_counts=True), strict=True):
        held = [(y[rows, 0] == value).sum() for rows in parts]
        assert sum(map(bool, held)) == min(count, 3)
        assert held == pytest.approx([0.7 * count, 0.15 * count, 0.15 * count], abs=2.5)


def test_the_two_pictures_of_a_class_go_one_to_each_part():
    y = np.full((100, 1), 7, np.int16)
    y[[10, 20]] = 3
    for seed in range(5):
        training, validation, _ = split_parts(y, 0.2, seed=seed)
        assert (y[training] == 3).sum() == (y[validation] == 3).sum() == 1


def test_a_class_is_dealt_out_like_a_label():
    labels = sparse_labels(0)
    renamed = np.where(labels == -1, -1, 7 * labels.astype(np.int16) + 2)  # 0 and 1 become classes 2 and 9
    assert (assign_parts(renamed, SHARES) == assign_parts(labels, SHARES)).all()


# Parts that the person fixed


def test_fixed_parts_are_taken_as_they_are():
    parts = ["test", "training", "", "validation", "training", "test"]
    training, validation, test = fixed_parts(parts, np.ones((6, 1), np.int8), 0.2)
    assert (training.tolist(), validation.tolist(), test.tolist()) == ([1, 4], [3], [0, 5])


@settings(deadline=None, max_examples=100)
@given(y=tables, data=st.data(), seed=st.integers(0, 3))
def test_a_missing_validation_part_comes_from_training(y, data, seed):
    parts = data.draw(st.lists(st.sampled_from(["training", "test", ""]), min_size=len(y), max_size=len(y)))
    parts[0] = parts[-1] = "training"
    groups = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=len(y), max_size=len(y)))
    groups[0], groups[-1] = "first", "last"
    training, validation, test = fixed_parts(parts, y, 0.3, groups=groups, seed=seed)
    marked = [row for row, part in enumerate(parts) if part == "training"]
    assert sorted([*training, *validation]) == marked
    assert len(training)
    assert len(validation)
    assert test.tolist() == [row for row, part in enumerate(parts) if part == "test"]
    assert shared_groups((training, validation), groups) == 0
    again = split_parts(y[marked], 0.3, groups=[groups[row] for row in marked], seed=seed)
    assert [rows.tolist() for rows in (training, validation)] == [[marked[n] for n in rows] for rows in again[:2]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["test", "validation", ""], "No picture is in the training part; mark those to train on with train."),
        ([], "No picture is in the training part; mark those to train on with train."),
        (
            ["training", "test", "test"],
            "Parts for training and validation need at least 2 different pictures, and there is 1.",
        ),
    ],
)
def test_message_of_parts_that_cannot_be(parts, message):
    with pytest.raises(DataError) as error:
        fixed_parts(parts, np.ones((len(parts), 1), np.int8), 0.2)
    assert str(error.value) == message


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([*PARTS, ""]), st.sampled_from("abc")), max_size=12))
def test_shared_groups_against_sets(pictures):
    rows = [np.array([n for n, (part, _) in enumerate(pictures) if part == name], int) for name in PARTS]
    found = {group: {part for part, other in pictures if other == group} - {""} for _, group in pictures}
    assert shared_groups(rows, [group for _, group in pictures]) == sum(len(parts) > 1 for parts in found.values())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "parts.txt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_of_parts(file, end, encoding):
    lines = [
        "# a comment",
        "",
        "a.jpg train",
        "my photo.jpg  TEST",
        "x,y.jpg,Validation",
        "b.jpg\tval ",
        "c.jpg , valid",
    ]
    lines += ["c.jpg , valid", "train.jpg train", "test test", "a.jpg training"]
    file.write_bytes(end.join(lines).encode(encoding))
    assert read_parts(file) == {
        "a.jpg": "training",
        "my photo.jpg": "test",
        "x,y.jpg": "validation",
        "b.jpg": "validation",
        "c.jpg": "validation",
        "train.jpg": "training",
        "test": "test",
    }


def test_all_bad_lines_of_a_file_of_parts_are_reported_at_once(file):
    file.write_text("image,part\na.jpg train\nb.jpg\nmy b.jpg dev\n,,\n# fine\na.jpg test\na.jpg train\n")
    with pytest.raises(LabelError) as error:
        read_parts(file)
    assert str(error.value) == (
        f"{file}: 5 lines cannot be used; correct them and run again.\n"
        "  line 1: image: the part is 'part'; expected train, val or test\n"
        "  line 3: 'b.jpg' is not a name and a part; expected 'image_0.jpg train'\n"
        "  line 4: my b.jpg: the part is 'dev'; expected train, val or test\n"
        "  line 5: ',,' is not a name and a part; expected 'image_0.jpg train'\n"
        "  line 7: a.jpg: the part is test, but line 2 says training"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "holds no parts; expected lines like 'image_0.jpg train'."),
        (b"caf\xe9 train\n", "is not UTF-8 text (byte 0xe9 at position 3); save the parts as UTF-8 text."),
        (None, "cannot be read (No such file or directory); is its path right?"),
    ],
)
def test_message_of_a_bad_file_of_parts(file, content, message):
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_parts(file)
    assert str(error.value) == f"{file}: {message}"
