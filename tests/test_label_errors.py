"""Planted label errors are found first, unknown cells are never listed, and suggestions keep what they promise."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from multilabel.errors import DataError
from multilabel.label_errors import (
    FEWEST,
    Column,
    LabelIssue,
    Suggestion,
    issues_table,
    label_issues,
    suggested_labels,
    suggestions_table,
)
from multilabel.metrics.single import wilson


def out_of_fold(x, y, seed):
    """Probabilities of the known cells, (n, classes), from models that did not see them; NaN of the unknown ones."""
    known, classes = y != -1, int(y.max()) + 1
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    folds = StratifiedKFold(10, shuffle=True, random_state=seed)
    p = np.full((len(y), classes), np.nan)
    p[known] = cross_val_predict(model, x[known], y[known], cv=folds, method="predict_proba")
    return p


def plant(y, classes, rng, share=0.05):
    """Labels of which `share` of the known ones are moved to another class, and where that is; both (n, columns)."""
    y, planted = y.copy(), np.zeros(y.shape, bool)
    rows, columns = np.nonzero(y != -1)
    for cell in rng.choice(len(rows), round(share * len(rows)), replace=False):
        row, column = rows[cell], columns[cell]
        y[row, column] = (y[row, column] + rng.integers(1, classes[column])) % classes[column]
        planted[row, column] = True
    return y, planted


def columns_of(y, p):
    """Columns called 0, 1, ..., attributes where there are two classes."""
    return [
        Column(str(number), labels, of[:, 1])
        if of.shape[1] == 2
        else Column(str(number), labels, of, tuple(f"class {c}" for c in range(of.shape[1])))
        for number, (labels, of) in enumerate(zip(y.T, p, strict=True))
    ]


def precision_of_first(issues, planted):
    """Share of planted ones among the first half as many as were planted."""
    first = issues[: planted.sum() // 2]
    assert len(first) == planted.sum() // 2
    return np.mean([planted[issue.row, int(issue.column)] for issue in first])


def separated(rng, n=600, unknown=0.1):
    """Two attributes, one of them rare, and a tag with four classes, easily told apart by ten numbers."""
    truth = np.stack([rng.random(n) < 0.5, rng.random(n) < 0.1, rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])], axis=1)
    truth = truth.astype(int)
    directions = rng.normal(size=(6, 10))
    seen = np.concatenate([truth[:, :2], np.eye(4)[truth[:, 2]]], axis=1)
    x = 2.5 * seen @ directions + rng.normal(size=(n, 10))
    return x, np.where(rng.random(truth.shape) < unknown, -1, truth)


@pytest.mark.parametrize("seed", range(3))
def test_planted_errors_come_first_where_classes_are_well_separated(seed):
    rng = np.random.default_rng(seed)
    x, y = separated(rng)
    y, planted = plant(y, [2, 2, 4], rng)
    issues = label_issues(columns_of(y, [out_of_fold(x, labels, seed) for labels in y.T]))
    assert precision_of_first(issues, planted) >= 0.8
    assert all(y[issue.row, int(issue.column)] != -1 for issue in issues)
    assert sum(planted[issue.row, int(issue.column)] for issue in issues) >= 0.7 * planted.sum()


@pytest.mark.slow
def test_planted_errors_come_first_on_the_sample_pictures(root: Path):
    from multilabel.backbones import build_backbone
    from multilabel.errors import ImageError
    from multilabel.images import read_image

    backbone = build_backbone("cnn", "embedded")
    pictures, labels = [], []
    for line in (root / "data" / "labels.txt").read_text(encoding="utf-8").splitlines():
        name, *cells = line.split()
        try:
            pictures.append(read_image(root / "data" / "images" / name, backbone.image_size))
        except ImageError:
            continue
        labels.append([-1 if cell == "NA" else int(cell) for cell in cells])
    features = backbone.model.predict(np.stack(pictures).astype(np.float32), batch_size=64, verbose=0)
    found = []
    for seed in range(6):
        y, planted = plant(np.array(labels), [2] * 4, np.random.default_rng(seed))
        issues = label_issues(columns_of(y, [out_of_fold(features, column, seed) for column in y.T]))
        assert all(y[issue.row, int(issue.column)] != -1 for issue in issues)
        found.append(precision_of_first(issues, planted))
    assert np.mean(found) >= 0.8  # 0.82 when this was written; single draws of 69 errors run from 0.7 to 0.9


def test_a_rare_class_that_is_hard_to_see_is_not_listed_as_errors():
    rng = np.random.default_rng(0)
    truth = (rng.random(2000) < 0.03).astype(int)
    hard = 1 / (1 + np.exp(-(np.log(0.03 / 0.97) + rng.normal(size=2000) + 0.7 * truth)))
    easy = rng.random(2000) < 0.5
    y, planted = plant(np.stack([truth, easy.astype(int)], axis=1), [2, 2], rng)
    y[:, 0], planted[:, 0] = truth, False
    p = np.where(easy, 0.93, 0.07) + rng.uniform(-0.05, 0.05, 2000)
    issues = label_issues([Column("0", y[:, 0], hard), Column("1", y[:, 1], p)])
    assert precision_of_first(issues, planted) >= 0.85
    by_self_confidence = sorted(issues, key=lambda issue: issue.self_confidence)
    assert precision_of_first(by_self_confidence, planted) < 0.8


def test_the_order_and_the_fields_by_hand():
    y = np.repeat([1, 0], 20)
    p = np.repeat([0.9, 0.1], 20)
    y[3], p[3] = 1, 0.2  # called absent, less surely than the next one
    y[30], p[30] = 0, 0.95  # called present
    y[12], p[12] = 1, 0.75  # below the mean of the present ones, and far above that of the absent ones
    y[5], p[5] = -1, 0.01
    p[8] = 0.05
    issues = label_issues([Column("hat", y, p)])
    assert [astuple(issue) for issue in issues] == [
        (8, "hat", "1", "0", 0.05, 0.95),
        (30, "hat", "0", "1", pytest.approx(0.05), 0.95),
    ]
    # The mean of the absent ones is (19 · 0.9 + 0.05) / 20 = 0.8575, and 1 - 0.2 does not reach it.
    y[30] = 1
    assert [(issue.row, issue.given) for issue in label_issues([Column("hat", y, p)])] == [(8, "1")]


def oracle(column):
    """The listed cells of a tag with all classes judged, after the paper, cell by cell."""
    usual = [np.mean([p[j] for y, p in zip(column.y, column.p, strict=True) if y == j]) for j in range(3)]
    listed = {}
    for row, (y, p) in enumerate(zip(column.y, column.p, strict=True)):
        confident = [j for j in range(3) if p[j] >= usual[j]]
        if y != -1 and confident:
            best = max(confident, key=lambda j: p[j])
            if best != y:
                listed[row] = (column.classes[y], column.classes[best], p[y], p[best])
    return listed


def tag_column(seed, n=300, unknown=0.2):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    z = 2 * np.eye(3)[y] + rng.normal(size=(n, 3))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return Column("tag", np.where(rng.random(n) < unknown, -1, y), p, ("a", "b", "c"))


@pytest.mark.parametrize("seed", range(5))
def test_a_tags_listed_cells_are_those_off_the_diagonal_of_the_confident_joint(seed):
    column = tag_column(seed)
    issues = label_issues([column])
    assert issues
    assert {issue.row: astuple(issue)[2:] for issue in issues} == oracle(column)
    sure = {c: np.quantile(column.p[column.y == j, j], 0.9) for j, c in enumerate(column.classes)}
    order = [issue.self_confidence / sure[issue.given] for issue in issues]
    assert order == sorted(order)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), attribute=st.booleans())
def test_neither_unknown_cells_nor_the_order_of_rows_matter(seed, attribute):
    rng = np.random.default_rng(seed)
    column = tag_column(seed)
    if attribute:
        column = Column("tag", np.where(column.y == 2, 1, column.y), 1 - column.p[:, 0].round(2))
    issues, suggestions = label_issues([column]), suggested_labels([column])
    assert all(column.y[issue.row] != -1 for issue in issues)
    assert all(column.y[suggestion.row] == -1 for suggestion in suggestions)

    known = np.flatnonzero(column.y != -1)
    alone = label_issues([Column("tag", column.y[known], column.p[known], column.classes)])
    assert [(known[issue.row], *astuple(issue)[1:]) for issue in alone] == [astuple(issue) for issue in issues]

    order = rng.permutation(len(column.y))
    shuffled = Column("tag", column.y[order], column.p[order], column.classes)
    for found, again in ((issues, label_issues([shuffled])), (suggestions, suggested_labels([shuffled]))):
        assert {(order[one.row], *astuple(one)[1:]) for one in again} == {astuple(one) for one in found}


@pytest.mark.parametrize("call", [label_issues, suggested_labels])
@pytest.mark.parametrize(
    ("name", "y"),
    [
        ("no label", np.full(40, -1)),
        ("one class", np.ones(40, int)),
        ("too few of one", np.repeat([1, 0, -1], [FEWEST - 1, 20, 5])),
        ("nothing", np.zeros(0, int)),
    ],
)
def test_a_column_that_cannot_be_judged_is_passed_over(call, name, y):
    p = np.where(np.arange(len(y)) % 7 == 0, 1 - y, y).clip(0.02, 0.98)
    assert call([Column(name, y, p)]) == []


@pytest.mark.parametrize("share", [0.5, 0.08, 0.02])
def test_a_column_no_better_than_chance_suggests_and_doubts_nothing(share):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = (rng.random(400) < share).astype(int)
        p = 1 / (1 + np.exp(-(np.log(share / (1 - share)) + rng.normal(size=400))))
        if roc_auc_score(y, p) > 0.55:
            continue  # by chance, so it is not what this is about
        column = Column("noise", np.where(rng.random(400) < 0.3, -1, y), p)
        assert suggested_labels([column]) == []


def test_all_probabilities_equal_say_nothing():
    y = np.repeat([1, 0, -1], 100)
    column = Column("flat", y, np.full(300, 0.7))
    assert label_issues([column]) == []
    assert suggested_labels([column]) == []


def levels(column, number, texts):
    """The lowest level of calls of a class, by `wilson` on every cut."""
    p = np.stack([1 - column.p, column.p], axis=1) if column.classes is None else column.p
    known = column.y != -1
    share = max(0.95, np.mean(column.y[known] == number))
    calls = known & (p.argmax(axis=1) == number)
    good = []
    for cut in set(p[calls, number]):
        at_least = calls & (p[:, number] >= cut)
        hits = int((column.y[at_least] == number).sum())
        if wilson(hits, int(at_least.sum()))[0] > share:
            good.append(cut)
    lowest = min(good, default=np.inf)
    rows = np.flatnonzero(~known & (p.argmax(axis=1) == number) & (p[:, number] >= lowest))
    return {(row, texts[number], p[row, number]) for row in rows}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("attribute", [True, False])
def test_suggestions_reach_the_level_that_wilsons_interval_gives(seed, attribute):
    column, texts = tag_column(seed, n=3000), ("a", "b", "c")
    if attribute:
        texts = ("0", "1")
        column = Column("tag", np.where(column.y == 2, 1, column.y), (1 - column.p[:, 0]).round(3))
    suggestions = suggested_labels([column])
    assert suggestions
    expected = set().union(*(levels(column, number, texts) for number in range(len(texts))))
    assert {(one.row, one.suggested, one.probability) for one in suggestions} == expected
    probabilities = [one.probability for one in suggestions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert {one.column for one in suggestions} == {"tag"}


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_nineteen_of_twenty_suggestions_are_right(share):
    right = made = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = (rng.random(1000) < share).astype(int)
        z = np.log(share / (1 - share)) - 2 + 2 * (rng.normal(size=1000) + 2 * truth)
        column = Column("hat", np.where(rng.random(1000) < 0.5, -1, truth), 1 / (1 + np.exp(-z)))
        suggestions = suggested_labels([column])
        made += len(suggestions)
        right += sum(truth[one.row] == int(one.suggested) for one in suggestions)
    assert made > 1000
    assert right / made >= 0.95


def test_seventy_three_right_calls_are_needed():
    def suggested(known):
        y = np.concatenate([np.repeat([1, 0], [known, 60]), [-1]])
        return suggested_labels([Column("hat", y, np.where(y == 0, 0.4, 0.9))])

    assert suggested(72) == []
    assert suggested(74) == [Suggestion(134, "hat", "1", 0.9)]


def test_tables():
    issues = [LabelIssue(1, "hat", "1", "0", 0.25, 0.75), LabelIssue(0, "color", "red", "blue", 0.125, 0.5)]
    table = issues_table(issues, ["a.jpg", "b.jpg"])
    assert table.to_csv(index=False) == (
        "image,column,given,suggested,self_confidence,suggested_probability\n"
        "b.jpg,hat,1,0,0.25,0.75\n"
        "a.jpg,color,red,blue,0.125,0.5\n"
    )
    table = suggestions_table([Suggestion(0, "hat", "1", 0.875)], ["a.jpg"])
    assert table.to_csv(index=False) == "image,column,suggested,suggested_probability\na.jpg,hat,1,0.875\n"
    header = "image,column,given,suggested,self_confidence,suggested_probability\n"
    assert issues_table([], []).to_csv(index=False) == header
    assert suggestions_table([], []).to_csv(index=False) == "image,column,suggested,suggested_probability\n"


@pytest.mark.parametrize("call", [label_issues, suggested_labels])
@pytest.mark.parametrize(
    ("column", "text"),
    [
        (
            Column("hat", np.zeros(3, int), np.zeros((3, 2))),
            "hat: Labels of shape (3,) and probabilities of shape (3, 2) do not fit: give (n,) each.",
        ),
        (
            Column("hat", np.zeros(3, int), np.full(3, np.nan)),
            "hat: Some probabilities are not numbers (NaN): train again with a smaller learning rate.",
        ),
        (
            Column("color", np.zeros(3, int), np.zeros((3, 2)), ("red", "blue", "green")),
            "color: probabilities of 2 classes do not fit the 3 classes of the tag.",
        ),
        (
            Column("color", np.array([0, 2, 0]), np.zeros((3, 2)), ("red", "blue")),
            "color: 2 is not the index of one of 2 classes: give 0 to 1, or -1.",
        ),
    ],
)
def test_what_does_not_fit_is_said(call, column, text):
    with pytest.raises(DataError) as error:
        call([column])
    assert str(error.value) == text
