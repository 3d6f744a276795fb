"""The known held-out cells that the chapters look into, and the pictures they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .. import page
from ..calibration import confidence
from ..evaluation import AttributeScores, Evaluation, TagScores
from ..heads import Head, LogitHead, SoftmaxHead
from ..held_out import HeldOut
from ..labels import UNKNOWN, LabelTable
from ..page import GridPicture, Kind
from ..thresholds import Threshold
from .words import presence

_SIDE = 96  # of a thumbnail, in pixels


@dataclass(frozen=True, eq=False)
class AttributeCells:
    """An attribute's known held-out cells, m of them.

    Attributes:
        name: its name.
        rows: of the label table (m,).
        y: labels (m,), 1 or 0.
        p: probabilities (m,).
        raw: probabilities before calibration (m,).
        scores: as evaluated.
        threshold: as shipped.
    """

    name: str
    rows: NDArray
    y: NDArray
    p: NDArray
    raw: NDArray
    scores: AttributeScores
    threshold: float

    @property
    def calibrated(self) -> bool:
        """Whether calibration changed anything."""
        return not np.array_equal(self.raw, self.p)

    @property
    def has_both(self) -> bool:
        """Whether there are known 1s and known 0s."""
        return bool(self.y.any() and not self.y.all())

    @property
    def called(self) -> NDArray[np.bool_]:
        """What is called present."""
        return self.p > np.float64(self.threshold)  # a plain number would be rounded to the precision of p

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the label is what the threshold says."""
        return self.called == (self.y == 1)

    @property
    def sureness(self) -> NDArray[np.float64]:
        """How far probabilities are from the threshold, as a share of the way to 0 or 1."""
        room = np.where(self.called, 1 - self.threshold, self.threshold)
        return np.abs(self.p - self.threshold) / np.maximum(room, 1e-9)

    @property
    def events(self) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
        """Labels and probabilities before and after calibration."""
        return (self.y, self.raw), (self.y, self.p)

    def lines(self, cell: int) -> tuple[str, str]:
        """What a cell is labelled, and what the model says."""
        says = presence(self.called[cell])
        return f"labelled {presence(self.y[cell])}", f"model: {says} ({self.p[cell]:.2f})"


@dataclass(frozen=True, eq=False)
class TagCells:
    """A tag's known held-out cells, m of them.

    Attributes:
        name: its name.
        rows: of the label table (m,).
        y: class indices (m,).
        p: probabilities (m, classes).
        raw: probabilities before calibration (m, classes).
        scores: as evaluated.
    """

    name: str
    rows: NDArray
    y: NDArray
    p: NDArray
    raw: NDArray
    scores: TagScores

    @property
    def calibrated(self) -> bool:
        """Whether calibration changed anything."""
        return not np.array_equal(self.raw, self.p)

    @cached_property
    def called(self) -> NDArray[np.intp]:
        """The likeliest class of each cell."""
        return self.p.argmax(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Where the label is the likeliest class."""
        return self.called == self.y

    @property
    def sureness(self) -> NDArray[np.float64]:
        """By how much the likeliest class is likelier than the second."""
        second, first = np.partition(self.p, -2, axis=1)[:, -2:].T
        return first - second

    @property
    def events(self) -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
        """Whether the likeliest class is right, and its probability, before and after calibration."""
        return confidence(self.y, self.raw), confidence(self.y, self.p)

    def lines(self, cell: int) -> tuple[str, str]:
        """What a cell is labelled, and what the model says."""
        classes, called = self.scores.classes, self.called[cell]
        return f"labelled {classes[self.y[cell]]}", f"model: {classes[called]} ({self.p[cell, called]:.2f})"


class Gallery:
    """Small pictures by row of the label table, each read once.

    Args:
        images: their files.
        names: what people call them.
    """

    def __init__(self, images: Sequence[str], names: Sequence[str]) -> None:
        self._images = images
        self._names = names
        self._made: dict[str, str | None] = {}

    def picture(self, row: int, lines: Sequence[str], kind: Kind = "neutral") -> GridPicture:
        """The picture of a row, with lines below it."""
        image = self._images[row]
        if image not in self._made:
            self._made[image] = page.thumbnail(image, side=_SIDE)
        return GridPicture(self._made[image], self._names[row], lines, kind)


def attribute_cells(
    evaluation: Evaluation, part: HeldOut, table: LabelTable, heads: Sequence[Head], thresholds: Sequence[Threshold]
) -> list[AttributeCells]:
    """The cells of each attribute of a part."""
    found = []
    columns = [(head.name, column) for head in heads if isinstance(head, LogitHead) for column in range(head.units)]
    measured = zip(evaluation.scores, thresholds, columns, table.y[part.rows].T, strict=True)
    for scored, threshold, (name, column), y in measured:
        known = y != UNKNOWN
        p, raw = part.p[name][known, column], part.raw[name][known, column]
        found.append(AttributeCells(scored.attribute, part.rows[known], y[known], p, raw, scored, threshold.value))
    return found


def tag_cells(evaluation: Evaluation, part: HeldOut, table: LabelTable, heads: Sequence[Head]) -> list[TagCells]:
    """The cells of each tag of a part."""
    found = []
    of_tags = [head for head in heads if isinstance(head, SoftmaxHead)]
    for scored, head in zip(evaluation.tags, of_tags, strict=True):
        y = head.targets(table)[part.rows].astype(np.intp)
        known = y != UNKNOWN
        p, raw = part.p[head.name][known], part.raw[head.name][known]
        found.append(TagCells(scored.tag, part.rows[known], y[known], p, raw, scored))
    return found
