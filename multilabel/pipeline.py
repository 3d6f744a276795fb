"""`fit`, from the labels file to the bundle: every room of the house in order."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from . import __version__, report
from . import bundle as bundles
from .backbones import CNN, IMAGENET, NO_WEIGHTS, Backbone, build_backbone, freeze, resolve_name, thaw
from .config import FitConfig
from .errors import DataError, Interrupted, UsageError
from .evaluation import Evaluation, evaluate
from .features import Extraction, FeatureStore, check, default_cache, extract
from .heads import LogitHead, missing_classes
from .labels import UNKNOWN, LabelTable, locate_images, read_labels
from .splits import split_parts
from .thresholds import choose_thresholds
from .training import Batches, History, Inputs, Pictures, build_models, predict_logits, train

_NAMED = 20  # so many pictures that are left out are named in the terminal
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
class _Data:
    """The pictures that can be used, row by row: `table`, `names` in the labels file, `digests`; and those left out."""

    table: LabelTable
    names: list[str]
    digests: list[bytes]
    skipped: list[tuple[str, str]]
    inputs: Inputs
    computed: int
    seconds: float


@dataclass(frozen=True)
class _Fitted:
    """What training on a split gave; `trained` is `model` or, on stored features, its head alone."""

    head: LogitHead
    model: keras.Model
    trained: keras.Model
    history: History
    seconds: float


@dataclass(frozen=True)
class _Part:
    """A part of the pictures that was held out: which rows, and their probabilities."""

    name: str
    rows: np.ndarray
    p: np.ndarray


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
    table, names, absent = _read_table(config)
    keras.utils.set_random_seed(config.seed)
    backbone = build_backbone(config.backbone, str(config.weights), config.image_size)
    data = _read_pictures(config, table, names, absent, backbone, progress)

    y = data.table.y
    training, validation, test = split_parts(
        y, config.val_share, config.test_share, groups=data.digests, seed=config.seed
    )
    _describe_parts(len(training), len(validation), len(test))
    fitted = _train(config, backbone, data, training, validation, progress)
    held_out = [
        _Part(name, rows, _probabilities(config, fitted, data, rows))
        for name, rows in (("validation", validation), ("test", test))
        if len(rows)
    ]
    thresholds = choose_thresholds(y[validation], held_out[0].p, config.beta)
    evaluations = tuple(
        evaluate(
            y[part.rows],
            part.p,
            data.table.names,
            thresholds,
            part=f"{part.name} part",
            thresholds_tuned_here=part.name == "validation",
            seed=config.seed,
        )
        for part in held_out
    )
    parts = {"training": len(training), **{part.name: len(part.rows) for part in held_out}}
    bundle = bundles.Bundle(
        config.run_name or config.out.absolute().name,
        backbone,
        (fitted.head,),
        tuple(thresholds),
        fitted.model,
        _provenance(config, data, parts),
    )
    with bundles.writing(config.out) as folder:
        bundles.save(bundle, folder)
        _write_tables(folder, evaluations, data, fitted.history, held_out)
        report.loss_curve(fitted.history, bundle.run_name, folder / "loss_curve.png")
    return FitResult(config.out, evaluations, fitted.history, data.computed, data.seconds, fitted.seconds)


def _resolved(config: FitConfig) -> FitConfig:
    """The configuration with the backbone's own name and the weights that are meant.

    Raises:
        UsageError: if the parts of the configuration contradict each other.
    """
    name = resolve_name(config.backbone)
    weights = config.weights
    if weights is None and name == CNN:
        if not config.train_backbone:
            raise UsageError(
                f"--backbone {CNN} comes without pretrained weights: "
                "train it (--train-backbone), or pass its weights (--weights FILE)."
            )
        weights = NO_WEIGHTS
    if weights == NO_WEIGHTS and not config.train_backbone:
        _log.warning("The backbone is frozen with random weights: good for trying things out, and for nothing else.")
    out = config.out.absolute()
    for option, path in (("--labels", config.labels), ("--images", config.images), ("--cache", config.cache)):
        if path is not None and out in (path.absolute(), *path.absolute().parents):
            raise UsageError(
                f"{option} {path} lies inside --out {config.out}, which is replaced; choose another --out."
            )
    return replace(config, backbone=name, weights=weights or IMAGENET)


def _read_table(config: FitConfig) -> tuple[LabelTable, list[str], list[str]]:
    """The labels whose picture files are there, the pictures' names in the labels file, and the absent names."""
    named = read_labels(config.labels, format=config.format, names=config.names)
    table, absent = locate_images(named, config.labels, config.images, strict=config.strict)
    for note in named.notes:
        _log.info(note)
    known = int((table.y != UNKNOWN).sum())
    _log.info(
        f"{config.labels}: {_count(len(table.images), 'picture')}, {_count(len(table.names), 'attribute')}, "
        f"{known:,} of {table.y.size:,} labels known ({known / table.y.size:.0%})."
    )
    _warn_left_out("the file is absent", absent)
    unlabelled = [name for name, column in zip(table.names, table.y.T, strict=True) if (column == UNKNOWN).all()]
    if unlabelled:
        raise DataError(
            f"{config.labels}: no picture has a known label for {', '.join(unlabelled)}; label some, or leave it out."
        )
    gone = set(absent)
    return table, [name for name in named.images if name not in gone], list(absent)


