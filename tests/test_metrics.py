"""The scores equal scikit-learn's on the known cells, and their intervals those of independent reckonings."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution
from scipy.stats import t as student
from sklearn import metrics as sklearn_metrics

from multilabel.errors import DataError
from multilabel.metrics import single as metrics

BETAS = (0.5, 1.0, 2.0)


def sklearn_scores(y, p, threshold, beta, sample_weight=None):
    """The oracle: one attribute without unknown cells."""
    present = p > threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about a class that is absent
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            y, present, beta=beta, average="binary", zero_division=0.0, sample_weight=sample_weight
        )
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "average_precision": sklearn_metrics.average_precision_score(y, p, sample_weight=sample_weight),
            "roc_auc": sklearn_metrics.roc_auc_score(y, p, sample_weight=sample_weight),
        }


def labels_and_probabilities(labels=(1, 0, -1)):
    """Few distinct probabilities, so that ties and probabilities on the threshold are common."""
    tied = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    cell = st.tuples(st.sampled_from(labels), st.one_of(tied, st.floats(0, 1, width=32)))
    return st.lists(cell, min_size=1, max_size=40).map(
        lambda cells: (np.array([y for y, _ in cells], np.int8), np.array([p for _, p in cells], np.float32))
    )


@settings(deadline=None, max_examples=200)
@given(
    data=labels_and_probabilities(), threshold=st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]), beta=st.sampled_from(BETAS)
)
def test_scores_equal_scikit_learn_on_the_known_cells(data, threshold, beta):
    y, p = data
    known = y != -1
    measured = metrics.scores(y, p, threshold, beta=beta)
    assert tuple(measured) == metrics.SCORES
    if known.any():
        assert measured == pytest.approx(sklearn_scores(y[known], p[known], threshold, beta), abs=1e-12, nan_ok=True)
    else:
        assert np.isnan(list(measured.values())).all()


def test_unknown_cells_count_for_nothing_even_where_the_probability_is_nan():
    y = np.array([1, -1, 0, 1, -1], np.int8)
    p = np.array([0.9, np.nan, 0.6, 0.2, 0.99])
    assert metrics.scores(y, p, 0.5) == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "average_precision": pytest.approx(5 / 6),
        "roc_auc": 0.5,
    }


def test_a_threshold_is_compared_in_full_precision_with_float32_probabilities():
    p = np.array([0.1, 0.1], np.float32)  # as a float32, 0.1 is 0.10000000149
    y = np.array([1, 0], np.int8)
    assert metrics.scores(y, p, 0.1)["recall"] == 1.0
    assert metrics.scores(y, p, float(p[0]))["recall"] == 0.0


@pytest.mark.parametrize("function", [metrics.scores, metrics.intervals])
def test_nan_probabilities_and_wrong_shapes_are_refused(function):
    y = np.array([1, 0], np.int8)
    with pytest.raises(DataError) as error:
        function(y, np.array([0.5, np.nan]), 0.5)
    assert str(error.value) == "Some probabilities are not numbers (NaN): train again with a smaller learning rate."
    with pytest.raises(DataError) as error:
        function(y, np.array([0.5]), 0.5)
    assert str(error.value) == "Labels of shape (2,) and probabilities of shape (1,) do not fit: give (n,) each."
    with pytest.raises(DataError) as error:
        function(y, np.array([0.5, 0.5]), np.array([True]))
    assert str(error.value) == "Labels of shape (2,) and calls of shape (1,) do not fit: give (n,) each."


@settings(deadline=None, max_examples=50)
@given(data=labels_and_probabilities(), seed=st.integers(0, 100), beta=st.sampled_from(BETAS))
def test_any_calls_can_be_scored(data, seed, beta):
    y, p = data
    called, known = np.random.default_rng(seed).random(len(y)) < 0.5, y != -1
    measured = metrics.scores(y, p, called, beta=beta)
    if known.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn, about a class that is absent
            expected = sklearn_metrics.precision_recall_fscore_support(
                y[known], called[known], beta=beta, average="binary", zero_division=0.0
            )[:3]
        assert [measured[name] for name in metrics.SCORES[:3]] == pytest.approx(expected, abs=1e-12)
    assert metrics.scores(y, p, p > 0.25) == pytest.approx(metrics.scores(y, p, 0.25), nan_ok=True)


def example(n=300, seed=1, digits=9, share=0.2, learnt=0.15):
    rng = np.random.default_rng(seed)
    y = rng.choice(np.array([1, 0, -1], np.int8), size=n, p=[share, 0.7 - share, 0.3])
    return y, np.round(np.clip(rng.normal(0.4 + learnt * (y == 1), 0.2), 0, 1), digits)


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_intervals_are_about_those_of_a_bootstrap_written_out(digits):
    y, p = example(digits=digits)
    truth, probabilities = y[y != -1], p[y != -1]
    rng = np.random.default_rng(2)
    rows = (rng.integers(len(truth), size=len(truth)) for _ in range(600))
    draws = [list(sklearn_scores(truth[drawn], probabilities[drawn], 0.5, 1.0).values()) for drawn in rows]
    expected = np.percentile(draws, [2.5, 97.5], axis=0).T
    intervals = metrics.intervals(y, p, 0.5, seed=2)
    assert np.array(list(intervals.values())) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_standard_errors_are_derivatives_by_the_weights_of_cells(digits):
    """By the definition of the infinitesimal jackknife, with scikit-learn's scores of slightly heavier cells."""
    y, p = example(n=100, digits=digits)
    y, p = y[y != -1], p[y != -1]

    def scored(weights):
        average = sklearn_metrics.average_precision_score(y, p, sample_weight=weights)
        return np.array([average, sklearn_metrics.roc_auc_score(y, p, sample_weight=weights)])

    step, ones = 1e-4, np.ones(len(y))
    derivatives = np.array(
        [(scored(ones + step * (ones.cumsum() == k + 1)) - scored(ones)) / step for k in range(len(y))]
    )
    corrected = np.where(y == 1, y.sum() / (y.sum() - 1), (y == 0).sum() / ((y == 0).sum() - 1))  # as DeLong's
    errors = np.sqrt([(derivatives[:, 0] ** 2).sum(), (corrected * derivatives[:, 1] ** 2).sum()])
    values, reach = scored(ones), student.ppf(0.975, min(y.sum(), (y == 0).sum()) - 1)
    odds = np.log(values / (1 - values))
    found = metrics.intervals(y, p, 0.5)
    for name, middle, error, value in zip(metrics.SCORES[3:], odds, errors, values, strict=True):
        far = reach * error / (value * (1 - value))
        expected = 1 / (1 + np.exp(-np.array([middle - far, middle + far])))
        assert found[name] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("hits", "misses", "alarms"), [(40, 20, 10), (3, 1, 0), (0, 5, 3)])
def test_precision_and_recall_have_jeffreys_intervals(hits, misses, alarms):
    y = np.repeat(np.array([1, 1, 0, 0], np.int8), [hits, misses, alarms, 50])
    called = np.repeat([True, False, True, False], [hits, misses, alarms, 50])
    found = metrics.intervals(y, np.linspace(0, 1, len(y)), called, draws=100_000)
    for name, right, wrong in (("precision", hits, alarms), ("recall", hits, misses)):
        low, high = beta_distribution(right + 0.5, wrong + 0.5).ppf([0.025, 0.975])
        expected = (low if right else 0.0, high if wrong else 1.0)
        assert found[name] == pytest.approx(expected, abs=0.01)
        assert found[name][0] <= right / (right + wrong) <= found[name][1]


def test_thresholds_that_differ_widen_what_depends_on_them_alone():
    y, p = example(n=1000)
    one, crossed, wide = (
        metrics.intervals(y, p, 0.5, spread=spread, draws=20_000) for spread in (None, (0.5, 0.5), (0.4, 0.6))
    )
    width = {name: [high - low for low, high in (found[name] for found in (one, crossed, wide))] for name in one}
    for name in ("precision", "recall", "f1"):
        assert width[name][1] / width[name][0] == pytest.approx((8 / 7) ** 0.5, rel=0.03)  # cells count 7/8
    assert width["recall"][2] > 1.5 * width["recall"][1]
    assert width["precision"][2] > 1.2 * width["precision"][1]
    assert wide["average_precision"] == one["average_precision"]
    assert wide["roc_auc"] == one["roc_auc"]


