"""The permutation test: how often heads that learnt shuffled labels score as well as those of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .backbones import Backbone
from .config import FitConfig
from .crossfit import heads_on_all_of, inner_parts
from .dataset import Dataset
from .labels import UNKNOWN
from .metrics.masked import roc_auc
from .phases import logits_of_features

COLUMNS_AT_ONCE = 1024  # attributes that train side by side


def p_values(
    config: FitConfig, backbone: Backbone, data: Dataset, rows: np.ndarray, folds: np.ndarray, progress: bool
) -> NDArray[np.float64]:
    """The p-value of each attribute's out-of-fold AUC.

    For each of `config.permutations` draws the known labels of each attribute are shuffled within each fold,
    heads learn them on the same folds as `crossfit.cross_fit` does, and their out-of-fold AUC is taken. All draws learn
    side by side, as more attributes of one head, and the real labels are one more draw among them:
    p = (1 + draws with an AUC as high) / (1 + draws) (Phipson and Smyth 2010, Permutation P-values Should Never Be
    Zero).

    Args:
        config: what is wanted.
        backbone: frozen.
        data: pictures, labels and features.
        rows: the pictures to learn from, shape (m,).
        folds: the fold of each of these, shape (m,).
        progress: show bars on stderr, where a person watches.

    Returns:
        One value per attribute; NaN for one without both classes.
    """
    real = data.table.y[rows]
    rng = np.random.default_rng(config.seed)
    draws = [real, *(shuffled(real, rng, folds) for _ in range(config.permutations))]
    at_once = max(1, COLUMNS_AT_ONCE // real.shape[1])
    aucs = []
    for start in range(0, len(draws), at_once):
        some = draws[start : start + at_once]
        what = f"draws {start + 1} to {start + len(some)} of {len(draws)}"
        p = out_of_fold(config, backbone, data, rows, folds, some, what, progress)
        aucs.append(_aucs(np.concatenate(some, axis=1), p).reshape(len(some), -1))
    measured = np.concatenate(aucs)
    as_good = np.count_nonzero(measured[1:] >= measured[0], axis=0)
    return np.where(np.isnan(measured[0]), np.nan, (1 + as_good) / len(measured))


def shuffled(y: NDArray, rng: np.random.Generator, folds: NDArray) -> NDArray:
    """Labels, shape (n, attributes), of which each column's known ones changed places within their fold.

    Each fold keeps its counts, as dealing gave them to it by the real labels: only then are all draws alike.
    """
    mixed = y.copy()
    for fold in np.unique(folds):
        for column in mixed.T:
            known = (column != UNKNOWN) & (folds == fold)
            column[known] = rng.permutation(column[known])
    return mixed


def _aucs(y: NDArray, p: NDArray) -> NDArray[np.float64]:
    """The AUC of each column; NaN without both classes."""
    both = (y == 1).any(axis=0) & (y == 0).any(axis=0)
    values = np.full(y.shape[1], np.nan)
    values[both] = roc_auc(y[:, both], p[:, both], average=None)
    return values


def out_of_fold(
    config: FitConfig,
    backbone: Backbone,
    data: Dataset,
    rows: np.ndarray,
    folds: np.ndarray,
    draws: Sequence[NDArray],
    what: str,
    progress: bool,
) -> NDArray:
    """Out-of-fold probabilities of the attributes of some draws, side by side: shape (m, draws * attributes)."""
    y = np.concatenate(draws, axis=1)
    labels = np.full((len(data.names), y.shape[1]), UNKNOWN, y.dtype)
    labels[rows] = y
    names = tuple(map(str, range(y.shape[1])))
    none = np.empty((len(labels), 0), data.table.tag_y.dtype)
    wide = replace(data, table=replace(data.table, y=labels, names=names, tags=(), tag_y=none))
    config = replace(config, loss_weights={}, tensorboard=None)  # of tags, which are not there, and not worth a log
    p = np.empty(y.shape)
    for fold in range(int(folds.max()) + 1):
        learn, judged, name = rows[folds != fold], folds == fold, f"{what}, fold {fold + 1}"
        parts = inner_parts(config, data, learn)
        model, heads = heads_on_all_of(config, backbone, wide, parts, progress, name)
        p[judged] = heads[0].to_probs(logits_of_features(model, wide, rows[judged])[heads[0].name])
    return p
