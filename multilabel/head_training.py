"""Training heads on features that lie in memory: whole epochs inside one compiled function, no Python per step.

It does what `training.train` does, step by step with the same numbers, and needs a fraction of the time: a step on
features is so small that calling it from Python takes longer than the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .heads import Head
from .losses.epochs import LossEpochs, losses_that_count_epochs
from .training import Batches, History, Log, Phase, compile_for, total_loss, view_numbers

_MEASURED_AT_ONCE = 1024  # rows of the validation part


def train_on_features(
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
    """Trains heads on features as `training.train` does; without a validation part, for all epochs of the phase
    (or until `keeper` ends it).

    Args:
        model: the heads on features; changed in place.
        heads: the heads of the model's outputs.
        training: to learn from; its inputs are an array `(n, dimension)`, or `(n, views, dimension)` of which each step
            takes one view of each picture.
        validation: to stop by, inputs `(n, dimension)`; or `None`.
        phase: for how long, and how.
        keeper: decides which weights are kept, in place of the phase's early stopping.
        tensorboard: folder for TensorBoard's event files.
        what: what the bar is called.
        progress: show a bar on stderr, where a person watches.

    Raises:
        DataError: if the loss is no longer a number.
        Interrupted: on Ctrl-C.
    """
    compile_for(model, heads, phase, training.num_batches)
    log = Log(heads, phase, what, progress)
    of_phase = phase.callbacks() if validation is not None and keeper is None else []
    all_callbacks = [log, *of_phase, *([keeper] if keeper else [])]
    if losses_that_count_epochs(model):
        all_callbacks.append(LossEpochs(model))
    if tensorboard is not None:
        all_callbacks.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
    run = keras.callbacks.CallbackList(all_callbacks, model=model, epochs=phase.epochs)
    epoch_of, measured = _Epoch(model, heads, training), None if validation is None else _Measured(model, validation)
    model.stop_training = False
    training.start(1)  # Keras looks at the first order, and trains on those after it
    try:
        run.on_train_begin()
        for epoch in range(phase.epochs):
            run.on_epoch_begin(epoch)
            log.history.training_loss += epoch_of.train().tolist()
            run.on_epoch_end(epoch, {} if measured is None else measured.values())
            training.on_epoch_end()
            if model.stop_training:
                break
        run.on_train_end()
    except KeyboardInterrupt:
        raise log.interrupted() from None
    finally:
        log.close()
    return log.ended(all_callbacks)


class _Epoch:
    """One pass over the training part, compiled."""

    def __init__(self, model: keras.Model, heads: Sequence[Head], training: Batches) -> None:
        features = np.asarray(training.inputs)
        self.model, self.heads, self.training = model, heads, training
        self.views = features.shape[1] if features.ndim == 3 else 1
        self.features = _tensor(features)
        self.targets = {name: tf.constant(target) for name, target in training.targets.items()}
        one = {name: target[:1] for name, target in self.targets.items()}
        model.test_step((self.features[:1], one))  # builds the metrics, which else would not be there to be reset
        self.compiled = tf.function(self._train)

    def train(self) -> np.ndarray:
        """The loss of every step."""
        training = self.training
        order = training.order.astype(np.int64)
        seen = order * self.views
        if self.views > 1:
            starts = range(0, len(order), training.batch_size)
            sizes = [len(order[start : start + training.batch_size]) for start in starts]
            seeds = map(training.seed_of, range(training.num_batches))
            seen += np.concatenate(
                [view_numbers(size, self.views, seed) for size, seed in zip(sizes, seeds, strict=True)]
            )
        return self.compiled(order, seen).numpy()

    def _train(self, order: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        size, steps = self.training.batch_size, self.training.num_batches

        def step(index: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            batch = slice(index * size, (index + 1) * size)
            targets = {name: tf.gather(target, order[batch]) for name, target in self.targets.items()}
            for metric in self.model.metrics:  # so that they are those of this batch
                metric.reset_state()
            logs = self.model.train_step((tf.gather(self.features, seen[batch]), targets))
            return index + 1, losses.write(index, total_loss(self.heads, logs))

        losses = tf.TensorArray(tf.float32, size=steps)
        _, losses = tf.while_loop(lambda index, _: index < steps, step, (0, losses), parallel_iterations=1)
        return losses.stack()


class _Measured:
    """What is measured on the validation part, compiled."""

    def __init__(self, model: keras.Model, validation: Batches) -> None:
        self.model = model
        self.features = _tensor(np.asarray(validation.inputs))
        self.rows = validation.rows
        self.targets = {name: tf.constant(target[validation.rows]) for name, target in validation.targets.items()}
        self.compiled = tf.function(self._measure)

    def values(self) -> dict[str, float]:
        """The metrics by name, with `val_` before it."""
        return {f"val_{name}": float(value) for name, value in self.compiled().items()}

    def _measure(self) -> dict[str, tf.Tensor]:
        for metric in self.model.metrics:
            metric.reset_state()
        for start in range(0, len(self.rows), _MEASURED_AT_ONCE):
            part = slice(start, start + _MEASURED_AT_ONCE)
            targets = {name: target[part] for name, target in self.targets.items()}
            self.model.test_step((tf.gather(self.features, self.rows[part]), targets))
        return self.model.get_metrics_result()


_memory: list[tuple[np.ndarray, tf.Tensor]] = []  # the last features; every fold learns from the same ones


def _tensor(features: np.ndarray) -> tf.Tensor:
    """Features as a tensor `(n * views, dimension)`; made once for all trainings on the same array."""
    for array, tensor in _memory:
        if (array.ctypes.data, array.shape, array.strides) == (features.ctypes.data, features.shape, features.strides):
            return tensor
    _memory[:] = [(features, tf.constant(features.reshape(-1, features.shape[-1])))]
    return _memory[0][1]
