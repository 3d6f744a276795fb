"""Make probabilities mean what they say: scale the logits of held-out pictures, and keep it only where it helps.

Among cells that are called 70% likely, 70% should be present. Training with `pos_weight` shifts all logits, and a head
that is trained for long becomes too sure; two numbers per attribute, or one per tag, undo both. Neither changes the
order of an attribute's pictures or the likeliest class of a tag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .labels import UNKNOWN
from .metrics.single import known_cells, known_classes, wilson

FEWEST = 10  # known cells of each class that Platt scaling needs, and known cells that a temperature needs

_TEMPERATURES = (1 / 20, 20.0)  # beyond these a probability is 1, or nothing but chance, whatever the picture


@dataclass(frozen=True)
class Platt:
    """Scaling of an attribute's logits: p = σ(slope · z + intercept).

    Attributes:
        slope: above 0, so that the order of the pictures stays.
        intercept: any finite number.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __post_init__(self) -> None:
        """Raises `DataError` for numbers that are no such scaling."""
        if not (0 < self.slope < math.inf and math.isfinite(self.intercept)):
            raise DataError(
                f"Slope {self.slope} and intercept {self.intercept} scale no logits: give a finite slope above 0 and "
                "a finite intercept."
            )

    def logits(self, z: NDArray) -> NDArray:
        """The scaled logits, of the shape of `z`."""
        return self.slope * z + self.intercept

    def get_config(self) -> dict[str, float]:
        """The two numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class Temperature:
    """Scaling of a tag's logits: p = softmax(z / value).

    Attributes:
        value: above 0; above 1 makes all predictions less sure.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        """Raises `DataError` for a number that is no temperature."""
        if not 0 < self.value < math.inf:
            raise DataError(f"{self.value} is not a temperature: give a finite number above 0.")

    def logits(self, z: NDArray) -> NDArray:
        """The scaled logits, of the shape of `z`."""
        return z / self.value

    def get_config(self) -> dict[str, float]:
        """The number by its name."""
        return asdict(self)


Scaling = TypeVar("Scaling", Platt, Temperature)


@dataclass(frozen=True, eq=False)
class Calibration(Generic[Scaling]):
    """How one attribute or one tag is calibrated, and what that brings on pictures it was not fitted on.

    Attributes:
        kind: `"none"`, `"pos_weight"` (its shift undone), `"platt"` or `"temperature"`.
        shipped: the scaling of this kind, fitted on all rows.
        held_out: float64 logits of the shape of those given; each fold's are scaled by a fit on all other folds.
        before: log loss of the logits as given, NaN without a known cell.
        after: log loss of `held_out`.
    """

    kind: str
    shipped: Scaling
    held_out: NDArray[np.float64]
    before: float
    after: float

    @property
    def applied(self) -> bool:
        """Whether the logits are scaled at all."""
        return self.kind != "none"


AttributeCalibration: TypeAlias = Calibration[Platt]
TagCalibration: TypeAlias = Calibration[Temperature]
Fit: TypeAlias = Callable[[NDArray, NDArray, Scaling], Scaling]


