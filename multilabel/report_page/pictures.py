"""The chapters of pictures: right, wrong and uncertain ones, and labels to check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import page
from ..label_errors import LabelIssue, Suggestion
from ..page import GridPicture, Section
from .cells import AttributeCells, Gallery, TagCells
from .words import OPEN, capital, count, details, heading, presence

_ISSUES, _SUGGESTIONS = 50, 20  # so many label errors and suggestions are shown
_PER_GRID = 5
_IN_GRIDS = 320  # pictures in all grids of right and wrong ones together, so that the page stays small


def pictures_chapter(cells: Sequence[AttributeCells | TagCells], gallery: Gallery) -> Section | None:
    """Some pictures of each attribute and tag; `None` without a known label."""
    measured = [one for one in cells if len(one.y)]
    if not measured:
        return None
    each = min(_PER_GRID, max(1, _IN_GRIDS // (3 * len(measured))))
    shown = measured[: _IN_GRIDS // (3 * each)]
    body = [
        page.note(
            "Held-out pictures with a known label: those the model is surest of and right, those it is surest of and "
            "wrong, and those it is least sure of. Look at the wrong ones first: the label may be what is wrong. The "
            "number is the probability of being present, or of the class. The shipped threshold decides."
        )
    ]
    if len(shown) < len(measured):
        body.append(page.note(f"Shown for the first {len(shown)} of {len(measured)} attributes and tags."))
    for one in shown:
        wrong = np.count_nonzero(~one.right)
        summary = f"{one.name}: {wrong:,} of {len(one.y):,} wrong"
        body.append(details(summary, _grids(one, each, gallery), opened=len(shown) <= OPEN))
    return Section("pictures", "Right, wrong and uncertain pictures", "".join(body))


def _grids(one: AttributeCells | TagCells, each: int, gallery: Gallery) -> str:
    sureness, right = one.sureness, one.right
    chosen = {
        "surest and wrong": _surest(np.flatnonzero(~right), sureness, each),
        "least sure": np.argsort(sureness, kind="stable")[:each],
        "surest and right": _surest_of_each_class(one.y, np.flatnonzero(right), sureness, each),
    }
    return "".join(
        page.picture_grid([_grid_picture(one, cell, gallery) for cell in cells.tolist()], f"{one.name}: {caption}")
        if len(cells)
        else page.note(f"{capital(caption)}: none.")
        for caption, cells in chosen.items()
    )


def _surest(cells: NDArray, sureness: NDArray, count: int) -> NDArray:
    return cells[np.argsort(-sureness[cells], kind="stable")[:count]]


def _surest_of_each_class(y: NDArray, cells: NDArray, sureness: NDArray, count: int) -> NDArray:
    """The surest cells, taken from the classes in turn: otherwise all would be of the easiest class."""
    order = _surest(cells, sureness, len(cells))
    taken: dict[int, int] = {}
    turns = []
    for label in y[order].tolist():
        turns.append(taken.get(label, 0))
        taken[label] = turns[-1] + 1
    return order[np.argsort(turns, kind="stable")[:count]]


def _grid_picture(one: AttributeCells | TagCells, cell: int, gallery: Gallery) -> GridPicture:
    return gallery.picture(int(one.rows[cell]), one.lines(cell), "right" if one.right[cell] else "wrong")


def labels_chapter(
    issues: Sequence[LabelIssue], suggestions: Sequence[Suggestion], gallery: Gallery, attributes: Sequence[str]
) -> Section:
    """Known labels that are likely wrong, and unknown ones of which the model is sure."""
    shown, suggested = issues[:_ISSUES], suggestions[:_SUGGESTIONS]
    body = page.note(
        "Labels that are likely wrong: the model, which was not trained on these pictures, is sure of something else. "
        "In brackets: how likely each is. Look at each before you change it; the model may be what is wrong."
    )
    if issues:
        body += page.note(
            f"{count(len(issues), 'label')} found, the likeliest {len(shown)} shown; "
            "all are in label_issues.csv beside this page."
        )
        body += page.picture_grid(
            [_issue_picture(issue, gallery, attributes) for issue in shown], "Labels that are likely wrong"
        )
    else:
        body += page.note("None found.")
    body += heading("Suggestions for unknown labels")
    if suggestions:
        body += page.note(
            f"{count(len(suggestions), 'unknown label')} of which the model is sure, the surest "
            f"{len(suggested)} shown; all are in suggested_labels.csv beside this page."
        )
        grid = [_suggestion_picture(suggestion, gallery, attributes) for suggestion in suggested]
        body += page.picture_grid(grid, "Suggestions for unknown labels")
    else:
        body += page.note("None: no label is unknown, or the model is not sure enough of any.")
    return Section("labels", "Labels to check", body)


def _issue_picture(issue: LabelIssue, gallery: Gallery, attributes: Sequence[str]) -> GridPicture:
    given, suggested = (_label(label, issue.column in attributes) for label in (issue.given, issue.suggested))
    lines = [
        f"{issue.column}: labelled {given} ({issue.self_confidence:.2f})",
        f"model: {suggested} ({issue.suggested_probability:.2f})",
    ]
    return gallery.picture(issue.row, lines)


def _suggestion_picture(suggestion: Suggestion, gallery: Gallery, attributes: Sequence[str]) -> GridPicture:
    label = _label(suggestion.suggested, suggestion.column in attributes)
    return gallery.picture(suggestion.row, [f"{suggestion.column}: {label} ({suggestion.probability:.2f})"])


def _label(label: str, of_attribute: bool) -> str:
    return presence(label == "1") if of_attribute else label
