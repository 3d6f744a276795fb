"""When each attribute and each tag has learnt enough: their columns of a head learn side by side.

Early stopping of a whole head ends with whichever attribute gets worse first; rare ones do, and stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from .heads import Head, SoftmaxHead
from .labels import UNKNOWN

Epochs = Mapping[str, NDArray[np.intp]]  # by head name: one number per attribute, or one for a tag


class BestEpochs(keras.callbacks.Callback):
    """Finds the epoch that is best for each attribute and each tag; training ends when none gets better any more.

    Args:
        heads: the heads of the model.
        features: of the pictures to judge by, shape (n, dimension).
        targets: by head name, their labels.
        patience: epochs without a better value after which an attribute or tag has stopped.
        monitor: `"loss"` or `"accuracy"`.
        smallest_gain: share of the best value by which a later epoch must be better to count.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        features: NDArray,
        targets: Mapping[str, NDArray],
        patience: int,
        monitor: str = "loss",
        smallest_gain: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.features, self.targets = heads, features, targets
        self.patience, self.monitor, self.smallest_gain = patience, monitor, smallest_gain
        self._best = {head.name: np.full(_count(head), -np.inf) for head in heads}
        self._epochs = {head.name: np.ones(_count(head), np.intp) for head in heads}

    @property
    def epochs(self) -> Epochs:
        """The best epochs, counted from 1; without both labels to judge by, the median of the others."""
        known = {head.name: _can_be_judged(head, self.targets[head.name]) for head in self.heads}
        judged = np.concatenate([self._epochs[head.name][known[head.name]] for head in self.heads])
        usual = round(float(np.median(judged))) if len(judged) else 1
        return {name: np.where(known[name], epochs, usual) for name, epochs in self._epochs.items()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judges the weights as they are now."""
        waiting = 0
        for head in self.heads:
            values, best, epochs = self._values(head), self._best[head.name], self._epochs[head.name]
            enough = self.smallest_gain * np.abs(np.where(np.isfinite(best), best, 0.0))
            better = (values > best + enough) & (epoch - epochs < self.patience)
            best[better], epochs[better] = values[better], epoch + 1
            waiting += int(np.count_nonzero(epoch + 1 - epochs < self.patience))
        if not waiting:
            self.model.stop_training = True

    def _values(self, head: Head) -> NDArray[np.float64]:
        """What each attribute, or the tag, is judged by, the higher the better: its mean over known cells."""
        y, z = self.targets[head.name], self.model.get_layer(head.name)(self.features)
        if self.monitor == "loss":
            good = -keras.ops.convert_to_numpy(head.loss().cells(y, z)[0]).reshape(y.shape)  # a tag's have an axis more
        else:
            z = keras.ops.convert_to_numpy(z)
            good = z.argmax(axis=1) == y if isinstance(head, SoftmaxHead) else (z > 0) == (y == 1)
        known = y != UNKNOWN
        return np.atleast_1d(np.where(known, good, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


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


def _can_be_judged(head: Head, y: NDArray) -> NDArray[np.bool_]:
    """For each attribute whether there are both labels, and for a tag whether there is any."""
    if isinstance(head, SoftmaxHead):
        return np.array([(y != UNKNOWN).any()])
    return (y == 1).any(axis=0) & (y == 0).any(axis=0)


def _count(head: Head) -> int:
    """How many there are that stop apart."""
    return 1 if isinstance(head, SoftmaxHead) else len(head.attributes)
