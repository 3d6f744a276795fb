"""The phases of one training: heads on stored features, then heads and backbone together on pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from . import convex
from .augment import Augmentation
from .backbones import NO_WEIGHTS, Backbone, build_backbone, freeze, set_weights, thaw
from .checkpoints import Checkpoint
from .config import FitConfig
from .dataset import Dataset, counted
from .errors import Interrupted
from .head_training import train_on_features
from .heads import Head, SoftmaxHead, classes_without_labels, heads_for, tag_classes_without_labels
from .slabs import slabs
from .training import (
    Batches,
    History,
    Inputs,
    Phase,
    build_heads,
    build_models,
    distribution,
    pick_views,
    predict_logits,
    train,
)

_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Fitted:
    """What training gave.

    Attributes:
        heads: the heads.
        model: backbone and heads.
        heads_model: the same heads on features.
        on_features: whether the backbone is as it was when the features were stored.
        history: how it went.
        seconds: how long it took.
    """

    heads: tuple[Head, ...]
    model: keras.Model
    heads_model: keras.Model
    on_features: bool
    history: History
    seconds: float

    def logits(self, data: Dataset, rows: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        """Logits of these rows, by head name; from stored features where they still hold."""
        if self.on_features:
            return logits_of_features(self.heads_model, data, rows)
        return predict_logits(self.model, Batches(data.pictures, {}, rows, batch_size))


def logits_of_features(heads_model: keras.Model, data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of these rows, by head name, from their stored features."""
    logits: dict[str, np.ndarray] = {}
    for part, features in slabs(data.first_views, rows):
        for name, of_part in heads_model(features).items():  # `predict` would compile it first
            logits.setdefault(name, np.empty((len(rows), of_part.shape[1]), np.float32))[part] = (
                keras.ops.convert_to_numpy(of_part)
            )
    return logits


