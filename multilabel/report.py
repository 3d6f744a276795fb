"""What people look at: the table in the terminal and the loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .evaluation import AttributeScores, Evaluation, Score, TagScores
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
_CHANGE_WIDTH = 16
_TAG_COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro F1", "top3_accuracy": "top 3"}
_TAG_WIDTH = 13
_TAG_DECIMALS = 3  # of many pictures, which make a difference of 0.01 a large one
_P_VALUE = ["p-value"]
_MARKS = {"shared": "*", "default": "**"}


def score_table(evaluation: Evaluation) -> str:
    """The scores of every attribute, then of every tag as text, each above its 95% interval and its chance level."""
    lines = [_measured_on(evaluation)]
    if evaluation.scores:
        lines += ["", *_attribute_table(evaluation)]
    if evaluation.tags:
        lines += ["", *_tag_table(evaluation)]
    return "\n".join(lines)


def change_table(before: Evaluation, after: Evaluation) -> str:
    """The thresholds of two evaluations of the same attributes, and what depends on them, before and after."""
    name_width = max([9, *(len(scores.attribute) for scores in before.scores)])
    lines = [f"{'attribute':<{name_width}}  " + _row(["threshold", "precision", "recall", "F1"], _CHANGE_WIDTH)]
    for old, new in zip(before.scores, after.scores, strict=True):
        changes = [f"{old.threshold.value:.3f} -> {new.threshold.value:.3f}"]
        for name in ("precision", "recall", "f1"):
            values = (_number(getattr(scores, name).value) for scores in (old, new))
            changes.append(" -> ".join(values))
        lines.append(f"{old.attribute:<{name_width}}  " + _row(changes, _CHANGE_WIDTH))
    return "\n".join(lines)


def _measured_on(evaluation: Evaluation) -> str:
    spread = any(scores.threshold.spread for scores in evaluation.scores)
    return (
        f"Measured on the {evaluation.part}: {evaluation.pictures:,} pictures, "
        f"{evaluation.known:,} of {evaluation.cells:,} labels known.\n"
        f"Below each score: its 95% interval, and what chance scores."
        f"{' Below each threshold: its range over the folds.' if spread else ''}"
    )


def _attribute_table(evaluation: Evaluation) -> list[str]:
    name_width = max([9, *(len(scores.attribute) for scores in evaluation.scores)])
    tested = any(scores.p_value is not None for scores in evaluation.scores)
    known = f"{'known':>{_known_width(evaluation)}}"
    header = f"{'attribute':<{name_width}}  {known}  {'positives':>9}  {'threshold':>11}  {'':<8}"
    lines = [header + _row([*_COLUMNS.values(), *_P_VALUE[:tested]])]
    for scores in evaluation.scores:
        threshold = f"{scores.threshold.value:.3f}{_MARKS.get(scores.threshold.source, '')}"
        known = _known(scores, evaluation)
        lead = f"{scores.attribute:<{name_width}}  {known}  {scores.positives:>9}  {threshold:>11}  "
        spread = "" if scores.threshold.spread is None else "{:.3f}-{:.3f}  ".format(*scores.threshold.spread)
        rows = _score_rows([getattr(scores, name) for name in _COLUMNS])
        rows[0] += _row([_p_value(scores.p_value)] * tested)
        lines += _beside([lead, f"{spread:>{len(lead)}}", ""], rows)
    lines += ["", _macro(evaluation)]
    sources = {scores.threshold.source for scores in evaluation.scores}
    if "shared" in sources:
        lines.append(
            "*  the threshold that suits all attributes together: wanted so, or for want of its own positives."
        )
    if "default" in sources:
        lines.append("** no positives to choose a threshold by: 0.5.")
    return lines


def _known_width(evaluation: Evaluation) -> int:
    return max(6, 2 * len(str(evaluation.pictures)) + 1)


def _known(scores: AttributeScores | TagScores, evaluation: Evaluation) -> str:
    """How many labels of a column are known, out of how many."""
    return f"{f'{scores.known}/{evaluation.pictures}':>{_known_width(evaluation)}}"


def _p_value(value: float | None) -> str:
    return "n/a" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _macro(evaluation: Evaluation) -> str:
    judged = len(evaluation.scores) - len(evaluation.left_out)
    left_out = f"; left out, for want of one class: {', '.join(evaluation.left_out)}" if evaluation.left_out else ""
    over = f"{judged} of {len(evaluation.scores)} attributes"
    return f"Macro F1 {_number(evaluation.macro_f1)}, the mean over {over}{left_out}."


def _tag_table(evaluation: Evaluation) -> list[str]:
    name_width = max([9, *(len(scores.tag) for scores in evaluation.tags)])
    header = f"{'tag':<{name_width}}  {'known':>{_known_width(evaluation)}}  {'classes':>10}  {'':<8}"
    lines = [header + _row(list(_TAG_COLUMNS.values()), _TAG_WIDTH)]
    for scores in evaluation.tags:
        lead = f"{scores.tag:<{name_width}}  {_known(scores, evaluation)}  {_classes(scores):>10}  "
        rows = _score_rows([getattr(scores, name) for name in _TAG_COLUMNS], _TAG_WIDTH, _TAG_DECIMALS)
        lines += _beside([lead, "", ""], rows)
    return [*lines, "", _mean_accuracy(evaluation)]


def _classes(scores: TagScores) -> str:
    """Their number, beside that of those which occur and so count in the macro F1."""
    count = len(scores.classes)
    return str(count) if scores.occurring == count else f"{scores.occurring} of {count}"


def _mean_accuracy(evaluation: Evaluation) -> str:
    unknown = [scores.tag for scores in evaluation.tags if not scores.known]
    left_out = f"; left out, for want of known labels: {', '.join(unknown)}" if unknown else ""
    judged = len(evaluation.tags) - len(unknown)
    over = f"{judged} tag{'' if judged == 1 else 's'}"
    return f"Mean accuracy {_number(evaluation.mean_accuracy, _TAG_DECIMALS)}, the mean over {over}{left_out}."


def _score_rows(columns: Sequence[Score], width: int = _WIDTH, decimals: int = 2) -> list[str]:
    """The scores in columns of a width; below them the intervals and the chance levels."""
    return [
        f"{'score':<8}" + _row([_number(score.value, decimals) for score in columns], width),
        f"{'95%':<8}" + _row([_interval(score, decimals) for score in columns], width),
        f"{'chance':<8}" + _row([_number(score.chance, decimals) for score in columns], width),
    ]


def _beside(leads: Sequence[str], rows: Sequence[str]) -> list[str]:
    """Rows to the right of what leads them, all as far to the right as the first."""
    return [f"{lead:<{len(leads[0])}}{row}" for lead, row in zip(leads, rows, strict=True)]


def _row(cells: Sequence[str], width: int = _WIDTH) -> str:
    return "".join(f"{cell:>{width}}" for cell in cells)


def _interval(score: Score, decimals: int) -> str:
    return "n/a" if math.isnan(score.low) else f"{_number(score.low, decimals)}-{_number(score.high, decimals)}"


def _number(value: float, decimals: int = 2) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{decimals}f}"


def loss_curve(history: History, title: str, path: Path, folds: Sequence[History] = ()) -> None:
    """Writes `loss_figure` as a PNG."""
    loss_figure(history, title, folds).savefig(path)


def loss_figure(history: History, title: str, folds: Sequence[History] = ()) -> Figure:
    """Draws training loss per iteration and validation loss per epoch on the same axes.

    A dotted line stands where fine-tuning, the second phase, begins.

    Args:
        history: of a training with at least one epoch.
        title: taken literally, whatever characters it holds.
        folds: histories of the trainings for each fold; those alone have a validation loss then.
    """
    from matplotlib.figure import Figure  # slow to import, and needed here alone

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    iterations = range(1, len(history.training_loss) + 1)
    axes.plot(iterations, history.training_loss, ".-", markersize=3, linewidth=0.6, alpha=0.7, label="training loss")
    if history.validation_loss:
        axes.plot(history.epoch_ends, history.validation_loss, "o-", markersize=4, label="validation loss")
    for number, fold in enumerate(folds):
        label = f"validation loss of the {len(folds)} folds" if number == 0 else None
        axes.plot(fold.epoch_ends, fold.validation_loss, "o-", color="C1", markersize=3, linewidth=0.8, label=label)
    axes.axvline(
        history.epoch_ends[history.best_epoch - 1],
        color="grey",
        linestyle="--",
        linewidth=1,
        label=f"weights kept (epoch {history.best_epoch})",
    )
    if history.phase_ends and 0 < history.phase_ends[0] < len(history.epoch_ends):
        last_before = history.epoch_ends[history.phase_ends[0] - 1]
        axes.axvline(last_before + 0.5, color="black", linestyle=":", linewidth=1, label="fine-tuning")
    # A run's name comes from people and folders: "$" begins no formula, and not all that a folder is called is UTF-8.
    axes.set_title(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    axes.set(xlabel="iteration_number", ylabel="training_loss")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure
