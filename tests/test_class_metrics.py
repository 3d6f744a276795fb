"""The scores of a tag equal scikit-learn's on the known cells, and its intervals those of a bootstrap written out."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from multilabel.errors import DataError
from multilabel.metrics import single as metrics

NAN = float("nan")
NOT_NUMBERS = "Some probabilities are not numbers (NaN): train again with a smaller learning rate."
SHAPES = "Labels of shape {} and probabilities of shape {} do not fit: give (n,) and (n, classes)."


def sklearn_scores(y, p):
    """The oracle: one tag without unknown cells. Sorting -p stably puts the lower index first among equals."""
    order = np.argsort(-p, axis=1, kind="stable")
    return {
        "accuracy": sklearn_metrics.accuracy_score(y, order[:, 0]),
        "macro_f1": sklearn_metrics.f1_score(y, order[:, 0], labels=np.unique(y), average="macro", zero_division=0),
        "top3_accuracy": (order[:, :3] == y[:, None]).any(axis=1).mean(),
    }


def example(n=600, shares=(0.5, 0.25, 0.15, 0.07, 0.03), learnt=0.35, seed=0):
    """A tag that is partly learnt and partly unknown."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(shares), size=n, p=shares).astype(np.int16)
    p = rng.random((n, len(shares))).astype(np.float32)
    p[np.arange(n), y] += learnt
    y[rng.random(n) < 0.2] = -1
    return y, p / p.sum(axis=1, keepdims=True)


@st.composite
def labels_and_probabilities(draw):
    """Few distinct probabilities, so that ties are common; some classes never occur."""
    classes = draw(st.integers(1, 6))
    n = draw(st.integers(1, 30))
    y = draw(st.lists(st.integers(-1, classes - 1), min_size=n, max_size=n))
    cell = st.one_of(st.sampled_from([0.0, 0.25, 0.5]), st.floats(0, 1, width=32))
    p = draw(st.lists(st.lists(cell, min_size=classes, max_size=classes), min_size=n, max_size=n))
    return np.array(y, np.int16), np.array(p, np.float32)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(data=labels_and_probabilities())
def test_scores_equal_scikit_learn_on_the_known_cells(data):
    y, p = data
    known = y != -1
    measured = metrics.class_scores(y, p)
    assert tuple(measured) == metrics.CLASS_SCORES
    expected = sklearn_scores(y[known], p[known]) if known.any() else dict.fromkeys(metrics.CLASS_SCORES, NAN)
    assert measured == pytest.approx(expected, abs=1e-12, nan_ok=True)
    if known.any() and p.shape[1] <= 3:
        assert measured["top3_accuracy"] == 1.0


@settings(deadline=None, max_examples=100)
@given(data=labels_and_probabilities())
def test_scores_of_each_class_equal_scikit_learn_on_the_known_cells(data):
    y, p = data
    known = y != -1
    measured = metrics.per_class(y, p)
    assert list(measured) == ["support", "precision", "recall", "f1"]
    if not known.any():
        assert all((values == 0).all() for values in measured.values())
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, about a single label
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
            y[known], p[known].argmax(axis=1), labels=np.arange(p.shape[1]), zero_division=0
        )
    np.testing.assert_array_equal(measured["support"], support)
    np.testing.assert_allclose(measured["precision"], precision, atol=1e-12)
    np.testing.assert_allclose(measured["recall"], recall, atol=1e-12)
    np.testing.assert_allclose(measured["f1"], f1, atol=1e-12)


def test_unknown_cells_count_for_nothing_even_where_the_probability_is_nan():
    y = np.array([0, -1, 1, 1, -1], np.int16)
    p = np.array([[0.9, 0.1], [NAN, NAN], [0.2, 0.8], [0.6, 0.4], [1.0, 0.0]])
    assert metrics.class_scores(y, p) == {
        "accuracy": pytest.approx(2 / 3),
        "macro_f1": pytest.approx(2 / 3),
        "top3_accuracy": 1.0,
    }
    assert metrics.per_class(y, p)["support"].tolist() == [1, 2]


