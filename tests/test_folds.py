"""`fit` as it is without further options, through the command line: folds, calibration, and what is written of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from scipy.special import expit, logit, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from test_cli import run

from multilabel import training

COUNT = 40
SHADES = ("dark", "green", "red")
ATTRIBUTES = ("bright", "noise")
NETWORK = ["--backbone", "cnn", "--weights", "none", "--image-size", "32", "--epochs", "6", "--lr", "0.02"]
TAGS = ["--tags", "shade"]
TEXTS = ("predictions.csv", "history.csv", "metrics.json", "label_issues.csv", "suggested_labels.csv", "skipped.csv")


def draw(path: Path, bright: int, shade: int, rng: np.random.Generator) -> None:
    """Noise on a darker or brighter ground with a tint."""
    tint = np.array([[0, 0, 0], [0, 60, 0], [60, 0, 0]])[shade]
    pixels = rng.integers(0, 120, (32, 32, 3)) + 60 * bright + tint
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures; `bright` and `shade` are to be seen and partly unknown, `noise` is not to be seen."""
    folder = tmp_path_factory.mktemp("folds")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = ["image,bright,noise,shade"]
    for number in range(COUNT):
        bright, shade = number % 2, number // 2 % 3
        draw(folder / "images" / f"{number}.png", bright, shade, rng)
        cells = ["" if number % 10 == 0 else bright, rng.integers(2), "" if number % 7 == 3 else SHADES[shade]]
        rows.append(",".join(map(str, [f"{number}.png", *cells])))
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def fit(folder: Path, out: Path, *options: object, labels: str | Path = "labels.csv") -> Result:
    """A training on the pictures of the folder, whatever comes of it."""
    place = ["--labels", folder / labels, "--images", folder / "images", "--cache", folder / "cache", "--out", out]
    return run("fit", *place, *NETWORK, *options)


def well(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def parts_of(out: Path) -> list[dict[str, Any]]:
    return read_json(out / "metrics.json")["parts"]


def predictions_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "predictions.csv", keep_default_na=False, na_values=[""])


def served(out: Path, folder: Path, images: pd.Series) -> list[dict[str, Any]]:
    """What `infer` says of pictures."""
    paths = [folder / "images" / name for name in images]
    return json.loads(well(run("infer", "--model", out, "--format", "json", *paths)).stdout)


@pytest.fixture(scope="module")
def default(folder: Path) -> tuple[Path, Result]:
    """Everything as it is by default, with attributes and a tag."""
    out = folder / "default"
    return out, well(fit(folder, out, *TAGS))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """The same without calibration."""
    well(fit(folder, folder / "plain", *TAGS, "--no-calibrate"))
    return folder / "plain"


@pytest.fixture(scope="module")
def tested(folder: Path) -> tuple[Path, Result]:
    """Three folds, a test part and the permutation test."""
    out = folder / "tested"
    return out, well(fit(folder, out, *TAGS, "--folds", "3", "--test-share", "0.25", "--permutations", "19"))


# What is written


def test_the_whole_bundle(default: tuple[Path, Result]) -> None:
    out, result = default
    assert sorted(path.name for path in out.iterdir()) == [
        "history.csv",
        "label_issues.csv",
        "loss_curve.png",
        "metrics.json",
        "model.weights.h5",
        "multilabel.json",
        "predictions.csv",
        "report.html",
        "skipped.csv",
        "suggested_labels.csv",
    ]
    assert f"Training part: {COUNT} pictures; 5 folds.\n" in result.stderr
    assert "Measured on the training part, out of fold: 40 pictures, 110 of 120 labels known.\n" in result.stdout
    assert "Below each threshold: its range over the folds." in result.stdout
    assert "decided when to stop" not in result.stdout
    assert "p-value" not in result.stdout
    provenance = read_json(out / "multilabel.json")["provenance"]
    assert (provenance["folds"], provenance["pictures"]) == (5, {"training": COUNT, "validation": 0, "test": 0})
    (part,) = parts_of(out)
    assert part["part"] == "training part, out of fold"
    assert (part["cross_fitted"], part["ended_training"]) == (True, False)
    assert all(scores["p_value"] is None for scores in part["attributes"].values())


def test_every_picture_is_predicted_once(default: tuple[Path, Result], folder: Path) -> None:
    predictions = predictions_of(default[0])
    assert list(predictions) == [
        "image",
        "part",
        "fold",
        *(f"{name}_{what}" for what in ("label", "probability", "present") for name in ATTRIBUTES),
        "shade_label",
        "shade_class",
        "shade_probability",
    ]
    assert predictions["image"].tolist() == [f"{number}.png" for number in range(COUNT)]
    assert set(predictions["part"]) == {"out-of-fold"}
    sizes = predictions["fold"].value_counts()
    assert sorted(sizes.index) == [1, 2, 3, 4, 5]
    assert sizes.between(6, 10).all()
    labels = pd.read_csv(folder / "labels.csv")
    for name in (*ATTRIBUTES, "shade"):
        pd.testing.assert_series_equal(predictions[f"{name}_label"], labels[name], check_names=False)


@pytest.mark.parametrize("which", ["default", "tested"])
def test_scores_equal_scikit_learn_on_the_written_predictions(which: str, request: pytest.FixtureRequest) -> None:
    out, _ = request.getfixturevalue(which)
    predictions = predictions_of(out)
    names = {"training part, out of fold": "out-of-fold", "test part": "test"}
    for part in parts_of(out):
        rows = predictions[predictions["part"] == names[part["part"]]]
        assert part["pictures"] == len(rows) > 0
        assert list(part["attributes"]) == list(ATTRIBUTES)
        for name, scores in part["attributes"].items():
            known = rows[rows[f"{name}_label"].notna()]
            y, p, present = (known[f"{name}_{what}"] for what in ("label", "probability", "present"))
            assert scores["known"] == len(known)
            expected = {
                "precision": precision_score(y, present, zero_division=0),
                "recall": recall_score(y, present),
                "f1": f1_score(y, present),
                "average_precision": average_precision_score(y, p),
                "roc_auc": roc_auc_score(y, p),
            }
            assert {key: scores[key]["value"] for key in expected} == pytest.approx(expected, abs=1e-12)
        known = rows[rows["shade_label"].notna()]
        y, said = known["shade_label"], known["shade_class"]
        tag = part["tags"]["shade"]
        assert tag["known"] == len(known)
        assert tag["accuracy"]["value"] == pytest.approx(accuracy_score(y, said), abs=1e-12)
        macro = f1_score(y, said, average="macro", labels=sorted(set(y)), zero_division=0)
        assert tag["macro_f1"]["value"] == pytest.approx(macro, abs=1e-12)


def test_thresholds_are_those_of_the_folds(default: tuple[Path, Result]) -> None:
    """In each fold one threshold, within the range that is told, parts what is present from what is not."""
    predictions = predictions_of(default[0])
    for threshold in read_json(default[0] / "multilabel.json")["thresholds"]:
        name, (low, high) = threshold["attribute"], threshold["spread"]
        assert low <= high
        for _, rows in predictions.groupby("fold"):
            p, present = rows[f"{name}_probability"].to_numpy(), rows[f"{name}_present"] == 1
            highest_absent, lowest_present = p[~present].max(initial=0), p[present].min(initial=1)
            assert highest_absent < lowest_present
            assert highest_absent <= high
            assert lowest_present > low


def test_the_history_has_every_training(default: tuple[Path, Result]) -> None:
    """The model that is kept trains for no longer than the folds did, and nothing measures it."""
    history = pd.read_csv(default[0] / "history.csv")
    assert history.columns[0] == "fold"
    assert history["fold"].dropna().unique().tolist() == [1, 2, 3, 4, 5]
    epochs = []
    for _, rows in history[history["fold"].notna()].groupby("fold"):
        assert rows["iteration_number"].tolist() == list(range(1, len(rows) + 1))
        measured = rows[rows["validation_loss"].notna()]
        assert measured["epoch"].tolist() == list(range(1, rows["epoch"].max() + 1))
        epochs.append(len(measured))
    kept = history[history["fold"].isna()]
    assert kept.index.tolist() == list(range(len(history) - len(kept), len(history)))  # the last rows
    assert kept["epoch"].max() <= max(epochs)
    assert len(kept) == kept["epoch"].max() * 2  # batches of 32 and 8
    assert kept[["validation_loss", "validation_accuracy"]].isna().all(axis=None)
    assert kept["training_loss"].notna().all()


def test_a_second_fit_takes_its_place_computes_nothing_and_agrees(
    default: tuple[Path, Result], folder: Path, tmp_path: Path
) -> None:
    first = shutil.copytree(default[0], tmp_path / "default")
    result = well(fit(folder, first, *TAGS))
    assert f"Features: 0 computed, {COUNT} stored already" in result.stderr
    assert result.stdout.partition("\nThe bundle is in")[0] == default[1].stdout.partition("\nThe bundle is in")[0]
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in default[0].iterdir())
    for name in (*TEXTS, "loss_curve.png"):
        assert (first / name).read_bytes() == (default[0] / name).read_bytes(), name
    made = [read_json(out / "multilabel.json") for out in (default[0], first)]
    for description in made:  # HDF5 notes the time, and the rest says when and where
        del description["weights_sha256"], description["provenance"]["created"], description["provenance"]["settings"]
    assert made[0] == made[1]
    pages = [(out / "report.html").read_text(encoding="utf-8") for out in (default[0], first)]
    assert _without_time_and_place(pages[0]) == _without_time_and_place(pages[1])


def _without_time_and_place(page: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+|[\w/.-]*/default\b", "", page)


# Calibration


def test_what_is_served_is_calibrated_as_the_bundle_says(
    default: tuple[Path, Result], plain: Path, folder: Path
) -> None:
    """Without calibration the same logits are served as they are; the numbers in the bundle make one of the other."""
    assert read_json(plain / "multilabel.json")["calibration"] == {}
    calibration = read_json(default[0] / "multilabel.json")["calibration"]
    assert list(calibration) == [*ATTRIBUTES, "shade"]
    assert {one["kind"] for one in calibration.values()} != {"none"}
    for one in calibration.values():
        assert one["log_loss_after"] <= one["log_loss_before"]
    images = predictions_of(plain)["image"]
    raw, scaled = (served(out, folder, images) for out in (plain, default[0]))
    for name in ATTRIBUTES:
        before, after = (
            np.array([record["attributes"][name]["probability"] for record in records]) for records in (raw, scaled)
        )
        expected = expit(calibration[name]["slope"] * logit(before) + calibration[name]["intercept"])
        np.testing.assert_allclose(after, expected, atol=1e-5)
    before, after = (
        np.array([[{of["class"]: of["probability"] for of in record["tags"]["shade"]["top"]}[shade] for shade in SHADES]
                  for record in records])
        for records in (raw, scaled)
    )  # fmt: skip
    np.testing.assert_allclose(after, softmax(np.log(before) / calibration["shade"]["value"], axis=1), atol=1e-5)


def test_stored_probabilities_of_a_fold_are_calibrated_by_the_others(default: tuple[Path, Result], plain: Path) -> None:
    """Log-odds of a fold lie on a line over those of the same heads without calibration, and each fold has its own."""
    before, after = predictions_of(plain), predictions_of(default[0])
    assert before["fold"].tolist() == after["fold"].tolist()
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in ATTRIBUTES}
    for name in ATTRIBUTES:
        for _, rows in before.groupby("fold"):
            x, y = (logit(of.loc[rows.index, f"{name}_probability"]) for of in (before, after))
            slope, intercept = np.polyfit(x, y, 1)
            assert slope > 0
            np.testing.assert_allclose(y, slope * x + intercept, atol=1e-4)
            lines[name].append((slope, intercept))
    assert any(np.ptp(of_folds, axis=0).max() > 1e-3 for of_folds in lines.values())
    assert before["shade_class"].tolist() == after["shade_class"].tolist()


