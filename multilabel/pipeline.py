"""`fit`, from the labels file to the bundle: every room of the house in order."""

from __future__ import annotations

import base64
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import keras
import numpy as np

from . import __version__, report
from . import bundle as bundles
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
from .config import DEFAULT_BACKBONE, FOLDS, CnnShape, FitConfig
from .crossfit import cross_fit, deal
from .dataset import Dataset, Labels, fold_count, labels_digest, read_dataset, read_table, split_dataset
from .distributed.embedded import Embedded
from .engine import Engine
from .errors import ImageError, UsageError
from .evaluation import Evaluation
from .held_out import ATTRIBUTES, HeldOut, bake, calibration_config, contradicted
from .label_errors import issues_table, suggestions_table
from .labels import LabelTable
from .measuring import DIGEST_BYTES
from .permutation import p_values
from .phases import Fitted, Run
from .report_page import Report, write_report
from .tables import history_table, predictions_table, write_tables
from .thresholds import Threshold, apply_thresholds, choose_thresholds, cross_fit_thresholds
from .training import History

_FOLDERS = ("labels", "images", "cache", "tensorboard", "features")  # settings that may not lie inside the bundle
# Settings that change nothing of a training, or that digests of the data stand for.
_NOT_OF_THE_TRAINING = (*_FOLDERS, "format", "strict", "split", "out", "run_name", "beta", "calibrate", "resume")
_COMPARED = 4  # pictures on which precisions are compared; the backbone as it is takes long
TITLES = {"out-of-fold": "training part, out of fold", "validation": "validation part", "test": "test part"}
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class FitResult:
    """What `fit` made.

    Attributes:
        out: the bundle's folder.
        evaluations: the scores out of fold, or on the validation part, and if there is one on the test part.
        history: how the training of the model that is kept went.
        fold_histories: how the training for each fold went.
        computed: how many features were computed, not read from the store.
        building_seconds: time it took to build the backbone and to load its weights.
        extraction_seconds: time it took to read all pictures and have their features.
        training_seconds: time that training took.
    """

    out: Path
    evaluations: tuple[Evaluation, ...]
    history: History
    fold_histories: tuple[History, ...]
    computed: int
    building_seconds: float
    extraction_seconds: float
    training_seconds: float


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
    embedded = Embedded(config.features) if config.features is not None else None
    labels = read_table(config, embedded)
    keras.utils.set_random_seed(config.seed)
    started = time.perf_counter()
    engine = embedded.engine if embedded else _build_engine(config)
    backbone = engine.backbone
    building_seconds = time.perf_counter() - started
    data = read_dataset(config, labels, engine, progress, embedded)
    folds = fold_count(config, data)
    parts = split_dataset(config, data, folds)
    checkpoint = _checkpoint(config, data, parts, backbone) if config.trains_backbone else None
    trained = _train(config, backbone, data, parts, folds, checkpoint, progress)
    thresholds, held_out = _with_thresholds(config, trained, data.table)
    fitted = trained.fitted
    evaluations = [
        part.evaluation(fitted.heads, data.table, thresholds, TITLES[part.name], config.seed) for part in held_out
    ]
    if config.permutations:
        values = p_values(config, backbone, data, held_out[0].rows, held_out[0].dealt, progress)
        evaluations[0] = evaluations[0].with_p_values(values.tolist())
    bundle = bundles.Bundle(
        config.run_name or config.out.absolute().name,
        backbone,
        fitted.heads,
        tuple(thresholds),
        fitted.model,
        _provenance(config, labels, data, parts, folds),
        tuple(dict.fromkeys(name for evaluation in evaluations for name in evaluation.not_better_than_chance)),
        calibration_config(held_out[0].calibrations, fitted.heads),
        precision=data.precision,
    )
    if data.computed and data.precision != "float32":
        with suppress(ImageError):  # a picture that is gone by now costs no bundle
            _describe_precision(bundle, data)
    _write(config.out, bundle, data, evaluations, held_out, trained)
    if checkpoint is not None:
        checkpoint.clear()
    return FitResult(
        config.out,
        tuple(evaluations),
        fitted.history,
        trained.histories,
        data.computed,
        building_seconds,
        data.seconds,
        trained.seconds,
    )


def _describe_precision(bundle: bundles.Bundle, data: Dataset) -> None:
    """Says how far probabilities are from those in float32, on a few pictures."""
    count = min(_COMPARED, len(data.names))
    rows = np.linspace(0, len(data.names) - 1, count).round().astype(int)
    exact = bundle.backbone.model(data.pictures[rows], training=False)
    differences = []
    for head in bundle.heads:
        here, there = (
            head.to_probs(keras.ops.convert_to_numpy(bundle.heads_model(features)[head.name]))
            for features in (data.first_views[rows], exact)
        )
        differences.append(np.abs(here - there).ravel())
    difference = np.concatenate(differences)
    _log.info(
        f"Features are computed in {bundle.precision}; on {count} pictures probabilities differ from float32 by at "
        f"most {difference.max():.4f} (median {np.median(difference):.4f})."
    )


