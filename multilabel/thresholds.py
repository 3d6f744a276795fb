"""Choose and apply thresholds: an attribute is present where its probability is greater (`>`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Threshold:
    """The threshold of one attribute.

    Attributes:
        value: the attribute is present where its probability is greater.
        source: `"tuned"` on the attribute's own labels, `"shared"` by all attributes because it has too few
            positives of its own, `"default"` (0.5) because there are no positives at all, or `"given"`
            by a person.
        positives: number of known positives of this attribute among the labels it was chosen on.
    """

    value: float
    source: str
    positives: int


def choose_thresholds(y: NDArray, p: NDArray, beta: float = 1.0, min_positives: int = 10) -> list[Threshold]:
    """One threshold per attribute, each maximising F-beta on the attribute's known cells.

    An attribute with fewer than `min_positives` known positives would be tuned on noise: it gets the
    threshold that maximises F-beta over the known cells of all attributes together.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, shape (n, attributes).
        beta: F-beta weighs recall `beta` times as much as precision.
        min_positives: known positives that an attribute needs for a threshold of its own.

    Returns:
        One `Threshold` per attribute.

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    if y.ndim != 2 or y.shape != p.shape:
        raise DataError(
            f"Labels of shape {y.shape} and probabilities of shape {p.shape} do not fit: give (n, attributes) each."
        )
    positives = np.count_nonzero(y == 1, axis=0).tolist()
    tuned = {
        column: best_threshold(y[:, column], p[:, column], beta)[0]
        for column, count in enumerate(positives)
        if count >= max(1, min_positives)
    }
    shared, source = DEFAULT_THRESHOLD, "default"
    if len(tuned) < len(positives) and any(positives):
        shared, source = best_threshold(y, p, beta)[0], "shared"
    return [
        Threshold(tuned[column], "tuned", count) if column in tuned else Threshold(shared, source, count)
        for column, count in enumerate(positives)
    ]


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
        raise DataError("Some probabilities are not numbers (NaN): train again with a smaller learning rate.")

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


def _halfway(score: np.floating, negatives: NDArray) -> float:
    """A threshold between the lowest present score and the next lower one."""
    smaller = np.searchsorted(negatives, score, side="left")
    if not smaller:
        return float(score / 2) if score > 0 else -float(np.finfo(negatives.dtype).tiny)
    lower = negatives[smaller - 1]
    middle = lower + (score - lower) / 2
    return float(middle if middle < score else lower)  # between neighbouring floats the middle may round up
