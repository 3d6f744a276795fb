"""`report.html`: what a model gets right, and what to look at, as one page that needs nothing else.

All figures are of held-out pictures and their known labels. Those of the scores are the evaluations' own; curves,
reliability, confusions and the choice of pictures are computed here from the same probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import page
from ..evaluation import AttributeScores, Evaluation, TagScores, verdicts
from ..heads import Head
from ..held_out import HeldOut
from ..label_errors import LabelIssue, Suggestion
from ..labels import LabelTable
from ..page import Section
from ..thresholds import Threshold
from ..training import History
from .cells import Gallery, attribute_cells, tag_cells
from .classes import tags_chapter
from .curves import calibration_chapter, curves_chapter
from .learning import learning_chapter
from .pictures import labels_chapter, pictures_chapter
from .scores import scores_chapter
from .words import TAG_DECIMALS, bullets, capital, count, details, listed, mean, number, paragraph

_SENTENCES = 8  # so many warnings stand in the open
_HOW = {
    "out-of-fold": "each by heads that were trained without it",
    "validation": "on which the heads were not trained; they only decided when to stop",
    "test": "which had no part in making the model",
}


@dataclass(frozen=True, eq=False)
class Report:
    """What the page tells of.

    Attributes:
        run_name: the run's name.
        evaluations: of the out-of-fold or validation pictures, and of the test part if there is one.
        held_out: the pictures of each evaluation with their probabilities, in the same order.
        table: the labels, with the pictures' files.
        names: the pictures as the labels file calls them, row by row.
        heads: the model's heads.
        thresholds: one per attribute, as shipped.
        history: how the shipped model's training went; without validation losses where folds measured it.
        fold_histories: how the training of each fold went.
        issues: labels that are likely wrong, the likeliest first.
        suggestions: unknown labels that the model is sure of, the surest first.
        provenance: where the model came from: versions, data, settings.
    """

    run_name: str
    evaluations: Sequence[Evaluation]
    held_out: Sequence[HeldOut]
    table: LabelTable
    names: Sequence[str]
    heads: Sequence[Head]
    thresholds: Sequence[Threshold]
    history: History
    fold_histories: Sequence[History] = ()
    issues: Sequence[LabelIssue] = ()
    suggestions: Sequence[Suggestion] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_report(path: Path, report: Report) -> None:
    """Writes the page.

    Args:
        path: of the file, which is replaced if it is there.
        report: what the page tells of.

    Raises:
        MultilabelError: the file cannot be written.
    """
    page.write(path, render(report))


def render(report: Report) -> str:
    """The page as text of HTML; chapters without content, such as the tags' without a tag, are left out."""
    main, part = report.evaluations[0], report.held_out[0]
    attributes = attribute_cells(main, part, report.table, report.heads, report.thresholds)
    tags = tag_cells(main, part, report.table, report.heads)
    gallery = Gallery(report.table.images, report.names)
    chapters = [
        scores_chapter(report.evaluations),
        curves_chapter(attributes),
        calibration_chapter([*attributes, *tags]),
        tags_chapter(tags),
        learning_chapter(report.history, report.fold_histories),
        pictures_chapter([*attributes, *tags], gallery),
        labels_chapter(report.issues, report.suggestions, gallery, report.table.names),
        _provenance_chapter(report.provenance),
    ]
    return page.page(f"{report.run_name}: report", _lead(report), [chapter for chapter in chapters if chapter])


def _lead(report: Report) -> str:
    return paragraph(_summary(report)) + _warnings(report) + paragraph(_coverage(report.evaluations[0]))


def _summary(report: Report) -> str:
    main, part = report.evaluations[0], report.held_out[0].name
    told = []
    if main.scores:
        judged = [scored.f1.chance for scored in main.scores if scored.attribute not in main.left_out]
        told.append(f"macro F1 {number(main.macro_f1)} (chance {number(mean(judged))})")
    if main.tags:
        chance = mean([scored.accuracy.chance for scored in main.tags if scored.known])
        told.append(f"mean accuracy {number(main.mean_accuracy, TAG_DECIMALS)} (chance {number(chance, TAG_DECIMALS)})")
    settings = report.provenance.get("settings") or {}
    backbone = settings.get("backbone")
    kinds = [(len(main.scores), "attribute"), (len(main.tags), "tag")]
    what = " and ".join(count(many, kind) for many, kind in kinds if many)
    how = f", {_HOW[part]}" if part in _HOW else ""
    network = f"Heads on a {backbone} network" if backbone else "A network"
    return (
        f"{network} for {what}, measured on the {main.part} ({count(main.pictures, 'picture')}{how}): "
        f"{', '.join(told)}."
    )


def _warnings(report: Report) -> str:
    """Which attributes and tags are no better than chance, then all there is to know before trusting the model."""
    main = report.evaluations[0]
    every: list[AttributeScores | TagScores] = [*main.scores, *main.tags]
    doubtful = [_name_of(scored) for scored in every if not scored.better_than_chance]
    sentences = verdicts(main)
    for evaluation in report.evaluations[1:]:
        sentences += [f"{capital(evaluation.part)}: {sentence}" for sentence in verdicts(evaluation)]
    headline = paragraph(f"Better than chance: {listed([_name_of(scored) for scored in every])}.")
    if doubtful:
        kinds = " and ".join(["attributes"] * bool(main.scores) + ["tags"] * bool(main.tags))
        of_all = f"{len(doubtful)} of {len(every)} {kinds}" if len(every) > 1 else "it"
        verb = "is" if len(doubtful) == 1 else "are"
        headline = page.warning(
            f"Do not rely on {listed(doubtful)}: {of_all} {verb} not better than chance, or cannot be judged."
        )
    more = sentences[_SENTENCES:]
    hidden = details(f"{count(len(more), 'more sentence')} of this kind", bullets(more)) if more else ""
    return headline + (bullets(sentences[:_SENTENCES]) if sentences else "") + hidden


def _name_of(scored: AttributeScores | TagScores) -> str:
    return scored.attribute if isinstance(scored, AttributeScores) else scored.tag


def _coverage(evaluation: Evaluation) -> str:
    share = evaluation.known / evaluation.cells if evaluation.cells else 0.0
    return (
        f"{evaluation.known:,} of {evaluation.cells:,} labels of these pictures are known ({share:.1%}); "
        "no score counts the others."
    )


def _provenance_chapter(provenance: Mapping[str, Any]) -> Section:
    rows = list(_flattened(provenance))
    body = page.note("Versions, settings and the digest of the data: what it takes to make the same model again.")
    table = page.table(["what", "value"], rows, "How the model was made")
    return Section("provenance", "How it was made", body + details(count(len(rows), "entry", "entries"), table))


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", _plain(value)]


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None or value == {} else str(value)
