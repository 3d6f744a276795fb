"""Scores of one attribute or one tag on its known cells: values, 95% intervals, chance levels.

Everything is computed from counts. For an attribute these are how many positives and negatives are called present, and
how many of each there are on each level, the levels being the distinct probabilities from high to low; equal
probabilities need no special case. For a tag it is the confusion matrix: how many cells of each class were called which
class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from ..errors import DataError
from ..labels import UNKNOWN

SCORES = ("precision", "recall", "f1", "average_precision", "roc_auc")
CLASS_SCORES = ("accuracy", "macro_f1", "top3_accuracy")

# Largest number of drawn cells held at once: a handful of arrays of 8 MB each, whatever the number of draws.
_CELLS_AT_ONCE = 1_000_000

_Z = 1.959963984540054  # of a normal distribution 95% lie within so many standard deviations
_RANGE_OF_FIVE = 2.326  # expected range of five normal numbers, in standard deviations
# Folds that were called by thresholds chosen on one another are not independent: their F1 varies as that of fewer cells
# would. Measured in simulations: with 10% to 20% more variance.
_CROSS_FITTED = 7 / 8

_NOT_NUMBERS = "Some probabilities are not numbers (NaN): train again with a smaller learning rate."


def scores(y: NDArray, p: NDArray, present: NDArray | float, *, beta: float = 1.0) -> dict[str, float]:
    """Precision, recall, F, average precision and ROC AUC of one attribute.

    Average precision is Σ (R_i − R_(i−1))·P_i over the levels, ROC AUC the area under the straight lines between them,
    both as in scikit-learn.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        present: what is called present, booleans of shape (n,); or the threshold: then it is `p > present`.
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
    of_calls = map(float, _call_scores(_call_counts(positive, _called(y, p, present)), beta))
    of_order = _order_scores(_Levels.of(positive, probabilities))
    return dict(zip(SCORES, (*of_calls, *of_order), strict=True))


