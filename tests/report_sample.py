"""A report on made-up predictions, for the tests of `report.html`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multilabel.evaluation import evaluate, evaluate_tag
from multilabel.heads import Head, LogitHead, SoftmaxHead
from multilabel.held_out import HeldOut
from multilabel.label_errors import LabelIssue, Suggestion
from multilabel.labels import UNKNOWN, LabelTable, Tag
from multilabel.report_page import Report
from multilabel.thresholds import choose_thresholds
from multilabel.training import History

PROVENANCE = {
    "created": "2025-01-02T03:04:05+00:00",
    "versions": {"multilabel": "1.0", "keras": "3.15.1"},
    "labels_sha256": "0123abcd",
    "settings": {"backbone": "mobilenetv2", "seed": 0, "tags": ["colour"], "cnn": {}},
}


def make_report(
    folder: Path,
    *,
    rows: int = 300,
    attributes: Sequence[str] = ("heart", "stripes", "noise"),
    classes: Sequence[int] = (5,),
    pictures: int = 12,
    test: bool = False,
    folds: int = 5,
    draws: int = 20,
    seed: int = 0,
    names: Sequence[str] | None = None,
    change: Callable[[np.ndarray, np.ndarray], None] | None = None,
    **changes: Any,
) -> Report:
    """Labels, a fifth of them unknown, and probabilities that are better the earlier an attribute or tag comes.

    The last of several attributes and tags is pure chance. Classes are rarer the later they come.

    Args:
        folder: where the pictures are written.
        rows: number of rows of the label table.
        attributes: their names.
        classes: the number of classes of each tag.
        pictures: number of files, which the rows share; with 0 none exists.
        test: the last quarter of the rows is a test part.
        folds: of the main part, or 0 for a validation part.
        draws: of the bootstrap.
        seed: of it all.
        names: the pictures'.
        change: changes the labels of attributes and tags in place.
        changes: fields of the report to replace.
    """
    rng = np.random.default_rng(seed)
    y, p = _attributes(rng, rows, len(attributes))
    tags = tuple(
        Tag(f"tag{number}", tuple(f"class{index:03d}" for index in range(count)))
        for number, count in enumerate(classes)
    )
    made = [_tag(rng, rows, len(tag.classes), chance=number and tag is tags[-1]) for number, tag in enumerate(tags)]
    tag_y = np.stack([of_tag for of_tag, _ in made], axis=1) if made else np.empty((rows, 0), np.int16)
    paths = tuple(str(folder / f"picture{row % max(pictures, 1)}.jpg") for row in range(rows))
    for path in paths[:pictures]:
        Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).resize((120, 160)).save(path)
    if change is not None:
        change(y, tag_y)
    table = LabelTable(paths, y, tuple(attributes), tags=tags, tag_y=tag_y)
    heads: list[Head] = [LogitHead(tuple(attributes), (1.0,) * len(attributes), 0.8)] if attributes else []
    heads += [SoftmaxHead(tag.name, tag.classes, name=f"tag{i}_head") for i, tag in enumerate(tags, start=1)]
    probabilities = {"attributes": p} if attributes else {}
    probabilities |= {f"tag{i}_head": of_tag for i, (_, of_tag) in enumerate(made, start=1)}
    order = rng.permutation(rows)
    cut = rows - rows // 4 if test else rows
    main = "out-of-fold" if folds else "validation"
    dealt = rng.integers(folds or 5, size=cut)
    held_out = [_held_out(main, np.sort(order[:cut]), probabilities, dealt)]
    held_out += [_held_out("test", np.sort(order[cut:]), probabilities, None)] if test else []
    first = held_out[0]
    thresholds = choose_thresholds(y[first.rows], first.p["attributes"]) if attributes else []
    thresholds = [replace(one, spread=(0.9 * one.value, 1.1 * one.value)) for one in thresholds]
    evaluations = []
    for part in held_out:
        of_tags = [
            evaluate_tag(head.targets(table)[part.rows], part.p[head.name], head.tag, head.classes, draws=draws)
            for head in heads
            if isinstance(head, SoftmaxHead)
        ]
        evaluations.append(
            evaluate(
                y[part.rows],
                part.p.get("attributes", np.empty((len(part.rows), 0))),
                attributes,
                thresholds,
                tags=of_tags,
                part=f"{part.name} pictures",
                draws=draws,
            )
        )
    report = Report(
        run_name="sample",
        evaluations=evaluations,
        held_out=held_out,
        table=table,
        names=names or [f"folder/picture{row}.jpg" for row in range(rows)],
        heads=heads,
        thresholds=thresholds,
        history=_history(rng, validated=not folds),
        fold_histories=[_history(rng, validated=True) for _ in range(folds)],
        issues=_issues(table, p) if attributes else [],
        suggestions=_suggestions(table, p) if attributes else [],
        provenance=PROVENANCE,
    )
    return replace(report, **changes)


def _attributes(rng: np.random.Generator, rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    y = (rng.random((rows, count)) < np.linspace(0.5, 0.1, count or 1)[:count]).astype(np.int8)
    skill = np.linspace(3.0, 1.0, count or 1)[:count]
    skill[1:][-1:] = 0.0
    z = skill * (2 * y - 1) + rng.normal(0, 1.5, (rows, count)) - 1
    y[rng.random((rows, count)) < 0.2] = UNKNOWN
    return y, 1 / (1 + np.exp(-z))


def _tag(rng: np.random.Generator, rows: int, classes: int, *, chance: bool) -> tuple[np.ndarray, np.ndarray]:
    shares = 0.9 ** np.arange(classes)
    y = rng.choice(classes, rows, p=shares / shares.sum()).astype(np.int16)
    z = rng.normal(0, 1, (rows, classes)) + np.log(shares)
    z[np.arange(rows), y] += 0.0 if chance else 4.0
    y[rng.random(rows) < 0.2] = UNKNOWN
    p = np.exp(z)
    return y, p / p.sum(axis=1, keepdims=True)


def _held_out(name: str, rows: np.ndarray, p: dict[str, np.ndarray], folds: np.ndarray | None) -> HeldOut:
    """Before calibration, probabilities were too close to 0 and 1."""
    of_part = {head: values[rows] for head, values in p.items()}
    raw = {}
    for head, values in of_part.items():
        if head == "attributes":
            raw[head] = values**2 / (values**2 + (1 - values) ** 2)
        else:
            raw[head] = values**2 / (values**2).sum(axis=1, keepdims=True)
    return HeldOut(name, rows, of_part, raw, folds)


def _history(rng: np.random.Generator, *, validated: bool, epochs: int = 12, steps: int = 9) -> History:
    training = np.exp(-np.arange(epochs * steps) / 40) + rng.normal(0, 0.02, epochs * steps)
    validation = (np.exp(-np.arange(epochs) / 5) + 0.1).tolist() if validated else []
    ends = [steps * (epoch + 1) for epoch in range(epochs)]
    return History(training.tolist(), validation, validation, ends, [epochs], epochs - 2)


def _issues(table: LabelTable, p: np.ndarray) -> list[LabelIssue]:
    """The labels of the first attribute that the model contradicts, the surest first."""
    found = []
    for row in np.argsort(-np.abs(p[:, 0] - 0.5)).tolist():
        label, called = int(table.y[row, 0]), int(p[row, 0] > 0.5)
        if label == 1 - called:
            sure = max(p[row, 0], 1 - p[row, 0])
            found.append(LabelIssue(row, table.names[0], str(label), str(called), 1 - sure, sure))
    return found


def _suggestions(table: LabelTable, p: np.ndarray) -> list[Suggestion]:
    """Labels for the unknown ones of the first attribute, the surest first."""
    unknown = [row for row in np.argsort(-np.abs(p[:, 0] - 0.5)).tolist() if table.y[row, 0] == UNKNOWN]
    sure = [float(p[row, 0]) for row in unknown]
    return [
        Suggestion(row, table.names[0], str(int(share > 0.5)), max(share, 1 - share))
        for row, share in zip(unknown, sure, strict=True)
    ]
