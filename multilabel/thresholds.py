"""Choose and apply thresholds: an attribute is present where its probability is greater (`>`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, UsageError
from .labels import UNKNOWN

DEFAULT_THRESHOLD = 0.5
NEVER = 1.0  # no probability is greater

_THROUGHOUT = 0.8  # share of a threshold's calls from which on its precision must be kept

_NOT_NUMBERS = "Some probabilities are not numbers (NaN): train again with a smaller learning rate."


@dataclass(frozen=True)
class Threshold:
    """The threshold of one attribute.

    Attributes:
        value: the attribute is present where its probability is greater.
        source: `"tuned"` on the attribute's own labels, `"shared"` by all attributes because that was wanted or because
            it has too few positives of its own, `"default"` (0.5) because there are no positives at all,
            `"precision"`: the lowest that keeps a wanted precision, or `"given"` by a person.
        positives: number of known positives of this attribute among the labels it was chosen on.
        spread: the lowest and the highest of the thresholds that its folds were called by (see
            `cross_fit_thresholds`): how far it is a matter of luck; `None` if there were no folds.
    """

    value: float
    source: str
    positives: int
    spread: tuple[float, float] | None = None


def choose_thresholds(
    y: NDArray,
    p: NDArray,
    beta: float = 1.0,
    min_positives: int = 10,
    *,
    min_precision: float | None = None,
    shared: bool = False,
    names: Sequence[str] = (),
    or_never: bool = False,
    own: Sequence[bool] | None = None,
) -> list[Threshold]:
    """One threshold per attribute, each maximising F-beta on the attribute's known cells.

    An attribute with fewer than `min_positives` known positives would be tuned on noise: it gets the
    threshold that maximises F-beta over the known cells of all attributes together.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, shape (n, attributes).
        beta: F-beta weighs recall `beta` times as much as precision.
        min_positives: known positives that an attribute needs for a threshold of its own.
        min_precision: with it, thresholds have the highest recall that keeps this precision (see `precise_threshold`)
            instead of the highest F-beta, however few positives there are.
        shared: all attributes get the threshold that suits them together.
        names: of the attributes, for what errors say.
        or_never: where `min_precision` cannot be kept the threshold is 1, so that nothing is called present, instead of
            an error.
        own: which attributes get a threshold of their own, if they have a positive at all; `None`: those with
            `min_positives`. Folds hold fewer positives than all of them, and are to follow the same rule as all.

    Returns:
        One `Threshold` per attribute.

    Raises:
        DataError: shapes differ, a probability of a known cell is NaN, or `min_precision` cannot be kept.
        UsageError: `min_precision` is no share, or together with `shared`.
    """
    if y.ndim != 2 or y.shape != p.shape:
        raise DataError(
            f"Labels of shape {y.shape} and probabilities of shape {p.shape} do not fit: give (n, attributes) each."
        )
    if min_precision is not None:
        if shared:
            raise UsageError("A precision is kept by each attribute for itself: leave out either it or shared.")
        return _precise_thresholds(y, p, min_precision, names, or_never)
    positives = np.count_nonzero(y == 1, axis=0).tolist()
    tuned = {
        column: best_threshold(y[:, column], p[:, column], beta)[0]
        for column, count in enumerate(positives)
        if count and not shared and (count >= min_positives if own is None else own[column])
    }
    common, source = DEFAULT_THRESHOLD, "default"
    if len(tuned) < len(positives) and any(positives):
        common, source = best_threshold(y, p, beta)[0], "shared"
    return [
        Threshold(tuned[column], "tuned", count) if column in tuned else Threshold(common, source, count)
        for column, count in enumerate(positives)
    ]


def cross_fit_thresholds(
    y: NDArray, p: NDArray, folds: NDArray, choose: Callable[[NDArray, NDArray], Sequence[Threshold]]
) -> tuple[NDArray[np.bool_], list[tuple[float, float]]]:
    """What is present where each fold is called by thresholds that were chosen on all other folds.

    No label has a say in whether its own cell is called present, so scores of these calls are those of pictures that
    chose nothing, but for thresholds being chosen on a little fewer labels.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, shape (n, attributes).
        folds: the fold of each row, shape (n,).
        choose: gives one threshold per attribute from some rows of labels and probabilities.

    Returns:
        What is present, shape (n, attributes), and per attribute the lowest and the highest threshold of the folds.

    Raises:
        DataError: shapes differ; whatever `choose` raises.
    """
    if y.ndim != 2 or y.shape != p.shape or folds.shape != (len(y),):
        raise DataError(
            f"Labels of shape {y.shape}, probabilities of shape {p.shape} and folds of shape {folds.shape} do not fit: "
            "give (n, attributes) twice, then (n,)."
        )
    present = np.zeros(y.shape, dtype=bool)
    values = []
    for fold in np.unique(folds):
        judged = folds == fold
        chosen = choose(y[~judged], p[~judged])
        present[judged] = apply_thresholds(p[judged], chosen)
        values.append([threshold.value for threshold in chosen])
    return present, [(min(of_folds), max(of_folds)) for of_folds in zip(*values, strict=True)]


def precise_threshold(y: NDArray, p: NDArray, precision: float) -> float | None:
    """The threshold with the highest recall of those that keep a precision on pictures to come; `None` without any.

    A threshold keeps it if the lower end of the 95% interval of its precision (`wilson_low`) is no lower. But the best
    of many cuts is good by luck, too: where each cut has a precision just below the wanted one (0.895 instead of 0.9,
    0.74 instead of 0.75), one passes in 11% to 13% of samples of 2,000 or 3,000 labels. So every cut must pass that has
    four fifths of the threshold's calls or more: that happens in 3% to 5%. Where precision falls with the threshold, as
    it should, 1% to 3% of thresholds do not keep it on pictures to come (all simulated).

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        precision: between 0 and 1.

    Raises:
        DataError: a probability of a known cell is NaN.
    """
    levels, hits, calls = _cuts(y, p)
    if not len(levels):
        return None
    kept = _last_kept(hits, calls, precision)
    return None if kept is None else _halfway(levels[kept], levels[::-1])


def best_threshold(y: NDArray, p: NDArray, beta: float = 1.0) -> tuple[float, float]:
    """The threshold with the highest F-beta, and this F-beta: the exact maximum over all thresholds.

    Lowering the threshold past a negative only costs precision, so the best one lies right below some
    positive. It is put halfway to the next lower probability (halfway to 0 when there is none). Where several
    reach the same F-beta the highest is taken, which calls the fewest cells present.

    Args:
        y: labels of any shape: 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, of the same shape.
        beta: F-beta weighs recall `beta` times as much as precision.

    Returns:
        (threshold, F-beta). The threshold is representable in the precision of `p`.

    Raises:
        DataError: no cell is positive, or a probability of a known cell is NaN.
    """
    positives, negatives = np.sort(p[y == 1]), np.sort(p[y == 0])
    if not len(positives):
        raise DataError("None of the known labels is positive, so there is nothing to choose a threshold by.")
    if np.isnan(positives[-1]) or (len(negatives) and np.isnan(negatives[-1])):  # NaN is sorted to the end
        raise DataError(_NOT_NUMBERS)

    # Cut right below each positive. Of equal positives only the first counts them all, and it has the highest
    # F-beta of them, so the others do no harm.
    true = np.arange(len(positives), 0, -1)
    false = len(negatives) - np.searchsorted(negatives, positives, side="left")
    # Equal fractions of whole numbers round equally, so equal F-betas are seen as equal.
    quality = true / (beta**2 * len(positives) + true + false)
    best = len(quality) - 1 - int(quality[::-1].argmax())
    # The next lower probability is a negative's: calling one more positive present would have raised F-beta.
    return _halfway(positives[best], negatives), float((1 + beta**2) * quality[best])


def apply_thresholds(p: NDArray, thresholds: Sequence[Threshold]) -> NDArray[np.bool_]:
    """What is present.

    Args:
        p: probabilities, shape (n, attributes).
        thresholds: one per attribute.

    Returns:
        Booleans of the shape of `p`.
    """
    return p > np.array([threshold.value for threshold in thresholds], dtype=np.float64)


def _precise_thresholds(
    y: NDArray, p: NDArray, precision: float, names: Sequence[str], or_never: bool
) -> list[Threshold]:
    if not 0 < precision < 1:
        raise UsageError(f"The precision to keep is {precision}; expected a number above 0 and below 1.")
    chosen = []
    for column, (labels, probabilities) in enumerate(zip(y.T, p.T, strict=True)):
        value = precise_threshold(labels, probabilities, precision)
        if value is None and not or_never:
            name = names[column] if names else f"The attribute in column {column} (counted from 0)"
            raise DataError(_impossible(labels, probabilities, precision, name))
        positives = int(np.count_nonzero(labels == 1))
        chosen.append(Threshold(NEVER if value is None else value, "precision", positives))
    return chosen


def _impossible(y: NDArray, p: NDArray, precision: float, name: str) -> str:
    """Why a precision cannot be kept, and what to do."""
    _, hits, calls = _cuts(y, p)
    if not len(hits) or not hits[-1]:
        return f"{name}: no threshold can be shown to keep a precision, for none of its labels is positive; label some."
    low, high = 0.0, precision
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if _last_kept(hits, calls, middle) is None else (middle, high)
    reachable = int(low * 1000) / 1000
    return (
        f"{name}: no threshold can be shown to keep a precision of {precision:g}; from its {hits[-1]} positive and "
        f"{calls[-1] - hits[-1]} negative labels the best that is certain (95% Wilson lower bound) is {reachable:.3f}. "
        "Ask for less, or label more pictures."
    )


def _cuts(y: NDArray, p: NDArray) -> tuple[NDArray, NDArray[np.intp], NDArray[np.intp]]:
    """The distinct probabilities of known cells from high to low; how many positives, and cells, have at least each."""
    known = y != UNKNOWN
    if np.isnan(p[known]).any():
        raise DataError(_NOT_NUMBERS)
    levels, level = np.unique(p[known], return_inverse=True)
    positives = np.bincount(level[y[known] == 1], minlength=len(levels))
    cells = np.bincount(level, minlength=len(levels))
    return levels[::-1], positives[::-1].cumsum(), cells[::-1].cumsum()


def _last_kept(hits: NDArray[np.intp], calls: NDArray[np.intp], precision: float) -> int | None:
    """The lowest cut right below a positive that keeps the precision, as do those of nearly as many calls."""
    from .metrics.single import wilson_low  # brings in SciPy, which predictions do without

    keeps = wilson_low(hits, calls) >= precision
    last_failure = np.maximum.accumulate(np.where(keeps, 0, calls))
    finds = np.diff(hits, prepend=0) > 0
    kept = np.flatnonzero(keeps & finds & (last_failure < _THROUGHOUT * calls))
    return int(kept[-1]) if len(kept) else None


def _halfway(score: np.floating, ascending: NDArray) -> float:
    """A threshold between the lowest present score and the next lower one."""
    smaller = np.searchsorted(ascending, score, side="left")
    if not smaller:
        return float(score / 2) if score > 0 else -float(np.finfo(ascending.dtype).tiny)
    lower = ascending[smaller - 1]
    middle = lower + (score - lower) / 2
    return float(middle if middle < score else lower)  # between neighbouring floats the middle may round up