def _read_pictures(
    config: FitConfig, table: LabelTable, names: list[str], absent: list[str], backbone: Backbone, progress: bool
) -> _Data:
    """Reads every picture; with a frozen backbone, once for all as its feature."""
    started = time.perf_counter()
    if config.train_backbone:
        extraction = check(table.images, backbone.image_size, progress=progress)
        rows, digests = _readable(table, extraction)
        inputs: Inputs = Pictures([table.images[row] for row in rows], backbone.image_size)
    else:
        with FeatureStore(config.cache or default_cache(), backbone) as store:
            extraction = extract(backbone, table.images, store, progress=progress)
            rows, digests = _readable(table, extraction)
            inputs = store.load(digests)
    seconds = time.perf_counter() - started
    if not config.train_backbone:
        stored = len(set(digests)) - extraction.computed
        copies = len(digests) - len(set(digests))
        same = f", {copies:,} identical to others" if copies else ""
        _log.info(f"Features: {extraction.computed:,} computed, {stored:,} stored already{same} ({seconds:.1f} s).")
    broken = [name for name, digest in zip(names, extraction.digests, strict=True) if digest is None]
    reasons = [error.reason for error in extraction.errors]
    _warn_left_out("it cannot be read", [f"{name} ({why})" for name, why in zip(broken, reasons, strict=True)])
    skipped = [(name, "no such file") for name in absent] + list(zip(broken, reasons, strict=True))
    return _Data(table.take(rows), [names[row] for row in rows], digests, skipped, inputs, extraction.computed, seconds)


def _warn_left_out(why: str, names: Sequence[str]) -> None:
    if not names:
        return
    more = f" and {len(names) - _NAMED:,} more, which skipped.csv in the bundle lists" if len(names) > _NAMED else ""
    _log.warning(f"Left out, because {why} ({_count(len(names), 'picture')}): {', '.join(names[:_NAMED])}{more}.")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _readable(table: LabelTable, extraction: Extraction) -> tuple[list[int], list[bytes]]:
    pairs = [(row, digest) for row, digest in enumerate(extraction.digests) if digest is not None]
    if not pairs:
        raise DataError(f"none of the {len(table.images)} pictures can be read; the first: {extraction.errors[0]}")
    return [row for row, _ in pairs], [digest for _, digest in pairs]


def _describe_parts(training: int, validation: int, test: int) -> None:
    tested = f"; test part: {test:,}" if test else ""
    _log.info(f"Training part: {_count(training, 'picture')}; validation part: {validation:,}{tested}.")


