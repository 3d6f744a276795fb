"""The one trainer, for any set of heads: on stored features, then end to end together with the backbone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import keras
import numpy as np
from tqdm import tqdm

from .backbones import Backbone
from .checkpoints import Checkpoint
from .errors import DataError, ImageError, Interrupted
from .heads import Head
from .images import read_pictures
from .labels import UNKNOWN
from .losses.epochs import LossEpochs, losses_that_count_epochs

CACHED_BYTES = 2**30  # decoded pictures that are kept in memory between epochs
MONITORED = "monitored"  # what the callbacks follow, in Keras' logs
_WARM_UP_FROM = 0.01  # of the learning rate
_SAY_EVERY = 10.0  # seconds between lines in a log file
_remarks = logging.getLogger("multilabel")


class Inputs(Protocol):
    """What a model is fed, by index: an array of features, or `Pictures`."""

    def __getitem__(self, indices: np.ndarray) -> np.ndarray: ...


class Pictures:
    """Picture files as model input `(n, height, width, 3)` uint8, decoded when asked for.

    What was decoded is kept as long as there is room for it in `CACHED_BYTES`.

    Args:
        paths: the files.
        image_size: (height, width) in pixels.
    """

    def __init__(self, paths: Sequence[str], image_size: tuple[int, int]) -> None:
        self.paths = list(paths)
        self.image_size = image_size
        self._kept: dict[int, np.ndarray] = {}
        self._room = CACHED_BYTES // (image_size[0] * image_size[1] * 3)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Decodes some of them.

        Raises:
            ImageError: if one cannot be read.
        """
        found = {int(index): self._kept[index] for index in indices if index in self._kept}
        absent = [int(index) for index in indices if index not in found]
        for index, picture in zip(
            absent, read_pictures([self.paths[index] for index in absent], self.image_size), strict=True
        ):
            if picture.pixels is None:
                raise picture.error or ImageError(picture.path, "cannot be read")
            found[index] = picture.pixels
            if len(self._kept) < self._room:
                self._kept[index] = picture.pixels
        return np.stack([found[int(index)] for index in indices])


def pick_views(features: np.ndarray, seed: int) -> np.ndarray:
    """One view of each picture, at random: `(batch, views, dimension)` → `(batch, dimension)`."""
    return features[np.arange(len(features)), view_numbers(len(features), features.shape[1], seed)]


def view_numbers(pictures: int, views: int, seed: int) -> np.ndarray:
    """Which view of each picture `pick_views` picks, `(pictures,)`."""
    return np.random.default_rng(seed).integers(views, size=pictures)


class Batches(keras.utils.PyDataset):
    """Inputs and targets in batches, in an order that depends on nothing but seed and epoch.

    Args:
        inputs: features `(n, dimension)` or `Pictures`.
        targets: per head name, its targets, first axis n.
        rows: which of the n to use.
        batch_size: rows per batch; the last may hold fewer.
        seed: of the order, drawn anew each epoch; `None`: always as in `rows`.
        augment: changes a batch of inputs, with a seed that differs from batch to batch and from epoch to epoch.

    Attributes:
        replicas: devices that share a batch; each needs a row, so a batch that does not divide is filled up with rows
            without labels and of weight 0.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Mapping[str, np.ndarray],
        rows: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        augment: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.targets = targets
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.replicas = 1
        self.error: ImageError | None = None
        self.start(0)

    @property
    def features(self) -> np.ndarray:
        """The inputs, where they are features."""
        return cast(np.ndarray, self.inputs)

    def start(self, epoch: int) -> None:
        """Draws the order of an epoch, counted from 0."""
        self.epoch = epoch
        self.order = self.rows
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, epoch)).permutation(self.rows)

    def on_epoch_end(self) -> None:
        """Draws the next epoch's order."""
        self.start(self.epoch + 1)

    def seed_of(self, index: int) -> int:
        """The seed with which batch `index` of this epoch is augmented."""
        return int(np.random.default_rng((self.seed or 0, self.epoch, index)).integers(2**31))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Batch `index` of this epoch: inputs and targets, and for several devices the weights of the rows."""
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        added = -len(rows) % self.replicas
        rows = np.pad(rows, (0, added), mode="edge")
        try:
            inputs = self.inputs[rows]
        except ImageError as error:
            self.error = error
            raise
        if self.augment is not None:
            inputs = self.augment(inputs, self.seed_of(index))
        targets = {name: target[rows] for name, target in self.targets.items()}
        if self.replicas == 1:
            return inputs, targets
        weights = np.ones(len(rows), np.float32)
        if added:
            weights[-added:] = 0  # a loss may count unknown cells, too
            for target in targets.values():
                target[-added:] = UNKNOWN
        return inputs, targets, weights


@dataclass
class History:
    """How a training went; losses are Σ known losses / Σ known cells of each head, summed over the heads.

    Attributes:
        training_loss: per iteration (one step on one batch), the loss on its batch.
        validation_loss: per epoch, the loss on the whole validation part.
        validation_accuracy: per epoch, the share of known validation cells predicted right, the mean over the heads.
        epoch_ends: per epoch, the number of iterations done by its end.
        phase_ends: per phase, the number of epochs done by its end.
        best_epoch: the epoch (from 1) whose weights were kept.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    epoch_ends: list[int] = field(default_factory=list)
    phase_ends: list[int] = field(default_factory=list)
    best_epoch: int = 0

    def then(self, later: History) -> History:
        """This history, continued by that of a later phase."""
        epochs, iterations = len(self.epoch_ends), len(self.training_loss)
        return History(
            self.training_loss + later.training_loss,
            self.validation_loss + later.validation_loss,
            self.validation_accuracy + later.validation_accuracy,
            self.epoch_ends + [iterations + end for end in later.epoch_ends],
            self.phase_ends + [epochs + end for end in later.phase_ends],
            epochs + later.best_epoch,
        )


