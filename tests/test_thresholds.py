"""Thresholds are the exact maximum of F-beta, or keep a precision, by oracles that try every cut."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score, fbeta_score

from multilabel.errors import DataError, UsageError
from multilabel.thresholds import (
    Threshold,
    apply_thresholds,
    best_threshold,
    choose_thresholds,
    cross_fit_thresholds,
    precise_threshold,
)

LOWEST = np.float32(0.3)
NEXT = np.nextafter(LOWEST, np.float32(1))
AFTER = np.nextafter(NEXT, np.float32(1))


def every_cut(y, p, beta):
    """{F-beta: largest present set with it}, of all cuts between distinct probabilities, as exact fractions."""
    square, found = Fraction(beta) ** 2, {}
    for cut in sorted(set(p[y != -1].tolist())):
        present = p >= cut
        true, called = int(np.sum(present & (y == 1))), int(np.sum(present & (y != -1)))
        found[(1 + square) * true / (square * int(np.sum(y == 1)) + called)] = present  # the highest cut is the last
    return found


def cells(dtype):
    probability = st.one_of(
        st.sampled_from([0.0, float(LOWEST), float(NEXT), float(AFTER), 0.5, 1.0]),
        st.floats(0, 1, width=np.finfo(dtype).bits),
    )
    return st.lists(st.tuples(st.sampled_from([1, 1, 0, -1]), probability), min_size=1, max_size=25).map(
        lambda rows: (np.array([y for y, _ in rows], np.int8), np.array([p for _, p in rows], dtype))
    )


@settings(deadline=None, max_examples=500)
@given(data=st.one_of(cells(np.float32), cells(np.float64)), beta=st.sampled_from([0.5, 1.0, 2.0]))
@example(data=(np.array([0, 1], np.int8), np.array([LOWEST, NEXT])), beta=1.0)
@example(data=(np.array([0, 1], np.int8), np.array([NEXT, AFTER])), beta=1.0)
@example(data=(np.array([1, 1], np.int8), np.zeros(2, np.float32)), beta=1.0)
@example(data=(np.array([1, 0], np.int8), np.zeros(2)), beta=1.0)
@example(data=(np.array([1, 0], np.int8), np.ones(2)), beta=1.0)
def test_the_threshold_is_the_best_of_all_cuts_and_the_highest_of_equals(data, beta):
    y, p = data
    if not (y == 1).any():
        y[0] = 1
    known = y != -1
    threshold, quality = best_threshold(y, p, beta)
    cuts = every_cut(y, p, beta)
    present = apply_thresholds(p[:, None], [Threshold(threshold, "tuned", 1)])[:, 0]
    assert present[known].tolist() == cuts[max(cuts)][known].tolist()
    assert quality == pytest.approx(float(max(cuts)), abs=1e-15)
    assert fbeta_score(y[known], present[known], beta=beta) == pytest.approx(quality, abs=1e-12)
    assert p.dtype.type(threshold) == threshold  # so comparing in the precision of p gives the same
    assert ((p > p.dtype.type(threshold)) == present).all()


@pytest.mark.parametrize(
    ("y", "p", "expected"),
    [
        pytest.param([0, 1], [0.25, 0.75], 0.5, id="halfway"),
        pytest.param([0, 1, 1], [0.25, 0.5, 0.75], 0.375, id="below the lowest present, not below the highest"),
        pytest.param([1, 0, -1, 1], [0.9, 0.2, 0.5, 0.6], 0.4, id="unknown cells do not narrow the gap"),
        pytest.param([1, 1], [0.5, 0.25], 0.125, id="everything present: half the lowest"),
        pytest.param([1, 0], [0.0, 0.0], -np.finfo(np.float64).tiny, id="everything present at 0: just below 0"),
        pytest.param([1, 0, 0, 1], [0.8, 0.6, 0.4, 0.2], 0.7, id="equal F1 of 2/3: the highest"),
    ],
)
def test_where_the_threshold_lies(y, p, expected):
    assert best_threshold(np.array(y, np.int8), np.array(p))[0] == pytest.approx(expected, abs=1e-15)


def test_between_neighbouring_floats_the_threshold_is_the_lower_one():
    for lower, upper in [(LOWEST, NEXT), (NEXT, AFTER)]:  # of one of the two the middle rounds up
        assert best_threshold(np.array([0, 1], np.int8), np.array([lower, upper]))[0] == float(lower)


def test_a_higher_beta_lowers_the_threshold():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000).astype(np.int8)
    p = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1)
    values = [best_threshold(y, p, beta)[0] for beta in (0.25, 0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 5


def test_without_a_positive_there_is_no_best_threshold():
    with pytest.raises(DataError) as error:
        best_threshold(np.array([0, -1], np.int8), np.array([0.5, 0.5]))
    assert str(error.value) == "None of the known labels is positive, so there is nothing to choose a threshold by."


@pytest.mark.parametrize("label", [1, 0])
def test_nan_probabilities_are_refused_where_the_label_is_known(label):
    y, p = np.array([1, 0, label, -1], np.int8), np.array([0.5, 0.5, 0.5, np.nan])
    assert best_threshold(y, p)[0] == 0.25
    p[2] = np.nan
    with pytest.raises(DataError) as error:
        best_threshold(y, p)
    assert str(error.value) == "Some probabilities are not numbers (NaN): train again with a smaller learning rate."


def test_rare_attributes_share_the_threshold_of_all_cells():
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=(200, 3), p=[0.3, 0.5, 0.2])
    y[:, 1] = np.where(np.arange(200) < 9, 1, 0)
    y[:, 2] = np.where(np.arange(200) < 10, 1, -1)
    p = np.clip(rng.normal(0.4 + 0.2 * (y == 1), 0.2), 0, 1).astype(np.float32)
    chosen = choose_thresholds(y, p)
    assert chosen == [
        Threshold(best_threshold(y[:, 0], p[:, 0])[0], "tuned", int((y[:, 0] == 1).sum())),
        Threshold(best_threshold(y.ravel(), p.ravel())[0], "shared", 9),
        Threshold(best_threshold(y[:, 2], p[:, 2])[0], "tuned", 10),
    ]
    assert [threshold.source for threshold in choose_thresholds(y, p, min_positives=0)] == ["tuned"] * 3
    assert choose_thresholds(y, p, beta=2.0)[0].value == best_threshold(y[:, 0], p[:, 0], 2.0)[0]


def test_thresholds_do_not_depend_on_the_labels_of_other_attributes_once_there_are_enough_positives():
    rng = np.random.default_rng(0)
    y, p = rng.integers(-1, 2, (300, 2)).astype(np.int8), rng.random((300, 2))
    before = choose_thresholds(y, p)[0]
    y[:, 1] *= -1
    assert choose_thresholds(y, p)[0] == before


def test_without_any_positive_the_threshold_is_one_half():
    y = np.array([[0, -1], [0, -1]], np.int8)
    assert choose_thresholds(y, np.full(y.shape, 0.3)) == [Threshold(0.5, "default", 0)] * 2


def test_an_attribute_without_positives_gets_the_shared_threshold():
    y = np.array([[1, 0], [0, 0]], np.int8)
    chosen = choose_thresholds(y, np.array([[0.75, 0.25], [0.25, 0.25]]), min_positives=0)
    assert [threshold.source for threshold in chosen] == ["tuned", "shared"]
    chosen = choose_thresholds(y, np.array([[0.75, 0.25], [0.25, 0.25]]))
    assert chosen == [Threshold(0.5, "shared", 1), Threshold(0.5, "shared", 0)]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError) as error:
        choose_thresholds(np.zeros((3, 2), np.int8), np.zeros((3, 1)))
    assert str(error.value) == (
        "Labels of shape (3, 2) and probabilities of shape (3, 1) do not fit: give (n, attributes) each."
    )


def test_applying_compares_strictly_and_in_full_precision():
    p = np.array([[0.5, 0.1], [0.75, 0.1]], np.float32)  # as a float32, 0.1 is 0.10000000149
    thresholds = [Threshold(0.5, "default", 0), Threshold(0.1, "given", 0)]
    assert apply_thresholds(p, thresholds).tolist() == [[False, True], [True, True]]


def test_tuned_f1_is_never_below_that_of_one_half():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (100, 5)).astype(np.int8), rng.random((100, 5))
    tuned = f1_score(y, apply_thresholds(p, choose_thresholds(y, p)), average=None)
    assert (tuned >= f1_score(y, p > 0.5, average=None)).all()


# --- a wanted precision


def kept_by_every_cut(y, p, floor):
    """The oracle: the cells called present by the lowest cut below a positive, of those that keep the precision."""
    called = []
    for cut in sorted(set(p[y == 1].tolist()), reverse=True):
        count = int(np.sum((p >= cut) & (y != -1)))
        near = [c for c in set(p[y != -1].tolist()) if 0.8 * count <= np.sum((p >= c) & (y != -1)) <= count]
        lows = [
            binomtest(int(np.sum((p >= c) & (y == 1))), int(np.sum((p >= c) & (y != -1)))).proportion_ci(
                method="wilson"
            )
            for c in near
        ]
        if min(low.low for low in lows) >= floor:
            called.append(p >= cut)
    return called[-1] if called else None


@settings(deadline=None, max_examples=150)
@given(data=st.one_of(cells(np.float32), cells(np.float64)), floor=st.sampled_from([0.05, 0.2, 0.3, 0.5, 0.7]))
def test_a_precise_threshold_is_the_lowest_whose_near_cuts_all_keep_the_precision(data, floor):
    y, p = data
    expected, threshold = kept_by_every_cut(y, p, floor), precise_threshold(y, p, floor)
    if expected is None:
        assert threshold is None
    else:
        assert threshold is not None
        assert ((p > np.float64(threshold)) == expected)[y != -1].all()
        assert p.dtype.type(threshold) == threshold


def separable(n=100, positives=60):
    y = (np.arange(n) < positives).astype(np.int8)
    return y[:, None], np.linspace(0.9, 0.1, n)[:, None]


def test_all_positives_are_called_where_that_keeps_the_precision():
    y, p = separable()
    (threshold,) = choose_thresholds(y, p, min_precision=0.9)
    assert (threshold.source, threshold.positives) == ("precision", 60)
    present = p[:, 0] > threshold.value
    assert present[:60].all()
    assert 60 <= present.sum() <= 62
    stricter = choose_thresholds(y, p, min_precision=0.92)[0]
    assert threshold.value <= stricter.value


def test_a_precision_that_cannot_be_kept_is_refused_by_name_with_what_could_be_kept():
    y, p = separable(positives=20)
    y, p = np.repeat(y, 2, axis=1), np.repeat(p, 2, axis=1)
    y[:, 0] = np.arange(100) < 90
    with pytest.raises(DataError) as error:
        choose_thresholds(y, p, min_precision=0.9, names=("hat", "scarf"))
    assert str(error.value) == (
        "scarf: no threshold can be shown to keep a precision of 0.9; from its 20 positive and 80 negative labels the "
        "best that is certain (95% Wilson lower bound) is 0.806. Ask for less, or label more pictures."
    )
    assert [threshold.source for threshold in choose_thresholds(y, p, min_precision=0.806)] == ["precision"] * 2
    assert str(error.value).startswith("scarf")
    with pytest.raises(DataError, match=r"^The attribute in column 1 \(counted from 0\): no threshold can be shown"):
        choose_thresholds(y, p, min_precision=0.9)


@pytest.mark.parametrize("label", [0, -1])
def test_without_positives_no_precision_can_be_kept(label):
    y, p = np.full((5, 1), label, np.int8), np.full((5, 1), 0.5)
    with pytest.raises(DataError) as error:
        choose_thresholds(y, p, min_precision=0.5, names=("hat",))
    assert str(error.value) == (
        "hat: no threshold can be shown to keep a precision, for none of its labels is positive; label some."
    )
    (never,) = choose_thresholds(y, p, min_precision=0.5, or_never=True)
    assert never == Threshold(1.0, "precision", 0)
    assert not apply_thresholds(np.ones((1, 1)), [never]).any()


@pytest.mark.parametrize("precision", [0.0, 1.0, -1.0, float("nan")])
def test_a_precision_that_is_none_is_refused(precision):
    with pytest.raises(UsageError) as error:
        choose_thresholds(*separable(), min_precision=precision)
    assert str(error.value) == f"The precision to keep is {precision}; expected a number above 0 and below 1."


def test_a_precision_is_kept_by_each_attribute_alone():
    with pytest.raises(UsageError) as error:
        choose_thresholds(*separable(), min_precision=0.9, shared=True)
    assert str(error.value) == ("A precision is kept by each attribute for itself: leave out either it or shared.")


def test_nan_probabilities_are_refused_when_a_precision_is_kept():
    y, p = separable()
    p[3] = np.nan
    with pytest.raises(DataError) as error:
        choose_thresholds(y, p, min_precision=0.5)
    assert str(error.value) == "Some probabilities are not numbers (NaN): train again with a smaller learning rate."
    y[3] = -1
    assert choose_thresholds(y, p, min_precision=0.5)


# --- one threshold for all, and folds


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_shared_threshold_is_the_best_for_all_cells_together(beta):
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=(200, 3))
    p = rng.random(y.shape)
    value = best_threshold(y.ravel(), p.ravel(), beta)[0]
    expected = [Threshold(value, "shared", int(count)) for count in (y == 1).sum(axis=0)]
    assert choose_thresholds(y, p, beta, shared=True) == expected
    assert choose_thresholds(np.minimum(y, 0), p, shared=True) == [Threshold(0.5, "default", 0)] * 3


def test_each_fold_is_called_by_thresholds_of_the_others():
    rng = np.random.default_rng(0)
    y, p = rng.integers(-1, 2, (120, 3)).astype(np.int8), rng.random((120, 3))
    folds = rng.integers(4, size=120)
    seen = []

    def choose(labels, probabilities):
        seen.append((labels, probabilities))
        return choose_thresholds(labels, probabilities)

    present, spreads = cross_fit_thresholds(y, p, folds, choose)
    by_fold = []
    for fold in range(4):
        others = folds != fold
        by_fold.append([best_threshold(y[others, column], p[others, column])[0] for column in range(3)])
        assert (present[~others] == (p[~others] > by_fold[-1])).all()
        assert (seen[fold][0] == y[others]).all()
        assert (seen[fold][1] == p[others]).all()
    assert spreads == [(low, high) for low, high in zip(np.min(by_fold, axis=0), np.max(by_fold, axis=0), strict=True)]


def test_the_labels_of_a_fold_do_not_change_what_is_called_present_in_it():
    rng = np.random.default_rng(0)
    y, p, folds = rng.integers(0, 2, (60, 2)).astype(np.int8), rng.random((60, 2)), np.arange(60) % 3
    before = cross_fit_thresholds(y, p, folds, choose_thresholds)[0]
    y[folds == 1] = 1 - y[folds == 1]
    after = cross_fit_thresholds(y, p, folds, choose_thresholds)[0]
    assert (before[folds == 1] == after[folds == 1]).all()
    assert (before != after).any()


def test_a_fold_with_all_positives_is_called_by_the_default_of_the_others():
    y, p = np.zeros((6, 1), np.int8), np.array([[0.6], [0.4], [0.3], [0.2], [0.1], [0.7]])
    y[:2] = 1
    present, spreads = cross_fit_thresholds(y, p, np.array([7, 7, 8, 8, 9, 9]), choose_thresholds)
    assert present[:2, 0].tolist() == [True, False]
    assert spreads[0][1] == 0.5


def test_folds_that_do_not_fit_are_refused():
    with pytest.raises(DataError) as error:
        cross_fit_thresholds(np.zeros((3, 2), np.int8), np.zeros((3, 2)), np.zeros(2), choose_thresholds)
    assert str(error.value) == (
        "Labels of shape (3, 2), probabilities of shape (3, 2) and folds of shape (2,) do not fit: "
        "give (n, attributes) twice, then (n,)."
    )