# The test part, other numbers of folds, and the permutation test


def test_the_test_part_is_served_as_it_was_measured(tested: tuple[Path, Result], folder: Path) -> None:
    out, result = tested
    predictions = predictions_of(out)
    test_part = predictions[predictions["part"] == "test"]
    assert f"Training part: {COUNT - len(test_part)} pictures; 3 folds; test part: {len(test_part)}." in result.stderr
    assert len(test_part) == pytest.approx(COUNT / 4, abs=2)
    assert test_part["fold"].isna().all()
    assert set(predictions["fold"].dropna()) == {1, 2, 3}
    assert sorted(predictions["image"]) == sorted(f"{number}.png" for number in range(COUNT))
    measured, of_test = parts_of(out)
    assert (measured["part"], of_test["part"]) == ("training part, out of fold", "test part")
    assert (of_test["cross_fitted"], of_test["ended_training"]) == (False, False)
    records = served(out, folder, test_part["image"])
    for name in ATTRIBUTES:
        p = [record["attributes"][name]["probability"] for record in records]
        np.testing.assert_allclose(p, test_part[f"{name}_probability"], atol=1e-5)
        assert [name in record["present"] for record in records] == (test_part[f"{name}_present"] == 1).tolist()
    for key, column in (("class", "shade_class"), ("probability", "shade_probability")):
        said = [record["tags"]["shade"][key] for record in records]
        assert said == (test_part[column].tolist() if key == "class" else pytest.approx(test_part[column], abs=1e-5))
    description = read_json(out / "multilabel.json")
    both = [*measured["not_better_than_chance"], *of_test["not_better_than_chance"]]
    assert description["not_better_than_chance"] == list(dict.fromkeys(both))
    assert description["provenance"]["folds"] == 3


def test_permutations_give_p_values(tested: tuple[Path, Result]) -> None:
    """Of 19 draws, so in steps of 1/20; on the out-of-fold predictions alone."""
    out, result = tested
    measured, of_test = parts_of(out)
    values = {name: scores["p_value"] for name, scores in measured["attributes"].items()}
    assert values["bright"] == pytest.approx(1 / 20)
    assert values["noise"] > 1 / 20
    assert 20 * values["noise"] == pytest.approx(round(20 * values["noise"]))
    assert [scores["p_value"] for scores in of_test["attributes"].values()] == [None, None]
    first, second = result.stdout.split("Measured on the test part")
    header, row = (next(line for line in first.splitlines() if line.startswith(word)) for word in ("attr", "bright"))
    assert header.endswith("   p-value")
    assert row.endswith("     0.050")
    assert "p-value" not in second


