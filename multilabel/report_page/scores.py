"""The chapter of the scores: the evaluations' own figures as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from .. import charts, page
from ..evaluation import AttributeScores, Evaluation, Score, TagScores
from ..page import Section
from .words import TAG_DECIMALS, capital, count, heading, listed, number

_ATTRIBUTE_SCORES = {  # what says most comes first: a table of them is wide
    "roc_auc": "AUC",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "AP",
}
_TAG_SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1", "top3_accuracy": "top 3"}


def scores_chapter(evaluations: Sequence[Evaluation]) -> Section:
    """The scores of each part."""
    body = [
        page.note(
            "Each score stands beside its 95% interval, within which the true value most likely lies, and beside what "
            "chance scores: a model that ignores the picture. A score is good news only where its whole interval is "
            "above chance. AP (average precision) and AUC look at the order of the pictures and need no threshold."
        )
    ]
    several = len(evaluations) > 1
    for evaluation in evaluations:
        body += [heading(capital(evaluation.part)) if several else "", *_score_tables(evaluation)]
    return Section("scores", "Scores", "".join(body))


def _score_tables(evaluation: Evaluation) -> Iterator[str]:
    measured = f"{evaluation.part}, {count(evaluation.pictures, 'picture')}"
    if evaluation.scores:
        yield _attribute_bars(evaluation)
        yield page.table(*_attribute_rows(evaluation), f"Attributes ({measured})")
        yield page.note(_macro(evaluation))
        yield _threshold_notes(evaluation)
    if evaluation.tags:
        yield page.table(*_tag_rows(evaluation), f"Tags ({measured})")
        yield page.note(_mean_accuracy(evaluation))


def _attribute_bars(evaluation: Evaluation) -> str:
    measured = [scored for scored in evaluation.scores if not math.isnan(scored.roc_auc.value)]
    if len(measured) < 2:
        return ""
    measured.sort(key=lambda scored: -scored.roc_auc.value)
    chart = charts.bar_chart(
        f"AUC of the attributes, {evaluation.part}",
        [scored.attribute for scored in measured],
        [scored.roc_auc.value for scored in measured],
        errors=[(scored.roc_auc.low, scored.roc_auc.high) for scored in measured],
        chance=0.5,
        value_format="{:.2f}",
    )
    return page.figure(
        chart, "AUC of each attribute with its 95% interval, the best first; a model that ignores the picture has 0.5."
    )


def _attribute_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    tested = any(scored.p_value is not None for scored in evaluation.scores)
    header = [
        "attribute",
        "better than chance?",
        "known",
        "positives",
        "threshold",
        "its spread",
        *_score_header(_ATTRIBUTE_SCORES),
    ]
    rows = []
    for scored in evaluation.scores:
        threshold = scored.threshold
        spread = "–" if threshold.spread is None else "{:.3f}–{:.3f}".format(*threshold.spread)
        counts = [f"{scored.known:,}/{evaluation.pictures:,}", f"{scored.positives:,}"]
        cells = [scored.attribute, _verdict(scored), *counts, f"{threshold.value:.3f}", spread]
        cells += _score_cells(scored, _ATTRIBUTE_SCORES, 2)
        rows.append(cells + [_p_value(scored.p_value)] * tested)
    return header + ["p-value"] * tested, rows


def _tag_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    header = ["tag", "better than chance?", "known", "classes", *_score_header(_TAG_SCORES)]
    rows = []
    for scored in evaluation.tags:
        counts = [f"{scored.known:,}/{evaluation.pictures:,}", f"{scored.occurring}/{len(scored.classes)}"]
        cells = [scored.tag, _verdict(scored), *counts]
        rows.append(cells + _score_cells(scored, _TAG_SCORES, TAG_DECIMALS))
    return header, rows


def _p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(scored: AttributeScores | TagScores) -> str:
    if not scored.can_be_judged:
        return "too few labels"
    return "yes" if scored.better_than_chance else "no"


def _score_header(names: Mapping[str, str]) -> list[str]:
    return [f"{name}{column}" for name in names.values() for column in (" (95%)", " by chance")]


def _score_cells(scored: AttributeScores | TagScores, names: Mapping[str, str], decimals: int) -> list[str]:
    cells = []
    for key in names:
        score: Score = getattr(scored, key)
        interval = "" if math.isnan(score.low) else f" ({score.low:.{decimals}f}–{score.high:.{decimals}f})"
        cells += [number(score.value, decimals) + interval, number(score.chance, decimals)]
    return cells


def _macro(evaluation: Evaluation) -> str:
    judged, left_out = len(evaluation.scores) - len(evaluation.left_out), evaluation.left_out
    without = f"; left out, for want of one class: {listed(left_out)}" if left_out else ""
    over = f"the mean over {judged} of {count(len(evaluation.scores), 'attribute')}"
    return f"Macro F1 {number(evaluation.macro_f1)}, {over}{without}."


def _mean_accuracy(evaluation: Evaluation) -> str:
    unknown = [scored.tag for scored in evaluation.tags if not scored.known]
    without = f"; left out, for want of known labels: {listed(unknown)}" if unknown else ""
    over = f"the mean over {count(len(evaluation.tags) - len(unknown), 'tag')}"
    return f"Mean accuracy {number(evaluation.mean_accuracy, TAG_DECIMALS)}, {over}{without}."


def _threshold_notes(evaluation: Evaluation) -> str:
    """How thresholds came to be, where that needs saying."""
    meaning = {
        "shared": "too few positives to tune a threshold on, so it is the one that suits all attributes together",
        "default": "no positives to choose a threshold by, so it is 0.5",
        "given": "threshold given by a person",
        "precision": "threshold chosen for its precision",
    }
    told = []
    for source, words in meaning.items():
        names = [scored.attribute for scored in evaluation.scores if scored.threshold.source == source]
        told += [f"{listed(names)}: {words}."] if names else []
    if evaluation.cross_fitted:
        told.append(
            "Precision, recall and F1 are cross-fitted: no picture is called by a threshold that its own label helped "
            "to choose. The spread is that of the folds' thresholds."
        )
    return "".join(map(page.note, told))
