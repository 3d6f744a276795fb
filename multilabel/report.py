"""What people look at: the table in the terminal and the loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .evaluation import AttributeScores, Evaluation, Score
from .training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "average_precision": "AP",
    "roc_auc": "AUC",
}
_WIDTH = 10
_MARKS = {"shared": "*", "default": "**"}


def score_table(evaluation: Evaluation) -> str:
    """The scores of every attribute as text, each above its 95% interval and its chance level."""
    name_width = max([9, *(len(scores.attribute) for scores in evaluation.scores)])
    header = f"{'attribute':<{name_width}}  {'known':>6}  {'positives':>9}  {'threshold':>9}  {'':<8}"
    lines = [_measured_on(evaluation), "", header + _row(list(_COLUMNS.values()))]
    for scores in evaluation.scores:
        lines += _attribute_lines(scores, name_width)
    lines += ["", _macro(evaluation)]
    sources = {scores.threshold.source for scores in evaluation.scores}
    if "shared" in sources:
        lines.append("*  too few positives for a threshold of its own: the one that suits all attributes together.")
    if "default" in sources:
        lines.append("** no positives to choose a threshold by: 0.5.")
    return "\n".join(lines)


def _measured_on(evaluation: Evaluation) -> str:
    return (
        f"Measured on the {evaluation.part}: {evaluation.pictures:,} pictures, "
        f"{evaluation.known:,} of {evaluation.cells:,} labels known.\n"
        "Below each score: its 95% interval, and what chance scores."
    )


def _macro(evaluation: Evaluation) -> str:
    judged = len(evaluation.scores) - len(evaluation.left_out)
    left_out = f"; left out, for want of one class: {', '.join(evaluation.left_out)}" if evaluation.left_out else ""
    over = f"{judged} of {len(evaluation.scores)} attributes"
    return f"Macro F1 {_number(evaluation.macro_f1)}, the mean over {over}{left_out}."


def _attribute_lines(scores: AttributeScores, name_width: int) -> list[str]:
    columns: list[Score] = [getattr(scores, name) for name in _COLUMNS]
    mark = _MARKS.get(scores.threshold.source, "")
    lead = (
        f"{scores.attribute:<{name_width}}  {scores.known:>6}  {scores.positives:>9}  "
        f"{f'{scores.threshold.value:.3f}{mark}':>9}  "
    )
    blank = " " * len(lead)
    return [
        f"{lead}{'score':<8}" + _row([_number(score.value) for score in columns]),
        f"{blank}{'95%':<8}" + _row([_interval(score) for score in columns]),
        f"{blank}{'chance':<8}" + _row([_number(score.chance) for score in columns]),
    ]


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _interval(score: Score) -> str:
    return "n/a" if math.isnan(score.low) else f"{_number(score.low)}-{_number(score.high)}"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def loss_curve(history: History, title: str, path: Path) -> None:
    """Writes `loss_figure` as a PNG."""
    loss_figure(history, title).savefig(path)


def loss_figure(history: History, title: str) -> Figure:
    """Draws training loss per iteration and validation loss per epoch on the same axes.

    Args:
        history: of a training with at least one epoch.
        title: taken literally, whatever characters it holds.
    """
    from matplotlib.figure import Figure  # slow to import, and needed here alone

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    iterations = range(1, len(history.training_loss) + 1)
    axes.plot(iterations, history.training_loss, ".-", markersize=3, linewidth=0.6, alpha=0.7, label="training loss")
    axes.plot(history.epoch_ends, history.validation_loss, "o-", markersize=4, label="validation loss")
    axes.axvline(
        history.epoch_ends[history.best_epoch - 1],
        color="grey",
        linestyle="--",
        linewidth=1,
        label=f"weights kept (epoch {history.best_epoch})",
    )
    # A run's name comes from people and folders: "$" begins no formula, and not all that a folder is called is UTF-8.
    axes.set_title(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    axes.set(xlabel="iteration_number", ylabel="training_loss")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
