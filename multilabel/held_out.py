"""Pictures that were held out, what the heads say of them, and what is settled on them: the calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from .calibration import AttributeCalibration, TagCalibration, calibrate_attribute, calibrate_tag
from .evaluation import Evaluation, evaluate, evaluate_tag
from .heads import Head, SoftmaxHead
from .label_errors import Column, LabelIssue, Suggestion, label_issues, suggested_labels
from .labels import LabelTable
from .thresholds import Threshold

ATTRIBUTES = "attributes"  # the name of the head over all of them
Calibrations = Mapping[str, tuple[AttributeCalibration, ...] | TagCalibration]


@dataclass(frozen=True)
class HeldOut:
    """A part of the pictures that the heads did not learn from.

    Attributes:
        name: `"out-of-fold"`, `"validation"` or `"test"`.
        rows: which rows of the label table it holds.
        p: probabilities by head name, rows in the order of `rows`. Where these pictures settled the calibration, those
            of a fold are calibrated by the other folds.
        raw: the same as the heads gave them, before calibration.
        folds: the fold of each picture, shape (m,), by which calibration and thresholds are cross-fitted; `None` where
            these pictures settle nothing.
        shipped: probabilities by the calibration that is kept, which all pictures settled.
        calibrations: by head name, what was found for each attribute, or for the tag; empty where it was not wanted.
        present: which attributes are called present, shape (m, attributes): those of a fold by thresholds that the
            other folds chose; `None` until thresholds are chosen.
    """

    name: str
    rows: np.ndarray
    p: Mapping[str, np.ndarray]
    raw: Mapping[str, np.ndarray]
    folds: np.ndarray | None = None
    shipped: Mapping[str, np.ndarray] = field(default_factory=dict)
    calibrations: Calibrations = field(default_factory=dict)
    present: np.ndarray | None = None

    @property
    def dealt(self) -> np.ndarray:
        """`folds`, which must be there."""
        if self.folds is None:
            raise ValueError(f"The {self.name} part settles nothing, so it has no folds.")
        return self.folds

    @classmethod
    def calibrated(
        cls,
        name: str,
        rows: np.ndarray,
        logits: Mapping[str, np.ndarray],
        folds: np.ndarray,
        heads: Sequence[Head],
        table: LabelTable,
        *,
        calibrate: bool = True,
    ) -> HeldOut:
        """The part with probabilities from logits, calibrated where the held-out log loss gains by it.

        Args:
            name: of the part.
            rows: its rows of the table.
            logits: by head name, in the order of `rows`.
            folds: of each row.
            heads: the heads.
            table: the labels.
            calibrate: whether that is wanted.
        """
        raw = {head.name: head.to_probs(logits[head.name]) for head in heads}
        if not calibrate:
            return cls(name, rows, raw, raw, folds, raw)
        p, shipped = {}, {}
        calibrations: dict[str, tuple[AttributeCalibration, ...] | TagCalibration] = {}
        for head in heads:
            y, z = head.targets(table)[rows], np.asarray(logits[head.name], np.float64)
            if isinstance(head, SoftmaxHead):
                of_tag = calibrate_tag(y, z, folds)
                calibrations[head.name], held_out, kept = of_tag, of_tag.held_out, of_tag.shipped.logits(z)
            else:
                columns = tuple(
                    calibrate_attribute(labels, column, folds, weight)
                    for labels, column, weight in zip(y.T, z.T, head.pos_weight, strict=True)
                )
                calibrations[head.name] = columns
                held_out = np.stack([column.held_out for column in columns], axis=1)
                kept = np.stack([found.shipped.logits(column) for found, column in zip(columns, z.T, strict=True)], 1)
            p[head.name], shipped[head.name] = head.to_probs(held_out), head.to_probs(kept)
        return cls(name, rows, p, raw, folds, shipped, calibrations)

    def evaluation(
        self, heads: Sequence[Head], table: LabelTable, thresholds: Sequence[Threshold], title: str, seed: int
    ) -> Evaluation:
        """The scores of all attributes and tags on these pictures.

        Args:
            heads: the heads.
            table: the labels, of all pictures.
            thresholds: one per attribute; where there are folds, `present` says what they called.
            title: what the scores say they are of.
            seed: of the draws behind the intervals.
        """
        y = table.y[self.rows]
        tags = [
            evaluate_tag(head.targets(table)[self.rows], self.p[head.name], head.tag, head.classes, seed=seed)
            for head in heads
            if isinstance(head, SoftmaxHead)
        ]
        return evaluate(
            y,
            self.p.get(ATTRIBUTES, np.empty(y.shape)),
            table.names,
            thresholds,
            present=None if self.folds is None else self.present,  # without folds by the thresholds alone
            tags=tags,
            part=title,
            cross_fitted=self.folds is not None,
            ended_training=self.name == "validation",
            out_of_fold=self.name == "out-of-fold",
            seed=seed,
        )


def bake(calibrations: Calibrations, model: keras.Model) -> None:
    """Puts the calibration into the heads' weights, so that whatever runs the model gives calibrated logits."""
    for name, found in calibrations.items():
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        if isinstance(found, tuple):
            slope, intercept = np.transpose([(one.shipped.slope, one.shipped.intercept) for one in found])
            layer.set_weights([kernel * slope, bias * slope + intercept])
        else:
            layer.set_weights([kernel / found.shipped.value, bias / found.shipped.value])


def calibration_config(calibrations: Calibrations, heads: Sequence[Head]) -> dict[str, Any]:
    """What the bundle says of the calibration: by attribute and tag its kind, numbers and log loss before and after."""
    described: dict[str, Any] = {}
    for head in heads:
        found = calibrations.get(head.name, ())
        names = (head.tag,) if isinstance(head, SoftmaxHead) else head.attributes
        scalings: Sequence[AttributeCalibration | TagCalibration] = found if isinstance(found, tuple) else (found,)
        for name, one in zip(names, scalings, strict=False):  # there are none where calibration was not wanted
            described[name] = {
                "kind": one.kind,
                **one.shipped.get_config(),
                "log_loss_before": _number(one.before),
                "log_loss_after": _number(one.after),
            }
    return described


def contradicted(heads: Sequence[Head], table: LabelTable, part: HeldOut) -> tuple[list[LabelIssue], list[Suggestion]]:
    """Known labels that the heads contradict, and unknown ones that they are sure of; `row` is one of the table."""
    columns = []
    for head in heads:
        y, p = head.targets(table)[part.rows], part.p[head.name]
        if isinstance(head, SoftmaxHead):
            columns.append(Column(head.tag, y, p, head.classes))
        else:
            columns += [Column(name, *of_it) for name, *of_it in zip(head.attributes, y.T, p.T, strict=True)]
    issues = [replace(issue, row=int(part.rows[issue.row])) for issue in label_issues(columns)]
    return issues, [replace(one, row=int(part.rows[one.row])) for one in suggested_labels(columns)]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
