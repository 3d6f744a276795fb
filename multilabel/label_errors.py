"""Labels that look wrong, and labels for unknown cells: what out-of-fold probabilities say about the labels themselves.

The probabilities must come from a model that did not see the cell's own label, or they repeat it. The method is
confident learning (Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .labels import UNKNOWN, printable
from .metrics.single import known_cells, known_classes

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 10  # labels that a class needs to be judged, and to be suggested
PRECISION = 0.95  # share of right ones among known calls as sure as a suggestion

_CHANCE = 0.01  # a class whose separation chance reaches so often is taken as not separated
_SURE = 0.9  # quantile of the self-confidence that stands for a sure cell; the mean is lowered by the errors themselves
_Z = 1.959963984540054  # of Wilson's 95% interval


@dataclass(frozen=True, eq=False)
class Column:
    """The labels of an attribute or a tag and their out-of-fold probabilities.

    Attributes:
        name: of the attribute or tag.
        y: shape (n,): 1 or 0 of an attribute, class index of a tag, -1 unknown.
        p: probability that the attribute is present, shape (n,), or of each class of the tag, shape (n, C).
        classes: the C classes of a tag; `None` for an attribute.
    """

    name: str
    y: NDArray
    p: NDArray
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LabelIssue:
    """A known cell whose label looks wrong.

    Attributes:
        row: row of the cell in its column.
        column: name of the column.
        given: the label, `"1"` or `"0"` of an attribute, the class of a tag.
        suggested: the label that looks right.
        self_confidence: probability of `given`.
        suggested_probability: probability of `suggested`.
    """

    row: int
    column: str
    given: str
    suggested: str
    self_confidence: float
    suggested_probability: float


@dataclass(frozen=True)
class Suggestion:
    """An unknown cell whose label the model is sure about.

    Attributes:
        row: row of the cell in its column.
        column: name of the column.
        suggested: the label, `"1"` or `"0"` of an attribute, the class of a tag.
        probability: of `suggested`.
    """

    row: int
    column: str
    suggested: str
    probability: float


def label_issues(columns: Sequence[Column]) -> list[LabelIssue]:
    """The known cells whose labels look wrong, likeliest errors first.

    A class is as probable as usual where its probability reaches the mean that its own cells have. Listed is a cell
    for which another class is so, and more probable than the given one if that is so, too: the cells off the diagonal
    of the confident joint. They are ordered by their self-confidence, the probability of the given label, as a share
    of that of sure cells of the same label (the 90% quantile). Plain self-confidence would put all cells of a rare
    class first which the model hardly ever finds. Planted errors in drawn pictures with four attributes and in
    photographs with three tags made the choice: among the first, 83 and 88% were planted ones, against 83 and 70% in
    the order of plain self-confidence.

    Classes with fewer than `FEWEST` labels, and those that the model separates no better than chance (one-sided
    Mann-Whitney test at 1%), are neither doubted nor suggested.

    Args:
        columns: attributes and tags, with rows of the same pictures.

    Raises:
        DataError: what a column holds does not fit together, or a probability of a known cell is NaN.
    """
    found = [ranked for column in columns for ranked in _issues_of(column)]
    return [issue for _, issue in sorted(found, key=lambda ranked: (ranked[0], ranked[1].row))]


def suggested_labels(columns: Sequence[Column]) -> list[Suggestion]:
    """Labels for the unknown cells that the model is sure about, surest first.

    The likeliest class of a cell is its call. A call of a class is suggested where its probability reaches the lowest
    level at which the known cells of the column say: of the calls of this class that are at least as probable, the
    share of right ones is above 95%, and above the share that the class has anyway. Above means that Wilson's 95%
    interval of it is. A plain share of 95% would be too easily reached by chance at one of many levels: in simulations
    with 300 labels of a weak model 88% of what it suggests is right. As a price, a class needs at least 73 known calls.

    Nothing is suggested of the classes that `label_issues` does not judge.

    Args:
        columns: attributes and tags, with rows of the same pictures.

    Raises:
        DataError: what a column holds does not fit together, or a probability of a known cell is NaN.
    """
    found = [suggestion for column in columns for suggestion in _suggestions_of(column)]
    return sorted(found, key=lambda suggestion: (-suggestion.probability, suggestion.row))


def issues_table(issues: Sequence[LabelIssue], names: Sequence[str]) -> pd.DataFrame:
    """The rows of `label_issues.csv`.

    Args:
        issues: in order.
        names: what the picture of each row is called.
    """
    import pandas as pd

    rows = [
        (names[one.row], one.column, one.given, one.suggested, one.self_confidence, one.suggested_probability)
        for one in issues
    ]
    header = ["image", "column", "given", "suggested", "self_confidence", "suggested_probability"]
    return pd.DataFrame(rows, columns=header)


def suggestions_table(suggestions: Sequence[Suggestion], names: Sequence[str]) -> pd.DataFrame:
    """The rows of `suggested_labels.csv`.

    Args:
        suggestions: in order.
        names: what the picture of each row is called.
    """
    import pandas as pd

    rows = [(names[one.row], one.column, one.suggested, one.probability) for one in suggestions]
    return pd.DataFrame(rows, columns=["image", "column", "suggested", "suggested_probability"])


def _issues_of(column: Column) -> Iterator[tuple[float, LabelIssue]]:
    """Each with its place in the order: the lower, the likelier an error."""
    texts, p = _classes_of(column)
    known = np.flatnonzero(column.y != UNKNOWN)
    labels, p = column.y[known].astype(np.intp), p[known]
    judged = _judged(labels, p)
    usual, sure = np.full(len(texts), np.inf), np.full(len(texts), np.inf)
    for number in judged:
        of_class = np.sort(p[labels == number, number])  # sorted, so that the order of the rows changes no last bit
        usual[number], sure[number] = of_class.mean(), np.quantile(of_class, _SURE)
    as_usual = np.where(p >= usual, p, -1.0)
    suggested = as_usual.argmax(axis=1)
    listed = (as_usual.max(axis=1) >= 0) & (suggested != labels) & np.isin(labels, judged)
    errors = float(np.mean(p.argmax(axis=1) != labels))
    for cell in np.flatnonzero(listed):
        given, other = labels[cell], suggested[cell]
        own = float(p[cell, given])
        issue = LabelIssue(int(known[cell]), column.name, texts[given], texts[other], own, float(p[cell, other]))
        yield errors * own / max(float(sure[given]), np.finfo(np.float64).tiny), issue


def _suggestions_of(column: Column) -> Iterator[Suggestion]:
    texts, p = _classes_of(column)
    called, probability, known = p.argmax(axis=1), p.max(axis=1), column.y != UNKNOWN
    labels = column.y[known].astype(np.intp)
    for number in _judged(labels, p[known]):
        calls = called == number
        right = column.y[known & calls] == number
        level = _level(right, probability[known & calls], max(PRECISION, float(np.mean(labels == number))))
        for row in np.flatnonzero(~known & calls & (probability >= level)):
            yield Suggestion(int(row), column.name, texts[number], float(probability[row]))


def _level(right: NDArray[np.bool_], probability: NDArray[np.float64], share: float) -> float:
    """The lowest probability from which on the share of right calls is above `share`, infinite if there is none.

    Wilson's interval holds the shares that a score test does not reject, so its lower end is above `share` where
    hits − n·share > z·√(n·share·(1 − share)).
    """
    order = np.argsort(-probability)
    levels, right = probability[order], right[order]
    counts = np.arange(1, len(right) + 1)
    above = right.cumsum() - counts * share > _Z * np.sqrt(counts * share * (1 - share))
    whole = np.append(levels[1:] != levels[:-1], True)[: len(levels)]  # equal probabilities are called together
    return float(levels[above & whole].min(initial=np.inf))


def _judged(labels: NDArray[np.intp], p: NDArray[np.float64]) -> NDArray[np.intp]:
    """The classes with enough labels that the probabilities separate from the others better than chance."""
    from scipy.stats import mannwhitneyu

    counts = np.bincount(labels, minlength=p.shape[1])
    enough = np.flatnonzero((counts >= FEWEST) & (counts < len(labels)))
    separated = []
    for number in enough:
        own, others = p[labels == number, number], p[labels != number, number]
        # Without any spread the test has nothing to rank, and says so with a NaN.
        test = mannwhitneyu(own, others, alternative="greater", method="asymptotic")
        separated.append(bool(test.pvalue < _CHANCE))
    return enough[np.array(separated, bool)]


def _classes_of(column: Column) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The texts of the classes and their probabilities, (n, C); an attribute has the classes 0 and 1."""
    try:
        if column.classes is None:
            known_cells(column.y, column.p)
            p = column.p.astype(np.float64)
            return ("0", "1"), np.stack([1 - p, p], axis=1)
        known_classes(column.y, column.p)
    except DataError as error:
        raise DataError(f"{printable(column.name)}: {error}") from None
    if column.p.shape[1] != len(column.classes):
        raise DataError(
            f"{printable(column.name)}: probabilities of {column.p.shape[1]} classes do not fit the "
            f"{len(column.classes)} classes of the tag."
        )
    return column.classes, column.p.astype(np.float64)
