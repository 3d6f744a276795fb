"""When each attribute and each tag has learnt enough: their columns of a head learn side by side.

Early stopping of a whole head ends with whichever attribute gets worse first; rare ones do, and stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from .heads import Head, SoftmaxHead
from .labels import UNKNOWN
from .slabs import slabs
from .training import Batches, metric_names

Epochs = Mapping[str, NDArray[np.intp]]  # by head name: one number per attribute, or one for a tag


@dataclass(frozen=True)
class Measured:
    """What known cells say of a head, per attribute, or for a tag as the only one; shapes (attributes,) or (1,).

    Attributes:
        losses: the sum of the losses of known cells.
        right: how many known cells are predicted right.
        known: how many cells are known.
    """

    losses: NDArray[np.float64]
    right: NDArray[np.float64]
    known: NDArray[np.float64]

    @property
    def loss(self) -> float:
        """Sum of known losses / number of known cells, over all attributes; 0 without any."""
        return float(self.losses.sum() / max(self.known.sum(), 1))

    @property
    def accuracy(self) -> float:
        """Share of the known cells that are predicted right, over all attributes; 0 without any."""
        return float(self.right.sum() / max(self.known.sum(), 1))

    def good(self, monitor: str) -> NDArray[np.float64]:
        """What each is judged by, the higher the better: minus its mean loss, or its accuracy."""
        return (-self.losses if monitor == "loss" else self.right) / np.maximum(self.known, 1)


def sums_of_cells(head: Head, loss: Any, y: Any, z: Any) -> tuple[Any, Any, Any]:
    """The values of `Measured`, as tensors, from labels and logits.

    Args:
        head: the head.
        loss: its loss, which may know more than the head.
        y: labels, shape (n, attributes), or (n,) of a tag.
        z: logits, shape (n, attributes or classes).
    """
    losses, known = loss.cells(y, z)
    if isinstance(head, SoftmaxHead):
        right = ops.equal(ops.argmax(z, axis=1), ops.cast(y, "int64"))[:, None]
    else:
        right = ops.equal(z > 0, y > 0)
    values = (losses, ops.logical_and(right, known), known)
    return tuple(ops.sum(ops.cast(value, "float32"), axis=0) for value in values)


def targets_of(batches: Batches, rows: NDArray) -> dict[str, NDArray[np.int32]]:
    """The labels of some rows, by head name."""
    return {name: target[rows].astype(np.int32) for name, target in batches.targets.items()}


def measure(sums: Callable[[Any, Any], Mapping[str, Sequence[Any]]], validation: Batches) -> dict[str, Measured]:
    """What a part says of heads, by head name, gathered slab by slab.

    Args:
        sums: features `(n, dimension)` and labels by head name → by head name what `sums_of_cells` returns.
        validation: the part.
    """
    total: dict[str, NDArray] = {}
    for part, features in slabs(validation.features, validation.rows):
        for name, values in sums(features, targets_of(validation, validation.rows[part])).items():
            of_slab = np.stack([ops.convert_to_numpy(value) for value in values]).astype(np.float64)
            total[name] = total.get(name, 0.0) + of_slab
    return {name: Measured(*values) for name, values in total.items()}


class Validation:
    """What a part says of the heads after each epoch, measured once for everyone who asks.

    Args:
        heads: the heads.
        part: the pictures; inputs `(n, dimension)`.
        sums: as `measure` takes it.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        part: Batches,
        sums: Callable[[Any, Any], Mapping[str, Sequence[Any]]],
    ) -> None:
        self.heads, self.part, self.sums = heads, part, sums
        self._measured: Mapping[str, Measured] = {}

    def latest(self) -> Mapping[str, Measured]:
        """What was measured last, by head name."""
        return self._measured

    def logs(self) -> dict[str, float]:
        """Measures anew; the values as Keras calls them."""
        self._measured = measure(self.sums, self.part)
        return {
            name: getattr(self._measured[head.name], what)
            for what in ("loss", "accuracy")
            for name, head in zip(metric_names(self.heads, f"val_known_{what}"), self.heads, strict=True)
        }