@dataclass(frozen=True, eq=False)
class Reliability:
    """What was predicted and what came true, by bins of the probability; bins without a cell are left out.

    Attributes:
        predicted: mean probability in each bin, ascending, shape (bins with cells,).
        observed: share of the bin's cells that came true.
        counts: number of known cells in the bin.
        low: lower end of the 95% interval of `observed` (Wilson 1927).
        high: its upper end.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.intp]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def unweighted(pos_weight: float) -> Platt:
    """The scaling that undoes training with `pos_weight`.

    A positive that counts w times multiplies the odds that minimise the loss by w, so p = σ(z − ln w).

    Args:
        pos_weight: w.

    Raises:
        DataError: it is not a finite number above 0.
    """
    if not 0 < pos_weight < math.inf:
        raise DataError(f"{pos_weight} is not a pos_weight: give a finite number above 0.")
    return Platt(1.0, -math.log(pos_weight))


def fit_platt(y: NDArray, z: NDArray, prior: Platt = Platt()) -> Platt:
    """Platt scaling: the slope and intercept with the smallest log loss on the known cells.

    The targets are not 1 and 0 but (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), N₊ and N₋ being the numbers of positives and
    negatives: then the best fit is finite even where a threshold separates the two (Platt 1999, Probabilistic Outputs
    for Support Vector Machines and Comparisons to Regularized Likelihood Methods).

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        z: logits, shape (n,).
        prior: what is returned where there are fewer than `FEWEST` known positives or negatives, or where higher
            logits do not mean more positives: then there is nothing to learn.

    Raises:
        DataError: shapes differ, or a logit of a known cell is not finite.
    """
    from scipy.optimize import minimize

    positive, logits = _known_logits(y, z)
    ones = np.count_nonzero(positive)
    zeros = len(positive) - ones
    if min(ones, zeros) < FEWEST or logits.min() == logits.max():
        return prior
    target = np.where(positive, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    # On standardised logits one step fits both numbers, whatever the scale of z.
    centre, spread = logits.mean(), logits.std()
    design = np.stack([(logits - centre) / spread, np.ones(len(logits))])

    def loss(numbers: NDArray) -> float:
        scaled = numbers @ design
        return float((np.logaddexp(0, scaled) - target * scaled).mean())

    def gradient(numbers: NDArray) -> NDArray:
        return design @ (_sigmoid(numbers @ design) - target) / len(target)

    def hessian(numbers: NDArray) -> NDArray:
        p = _sigmoid(numbers @ design)
        return (design * (p * (1 - p))) @ design.T / len(target)

    fitted = minimize(loss, np.zeros(2), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9})
    slope, intercept = fitted.x[0] / spread, fitted.x[1] - fitted.x[0] * centre / spread
    return Platt(float(slope), float(intercept)) if slope > 0 else prior


def fit_temperature(y: NDArray, z: NDArray, prior: Temperature = Temperature()) -> Temperature:
    """Temperature scaling: the temperature with the smallest log loss on the known cells.

    The log loss is convex in 1/T (Guo et al. 2017, On Calibration of Modern Neural Networks). One cell that may be of
    any class is added to the N known ones, as part of all of them: the target of a cell's class is (N + 1/C) / (N + 1),
    that of the others (1/C) / (N + 1). As with Platt's targets, the best fit is then finite even where all are right.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown; such cells are left out).
        z: logits, shape (n, C).
        prior: what is returned where there are fewer than `FEWEST` known cells.

    Returns:
        A temperature from 1/20 to 20.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a logit of a known cell is not finite.
    """
    from scipy.optimize import minimize_scalar

    truth, logits = _known_logits(y, z)
    if len(truth) < FEWEST or (logits.min(axis=1) == logits.max(axis=1)).all():
        return prior
    of_truth = np.take_along_axis(logits, truth[:, None], axis=1)
    target = (len(truth) * of_truth + logits.mean(axis=1, keepdims=True)) / (len(truth) + 1)
    top = logits.max(axis=1, keepdims=True)
    below, gap = logits - top, float((top - target).mean())

    def loss(log_value: float) -> float:
        value = math.exp(log_value)
        return float(np.log(np.exp(below / value).sum(axis=1)).mean()) + gap / value

    low, high = _TEMPERATURES
    fitted = minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-6})
    return Temperature(math.exp(fitted.x))


def log_loss(y: NDArray, z: NDArray) -> float:
    """Mean of −ln p of the given label over the known cells, exact at any finite logit.

    Args:
        y: labels, shape (n,): 1 or 0 of an attribute, or the class index of a tag; -1 (unknown) is left out.
        z: logits, shape (n,) of an attribute or (n, C) of a tag.

    Returns:
        The mean, NaN without a known cell.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a logit of a known cell is not finite.
    """
    losses = _losses(y, z)
    return float(losses.mean()) if len(losses) else float("nan")


def calibrate_attribute(y: NDArray, z: NDArray, folds: NDArray, pos_weight: float = 1.0) -> AttributeCalibration:
    """Choose how to scale the logits of an attribute: not at all, by undoing `pos_weight`, or by Platt scaling.

    They are tried in this order on logits that were scaled by a fit on the other folds. One takes the place of the one
    before where it lowers the mean log loss by more than the standard error of the difference over the known cells:
    a gain that noise could have made changes nothing, so small data sets keep the simpler one.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown).
        z: logits, shape (n,), from a head that did not see these pictures.
        folds: the fold of each picture, shape (n,), any whole numbers.
        pos_weight: what a positive counted in training.

    Raises:
        DataError: shapes differ, a logit of a known cell is not finite, or `pos_weight` is not above 0.
    """
    undo = unweighted(pos_weight)
    candidates: list[tuple[str, Fit[Platt]]] = [("pos_weight", lambda y, z, prior: undo), ("platt", fit_platt)]
    return _choose(y, z, folds, candidates, Platt())


def calibrate_tag(y: NDArray, z: NDArray, folds: NDArray) -> TagCalibration:
    """Choose how to scale the logits of a tag: not at all, or by a temperature; see `calibrate_attribute`.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown).
        z: logits, shape (n, C), from a head that did not see these pictures.
        folds: the fold of each picture, shape (n,), any whole numbers.

    Raises:
        DataError: shapes differ, an index is not one of a class, or a logit of a known cell is not finite.
    """
    return _choose(y, z, folds, [("temperature", fit_temperature)], Temperature())


def confidence(y: NDArray, p: NDArray) -> tuple[NDArray[np.int8], NDArray]:
    """A tag's calls seen as one attribute, "the likeliest class is right".

    `reliability` and `metrics.expected_calibration_error` take what it returns.

    Args:
        y: labels of one tag, shape (n,): class index or -1 (unknown).
        p: probabilities, shape (n, C).

    Returns:
        1 where the call is right, 0 where it is wrong, -1 where the label is unknown; and the probability of the
        class that is called; both of shape (n,).

    Raises:
        DataError: shapes differ, an index is not one of a class, or a probability of a known cell is NaN.
    """
    known_classes(y, p)
    right = np.where(y == UNKNOWN, UNKNOWN, p.argmax(axis=1) == y)
    return right.astype(np.int8), p.max(axis=1)


def reliability(y: NDArray, p: NDArray, bins: int = 10) -> Reliability:
    """The reliability diagram of an attribute; for that of a tag see `confidence`.

    Bins are of equal width, open below and closed above (the lowest holds 0, too), those whose gaps between `predicted`
    and `observed` `metrics.expected_calibration_error` adds up. Bins of equal size would put nearly all of a rare
    attribute's bins next to 0; here `low` and `high` say which of them hold too few cells to tell.

    Args:
        y: labels of one attribute, shape (n,): 1, 0 or -1 (unknown; such cells are left out).
        p: probabilities, shape (n,).
        bins: how many.

    Raises:
        DataError: shapes differ, or a probability of a known cell is NaN.
    """
    positive, probabilities = known_cells(y, p)
    bin_of = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probabilities)
    counts, ones, sums = (
        np.bincount(bin_of, weights=weights, minlength=bins)
        for weights in (np.ones(len(positive)), positive, probabilities)
    )
    held = counts > 0
    counts, ones, sums = counts[held].astype(np.intp), ones[held].astype(np.intp), sums[held]
    intervals = [wilson(*cells) for cells in zip(ones.tolist(), counts.tolist(), strict=True)]
    low, high = np.array(intervals, np.float64).reshape(-1, 2).T
    return Reliability(sums / counts, ones / counts, counts, low, high)


def _choose(
    y: NDArray, z: NDArray, folds: NDArray, candidates: Sequence[tuple[str, Fit[Scaling]]], plain: Scaling
) -> Calibration[Scaling]:
    if folds.shape != y.shape:
        raise DataError(f"Folds of shape {folds.shape} do not fit labels of shape {y.shape}: give one per picture.")
    kind, shipped, held_out = "none", plain, z.astype(np.float64)
    first = losses = _losses(y, held_out)
    for name, fit in candidates:
        tried = _cross_fit(y, z, folds, fit, shipped)
        tried_losses = _losses(y, tried)
        if _clearly_positive(losses - tried_losses):
            kind, shipped, held_out, losses = name, fit(y, z, shipped), tried, tried_losses
    before, after = (float(values.mean()) if len(values) else float("nan") for values in (first, losses))
    return Calibration(kind, shipped, held_out, before, after)


def _cross_fit(y: NDArray, z: NDArray, folds: NDArray, fit: Fit[Scaling], prior: Scaling) -> NDArray[np.float64]:
    """Logits of each fold, known or not, scaled by a fit on the known cells of all others."""
    scaled = np.empty(z.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        scaled[inside] = fit(y[~inside], z[~inside], prior).logits(z[inside].astype(np.float64))
    return scaled


def _clearly_positive(gains: NDArray[np.float64]) -> bool:
    """Whether the mean is above its standard error."""
    return len(gains) > 1 and bool(gains.mean() > gains.std(ddof=1) / math.sqrt(len(gains)))


def _losses(y: NDArray, z: NDArray) -> NDArray[np.float64]:
    """−ln p of the label of each known cell."""
    truth, logits = _known_logits(y, z)
    if z.ndim == 1:
        return np.logaddexp(0, np.where(truth, -logits, logits))
    return np.logaddexp.reduce(logits - np.take_along_axis(logits, truth[:, None], axis=1), axis=1)


def _known_logits(y: NDArray, z: NDArray) -> tuple[NDArray, NDArray[np.float64]]:
    truth, logits = known_cells(y, z) if z.ndim == 1 else known_classes(y, z)
    if not np.isfinite(logits).all():
        raise DataError("Some logits are infinite: train again with a smaller learning rate.")
    return truth, logits.astype(np.float64)


def _sigmoid(z: NDArray) -> NDArray:
    return np.exp(-np.logaddexp(0, -z))
