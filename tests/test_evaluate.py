"""`multilabel evaluate`, as a user runs it: its scores are computed again from what `infer` says of the pictures."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score
from test_cli import QUICK, run

from multilabel.labels import LabelTable, Tag, align

HEADER = "image,bright,noise,shade"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures; `bright` is to be seen, `noise` is not; of the tag `shade` two classes are rare."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    rows = []
    for number in range(60):
        bright = number % 2
        pixels = rng.integers(0, 150, (40, 40, 3)) + 100 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.jpg")
        shade = {3: "ivory", 4: "jet"}.get(number, "light" if bright else "dark")
        rows.append(f"{number}.jpg,{'' if number % 7 == 0 else bright},{rng.integers(2)},{shade}")
    (folder / "train.csv").write_text("\n".join([HEADER, *rows[:40]]))
    (folder / "test.csv").write_text("\n".join([HEADER, *rows[40:]]))
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    result = run("fit", "--labels", folder / "train.csv", *QUICK, "--tags", "shade", "--min-count", "2",
                 "--pool-name", "other", "--out", folder / "model", "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "model"


def evaluate(bundle: Path, labels: Path, *options: object):
    cache = bundle.parent / "cache"
    return run("evaluate", "--model", bundle, "--labels", labels, "--images", bundle.parent / "images",
               "--cache", cache, *options)  # fmt: skip


def test_scores_equal_scikit_learn_on_what_infer_says(folder: Path, bundle: Path, tmp_path: Path) -> None:
    result = evaluate(bundle, folder / "test.csv", "--output", tmp_path / "scores.json")
    assert result.exit_code == 0, result.stderr
    assert "Measured on the pictures of test.csv: 20 pictures, 57 of 60 labels known." in result.stdout
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["part"] == "pictures of test.csv"
    assert not written["cross_fitted"]
    assert not written["ended_training"]

    labels = list(csv.DictReader(io.StringIO((folder / "test.csv").read_text())))
    paths = [folder / "images" / row["image"] for row in labels]
    predicted = run("infer", "--model", bundle, "--format", "csv", *paths)
    predictions = list(csv.DictReader(io.StringIO(predicted.stdout)))
    for name in ("bright", "noise"):
        pairs = [(int(row[name]), said) for row, said in zip(labels, predictions, strict=True) if row[name]]
        y, said = [label for label, _ in pairs], [said for _, said in pairs]
        p = [float(row[f"{name}_probability"]) for row in said]
        scores = written["attributes"][name]
        assert scores["known"] == len(y)
        assert scores["average_precision"]["value"] == pytest.approx(average_precision_score(y, p), abs=1e-6)
        assert scores["roc_auc"]["value"] == pytest.approx(roc_auc_score(y, p), abs=1e-6)
        present = [int(row[f"{name}_present"]) for row in said]
        assert scores["f1"]["value"] == pytest.approx(f1_score(y, present), abs=1e-6)
    accuracy = accuracy_score([row["shade"] for row in labels], [row["shade_class"] for row in predictions])
    assert written["tags"]["shade"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_features_are_computed_once(folder: Path, bundle: Path) -> None:
    evaluate(bundle, folder / "test.csv")
    assert "Features: 0 computed, 20 stored already" in evaluate(bundle, folder / "test.csv").stderr


def test_what_the_model_does_not_know(folder: Path, bundle: Path, tmp_path: Path) -> None:
    labels = tmp_path / "other.csv"
    labels.write_text("image,shade,round,bright\n40.jpg,ivory,1,0\n41.jpg,neon,0,1\n42.jpg,dark,0,0\n43.jpg,neon,1,1\n")
    result = evaluate(bundle, labels, "--output", tmp_path / "scores.json")
    assert result.exit_code == 0, result.stderr
    assert f"Not in {labels}, so not measured: noise." in result.stderr
    assert "Left out, because the model does not know them: round." in result.stderr
    assert "Labels of classes that the model does not know count as unknown: shade: neon 2." in result.stderr
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (written["attributes"]["bright"]["known"], written["attributes"]["noise"]["known"]) == (4, 0)
    known = {name: scores["known"] for name, scores in written["tags"]["shade"]["classes"].items()}
    assert known == {"dark": 1, "light": 0, "other": 1}  # ivory is in the pooled class


def test_a_tag_must_be_there(bundle: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,bright\n40.jpg,1\n41.jpg,0\n")
    result = evaluate(bundle, labels)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {labels}: there is no column 'shade'; there are bright.\n"


def test_labels_that_have_nothing_to_do_with_the_model(folder: Path, tmp_path: Path) -> None:
    for name, header in (("train", "bright,noise"), ("other", "round")):
        rows = [f"{number}.jpg" + f",{number % 2}" * (header.count(",") + 1) for number in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"image,{header}", *rows]))
    images, cache = ("--images", folder / "images"), ("--cache", folder / "cache")
    run("fit", "--labels", tmp_path / "train.csv", *images, *cache, *QUICK, "--out", tmp_path / "model")
    scores = tmp_path / "scores.json"
    result = run("evaluate", "--model", tmp_path / "model", "--labels", tmp_path / "other.csv", *images, *cache,
                 "--output", scores)  # fmt: skip
    assert result.exit_code == 1
    expected = f"Error: {tmp_path}/other.csv: has round, but the model knows bright, noise.\n"
    assert result.stderr.endswith(expected)
    assert not scores.exists()


def test_the_labels_of_the_training_flatter(folder: Path, bundle: Path) -> None:
    result = evaluate(bundle, folder / "train.csv")
    assert result.exit_code == 0
    text = "These are the labels and pictures that the model was made of: the scores are flattering."
    assert text in result.stderr
    assert text not in evaluate(bundle, folder / "test.csv").stderr


def test_a_bundle_that_is_none(folder: Path, tmp_path: Path) -> None:
    result = run("evaluate", "--model", tmp_path, "--labels", folder / "test.csv")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path} is not a bundle (it holds no multilabel.json); make one with `multilabel fit`.\n"
    )


def test_align() -> None:
    table = LabelTable(
        ("1.jpg", "2.jpg", "3.jpg"),
        np.array([[1, 0], [-1, 1], [0, -1]], np.int8),
        ("b", "c"),
        tags=(Tag("colour", ("red", "pink", "green", "blue")),),
        tag_y=np.array([[0], [1], [2]], np.int16),
    )
    tags = (Tag("colour", ("green", "reddish")), Tag("size", ("s", "m")))
    aligned, strange = align(table, ("a", "c", "b"), tags, {"colour": {"red": "reddish"}})
    assert aligned.y.tolist() == [[-1, 0, 1], [-1, 1, -1], [-1, -1, 0]]
    assert aligned.tag_y.tolist() == [[1, -1], [-1, -1], [0, -1]]
    assert (aligned.names, aligned.tags) == (("a", "c", "b"), tags)
    assert strange == {"colour: pink": 1, "colour: blue": 0}


def test_names_given_in_training_are_for_files_without_names(folder: Path, tmp_path: Path) -> None:
    images, cache = ("--images", folder / "images"), ("--cache", folder / "cache")
    plain, named, other = tmp_path / "plain.txt", tmp_path / "named.csv", tmp_path / "other.csv"
    plain.write_text("\n".join(f"{number}.jpg {number % 2} {number % 3 % 2}" for number in range(40)))
    named.write_text("image,third\n" + "\n".join(f"{number}.jpg,{number % 3 % 2}" for number in range(40)))
    other.write_text(plain.read_text().replace(" ", ","))
    other.write_text(f"image,red,green\n{other.read_text()}")
    model = tmp_path / "model"
    run("fit", "--labels", plain, *images, *cache, *QUICK, "--names", "odd,third", "--out", model)
    scores = []
    otherwise = f"{other} names its attributes otherwise than the model; in their order, red as odd, green as third."
    for labels in (plain, named, other):
        result = run("evaluate", "--model", model, "--labels", labels, *images, *cache, "--output", tmp_path / "s.json")
        assert result.exit_code == 0, result.stderr
        assert (otherwise in result.stderr) == (labels == other)
        scores.append(json.loads((tmp_path / "s.json").read_text())["attributes"])
    assert scores[0]["third"] == scores[1]["third"] == scores[2]["third"]
    assert (scores[0]["odd"]["known"], scores[1]["odd"]["known"]) == (40, 0)