def test_of_equal_probabilities_the_lower_index_comes_first():
    y = np.arange(5, dtype=np.int16)
    measured = metrics.class_scores(y, np.full((5, 5), 0.2))
    assert (measured["accuracy"], measured["top3_accuracy"]) == (0.2, 0.6)
    hit_by_tie = metrics.class_scores(np.array([2], np.int16), np.array([[0.1, 0.3, 0.3, 0.3]]))
    assert hit_by_tie == {"accuracy": 0.0, "macro_f1": 0.0, "top3_accuracy": 1.0}
    missed_by_tie = metrics.class_scores(np.array([3], np.int16), np.array([[0.1, 0.1, 0.1, 0.1]]))
    assert missed_by_tie["top3_accuracy"] == 0.0


def test_a_class_that_does_not_occur_does_not_lower_the_macro_f1_but_a_wrong_call_does():
    y = np.array([0, 0, 1, 1], np.int16)
    p = np.eye(3)[[0, 2, 1, 1]]
    assert metrics.class_scores(y, p)["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("function", [metrics.class_scores, metrics.class_intervals, metrics.per_class])
@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([1, 0], [[0.5, 0.5], [NAN, 0.5]], NOT_NUMBERS),
        ([1, 0], [[0.5, 0.5]], SHAPES.format("(2,)", "(1, 2)")),
        ([1, 0], [0.5, 0.5], SHAPES.format("(2,)", "(2,)")),
        ([[1, 0]], [[0.5, 0.5]], SHAPES.format("(1, 2)", "(1, 2)")),
        ([1, 2], [[0.5, 0.5]] * 2, "2 is not the index of one of 2 classes: give 0 to 1, or -1."),
        ([1, -2], [[0.5, 0.5]] * 2, "-2 is not the index of one of 2 classes: give 0 to 1, or -1."),
    ],
)
def test_what_does_not_fit_is_refused(function, y, p, message):
    with pytest.raises(DataError) as error:
        function(np.array(y, np.int16), np.array(p))
    assert str(error.value) == message


# --- intervals


def written_out(y, p, draws, seed):
    """The bootstrap drawn cell by cell and measured by scikit-learn: an array (draws, scores)."""
    known = y != -1
    y, p = y[known], p[known]
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(draws):
        rows = rng.choice(len(y), len(y))
        samples.append(list(sklearn_scores(y[rows], p[rows]).values()))
    return np.array(samples)


@pytest.mark.parametrize("n", [60, 600])
def test_intervals_are_those_of_a_bootstrap_written_out(n):
    y, p = example(n)
    samples = written_out(y, p, draws=600, seed=1)[:, metrics.CLASS_SCORES.index("macro_f1")]
    interval = np.array(metrics.class_intervals(y, p, draws=4000, seed=2)["macro_f1"])
    spread = samples.std()
    assert spread > 0.005
    # 600 draws know a 2.5% quantile to about 0.11 of the standard deviation
    assert (np.abs(interval - np.percentile(samples, [2.5, 97.5])) < 0.4 * spread + 1 / n).all()
    assert interval.mean() == pytest.approx(samples.mean(), abs=0.25 * spread)


@given(st.integers(1, 500), st.data())
def test_the_interval_of_a_share_is_wilsons(count, data):
    hits = data.draw(st.integers(0, count))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert metrics.wilson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracies_have_the_interval_of_a_share():
    y, p = example(60)
    known = np.count_nonzero(y != -1)
    scores, intervals = metrics.class_scores(y, p), metrics.class_intervals(y, p)
    for name in ("accuracy", "top3_accuracy"):
        assert intervals[name] == metrics.wilson(round(scores[name] * known), known)


def test_the_bootstrap_is_seeded_and_does_not_depend_on_the_size_of_its_chunks(monkeypatch):
    y, p = example()
    intervals = metrics.class_intervals(y, p, draws=200, seed=3)
    assert metrics.class_intervals(y, p, draws=200, seed=3) == intervals
    assert metrics.class_intervals(y, p, draws=200, seed=4) != intervals
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 100)
    assert metrics.class_intervals(y, p, draws=200, seed=3) == intervals


