"""Training heads on stored features: whole epochs inside one compiled function, no Python per step.

It does what `training.train` does, step by step with the same numbers, and needs a fraction of the time: a step on
features is so small that calling it from Python takes longer than the step. What is compiled serves all trainings of
such heads, as those of the folds. Features are gathered slab by slab, so they may lie in a file and be larger than
memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from .heads import Head, LogitHead
from .losses import MaskedBCE
from .losses.cells import per_sample
from .losses.epochs import LossEpochs, losses_that_count_epochs
from .slabs import slabs
from .stopping import BestEpochs, Validation, sums_of_cells, targets_of
from .training import Batches, History, Log, Phase, build_heads, compile_for, view_numbers

_KEPT = 2  # kinds of heads for which what was compiled is kept


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
        model: the heads on features, as `training.build_heads` builds them; its weights are changed in place.
        heads: the heads of the model's outputs.
        training: to learn from; its inputs are an array or a memory-mapped file, float32 or float16, of shape
            `(n, dimension)`, or `(n, views, dimension)` of which each step takes one view of each picture.
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
    with _compiled(heads, training, phase) as compiled:
        twin = compiled.model
        _copy_weights(model, twin, heads)
        log = Log(heads, phase, what, progress)
        of_phase = phase.callbacks() if validation is not None and keeper is None else []
        all_callbacks = [log, *of_phase, *([keeper] if keeper else [])]
        if losses_that_count_epochs(twin):
            all_callbacks.append(LossEpochs(twin))
        if tensorboard is not None:
            all_callbacks.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
        run = keras.callbacks.CallbackList(all_callbacks, model=twin, epochs=phase.epochs)
        measured = None if validation is None else Validation(heads, validation, compiled.cells)
        if isinstance(keeper, BestEpochs) and measured is not None:
            keeper.measure = measured.latest
        twin.stop_training = False
        training.start(1)  # Keras looks at the first order, and trains on those after it
        try:
            run.on_train_begin()
            for epoch in range(phase.epochs):
                run.on_epoch_begin(epoch)
                log.history.training_loss += compiled.epoch(training)
                run.on_epoch_end(epoch, {} if measured is None else measured.logs())
                training.on_epoch_end()
                if twin.stop_training:
                    break
            run.on_train_end()
        except KeyboardInterrupt:
            raise log.interrupted() from None
        finally:
            log.close()
        _copy_weights(twin, model, heads)
        return log.ended(all_callbacks)


class _Compiled:
    """Heads of one kind, and an epoch of theirs, traced once for all trainings.

    What differs from one training to the next stands in variables: the weights, the state of the optimizer, and of the
    losses what depends on the training part.
    """

    def __init__(self, heads: Sequence[Head], dimension: int, batch_size: int, phase: Phase, steps: int) -> None:
        self.heads, self.batch_size = heads, batch_size
        self.model = build_heads(dimension, heads)
        compile_for(self.model, heads, phase, steps)
        self.optimizer = self.model.optimizer
        self.first_state = [keras.ops.convert_to_numpy(variable) for variable in self.optimizer.variables]
        self.coverage, self.pos_weight = {}, {}
        for name, loss in self.model.loss.items():
            if getattr(loss, "coverage", None) is not None:
                self.coverage[name] = keras.Variable(1.0, trainable=False)
            if isinstance(loss, MaskedBCE):
                loss.pos_weight = self.pos_weight[name] = keras.Variable(loss.pos_weight, trainable=False)
        features = tf.TensorSpec((None, dimension), tf.float32)
        targets = {
            head.name: tf.TensorSpec((None, head.units) if isinstance(head, LogitHead) else (None,), tf.int32)
            for head in heads
        }
        self.steps = tf.function(self._steps, input_signature=(features, targets), autograph=False)
        self.cells = tf.function(self._cells, input_signature=(features, targets), autograph=False)

    def start(self, heads: Sequence[Head]) -> None:
        """Makes it ready for a training of such heads."""
        for variable, value in zip(self.optimizer.variables, self.first_state, strict=True):
            variable.assign(value)
        for head in heads:
            if head.name in self.coverage:
                self.coverage[head.name].assign(head.coverage)
            if isinstance(head, LogitHead) and head.name in self.pos_weight:
                self.pos_weight[head.name].assign(head.pos_weight)

    def epoch(self, training: Batches) -> list[float]:
        """One pass over the training part; the loss of every step."""
        features, rows, seen = training.features, training.order, training.order
        if features.ndim == 3:
            views = features.shape[1]
            features, seen = features.reshape(-1, features.shape[2]), rows * views + _views(training, views)
        losses = []
        for part, slab in slabs(features, seen, self.batch_size):
            losses += self.steps(slab, targets_of(training, rows[part])).numpy().tolist()
        return losses

    def _steps(self, features: tf.Tensor, targets: dict[str, tf.Tensor]) -> tf.Tensor:
        size = self.batch_size
        count = (tf.shape(features)[0] + size - 1) // size

        def step(index: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            batch = slice(index * size, (index + 1) * size)
            loss = self._step(features[batch], {name: target[batch] for name, target in targets.items()})
            return index + 1, losses.write(index, loss)

        losses = tf.TensorArray(tf.float32, size=count)
        _, losses = tf.while_loop(lambda index, _: index < count, step, (0, losses), parallel_iterations=1)
        return losses.stack()

    def _step(self, features: tf.Tensor, targets: dict[str, tf.Tensor]) -> tf.Tensor:
        """A step of Adam; what Keras does, without its metrics."""
        told = 0.0
        with tf.GradientTape() as tape:
            logits = self.model(features, training=True)
            total = 0.0
            for head in self.heads:
                loss, y, z = self.model.loss[head.name], targets[head.name], logits[head.name]
                losses, known = loss.cells(y, z)
                coverage = self.coverage.get(head.name)
                value = loss(y, z) if coverage is None else tf.reduce_mean(per_sample(losses, known, coverage))
                total += head.weight * value
                told += head.weight * tf.math.divide_no_nan(
                    tf.reduce_sum(losses), tf.reduce_sum(tf.cast(known, losses.dtype))
                )
            total = self.optimizer.scale_loss(total)
        weights = self.model.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(total, weights), weights, strict=True))
        return told

    def _cells(self, features: tf.Tensor, targets: dict[str, tf.Tensor]) -> dict[str, tuple[tf.Tensor, ...]]:
        logits = self.model(features)
        return {
            head.name: sums_of_cells(head, self.model.loss[head.name], targets[head.name], logits[head.name])
            for head in self.heads
        }


def _views(training: Batches, views: int) -> NDArray[np.intp]:
    """Which view of each picture an epoch takes, in its order: those that `pick_views` picks."""
    count, size = len(training.order), training.batch_size
    sizes = [min(size, count - start) for start in range(0, count, size)]
    seeds = map(training.seed_of, range(training.num_batches))
    return np.concatenate([view_numbers(size, views, seed) for size, seed in zip(sizes, seeds, strict=True)])


def _copy_weights(source: keras.Model, target: keras.Model, heads: Sequence[Head]) -> None:
    for head in heads:
        target.get_layer(head.name).set_weights(source.get_layer(head.name).get_weights())


_idle: list[tuple[Any, _Compiled]] = []


@contextmanager
def _compiled(heads: Sequence[Head], training: Batches, phase: Phase) -> Iterator[_Compiled]:
    """What was compiled for such heads before, or is now; nobody else has it at the same time."""
    dimension, steps = training.features.shape[-1], training.num_batches
    alike = tuple(_without_numbers(head) for head in heads)
    optimizer = (phase, steps) if phase.schedule == "cosine" else (phase.lr, phase.ema, phase.scale_loss)
    kind = (alike, dimension, training.batch_size, optimizer)
    numbers = [number for number, (other, _) in enumerate(_idle) if other == kind]
    compiled = _idle.pop(numbers[0])[1] if numbers else _Compiled(alike, dimension, training.batch_size, phase, steps)
    compiled.start(heads)
    yield compiled
    _idle[:] = [*_idle, (kind, compiled)][-_KEPT:]


def _without_numbers(head: Head) -> Head:
    """The head without what depends on the labels of the training part and may change between two trainings."""
    if isinstance(head, LogitHead):
        return replace(head, coverage=1.0, pos_weight=(1.0,) * head.units)
    return replace(head, coverage=1.0)
