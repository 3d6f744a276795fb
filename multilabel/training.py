"""The one trainer, for any set of heads: on stored features, or end to end together with the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np
from tqdm import tqdm

from .backbones import Backbone
from .errors import DataError, ImageError, Interrupted
from .heads import LogitHead
from .images import read_pictures


class Inputs(Protocol):
    """What a model is fed, by index: an array of features, or `Pictures`."""

    def __getitem__(self, indices: np.ndarray) -> np.ndarray: ...


class Pictures:
    """Picture files as model input `(n, height, width, 3)` uint8, decoded when asked for.

    Args:
        paths: the files.
        image_size: (height, width) in pixels.
    """

    def __init__(self, paths: Sequence[str], image_size: tuple[int, int]) -> None:
        self.paths = list(paths)
        self.image_size = image_size

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Decodes some of them.

        Raises:
            ImageError: if one cannot be read.
        """
        pixels = []
        for picture in read_pictures([self.paths[index] for index in indices], self.image_size):
            if picture.pixels is None:
                raise picture.error or ImageError(picture.path, "cannot be read")
            pixels.append(picture.pixels)
        return np.stack(pixels)


class Batches(keras.utils.PyDataset):
    """Inputs and targets in batches, in an order that depends on nothing but seed and epoch.

    Args:
        inputs: features `(n, dimension)` or `Pictures`.
        targets: per head name, its targets, first axis n.
        rows: which of the n to use.
        batch_size: rows per batch; the last may hold fewer.
        seed: of the order, drawn anew each epoch; `None`: always as in `rows`.
    """

    def __init__(
        self,
        inputs: Inputs,
        targets: Mapping[str, np.ndarray],
        rows: np.ndarray,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.targets = targets
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.error: ImageError | None = None
        self.epoch = -1
        self.on_epoch_end()

    def on_epoch_end(self) -> None:
        """Draws the next epoch's order."""
        self.epoch += 1
        self.order = self.rows
        if self.seed is not None:
            self.order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Batch `index` of this epoch."""
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        try:
            inputs = self.inputs[rows]
        except ImageError as error:
            self.error = error
            raise
        return inputs, {name: target[rows] for name, target in self.targets.items()}


@dataclass
class History:
    """How a training went; losses are Σ known losses / Σ known cells, summed over the heads.

    Attributes:
        training_loss: per iteration (one step on one batch), the loss on its batch.
        validation_loss: per epoch, the loss on the whole validation part.
        epoch_ends: per epoch, the number of iterations done by its end.
        best_epoch: the epoch (from 1) whose weights were kept.
    """

    training_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    epoch_ends: list[int] = field(default_factory=list)
    best_epoch: int = 0


def build_models(backbone: Backbone, heads: Sequence[LogitHead]) -> tuple[keras.Model, keras.Model]:
    """The heads on features, and the same heads on the backbone on pictures; both share their layers.

    Returns:
        `(heads_model, model)`: `(batch, dimension)` → logits by head name, and
        `(batch, height, width, 3)` RGB 0..255 → the same.
    """
    features = keras.Input((backbone.dimension,), name="features")
    layers = {head.name: head.layer() for head in heads}
    heads_model = keras.Model(features, {name: layer(features) for name, layer in layers.items()}, name="heads")
    image = keras.Input((*backbone.image_size, 3), name="image")
    pooled = backbone.model(image)
    model = keras.Model(image, {name: layer(pooled) for name, layer in layers.items()}, name="multilabel")
    return heads_model, model


def train(
    model: keras.Model,
    heads: Sequence[LogitHead],
    training: Batches,
    validation: Batches,
    *,
    epochs: int,
    lr: float,
    patience: int,
    progress: bool = False,
) -> History:
    """Trains with Adam until the validation loss has not improved for `patience` epochs; keeps the best weights.

    Args:
        model: either model of `build_models`; its trainable weights are changed in place.
        heads: the heads of the model's outputs.
        training: batches to learn from.
        validation: batches to stop by.
        epochs: passes over the training part, at most.
        lr: Adam's learning rate.
        patience: epochs without a better validation loss before training stops.
        progress: show a bar on stderr, where a person watches.

    Raises:
        DataError: if the loss is no longer a number.
        ImageError: if a picture can no longer be read.
        Interrupted: on Ctrl-C.
    """
    model.compile(
        optimizer=keras.optimizers.Adam(lr),
        loss={head.name: head.loss() for head in heads},
        metrics={head.name: head.metrics() for head in heads},
        # Compiling costs more than it saves: the heads are small, and convolutions have their own library.
        jit_compile=False,
    )
    log = _Log(progress, epochs)
    stopping = keras.callbacks.EarlyStopping("val_loss", mode="min", patience=patience, restore_best_weights=True)
    try:
        with _own_errors(training, validation):
            model.fit(
                training,
                validation_data=validation,
                epochs=epochs,
                callbacks=[log, stopping],
                verbose=0,
                shuffle=False,
            )
    except KeyboardInterrupt:
        done = len(log.history.epoch_ends)
        raise Interrupted(
            f"Stopped after {done} epoch{'' if done == 1 else 's'} of training; no bundle was written."
        ) from None
    finally:
        log.close()
    history = log.history
    if not np.isfinite([*history.training_loss, *history.validation_loss]).all():
        raise DataError(f"the training loss is no longer a number; lower --lr (it was {lr:g}).")
    history.best_epoch = stopping.best_epoch + 1
    return history


def predict_logits(model: keras.Model, batches: Batches) -> dict[str, np.ndarray]:
    """Logits per head name, rows as in `batches` (which must not be shuffled).

    Raises:
        ImageError: if a picture can no longer be read.
    """
    with _own_errors(batches):
        return model.predict(batches, verbose=0)


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


class _Log(keras.callbacks.Callback):
    """Keeps the loss of every iteration and every epoch."""

    def __init__(self, progress: bool, epochs: int) -> None:
        super().__init__()
        self.history = History()
        self.bar = tqdm(total=epochs, desc="training", unit="epoch", disable=None if progress else True)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Keras logs the running mean of the epoch; emptied here, it is the loss of this batch.
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.history.training_loss.append(_known_loss(logs, ""))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.history.epoch_ends.append(len(self.history.training_loss))
        self.history.validation_loss.append(_known_loss(logs, "val_"))
        self.bar.set_postfix(validation_loss=f"{self.history.validation_loss[-1]:.4f}", refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.total = self.bar.n  # stopping early is an end like any other
        self.bar.close()


def _known_loss(logs: Mapping[str, float], prefix: str) -> float:
    """The heads' `KnownLoss` metrics, summed. Keras puts the head's name before the metric's if there are several."""
    return float(sum(v for k, v in logs.items() if k.endswith("known_loss") and k.startswith("val_") == bool(prefix)))