def _train(
    config: FitConfig,
    backbone: Backbone,
    data: _Data,
    training: np.ndarray,
    validation: np.ndarray,
    progress: bool,
) -> _Fitted:
    y = data.table.y
    head = LogitHead.for_labels(data.table.names, y[training])
    for label, names in zip("10", missing_classes(data.table.names, y[training]), strict=True):
        for name in names:
            _log.warning(f"{name}: no {label} among its known labels in the training part; its pos_weight is 1.")
    keras.utils.set_random_seed(config.seed)  # again, so that the head does not depend on what happened before
    heads_model, model = build_models(backbone, [head])
    trained = model if config.train_backbone else heads_model
    (thaw if config.train_backbone else freeze)(backbone)
    targets = {head.name: y}
    batches = Batches(data.inputs, targets, training, config.batch_size, config.seed)
    held_out = Batches(data.inputs, targets, validation, config.batch_size)
    started = time.perf_counter()
    try:
        history = train(
            trained,
            [head],
            batches,
            held_out,
            epochs=config.epochs,
            lr=config.lr,
            patience=config.patience,
            progress=progress,
        )
    except Interrupted as stop:
        kept = "" if config.train_backbone else " The features are kept, so the same command is quick to train again."
        raise Interrupted(f"{stop}{kept}") from None
    seconds = time.perf_counter() - started
    _log.info(
        f"Trained for {_count(len(history.epoch_ends), 'epoch')} ({seconds:.1f} s); "
        f"kept the weights of epoch {history.best_epoch}, the one with the lowest validation loss."
    )
    freeze(backbone)
    return _Fitted(head, model, trained, history, seconds)


def _probabilities(config: FitConfig, fitted: _Fitted, data: _Data, rows: np.ndarray) -> np.ndarray:
    head = fitted.head
    batches = Batches(data.inputs, {head.name: data.table.y}, rows, config.batch_size)
    return head.to_probs(predict_logits(fitted.trained, batches)[head.name])


def _write_tables(
    folder: Path, evaluations: Sequence[Evaluation], data: _Data, history: History, held_out: Sequence[_Part]
) -> None:
    metrics = {"parts": [evaluation.to_json() for evaluation in evaluations]}
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    predictions = pd.concat([_predictions_table(data, part) for part in held_out])
    predictions.to_csv(folder / "predictions.csv", index=False)
    _history_table(history).to_csv(folder / "history.csv", index=False)
    pd.DataFrame(data.skipped, columns=["image", "reason"]).to_csv(folder / "skipped.csv", index=False)


def _predictions_table(data: _Data, part: _Part) -> pd.DataFrame:
    """One row per picture of the part: its labels (blank: unknown), then its probabilities."""
    table = pd.DataFrame({"image": [data.names[row] for row in part.rows], "part": part.name})
    for name, labels in zip(data.table.names, data.table.y[part.rows].T, strict=True):
        table[f"{name}_label"] = pd.arrays.IntegerArray(labels.copy(), labels == UNKNOWN)
    for name, probabilities in zip(data.table.names, part.p.T, strict=True):
        table[f"{name}_probability"] = probabilities
    return table


def _history_table(history: History) -> pd.DataFrame:
    """One row per iteration; the last of each epoch also holds the epoch's validation loss."""
    table = pd.DataFrame({"iteration_number": range(1, len(history.training_loss) + 1)})
    table["epoch"] = np.searchsorted(history.epoch_ends, table["iteration_number"]) + 1
    table["training_loss"] = history.training_loss
    table["validation_loss"] = table["iteration_number"].map(
        dict(zip(history.epoch_ends, history.validation_loss, strict=True))
    )
    return table


def _provenance(config: FitConfig, data: _Data, parts: dict[str, int]) -> dict[str, Any]:
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"multilabel": __version__, "keras": keras.__version__, "backend": keras.config.backend()},
        "labels_sha256": hashlib.sha256(
            repr((data.names, data.table.y.tolist())).encode("utf-8", "replace")
        ).hexdigest(),
        "pictures": parts,
        "skipped": len(data.skipped),
        "settings": settings,
    }
