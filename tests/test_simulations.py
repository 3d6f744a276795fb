"""What scores and thresholds promise, tried on many samples from models whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from multilabel.evaluation import evaluate
from multilabel.metrics.single import SCORES, intervals, wilson_low
from multilabel.splits import assign_parts
from multilabel.thresholds import Threshold, choose_thresholds, cross_fit_thresholds, precise_threshold

FRESH = 20_000
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def normals(share: float, distance: float) -> Draw:
    """A share of positives, and logits of two normal distributions so many standard deviations apart."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        y = (rng.random(n) < share).astype(np.int8)
        return y, 1 / (1 + np.exp(-rng.normal(distance * y - 1, 1)))

    return draw


def plateau(share: float, precision: float) -> Draw:
    """A share of cells, in no order, has one precision; of the others, all lower, hardly any is positive."""

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        top = rng.random(n) < share
        y = (rng.random(n) < np.where(top, precision, 0.03)).astype(np.int8)
        return y, (rng.random(n) + top) / 2

    return draw


def sklearn_scores(y: np.ndarray, p: np.ndarray, threshold: float, beta: float = 1.0) -> np.ndarray:
    precision, recall, f, _ = precision_recall_fscore_support(
        y, p > threshold, beta=beta, average="binary", zero_division=0.0
    )
    return np.array([precision, recall, f, average_precision_score(y, p), roc_auc_score(y, p)])


def inside(found: dict[str, tuple[float, float]], truth: np.ndarray) -> list[bool]:
    return [low <= value <= high for (low, high), value in zip(found.values(), truth, strict=True)]


def coverage(draw: Draw, n: int, simulations: int, beta: float = 1.0, folds: int = 5) -> dict[str, np.ndarray]:
    """How often 95% intervals hold what 20,000 fresh cells score, with the threshold that all n cells choose.

    Returns:
        For cross-fitted and for naive scores (threshold and scores from the same cells) one share for each score.
    """
    held: dict[str, list[list[bool]]] = {"cross-fitted": [], "naive": []}
    for simulation in range(simulations):
        rng = np.random.default_rng(simulation)
        y, p = draw(rng, n)
        y, p = y[:, None], p[:, None]

        def choose(y: np.ndarray, p: np.ndarray) -> list[Threshold]:
            return choose_thresholds(y, p, beta)

        present, spreads = cross_fit_thresholds(y, p, assign_parts(y, [1.0] * folds, seed=simulation), choose)
        threshold = choose(y, p)[0].value
        truth = sklearn_scores(*draw(rng, FRESH), threshold, beta)
        options = {"seed": simulation, "beta": beta}
        crossed = intervals(y[:, 0], p[:, 0], present[:, 0], spread=spreads[0], **options)
        naive = intervals(y[:, 0], p[:, 0], threshold, **options)
        held["cross-fitted"].append(inside(crossed, truth))
        held["naive"].append(inside(naive, truth))
    return {name: np.mean(rows, axis=0) for name, rows in held.items()}


def told(found: dict[str, np.ndarray]) -> str:
    return "; ".join(
        f"{name}: " + ", ".join(f"{score} {share:.1%}" for score, share in zip(SCORES, shares, strict=True))
        for name, shares in found.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "n", "beta", "folds"),
    [
        pytest.param(normals(0.15, 1.0), 300, 1.0, 5, id="45 of 300 positive, AUC 0.76"),
        pytest.param(normals(0.15, 2.5), 300, 1.0, 5, id="45 of 300 positive, AUC 0.96"),
        pytest.param(normals(0.1, 1.2), 1000, 1.0, 5, id="100 of 1,000 positive, AUC 0.80"),
        pytest.param(normals(0.3, 1.5), 300, 2.0, 5, id="90 of 300 positive, F2"),
        pytest.param(normals(0.3, 1.5), 300, 1.0, 10, id="ten folds"),
    ],
)
def test_cross_fitted_scores_are_those_of_fresh_pictures_within_their_intervals(draw, n, beta, folds):
    found = coverage(draw, n, 400, beta, folds)
    assert ((found["cross-fitted"] >= 0.92) & (found["cross-fitted"] <= 0.98)).all(), told(found)


@pytest.mark.slow
def test_f1_of_the_cells_that_chose_the_threshold_is_not_that_of_fresh_pictures():
    """The test above fails for scores of the very cells that the threshold was tuned on."""
    found = coverage(normals(0.15, 0.7), 100, 400)
    f1 = SCORES.index("f1")
    assert 0.92 <= found["cross-fitted"][f1] <= 0.98, told(found)
    assert found["naive"][f1] < 0.9, told(found)


