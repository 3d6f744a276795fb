"""`fit`, from the labels file to the bundle: every room of the house in order."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np

from . import __version__, report
from . import bundle as bundles
from .augment import Augmentation
from .backbones import (
    CNN,
    EMBEDDED,
    IMAGENET,
    NO_WEIGHTS,
    Backbone,
    build_backbone,
    freeze,
    resolve_name,
    resolve_precision,
    thaw,
)
from .checkpoints import Checkpoint
from .config import DEFAULT_BACKBONE, CnnShape, FitConfig
from .dataset import Dataset, Labels, count, labels_digest, read_dataset, read_table, split_dataset
from .errors import Interrupted, UsageError
from .evaluation import Evaluation, evaluate, evaluate_tag
from .heads import Head, SoftmaxHead, heads_for, missing_classes, missing_tag_classes
from .labels import LabelTable
from .tables import HeldOut, predictions_table, write_tables
from .thresholds import Threshold, choose_thresholds
from .training import (
    Batches,
    History,
    Phase,
    build_models,
    distribution,
    pick_views,
    predict_logits,
    train,
)

# Settings that change no number of a training, or that digests of the data stand for.
_NOT_OF_THE_TRAINING = ("labels", "images", "out", "run_name", "cache", "tensorboard", "resume")
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class FitResult:
    """What `fit` made.

    Attributes:
        out: the bundle's folder.
        evaluations: the scores on the validation part and, if there is one, on the test part.
        history: how the training went.
        computed: how many features were computed, not read from the store.
        extraction_seconds: time it took to read all pictures and have their features.
        training_seconds: time that training took.
    """

    out: Path
    evaluations: tuple[Evaluation, ...]
    history: History
    computed: int
    extraction_seconds: float
    training_seconds: float


@dataclass(frozen=True)
class _Fitted:
    """What training on a split gave; `trained` is `model` or, on stored features, its heads alone."""

    heads: tuple[Head, ...]
    model: keras.Model
    trained: keras.Model
    history: History
    seconds: float


def fit(config: FitConfig, *, progress: bool = False) -> FitResult:
    """Trains, thresholds and measures a model, and writes its bundle.

    Remarks for the person go to the logger `multilabel`. Keras' global random seed is set.

    Args:
        config: what to do.
        progress: show bars on stderr, where a person watches.

    Raises:
        MultilabelError: for anything that stops it; a bundle that was there before is then untouched.
    """
    config = _resolved(config)
    bundles.check_out(config.out)
    labels = read_table(config)
    keras.utils.set_random_seed(config.seed)
    backbone = _build_backbone(config)
    data = read_dataset(config, labels, backbone, progress)
    training, validation, test = split_dataset(config, data)
    checkpoint = _checkpoint(config, data, backbone) if config.trains_backbone else None
    fitted = _train(config, backbone, data, training, validation, checkpoint, progress)
    held_out = [
        HeldOut(name, rows, _probabilities(config, fitted, data, rows))
        for name, rows in (("validation", validation), ("test", test))
        if len(rows)
    ]
    thresholds = _thresholds(config, data.table, held_out[0])
    evaluations = tuple(_evaluate(config, fitted.heads, data.table, part, thresholds) for part in held_out)
    parts = {"training": len(training), **{part.name: len(part.rows) for part in held_out}}
    bundle = bundles.Bundle(
        config.run_name or config.out.absolute().name,
        backbone,
        fitted.heads,
        tuple(thresholds),
        fitted.model,
        _provenance(config, labels, data, parts),
    )
    with bundles.writing(config.out) as folder:
        bundles.save(bundle, folder)
        predictions = predictions_table(data.table, data.names, fitted.heads, held_out)
        write_tables(folder, evaluations, fitted.history, predictions, data.skipped)
        report.loss_curve(fitted.history, bundle.run_name, folder / "loss_curve.png")
    if checkpoint is not None:
        checkpoint.clear()
    return FitResult(config.out, evaluations, fitted.history, data.computed, data.seconds, fitted.seconds)


def _resolved(config: FitConfig) -> FitConfig:
    """The configuration with the backbone's own name, and the weights and the precision that are meant.

    Raises:
        UsageError: if the parts of the configuration contradict each other.
    """
    out = config.out.absolute()
    for option, path in (("--labels", config.labels), ("--images", config.images), ("--cache", config.cache)):
        if path is not None and out in (path.absolute(), *path.absolute().parents):
            raise UsageError(
                f"{option} {path} lies inside --out {config.out}, which is replaced; choose another --out."
            )
    if config.tensorboard is not None and find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs another package; install it with `pip install multilabel[tensorboard]`.")
    config = replace(config, precision=resolve_precision(config.precision))
    if config.weights is not None and Path(config.weights).is_dir():
        return config  # a bundle, which knows its own backbone
    name = resolve_name(config.backbone or DEFAULT_BACKBONE)
    weights = config.weights or IMAGENET
    if config.weights is None and name == CNN:
        own_shape = config.cnn != CnnShape()
        weights = NO_WEIGHTS if config.train_backbone or own_shape else EMBEDDED
        if own_shape and not config.train_backbone:
            raise UsageError(
                f"--backbone {CNN} has pretrained weights only in its default shape: train it (--train-backbone), "
                "or pass its weights (--weights FILE)."
            )
    if weights == NO_WEIGHTS and not config.train_backbone:
        _log.warning("The backbone is frozen with random weights: good for trying things out, and for nothing else.")
    return replace(config, backbone=name, weights=weights)


def _build_backbone(config: FitConfig) -> Backbone:
    weights = str(config.weights)
    if not Path(weights).is_dir():
        shape = config.cnn if config.backbone == CNN else None
        return build_backbone(str(config.backbone), weights, config.image_size, cnn=shape)
    backbone = bundles.load_backbone(weights, config.image_size)
    if config.backbone is not None and resolve_name(config.backbone) != backbone.name:
        raise UsageError(
            f"--backbone {config.backbone}: the bundle {weights} has a {backbone.name}; leave out --backbone."
        )
    return backbone


def _checkpoint(config: FitConfig, data: Dataset, backbone: Backbone) -> Checkpoint:
    folder = config.out.with_name(f"{config.out.absolute().name}.checkpoint")
    settings = {name: value for name, value in _settings(config).items() if name not in _NOT_OF_THE_TRAINING}
    settings["the labels"] = labels_digest(data)
    settings["the pictures"] = hashlib.sha256(b"".join(data.digests)).hexdigest()
    settings["the backbone's first weights"] = backbone.fingerprint()
    settings["the versions"] = _versions()
    checkpoint = Checkpoint(folder, settings, resume=config.resume)
    if config.resume and not checkpoint.epoch:
        _log.info(f"Nothing to resume in {folder}: training starts from the beginning.")
    if checkpoint.found and not config.resume:
        _log.warning(f"{folder} holds an interrupted training, which this one replaces; --resume would continue it.")
    return checkpoint


def _train(
    config: FitConfig,
    backbone: Backbone,
    data: Dataset,
    training: np.ndarray,
    validation: np.ndarray,
    checkpoint: Checkpoint | None,
    progress: bool,
) -> _Fitted:
    """Both phases, as far as they are wanted."""
    heads = heads_for(
        data.table,
        training,
        class_weight=config.class_weight,
        label_smoothing=config.label_smoothing,
        weights=config.loss_weights,
    )
    _warn_of_missing_classes(heads, data.table, training)
    keras.utils.set_random_seed(config.seed)  # again, so that the heads do not depend on what happened before
    heads_model, model = build_models(backbone, heads)
    started = time.perf_counter()
    history = None
    trained = heads_model
    if not config.train_backbone:
        phase = Phase(config.epochs[0], config.lr[0], config.patience[0], config.monitor)
        history = _train_heads(config, heads_model, heads, data, training, validation, phase, progress)
    if checkpoint is not None:
        trained = model
        number = 0 if config.train_backbone else 1
        phase = Phase(
            config.epochs[number],
            config.lr[number],
            config.patience[number],
            config.monitor,
            config.schedule,
            config.warmup,
            config.ema,
            scale_loss=config.precision == "float16",
        )
        later = _train_all(config, backbone, model, heads, data, training, validation, phase, checkpoint, progress)
        history = history.then(later) if history else later
    assert history is not None
    return _Fitted(heads, model, trained, history, time.perf_counter() - started)


def _train_heads(
    config: FitConfig,
    model: keras.Model,
    heads: Sequence[Head],
    data: Dataset,
    training: np.ndarray,
    validation: np.ndarray,
    phase: Phase,
    progress: bool,
) -> History:
    """The first phase: the heads alone, on stored features."""
    assert data.features is not None
    targets = {head.name: head.targets(data.table) for head in heads}
    pick = pick_views if config.views > 1 else None
    batches = Batches(data.features, targets, training, config.batch_size, config.seed, pick)
    held_out = Batches(data.inputs(model), targets, validation, config.batch_size)
    started = time.perf_counter()
    try:
        history = train(
            model, heads, batches, held_out, phase, tensorboard=_log_folder(config, "heads"), progress=progress
        )
    except Interrupted as stop:
        raise Interrupted(f"{stop} The features are kept, so the same command is quick to train again.") from None
    _describe_training("heads", history, phase, time.perf_counter() - started)
    return history


def _train_all(
    config: FitConfig,
    backbone: Backbone,
    model: keras.Model,
    heads: Sequence[Head],
    data: Dataset,
    training: np.ndarray,
    validation: np.ndarray,
    phase: Phase,
    checkpoint: Checkpoint,
    progress: bool,
) -> History:
    """The phase that trains the backbone, too: on pictures, augmented if wanted.

    With several GPUs, or in half precision, a twin of the model is trained, and its weights are taken over: what is
    measured, kept and used later computes in float32, on one device.
    """
    targets = {head.name: head.targets(data.table) for head in heads}
    augment = None if config.augment == "none" else Augmentation(config.augment, backbone.image_size)
    batches = Batches(data.pictures, targets, training, config.batch_size, config.seed, augment)
    held_out = Batches(data.pictures, targets, validation, config.batch_size)
    started = time.perf_counter()
    with distribution() as strategy:
        twin, twin_model = backbone, model
        if strategy is not None or config.precision != "float32":
            network = build_backbone(
                backbone.name, NO_WEIGHTS, backbone.image_size, cnn=backbone.cnn, precision=config.precision
            )
            twin = replace(network, weights=backbone.weights)
            _, twin_model = build_models(twin, heads)
            freeze(twin)  # as the model's backbone is: the order of the weights depends on it
            freeze(backbone)
            twin_model.set_weights(model.get_weights())
        thaw(twin, config.fine_tune if isinstance(config.fine_tune, int) else None)
        try:
            history = train(
                twin_model,
                heads,
                batches,
                held_out,
                phase,
                checkpoint=checkpoint,
                tensorboard=_log_folder(config, "backbone"),
                progress=progress,
            )
        except Interrupted as stop:
            kept = " The same command with --resume continues." if checkpoint.epoch else ""
            raise Interrupted(f"{stop}{kept}") from None
        freeze(twin)
        if twin is not backbone:
            model.set_weights(twin_model.get_weights())
    _describe_training("heads and backbone", history, phase, time.perf_counter() - started)
    return history


def _log_folder(config: FitConfig, phase: str) -> Path | None:
    return None if config.tensorboard is None else config.tensorboard / phase


def _describe_training(what: str, history: History, phase: Phase, seconds: float) -> None:
    direction = "lowest validation loss" if phase.monitor == "loss" else "highest validation accuracy"
    _log.info(
        f"Trained {what} for {count(len(history.epoch_ends), 'epoch')} ({seconds:.1f} s); "
        f"kept the weights of epoch {history.best_epoch}, the one with the {direction}."
    )


def _warn_of_missing_classes(heads: Sequence[Head], table: LabelTable, training: np.ndarray) -> None:
    for head in heads:
        labels = head.targets(table)[training]
        if isinstance(head, SoftmaxHead):
            if missing := missing_tag_classes(head, labels):
                _log.warning(f"{head.tag}: no picture of the training part shows {', '.join(missing)}.")
            continue
        for label, names in zip("10", missing_classes(head.attributes, labels), strict=True):
            for name in names:
                _log.warning(f"{name}: no {label} among its known labels in the training part; its pos_weight is 1.")


def _probabilities(config: FitConfig, fitted: _Fitted, data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    batches = Batches(data.inputs(fitted.trained), {}, rows, config.batch_size)
    logits = predict_logits(fitted.trained, batches)
    return {head.name: head.to_probs(logits[head.name]) for head in fitted.heads}


def _thresholds(config: FitConfig, table: LabelTable, part: HeldOut) -> list[Threshold]:
    if not table.names:
        return []
    return choose_thresholds(table.y[part.rows], part.p["attributes"], config.beta)


def _evaluate(
    config: FitConfig, heads: Sequence[Head], table: LabelTable, part: HeldOut, thresholds: Sequence[Threshold]
) -> Evaluation:
    y = table.y[part.rows]
    tags = [
        evaluate_tag(head.targets(table)[part.rows], part.p[head.name], head.tag, head.classes, seed=config.seed)
        for head in heads
        if isinstance(head, SoftmaxHead)
    ]
    return evaluate(
        y,
        part.p.get("attributes", np.empty(y.shape)),
        table.names,
        thresholds,
        tags=tags,
        part=f"{part.name} part",
        thresholds_tuned_here=part.name == "validation",
        seed=config.seed,
    )


def _settings(config: FitConfig) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}


def _versions() -> dict[str, str]:
    return {"multilabel": __version__, "keras": keras.__version__, "backend": keras.config.backend()}


def _provenance(config: FitConfig, labels: Labels, data: Dataset, parts: dict[str, int]) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "labels_sha256": labels_digest(data),
        "pictures": parts,
        "skipped": len(data.skipped),
        "rare_classes": labels.rare,
        "settings": _settings(config),
    }
