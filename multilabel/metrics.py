"""Scores of one attribute on its known cells: values, bootstrap intervals, chance levels.

Everything is computed from how many positives and negatives there are on each level, the levels being the
distinct probabilities from high to low. The measured scores and those of each bootstrap draw are the same
formulas on different counts, and equal probabilities need no special case.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .labels import UNKNOWN

SCORES = ("precision", "recall", "f1", "average_precision", "roc_auc")

# Largest number of drawn cells held at once: a handful of arrays of 8 MB each, whatever the number of draws.
_CELLS_AT_ONCE = 1_000_000


def scores(y: NDArray, p: NDArray, threshold: float, *, beta: float = 1.0) -> dict[str, float]:
    """Precision, recall, F, average precision and ROC AUC of one attribute.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        threshold: the attribute is predicted present where `p > threshold`.
        beta: F-beta weighs recall `beta` times as much as precision.

    Returns:
        One value for each name in `SCORES` (`f1` is F-beta). As in scikit-learn a quotient 0/0 is 0.0, and
        the AUC of a single class is NaN. Without a known cell everything is NaN.

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    positive, probabilities = known_cells(y, p)
    if not len(positive):
        return dict.fromkeys(SCORES, float("nan"))
    levels, level = _levels(probabilities)
    positives = np.bincount(level[positive], minlength=len(levels))[None]
    negatives = np.bincount(level[~positive], minlength=len(levels))[None]
    values = scores_of_counts(positives, negatives, _present_levels(levels, threshold), beta)
    return {name: float(value[0]) for name, value in values.items()}


def bootstrap(
    y: NDArray, p: NDArray, threshold: float, *, draws: int = 1000, seed: int = 0, beta: float = 1.0
) -> dict[str, tuple[float, float]]:
    """95% intervals of the scores of one attribute, by the stratified percentile bootstrap.

    Each draw resamples the known positives and, separately, the known negatives with replacement, so that no
    draw is without one of them (Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13). The
    threshold stays. An interval from a handful of positives is too narrow: a draw can only repeat them.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        threshold: the attribute is predicted present where `p > threshold`.
        draws: number of resamples.
        seed: of the resampling.
        beta: of the F-score.

    Returns:
        (low, high) for each name in `SCORES`; NaN without both classes, since nothing could then vary.

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    positive, probabilities = known_cells(y, p)
    if positive.all() or not positive.any():
        return dict.fromkeys(SCORES, (float("nan"), float("nan")))
    levels, level = _levels(probabilities)
    present = _present_levels(levels, threshold)
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // len(level))
    chunks = []
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        positives = _resample(rng, level[positive], rows, len(levels))
        negatives = _resample(rng, level[~positive], rows, len(levels))
        chunks.append(scores_of_counts(positives, negatives, present, beta))
    intervals = {}
    for name in SCORES:
        low, high = np.percentile(np.concatenate([chunk[name] for chunk in chunks]), [2.5, 97.5])
        intervals[name] = (float(low), float(high))
    return intervals


def chance_levels(y: NDArray, present: NDArray, *, beta: float = 1.0) -> dict[str, float]:
    """What a model that ignores the picture would score on one attribute, π being its share of positives.

    * precision: π, whichever cells are called present;
    * recall: the share of cells that are called present;
    * F-beta: (1 + β²)·π / (β²·π + 1), that of calling everything present (precision π, recall 1), the best
      such a model can do; for F1 this is 2π / (1 + π);
    * average precision: π;  ROC AUC: 0.5.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        present: the predictions, shape (n,), boolean.
        beta: of the F-score.

    Returns:
        One value for each name in `SCORES`; NaN (but for the AUC) without a known cell.
    """
    positive, called = known_cells(y, present)
    if not len(positive):
        return {**dict.fromkeys(SCORES, float("nan")), "roc_auc": 0.5}
    share = float(positive.mean())
    return {
        "precision": share,
        "recall": float(called.mean()),
        "f1": (1 + beta**2) * share / (beta**2 * share + 1),
        "average_precision": share,
        "roc_auc": 0.5,
    }


def known_cells(y: NDArray, p: NDArray) -> tuple[NDArray[np.bool_], NDArray]:
    """The known cells of one attribute.

    Args:
        y: labels, shape (n,): 1, 0 or -1 (unknown).
        p: probabilities or predictions, shape (n,).

    Returns:
        Whether each known cell is positive, and its entry of `p`; both of shape (known cells,).

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    if y.ndim != 1 or y.shape != p.shape:
        raise DataError(f"Labels of shape {y.shape} and probabilities of shape {p.shape} do not fit: give (n,) each.")
    known = y != UNKNOWN
    of_known = p[known]
    if np.isnan(of_known).any():
        raise DataError("Some probabilities are not numbers (NaN): train again with a smaller learning rate.")
    return y[known] == 1, of_known


def scores_of_counts(
    positives: NDArray, negatives: NDArray, present: int, beta: float = 1.0
) -> dict[str, NDArray[np.float64]]:
    """The scores of many samples at once, from how many cells each has on each level.

    Average precision is Σ (R_i − R_(i−1))·P_i over the levels, ROC AUC the area under the straight lines
    between them, both as in scikit-learn.

    Args:
        positives: number of positive cells, shape (samples, levels); levels run from high to low probability.
        negatives: number of negative cells, shape (samples, levels).
        present: how many of the highest levels are called present.
        beta: of the F-score.

    Returns:
        For each name in `SCORES` an array of shape (samples,).
    """
    true = positives.cumsum(axis=1)
    false = negatives.cumsum(axis=1)
    called = true + false
    all_positives, all_negatives = true[:, -1], false[:, -1]
    hits = positives[:, :present].sum(axis=1)
    calls = hits + negatives[:, :present].sum(axis=1)

    area = np.einsum("sl,sl->s", negatives, 2 * true - positives) / 2
    pairs = all_positives * all_negatives
    return {
        "precision": _divide(hits, calls),
        "recall": _divide(hits, all_positives),
        "f1": _divide((1 + beta**2) * hits, beta**2 * all_positives + calls),
        "average_precision": _divide(np.einsum("sl,sl->s", positives, _divide(true, called)), all_positives),
        "roc_auc": np.where(pairs > 0, _divide(area, pairs), np.nan),
    }


def _divide(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Quotients, 0 where both are 0."""
    return numerator / np.maximum(denominator, 1)


def _levels(p: NDArray) -> tuple[NDArray, NDArray]:
    """The distinct probabilities from high to low, and the position of each cell's among them."""
    ascending, index = np.unique(p, return_inverse=True)
    return ascending[::-1], len(ascending) - 1 - index


def _present_levels(levels: NDArray, threshold: float) -> int:
    # float64, because NumPy would round a plain Python number to the precision of float32 probabilities
    return int(np.count_nonzero(levels > np.float64(threshold)))


def _resample(rng: np.random.Generator, level: NDArray, samples: int, levels: int) -> NDArray:
    """Counts (samples, levels) after drawing as many cells as there are, with replacement."""
    drawn = level[rng.integers(len(level), size=(samples, len(level)))]
    drawn += levels * np.arange(samples)[:, None]
    return np.bincount(drawn.ravel(), minlength=samples * levels).reshape(samples, levels)
