"""What a model gets right: each score beside its interval and chance level, and plain sentences on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .labels import UNKNOWN
from .metrics.single import (
    CLASS_SCORES,
    SCORES,
    chance_levels,
    class_chance_levels,
    class_intervals,
    class_scores,
    intervals,
    per_class,
    scores,
)
from .thresholds import Threshold, apply_thresholds

FEWEST_TO_JUDGE = 5  # labels of one class, below which intervals say hardly more than that there are few
FEW = 10  # labels of a class, below which a few other ones would change the scores much


@dataclass(frozen=True)
class Score:
    """A measured value, its 95% interval and its chance level; NaN where undefined."""

    value: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class AttributeScores:
    """The scores of one attribute and the number of known labels that they rest on.

    `p_value`: how often shuffled labels give as high an AUC; `None` if that was not tried. `by_luck`: the AUC that
    scores which say nothing reach in one of 40 cases, see `auc_by_luck`.
    """

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
    p_value: float | None = None
    by_luck: float = 0.5

    @property
    def can_be_judged(self) -> bool:
        """Whether each class has at least `FEWEST_TO_JUDGE` known labels."""
        return min(self.positives, self.negatives) >= FEWEST_TO_JUDGE

    @property
    def better_than_chance(self) -> bool:
        """Whether the interval of the AUC lies above 0.5, and luck does not reach it, with enough labels to rely on."""
        auc = self.roc_auc
        return self.can_be_judged and auc.low > auc.chance and auc.value > self.by_luck


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class of a tag and the number of known labels that they rest on; 0/0 is 0."""

    name: str
    known: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class TagScores:
    """The scores of one tag and the number of known labels that they rest on; `per_class` is ordered as `classes`."""

    tag: str
    known: int
    classes: tuple[str, ...]
    accuracy: Score
    macro_f1: Score
    top3_accuracy: Score
    per_class: tuple[ClassScores, ...]

    @property
    def occurring(self) -> int:
        """How many classes have a known label: those that count in `macro_f1`."""
        return sum(scores.known > 0 for scores in self.per_class)

    @property
    def most_common(self) -> ClassScores:
        """The class with the most known labels, the one that a model that ignores the picture best says."""
        return max(self.per_class, key=lambda scores: scores.known)

    @property
    def can_be_judged(self) -> bool:
        """Whether at least two classes have at least `FEWEST_TO_JUDGE` known labels."""
        return sum(scores.known >= FEWEST_TO_JUDGE for scores in self.per_class) >= 2

    @property
    def better_than_chance(self) -> bool:
        """Whether the interval of the accuracy lies above the share of the most common class, with enough labels."""
        return self.can_be_judged and self.accuracy.low > self.accuracy.chance


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one part of the pictures.

    Attributes:
        part: which pictures these are, such as `"validation part"`.
        pictures: their number.
        cells: number of labels of attributes and tags, known and unknown.
        known: number of known labels of attributes and tags.
        cross_fitted: whether each picture is called by thresholds that other folds of the same pictures chose; else the
            thresholds were settled without these pictures.
        scores: one entry per attribute.
        tags: one entry per tag.
        ended_training: whether the same pictures decided when to stop training.
    """

    part: str
    pictures: int
    cells: int
    known: int
    cross_fitted: bool
    scores: tuple[AttributeScores, ...]
    tags: tuple[TagScores, ...] = ()
    ended_training: bool = False

    @property
    def left_out(self) -> tuple[str, ...]:
        """The attributes without both classes, which do not count in `macro_f1`."""
        return tuple(score.attribute for score in self.scores if not (score.positives and score.negatives))

    @property
    def not_better_than_chance(self) -> tuple[str, ...]:
        """The attributes and tags with enough known labels to judge, and no better than a model that sees nothing."""
        attributes = [score.attribute for score in self.scores if score.can_be_judged and not score.better_than_chance]
        tags = [scores.tag for scores in self.tags if scores.can_be_judged and not scores.better_than_chance]
        return (*attributes, *tags)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the attributes with both classes; NaN if there are none."""
        values = [score.f1.value for score in self.scores if score.attribute not in self.left_out]
        return _mean(values)

    @property
    def mean_accuracy(self) -> float:
        """The mean accuracy of the tags with a known label; NaN if there are none."""
        return _mean([scores.accuracy.value for scores in self.tags if scores.known])

    def to_json(self) -> dict[str, Any]:
        """All of this for `metrics.json`, as plain dicts, lists and numbers; what is undefined is None."""
        return {
            "part": self.part,
            "pictures": self.pictures,
            "cells": self.cells,
            "known": self.known,
            "cross_fitted": self.cross_fitted,
            "ended_training": self.ended_training,
            "macro_f1": _number(self.macro_f1),
            "left_out_of_macro_f1": list(self.left_out),
            "mean_accuracy": _number(self.mean_accuracy),
            "not_better_than_chance": list(self.not_better_than_chance),
            "attributes": {score.attribute: _attribute_json(score, self.pictures) for score in self.scores},
            "tags": {scores.tag: _tag_json(scores, self.pictures) for scores in self.tags},
            "verdicts": verdicts(self),
        }

    def with_p_values(self, values: Sequence[float]) -> Evaluation:
        """The same with one p-value per attribute; NaN where there is none."""
        scored = [
            replace(scores, p_value=None if math.isnan(value) else value)
            for scores, value in zip(self.scores, values, strict=True)
        ]
        return replace(self, scores=tuple(scored))


