"""The chapter of the tags: their classes, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from .. import charts, page
from ..page import Section
from .cells import TagCells
from .words import OPEN, TAG_DECIMALS, count, details, number

_CONFUSIONS = 20


def tags_chapter(tags: Sequence[TagCells]) -> Section | None:
    """Classes and confusions of each tag; `None` without a tag."""
    if not tags:
        return None
    body = [
        page.note(
            "How well each class is told, and what it is taken for. A row of a confusion matrix is the class of the "
            "label, a column what the model says: what is right lies on the diagonal. Classes run from the most to "
            "the least frequent."
        )
    ]
    for tag in tags:
        scored = tag.scores
        summary = (
            f"{tag.name}: accuracy {number(scored.accuracy.value, TAG_DECIMALS)} over "
            f"{count(len(scored.classes), 'class', 'classes')}"
        )
        body.append(details(summary, _tag_details(tag), opened=len(tags) <= OPEN))
    return Section("tags", "Tags and their classes", "".join(body))


def _tag_details(tag: TagCells) -> str:
    by_frequency = sorted(tag.scores.per_class, key=lambda of_class: -of_class.known)
    rows = [
        [one.name, f"{one.known:,}", *(f"{value:.3f}" for value in (one.precision, one.recall, one.f1))]
        for one in by_frequency
    ]
    classes = page.table(["class", "known", "precision", "recall", "F1"], rows, f"{tag.name}: classes")
    if not len(tag.y):
        return classes
    matrix = confusion_matrix(tag.y, tag.called, labels=range(len(tag.scores.classes)))
    return _confusion_figure(tag, matrix) + _confusion_table(tag, matrix) + classes


def _confusion_figure(tag: TagCells, matrix: NDArray) -> str:
    order = np.argsort(-matrix.sum(axis=1), kind="stable")
    order = order[(matrix + matrix.T).sum(axis=1)[order] > 0]
    names = [tag.scores.classes[index] for index in order]
    chart = charts.heatmap(
        f"{tag.name}: confusion matrix",
        names,
        names,
        matrix[np.ix_(order, order)],
        row_title="labelled",
        column_title="model says",
    )
    absent = len(matrix) - len(order)
    left_out = f" {count(absent, 'class', 'classes')} neither labelled nor said left out." if absent else ""
    return page.figure(chart, f"The darker a cell, the larger its share of its row.{left_out}")


def _confusion_table(tag: TagCells, matrix: NDArray) -> str:
    wrong = matrix - np.diag(matrix.diagonal())
    pairs = np.count_nonzero(wrong)
    if not pairs:
        return page.note("No class is taken for another.")
    most = np.argsort(-wrong, axis=None, kind="stable")[: min(_CONFUSIONS, pairs)]
    names, rows = tag.scores.classes, []
    for labelled, said in zip(*np.unravel_index(most, wrong.shape), strict=True):
        mistakes = wrong[labelled, said]
        share = mistakes / matrix[labelled].sum()
        rows.append([names[labelled], names[said], f"{mistakes:,}", f"{share:.1%}"])
    header = ["labelled", "model says", "pictures", "share of those labelled so"]
    return page.table(header, rows, f"{tag.name}: the {len(rows)} most frequent of {pairs:,} confusions")