@dataclass(frozen=True)
class Phase:
    """How one phase of a training goes.

    Attributes:
        epochs: passes over the training part, at most.
        lr: Adam's learning rate.
        patience: epochs without a better monitored value before training stops.
        monitor: `"loss"` or `"accuracy"`, on the validation part.
        schedule: `"constant"`; `"cosine"` (falls to 0 along a half cosine: Loshchilov and Hutter 2017, SGDR); or
            `"plateau"` (halves the rate after `patience / 3` epochs without a better value).
        warmup: with `"cosine"`, the epochs over which the rate first rises to `lr`.
        ema: momentum of the exponential moving average of the weights that is measured and kept; 0 for none.
        scale_loss: scale the loss so that gradients do not vanish in float16.
    """

    epochs: int
    lr: float
    patience: int
    monitor: str = "loss"
    schedule: str = "constant"
    warmup: float = 0.0
    ema: float = 0.0
    scale_loss: bool = False

    def optimizer(self, steps: int) -> keras.optimizers.Optimizer:
        """A new Adam for this many steps per epoch."""
        rate: Any = self.lr
        if self.schedule == "cosine":
            warmup = min(round(self.warmup * steps), self.epochs * steps - 1)
            rate = keras.optimizers.schedules.CosineDecay(
                self.lr * _WARM_UP_FROM if warmup else self.lr,
                self.epochs * steps - warmup,
                warmup_target=self.lr if warmup else None,
                warmup_steps=warmup,
            )
        average = {"use_ema": True, "ema_momentum": self.ema} if self.ema else {}
        adam = keras.optimizers.Adam(rate, **average)
        return keras.optimizers.LossScaleOptimizer(adam) if self.scale_loss else adam

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """New callbacks that average, lower the learning rate, stop and keep the best weights, in this order."""
        mode = "min" if self.monitor == "loss" else "max"
        stopping = keras.callbacks.EarlyStopping(
            MONITORED, mode=mode, patience=self.patience, restore_best_weights=True
        )
        average = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if self.ema else []
        plateau = []
        if self.schedule == "plateau":
            patience = max(1, self.patience // 3)
            plateau = [
                # As for stopping, every better value counts; Keras asks for 0.0001 more.
                keras.callbacks.ReduceLROnPlateau(MONITORED, mode=mode, factor=0.5, patience=patience, min_delta=0)
            ]
        return [*average, *plateau, stopping]


@contextmanager
def distribution() -> Iterator[Any]:
    """What to build and train a model in: a mirrored strategy where there are several GPUs, otherwise `None`."""
    if keras.config.backend() != "tensorflow":
        yield None
        return
    devices = replicas()
    if len(devices) < 2:
        yield None
        return
    strategy = _strategy(tuple(devices))
    with strategy.scope():
        yield strategy


@cache
def _strategy(devices: Sequence[str]) -> Any:
    """One for all models of this process: two would number their sums over the devices alike, and mix them up."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def replicas() -> list[str]:
    """The devices that train together: all GPUs."""
    import tensorflow as tf

    return [device.name for device in tf.config.list_logical_devices("GPU")]


def build_models(backbone: Backbone, heads: Sequence[Head]) -> tuple[keras.Model, keras.Model]:
    """The heads on features, and the same heads on the backbone on pictures; both share their layers.

    Returns:
        `(heads_model, model)`: `(batch, dimension)` → logits by head name, and
        `(batch, height, width, 3)` RGB 0..255 → the same.
    """
    heads_model = build_heads(backbone.dimension, heads)
    image = keras.Input((*backbone.image_size, 3), name="image")
    pooled = backbone.model(image)
    outputs = {head.name: heads_model.get_layer(head.name)(pooled) for head in heads}
    return heads_model, keras.Model(image, outputs, name="multilabel")


def build_heads(dimension: int, heads: Sequence[Head]) -> keras.Model:
    """The heads on features: `(batch, dimension)` → logits by head name."""
    features = keras.Input((dimension,), name="features")
    return keras.Model(features, {head.name: head.layer()(features) for head in heads}, name="heads")


def train(
    model: keras.Model,
    heads: Sequence[Head],
    training: Batches,
    validation: Batches | None,
    phase: Phase,
    *,
    checkpoint: Checkpoint | None = None,
    keeper: keras.callbacks.Callback | None = None,
    tensorboard: Path | None = None,
    what: str = "training",
    progress: bool = False,
) -> History:
    """Trains with Adam until the monitored value has not improved for `patience` epochs; keeps the best weights.

    Args:
        model: either model of `build_models`; its trainable weights are changed in place.
        heads: the heads of the model's outputs.
        training: batches to learn from.
        validation: batches to stop by; `None`: train for all epochs of the phase.
        phase: for how long, and how.
        checkpoint: keeps the state on disk after each epoch, and continues from one.
        keeper: decides which weights are kept, in place of the phase's early stopping.
        tensorboard: folder for TensorBoard's event files.
        what: what the bar is called.
        progress: show a bar on stderr, where a person watches.

    Raises:
        DataError: if the loss is no longer a number.
        ImageError: if a picture can no longer be read.
        CheckpointError: if the state cannot be written.
        Interrupted: on Ctrl-C.
    """
    compile_for(model, heads, phase, training.num_batches)
    log = Log(heads, phase, what, progress)
    of_phase = phase.callbacks() if validation is not None and keeper is None else []
    all_callbacks: list[keras.callbacks.Callback] = [log, *of_phase, *([keeper] if keeper else [])]
    first_epoch = 0
    if checkpoint is not None:
        checkpoint.watch(log, of_phase, phase.epochs)
        first_epoch = checkpoint.epoch
        all_callbacks.append(checkpoint)
    if losses_that_count_epochs(model):
        all_callbacks.append(LossEpochs(model))
    if tensorboard is not None:
        all_callbacks.append(keras.callbacks.TensorBoard(str(tensorboard), write_graph=False))
    readers = [training] if validation is None else [training, validation]
    for batches in readers:
        batches.replicas = _replicas(model)
    if _replicas(model) == 1:  # Keras itself does so for several
        _build_losses_and_metrics(model, heads)
    training.start(first_epoch)
    try:
        with _own_errors(*readers):
            model.fit(
                training,
                validation_data=validation,
                epochs=phase.epochs,
                initial_epoch=first_epoch,
                callbacks=all_callbacks,
                verbose=0,
                shuffle=False,
            )
    except KeyboardInterrupt:
        raise log.interrupted() from None
    finally:
        log.close()
    return log.ended(all_callbacks)


def compile_for(model: keras.Model, heads: Sequence[Head], phase: Phase, steps: int) -> None:
    """Compiles a model with the heads' losses and metrics, for a phase with this many steps per epoch."""
    model.compile(
        optimizer=phase.optimizer(steps),
        loss={head.name: head.loss() for head in heads},
        loss_weights={head.name: head.weight for head in heads},
        metrics={head.name: head.metrics() for head in heads},
        # Compiling costs more than it saves: the heads are small, and convolutions have their own library.
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)


def _build_losses_and_metrics(model: keras.Model, heads: Sequence[Head]) -> None:
    """Makes their variables: where the first step makes some, TensorFlow traces all of it once more."""
    logits = {head.name: keras.ops.zeros((1, head.units)) for head in heads}
    shapes = {head.name: (1,) if head.activation == "softmax" else (1, head.units) for head in heads}
    y = {name: keras.ops.zeros(shape, "int16") for name, shape in shapes.items()}
    model.compute_loss(y=y, y_pred=logits)
    model.compute_metrics(None, y, logits)
    model.reset_metrics()


def predict_logits(model: keras.Model, batches: Batches) -> dict[str, np.ndarray]:
    """Logits per head name, rows as in `batches` (which must not be shuffled).

    Raises:
        ImageError: if a picture can no longer be read.
    """
    with _own_errors(batches):
        return model.predict(batches, verbose=0)


def _replicas(model: keras.Model) -> int:
    """How many devices train the model together; only with TensorFlow does a model know of several."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.num_replicas_in_sync if strategy else 1


@contextmanager
def _own_errors(*readers: Batches) -> Iterator[None]:
    """Raises what happened while a batch was read as it was: TensorFlow wraps it in pages of its own."""
    try:
        yield
    except Exception as error:
        for batches in readers:
            if batches.error is not None:
                raise batches.error from None
        if "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from None
        raise


class Log(keras.callbacks.Callback):
    """Keeps the loss of every iteration and every epoch, and tells the other callbacks what to follow.

    The person sees a bar, or where there is no terminal a line now and then.
    """

    def __init__(self, heads: Sequence[Head], phase: Phase, what: str, progress: bool) -> None:
        super().__init__()
        self.history = History()
        self.heads = heads
        self.phase = phase
        self.bar = tqdm(total=phase.epochs, desc=what, unit="epoch", disable=None if progress else True)
        self.written = progress and self.bar.disable
        self.said = time.monotonic()

    @property
    def state(self) -> dict[str, Any]:
        """What is kept of it in a checkpoint."""
        return asdict(self.history)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.history = History(**state)
        self.bar.update(len(self.history.epoch_ends))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Empties the metrics."""
        # Keras logs the running mean of the epoch; emptied here, it is the loss of this batch.
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Notes the loss of the step."""
        if _replicas(self.model) > 1:
            logs = self.model.get_metrics_result()  # Keras' own are the mean of the replicas' values
        self.history.training_loss.append(float(total_loss(self.heads, logs)))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes what was measured, and says what to follow."""
        self.history.epoch_ends.append(len(self.history.training_loss))
        self.bar.update()
        # What Keras has of the training is its last batch, since it was emptied before each.
        first = [0, *self.history.epoch_ends][-2]
        for name in [name for name in logs if not name.startswith("val_")]:
            del logs[name]
        if logs:
            self._note_validation(epoch, logs)
        logs["known_loss"] = float(np.mean(self.history.training_loss[first:]))

    def _note_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        loss = float(total_loss(self.heads, logs, "val_"))
        accuracy = float(np.mean([logs[name] for name in metric_names(self.heads, "val_known_accuracy")]))
        self.history.validation_loss.append(loss)
        self.history.validation_accuracy.append(accuracy)
        logs[MONITORED] = loss if self.phase.monitor == "loss" else accuracy
        self.bar.set_postfix(validation_loss=f"{loss:.4f}", accuracy=f"{accuracy:.4f}", refresh=False)
        if self.written and time.monotonic() - self.said >= _SAY_EVERY:
            self.said = time.monotonic()
            _remarks.info(
                f"Epoch {epoch + 1} of {self.phase.epochs}: validation loss {loss:.4f}, accuracy {accuracy:.4f}."
            )

    def interrupted(self) -> Interrupted:
        """What to raise on Ctrl-C."""
        done = len(self.history.epoch_ends)
        return Interrupted(f"Stopped after {done} epoch{'' if done == 1 else 's'} of training; no bundle was written.")

    def ended(self, callbacks: Sequence[keras.callbacks.Callback]) -> History:
        """The whole history, once the training is over; without early stopping the last weights are those kept.

        Raises:
            DataError: if the loss is no longer a number.
        """
        history = self.history
        if not np.isfinite([*history.training_loss, *history.validation_loss]).all():
            raise DataError(f"the training loss is no longer a number; lower --lr (it was {self.phase.lr:g}).")
        stopping = [callback for callback in callbacks if isinstance(callback, keras.callbacks.EarlyStopping)]
        history.best_epoch = stopping[0].best_epoch + 1 if stopping else len(history.epoch_ends)
        history.phase_ends = [len(history.epoch_ends)]
        return history

    def close(self) -> None:
        """Ends the bar."""
        self.bar.total = self.bar.n  # stopping early is an end like any other
        self.bar.close()


def total_loss(heads: Sequence[Head], logs: Mapping[str, Any], prefix: str = "") -> Any:
    """The loss that is told: Σ known losses / Σ known cells of each head, times the head's weight, summed."""
    losses = zip(heads, metric_names(heads, f"{prefix}known_loss"), strict=True)
    return sum(logs[name] * head.weight for head, name in losses)


def metric_names(heads: Sequence[Head], metric: str) -> list[str]:
    """What Keras calls a metric of each head; with one head it leaves the head's name out."""
    prefix = "val_" if metric.startswith("val_") else ""
    metric = metric.removeprefix(prefix)
    return [f"{prefix}{metric}" if len(heads) == 1 else f"{prefix}{head.name}_{metric}" for head in heads]