def evaluate(
    y: NDArray,
    p: NDArray,
    names: Sequence[str],
    thresholds: Sequence[Threshold],
    *,
    present: NDArray | None = None,
    tags: Sequence[TagScores] = (),
    part: str,
    cross_fitted: bool = False,
    ended_training: bool = False,
    out_of_fold: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Measure probabilities against the known labels.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        p: probabilities, shape (n, attributes).
        names: of the attributes.
        thresholds: one per attribute. Their `spread` widens the intervals of cross-fitted calls.
        present: what was called present where the calls are cross-fitted (see `thresholds.cross_fit_thresholds`), shape
            (n, attributes); `None`: what has a probability greater than its threshold.
        tags: the scores of the tags on the same pictures (see `evaluate_tag`).
        part: which pictures these are, for the reader.
        cross_fitted: whether what these pictures settled was cross-fitted, as `present` is.
        ended_training: whether these same pictures decided when to stop training.
        out_of_fold: whether the model of each picture learnt from the other ones of these.
        draws: for the intervals of each attribute.
        seed: of the draws; the same for every attribute, so that intervals do not depend on other attributes.

    Returns:
        The scores of every attribute, on its known cells, and of every tag.

    Raises:
        DataError: the shapes do not fit together, or a probability of a known cell is NaN.
    """
    if y.ndim != 2 or y.shape != p.shape or not y.shape[1] == len(names) == len(thresholds):
        raise DataError(
            f"Labels of shape {y.shape}, probabilities of shape {p.shape}, {len(names)} names and "
            f"{len(thresholds)} thresholds do not fit: give (n, attributes) twice, then one per attribute."
        )
    if present is not None and present.shape != y.shape:
        raise DataError(
            f"Labels of shape {y.shape} and calls of shape {present.shape} do not fit: give (n, attributes) twice."
        )
    calls = apply_thresholds(p, thresholds) if present is None else present
    attributes = []
    columns = zip(names, thresholds, y.T, p.T, calls.T, strict=True)
    for name, threshold, labels, probabilities, called in columns:
        spread = None if present is None else threshold.spread or (threshold.value, threshold.value)
        values = scores(labels, probabilities, called)
        found = intervals(labels, probabilities, called, spread=spread, draws=draws, seed=seed)
        chance = chance_levels(labels, called)
        measured: dict[str, Any] = {key: Score(values[key], *found[key], chance[key]) for key in SCORES}
        known, positives = int(np.count_nonzero(labels != UNKNOWN)), int(np.count_nonzero(labels == 1))
        luck = auc_by_luck(positives, known - positives, out_of_fold)
        attributes.append(
            AttributeScores(name, known, positives, known - positives, threshold, **measured, by_luck=luck)
        )
    cells = y.size + len(y) * len(tags)
    all_known = int(np.count_nonzero(y != UNKNOWN)) + sum(tag.known for tag in tags)
    crossed = cross_fitted or present is not None
    return Evaluation(part, len(y), cells, all_known, crossed, tuple(attributes), tuple(tags), ended_training)


def auc_by_luck(positives: int, negatives: int, out_of_fold: bool = False) -> float:
    """The AUC that scores which say nothing of the labels exceed in one of 40 cases.

    Without ties its standard deviation is √((P + N + 1) / (12·P·N)) (Mann and Whitney 1947). Out of fold, it is taken
    √2 times as large: two pictures that happen to suggest each other's label count twice, once in each one's fold.

    Args:
        positives: number of positive labels, P.
        negatives: number of negative labels, N.
        out_of_fold: whether the model of each picture learnt from the other ones.

    Returns:
        0.5 + 1.96 standard deviations; 1 without both classes.
    """
    if not (positives and negatives):
        return 1.0
    deviation = math.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    return min(1.0, 0.5 + 1.959963984540054 * deviation * (math.sqrt(2) if out_of_fold else 1.0))


def evaluate_tag(
    y: NDArray, p: NDArray, tag_name: str, classes: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> TagScores:
    """Measure the probabilities of one tag against its known labels.

    Args:
        y: labels, shape (n,): class index or -1 (unknown).
        p: probabilities, shape (n, classes).
        tag_name: of the tag.
        classes: their names.
        draws: bootstrap resamples.
        seed: of the resampling.

    Returns:
        The scores of the tag and of each class, on its known cells.

    Raises:
        DataError: the shapes do not fit together, an index is not one of a class, or a probability of a known cell
            is NaN.
    """
    if p.shape[1:] != (len(classes),):
        raise DataError(
            f"{tag_name}: probabilities of shape {p.shape} and {len(classes)} classes do not fit: give (n, classes)."
        )
    values = class_scores(y, p)
    found = class_intervals(y, p, draws=draws, seed=seed)
    chance = class_chance_levels(y, len(classes))
    measured: dict[str, Any] = {key: Score(values[key], *found[key], chance[key]) for key in CLASS_SCORES}
    columns = [column.tolist() for column in per_class(y, p).values()]
    of_classes = tuple(ClassScores(*row) for row in zip(classes, *columns, strict=True))
    return TagScores(
        tag_name, sum(scores.known for scores in of_classes), tuple(classes), **measured, per_class=of_classes
    )


def verdicts(evaluation: Evaluation) -> list[str]:
    """What to know before trusting the model, in plain sentences; none when there is nothing to warn of.

    What is not better than chance comes first, then what rests on few labels, then what flatters.
    """
    part = evaluation.part
    of_attributes = [(scores.attribute, _attribute_verdict(scores, part)) for scores in evaluation.scores]
    of_tags = [(scores.tag, _tag_verdict(scores, part)) for scores in evaluation.tags]
    sentences = [(name in evaluation.not_better_than_chance, said) for name, said in of_attributes + of_tags if said]
    by_chance = [said for no_better, said in sentences if no_better]
    few = [said for no_better, said in sentences if not no_better]
    return by_chance + few + ([_flattery(evaluation)] if evaluation.ended_training else [])


def _flattery(evaluation: Evaluation) -> str:
    """What it means that the same pictures had a say in the model."""
    return f"The same pictures ({evaluation.part}) decided when to stop training: the scores are a little flattering."


def _attribute_verdict(score: AttributeScores, part: str) -> str | None:
    rarer, kind = min((score.positives, "positive"), (score.negatives, "negative"))
    if score.better_than_chance:
        if rarer >= FEW:
            return None
        return (
            f"{score.attribute} has only {rarer} {kind} labels in the {part}: "
            "a few other pictures could change its scores much."
        )
    if not score.known:
        return f"{score.attribute} cannot be judged: none of its labels in the {part} is known."
    if not score.can_be_judged:
        return (
            f"{score.attribute} cannot be judged: {rarer or 'none'} of its {score.known} known labels in the "
            f"{part} {'are' if rarer > 1 else 'is'} {kind}, and it takes at least {FEWEST_TO_JUDGE}."
        )
    auc = score.roc_auc
    if auc.low > auc.chance:
        return (
            f"{score.attribute} is not surely better than chance: its AUC is {auc.value:.2f}, and scores that say "
            f"nothing reach {score.by_luck:.2f} in one of 40 cases."
        )
    below = auc.high < auc.chance
    return (
        f"{score.attribute} is {'worse' if below else 'not better'} than chance: its AUC of {auc.value:.2f} "
        f"has the 95% interval {auc.low:.2f} to {auc.high:.2f}, which "
        f"{'lies below' if below else 'includes'} 0.5 (what a model that ignores the picture scores)."
    )


def _tag_verdict(scores: TagScores, part: str) -> str | None:
    if scores.better_than_chance:
        few, classes = sum(0 < of_class.known < FEW for of_class in scores.per_class), len(scores.classes)
        if not few:
            return None
        return (
            f"{scores.tag} has fewer than {FEW} known labels of {few} of its {classes} classes in the {part}: "
            "its true macro F1 may lie further away than the interval says."
        )
    if not scores.known:
        return f"{scores.tag} cannot be judged: none of its labels in the {part} is known."
    most = scores.most_common
    if not scores.can_be_judged:
        enough = f"only one of its classes ({most.name})" if most.known >= FEWEST_TO_JUDGE else "none of its classes"
        return (
            f"{scores.tag} cannot be judged: {enough} has at least {FEWEST_TO_JUDGE} known labels in the {part}, "
            "and it takes two."
        )
    accuracy = scores.accuracy
    below = accuracy.high < accuracy.chance
    return (
        f"{scores.tag} is {'worse' if below else 'not better'} than chance: its accuracy of {accuracy.value:.3f} "
        f"has the 95% interval {accuracy.low:.3f} to {accuracy.high:.3f}, which "
        f"{'lies below' if below else 'includes'} {accuracy.chance:.3f} (what always saying {most.name} scores)."
    )


def _attribute_json(score: AttributeScores, pictures: int) -> dict[str, Any]:
    return {
        "known": score.known,
        "cells": pictures,
        "positives": score.positives,
        "negatives": score.negatives,
        "better_than_chance": score.better_than_chance,
        "auc_by_luck": score.by_luck,
        "p_value": score.p_value,
        "threshold": _threshold_json(score.threshold),
        **{key: _score_json(getattr(score, key)) for key in SCORES},
    }


def _threshold_json(threshold: Threshold) -> dict[str, Any]:
    return {**asdict(threshold), "spread": None if threshold.spread is None else list(threshold.spread)}


def _tag_json(scores: TagScores, pictures: int) -> dict[str, Any]:
    return {
        "known": scores.known,
        "cells": pictures,
        "better_than_chance": scores.better_than_chance,
        **{key: _score_json(getattr(scores, key)) for key in CLASS_SCORES},
        "classes": {
            of_class.name: {
                "known": of_class.known,
                "precision": of_class.precision,
                "recall": of_class.recall,
                "f1": of_class.f1,
            }
            for of_class in scores.per_class
        },
    }


def _score_json(score: Score) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(score).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
