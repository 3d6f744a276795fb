"""`tune`: other thresholds for a bundle, chosen on other labels, without training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import bundle as bundles
from .config import FOLDS, FitConfig
from .crossfit import deal
from .dataset import Dataset, labels_digest
from .errors import DataError, UsageError
from .evaluation import Evaluation, evaluate
from .heads import LogitHead
from .measuring import LabelSource, probabilities_of, read_for
from .thresholds import Threshold, apply_thresholds, choose_thresholds, cross_fit_thresholds

_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Choice:
    """What thresholds are to do.

    Attributes:
        beta: they maximise F-beta.
        min_precision: they have the highest recall that keeps this precision, instead.
        shared: all attributes get the one that suits them together.
    """

    beta: float = 1.0
    min_precision: float | None = None
    shared: bool = False


@dataclass(frozen=True)
class TuneResult:
    """What `tune` changed.

    Attributes:
        before: the attributes' scores with the old thresholds.
        after: their cross-fitted scores with the new ones, which are in the bundle now.
    """

    before: Evaluation
    after: Evaluation


def tune(folder: Path, source: LabelSource, choice: Choice, *, progress: bool = False) -> TuneResult:
    """Replaces a bundle's thresholds by ones chosen on labels that it has not seen; nothing is trained.

    An attribute without a known positive there keeps its threshold, unless all are to share one.

    Args:
        folder: the bundle; its description, `multilabel.json`, is replaced in one go.
        source: the labels.
        choice: what thresholds are to do.
        progress: show bars on stderr, where a person watches.

    Raises:
        UsageError: the bundle has no attributes.
        DataError: there is no known positive, or a precision that cannot be kept.
        MultilabelError: the labels or the pictures cannot be used; in all cases the bundle is as it was.
    """
    bundle = bundles.load(folder)
    if not bundle.attributes:
        raise UsageError(f"{folder} has tags alone, and tags have no thresholds; there is nothing to tune.")
    config, data = read_for(bundle, source, progress)
    digest = labels_digest(data)
    if bundle.provenance.get("labels_sha256") == digest:
        _log.warning("The model is surer of pictures that it learnt from than of others: tune on others.")
    result = _tuned(bundle, data, config, choice, source.title)
    tuned = {
        "labels": str(source.labels),
        "labels_sha256": digest,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "beta": choice.beta,
        "min_precision": choice.min_precision,
        "shared": choice.shared,
    }
    thresholds = tuple(scores.threshold for scores in result.after.scores)
    provenance = {**bundle.provenance, "tuned": tuned}
    bundles.save_description(replace(bundle, thresholds=thresholds, provenance=provenance), folder)
    return result


def _tuned(bundle: bundles.Bundle, data: Dataset, config: FitConfig, choice: Choice, part: str) -> TuneResult:
    y, names = data.table.y, data.table.names
    if not (y == 1).any():
        raise DataError(
            f"{config.labels}: no attribute has a known positive, so there is nothing to choose thresholds by."
        )
    probabilities = probabilities_of(bundle, data)
    p = np.concatenate([probabilities[head.name] for head in bundle.heads if isinstance(head, LogitHead)], axis=1)
    folds = deal(data, np.arange(len(y)), FOLDS, config.seed)
    thresholds, present = chosen_anew(y, p, names, folds, bundle.thresholds, choice)
    return TuneResult(
        evaluate(y, p, names, bundle.thresholds, part=part, seed=config.seed),
        evaluate(y, p, names, thresholds, present=present, part=part, seed=config.seed),
    )


def chosen_anew(
    y: NDArray, p: NDArray, names: Sequence[str], folds: NDArray, old: Sequence[Threshold], choice: Choice
) -> tuple[list[Threshold], NDArray[np.bool_]]:
    """Thresholds chosen on labels, and what they call present there, where each fold is called by the other folds.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, of the same shape.
        names: of the attributes.
        folds: the fold of each row, shape (n,).
        old: the thresholds until now; an attribute without a known positive keeps its own, unless all share one.
        choice: what thresholds are to do.

    Returns:
        One threshold per attribute, and what is present, shape (n, attributes).

    Raises:
        DataError: a precision cannot be kept.
    """
    positive = (y == 1).any(axis=0)
    columns = np.arange(len(names)) if choice.shared and positive.any() else np.flatnonzero(positive)
    thresholds, present = list(old), apply_thresholds(p, old)
    if len(columns) < len(names):
        kept = ", ".join(name for name, found in zip(names, positive.tolist(), strict=True) if not found)
        _log.warning(f"No label says that it is present, so the threshold stays: {kept}.")
    if not len(columns):
        return thresholds, present
    chosen = _choose(choice, y[:, columns], p[:, columns], [names[column] for column in columns.tolist()])

    own = [threshold.source == "tuned" for threshold in chosen]

    def choose(y: NDArray, p: NDArray) -> list[Threshold]:
        return _choose(choice, y, p, own=own)

    called, spreads = cross_fit_thresholds(y[:, columns], p[:, columns], folds, choose)
    present[:, columns] = called
    for column, threshold, spread in zip(columns.tolist(), chosen, spreads, strict=True):
        thresholds[column] = replace(threshold, spread=spread)
    return thresholds, present


def _choose(
    choice: Choice, y: NDArray, p: NDArray, names: Sequence[str] | None = None, own: Sequence[bool] | None = None
) -> list[Threshold]:
    """Thresholds by labels; with names what cannot be is an error, without it is about a fold and calls nothing."""
    return choose_thresholds(
        y,
        p,
        choice.beta,
        min_precision=choice.min_precision,
        shared=choice.shared,
        names=names or (),
        or_never=names is None,
        own=own,
    )
