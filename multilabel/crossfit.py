"""Cross-fitting: every picture is judged by heads that never saw it, then the heads that are kept learn from all."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from .backbones import Backbone
from .config import FitConfig
from .convex import strength
from .dataset import Dataset
from .heads import Head, SoftmaxHead
from .phases import Fitted, Run, logits_of_features
from .splits import assign_parts, split_parts
from .stopping import BestEpochs, Epochs, KeepEpochs, longest
from .training import History

# What an epoch must bring, as a share of the loss: nearly nothing where it is short, 1% if it takes a thousand steps.
# Else large data creep on to the last epoch, each a thousandth better than the one before.
_GAIN_PER_STEP = 1e-5
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class CrossFitted:
    """What cross-fitting gave.

    Attributes:
        kept: the model that learnt from all pictures.
        logits: by head name, out-of-fold logits in the order of the rows, shifted as if each fold's heads had the
            `pos_weight` of those that are kept.
        histories: per fold, of the training that found the epochs.
    """

    kept: Fitted
    logits: Mapping[str, np.ndarray]
    histories: tuple[History, ...]


def cross_fit(
    config: FitConfig, backbone: Backbone, data: Dataset, rows: np.ndarray, folds: np.ndarray, progress: bool
) -> CrossFitted:
    """Trains heads without each fold, to judge it, and heads on everything, to be kept.

    For how long is found for each attribute and tag apart, and without the fold: heads that learn from most of the
    other folds are judged by a share of them (`val_share`) after each epoch; then new heads learn from all of the other
    folds, each attribute for as many epochs as was best for it. Heads on everything take the median of the folds.
    With the solver L-BFGS, epochs are steps to weaker regularisation (`convex`), so that is the geometric median.

    Args:
        config: what is wanted.
        backbone: frozen.
        data: pictures, labels and features.
        rows: the pictures to learn from, shape (m,).
        folds: the fold of each of these, shape (m,), numbers from 0.
        progress: show bars on stderr, where a person watches.

    Raises:
        DataError: a head has nothing to learn from; the loss is no longer a number.
        Interrupted: on Ctrl-C.
    """
    started = time.perf_counter()
    count = int(folds.max()) + 1
    logits: dict[str, np.ndarray] = {}
    histories, found, weights = [], [], []
    for fold in range(count):
        learn, judged = rows[folds != fold], folds == fold
        name = f"fold {fold + 1} of {count}"
        parts = inner_parts(config, data, learn)
        epochs, history = find_epochs(config, backbone, data, parts, progress, f"{name}, epochs")
        run = _on_all_of(config, backbone, data, learn, progress, epochs, name)
        model, _ = run.fit_heads(KeepEpochs(run.heads, epochs))
        histories.append(history)
        found.append(epochs)
        weights.append([_shift(head) for head in run.heads])
        for head, values in logits_of_features(model, data, rows[judged]).items():
            logits.setdefault(head, np.empty((len(rows), values.shape[1])))[judged] = values
    epochs = {head: np.median([one[head] for one in found], axis=0).round().astype(int) for head in found[0]}
    _log.info(
        f"Trained heads on {count} folds ({time.perf_counter() - started:.1f} s); "
        f"best for an attribute or tag were {_range(config, epochs, backbone.dimension)}, in the median of the folds."
    )
    run = _on_all_of(config, backbone, data, rows, progress, epochs, "heads")
    for number, kept in enumerate(run.heads):
        logits[kept.name] += _shift(kept) - np.array([of_fold[number] for of_fold in weights])[folds]
    return CrossFitted(run.fit(KeepEpochs(run.heads, epochs)), logits, tuple(histories))


def _range(config: FitConfig, epochs: Epochs, dimension: int) -> str:
    """From the fewest to the most epochs, or from the weakest to the strongest regularisation."""
    shortest, last = min(int(numbers.min()) for numbers in epochs.values()), longest(epochs)
    if config.solver == "lbfgs":
        return f"L2 strengths from {strength(last, dimension):.3g} to {strength(shortest, dimension):.3g}"
    return f"{shortest} to {last} epochs"


def _shift(head: Head) -> np.ndarray:
    """By how much `pos_weight` raises each logit of a head: ln w."""
    return np.zeros(head.units) if isinstance(head, SoftmaxHead) else np.log(head.pos_weight)


def find_epochs(
    config: FitConfig, backbone: Backbone, data: Dataset, parts: Mapping[str, np.ndarray], progress: bool, what: str
) -> tuple[Epochs, History]:
    """For how many epochs it is best to learn from pictures like these, and how the training went that said so."""
    run = Run(config, backbone, data, parts, None, progress, what=what)
    gain = 0.0 if config.solver == "lbfgs" else _GAIN_PER_STEP * len(parts["training"]) / config.batch_size
    validation = run.batches(data.first_views, "validation")
    best = BestEpochs(run.heads, validation, run.heads_phase.patience, config.monitor, gain)
    _, history = run.fit_heads(best)
    history.best_epoch = round(float(np.median(np.concatenate(list(best.epochs.values())))))
    return best.epochs, history


def _on_all_of(
    config: FitConfig, backbone: Backbone, data: Dataset, rows: np.ndarray, progress: bool, epochs: Epochs, what: str
) -> Run:
    """A training on all of some pictures, as long as the epochs say."""
    return Run(
        config, backbone, data, {"training": rows, "validation": rows[:0]}, None, progress, longest(epochs), what
    )


def heads_on_all_of(
    config: FitConfig, backbone: Backbone, data: Dataset, parts: Mapping[str, np.ndarray], progress: bool, what: str
) -> tuple[keras.Model, tuple[Head, ...]]:
    """Heads that learnt from both parts, `(batch, dimension)` → logits by head name, as those of a fold do."""
    epochs, _ = find_epochs(config, backbone, data, parts, progress, what)
    rows = np.sort(np.concatenate([parts["training"], parts["validation"]]))
    run = _on_all_of(config, backbone, data, rows, progress, epochs, what)
    model, _ = run.fit_heads(KeepEpochs(run.heads, epochs))
    return model, run.heads


def inner_parts(config: FitConfig, data: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of a fold's training: to learn from, and to stop by."""
    training, validation, _ = split_parts(
        data.cells[rows], config.val_share, groups=[data.digests[row] for row in rows.tolist()], seed=config.seed
    )
    return {"training": rows[training], "validation": rows[validation]}


def deal(data: Dataset, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, shape (m,): labels are spread evenly, and identical pictures share a fold."""
    groups = [data.digests[row] for row in rows.tolist()]
    return assign_parts(data.cells[rows], [1.0] * folds, groups=groups, seed=seed)
