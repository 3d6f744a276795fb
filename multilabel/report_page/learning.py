"""The chapter of the learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .. import charts, page
from ..charts import Mark, Series
from ..page import Section
from ..training import History
from .words import figures


def learning_chapter(history: History, fold_histories: Sequence[History]) -> Section | None:
    """The losses of the shipped model's training and of each fold's; `None` without a step."""
    if not history.training_loss:
        return None
    made = [(_history_chart(history), _history_caption(history))]
    if fold_histories:
        made += [
            (
                _folds_chart("Validation loss of each fold", fold_histories, _validation_loss),
                "Validation loss of the heads that were trained without a fold; it ended their training.",
            ),
            (
                _folds_chart("Training loss of each fold", fold_histories, _epoch_means),
                "Training loss of the same heads, the mean of each epoch.",
            ),
        ]
    body = page.note(
        "Loss is what training lowers. Where the validation loss rises while the training loss falls, the model learns "
        "its pictures by heart; where both still fall at the end, more epochs would help."
    )
    return Section("learning", "Learning curves", body + figures(*made))


def _history_chart(history: History) -> charts.Chart:
    loss, marks = np.array(history.training_loss), []
    series = [Series("training loss", np.arange(1, len(loss) + 1), loss)]
    if history.validation_loss:
        series.append(Series("validation loss", history.epoch_ends, history.validation_loss))
        best = history.best_epoch - 1
        marks = [Mark(history.epoch_ends[best], history.validation_loss[best], f"kept: epoch {history.best_epoch}")]
    return charts.line_chart("Loss in training", series, "training step", "loss", marks=marks)


def _history_caption(history: History) -> str:
    if history.validation_loss:
        return "Training loss of each step and validation loss of each epoch; the mark is the model that was kept."
    return (
        "Training loss of each step of the shipped model, which was trained on all pictures but the test part, for the "
        "median of the folds' best epochs."
    )


def _folds_chart(
    title: str, histories: Sequence[History], values: Callable[[History], Sequence[float]]
) -> charts.Chart:
    series = []
    for number, history in enumerate(histories, start=1):
        losses = values(history)
        series.append(Series(f"fold {number}", range(1, len(losses) + 1), losses))
    return charts.line_chart(title, series, "epoch", "loss")


def _validation_loss(history: History) -> Sequence[float]:
    return history.validation_loss


def _epoch_means(history: History) -> list[float]:
    steps = np.split(np.array(history.training_loss), history.epoch_ends)[: len(history.epoch_ends)]
    return [float(of_epoch.mean()) for of_epoch in steps]
