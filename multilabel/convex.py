"""Linear heads on stored features as the convex problem that they are: L-BFGS, each attribute with its own L2 strength.

Cross-entropy of a linear head has one minimum once large weights cost something, so there is nothing to choose but how
much they cost. Heads walk down a ladder of strengths, from one so strong that nothing is learnt to weaker ones, each
starting where the last one ended, and what is best is found for each attribute and tag apart, as the epochs are
where heads learn step by step: a step down the ladder stands for an epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from .errors import DataError
from .heads import Head, SoftmaxHead
from .slabs import slabs
from .stopping import BestEpochs, Epochs, KeepEpochs, Validation, kept_weights, sums_of_cells
from .training import Batches, History, Log, Phase

STEPS = 15  # down the ladder, at most
PATIENCE = 2  # steps without a better value after which an attribute or tag has stopped
_log = logging.getLogger("multilabel")
_RATIO = 10**-0.5  # of the strength of a step to that of the one before
_KEPT_BYTES = 2**28  # features up to this are gathered and standardised once, more in every iteration
_MEMORY = 10  # of L-BFGS: earlier steps from which it knows the curvature
_ITERATIONS = 500
_STILL = 0.99  # a loss that the last tenth of the iterations has lowered below this share of it is not near its minimum
_ROUGH, _EXACT = 1e-6, 1e-7  # smallest relative gain of an iteration: while strengths are compared, and of what is kept


def strength(step: Any, dimension: int) -> Any:
    """The L2 strength of a step down the ladder, counted from 1: what is added to the mean loss of the pictures is
    `strength / 2 * sum(weights**2)`, for weights on features of variance 1, of which there are `dimension`."""
    return dimension * _RATIO ** (step - 1.0)


def train_convex(
    model: keras.Model,
    heads: Sequence[Head],
    training: Batches,
    validation: Batches | None,
    phase: Phase,
    *,
    keeper: keras.callbacks.Callback | None = None,
    tensorboard: Path | None = None,
    what: str = "training",
    progress: bool = False,
) -> History:
    """Gives heads the weights with the least loss on the training part, L2 regularised; called as `training.train` is.

    The objective is, for each attribute or tag, the sum of the losses of its cells (as its head has them) / pictures of
    the training part, and the cost of its weights (`strength`). Biases cost nothing. Features are standardised by the
    training part, which then goes into the weights. All heads are one problem, so that features are gone through once
    for all of them; it falls apart into those of the attributes and tags.

    Args:
        model: the heads on features, `(batch, dimension)`; changed in place.
        heads: the heads of the model's outputs, whose losses are convex: `FitConfig` sees to that.
        training: to learn from; its inputs are an array or a memory-mapped file, float32 or float16, of shape
            `(n, dimension)`, or `(n, views, dimension)` of which every view counts the same.
        validation: to choose the strength of each attribute and tag by, inputs `(n, dimension)`; or `None`.
        phase: how many steps to go down the ladder, and what is followed.
        keeper: `BestEpochs` follows the ladder; `KeepEpochs` says for each attribute and tag which step of it is meant,
            and they are solved at once. `None`: each attribute and tag keeps its best step on the validation part.
        tensorboard: folder for TensorBoard's event files.
        what: what the bar is called.
        progress: show a bar on stderr, where a person watches.

    Returns:
        A history whose iterations are those of L-BFGS, and whose epochs are steps down the ladder.

    Raises:
        DataError: a feature is no number.
        Interrupted: on Ctrl-C.
    """
    log = Log(heads, phase, what, progress)
    callbacks: list[keras.callbacks.Callback] = [log]
    best = keeper if isinstance(keeper, BestEpochs) else None
    measured = None if validation is None else Validation(heads, validation, lambda *part: _sums(model, heads, *part))
    if measured is not None:
        best = best or BestEpochs(heads, measured.part, phase.patience, phase.monitor)
        best.measure = measured.latest
    if best is not None:
        callbacks.append(best)
    if tensorboard is not None:
        callbacks.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
    run = keras.callbacks.CallbackList(callbacks, model=model, epochs=phase.epochs)
    steps = _steps(heads, phase, keeper)
    path: list[dict[str, list[NDArray]]] = []
    model.stop_training = False
    try:
        run.on_train_begin()
        problem = _Problem(heads, training)
        for number, step in enumerate(steps):
            run.on_epoch_begin(number)
            with threadpool_limits(1, "blas"):  # on short vectors, threads that wait for each other take all the time
                told = problem.solve(step, _EXACT if keeper is not best else _ROUGH)
            log.history.training_loss += told
            weights = problem.of_heads()
            _put(model, weights)
            if keeper is None:
                path.append(weights)
            run.on_epoch_end(number, {} if measured is None else measured.logs())
            if model.stop_training:
                break
        run.on_train_end()
    except KeyboardInterrupt:
        raise log.interrupted() from None
    finally:
        log.close()
    history = log.ended(callbacks)
    if keeper is None and best is not None:
        _put(model, kept_weights(path, best.epochs))
        values = history.validation_loss if phase.monitor == "loss" else [-one for one in history.validation_accuracy]
        history.best_epoch = int(np.argmin(values)) + 1
    return history


class _Problem:
    """The objective of all heads on the training part, and the best weights so far, on standardised features.

    Weights are `(dimension + 1, units of all heads)`: the last row is the biases.
    """

    def __init__(self, heads: Sequence[Head], training: Batches) -> None:
        features, rows = training.features, training.rows
        views = features.shape[1] if features.ndim == 3 else 1
        self.heads = heads
        self.features = _Standardised(
            features.reshape(-1, features.shape[-1]), (rows[:, np.newaxis] * views + np.arange(views)).ravel()
        )
        self.targets = {name: np.repeat(target[rows], views, axis=0) for name, target in training.targets.items()}
        ends = np.cumsum([head.units for head in heads]).tolist()
        self.columns = [slice(end - head.units, end) for head, end in zip(heads, ends, strict=True)]
        self.weights, self.curvature = np.zeros((features.shape[-1] + 1, ends[-1])), np.empty(ends[-1])
        for head, mine in zip(heads, self.columns, strict=True):
            self.weights[-1, mine], curvature = _before_learning(head, self.targets[head.name])
            self.curvature[mine] = curvature / len(self.features.rows)
        self.told = 0.0

    def solve(self, steps: Epochs, smallest_gain: float) -> list[float]:
        """Minimises, with the strengths of these steps; the known loss after each iteration."""
        told: list[float] = []
        costs, dimension = np.zeros_like(self.weights), len(self.weights) - 1
        for head, mine in zip(self.heads, self.columns, strict=True):
            costs[:-1, mine] = strength(steps[head.name], dimension)
        # In these units each weight has about the same curvature, so that L-BFGS needs half as many iterations.
        unit = 1 / np.sqrt(self.curvature + costs)
        result = minimize(
            self._objective,
            (self.weights / unit).ravel(),
            (costs, unit),
            method="L-BFGS-B",
            jac=True,
            callback=lambda _: told.append(self.told),
            options={"maxcor": _MEMORY, "maxiter": _ITERATIONS, "ftol": smallest_gain, "gtol": 1e-7},
        )
        self.weights = result.x.reshape(unit.shape) * unit
        if result.nit >= _ITERATIONS and told[-1] < _STILL * told[-(_ITERATIONS // 10)]:
            _log.warning(
                f"--solver lbfgs ended before the minimum, after {_ITERATIONS} iterations; "
                "--solver adam is another way."
            )
        return told or [self.told]

    def of_heads(self) -> dict[str, list[NDArray]]:
        """Kernel and bias of each head, by name, on features as they are."""
        kernel = self.weights[:-1] / self.features.scale[:, np.newaxis]
        bias = (self.weights[-1] - self.features.mean @ kernel).astype(np.float32)
        kernel = kernel.astype(np.float32)
        return {head.name: [kernel[:, mine], bias[mine]] for head, mine in zip(self.heads, self.columns, strict=True)}

    def _objective(self, scaled: NDArray, costs: NDArray, unit: NDArray) -> tuple[float, NDArray]:
        """Value and gradient, in units of the weights."""
        weights = scaled.reshape(unit.shape) * unit
        kernel, bias = weights[:-1].astype(np.float32), weights[-1].astype(np.float32)
        loss, gradient = 0.0, np.zeros_like(weights)
        known_loss, known = np.zeros(len(self.heads)), np.zeros(len(self.heads))
        for part, features in self.features.slabs():
            z = ops.convert_to_numpy(ops.matmul(features, kernel)) + bias
            slope = np.empty_like(z)
            for number, (head, mine) in enumerate(zip(self.heads, self.columns, strict=True)):
                y = self.targets[head.name][part]
                losses, slope[:, mine] = head.loss_and_slope(y, z[:, mine])
                loss += losses.sum(dtype=np.float64)
                known_loss[number] += losses[y >= 0].sum(dtype=np.float64)
                known[number] += np.count_nonzero(y >= 0)
            gradient[:-1] += ops.convert_to_numpy(ops.matmul(np.ascontiguousarray(slope.T), features)).T
            gradient[-1] += slope.sum(axis=0, dtype=np.float64)
        self.told = float(np.sum(known_loss / known * [head.weight for head in self.heads]))
        count = len(self.features.rows)
        gradient = (gradient / count + costs * weights) * unit
        return loss / count + float(np.vdot(costs, np.square(weights))) / 2, gradient.ravel()


class _Standardised:
    """Rows of features with mean 0 and variance 1; features that do not vary are 0.

    Attributes:
        mean: of each feature, shape (dimension,).
        scale: its standard deviation; infinite if it does not vary.
    """

    def __init__(self, features: NDArray, rows: NDArray) -> None:
        self.features, self.rows = features, rows
        count, self.mean, squares = 0, np.zeros(features.shape[1]), np.zeros(features.shape[1])
        for _, slab in slabs(features, rows):  # Chan, Golub and LeVeque 1979: no difference of large sums
            mean = slab.mean(axis=0, dtype=np.float64)
            slab -= mean.astype(np.float32)
            rest = slab.mean(axis=0, dtype=np.float64)  # of rounding the mean
            apart = mean - self.mean
            squares += np.einsum("ij,ij->j", slab, slab, dtype=np.float64) - len(slab) * rest**2
            squares += apart**2 * count * len(slab) / (count + len(slab))
            count += len(slab)
            self.mean += apart * len(slab) / count
        if not np.isfinite(squares).all():
            raise DataError("Some features are no numbers; delete the feature store in the cache folder and run again.")
        deviation = np.sqrt(squares / count)
        self.scale = np.where(deviation > 1e-6 * np.abs(self.mean), deviation, np.inf)
        self.kept = list(self._gathered()) if 4 * len(rows) * features.shape[1] <= _KEPT_BYTES else None

    def slabs(self) -> Iterator[tuple[slice, Any]]:
        """The rows in order, as `slabs.slabs` gives them, but as tensors."""
        return self._gathered() if self.kept is None else iter(self.kept)

    def _gathered(self) -> Iterator[tuple[slice, Any]]:
        mean, scale = self.mean.astype(np.float32), self.scale.astype(np.float32)
        for part, slab in slabs(self.features, self.rows):
            slab -= mean
            slab /= scale
            yield part, ops.convert_to_tensor(slab)


def _before_learning(head: Head, y: NDArray) -> tuple[NDArray, NDArray]:
    """The best biases of a head that knows no features, and the curvature of the sum of losses by its logits there."""
    even = 1 / head.units if isinstance(head, SoftmaxHead) else 0.5
    losses, slope = head.loss_and_slope(y, np.zeros((len(y), head.units), np.float32))
    weight = losses.sum(axis=0, dtype=np.float64) / -np.log(even)  # of all cells
    share = even - slope.sum(axis=0, dtype=np.float64) / weight  # of those that are present, or of each class
    share = np.clip(share, 0.5 / weight, 1 - 0.5 / weight)
    bias = np.log(share) if isinstance(head, SoftmaxHead) else np.log(share / (1 - share))
    return bias, share * (1 - share) * weight


def _steps(heads: Sequence[Head], phase: Phase, keeper: keras.callbacks.Callback | None) -> Iterator[Epochs]:
    """The steps down the ladder, by head name one number per attribute, or one for a tag."""
    if isinstance(keeper, KeepEpochs):
        yield keeper.epochs
        return
    for step in range(1, phase.epochs + 1):
        yield {head.name: np.array([step]) for head in heads}


def _put(model: keras.Model, weights: Mapping[str, list[NDArray]]) -> None:
    for name, of_head in weights.items():
        model.get_layer(name).set_weights(of_head)


def _sums(
    model: keras.Model, heads: Sequence[Head], features: NDArray, targets: Mapping[str, NDArray]
) -> dict[str, tuple[Any, Any, Any]]:
    sums = {}
    for head in heads:
        kernel, bias = model.get_layer(head.name).get_weights()
        sums[head.name] = sums_of_cells(head, head.loss(), targets[head.name], features @ kernel + bias)
    return sums