def test_intervals_contain_the_true_accuracy_about_as_often_as_they_say():
    truth, contained = 0.8, 0
    y = np.repeat(np.arange(4, dtype=np.int16), [100, 60, 30, 10])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        called = np.where(rng.random(len(y)) < truth, y, (y + 1) % 4)
        low, high = metrics.class_intervals(y, np.eye(4)[called], draws=300, seed=seed)["accuracy"]
        contained += low <= truth <= high
    assert 0.90 <= contained / 200 <= 0.99


@pytest.mark.parametrize("labels", [[-1, -1, -1], [-1, 2, 2]])
def test_without_two_classes_macro_f1_has_no_interval(labels):
    intervals = metrics.class_intervals(np.array(labels, np.int16), np.eye(3), draws=10)
    assert tuple(intervals) == metrics.CLASS_SCORES
    assert np.isnan(intervals["macro_f1"]).all()
    known = 3 - labels.count(-1)
    assert np.isnan(intervals["accuracy"]).all() == (known == 0)


def test_a_class_that_only_the_model_knows_of_changes_nothing_about_the_others():
    y, p = example()
    with_one_more = np.insert(p, 2, 0.0, axis=1)
    moved = np.where(y >= 2, y + 1, y).astype(np.int16)
    assert metrics.class_scores(moved, with_one_more) == pytest.approx(metrics.class_scores(y, p))
    intervals = metrics.class_intervals(moved, with_one_more, draws=2000)
    for name, interval in metrics.class_intervals(y, p, draws=2000).items():
        assert intervals[name] == pytest.approx(interval, abs=0.01)


def test_the_bootstrap_of_many_classes_needs_little_memory():
    y, p = example(10_000, np.full(150, 1 / 150))
    tracemalloc.start()
    metrics.class_intervals(y, p, draws=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 35e6  # all draws at once would take 300 × 150 × 150 × 8 bytes = 54 MB for one array


# --- chance


@pytest.mark.parametrize("shares", [(0.5, 0.25, 0.15, 0.07, 0.03), (0.9, 0.1), (0.2, 0.4, 0.2, 0.2)])
def test_chance_levels_are_what_always_saying_the_most_common_classes_scores(shares):
    y, _ = example(2000, shares)
    counts = np.bincount(y[y >= 0], minlength=len(shares))
    always = np.tile(counts / counts.sum(), (len(y), 1))
    measured = metrics.class_scores(y, always)
    assert metrics.class_chance_levels(y, len(shares)) == pytest.approx(measured, abs=1e-12)
    share = counts.max() / counts.sum()
    assert measured["accuracy"] == pytest.approx(share)
    assert measured["macro_f1"] == pytest.approx(2 * share / (1 + share) / len(shares))
    low, high = metrics.class_intervals(y, always, draws=50)["accuracy"]
    assert low < measured["accuracy"] < high  # not above chance


def test_chance_levels_count_only_the_classes_that_occur():
    chance = metrics.class_chance_levels(np.array([3, 3, -1, 5, 3], np.int16), 9)
    assert chance == pytest.approx({"accuracy": 0.75, "macro_f1": 1.5 / 1.75 / 2, "top3_accuracy": 1.0})


def test_chance_levels_without_a_known_cell_are_undefined():
    chance = metrics.class_chance_levels(np.array([-1, -1], np.int16), 3)
    assert tuple(chance) == metrics.CLASS_SCORES
    assert np.isnan(list(chance.values())).all()


def test_chance_levels_of_an_index_without_a_class_are_refused():
    with pytest.raises(DataError) as error:
        metrics.class_chance_levels(np.array([0, 3], np.int16), 3)
    assert str(error.value) == "3 is not the index of one of 3 classes: give 0 to 2, or -1."


def test_the_interval_of_macro_f1_holds_its_value():
    """Ten classes with one right call each: a class that is not drawn is no class that was called wrong."""
    y, p = np.arange(10), np.eye(10)
    assert metrics.class_scores(y, p)["macro_f1"] == 1.0
    assert metrics.class_intervals(y, p)["macro_f1"] == (1.0, 1.0)