def intervals(
    y: NDArray,
    p: NDArray,
    present: NDArray | float,
    *,
    spread: tuple[float, float] | None = None,
    draws: int = 2000,
    seed: int = 0,
    beta: float = 1.0,
) -> dict[str, tuple[float, float]]:
    """95% intervals of the scores of one attribute: where those of the same model on ever more such pictures may lie.

    The share of positives is taken to vary from sample to sample, too: with it fixed, as in a bootstrap within each
    class, the interval of precision holds the true value in 80% of samples instead of 95%.

    * precision, recall, F: percentiles of draws from their distribution given the counts of hits, misses, false alarms
      and rejections, with Jeffreys' prior of half a cell each (Goutte and Gaussier 2005, A Probabilistic Interpretation
      of Precision, Recall and F-score). Unlike a bootstrap it knows that no false alarm among five calls is luck.
    * average precision, AUC: standard errors by the infinitesimal jackknife, what a bootstrap tends to without its
      draws (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, ch. 6); for the AUC it is that of
      DeLong et al. (1988). Intervals are symmetric in log odds, as Boyd et al. (2013), Area under the Precision-Recall
      Curve, recommend, with Student's t of one less than the cells of the rarer class. All ranked right or all wrong is
      treated as a share of the rarer class (`wilson`), and a single cell says nothing: 0 to 1.

    Where folds were called by thresholds chosen on the others (`spread`), the threshold in use is none of theirs. Each
    draw then moves along the cells between the lowest and the highest of them, by a normal share of which five would
    have this range; and cells count as 7/8 (see `_CROSS_FITTED`).

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        present: what is called present, booleans of shape (n,); or the threshold.
        spread: the lowest and the highest threshold of the folds; `None` if one threshold, settled on other pictures,
            called all.
        draws: from the distribution of precision, recall and F.
        seed: of the draws.
        beta: of the F-score.

    Returns:
        (low, high) for each name in `SCORES`, around the value; NaN without both classes.

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    positive, probabilities = known_cells(y, p)
    if positive.all() or not positive.any():
        return dict.fromkeys(SCORES, (float("nan"), float("nan")))
    counts = _call_counts(positive, _called(y, p, present))
    drawn = _drawn_calls(np.random.default_rng(seed), counts, _between(positive, probabilities, spread), draws)
    of_calls = zip(_call_scores(counts, beta), _call_scores(drawn, beta), strict=True)
    levels = _Levels.of(positive, probabilities)
    rarer = int(min(levels.positives.sum(), levels.negatives.sum()))
    of_order = zip(_order_scores(levels), _order_errors(levels), strict=True)
    found = [_around(float(value), *_interval(samples)) for value, samples in of_calls]
    found += [_log_odds_interval(value, error, rarer) for value, error in of_order]
    return dict(zip(SCORES, found, strict=True))


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
        raise DataError(_NOT_NUMBERS)
    return y[known] == 1, of_known


def class_scores(y: NDArray, p: NDArray) -> dict[str, float]:
    """Accuracy, macro F1 and top-3 accuracy of one tag.

    * accuracy: share of the cells whose most likely class is the true one;
    * macro F1: mean F1 of the classes that occur among the known labels, each counting the same;
    * top-3 accuracy: share of the cells whose true class is among the three most likely ones.

    Of classes with the same probability the one with the lower index counts as more likely.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown; such cells are left out).
        p: probabilities, shape (n, classes).

    Returns:
        One value for each name in `CLASS_SCORES`; NaN without a known cell.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a probability of a known cell is NaN.
    """
    truth, probabilities = known_classes(y, p)
    if not len(truth):
        return dict.fromkeys(CLASS_SCORES, float("nan"))
    support, hits, calls = _class_counts(truth, probabilities)
    occurring = support > 0
    return {
        "accuracy": float(hits.sum() / len(truth)),
        "macro_f1": float(_class_f1(hits, calls, support)[occurring].mean()),
        "top3_accuracy": float(_in_top3(truth, probabilities).mean()),
    }


def per_class(y: NDArray, p: NDArray) -> dict[str, NDArray]:
    """Precision, recall and F1 of each class of one tag.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown; such cells are left out).
        p: probabilities, shape (n, classes).

    Returns:
        `"support"` (number of known labels), `"precision"`, `"recall"` and `"f1"`, each of shape (classes,). As in
        scikit-learn a quotient 0/0 is 0.0.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a probability of a known cell is NaN.
    """
    support, hits, calls = _class_counts(*known_classes(y, p))
    return {
        "support": support,
        "precision": _divide(hits, calls),
        "recall": _divide(hits, support),
        "f1": _class_f1(hits, calls, support),
    }


def class_intervals(y: NDArray, p: NDArray, *, draws: int = 1000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95% intervals of the scores of one tag.

    Accuracy and top-3 accuracy are shares, and get the interval of Wilson (1927), Probable Inference, the Law of
    Succession, and Statistical Inference: it holds for few cells, too, and where all or none are right.

    Macro F1 gets that of the percentile bootstrap, each cell being drawn a Poisson number of times (Hanley and
    MacGibbon 2006, Creating Non-parametric Bootstrap Samples Using Poisson Frequencies). Each entry of the confusion
    matrix is then a Poisson number, so no cell needs to be touched, and the shares of the classes vary, too. From
    classes with a handful of cells it is too narrow: a draw can only repeat them.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown; such cells are left out).
        p: probabilities, shape (n, classes).
        draws: number of resamples.
        seed: of the resampling.

    Returns:
        (low, high) for each name in `CLASS_SCORES`; NaN without a known cell, and for macro F1 where fewer than two
        classes occur.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a probability of a known cell is NaN.
    """
    truth, probabilities = known_classes(y, p)
    confusion = _confusion(truth, probabilities)
    occurring = np.flatnonzero(confusion.any(axis=1))
    found = {
        "accuracy": wilson(int(np.trace(confusion)), len(truth)),
        "macro_f1": (float("nan"), float("nan")),
        "top3_accuracy": wilson(int(np.count_nonzero(_in_top3(truth, probabilities))), len(truth)),
    }
    if len(occurring) < 2:
        return found
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // confusion[occurring].size)
    samples = []
    for start in range(0, draws, at_once):
        counts = rng.poisson(confusion[occurring], size=(min(at_once, draws - start), *confusion[occurring].shape))
        hits, calls = counts[:, np.arange(len(occurring)), occurring], counts.sum(axis=1)[:, occurring]
        support = counts.sum(axis=2)
        drawn = np.maximum((support > 0).sum(axis=1), 1)  # a class that is not drawn says nothing of its F1
        samples.append(np.where(support > 0, _class_f1(hits, calls, support), 0.0).sum(axis=1) / drawn)
    value = class_scores(y, p)["macro_f1"]
    found["macro_f1"] = _around(value, *_interval(np.concatenate(samples)))
    return found


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share, `hits` of `count`; NaN where `count` is 0."""
    if not count:
        return float("nan"), float("nan")
    low, high = float(wilson_low(hits, count)), 1 - float(wilson_low(count - hits, count))
    return (low if hits else 0.0), (high if hits < count else 1.0)


def wilson_low(hits: NDArray | int, counts: NDArray | int) -> NDArray[np.float64]:
    """The lower ends of the 95% intervals (see `wilson`) of shares, `hits` of `counts`, which are at least 1."""
    share, z2 = np.divide(hits, counts), _Z**2
    reach = np.sqrt(z2 * (share * (1 - share) + z2 / np.multiply(4, counts)) / counts)
    return (share + z2 / np.multiply(2, counts) - reach) / (1 + z2 / np.asarray(counts))


def class_chance_levels(y: NDArray, classes: int) -> dict[str, float]:
    """What a model that ignores the picture would score on one tag, π being the share of its most common class.

    * accuracy: π, that of always saying the most common class, the best such a model can do;
    * macro F1: 2π / (1 + π) / (classes that occur), that of always saying the most common class;
    * top-3 accuracy: the share of the three most common classes, that of always naming these.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown; such cells are left out).
        classes: number of classes of the tag.

    Returns:
        One value for each name in `CLASS_SCORES`; NaN without a known cell.

    Raises:
        DataError: an index is not one of a class.
    """
    truth = _class_indices(y, classes)
    if not len(truth):
        return dict.fromkeys(CLASS_SCORES, float("nan"))
    support = np.sort(np.bincount(truth, minlength=classes))[::-1]
    share = support[0] / len(truth)
    return {
        "accuracy": float(share),
        "macro_f1": float(2 * share / (1 + share) / np.count_nonzero(support)),
        "top3_accuracy": float(support[:3].sum() / len(truth)),
    }


def known_classes(y: NDArray, p: NDArray) -> tuple[NDArray[np.intp], NDArray]:
    """The known cells of one tag.

    Args:
        y: labels, shape (n,): class index or -1 (unknown).
        p: probabilities, shape (n, classes).

    Returns:
        The class index of each known cell, shape (known cells,), and its row of `p`, shape (known cells, classes).

    Raises:
        DataError: shapes differ, an index is not one of a class, or a probability of a known cell is NaN.
    """
    if y.ndim != 1 or p.ndim != 2 or len(y) != len(p):
        raise DataError(
            f"Labels of shape {y.shape} and probabilities of shape {p.shape} do not fit: give (n,) and (n, classes)."
        )
    truth, of_known = _class_indices(y, p.shape[1]), p[y != UNKNOWN]
    if np.isnan(of_known).any():
        raise DataError(_NOT_NUMBERS)
    return truth, of_known


def _class_indices(y: NDArray, classes: int) -> NDArray[np.intp]:
    truth = y[y != UNKNOWN].astype(np.intp)
    wrong = truth[(truth < 0) | (truth >= classes)]
    if len(wrong):
        raise DataError(f"{wrong[0]} is not the index of one of {classes} classes: give 0 to {classes - 1}, or -1.")
    return truth


def _confusion(truth: NDArray, p: NDArray) -> NDArray[np.intp]:
    """How many cells of each true class (rows) were called which class (columns)."""
    classes = p.shape[1]
    return np.bincount(truth * classes + p.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def _class_counts(truth: NDArray, p: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Per class, how many cells it has, how many of these were called so, and how many of all were."""
    confusion = _confusion(truth, p)
    return confusion.sum(axis=1), confusion.diagonal(), confusion.sum(axis=0)