@pytest.mark.parametrize("positives", [1, 2, 5])
def test_scores_of_few_positives_stay_sane(positives):
    """With folds that lack positives, intervals hold what was measured, and little is certain."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = np.zeros((40, 1), np.int8)
        y[:positives] = 1
        p = rng.random((40, 1))
        folds = assign_parts(y, [1.0] * 5, seed=seed)
        present, ((low, high),) = cross_fit_thresholds(y, p, folds, choose_thresholds)
        assert 0 <= low <= high <= 1
        threshold = Threshold(0.5, "tuned", positives, (low, high))
        (scored,) = evaluate(y, p, ["rare"], [threshold], present=present, part="all", draws=500).scores
        for name in SCORES:
            score = getattr(scored, name)
            assert 0 <= score.low <= score.value <= score.high <= 1
        assert scored.recall.high - scored.recall.low > 0.5
        assert scored.roc_auc.high - scored.roc_auc.low > 0.1


SETTINGS = [
    pytest.param(normals(0.2, 3.0), 500, 0.9, id="100 of 500 positive, AUC 0.98, 0.9"),
    pytest.param(normals(0.1, 3.0), 2000, 0.9, id="200 of 2,000 positive, AUC 0.98, 0.9"),
    pytest.param(normals(0.3, 1.5), 500, 0.75, id="150 of 500 positive, AUC 0.86, 0.75"),
    pytest.param(normals(0.1, 2.0), 1000, 0.75, id="100 of 1,000 positive, AUC 0.92, 0.75"),
    pytest.param(plateau(0.2, 0.73), 1000, 0.75, id="a precision of 0.73 at many cuts, 0.75"),
    pytest.param(plateau(0.2, 0.88), 1000, 0.9, id="a precision of 0.88 at many cuts, 0.9"),
    pytest.param(plateau(1.0, 0.895), 3000, 0.9, id="a precision of 0.895 at all cuts, 0.9"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("draw", "n", "floor"), SETTINGS)
def test_a_precision_floor_holds_on_fresh_pictures(draw, n, floor):
    simulations, kept, found = 400, 0, 0
    for simulation in range(simulations):
        rng = np.random.default_rng(simulation)
        y, p = draw(rng, n)
        threshold = precise_threshold(y, p, floor)
        if threshold is None:
            kept += 1  # nothing was promised
            continue
        found += 1
        y, p = draw(rng, 200_000)
        kept += y[p > threshold].mean() >= floor
    said = f"{kept} of {simulations} kept a precision of {floor}; {found} times there was a threshold"
    assert kept >= 0.95 * simulations, said


def test_the_best_cut_alone_would_not_keep_its_precision():
    """Why a cut does not pass by itself: where 0.895 is the precision of all cuts, 0.9 seems kept by some."""
    lucky, passed = 0, 0
    for simulation in range(400):
        y, p = plateau(1.0, 0.895)(np.random.default_rng(simulation), 3000)
        hits = y[np.argsort(-p)].cumsum()
        lucky += (wilson_low(hits, np.arange(1, 3001)) >= 0.9).any()
        passed += precise_threshold(y, p, 0.9) is not None
    assert lucky >= 40, lucky
    assert passed <= 20, passed


def test_shuffled_labels_are_hardly_ever_better_than_chance():
    shares = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.98])
    better, judged = 0, 0
    for data_set in range(100):
        rng = np.random.default_rng(data_set)
        y = (rng.random((300, len(shares))) < shares).astype(np.int8)
        y[rng.random(y.shape) < 0.2] = -1
        p = rng.random(y.shape)
        folds = assign_parts(y, [1.0] * 5, seed=data_set)
        present, spreads = cross_fit_thresholds(y, p, folds, choose_thresholds)
        thresholds = [Threshold(0.5, "tuned", 0, spread) for spread in spreads]
        names = [f"attr{k}" for k in range(len(shares))]
        found = evaluate(y, p, names, thresholds, present=present, part="all", draws=10)
        better += sum(scored.better_than_chance for scored in found.scores)
        judged += sum(scored.can_be_judged for scored in found.scores)
    assert judged > 700
    assert better <= 0.05 * judged, f"{better} of {judged} shuffled attributes are called better than chance"