def _write(
    out: Path,
    bundle: bundles.Bundle,
    data: Dataset,
    evaluations: Sequence[Evaluation],
    held_out: Sequence[HeldOut],
    trained: _Trained,
) -> None:
    """Writes the bundle with its tables, plot and page; all of it, or nothing."""
    history, histories = trained.fitted.history, trained.histories
    issues, suggestions = contradicted(bundle.heads, data.table, held_out[0])
    pages = Report(
        bundle.run_name,
        evaluations,
        held_out,
        data.table,
        data.names,
        bundle.heads,
        bundle.thresholds,
        history,
        histories,
        issues,
        suggestions,
        {name: value for name, value in bundle.provenance.items() if name != "learnt_from"},
    )
    with bundles.writing(out) as folder:
        bundles.save(bundle, folder)
        write_tables(
            folder,
            evaluations,
            history_table(history, histories),
            predictions_table(data.table, data.names, bundle.heads, held_out),
            data.skipped,
        )
        issues_table(issues, data.names).to_csv(folder / "label_issues.csv", index=False)
        suggestions_table(suggestions, data.names).to_csv(folder / "suggested_labels.csv", index=False)
        report.loss_curve(history, bundle.run_name, folder / "loss_curve.png", histories)
        write_report(folder / "report.html", pages)


@dataclass(frozen=True)
class _Trained:
    """The model that is kept, what it and those of the folds say of held-out pictures, and how training went."""

    fitted: Fitted
    held_out: list[HeldOut]
    histories: tuple[History, ...]
    seconds: float


def _train(
    config: FitConfig,
    backbone: Backbone,
    data: Dataset,
    parts: Mapping[str, np.ndarray],
    folds: int,
    checkpoint: Checkpoint | None,
    progress: bool,
) -> _Trained:
    """Trains on folds or on a single split, and calibrates on what was held out."""
    started = time.perf_counter()
    if folds:
        name, rows = "out-of-fold", parts["training"]
        dealt = deal(data, rows, folds, config.seed)
        crossed = cross_fit(config, backbone, data, rows, dealt, progress)
        fitted, logits, histories = crossed.kept, crossed.logits, crossed.histories
    else:
        name, rows = "validation", parts["validation"]
        fitted, histories = Run(config, backbone, data, parts, checkpoint, progress).fit(), ()
        dealt, logits = deal(data, rows, FOLDS, config.seed), fitted.logits(data, rows, config.batch_size)
    seconds = time.perf_counter() - started
    first = HeldOut.calibrated(name, rows, logits, dealt, fitted.heads, data.table, calibrate=config.calibrate)
    bake(first.calibrations, fitted.model)
    held_out = [first]
    if len(parts["test"]):
        logits = fitted.logits(data, parts["test"], config.batch_size)
        p = {head.name: head.to_probs(logits[head.name]) for head in fitted.heads}
        held_out.append(HeldOut("test", parts["test"], p, p))
    return _Trained(fitted, held_out, histories, seconds)


def _with_thresholds(config: FitConfig, trained: _Trained, table: LabelTable) -> tuple[list[Threshold], list[HeldOut]]:
    """The thresholds, chosen on the first held-out part, and all parts with what is called present by them."""
    first = trained.held_out[0]
    if not table.names:
        return [], trained.held_out

    y = table.y[first.rows]
    kept = choose_thresholds(y, first.shipped[ATTRIBUTES], config.beta)
    own = [threshold.source == "tuned" for threshold in kept]

    def choose(y: np.ndarray, p: np.ndarray) -> list[Threshold]:
        return choose_thresholds(y, p, config.beta, own=own)

    present, spreads = cross_fit_thresholds(y, first.p[ATTRIBUTES], first.dealt, choose)
    thresholds = [replace(threshold, spread=spread) for threshold, spread in zip(kept, spreads, strict=True)]
    others = [replace(part, present=apply_thresholds(part.p[ATTRIBUTES], thresholds)) for part in trained.held_out[1:]]
    return thresholds, [replace(first, present=present), *others]


