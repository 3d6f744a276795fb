"""What a model gets right: each score beside its interval and chance level, and plain sentences on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .labels import UNKNOWN
from .metrics import SCORES, bootstrap, chance_levels, scores
from .thresholds import Threshold, apply_thresholds

# With fewer labels of one class the bootstrap interval is too narrow to rely on: random probabilities come out as
# "better than chance" in 40% of cases with 1 positive, 18% with 2, 7% with 5 and 4% with 10 (nominal: 2.5%).
FEWEST_TO_JUDGE = 5
FEW = 10  # labels of a class, below which the bootstrap's intervals are too narrow


@dataclass(frozen=True)
class Score:
    """A measured value, its 95% interval and its chance level; NaN where undefined."""

    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class AttributeScores:
    """The scores of one attribute and the number of known labels that they rest on."""

    attribute: str
    known: int
    positives: int
    negatives: int
    threshold: Threshold
    precision: Score
    recall: Score
    f1: Score
    average_precision: Score
    roc_auc: Score

    @property
    def can_be_judged(self) -> bool:
        """Whether each class has at least `FEWEST_TO_JUDGE` known labels."""
        return min(self.positives, self.negatives) >= FEWEST_TO_JUDGE

    @property
    def better_than_chance(self) -> bool:
        """Whether the interval of the AUC lies above 0.5, with enough labels to rely on it."""
        return self.can_be_judged and self.roc_auc.low > self.roc_auc.chance


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one part of the pictures.

    Attributes:
        part: which pictures these are, such as `"validation part"`.
        pictures: their number.
        cells: number of labels, known and unknown.
        known: number of known labels.
        thresholds_tuned_here: whether the thresholds were chosen on the same pictures.
        scores: one entry per attribute.
    """

    part: str
    pictures: int
    cells: int
    known: int
    thresholds_tuned_here: bool
    scores: tuple[AttributeScores, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The attributes without both classes, which do not count in `macro_f1`."""
        return tuple(score.attribute for score in self.scores if not (score.positives and score.negatives))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the attributes with both classes; NaN if there are none."""
        values = [score.f1.value for score in self.scores if score.attribute not in self.left_out]
        return sum(values) / len(values) if values else math.nan

    def to_json(self) -> dict[str, Any]:
        """All of this for `metrics.json`, as plain dicts, lists and numbers; what is undefined is None."""
        return {
            "part": self.part,
            "pictures": self.pictures,
            "cells": self.cells,
            "known": self.known,
            "thresholds_tuned_here": self.thresholds_tuned_here,
            "macro_f1": _number(self.macro_f1),
            "left_out_of_macro_f1": list(self.left_out),
            "attributes": {score.attribute: _attribute_json(score) for score in self.scores},
            "verdicts": verdicts(self),
        }


def evaluate(
    y: NDArray,
    p: NDArray,
    names: Sequence[str],
    thresholds: Sequence[Threshold],
    *,
    part: str,
    thresholds_tuned_here: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure probabilities against the known labels.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, shape (n, attributes).
        names: of the attributes.
        thresholds: one per attribute.
        part: which pictures these are, such as `"validation part"`.
        thresholds_tuned_here: whether `thresholds` were chosen on these same pictures, the careful assumption.
        draws: bootstrap resamples per attribute.
        seed: of the resampling; the same for every attribute, so that intervals do not depend on other attributes.

    Returns:
        The scores of every attribute, on its known cells.

    Raises:
        DataError: the shapes do not fit together, or a probability of a known cell is NaN.
    """
    if y.ndim != 2 or y.shape != p.shape or not y.shape[1] == len(names) == len(thresholds):
        raise DataError(
            f"Labels of shape {y.shape}, probabilities of shape {p.shape}, {len(names)} names and "
            f"{len(thresholds)} thresholds do not fit: give (n, attributes) twice, then one per attribute."
        )
    present = apply_thresholds(p, thresholds)
    attributes = []
    columns = zip(names, thresholds, y.T, p.T, present.T, strict=True)
    for name, threshold, labels, probabilities, called in columns:
        values = scores(labels, probabilities, threshold.value)
        intervals = bootstrap(labels, probabilities, threshold.value, draws=draws, seed=seed)
        chance = chance_levels(labels, called)
        measured = {key: Score(values[key], *intervals[key], chance[key]) for key in SCORES}
        known, positives = int(np.count_nonzero(labels != UNKNOWN)), int(np.count_nonzero(labels == 1))
        attributes.append(AttributeScores(name, known, positives, known - positives, threshold, **measured))
    all_known = int(np.count_nonzero(y != UNKNOWN))
    return Evaluation(part, len(y), y.size, all_known, thresholds_tuned_here, tuple(attributes))


def verdicts(evaluation: Evaluation) -> list[str]:
    """What to know before trusting the model, in plain sentences; none when there is nothing to warn of."""
    sentences = [sentence for score in evaluation.scores if (sentence := _verdict(score, evaluation.part))]
    if evaluation.thresholds_tuned_here:
        sentences.append(
            f"The same pictures ({evaluation.part}) chose the thresholds and decided when to stop training: "
            "precision, recall and F1 are flattering, average precision and AUC a little."
        )
    return sentences


def _verdict(score: AttributeScores, part: str) -> str | None:
    rarer, kind = min((score.positives, "positive"), (score.negatives, "negative"))
    if score.better_than_chance:
        if rarer >= FEW:
            return None
        return (
            f"{score.attribute} has only {rarer} {kind} labels in the {part}: "
            "its true scores may lie further away than the intervals say."
        )
    if not score.known:
        return f"{score.attribute} cannot be judged: none of its labels in the {part} is known."
    if not score.can_be_judged:
        return (
            f"{score.attribute} cannot be judged: {rarer or 'none'} of its {score.known} known labels in the "
            f"{part} {'are' if rarer > 1 else 'is'} {kind}, and it takes at least {FEWEST_TO_JUDGE}."
        )
    auc = score.roc_auc
    below = auc.high < auc.chance
    return (
        f"{score.attribute} is {'worse' if below else 'not better'} than chance: its AUC of {auc.value:.2f} "
        f"has the 95% interval {auc.low:.2f} to {auc.high:.2f}, which "
        f"{'lies below' if below else 'includes'} 0.5 (what a model that ignores the picture scores)."
    )


def _attribute_json(score: AttributeScores) -> dict[str, Any]:
    return {
        "known": score.known,
        "positives": score.positives,
        "negatives": score.negatives,
        "better_than_chance": score.better_than_chance,
        "threshold": asdict(score.threshold),
        **{key: _score_json(getattr(score, key)) for key in SCORES},
    }


def _score_json(score: Score) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(score).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
