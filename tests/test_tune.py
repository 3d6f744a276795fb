"""`multilabel tune`: what it chooses is chosen again from what `infer` says of the pictures."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from test_cli import QUICK, run

from multilabel import load_bundle
from multilabel.config import FOLDS
from multilabel.splits import assign_parts
from multilabel.thresholds import choose_thresholds, cross_fit_thresholds, precise_threshold

HEADER = "image,bright,noise"
TUNED = range(40, 140)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 pictures; `bright` is to be seen, `noise` is not."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    rows = []
    for number in range(140):
        bright = number % 2
        pixels = rng.integers(0, 150, (40, 40, 3)) + 100 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.jpg")
        rows.append(f"{number}.jpg,{'' if number % 7 == 0 else bright},{rng.integers(2)}")
    (folder / "train.csv").write_text("\n".join([HEADER, *rows[:40]]))
    (folder / "other.csv").write_text("\n".join([HEADER, *rows[40:]]))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    result = run(
        "fit", "--labels", folder / "train.csv", *QUICK, "--out", folder / "model", "--cache", folder / "cache"
    )
    assert result.exit_code == 0, result.output
    return folder / "model"


@pytest.fixture(scope="module")
def probabilities(folder: Path, trained: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of the pictures to tune on."""
    rows = list(csv.DictReader(io.StringIO((folder / "other.csv").read_text())))
    said = run("infer", "--model", trained, "--format", "csv", *(folder / "images" / row["image"] for row in rows))
    predicted = list(csv.DictReader(io.StringIO(said.stdout)))
    names = HEADER.split(",")[1:]
    y = np.array([[int(row[name] or -1) for name in names] for row in rows], np.int8)
    return y, np.array([[float(row[f"{name}_probability"]) for name in names] for row in predicted])


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def tune(bundle: Path, folder: Path, *options: object, labels: str = "other.csv"):
    return run("tune", "--model", bundle, "--labels", folder / labels, "--images", folder / "images", "--cache",
               folder / "cache", *options)  # fmt: skip


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ((), {}),
        (("--max-f1",), {}),
        (("--beta", "2"), {"beta": 2.0}),
        (("--shared",), {"shared": True}),
        (("--shared", "--beta", "0.5"), {"beta": 0.5, "shared": True}),
        (("--min-precision", "0.3"), {"min_precision": 0.3}),
    ],
)
def test_thresholds_are_those_of_the_other_labels(folder, bundle, probabilities, options, choice) -> None:
    before = files(bundle)
    old = load_bundle(bundle).thresholds
    result = tune(bundle, folder, *options)
    assert result.exit_code == 0, result.output
    y, p = probabilities
    chosen = choose_thresholds(y, p, **choice)
    new = load_bundle(bundle).thresholds
    for threshold, expected in zip(new, chosen, strict=True):
        assert threshold.value == pytest.approx(expected.value, abs=1e-4)
        assert (threshold.source, threshold.positives) == (expected.source, expected.positives)
        assert threshold.spread is not None
    after = files(bundle)
    assert {name for name in before if before[name] != after[name]} == {"multilabel.json"}
    assert set(after) == set(before)
    tuned = load_bundle(bundle).provenance["tuned"]
    assert tuned["labels"] == str(folder / "other.csv")
    assert {name: tuned[name] for name in choice} == choice
    changes = result.stdout.splitlines()
    assert changes[1].split() == ["attribute", "threshold", "precision", "recall", "F1"]
    for name, line, first, last in zip(("bright", "noise"), changes[2:4], old, new, strict=True):
        assert line.split()[:4] == [name, f"{first.value:.3f}", "->", f"{last.value:.3f}"]
    assert result.stdout.endswith(f"\nThe new thresholds are in {bundle}.\n")


def test_scores_are_cross_fitted(folder, bundle, probabilities) -> None:
    old = load_bundle(bundle).thresholds
    result = tune(bundle, folder)
    y, p = probabilities
    folds = assign_parts(y, [1.0] * FOLDS, seed=0)
    present, spreads = cross_fit_thresholds(y, p, folds, choose_thresholds)
    lines = result.stdout.splitlines()
    assert "Measured on the pictures of other.csv: 100 pictures, 186 of 200 labels known." in lines
    for column, (line, threshold) in enumerate(zip(lines[2:4], load_bundle(bundle).thresholds, strict=True)):
        known = y[:, column] != -1
        truth = y[known, column]
        scores = [f1_score(truth, called[known, column]) for called in (p > [t.value for t in old], present)]
        assert line.split()[-3:] == [f"{scores[0]:.2f}", "->", f"{scores[1]:.2f}"]
        assert threshold.spread == pytest.approx(spreads[column], abs=1e-4)


