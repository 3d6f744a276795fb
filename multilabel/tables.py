"""What `fit` writes down as tables: predictions, history, scores and what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .evaluation import Evaluation
from .heads import Head, SoftmaxHead
from .labels import UNKNOWN, LabelTable
from .training import History


@dataclass(frozen=True)
class HeldOut:
    """A part of the pictures that was held out.

    Attributes:
        name: `"validation"` or `"test"`.
        rows: which rows of the label table it holds.
        p: probabilities by head name, rows in the order of `rows`.
    """

    name: str
    rows: np.ndarray
    p: Mapping[str, np.ndarray]


def write_tables(
    folder: Path,
    evaluations: Sequence[Evaluation],
    history: History,
    predictions: pd.DataFrame,
    skipped: Sequence[tuple[str, str]],
) -> None:
    """Writes `metrics.json`, `predictions.csv`, `history.csv` and `skipped.csv`."""
    metrics = {"parts": [evaluation.to_json() for evaluation in evaluations]}
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    predictions.to_csv(folder / "predictions.csv", index=False)
    history_table(history).to_csv(folder / "history.csv", index=False)
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
    return pd.DataFrame(columns)


def history_table(history: History) -> pd.DataFrame:
    """One row per iteration; the last of each epoch also holds what was measured on the validation part."""
    table = pd.DataFrame({"iteration_number": range(1, len(history.training_loss) + 1)})
    table["epoch"] = np.searchsorted(history.epoch_ends, table["iteration_number"]) + 1
    table["phase"] = np.searchsorted(history.phase_ends, table["epoch"]) + 1
    table["training_loss"] = history.training_loss
    for name in ("validation_loss", "validation_accuracy"):
        of_epochs = dict(zip(history.epoch_ends, getattr(history, name), strict=True))
        table[name] = table["iteration_number"].map(of_epochs)
    return table