def _class_f1(hits: NDArray, calls: NDArray, support: NDArray) -> NDArray[np.float64]:
    return _divide(2 * hits, support + calls)


def _in_top3(truth: NDArray, p: NDArray) -> NDArray[np.bool_]:
    """Whether fewer than three classes are more likely than the true one."""
    of_truth = np.take_along_axis(p, truth[:, None], axis=1)
    earlier = np.arange(p.shape[1]) < truth[:, None]
    return np.count_nonzero((p > of_truth) | ((p == of_truth) & earlier), axis=1) < 3


def _interval(samples: NDArray) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def _divide(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Quotients, 0 where both are 0."""
    return numerator / np.maximum(denominator, 1)


def _called(y: NDArray, p: NDArray, present: NDArray | float) -> NDArray[np.bool_]:
    """What is called present of the known cells."""
    if not isinstance(present, np.ndarray):
        # float64, because NumPy would round a plain Python number to the precision of float32 probabilities
        return p[y != UNKNOWN] > np.float64(present)
    if present.shape != y.shape:
        raise DataError(f"Labels of shape {y.shape} and calls of shape {present.shape} do not fit: give (n,) each.")
    return present[y != UNKNOWN].astype(bool)


def _call_counts(positive: NDArray[np.bool_], called: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Hits, misses, false alarms and rejections."""
    return np.bincount(2 * ~positive + ~called, minlength=4).astype(np.float64)


def _call_scores(counts: NDArray[np.float64], beta: float) -> tuple[NDArray, NDArray, NDArray]:
    """Precision, recall and F-beta, from the counts of one sample, shape (4,), or of many, shape (4, samples)."""
    hits, misses, alarms, _ = counts
    weight = beta**2
    f = _quotient((1 + weight) * hits, (1 + weight) * hits + weight * misses + alarms)
    return _quotient(hits, hits + alarms), _quotient(hits, hits + misses), f


def _between(positive: NDArray[np.bool_], p: NDArray, spread: tuple[float, float] | None) -> tuple[float, float] | None:
    """Which share of the positives, and of the negatives, the lowest and the highest threshold call differently."""
    if spread is None:
        return None
    between = (p > np.float64(spread[0])) & ~(p > np.float64(spread[1]))
    return float(between[positive].mean()), float(between[~positive].mean())


def _drawn_calls(
    rng: np.random.Generator, counts: NDArray, between: tuple[float, float] | None, draws: int
) -> NDArray[np.float64]:
    """Hits, misses, false alarms and rejections as they might be, shape (4, draws), up to a common factor."""
    cells = counts if between is None else counts * _CROSS_FITTED
    drawn = rng.standard_gamma(cells[:, None] + 0.5, size=(4, draws))
    if between is None:
        return drawn
    hits, misses, alarms, rejections = drawn
    moved = rng.standard_normal(draws) / _RANGE_OF_FIVE
    positives, negatives = hits + misses, alarms + rejections
    hits = np.clip(hits + moved * between[0] * positives, 0, positives)
    alarms = np.clip(alarms + moved * between[1] * negatives, 0, negatives)
    return np.stack([hits, positives - hits, alarms, negatives - alarms])


class _Levels(NamedTuple):
    """How many positives and negatives there are on each level, from high to low probability; float64."""

    positives: NDArray[np.float64]
    negatives: NDArray[np.float64]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], p: NDArray) -> _Levels:
        """Counts the known cells of one attribute."""
        order = np.argsort(p)[::-1]
        descending, ones = p[order], positive[order]
        first = np.flatnonzero(np.append(True, descending[1:] != descending[:-1]))
        positives = np.add.reduceat(ones, first, dtype=np.float64)
        return cls(positives, np.diff(np.append(first, len(p))) - positives)


