"""Calibration against scikit-learn and SciPy on the known cells, and what it must never do."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from multilabel.calibration import (
    FEWEST,
    Platt,
    Temperature,
    calibrate_attribute,
    calibrate_tag,
    confidence,
    fit_platt,
    fit_temperature,
    log_loss,
    reliability,
    unweighted,
)
from multilabel.errors import DataError
from multilabel.metrics.masked import expected_calibration_error
from multilabel.metrics.single import wilson


def attribute(seed, n=400, slope=0.4, intercept=-0.5, unknown=0.2):
    """Labels and logits whose best calibration is about `slope` and `intercept`."""
    rng = np.random.default_rng(seed)
    z = 3 * rng.normal(size=n) + 1
    y = (rng.random(n) < expit(slope * z + intercept)).astype(np.int8)
    return np.where(rng.random(n) < unknown, -1, y), z


def tag(seed, n=500, temperature=2.5, classes=4, unknown=0.2):
    """Labels and logits whose best calibration is about `temperature`."""
    rng = np.random.default_rng(seed)
    z = 4 * rng.normal(size=(n, classes))
    shares = np.exp(log_softmax(z / temperature, axis=1))
    y = (rng.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return np.where(rng.random(n) < unknown, -1, y), z


def dealt(n, folds=5, seed=0):
    return np.random.default_rng(seed).permutation(np.arange(n) % folds)


@pytest.mark.parametrize("seed", range(5))
def test_platt_is_logistic_regression_on_smoothed_targets(seed):
    y, z = attribute(seed)
    positive, known = y[y != -1] == 1, z[y != -1]
    ones, zeros = positive.sum(), (~positive).sum()
    target = np.where(positive, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    # Every cell is there twice, as a positive and as a negative, with the target and its rest as weights.
    oracle = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        np.concatenate([known, known])[:, None],
        np.repeat([1, 0], len(known)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    fitted = fit_platt(y, z)
    assert fitted.slope == pytest.approx(oracle.coef_[0, 0], rel=1e-4)
    assert fitted.intercept == pytest.approx(oracle.intercept_[0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0), (1e3, 0), (1, 1e4), (1e4, -1e6)])
def test_platt_does_not_depend_on_the_scale_of_the_logits(scale, shift):
    y, z = attribute(0)
    fitted, moved = fit_platt(y, z), fit_platt(y, z * scale + shift)
    assert moved.slope * scale == pytest.approx(fitted.slope, rel=1e-5)
    assert moved.logits(z * scale + shift) == pytest.approx(fitted.logits(z), rel=1e-4, abs=1e-4)


def test_platt_stays_finite_where_a_threshold_separates_the_classes():
    y, z = np.repeat([0, 1], 50), np.concatenate([np.linspace(-9, -1, 50), np.linspace(1, 9, 50)])
    fitted = fit_platt(y, z)
    assert 0.5 < fitted.slope < 10
    assert expit(fitted.logits(np.array([9.0, -9.0]))) == pytest.approx([51 / 52, 1 / 52], abs=0.02)


@pytest.mark.parametrize(
    ("y", "z"),
    [
        (np.repeat([1, 0], 50), -np.linspace(1, 0, 100)),  # higher logits mean fewer positives
        (np.repeat([1, 0], [FEWEST - 1, 90]), np.linspace(1, 0, FEWEST + 89)),
        (np.repeat([1, 0], [90, FEWEST - 1]), np.linspace(1, 0, FEWEST + 89)),
        (np.ones(100, int), np.linspace(1, 0, 100)),
        (np.full(100, -1), np.linspace(1, 0, 100)),
        (np.repeat([1, 0], 50), np.full(100, 0.1)),  # whose mean is not exactly 0.1
        (np.zeros(0, int), np.zeros(0)),
    ],
)
def test_platt_gives_the_prior_where_there_is_nothing_to_learn(y, z):
    assert fit_platt(y, z) == Platt()
    assert fit_platt(y, z, Platt(1, -2)) == Platt(1, -2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_a_temperature_minimises_the_log_loss(seed, true):
    y, z = tag(seed, temperature=true)
    truth, known = y[y != -1], z[y != -1]

    def loss(value):
        """With N known cells, one more of any class."""
        target = np.full(known.shape, 1 / 4)
        target[np.arange(len(truth)), truth] += len(truth)
        return -(target / (len(truth) + 1) * log_softmax(known / value, axis=1)).sum(axis=1).mean()

    fitted = fit_temperature(y, z).value
    oracle = minimize_scalar(lambda inverse: loss(1 / inverse), bounds=(0.05, 20), method="bounded")
    assert fitted == pytest.approx(1 / oracle.x, rel=1e-3)
    assert loss(fitted) <= min(loss(value) for value in np.geomspace(0.05, 20, 200)) + 1e-9


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_with_many_labels_a_temperature_is_that_of_the_plain_log_loss(true):
    y, z = tag(0, 20_000, true)
    plain = min(np.geomspace(0.9 * true, 1.1 * true, 200), key=lambda value: log_loss(y, z / value))
    assert fit_temperature(y, z).value == pytest.approx(plain, rel=0.01)
    assert plain == pytest.approx(true, rel=0.05)


def test_a_temperature_stays_moderate_where_all_calls_are_right():
    y = np.arange(100) % 3
    fitted = fit_temperature(y, 4 * np.eye(3)[y]).value
    # The most certain that 100 cells can make us: about (100 + 1/3) / 101.
    p = np.exp(log_softmax(4 * np.eye(3)[0] / fitted))[0]
    assert p == pytest.approx((100 + 1 / 3) / 101, abs=1e-4)


@pytest.mark.parametrize(
    ("y", "z"),
    [
        (np.arange(FEWEST - 1) % 2, np.eye(2)[np.arange(FEWEST - 1) % 2]),
        (np.full(100, -1), np.ones((100, 3)).cumsum(axis=1)),
        (np.arange(100) % 3, np.full((100, 3), 0.1)),
        (np.zeros(0, int), np.zeros((0, 3))),
    ],
)
def test_a_temperature_is_the_prior_where_there_is_nothing_to_learn(y, z):
    assert fit_temperature(y, z) == Temperature()
    assert fit_temperature(y, z, Temperature(2.0)) == Temperature(2.0)


@pytest.mark.parametrize("reverse", [1, -1])
def test_a_temperature_stays_within_its_bounds(reverse):
    y = np.arange(2000) % 2
    z = reverse * 1e-3 * (2 * np.eye(2)[y] - 1)
    assert fit_temperature(y, z).value == pytest.approx(1 / 20 if reverse > 0 else 20, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_log_loss_is_that_of_scikit_learn(seed):
    y, z = attribute(seed)
    assert log_loss(y, z) == pytest.approx(metrics.log_loss(y[y != -1], expit(z[y != -1])), abs=1e-12)
    y, z = tag(seed)
    p = np.exp(log_softmax(z[y != -1], axis=1))
    assert log_loss(y, z) == pytest.approx(metrics.log_loss(y[y != -1], p, labels=range(4)), abs=1e-12)


@pytest.mark.parametrize(
    ("y", "z", "expected"),
    [
        ([1], [-1e308], 1e308),
        ([0], [1e5], 1e5),
        ([0], [-1e308], 0),
        ([1, 0], [0, 0], math.log(2)),
        ([1], [40], math.exp(-40)),  # and not 0
        ([0], [[1e4, -1e4]], 0),
        ([1], [[1e4, -1e4]], 2e4),
        ([0], [[40, 0]], math.exp(-40)),
    ],
)
def test_log_loss_is_exact_at_any_logit(y, z, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert log_loss(np.array(y), np.array(z, float)) == pytest.approx(expected, rel=1e-12, abs=0)


def test_log_loss_without_a_known_cell_is_not_a_number():
    assert math.isnan(log_loss(np.full(3, -1), np.zeros(3)))
    assert math.isnan(log_loss(np.full(3, -1), np.zeros((3, 2))))


@pytest.mark.parametrize("pos_weight", [0.2, 8.0])
def test_undoing_pos_weight_gives_the_true_probabilities(pos_weight):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 2))
    truth = x @ [1.0, -2.0] - 1.5
    y = (rng.random(len(x)) < expit(truth)).astype(int)
    model = LogisticRegression(C=1e9).fit(x, y, sample_weight=np.where(y == 1, pos_weight, 1))
    z = model.decision_function(x)
    assert unweighted(pos_weight).logits(z) == pytest.approx(truth, abs=0.3)
    p = expit(unweighted(pos_weight).logits(z))
    assert np.abs(p - expit(truth)).mean() < 0.01
    assert expected_calibration_error(y, p) < 0.01 < 0.1 < expected_calibration_error(y, expit(z))
    found = calibrate_attribute(y, z, dealt(len(y)), pos_weight)
    assert found.kind == "pos_weight"
    assert found.shipped == Platt(1.0, -math.log(pos_weight))
    assert found.held_out == pytest.approx(z - math.log(pos_weight))


@pytest.mark.parametrize("kind", ["platt", "temperature"])
def test_held_out_logits_are_scaled_by_a_fit_on_the_other_folds(kind):
    if kind == "platt":
        y, z = attribute(1)
        fit, found = fit_platt, calibrate_attribute(y, z, dealt(len(y)), 1.0)
    else:
        y, z = tag(1)
        fit, found = fit_temperature, calibrate_tag(y, z, dealt(len(y)))
    assert found.kind == kind
    assert found.applied
    assert found.shipped == fit(y, z)
    folds = dealt(len(y))
    expected = np.empty(z.shape)
    for fold in range(5):
        expected[folds == fold] = fit(y[folds != fold], z[folds != fold]).logits(z[folds == fold])
    assert found.held_out.dtype == np.float64
    assert (found.held_out == expected).all()
    assert found.before == log_loss(y, z)
    assert found.after == log_loss(y, expected)
    assert found.after < found.before


def test_labels_of_a_fold_do_not_change_how_it_is_scaled():
    y, z = attribute(2)
    folds = dealt(len(y))
    changed = np.where((folds == 3) & (y != -1), 1 - y, y)
    found, again = (calibrate_attribute(labels, z, folds, 1.0) for labels in (y, changed))
    assert found.kind == again.kind == "platt"
    assert (found.held_out[folds == 3] == again.held_out[folds == 3]).all()
    assert (found.held_out[folds != 3] != again.held_out[folds != 3]).any()


@pytest.mark.parametrize("n", [50, 400])
def test_what_is_calibrated_is_mostly_left_alone(n):
    kinds = []
    for seed in range(40):
        y, z = attribute(seed, n, slope=1.0, intercept=0.0)
        kinds.append(calibrate_attribute(y, z, dealt(n), 1.0).kind)
        y, z = tag(seed, n, temperature=1.0)
        kinds.append(calibrate_tag(y, z, dealt(n)).kind)
    assert kinds.count("none") >= 0.85 * len(kinds)


def test_what_is_not_applied_is_the_identity():
    y, z = attribute(0, slope=1.0, intercept=0.0)
    found = calibrate_attribute(y, z.astype(np.float32), dealt(len(y)), 1.0)
    assert (found.kind, found.applied, found.shipped) == ("none", False, Platt())
    assert (found.held_out == z.astype(np.float32)).all()
    assert found.before == found.after


@pytest.mark.parametrize(
    ("y", "folds"),
    [
        (np.full(30, -1), np.arange(30) % 5),
        (np.ones(30, int), np.arange(30) % 5),
        (np.arange(30) % 2, np.zeros(30, int)),  # no other fold
        (np.repeat([0, -1], [1, 29]), np.arange(30) % 5),
        (np.zeros(0, int), np.zeros(0, int)),
    ],
)
def test_too_little_to_learn_from_changes_nothing(y, folds):
    z = np.linspace(-3, 3, len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = calibrate_attribute(y, z, folds, 1.0)
        of_tag = calibrate_tag(y, np.stack([-z, z], axis=1), folds)
    assert not found.applied
    assert (found.held_out == z).all()
    assert not of_tag.applied or len(np.unique(folds)) > 1


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(20, 300),
    slope=st.floats(-1, 3),
    pos_weight=st.floats(0.1, 10),
)
def test_calibration_keeps_the_order_and_sees_only_known_cells(seed, n, slope, pos_weight):
    y, z = attribute(seed, n, slope)
    folds = dealt(n, seed=seed)
    found = calibrate_attribute(y, z, folds, pos_weight)
    order = np.argsort(z)
    assert (np.diff(found.shipped.logits(z)[order]) >= 0).all()
    for fold in range(5):
        inside = order[folds[order] == fold]
        assert (np.diff(found.held_out[inside]) >= 0).all()

    noise = np.where(y == -1, np.nan, z)
    again = calibrate_attribute(y, noise, folds, pos_weight)
    assert (again.kind, again.shipped, again.before, again.after) == (
        found.kind,
        found.shipped,
        found.before,
        found.after,
    )
    assert np.array_equal(again.held_out, np.where(y == -1, np.nan, found.held_out), equal_nan=True)

    rows = np.random.default_rng(seed).permutation(n)
    shuffled = calibrate_attribute(y[rows], z[rows], folds[rows], pos_weight)
    assert shuffled.kind == found.kind
    assert shuffled.held_out == pytest.approx(found.held_out[rows], rel=1e-5, abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.3, 5))
def test_a_temperature_keeps_the_likeliest_class_and_sees_only_known_cells(seed, temperature):
    y, z = tag(seed, 200, temperature)
    found = calibrate_tag(y, z, dealt(200))
    assert (found.held_out.argmax(axis=1) == z.argmax(axis=1)).all()
    again = calibrate_tag(y, np.where(y[:, None] == -1, np.nan, z), dealt(200))
    assert (again.kind, again.shipped, again.after) == (found.kind, found.shipped, found.after)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_reliability_adds_up_to_the_calibration_error(bins):
    y, z = attribute(0)
    p = expit(z)
    p[:3], y[:3] = [0.0, 0.1, 1.0], 1
    found = reliability(y, p, bins)
    gaps = found.counts / found.counts.sum() * np.abs(found.observed - found.predicted)
    assert gaps.sum() == pytest.approx(expected_calibration_error(y, p, bins=bins), abs=1e-12)
    assert found.counts.sum() == (y != -1).sum()


def test_reliability_by_hand():
    y, p = np.array([1, 0, -1, 1, 0, 1]), np.array([0.5, 0.25, 0.5, 0.75, 1.0, 1.0])
    found = reliability(y, p, 4)
    assert found.counts.tolist() == [1, 1, 1, 2]  # closed above: 0.25, 0.5 and 0.75 each end their bin
    assert found.predicted.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.observed.tolist() == [0, 1, 1, 0.5]
    expected = [wilson(0, 1), wilson(1, 1), wilson(1, 1), wilson(1, 2)]
    assert list(zip(found.low.tolist(), found.high.tolist(), strict=True)) == expected
    found = reliability(y, p, 2)
    assert found.counts.tolist() == [2, 3]
    assert len(reliability(np.full(3, -1), np.full(3, 0.5)).counts) == 0


def test_confidence_is_that_of_the_likeliest_class():
    y = np.array([0, 1, -1, 2])
    p = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [0, 0, 1]])
    right, of_call = confidence(y, p)
    assert right.tolist() == [1, 0, -1, 1]
    assert of_call.tolist() == [0.5, 0.5, 0.75, 1]
    assert expected_calibration_error(right, of_call, average="micro") == 0
    assert reliability(right, of_call).counts.tolist() == [2, 1]


def test_scalings():
    assert Platt(2.0, -1.0).logits(np.array([[0.5, 1.0]])).tolist() == [[0.0, 1.0]]
    assert Temperature(2.0).logits(np.array([[1.0, -4.0]])).tolist() == [[0.5, -2.0]]
    assert Platt(**Platt(2.0, -1.0).get_config()) == Platt(2.0, -1.0)
    assert Temperature(**Temperature(2.0).get_config()) == Temperature(2.0)
    assert logit(expit(unweighted(4.0).logits(np.zeros(1)))) == pytest.approx([-math.log(4)])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Platt(0.0, 1.0),
            "Slope 0.0 and intercept 1.0 scale no logits: give a finite slope above 0 and a finite intercept.",
        ),
        (
            lambda: Platt(1.0, math.nan),
            "Slope 1.0 and intercept nan scale no logits: give a finite slope above 0 and a finite intercept.",
        ),
        (lambda: Temperature(-1.0), "-1.0 is not a temperature: give a finite number above 0."),
        (lambda: Temperature(math.inf), "inf is not a temperature: give a finite number above 0."),
        (lambda: unweighted(0.0), "0.0 is not a pos_weight: give a finite number above 0."),
        (
            lambda: log_loss(np.array([1]), np.array([math.inf])),
            "Some logits are infinite: train again with a smaller learning rate.",
        ),
        (
            lambda: fit_platt(np.array([1]), np.array([math.nan])),
            "Some probabilities are not numbers (NaN): train again with a smaller learning rate.",
        ),
        (
            lambda: calibrate_attribute(np.zeros(3), np.zeros(3), np.zeros(2), 1.0),
            "Folds of shape (2,) do not fit labels of shape (3,): give one per picture.",
        ),
        (
            lambda: calibrate_tag(np.array([0, 5]), np.zeros((2, 3)), np.zeros(2)),
            "5 is not the index of one of 3 classes: give 0 to 2, or -1.",
        ),
    ],
)
def test_what_cannot_be_used_is_said(call, text):
    with pytest.raises(DataError) as error:
        call()
    assert str(error.value) == text