class BestEpochs(keras.callbacks.Callback):
    """Finds the epoch that is best for each attribute and each tag; training ends when none gets better any more.

    Args:
        heads: the heads of the model.
        validation: the part to judge by; inputs `(n, dimension)`.
        patience: epochs without a better value after which an attribute or tag has stopped.
        monitor: `"loss"` or `"accuracy"`.
        smallest_gain: share of the best value by which a later epoch must be better to count.

    Attributes:
        measure: what the part says of the heads as they are now; a trainer that knows it already puts it here.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        validation: Batches,
        patience: int,
        monitor: str = "loss",
        smallest_gain: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.validation = heads, validation
        self.patience, self.monitor, self.smallest_gain = patience, monitor, smallest_gain
        self.measure: Callable[[], Mapping[str, Measured]] = lambda: measure(self._sums, validation)
        self._best = {head.name: np.full(count(head), -np.inf) for head in heads}
        self._epochs = {head.name: np.ones(count(head), np.intp) for head in heads}

    @property
    def epochs(self) -> Epochs:
        """The best epochs, counted from 1; without both labels to judge by, the median of the others."""
        known = {head.name: can_be_judged(head, self._labels(head)) for head in self.heads}
        judged = np.concatenate([self._epochs[head.name][known[head.name]] for head in self.heads])
        usual = round(float(np.median(judged))) if len(judged) else 1
        return {name: np.where(known[name], epochs, usual) for name, epochs in self._epochs.items()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judges the weights as they are now."""
        measured, waiting = self.measure(), 0
        for head in self.heads:
            best, epochs = self._best[head.name], self._epochs[head.name]
            values = measured[head.name].good(self.monitor)
            enough = self.smallest_gain * np.abs(np.where(np.isfinite(best), best, 0.0))
            better = (values > best + enough) & (epoch - epochs < self.patience)
            best[better], epochs[better] = values[better], epoch + 1
            waiting += int(np.count_nonzero(epoch + 1 - epochs < self.patience))
        if not waiting:
            self.model.stop_training = True

    def _labels(self, head: Head) -> NDArray:
        return self.validation.targets[head.name][self.validation.rows]

    def _sums(self, features: Any, targets: Mapping[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
        return {
            head.name: sums_of_cells(head, head.loss(), targets[head.name], self.model.get_layer(head.name)(features))
            for head in self.heads
        }


def kept_weights(path: Sequence[Mapping[str, Sequence[NDArray]]], epochs: Epochs) -> dict[str, list[NDArray]]:
    """For each attribute and each tag the weights that it had after an epoch of its own, by head name.

    Args:
        path: after each epoch, kernel and bias of each head by its name.
        epochs: the epochs, counted from 1.
    """
    kept = {}
    for name, mine in epochs.items():
        kept[name] = [np.zeros_like(weights) for weights in path[0][name]]
        for epoch, of_heads in enumerate(path, start=1):
            kept[name] = [
                np.where(mine == epoch, new, old) for new, old in zip(of_heads[name], kept[name], strict=True)
            ]
    return kept


class KeepEpochs(keras.callbacks.Callback):
    """Gives each attribute and each tag the weights that it had after an epoch of its own.

    Args:
        heads: the heads of the model.
        epochs: the epochs, counted from 1; training must last as long as the last of them.
    """

    def __init__(self, heads: Sequence[Head], epochs: Epochs) -> None:
        super().__init__()
        self.heads, self.epochs = heads, epochs
        self._kept: dict[str, list[NDArray]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keeps the weights of those whose epoch it is."""
        for head in self.heads:
            now = self.model.get_layer(head.name).get_weights()
            kept = self._kept.setdefault(head.name, now)
            mine = self.epochs[head.name] == epoch + 1  # a tag's single one stands for all its classes
            self._kept[head.name] = [np.where(mine, new, old) for new, old in zip(now, kept, strict=True)]

    def on_train_end(self, logs: Any = None) -> None:
        """Puts the kept weights back."""
        for name, weights in self._kept.items():
            self.model.get_layer(name).set_weights(weights)


def longest(epochs: Epochs) -> int:
    """The last epoch that any of them needs."""
    return max(int(numbers.max()) for numbers in epochs.values())


def can_be_judged(head: Head, y: NDArray) -> NDArray[np.bool_]:
    """For each attribute whether there are both labels, and for a tag whether there is any."""
    if isinstance(head, SoftmaxHead):
        return np.array([(y != UNKNOWN).any()])
    return (y == 1).any(axis=0) & (y == 0).any(axis=0)


def count(head: Head) -> int:
    """How many there are that stop apart."""
    return 1 if isinstance(head, SoftmaxHead) else len(head.attributes)
