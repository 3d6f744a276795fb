"""`report.html`: every number on it, what it leaves out, and what people may call things."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_sample import make_report
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from multilabel import page
from multilabel.errors import MultilabelError
from multilabel.evaluation import verdicts
from multilabel.report_page import Report, render, write_report
from multilabel.report_page.cells import attribute_cells, tag_cells
from multilabel.report_page.curves import scores_by_threshold
from multilabel.training import History

SECTIONS = ["scores", "curves", "calibration", "tags", "learning", "pictures", "labels", "provenance"]


class Page(HTMLParser):
    """What a reader finds on a page.

    Attributes:
        sections: ids of the sections.
        text: all of it, by section; that before the first under "".
        tables: rows by caption; the first is the header.
        summaries: of everything that unfolds.
        grids: names and lines of the pictures, by caption.
        tags: names of all elements.
        images: what is shown, in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.text: dict[str, str] = {"": ""}
        self.tables: dict[str, list[list[str]]] = {}
        self.summaries: list[str] = []
        self.grids: dict[str, list[list[str]]] = {}
        self.tags: set[str] = set()
        self.images: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._items: list[list[str]] = []
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        if tag in ("img", "meta", "link", "br", "path", "rect", "circle"):
            self.images += [values["src"] or ""] if tag == "img" else []
            return
        self._open.append(tag)
        if tag == "section":
            self.sections.append(values["id"] or "")
            self.text[self.sections[-1]] = ""
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "figcaption":
            self._items, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag == "summary":
            self.summaries.append("")
        if tag == "li":
            self._items.append([])
        if tag == "p" and "li" in self._open:
            self._items[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "table":
            self.tables[self._caption] = self._rows
        if tag == "figure" and self._items:
            self.grids[self._caption] = self._items

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "svg" in self._open:
            return
        self.text[self.sections[-1] if self.sections else ""] += data
        inside = set(self._open)
        if inside & {"caption", "figcaption"}:
            self._caption += data
        elif inside & {"td", "th"}:
            self._rows[-1][-1] += data
        elif "summary" in inside:
            self.summaries[-1] += data
        elif {"li", "p"} <= inside and self._items and self._items[-1]:
            self._items[-1][-1] += data


def read(report: Report) -> Page:
    return Page(render(report))


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


def columns(table: list[list[str]]) -> dict[str, dict[str, str]]:
    """Cells by row and column."""
    header, *rows = table
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def known(report: Report, attribute: int, part: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and probabilities, after and before calibration, without the unknown cells."""
    rows = report.held_out[part].rows
    y = report.table.y[rows, attribute]
    kept = y >= 0
    of_part = report.held_out[part]
    return y[kept], of_part.p["attributes"][kept, attribute], of_part.raw["attributes"][kept, attribute]


def known_tag(report: Report, tag: int, part: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of_part = report.held_out[part]
    y = report.table.tag_y[of_part.rows, tag].astype(int)
    kept, name = y >= 0, f"tag{tag + 1}_head"
    return y[kept], of_part.p[name][kept], of_part.raw[name][kept]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(tmp_path_factory.mktemp("report"), classes=(5, 4), test=True)


@pytest.fixture(scope="module")
def seen(report: Report) -> Page:
    return read(report)


def test_all_chapters_are_there(seen: Page) -> None:
    assert seen.sections == SECTIONS


def test_the_lead_says_what_how_and_how_good(report: Report, seen: Page) -> None:
    main = report.evaluations[0]
    first = seen.text[""]
    f1, chance = [], []
    for column in range(3):
        y, p, _ = known(report, column)
        f1.append(f1_score(y, p > report.thresholds[column].value))
        chance.append(2 * y.mean() / (1 + y.mean()))
    accuracy, common = [], []
    for column in range(2):
        y, p, _ = known_tag(report, column)
        accuracy.append(accuracy_score(y, p.argmax(axis=1)))
        common.append(np.bincount(y).max() / len(y))
    assert (
        f"Heads on a mobilenetv2 network for 3 attributes and 2 tags, measured on the {main.part} (225 pictures, each "
        f"by heads that were trained without it): macro F1 {np.mean(f1):.2f} (chance {np.mean(chance):.2f}), mean "
        f"accuracy {np.mean(accuracy):.3f} (chance {np.mean(common):.3f})."
    ) in first
    labels = np.count_nonzero(report.table.y[report.held_out[0].rows] >= 0)
    labels += np.count_nonzero(report.table.tag_y[report.held_out[0].rows] >= 0)
    assert f"{labels} of 1,125 labels of these pictures are known ({labels / 1125:.1%})" in first


def test_the_lead_warns_of_what_is_not_better_than_chance(report: Report, seen: Page) -> None:
    first = seen.text[""]
    assert report.evaluations[0].not_better_than_chance == ("noise", "tag1")
    assert (
        "Do not rely on noise and tag1: 2 of 5 attributes and tags are not better than chance, or cannot be judged."
    ) in first
    for sentence in verdicts(report.evaluations[0]):
        assert sentence in first
    for sentence in verdicts(report.evaluations[1]):
        assert f"Test pictures: {sentence}" in first


def test_where_all_is_better_than_chance_there_is_no_warning(tmp_path: Path) -> None:
    found = read(make_report(tmp_path, attributes=["heart"], classes=(3,)))
    assert "Better than chance: heart and tag0." in found.text[""]
    assert "Warning" not in found.text[""]


def test_a_single_attribute_is_named_alone(tmp_path: Path) -> None:
    report = make_report(tmp_path, rows=8, attributes=["heart"], classes=())
    assert "Do not rely on heart: it is not better than chance, or cannot be judged." in read(report).text[""]


def test_many_warnings_are_folded(tmp_path: Path) -> None:
    report = make_report(tmp_path, rows=8, attributes=[f"a{i}" for i in range(20)], classes=())
    found = read(report)
    many = len(verdicts(report.evaluations[0]))
    assert many >= 20
    assert f"{many - 8} more sentences of this kind" in found.summaries
    assert "a0, a1, a2, a3, a4, a5, a6, a7, a8, a9 and 10 more: 20 of 20 attributes are not better" in found.text[""]


@pytest.mark.parametrize("part", [0, 1])
def test_scores_of_attributes_are_those_of_scikit_learn(report: Report, seen: Page, part: int) -> None:
    evaluation = report.evaluations[part]
    size = len(report.held_out[part].rows)
    cells = columns(seen.tables[f"Attributes ({evaluation.part}, {size} pictures)"])
    assert list(cells) == ["heart", "stripes", "noise"]
    for column, name in enumerate(cells):
        y, p, _ = known(report, column, part)
        present = p > report.thresholds[column].value
        share = y.mean()
        expected = {
            "AUC": (roc_auc_score(y, p), 0.5),
            "F1": (f1_score(y, present), 2 * share / (1 + share)),
            "precision": (precision_score(y, present), share),
            "recall": (recall_score(y, present), present.mean()),
            "AP": (average_precision_score(y, p), share),
        }
        row = cells[name]
        assert row["known"] == f"{len(y)}/{size}"
        assert row["positives"] == str(y.sum())
        assert row["threshold"] == f"{report.thresholds[column].value:.3f}"
        assert numbers(row["its spread"].replace("–", " ")) == pytest.approx(
            report.thresholds[column].spread, abs=0.00051
        )
        for score, (value, chance) in expected.items():
            assert numbers(row[f"{score} (95%)"])[0] == pytest.approx(value, abs=0.00501), score
            assert numbers(row[f"{score} by chance"]) == pytest.approx([chance], abs=0.00501), score
        scored = evaluation.scores[column]
        few = min(y.sum(), (1 - y).sum()) < 5
        assert row["better than chance?"] == ("too few labels" if few else "yes" if scored.roc_auc.low > 0.5 else "no")
        assert row["AUC (95%)"] == f"{scored.roc_auc.value:.2f} ({scored.roc_auc.low:.2f}–{scored.roc_auc.high:.2f})"
        assert row["F1 (95%)"] == f"{scored.f1.value:.2f} ({scored.f1.low:.2f}–{scored.f1.high:.2f})"


@pytest.mark.parametrize("part", [0, 1])
def test_scores_of_tags_are_those_of_scikit_learn(report: Report, seen: Page, part: int) -> None:
    evaluation = report.evaluations[part]
    size = len(report.held_out[part].rows)
    cells = columns(seen.tables[f"Tags ({evaluation.part}, {size} pictures)"])
    for column, (name, classes) in enumerate({"tag0": 5, "tag1": 4}.items()):
        y, p, _ = known_tag(report, column, part)
        called = p.argmax(axis=1)
        counts = np.sort(np.bincount(y))[::-1]
        expected = {
            "accuracy": (accuracy_score(y, called), counts[0] / len(y)),
            "macro F1": (f1_score(y, called, labels=np.unique(y), average="macro"), None),
            "top 3": (top_k_accuracy_score(y, p, k=3, labels=range(classes)), counts[:3].sum() / len(y)),
        }
        assert cells[name]["known"] == f"{len(y)}/{size}"
        for score, (value, chance) in expected.items():
            assert numbers(cells[name][f"{score} (95%)"])[0] == pytest.approx(value, abs=0.000501)
            if chance is not None:
                assert numbers(cells[name][f"{score} by chance"]) == pytest.approx([chance], abs=0.000501)


def test_p_values_are_shown_where_there_are_any(report: Report, seen: Page) -> None:
    caption = "Attributes (out-of-fold pictures, 225 pictures)"
    assert "p-value" not in seen.tables[caption][0]
    main = report.evaluations[0]
    values = [0.0004, 0.25, None]
    tested = [replace(scored, p_value=value) for scored, value in zip(main.scores, values, strict=True)]
    cells = columns(
        read(replace(report, evaluations=[replace(main, scores=tuple(tested))], held_out=report.held_out[:1])).tables[
            caption
        ]
    )
    assert [row["p-value"] for row in cells.values()] == ["< 0.001", "0.250", "–"]


def test_precision_recall_curves_are_those_of_scikit_learn(report: Report, seen: Page) -> None:
    for column, name in enumerate(report.table.names):
        y, p, _ = known(report, column)
        header, *rows = seen.tables[f"{name}: precision against recall"]
        assert header == ["series", "recall", "precision"]
        shown = [(float(recall), float(precision)) for series, recall, precision in rows if series == "model"]
        possible = [(recall_score(y, p >= cut), precision_score(y, p >= cut)) for cut in np.unique(p)]
        for recall, precision in shown:
            if recall:
                assert min(abs(recall - r) + abs(precision - q) for r, q in possible) < 0.002
        share = [float(cell) for series, _, cell in rows if series == "chance"]
        assert share == pytest.approx([y.mean()] * 2, abs=0.002)
        assert f"{name}: AUC {roc_auc_score(y, p):.2f}, AP {average_precision_score(y, p):.2f}" in seen.summaries


def test_the_mark_is_where_the_threshold_leads(report: Report, seen: Page) -> None:
    for column, name in enumerate(report.table.names):
        y, p, _ = known(report, column)
        threshold = report.thresholds[column].value
        called = p > threshold
        scores = [score(y, called) for score in (precision_score, recall_score, f1_score)]
        told = re.search(
            rf"{name}: scores by threshold At ([\d.]+): precision ([\d.]+), recall ([\d.]+), F1 ([\d.]+)\.",
            " ".join(seen.text["curves"].split()),
        )
        assert told is not None
        assert [float(number) for number in told.groups()] == pytest.approx([threshold, *scores], abs=0.00501)


def test_scores_by_threshold_call_present_what_is_above() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 60), rng.integers(1, 20, 60) / 20
    series = {one.name: (np.asarray(one.x), np.asarray(one.y)) for one in scores_by_threshold(y, p)}
    for threshold in [*rng.random(30), *np.unique(p), 0.0]:
        called = p > threshold
        for name, score in {"precision": precision_score, "recall": recall_score, "F1": f1_score}.items():
            x, values = series[name]
            value = values[np.flatnonzero(x <= threshold)[-1]]
            if called.any() or name != "precision":
                assert value == pytest.approx(score(y, called)), (name, threshold)
            else:
                assert np.isnan(value)


def test_calibration_errors_before_and_after(report: Report, seen: Page) -> None:
    def error(events: np.ndarray, p: np.ndarray) -> float:
        total = 0.0
        for low in np.arange(10) / 10:
            inside = (p > low) & (p <= low + 0.1 + 1e-12)
            total += abs(events[inside].sum() - p[inside].sum())
        return total / len(p)

    cells = columns(seen.tables["Calibration errors"])
    for column, name in enumerate(report.table.names):
        y, p, raw = known(report, column)
        row = cells[name]
        assert numbers(row["after calibration"]) == pytest.approx([error(y, p)], abs=0.000501)
        assert numbers(row["before calibration"]) == pytest.approx([error(y, raw)], abs=0.000501)
        assert row["known"] == str(len(y))
    for column in range(2):
        y, p, raw = known_tag(report, column)
        right = p.argmax(axis=1) == y
        row = cells[f"tag{column}"]
        assert numbers(row["after calibration"]) == pytest.approx([error(right, p.max(axis=1))], abs=0.000501)
        assert numbers(row["before calibration"]) == pytest.approx([error(right, raw.max(axis=1))], abs=0.000501)
    for column, name in enumerate(report.table.names):
        y, p, _ = known(report, column)
        _, *rows = seen.tables[f"{name}: bins after calibration"]
        assert sum(int(count) for *_, count in rows) == len(y)
        assert sum(float(share) * int(count) for _, share, _, count in rows) == pytest.approx(y.sum(), abs=0.2)


def test_without_calibration_one_curve_is_drawn(report: Report) -> None:
    part = report.held_out[0]
    plain = replace(report, held_out=[replace(part, raw=part.p), *report.held_out[1:]])
    found = read(plain)
    cells = columns(found.tables["Calibration errors"])["heart"]
    error = cells["after calibration"]
    assert cells["before calibration"] == error
    assert f"heart: calibration error {error}, left as it was" in found.summaries
    assert "heart: bins without calibration" in found.tables
    assert {row[0] for row in found.tables["heart: reliability"][1:]} == {"without calibration", "perfect"}


def test_classes_are_those_of_scikit_learn_and_sorted_by_frequency(report: Report, seen: Page) -> None:
    for column, name in enumerate(["tag0", "tag1"]):
        y, p, _ = known_tag(report, column)
        classes = report.table.tags[column].classes
        values = precision_recall_fscore_support(y, p.argmax(axis=1), labels=range(len(classes)), zero_division=0)
        expected = dict(zip(classes, np.transpose(values), strict=True))
        _, *rows = seen.tables[f"{name}: classes"]
        assert {row[0] for row in rows} == set(classes)
        for one, count, *scores in rows:
            *wanted, support = expected[one]
            assert int(count) == support
            assert [float(score) for score in scores] == pytest.approx(wanted, abs=0.000501)
        counts = [int(row[1]) for row in rows]
        assert counts == sorted(counts, reverse=True)


def test_confusions_are_counted_and_the_most_frequent_come_first(report: Report, seen: Page) -> None:
    for column, name in enumerate(["tag0", "tag1"]):
        y, p, _ = known_tag(report, column)
        classes = report.table.tags[column].classes
        matrix = confusion_matrix(y, p.argmax(axis=1), labels=range(len(classes)))
        pairs = np.count_nonzero(matrix - np.diag(matrix.diagonal()))
        _, *rows = seen.tables[f"{name}: the {min(20, pairs)} most frequent of {pairs} confusions"]
        for labelled, said, count, share in rows:
            cell = matrix[classes.index(labelled), classes.index(said)]
            assert labelled != said
            assert int(count) == cell
            assert float(share.rstrip("%")) == pytest.approx(
                100 * cell / matrix[classes.index(labelled)].sum(), abs=0.0501
            )
        counts = [int(row[2]) for row in rows]
        assert counts == sorted(counts, reverse=True)
        header, *cells = seen.tables[f"{name}: confusion matrix"]
        assert sum(int(row[-1]) for row in cells if row[-1].isdigit()) or header


def test_learning_curves_hold_the_losses(report: Report, seen: Page) -> None:
    header, *rows = seen.tables["Validation loss of each fold"]
    assert header == ["epoch", "fold 1", "fold 2", "fold 3", "fold 4", "fold 5"]
    shown = [[float(cell) for cell in row[1:]] for row in rows]
    wanted = np.transpose([history.validation_loss for history in report.fold_histories])
    assert shown == pytest.approx(wanted, abs=0.001)
    _, *rows = seen.tables["Training loss of each fold"]
    first = report.fold_histories[0].training_loss[:9]
    assert float(rows[0][1]) == pytest.approx(np.mean(first), abs=0.001)


def test_without_folds_the_kept_epoch_is_marked(tmp_path: Path) -> None:
    report = make_report(tmp_path, folds=0)
    html = render(report)
    assert "kept: epoch 10" in html
    assert "Validation loss of each fold" not in html


def test_pictures_are_the_surest_wrong_the_least_sure_and_the_surest_right(report: Report, seen: Page) -> None:
    part = report.held_out[0]
    threshold = report.thresholds[1].value
    sure: dict[str, list[tuple[float, str]]] = {"right": [], "wrong": []}
    for row, p in zip(part.rows, part.p["attributes"][:, 1], strict=True):
        label = report.table.y[row, 1]
        if label >= 0:
            margin = (p - threshold) / (1 - threshold) if p > threshold else (threshold - p) / threshold
            sure["right" if (p > threshold) == label else "wrong"].append((margin, report.names[row]))
    assert f"stripes: {len(sure['wrong'])} of {len(sure['wrong']) + len(sure['right'])} wrong" in seen.summaries

    def names(caption: str, mark: str) -> list[str]:
        return [item[0].removeprefix(mark) for item in seen.grids[f"stripes: {caption}"]]

    assert names("surest and wrong", "✗ wrong: ") == [name for _, name in sorted(sure["wrong"], reverse=True)[:5]]
    least = [name for _, name in sorted(sure["wrong"] + sure["right"])[:5]]
    assert [re.sub(". (right|wrong): ", "", item[0]) for item in seen.grids["stripes: least sure"]] == least
    labels = [item[1] for item in seen.grids["stripes: surest and right"]]
    assert sorted(labels.count(f"labelled {word}") for word in ("present", "absent")) == [2, 3]


def test_pictures_of_tags_say_label_and_prediction(report: Report, seen: Page) -> None:
    part, classes = report.held_out[0], report.table.tags[0].classes
    for caption in ("surest and wrong", "least sure", "surest and right"):
        for name, labelled, says in seen.grids[f"tag0: {caption}"]:
            row = report.names.index(name.partition(": ")[2])
            p = part.p["tag1_head"][part.rows == row][0]
            assert labelled == f"labelled {classes[report.table.tag_y[row, 0]]}"
            assert says == f"model: {classes[p.argmax()]} ({p.max():.2f})"


def test_only_held_out_pictures_with_a_known_label_are_shown(report: Report, seen: Page) -> None:
    rows = set(report.held_out[0].rows.tolist())
    for caption, items in seen.grids.items():
        name = caption.partition(":")[0]
        if name in report.table.names:
            for item in items:
                row = report.names.index(item[0].partition(": ")[2])
                assert row in rows
                assert report.table.y[row, report.table.names.index(name)] >= 0


def test_label_errors_and_suggestions_are_counted_and_the_first_shown(report: Report, seen: Page) -> None:
    many = [replace(report.issues[0], row=row) for row in range(60)]
    found = read(replace(report, issues=many))
    assert len(found.grids["Labels that are likely wrong"]) == 50
    assert "60 labels found, the likeliest 50 shown; all are in label_issues.csv" in found.text["labels"]
    issue = report.issues[0]
    given, called = ("present" if label == "1" else "absent" for label in (issue.given, issue.suggested))
    assert seen.grids["Labels that are likely wrong"][0] == [
        report.names[issue.row],
        f"heart: labelled {given} ({issue.self_confidence:.2f})",
        f"model: {called} ({issue.suggested_probability:.2f})",
    ]
    suggestion = report.suggestions[0]
    assert len(seen.grids["Suggestions for unknown labels"]) == 20
    assert (
        f"{len(report.suggestions)} unknown labels of which the model is sure, the surest 20 shown; all are in "
        "suggested_labels.csv"
    ) in seen.text["labels"]
    says = "present" if suggestion.suggested == "1" else "absent"
    assert seen.grids["Suggestions for unknown labels"][0] == [
        report.names[suggestion.row],
        f"heart: {says} ({suggestion.probability:.2f})",
    ]


def test_labels_of_tags_are_shown_as_they_are(report: Report) -> None:
    issue = replace(report.issues[0], column="tag0", given="1", suggested="class001")
    suggestion = replace(report.suggestions[0], column="tag0", suggested="0")
    found = read(replace(report, issues=[issue], suggestions=[suggestion]))
    assert found.grids["Labels that are likely wrong"][0][1].startswith("tag0: labelled 1 (")
    assert found.grids["Suggestions for unknown labels"][0][1].startswith("tag0: 0 (")


def test_without_label_errors_the_page_says_so(report: Report) -> None:
    found = read(replace(report, issues=[], suggestions=[]))
    assert "None found." in found.text["labels"]
    assert "None: no label is unknown, or the model is not sure enough of any." in found.text["labels"]


def test_provenance_is_a_table_with_all_values(seen: Page) -> None:
    cells = dict(seen.tables["How the model was made"][1:])
    assert cells == {
        "created": "2025-01-02T03:04:05+00:00",
        "versions.multilabel": "1.0",
        "versions.keras": "3.15.1",
        "labels_sha256": "0123abcd",
        "settings.backbone": "mobilenetv2",
        "settings.seed": "0",
        "settings.tags": "colour",
        "settings.cnn": "–",
    }


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"attributes": ()}, ["curves"]),
        ({"classes": ()}, ["tags"]),
        ({"history": History(), "fold_histories": []}, ["learning"]),
    ],
)
def test_chapters_without_content_are_left_out(tmp_path: Path, changes: dict, absent: list[str]) -> None:
    found = read(make_report(tmp_path, **changes))
    assert found.sections == [name for name in SECTIONS if name not in absent]


def test_an_attribute_of_one_class_and_one_without_labels_have_no_curves(tmp_path: Path) -> None:
    def change(y: np.ndarray, tag_y: np.ndarray) -> None:
        y[:, 1][y[:, 1] == 0] = 1
        y[:, 2] = -1
        tag_y[:] = -1

    found = read(make_report(tmp_path, change=change))
    assert "No curves for want of one class among the known labels: stripes and noise." in found.text["curves"]
    assert list(columns(found.tables["Calibration errors"])) == ["heart", "stripes"]
    assert "too few labels" in [row[1] for row in found.tables["Attributes (out-of-fold pictures, 300 pictures)"]]


def test_nothing_known_at_all_is_still_a_page(tmp_path: Path) -> None:
    def change(y: np.ndarray, tag_y: np.ndarray) -> None:
        y[:], tag_y[:] = -1, -1

    found = read(make_report(tmp_path, change=change, issues=[], suggestions=[]))
    assert found.sections == ["scores", "curves", "tags", "learning", "labels", "provenance"]
    assert "macro F1 – (chance –)" in found.text[""]
    assert "0 of 1,200 labels of these pictures are known (0.0%)" in found.text[""]


HOSTILE = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\udcff\x00"


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    attributes = [HOSTILE, "long" * 200, "ünï"]
    plain = make_report(tmp_path, attributes=attributes)
    html = render(
        replace(
            plain,
            run_name=HOSTILE,
            names=[f"{row}{HOSTILE}" for row in range(300)],
            provenance={HOSTILE: {HOSTILE: HOSTILE}, "settings": {"backbone": HOSTILE}},
        )
    )
    found = Page(html)
    assert "script" not in found.tags
    assert all(src.startswith("data:image/jpeg;base64,") for src in found.images)
    assert "<script>" in found.text["scores"]
    assert html.encode("utf-8")
    assert "\\xff" in found.text["scores"]


def test_nothing_is_asked_of_a_network(report: Report) -> None:
    addresses = re.findall(r"(?:src|href|url)\s*[=(]\s*\"?([^\"\s>]+)", render(report))
    assert addresses
    assert {re.match(r"data:|#", address) is not None for address in addresses} == {True}


def test_each_picture_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def thumbnail(image: str, **options: int) -> str:
        asked.append(image)
        return "data:image/jpeg;base64,AAAA"

    monkeypatch.setattr(page, "thumbnail", thumbnail)
    report = make_report(tmp_path, rows=40, pictures=40)
    render(report)
    assert len(asked) == len(set(asked))
    assert len(asked) > 20


def test_pictures_stay_below_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "thumbnail", lambda image, side: "data:image/jpeg;base64,AAAA")
    for count in (6, 75, 150):
        report = make_report(tmp_path, rows=100, attributes=[f"a{i}" for i in range(count)], classes=(), pictures=0)
        found = read(report)
        assert len(found.images) <= 400
        assert len(found.images) > 100
        assert ("Shown for the first 106 of 150 attributes and tags." in found.text["pictures"]) == (count == 150)


def test_with_many_attributes_details_are_closed(tmp_path: Path) -> None:
    few = render(make_report(tmp_path, attributes=["a", "b"], classes=()))
    many = render(make_report(tmp_path, attributes=[f"a{i}" for i in range(8)], classes=()))
    assert "<details open" in few
    assert "<details open" not in many


def test_curves_begin_with_the_worst_attribute(report: Report, seen: Page) -> None:
    order = [summary.partition(":")[0] for summary in seen.summaries if ", AP " in summary]
    assert order == sorted(
        order, key=lambda name: report.evaluations[0].scores[report.table.names.index(name)].roc_auc.value
    )


def test_cells_are_the_known_ones_of_the_held_out_pictures(report: Report) -> None:
    main, part = report.evaluations[0], report.held_out[0]
    for column, cells in enumerate(attribute_cells(main, part, report.table, report.heads, report.thresholds)):
        y, p, raw = known(report, column)
        assert (cells.y == y).all()
        assert (cells.p == p).all()
        assert (cells.raw == raw).all()
        assert (report.table.y[cells.rows, column] == y).all()
    for column, of_tag in enumerate(tag_cells(main, part, report.table, report.heads)):
        y, p, raw = known_tag(report, column)
        assert (of_tag.y == y).all()
        assert (of_tag.p == p).all()
        assert (of_tag.raw == raw).all()


def test_the_page_is_written_and_replaced(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, report)
    assert path.read_text(encoding="utf-8") == render(report)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_one_sentence(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "report.html"
    with pytest.raises(MultilabelError, match="cannot be written"):
        write_report(path, report)


@pytest.mark.parametrize("make", [lambda report: report, lambda report: replace(report, provenance={})])
def test_the_same_report_is_the_same_page(report: Report, make: Callable[[Report], Report]) -> None:
    assert render(make(report)) == render(make(report))
