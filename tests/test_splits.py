"""Parts are a partition, keep equal pictures together, and hold rare labels wherever that is possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multilabel.errors import DataError, UsageError
from multilabel.splits import assign_parts, split_parts

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