def test_infer_uses_the_new_thresholds(folder, bundle, probabilities) -> None:
    tune(bundle, folder, "--beta", "0.25")
    values = [threshold.value for threshold in load_bundle(bundle).thresholds]
    said = run("infer", "--model", bundle, "--format", "csv", *(folder / "images" / f"{n}.jpg" for n in TUNED))
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    for column, name in enumerate(("bright", "noise")):
        present = [row[f"{name}_present"] == "1" for row in rows]
        assert present == (probabilities[1][:, column] > values[column]).tolist()


def test_a_precision_that_cannot_be_kept_leaves_the_bundle_as_it_was(folder, bundle, probabilities) -> None:
    before = files(bundle)
    y, p = probabilities
    assert precise_threshold(y[:, 1], p[:, 1], 0.97) is None
    result = tune(bundle, folder, "--min-precision", "0.97")
    assert result.exit_code == 1
    assert "no threshold can be shown to keep a precision of 0.97; from its " in result.stderr.splitlines()[-1]
    assert result.stdout == ""
    assert files(bundle) == before


def test_an_attribute_without_positives_keeps_its_threshold(folder, bundle, tmp_path) -> None:
    (tmp_path / "labels.csv").write_text("image,bright\n" + "\n".join(f"{n}.jpg,{n % 2}" for n in TUNED))
    before = load_bundle(bundle).thresholds
    result = tune(bundle, folder, labels=tmp_path / "labels.csv")
    assert result.exit_code == 0, result.stderr
    assert "No label says that it is present, so the threshold stays: noise.\n" in result.stderr
    after = load_bundle(bundle).thresholds
    assert (after[1], after[0].positives) == (before[1], 50)
    result = tune(bundle, folder, "--shared", labels=tmp_path / "labels.csv")
    assert [threshold.source for threshold in load_bundle(bundle).thresholds] == ["shared", "shared"]


def test_without_any_positive_nothing_is_chosen(folder, bundle, tmp_path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,bright,noise\n" + "\n".join(f"{n}.jpg,0,0" for n in TUNED))
    before = files(bundle)
    result = tune(bundle, folder, labels=labels)
    assert result.exit_code == 1
    expected = f"Error: {labels}: no attribute has a known positive, so there is nothing to choose thresholds by."
    assert result.stderr.splitlines()[-1] == expected
    assert files(bundle) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--beta", "2", "--max-f1"), "--max-f1, --beta and --min-precision exclude one another; give one of them."),
        (
            ("--beta", "2", "--min-precision", "0.5"),
            "--max-f1, --beta and --min-precision exclude one another; give one of them.",
        ),
        (
            ("--min-precision", "0.5", "--shared"),
            "--min-precision is kept by each attribute for itself; leave out --shared.",
        ),
    ],
)
def test_options_that_contradict_each_other(folder, bundle, options, message) -> None:
    result = tune(bundle, folder, *options)
    assert (result.exit_code, result.stderr) == (2, f"Error: {message}\n")


def test_pictures_of_the_training_are_no_good_for_thresholds(folder, bundle) -> None:
    text = "The model is surer of pictures that it learnt from than of others: tune on others."
    assert text in tune(bundle, folder, labels="train.csv").stderr
    assert text not in tune(bundle, folder).stderr


def test_a_bundle_of_tags_alone(folder, tmp_path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,shade\n" + "\n".join(f"{n}.jpg,{'light' if n % 2 else 'dark'}" for n in range(40)))
    options = ("--images", folder / "images", "--cache", folder / "cache")
    run("fit", "--labels", labels, *options, *QUICK, "--tags", "shade", "--out", tmp_path / "model")
    result = run("tune", "--model", tmp_path / "model", "--labels", labels, *options)
    assert result.exit_code == 2
    expected = f"Error: {tmp_path}/model has tags alone, and tags have no thresholds; there is nothing to tune.\n"
    assert result.stderr == expected


def test_a_description_that_cannot_be_replaced(folder, bundle, monkeypatch) -> None:
    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    before = files(bundle)
    monkeypatch.setattr(Path, "replace", fail)
    result = tune(bundle, folder)
    assert result.exit_code == 1
    assert "cannot be written (No space left on device)" in result.stderr
    assert files(bundle) == before


def test_the_file_is_still_strict_json(folder, bundle) -> None:
    tune(bundle, folder)
    described = json.loads((bundle / "multilabel.json").read_text())
    low, high = described["thresholds"][0]["spread"]
    assert 0 <= low <= high <= 1