def _order_scores(levels: _Levels) -> tuple[float, float]:
    """Average precision and AUC."""
    true, false = levels.positives.cumsum(), levels.negatives.cumsum()
    precision = true / (true + false)
    average = float(_quotient(levels.positives @ precision, true[-1]))
    if not (true[-1] and false[-1]):
        return average, float("nan")
    return average, float(levels.negatives @ (true - levels.positives / 2) / (true[-1] * false[-1]))


def _order_errors(levels: _Levels) -> tuple[float, float]:
    """Standard errors of average precision and AUC, of both classes: root of Σ (derivative by a cell's weight)²."""
    positives, negatives = levels
    true, false = positives.cumsum(), negatives.cumsum()
    calls, all_positives, all_negatives = true + false, true[-1], false[-1]
    precision = true / calls
    # One more positive raises the precision of its own level and of all below, one more negative lowers it.
    raised, lowered = (_from_here_down(positives * part / calls) for part in (1 - precision, precision))
    by_positive = (precision - positives @ precision / all_positives + raised) / all_positives
    by_negative = -lowered / all_positives
    variance_of_average = positives @ by_positive**2 + negatives @ by_negative**2

    below = (all_negatives - false + negatives / 2) / all_negatives  # share of the negatives that a positive is above
    above = (true - positives / 2) / all_positives
    auc = positives @ below / all_positives
    variance_of_auc = sum(
        counts @ (placed - auc) ** 2 / (count * max(count - 1, 1))
        for counts, placed, count in ((positives, below, all_positives), (negatives, above, all_negatives))
    )
    return float(variance_of_average**0.5), float(variance_of_auc**0.5)


def _from_here_down(levels: NDArray) -> NDArray:
    return levels[::-1].cumsum()[::-1]


def _log_odds_interval(value: float, error: float, rarer: int) -> tuple[float, float]:
    """Around a score with a standard error, that rests on so many cells of the rarer class."""
    if rarer < 2:
        return 0.0, 1.0
    if value in (0.0, 1.0):
        return wilson(round(value * rarer), rarer)
    reach = stdtrit(rarer - 1, 0.975) * error / (value * (1 - value))
    return _around(value, *(float(expit(logit(value) + side * reach)) for side in (-1, 1)))


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """An interval that holds its value: at 0 or 1, what is drawn lies on one side alone."""
    return min(low, value), max(high, value)


def _quotient(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Quotients of any numbers that are at least 0; 0 where both are 0."""
    return numerator / np.where(denominator > 0, denominator, 1.0)