def _resolved(config: FitConfig) -> FitConfig:
    """The configuration with the backbone's own name, and the weights and the precision that are meant.

    Raises:
        UsageError: if the parts of the configuration contradict each other.
    """
    out = config.out.resolve()
    weights = Path(str(config.weights)) if _is_bundle(config.weights) else None
    for option, path in (*((name, getattr(config, name)) for name in _FOLDERS), ("weights", weights)):
        if path is not None and out in (Path(path).resolve(), *Path(path).resolve().parents):
            raise UsageError(
                f"--{option} {path} lies inside --out {config.out}, which is replaced; choose another --out."
            )
    _check_tensorboard(config.tensorboard)
    if config.features is not None:
        return config
    in_training = config.trains_backbone and config.precision == "auto"  # in which half precision can cost accuracy
    config = replace(config, precision="float32" if in_training else resolve_precision(config.precision))
    if weights is not None:
        if config.cnn != CnnShape():
            raise UsageError(
                f"the bundle {config.weights} knows the layers of its own backbone; "
                "leave out --filters, --kernel-size, --dense-units, --batch-norm and --dropout."
            )
        return config
    config = replace(config, backbone=resolve_name(config.backbone or DEFAULT_BACKBONE))
    config = replace(config, weights=config.weights or _default_weights(config))
    if config.weights == NO_WEIGHTS and not config.trains_backbone:
        _log.warning("The backbone is frozen with random weights: good for trying things out, and for nothing else.")
    return config


def _is_bundle(weights: str | None) -> bool:
    return weights is not None and weights not in (IMAGENET, EMBEDDED, NO_WEIGHTS) and Path(weights).is_dir()


def _default_weights(config: FitConfig) -> str:
    if config.backbone != CNN:
        return IMAGENET
    if config.train_backbone:
        return NO_WEIGHTS
    shape, embedded = (replace(cnn, kernel_sizes=cnn.kernels, dropout=0.0) for cnn in (config.cnn, CnnShape()))
    if shape != embedded:
        raise UsageError(
            f"--backbone {CNN} has pretrained weights only in its default shape: train it (--train-backbone), "
            "or pass its weights (--weights FILE)."
        )
    return EMBEDDED


def _check_tensorboard(folder: Path | None) -> None:
    if folder is None:
        return
    if find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs another package; install it with `pip install 'multilabel[tensorboard]'`."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"--tensorboard {folder}: is no folder to write to ({error.strerror or error}).") from error


def _build_engine(config: FitConfig) -> Engine:
    return Engine(_build_backbone(config), "float32" if config.trains_backbone else config.precision)


def _build_backbone(config: FitConfig) -> Backbone:
    weights = str(config.weights)
    if not _is_bundle(weights):
        backbone = build_backbone(str(config.backbone), weights, config.image_size, cnn=config.cnn)
    else:
        backbone = bundles.load_backbone(weights, config.image_size)
        if config.backbone is not None and resolve_name(config.backbone) != backbone.name:
            raise UsageError(
                f"--backbone {config.backbone}: the bundle {weights} has a {backbone.name}; leave out --backbone."
            )
    if isinstance(config.fine_tune, int):
        thaw(backbone, config.fine_tune)  # in vain, but it says early if there are not so many layers
    freeze(backbone)
    return backbone


def _checkpoint(config: FitConfig, data: Dataset, parts: Mapping[str, np.ndarray], backbone: Backbone) -> Checkpoint:
    folder = config.out.with_name(f"{config.out.absolute().name}.checkpoint")
    settings = {name: value for name, value in _settings(config).items() if name not in _NOT_OF_THE_TRAINING}
    settings["the labels"] = labels_digest(data)
    settings["the pictures"] = hashlib.sha256(b"".join(data.digests)).hexdigest()
    settings["the parts"] = hashlib.sha256(repr([rows.tolist() for rows in parts.values()]).encode()).hexdigest()
    settings["the backbone's first weights"] = backbone.fingerprint()
    settings["the versions"] = _versions()
    checkpoint = Checkpoint(folder, settings, resume=config.resume)
    if checkpoint.epoch:
        _log.info(f"Continuing after epoch {checkpoint.epoch} of the training of the backbone.")
    if config.resume and not checkpoint.epoch:
        _log.info(f"Nothing to resume in {folder}: training starts from the beginning.")
    if checkpoint.found and not config.resume:
        _log.warning(f"{folder} holds an interrupted training, which this one replaces; --resume would continue it.")
    return checkpoint


def _settings(config: FitConfig) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}


def _versions() -> dict[str, str]:
    return {"multilabel": __version__, "keras": keras.__version__, "backend": keras.config.backend()}


def _provenance(
    config: FitConfig, labels: Labels, data: Dataset, parts: Mapping[str, np.ndarray], folds: int
) -> dict[str, Any]:
    learnt = sorted(data.digests[row][:DIGEST_BYTES] for part in ("training", "validation") for row in parts[part])
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "labels_sha256": labels_digest(data),
        "pictures": {name: len(rows) for name, rows in parts.items()},
        "learnt_from": base64.b64encode(b"".join(learnt)).decode(),  # the beginnings of the pictures' digests
        "folds": folds,
        "skipped": len(data.skipped),
        "rare_classes": labels.rare,
        "settings": _settings(config),
    }
