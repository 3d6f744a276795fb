"""What `fit` writes down as tables: predictions, history, scores and what was left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .evaluation import Evaluation
from .heads import Head, SoftmaxHead
from .held_out import HeldOut
from .labels import UNKNOWN, LabelTable
from .training import History


def write_tables(
    folder: Path,
    evaluations: Sequence[Evaluation],
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Writes `metrics.json`, `predictions.csv`, `history.csv` and `skipped.csv`."""
    metrics = {"parts": [evaluation.to_json() for evaluation in evaluations]}
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    predictions.to_csv(folder / "predictions.csv", index=False)
    history.to_csv(folder / "history.csv", index=False)
    pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(folder / "skipped.csv", index=False)


def predictions_table(
    table: LabelTable, names: Sequence[str], heads: Sequence[Head], parts: Sequence[HeldOut]
) -> pd.DataFrame:
    """One row per held-out picture: labels (blank: unknown), probabilities, and the likeliest class of each tag.

    Args:
        table: the labels.
        names: the pictures as the labels file calls them.
        heads: whose predictions the parts hold.
        parts: the parts, in order.
    """
    return pd.concat([_of_part(table, names, heads, part) for part in parts])


def _of_part(table: LabelTable, names: Sequence[str], heads: Sequence[Head], part: HeldOut) -> pd.DataFrame:
    columns: dict[str, object] = {"image": [names[row] for row in part.rows], "part": part.name}
    folds = [None] * len(part.rows) if part.folds is None else (part.folds + 1).tolist()
    columns["fold"] = pd.array(folds, dtype=pd.Int64Dtype())
    for head in heads:
        labels, p = head.targets(table)[part.rows], part.p[head.name]
        if isinstance(head, SoftmaxHead):
            class_names = np.array([*head.classes, None], dtype=object)  # unknown, -1, is the last one
            columns[f"{head.tag}_label"] = class_names[labels]
            columns[f"{head.tag}_class"] = class_names[p.argmax(axis=1)]
            columns[f"{head.tag}_probability"] = p.max(axis=1)
            continue
        for name, column in zip(head.attributes, labels.T, strict=True):
            columns[f"{name}_label"] = pd.arrays.IntegerArray(column.copy(), column == UNKNOWN)
        for name, column in zip(head.attributes, p.T, strict=True):
            columns[f"{name}_probability"] = column
        if part.present is not None:
            for name, column in zip(head.attributes, part.present.T, strict=True):
                columns[f"{name}_present"] = column.astype(int)
    return pd.DataFrame(columns)


def history_table(history: History, folds: Sequence[History] = ()) -> pd.DataFrame:
    """One row per iteration; the last of each epoch also holds what was measured on the validation part.

    Args:
        history: of the model that is kept; its rows come last, and their fold is blank.
        folds: of the training for each fold.
    """
    tables = [_history_of(one, number) for number, one in enumerate(folds, start=1)]
    return pd.concat([*tables, _history_of(history, None)], ignore_index=True)


def _history_of(history: History, fold: int | None) -> pd.DataFrame:
    iterations = len(history.training_loss)
    table = pd.DataFrame({"fold": pd.array([fold] * iterations, dtype=pd.Int64Dtype())})
    table["iteration_number"] = range(1, iterations + 1)
    table["epoch"] = np.searchsorted(history.epoch_ends, table["iteration_number"]) + 1
    table["phase"] = np.searchsorted(history.phase_ends, table["epoch"]) + 1
    table["training_loss"] = history.training_loss
    for name in ("validation_loss", "validation_accuracy"):
        measured = getattr(history, name)
        of_epochs = dict(zip(history.epoch_ends[: len(measured)], measured, strict=True))
        table[name] = table["iteration_number"].map(of_epochs).astype(float)
    return table