def test_intervals_are_seeded():
    y, p = example()
    found = metrics.intervals(y, p, 0.5, draws=200, seed=3)
    assert metrics.intervals(y, p, 0.5, draws=200, seed=3) == found
    assert metrics.intervals(y, p, 0.5, draws=200, seed=4) != found


@settings(deadline=None, max_examples=100)
@given(data=labels_and_probabilities(), spread=st.sampled_from([None, (0.25, 0.5), (0.0, 1.0)]))
def test_intervals_hold_their_values(data, spread):
    y, p = data
    measured, found = metrics.scores(y, p, 0.4), metrics.intervals(y, p, 0.4, spread=spread, draws=50)
    if (y == 1).any() and (y == 0).any():
        assert all(0 <= low <= measured[name] <= high <= 1 for name, (low, high) in found.items())


def test_intervals_contain_the_true_auc_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    y = np.repeat(np.array([1, 0], np.int8), [40, 120])
    truth = 0.7602499  # of two normal distributions one standard deviation apart: Φ(1/√2)
    contained = 0
    for seed in range(500):
        low, high = metrics.intervals(y, rng.normal(y, 1.0), 0.5, draws=10, seed=seed)["roc_auc"]
        contained += low <= truth <= high
    assert 0.93 <= contained / 500 <= 0.98


@pytest.mark.parametrize(("above", "expected"), [(1, (0.5655, 1.0)), (0, (0.0, 0.4345))])
def test_all_ranked_right_or_wrong_is_a_share_of_the_rarer_class(above, expected):
    y = np.repeat(np.array([1, 0], np.int8), [5, 60])
    found = metrics.intervals(y, np.where(y == above, 0.75, 0.25), 0.5)
    assert found["roc_auc"] == pytest.approx(expected, abs=1e-4)


def test_a_single_positive_says_nothing_on_the_order():
    y = np.array([1, 0, 0, 0], np.int8)
    found = metrics.intervals(y, np.array([0.9, 0.1, 0.2, 0.3]), 0.5)
    assert found["roc_auc"] == found["average_precision"] == (0.0, 1.0)


@pytest.mark.parametrize("label", [1, 0, -1])
def test_without_both_classes_there_is_no_interval(label):
    y = np.full(5, label, np.int8)
    y[0] = -1
    intervals = metrics.intervals(y, np.linspace(0, 1, 5), 0.5, draws=10)
    assert tuple(intervals) == metrics.SCORES
    assert np.isnan(list(intervals.values())).all()


def test_many_cells_need_little_memory_and_time():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 45_000).astype(np.int8), rng.random(45_000)
    tracemalloc.start()
    metrics.intervals(y, p, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # a bootstrap of cells would draw 2,000 × 45,000 of them
    start = time.perf_counter()
    metrics.intervals(y, p, 0.5)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_chance_levels_are_what_random_probabilities_score(share, beta):
    rng = np.random.default_rng(0)
    y = (rng.random(200_000) < share).astype(np.int8)
    p = rng.random(len(y))
    y[p > 0.9] = -1
    chance = metrics.chance_levels(y, p > 0.3, beta=beta)
    random = metrics.scores(y, p, 0.3, beta=beta)
    for name in ("precision", "recall", "average_precision", "roc_auc"):
        assert chance[name] == pytest.approx(random[name], abs=0.01), name
    everything_present = metrics.scores(y, np.ones(len(y)), 0.5, beta=beta)["f1"]
    assert chance["f1"] == pytest.approx(everything_present, abs=1e-12)
    if beta == 1:
        known_share = (y == 1).sum() / (y != -1).sum()
        assert chance["f1"] == pytest.approx(2 * known_share / (1 + known_share), abs=1e-12)


def test_chance_levels_without_a_known_cell_are_undefined_but_for_the_auc():
    chance = metrics.chance_levels(np.array([-1, -1], np.int8), np.array([True, False]))
    assert chance.pop("roc_auc") == 0.5
    assert np.isnan(list(chance.values())).all()


def test_importing_the_metrics_is_light():
    code = "import sys, multilabel.metrics; print([m for m in ('sklearn', 'pandas', 'keras') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
