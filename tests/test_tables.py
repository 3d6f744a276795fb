"""The tables of a bundle, as rows and columns: what stands where, and what is blank."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multilabel.evaluation import evaluate, evaluate_tag
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import LabelTable, Tag
from multilabel.tables import HeldOut, history_table, predictions_table, write_tables
from multilabel.thresholds import Threshold
from multilabel.training import History

NAMES = ["a.jpg", "b.jpg", "sub/c d.jpg", "e.jpg"]
TABLE = LabelTable(
    tuple(f"/somewhere/{name}" for name in NAMES),
    np.array([[1, -1], [0, 1], [-1, -1], [1, 0]], np.int8),
    ("hat", "scarf"),
    tags=(Tag("colour", ("blue", "None", "red")), Tag("year", ("2011", "2012"))),
    tag_y=np.array([[2, 0], [-1, 1], [0, -1], [1, 1]], np.int16),
)
LOGIT = LogitHead(("hat", "scarf"), (1.0, 1.0), coverage=1.0, name="attributes")
COLOUR = SoftmaxHead("colour", ("blue", "None", "red"), name="tag1_colour")
YEAR = SoftmaxHead("year", ("2011", "2012"), name="tag2_year")
OF_VALIDATION = {
    "attributes": np.array([[0.9, 0.125], [0.5, 0.25]]),
    "tag1_colour": np.array([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]]),
    "tag2_year": np.array([[0.5, 0.5], [0.25, 0.75]]),
}
RAW = {name: np.full_like(p, 0.125) for name, p in OF_VALIDATION.items()}  # before calibration: not for the table
VALIDATION = HeldOut(
    "validation",
    np.array([3, 0]),
    OF_VALIDATION,
    RAW,
    folds=np.array([0, 4]),
    shipped=RAW,
    present=np.array([[True, False], [False, True]]),
)
OF_TEST = {
    "attributes": np.array([[0.0, 1.0]]),
    "tag1_colour": np.array([[1.0, 0.0, 0.0]]),
    "tag2_year": np.array([[1e-9, 1 - 1e-9]]),
}
TEST = HeldOut("test", np.array([2]), OF_TEST, OF_TEST, present=np.array([[False, True]]))
HISTORY = History(
    training_loss=[0.9, 0.7, 0.8, 0.5, 0.4, 0.3, 0.2],
    validation_loss=[0.75, 0.6, 0.65],
    validation_accuracy=[0.5, 0.75, 0.625],
    epoch_ends=[2, 4, 7],
    phase_ends=[1, 3],
    best_epoch=2,
)
HISTORY_COLUMNS = [
    "fold",
    "iteration_number",
    "epoch",
    "phase",
    "training_loss",
    "validation_loss",
    "validation_accuracy",
]
HISTORY_ROWS = [
    ["1", "1", "1", "0.9", "", ""],
    ["2", "1", "1", "0.7", "0.75", "0.5"],
    ["3", "2", "2", "0.8", "", ""],
    ["4", "2", "2", "0.5", "0.6", "0.75"],
    ["5", "3", "2", "0.4", "", ""],
    ["6", "3", "2", "0.3", "", ""],
    ["7", "3", "2", "0.2", "0.65", "0.625"],
]


def as_text(table: pd.DataFrame) -> list[list[str]]:
    """What the CSV file of a table holds."""
    return [line.split(",") for line in table.to_csv(index=False).splitlines()]


def test_predictions_of_attributes_and_tags() -> None:
    """Labels come from the rows that the part names, the rest in the part's own order; unknown and no fold are blank.

    Folds count from 1, and what is called present is told, not computed: at 0.5 the hat is, or is not.
    """
    header, *rows = as_text(predictions_table(TABLE, NAMES, [LOGIT, COLOUR, YEAR], [VALIDATION, TEST]))
    assert header == [
        "image",
        "part",
        "fold",
        "hat_label",
        "scarf_label",
        "hat_probability",
        "scarf_probability",
        "hat_present",
        "scarf_present",
        "colour_label",
        "colour_class",
        "colour_probability",
        "year_label",
        "year_class",
        "year_probability",
    ]
    assert rows == [
        ["e.jpg", "validation", "1", *"10", "0.9", "0.125", *"10", "None", "None", "0.5", "2012", "2011", "0.5"],
        ["a.jpg", "validation", "5", "1", "", "0.5", "0.25", *"01", "red", "red", "0.75", "2011", "2012", "0.75"],
        ["sub/c d.jpg", "test", "", "", "", "0.0", "1.0", *"01", "blue", "blue", "1.0", "", "2012", "0.999999999"],
    ]


@pytest.mark.parametrize(("heads", "first"), [([LOGIT], "hat_label"), ([COLOUR], "colour_label")])
def test_predictions_of_one_kind(heads: list[LogitHead | SoftmaxHead], first: str) -> None:
    header, *rows = as_text(predictions_table(TABLE, NAMES, heads, [VALIDATION]))
    assert header[:4] == ["image", "part", "fold", first]
    assert [row[0] for row in rows] == ["e.jpg", "a.jpg"]


def test_labels_stay_whole_numbers_beside_unknown_ones() -> None:
    table = predictions_table(TABLE, NAMES, [LOGIT], [VALIDATION, TEST])
    assert str(table["hat_label"].dtype) == str(table["scarf_label"].dtype) == "Int8"
    assert TABLE.y.tolist() == [[1, -1], [0, 1], [-1, -1], [1, 0]]  # the labels themselves are as they were


@given(st.data())
def test_the_likeliest_class_is_the_one_of_the_greatest_probability(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    weights = data.draw(st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=count, max_size=count))
    p = np.array(weights) / np.sum(weights, axis=1, keepdims=True)
    labels = data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
    images = tuple(map(str, range(count)))
    table = LabelTable(
        images, np.empty((count, 0), np.int8), (), tags=TABLE.tags[:1], tag_y=np.array(labels, np.int16)[:, np.newaxis]
    )
    rows = np.array(data.draw(st.permutations(range(count))))
    of_rows = {"tag1_colour": p[rows]}
    written = predictions_table(table, images, [COLOUR], [HeldOut("validation", rows, of_rows, of_rows)])
    for image, label, said, probability in written.drop(columns=["part", "fold"]).itertuples(index=False):
        row = int(image)
        assert pd.isna(label) if labels[row] < 0 else label == COLOUR.classes[labels[row]]
        assert said == max(zip(p[row], (0, -1, -2), COLOUR.classes, strict=True))[2]  # of equals, the first
        assert probability == p[row].max()


def test_history_has_a_row_for_each_iteration() -> None:
    """What was measured after an epoch stands in the row of its last iteration; epochs and phases count from 1."""
    header, *rows = as_text(history_table(HISTORY))
    assert header == HISTORY_COLUMNS
    assert rows == [["", *row] for row in HISTORY_ROWS]


def test_the_history_of_the_folds_comes_before_that_of_the_model() -> None:
    """The model that is kept learnt from all of the training part, so that nothing was left to measure."""
    alone = History(training_loss=[0.6, 0.1], epoch_ends=[1, 2], phase_ends=[2], best_epoch=2)
    short = History([0.5], [0.25], [1.0], [1], [1], 1)
    _, *rows = as_text(history_table(alone, [HISTORY, short]))
    assert rows == [
        *(["1", *row] for row in HISTORY_ROWS),
        ["2", "1", "1", "1", "0.5", "0.25", "1.0"],
        ["", "1", "1", "1", "0.6", "", ""],
        ["", "2", "2", "1", "0.1", "", ""],
    ]


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=2))
def test_history_of_any_lengths(phases: list[list[int]]) -> None:
    """Each phase is a list of epochs, each epoch a number of iterations."""
    epochs = [iterations for phase in phases for iterations in phase]
    history = History(
        [0.5] * sum(epochs),
        [float(number) for number in range(len(epochs))],
        [0.25] * len(epochs),
        np.cumsum(epochs).tolist(),
        np.cumsum([len(phase) for phase in phases]).tolist(),
        1,
    )
    table = history_table(history)
    expected = [
        (phase_number, epoch)
        for epoch, (phase_number, iterations) in enumerate(
            ((number, iterations) for number, phase in enumerate(phases, start=1) for iterations in phase), start=1
        )
        for _ in range(iterations)
    ]
    assert list(zip(table["phase"], table["epoch"], strict=True)) == expected
    assert table["validation_loss"].dropna().tolist() == history.validation_loss
    last = table.groupby("epoch")["iteration_number"].max()
    assert table["iteration_number"][table["validation_loss"].notna()].tolist() == last.tolist()


def test_all_tables_are_written(tmp_path: Path) -> None:
    """UTF-8, no NaN in JSON, and what was left out with its reason, commas and all."""
    tag = evaluate_tag(np.array([0, 1, -1]), np.full((3, 2), 0.5), "Größe", ("klein", "groß"), draws=10)
    evaluation = evaluate(
        np.array([[-1], [-1], [-1]], np.int8),
        np.full((3, 1), 0.5),
        ("hat",),
        [Threshold(0.5, "default", 0)],
        tags=[tag],
        part="validation part",
        draws=10,
    )
    predictions = predictions_table(TABLE, NAMES, [LOGIT, COLOUR, YEAR], [VALIDATION, TEST])
    skipped = [("gone.jpg", "no such file"), ("café, au lait.jpg", 'not a "picture"')]
    write_tables(tmp_path, [evaluation], history_table(HISTORY), predictions, skipped)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "skipped.csv",
    ]
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Größe" in text
    (part,) = json.loads(text)["parts"]
    assert part == evaluation.to_json()
    assert part["attributes"]["hat"]["roc_auc"]["value"] is None
    assert pd.read_csv(tmp_path / "skipped.csv").to_numpy().tolist() == [list(row) for row in skipped]
    assert (tmp_path / "history.csv").read_text() == history_table(HISTORY).to_csv(index=False)
    assert (tmp_path / "predictions.csv").read_text() == predictions.to_csv(index=False)


def test_nothing_left_out_is_a_header_alone(tmp_path: Path) -> None:
    write_tables(tmp_path, [], history_table(HISTORY), predictions_table(TABLE, NAMES, [YEAR], [VALIDATION]), [])
    assert (tmp_path / "skipped.csv").read_text() == "image,reason\n"
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"parts": []}