@pytest.mark.parametrize("folds", [3, 0])
def test_heads_by_lbfgs(folds: int, folder: Path, tmp_path: Path) -> None:
    """All that is written and served is there and agrees, only that an epoch is one L2 strength."""
    network = [option for option in NETWORK if option not in ("--epochs", "6", "--lr", "0.02")]
    place = ["--labels", folder / "labels.csv", "--images", folder / "images", "--cache", folder / "cache"]
    out = tmp_path / "out"
    result = well(run("fit", *place, "--out", out, *network, *TAGS, "--solver", "lbfgs", "--folds", folds))
    again = well(
        run("fit", *place, "--out", tmp_path / "again", *network, *TAGS, "--solver", "lbfgs", "--folds", folds)
    )
    assert again.stdout.partition("\nThe bundle")[0] == result.stdout.partition("\nThe bundle")[0]
    history = pd.read_csv(out / "history.csv")
    searched = history[history["fold"].notna()] if folds else history
    for _, rows in searched.groupby("fold", dropna=False):
        assert rows["iteration_number"].tolist() == list(range(1, len(rows) + 1))
        last_of_strengths = rows[rows["validation_loss"].notna()]
        assert last_of_strengths["epoch"].tolist() == list(range(1, rows["epoch"].max() + 1))
    if folds:
        assert re.search(r"best for an attribute or tag were L2 strengths from [\d.e-]+ to [\d.e+]+, in", result.stderr)
        assert re.search(r"Trained heads on all of the training part for \d+ iterations of L-BFGS \(", result.stderr)
        assert history[history["fold"].isna()]["epoch"].tolist() == [1] * history["fold"].isna().sum()
    else:
        assert re.search(
            r"Trained heads with \d+ L2 strengths \(.* s\); kept for each attribute and tag the weights with the "
            "lowest validation loss.",
            result.stderr,
        )
    assert (out / "loss_curve.png").stat().st_size > 10_000
    (part,) = parts_of(out)
    assert part["attributes"]["bright"]["roc_auc"]["value"] > 0.8
    assert part["tags"]["shade"]["accuracy"]["value"] > 0.8