@dataclass(frozen=True)
class Run:
    """One training, from random heads to the weights that are kept.

    Attributes:
        config: what is wanted.
        backbone: frozen; trained in place if that is wanted.
        data: pictures, labels and, unless the backbone trains from the start, features.
        parts: rows of `"training"` and `"validation"`; where the latter is empty, nothing ends the training early.
        checkpoint: keeps the state while the backbone trains; `None` if it never does.
        progress: show bars on stderr, where a person watches.
        epochs: how long the heads train on features; `None`: at most as long as the configuration says.
        what: what the heads that train on features are called, in bars and logs.
    """

    config: FitConfig
    backbone: Backbone
    data: Dataset
    parts: Mapping[str, np.ndarray]
    checkpoint: Checkpoint | None
    progress: bool
    epochs: int | None = None
    what: str = "heads"

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads, made for the training part."""
        return heads_for(
            self.data.table,
            self.parts["training"],
            objective=self.config.loss,
            missing=self.config.missing,
            pos_weight=self.config.pos_weight,
            class_weight=self.config.class_weight,
            label_smoothing=self.config.label_smoothing,
            weights=self.config.loss_weights,
        )

    def fit(self, keeper: keras.callbacks.Callback | None = None) -> Fitted:
        """Trains in one phase or two.

        Args:
            keeper: decides which weights of the heads on features are kept.

        Raises:
            DataError: a head has nothing to learn from; the loss is no longer a number.
            CheckpointError: the state cannot be written.
            Interrupted: on Ctrl-C.
        """
        self._warn_of_classes_without_labels()
        keras.utils.set_random_seed(self.config.seed)  # again: heads do not depend on what happened before
        heads_model, model = build_models(self.backbone, self.heads)
        started = time.perf_counter()
        if self.config.train_backbone:
            history, on_features = self._train_all(model, self._phase(0)), False
        else:
            history, on_features = self._train_heads(heads_model, keeper), True
            self._describe("heads", history, time.perf_counter() - started)
            if self.checkpoint is not None:
                before = model.get_weights()
                history = history.then(self._train_all(model, self._phase(1)))
                on_features = self._is_better_before(history)
                if on_features:
                    set_weights(model, before)
        return Fitted(self.heads, model, heads_model, on_features, history, time.perf_counter() - started)

    def fit_heads(self, keeper: keras.callbacks.Callback) -> tuple[keras.Model, History]:
        """Trains heads alone, `(batch, dimension)` → logits by head name, on stored features.

        Args:
            keeper: decides which weights are kept.

        Raises:
            DataError: a head has nothing to learn from; the loss is no longer a number.
            Interrupted: on Ctrl-C.
        """
        model = build_heads(self.backbone.dimension, self.heads)
        return model, self._train_heads(model, keeper)

    @property
    def heads_phase(self) -> Phase:
        """The phase that trains heads on features; its epochs may be steps down a ladder of L2 strengths."""
        config = self.config
        if config.solver == "lbfgs":
            # Accuracies stand still before anything is learnt, where the loss falls already.
            patience = convex.PATIENCE if config.monitor == "loss" else convex.STEPS
            return Phase(self.epochs or convex.STEPS, config.lr[0], patience, config.monitor)
        return Phase(self.epochs or config.epochs[0], config.lr[0], config.patience[0], config.monitor)

    @property
    def _trainer(self) -> Callable[..., History]:
        if self.config.solver == "lbfgs":
            return convex.train_convex
        # The compiled epochs are TensorFlow's; every other backend of Keras trains as it always does.
        return train_on_features if keras.config.backend() == "tensorflow" else train

    def _phase(self, number: int) -> Phase:
        """A phase that trains the backbone, with the values that are meant for it."""
        config = self.config
        return Phase(
            config.epochs[number],
            config.lr[number],
            config.patience[number],
            config.monitor,
            config.schedule,
            config.warmup,
            config.ema,
            scale_loss=config.precision == "float16",
        )

    def batches(
        self,
        inputs: Inputs,
        part: str,
        augment: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> Batches:
        """A part in batches, of inputs that may be augmented; only the training part is shuffled."""
        targets = {head.name: head.targets(self.data.table) for head in self.heads}
        seed = self.config.seed if part == "training" else None
        return Batches(inputs, targets, self.parts[part], self.config.batch_size, seed, augment)

    def _train_heads(self, model: keras.Model, keeper: keras.callbacks.Callback | None) -> History:
        """The first phase: the heads alone, on stored features."""
        config, data = self.config, self.data
        training = self.batches(data.stored_features, "training", pick_views if config.views > 1 else None)
        try:
            return self._trainer(
                model,
                self.heads,
                training,
                self.batches(data.first_views, "validation") if len(self.parts["validation"]) else None,
                self.heads_phase,
                keeper=keeper,
                tensorboard=self._log_folder(self.what.replace(" ", "_")),
                what=self.what,
                progress=self.progress,
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} The features are kept, so the same command is quick to train again.") from None

    def _train_all(self, model: keras.Model, phase: Phase) -> History:
        """The phase that trains the backbone, too: on pictures, augmented if wanted.

        With several GPUs, or in half precision, a twin of the model is trained, and its weights are taken over: what is
        measured, kept and used later computes in float32, on one device.
        """
        config, backbone = self.config, self.backbone
        assert self.checkpoint is not None
        augment = None if config.augment == "none" else Augmentation(config.augment, backbone.image_size)
        started = time.perf_counter()
        with distribution() as strategy:
            twin, twin_model = backbone, model
            if strategy is not None or config.precision != "float32":
                twin, twin_model = self._twin(model)
            thaw(twin, config.fine_tune if isinstance(config.fine_tune, int) else None)
            try:
                history = train(
                    twin_model,
                    self.heads,
                    self.batches(self.data.pictures, "training", augment),
                    self.batches(self.data.pictures, "validation"),
                    phase,
                    checkpoint=self.checkpoint,
                    tensorboard=self._log_folder("backbone"),
                    progress=self.progress,
                )
            except Interrupted as stop:
                kept = " The same command with --resume continues." if self.checkpoint.epoch else ""
                raise Interrupted(f"{stop}{kept}") from None
            freeze(twin)
            if twin is not backbone:
                set_weights(model, twin_model.get_weights())
        self._describe("heads and backbone", history, time.perf_counter() - started)
        return history

    def _twin(self, model: keras.Model) -> tuple[Backbone, keras.Model]:
        backbone = self.backbone
        network = build_backbone(
            backbone.name, NO_WEIGHTS, backbone.image_size, cnn=backbone.cnn, precision=self.config.precision
        )
        twin = replace(network, weights=backbone.weights)
        _, twin_model = build_models(twin, self.heads)
        freeze(twin)  # as the backbone is: the order of a model's weights depends on it
        set_weights(twin_model, model.get_weights())
        return twin, twin_model

    def _is_better_before(self, history: History) -> bool:
        """Whether fine-tuning only made it worse; the history then names the best epoch of the heads."""
        heads_epochs = history.phase_ends[0]
        if self.config.monitor == "loss":
            values = [-loss for loss in history.validation_loss]
        else:
            values = history.validation_accuracy
        best_before = int(np.argmax(values[:heads_epochs]))
        if max(values[heads_epochs:]) > values[best_before]:
            return False
        history.best_epoch = best_before + 1
        _log.warning(
            f"Fine-tuning made nothing better, and its weights are not kept: those of epoch {best_before + 1}, of the "
            "heads on the frozen backbone, are. Try a lower --lr for the second phase."
        )
        return True

    def _log_folder(self, phase: str) -> Path | None:
        return None if self.config.tensorboard is None else self.config.tensorboard / phase

    def _describe(self, what: str, history: History, seconds: float) -> None:
        convex_heads = self.config.solver == "lbfgs"
        if self.epochs:
            iterations = f"{counted(len(history.training_loss), 'iteration')} of L-BFGS"
            duration = iterations if convex_heads else counted(self.epochs, "epoch")
            _log.info(f"Trained {what} on all of the training part for {duration} ({seconds:.1f} s).")
            return
        direction = "lowest validation loss" if self.config.monitor == "loss" else "highest validation accuracy"
        if convex_heads:
            _log.info(
                f"Trained {what} with {counted(len(history.epoch_ends), 'L2 strength')} ({seconds:.1f} s); kept for "
                f"each attribute and tag the weights with the {direction}."
            )
            return
        _log.info(
            f"Trained {what} for {counted(len(history.epoch_ends), 'epoch')} ({seconds:.1f} s); "
            f"kept the weights of epoch {history.best_epoch}, the one with the {direction}."
        )

    def _warn_of_classes_without_labels(self) -> None:
        for head in self.heads:
            labels = head.targets(self.data.table)[self.parts["training"]]
            if isinstance(head, SoftmaxHead):
                if missing := tag_classes_without_labels(head, labels):
                    _log.warning(f"{head.tag}: no picture of the training part shows {', '.join(missing)}.")
                continue
            if head.missing.prior and min(head.missing.prior) > head.missing.max_prior:
                _log.warning(
                    f"Every attribute is present in more than {head.missing.max_prior:.0%} of its known labels: with "
                    "--missing selective no unknown label counts."
                )
            positives_only = " --missing negative would count its unknown labels as 0." if (labels < 0).any() else ""
            ignores_unknown = head.loss().ignores_unknown
            is_balanced = self.config.pos_weight == "balanced" and self.config.loss in ("bce", "focal")
            balanced = "; its pos_weight is 1" if is_balanced else ""
            for label, names in zip("10", classes_without_labels(head.attributes, labels), strict=True):
                if label == "0" and not ignores_unknown:
                    continue  # unknown cells stand in for them
                hint = positives_only if label == "0" else ""
                for name in names:
                    _log.warning(f"{name}: no {label} among its known labels in the training part{balanced}.{hint}")
