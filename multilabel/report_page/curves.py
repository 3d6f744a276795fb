"""The chapters of curves: what other thresholds would give, and whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from .. import charts, page
from ..calibration import reliability
from ..charts import Mark, Series
from ..metrics.masked import expected_calibration_error
from ..metrics.single import scores
from ..page import Section
from .cells import AttributeCells, TagCells
from .words import OPEN, details, figures, listed, number, side_by_side

_POINTS = 2500  # of all attributes' curves of one kind together
_BINS = 10  # of reliability diagrams and calibration errors


def curves_chapter(attributes: Sequence[AttributeCells]) -> Section | None:
    """Precision, recall and F1 of other thresholds; `None` without an attribute."""
    if not attributes:
        return None
    body = [
        page.note(
            "What other thresholds would give. Precision is how many of the pictures called present are, recall how "
            "many of those present are called so. The further up and to the right a precision-recall curve runs, or "
            "up and to the left an ROC curve, the better; on the dashed line is chance. The mark is the shipped "
            "threshold; where these same pictures chose it, what it gives here is a little flattering, and the scores "
            "above are to be relied on. The attribute with the lowest AUC comes first."
        )
    ]
    drawn = sorted((one for one in attributes if one.has_both), key=lambda one: one.scores.roc_auc.value)
    points = min(200, max(30, _POINTS // max(1, len(drawn))))
    for attribute in drawn:
        summary = (
            f"{attribute.name}: AUC {number(attribute.scores.roc_auc.value)}, "
            f"AP {number(attribute.scores.average_precision.value)}"
        )
        body.append(details(summary, _curves_of(attribute, points), opened=len(drawn) <= OPEN))
    lacking = [attribute.name for attribute in attributes if not attribute.has_both]
    if lacking:
        body.append(page.note(f"No curves for want of one class among the known labels: {listed(lacking)}."))
    return Section("curves", "Precision, recall and thresholds", "".join(body))


def _curves_of(attribute: AttributeCells, points: int) -> str:
    name, y, p, threshold = attribute.name, attribute.y, attribute.p, attribute.threshold
    precision, recall, _ = precision_recall_curve(y, p)
    false, true, _ = roc_curve(y, p)
    chosen = scores(y, p, attribute.called)
    false_here = float(attribute.called[y == 0].mean())
    share = float(y.mean())
    label = f"threshold {threshold:.3f}"
    unit = (0.0, 1.0)
    return figures(
        (
            charts.line_chart(
                f"{name}: precision against recall",
                # From high to low recall: the precision of each point holds down to the next, as AP counts it.
                [
                    Series("model", recall, np.append(precision[:-1], precision[-2]), "step"),
                    Series("chance", unit, (share, share), dashed=True),
                ],
                "recall",
                "precision",
                xlim=unit,
                ylim=unit,
                marks=[Mark(chosen["recall"], chosen["precision"], label)],
                max_points=points,
            ),
            f"AP {number(chosen['average_precision'])}, chance {number(share)}.",
        ),
        (
            charts.line_chart(
                f"{name}: ROC curve",
                [Series("model", false, true), Series("chance", unit, unit, dashed=True)],
                "share of absent ones called present",
                "recall",
                xlim=unit,
                ylim=unit,
                marks=[Mark(false_here, chosen["recall"], label)],
                max_points=points,
            ),
            f"AUC {number(chosen['roc_auc'])}, chance 0.50.",
        ),
        (
            charts.line_chart(
                f"{name}: scores by threshold",
                scores_by_threshold(y, p),
                "threshold",
                "score",
                xlim=unit,
                ylim=unit,
                marks=[Mark(threshold, chosen["f1"], label)],
                max_points=points,
            ),
            f"At {threshold:.3f}: precision {number(chosen['precision'])}, recall "
            f"{number(chosen['recall'])}, F1 {number(chosen['f1'])}.",
        ),
    )


def scores_by_threshold(y: NDArray, p: NDArray) -> list[Series]:
    """Precision, recall and F1 as steps, each from a threshold on.

    scikit-learn's are those of calling present what is at least as probable as a cut; we call present what is more
    probable than the threshold, so they hold from the cut before.

    Args:
        y: labels (n,), 1 and 0, at least one 1.
        p: probabilities (n,).
    """
    precision, recall, cuts = precision_recall_curve(y, p)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    precision[-1] = np.nan  # nothing is called present
    named = {"precision": precision, "recall": recall, "F1": f1}
    return [Series(name, np.append(0.0, cuts), values, "step") for name, values in named.items()]


def calibration_chapter(cells: Sequence[AttributeCells | TagCells]) -> Section | None:
    """Reliability before and after calibration; `None` without a known label."""
    measured = [one for one in cells if len(one.y)]
    if not measured:
        return None
    rows, figures = [], []
    for one in measured:
        before, after = (_calibration_error(*event) for event in one.events)
        rows.append([one.name, f"{len(one.y):,}", f"{before:.3f}", f"{after:.3f}"])
        error = f"{before:.3f} before, {after:.3f} after" if one.calibrated else f"{before:.3f}, left as it was"
        summary = f"{one.name}: calibration error {error}"
        figures.append(details(summary, _reliability_of(one), opened=len(measured) <= OPEN))
    body = page.note(
        "Whether probabilities can be taken at their word: of the pictures called 70% likely, 70% should be so. The "
        f"calibration error is the mean distance from that over {_BINS} bins of probabilities: 0 is perfect. Of "
        "attributes it is the probability of being present; of tags that of the likeliest class, which should be how "
        "often it is right. Calibration is left out where it brings nothing: then it is the same before and after."
    )
    table = page.table(
        ["attribute or tag", "known", "before calibration", "after calibration"], rows, "Calibration errors"
    )
    return Section("calibration", "Calibration", body + table + "".join(figures))


def _calibration_error(y: NDArray, p: NDArray) -> float:
    return float(expected_calibration_error(y, p, bins=_BINS, average="micro"))


def _reliability_of(one: AttributeCells | TagCells) -> str:
    before, after = (reliability(y, p, bins=_BINS) for y, p in one.events)
    first, last = ("before", "after") if one.calibrated else ("without", "without")
    chart = charts.line_chart(
        f"{one.name}: reliability",
        [
            *([Series("after calibration", after.predicted, after.observed)] if one.calibrated else []),
            Series(f"{first} calibration", before.predicted, before.observed),
            Series("perfect", (0, 1), (0, 1), dashed=True),
        ],
        "predicted probability",
        "share that is so",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    bins = zip(after.predicted, after.observed, after.low, after.high, after.counts, strict=True)
    rows = [[f"{p:.3f}", f"{share:.3f}", f"{low:.3f}–{high:.3f}", f"{count:,}"] for p, share, low, high, count in bins]
    header = ["predicted", "observed", "observed, 95%", "known labels"]
    return side_by_side(
        page.figure(chart, "Below the diagonal the model is too sure, above it not sure enough."),
        page.table(header, rows, f"{one.name}: bins {last} calibration"),
    )