def test_no_folds(folder: Path, tmp_path: Path) -> None:
    result = well(fit(folder, tmp_path / "out", "--folds", "0", "--attributes", "bright,noise"))
    assert "Training part: 32 pictures; validation part: 8.\n" in result.stderr
    (part,) = parts_of(tmp_path / "out")
    assert (part["part"], part["cross_fitted"], part["ended_training"]) == ("validation part", True, True)
    sentence = (
        "The same pictures (validation part) decided when to stop training: the scores are a little flattering.\n"
    )
    assert sentence in result.stdout
    predictions = predictions_of(tmp_path / "out")
    assert set(predictions["part"]) == {"validation"}
    assert set(predictions["fold"]) == {1, 2, 3, 4, 5}  # by which calibration and thresholds are cross-fitted
    assert pd.read_csv(tmp_path / "out" / "history.csv")["fold"].isna().all()
    assert read_json(tmp_path / "out" / "multilabel.json")["provenance"]["folds"] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--folds", "1"], 2, "--folds is 1; expected 0 for a single split, or a whole number from 2 to 100."),
        (
            ["--folds", "5", "--fine-tune", "all"],
            2,
            "--folds is for a frozen backbone; leave it out where the backbone is trained.",
        ),
        (
            ["--permutations", "19", "--folds", "0"],
            2,
            "--permutations trains heads on folds of stored features; it needs --folds.",
        ),
        (
            ["--permutations", "19", "--missing", "selective"],
            2,
            "--permutations trains many heads side by side, which --missing selective would mix up.",
        ),
        (
            ["--permutations", "19", "--only-tags"],
            2,
            "--permutations would do nothing without attributes, and the labels have only tags.",
        ),
        (
            ["--permutations", "19", "--few"],
            1,
            "There are too few labels of rare for 5 folds, which --permutations needs; leave it out, "
            "or choose fewer --folds.",
        ),
        (["--folds", "41"], 1, "40 different pictures cannot fill 41 folds; choose fewer --folds."),
        (["--split", "part", "--folds", "3"], 2, "--split fixes the validation part, too; leave out --folds."),
        (
            ["--split", "part", "--folds", "3", "--permutations", "9"],
            2,
            "--split fixes the validation part, too; leave out --folds, --permutations.",
        ),
    ],
)
def test_what_cannot_be_done(options: list[str], code: int, message: str, folder: Path, tmp_path: Path) -> None:
    """Said in one sentence, before anything is trained or written."""
    table = pd.read_csv(folder / "labels.csv", dtype=str)
    if "--only-tags" in options:
        table = table[["image", "shade"]]
        options = [*options[:-1], *TAGS]
    else:
        table = table.drop(columns="shade")
    if "--few" in options:
        table["rare"] = with_labels(9)
        options = options[:-1]
    if "--split" in options:
        table["part"] = ["train", "val"] * (COUNT // 2)
    labels = tmp_path / "labels.csv"
    table.to_csv(labels, index=False)
    result = fit(folder, tmp_path / "out", *options, labels=labels)
    assert result.exit_code == code, result.output
    assert result.stderr.endswith(f"Error: {message}\n")
    assert list(tmp_path.iterdir()) == [labels]


def with_labels(count: int) -> list[str]:
    """A column with so many known labels."""
    return [str(number % 2) if number < count else "" for number in range(COUNT)]


def test_too_few_labels_for_folds(folder: Path, tmp_path: Path) -> None:
    """With less than two known labels for each fold there is one validation part, as with --folds 0."""
    table = pd.read_csv(folder / "labels.csv", dtype=str)[["image", "bright"]]
    for name, known in (("scarce", 7), ("rare", 9), ("enough", 10)):
        table[name] = with_labels(known)
    table.to_csv(tmp_path / "labels.csv", index=False)
    result = well(fit(folder, tmp_path / "out", labels=tmp_path / "labels.csv"))
    assert "There are too few labels of scarce, rare for 5 folds: one validation part instead.\n" in result.stderr
    assert re.search(r"^Training part: \d+ pictures; validation part: \d+\.$", result.stderr, re.MULTILINE)
    (part,) = parts_of(tmp_path / "out")
    assert part["part"] == "validation part"
    assert read_json(tmp_path / "out" / "multilabel.json")["provenance"]["folds"] == 0


def test_copies_and_pictures_of_the_test_part_do_not_count_for_folds(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(24):
        shutil.copy(folder / "images" / f"{number % 6}.png", tmp_path / "images" / f"{number}.png")
    rows = [f"{number}.png,{number % 2},{'train' if number % 6 < 4 else 'test'}\n" for number in range(24)]
    (tmp_path / "labels.csv").write_text("image,bright,part\n" + "".join(rows))
    for options, expected in (
        (["--attributes", "bright"], "There are too few pictures for 5 folds: one validation part instead.\n"),
        (["--split", "part"], "There are too few pictures for 5 folds: one validation part instead.\n"),
        (["--split", "part", "--folds", "5"], "Error: 4 different pictures cannot fill 5 folds; choose fewer --folds."),
    ):
        arguments = ["--labels", tmp_path / "labels.csv", "--cache", folder / "cache", "--out", tmp_path / "out"]
        result = run("fit", *arguments, *NETWORK[:-4], "--epochs", "1", *options)
        assert expected in result.stderr
        assert result.exit_code == int(expected.startswith("Error"))


def test_a_split_of_training_and_test_part_alone_has_folds(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "labels.csv", dtype=str).drop(columns=["shade", "noise"])
    table["part"] = ["test" if number % 4 == 1 else "train" for number in range(COUNT)]
    table["part"] = table["part"].where(table.index > 2, "")
    table.to_csv(tmp_path / "labels.csv", index=False)
    result = well(fit(folder, tmp_path / "out", "--split", "part", "--epochs", "1", labels=tmp_path / "labels.csv"))
    assert "Training part: 28 pictures; 5 folds; test part: 9.\n" in result.stderr
    predictions = predictions_of(tmp_path / "out")
    assert predictions["part"].tolist() == ["out-of-fold"] * 28 + ["test"] * 9
    for word, part in (("train", "out-of-fold"), ("test", "test")):
        images = table["image"][table["part"] == word].tolist()
        assert predictions["image"][predictions["part"] == part].tolist() == images


def test_infer_warns_of_what_is_chance(default: tuple[Path, Result], folder: Path) -> None:
    (part,) = parts_of(default[0])
    doubtful = read_json(default[0] / "multilabel.json")["not_better_than_chance"]
    assert doubtful == part["not_better_than_chance"]
    assert "noise" in doubtful
    assert "bright" not in doubtful
    result = well(run("infer", "--model", default[0], folder / "images" / "3.png"))
    listed = ", ".join(doubtful)
    assert result.stderr == f"Not better than chance when the model was measured, so do not rely on: {listed}.\n"


# Labels that look wrong, and labels for unknown cells


def test_labels_that_look_wrong_and_labels_for_unknown_cells(tmp_path: Path) -> None:
    """Of 240 pictures 4 bright ones are labelled dark, and 24 have no label; names are as the labels file has them."""
    (tmp_path / "images" / "a b").mkdir(parents=True)
    rng = np.random.default_rng(1)
    wrong, unknown = {3, 63, 123, 183}, set(range(7, 240, 10))
    truth, given = {}, {}
    for number in range(240):
        name = f"a b/{number}.png" if number % 2 else f"{number}.png"
        truth[name] = number // 2 % 2
        draw(tmp_path / "images" / name, truth[name], 0, rng)
        given[name] = "NA" if number in unknown else str(truth[name] ^ (number in wrong))
    (tmp_path / "labels.csv").write_text("image,bright\n" + "".join(f"{n},{label}\n" for n, label in given.items()))
    arguments = ["--labels", tmp_path / "labels.csv", "--cache", tmp_path / "cache", "--out", tmp_path / "out"]
    well(run("fit", *arguments, *NETWORK, "--folds", "2"))
    issues, suggestions = (
        pd.read_csv(tmp_path / "out" / f"{name}.csv", dtype={"given": str, "suggested": str})
        for name in ("label_issues", "suggested_labels")
    )
    assert list(issues) == ["image", "column", "given", "suggested", "self_confidence", "suggested_probability"]
    assert list(suggestions) == ["image", "column", "suggested", "suggested_probability"]
    names = list(given)
    assert len(issues) >= 3
    assert set(issues["image"][:3]) <= {names[number] for number in wrong}
    for row in issues.itertuples():
        assert (row.column, row.given) == ("bright", given[row.image])
        assert row.given != "NA"
        assert row.suggested == str(1 - int(row.given))
    assert len(suggestions) >= 6
    assert set(suggestions["image"]) <= {names[number] for number in unknown}
    right = [truth[row.image] == int(row.suggested) for row in suggestions.itertuples()]
    assert np.mean(right) > 0.9
    stored = predictions_of(tmp_path / "out").set_index("image")["bright_probability"]
    for row in [*issues.itertuples(), *suggestions.itertuples()]:
        p = stored[row.image]
        assert row.suggested_probability == pytest.approx(p if row.suggested == "1" else 1 - p, abs=1e-12)


# Ctrl-C


def test_ctrl_c_in_the_folds_ends_with_one_sentence(
    default: tuple[Path, Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second epoch of a training for a fold; nothing is left, and a bundle that was there stays."""
    original, ends = training.Log.on_epoch_end, []

    def interrupted(self: training.Log, epoch: int, logs: Any = None) -> None:
        original(self, epoch, logs)
        ends.append(epoch)
        if ends.count(0) > 2 and epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Log, "on_epoch_end", interrupted)
    monkeypatch.setattr(os, "_exit", sys.exit)  # the process of the tests is to live on
    old = shutil.copytree(default[0], tmp_path / "old")
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    result = fit(folder, old, "--attributes", "bright,noise")
    assert result.exit_code == 1
    assert result.stdout == ""
    *remarks, sentence = result.stderr.splitlines()
    assert remarks[-1] == f"Training part: {COUNT} pictures; 5 folds."
    assert sentence == (
        "Stopped after 2 epochs of training; no bundle was written. "
        "The features are kept, so the same command is quick to train again."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
