"""The command line as a user runs it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from broken_pictures import broken_pictures
from click.testing import CliRunner, Result
from malformed import malformed_label_files
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from multilabel import load_bundle
from multilabel.checkpoints import STATE
from multilabel.cli import main

# A single split; test_folds.py has the folds.
QUICK = ["--folds", "0", "--backbone", "cnn", "--weights", "none", "--image-size", "32", "--epochs", "3"]


def run(*arguments: object, stdin: str | None = None) -> Result:
    """A command in this process; whatever happens, no traceback."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def shell(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, without any network to download from."""
    nowhere = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "multilabel", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**environment, **nowhere}, **settings
    )  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures; `bright` is to be seen, `noise` is not; one file is absent, one is broken."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    lines = ["gone.jpg 1 0", "broken.jpg 0 1"]
    (folder / "images" / "broken.jpg").write_bytes(b"no picture")
    for number in range(40):
        bright = number % 2
        pixels = rng.integers(0, 120, (40, 40, 3)) + 130 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.jpg")
        lines.append(f"{number}.jpg {'NA' if number % 10 == 0 else bright} {rng.integers(2)}")
    (folder / "labels.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    out = folder / "model"
    result = run("fit", "--labels", folder / "labels.txt", *QUICK, "--names", "bright,noise", "--out", out,
                 "--cache", folder / "cache", "--run-name", "Test_run")  # fmt: skip
    assert result.exit_code == 0, result.output
    return out


def test_fit_writes_the_whole_bundle(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == [
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
    assert list(csv.reader(io.StringIO((bundle / "skipped.csv").read_text()))) == [
        ["image", "reason"],
        ["gone.jpg", "no such file"],
        ["broken.jpg", "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"],
    ]
    history = pd.read_csv(bundle / "history.csv")
    assert list(history.columns) == [
        "fold",
        "iteration_number",
        "epoch",
        "phase",
        "training_loss",
        "validation_loss",
        "validation_accuracy",
    ]
    assert history["iteration_number"].tolist() == list(range(1, len(history) + 1))
    assert history["validation_loss"].notna().sum() == 3
    assert history["fold"].isna().all()
    assert json.loads((bundle / "multilabel.json").read_text())["run_name"] == "Test_run"


def test_metrics_equal_scikit_learn_on_the_written_predictions(bundle: Path) -> None:
    predictions = pd.read_csv(bundle / "predictions.csv")
    (metrics,) = json.loads((bundle / "metrics.json").read_text())["parts"]
    for name, scores in metrics["attributes"].items():
        known = predictions[predictions[f"{name}_label"].notna()]
        y, p, present = (known[f"{name}_{what}"] for what in ("label", "probability", "present"))
        expected = {
            "precision": precision_score(y, present),
            "recall": recall_score(y, present),
            "f1": f1_score(y, present),
            "average_precision": average_precision_score(y, p),
            "roc_auc": roc_auc_score(y, p),
        }
        assert scores["known"] == len(known)
        for key, value in expected.items():
            assert scores[key]["value"] == pytest.approx(value, abs=1e-12)


def test_the_test_part_is_seen_by_nothing_but_the_test(folder: Path, tmp_path: Path) -> None:
    """With the parts fixed, other labels for the test part change its scores, and nothing else at all."""
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    arguments = [*QUICK, "--images", folder / "images", "--split", "part", "--cache", folder / "cache"]

    def outcome(flipped: range) -> tuple[list[str], list[dict[str, object]], str]:
        rows = [
            f"{number}.jpg,{number % 2},{int(number // 2 % 2 != (number in flipped))},{parts[number]}"
            for number in range(40)
        ]
        labels, out = tmp_path / "labels.csv", tmp_path / f"model{len(flipped)}"
        labels.write_text("\n".join(["image,a,b,part", *rows]))
        assert run("fit", "--labels", labels, *arguments, "--out", out).exit_code == 0
        predictions = pd.read_csv(out / "predictions.csv")
        assert predictions["part"].tolist() == ["validation"] * 10 + ["test"] * 10
        assert predictions["image"].tolist() == [f"{number}.jpg" for number in range(20, 40)]
        metrics = json.loads((out / "metrics.json").read_text())["parts"]
        assert [part["part"] for part in metrics] == ["validation part", "test part"]
        for key in ("cross_fitted", "ended_training"):
            assert [part[key] for part in metrics] == [True, False]
        thresholds = json.loads((out / "multilabel.json").read_text())["thresholds"]
        seen = predictions[[name for name in predictions if name.endswith("_probability")]].to_csv()
        return [seen, (out / "history.csv").read_text()], metrics, json.dumps(thresholds)

    seen, metrics, thresholds = outcome(range(0))
    seen_flipped, metrics_flipped, thresholds_flipped = outcome(range(30, 37))
    assert (seen_flipped, thresholds_flipped, metrics_flipped[0]) == (seen, thresholds, metrics[0])
    assert metrics_flipped[1] != metrics[1]


def test_the_parts_are_as_large_as_their_shares(folder: Path, tmp_path: Path) -> None:
    arguments = ["--labels", folder / "labels.txt", *QUICK, "--cache", folder / "cache", "--out", tmp_path / "out"]
    result = run("fit", *arguments, "--val-share", "0.2", "--test-share", "0.25")
    assert "Training part: 22 pictures; validation part: 8; test part: 10." in result.stderr
    assert result.stdout.count("Measured on the ") == 2
    assert "Measured on the test part: 10 pictures, " in result.stdout


def test_a_second_fit_computes_nothing_and_agrees(folder: Path, bundle: Path) -> None:
    again = run("fit", "--labels", folder / "labels.txt", *QUICK, "--names", "bright,noise", "--out", folder / "again",
                "--cache", folder / "cache")  # fmt: skip
    assert "Features: 0 computed, 40 stored already" in again.output
    for name in ("predictions.csv", "history.csv", "metrics.json", "label_issues.csv", "suggested_labels.csv"):
        assert (folder / "again" / name).read_text() == (bundle / name).read_text()


def test_fit_reports_what_it_left_out_and_what_is_chance(folder: Path) -> None:
    result = run(
        "fit", "--labels", folder / "labels.txt", *QUICK, "--out", folder / "report", "--cache", folder / "cache"
    )
    assert "Left out, because the file is absent (1 picture): gone.jpg." in result.stderr
    assert (
        "Left out, because it cannot be read (1 picture): broken.jpg (not a picture that can be read (expected"
        in result.stderr
    )
    assert "attribute" in result.stdout
    assert "95%" in result.stdout
    assert "chance" in result.stdout
    assert "The same pictures (validation part) decided when to stop training" in result.stdout
    assert "The bundle is in" in result.stdout


def test_infer_for_people(folder: Path, bundle: Path) -> None:
    result = run("infer", "--model", bundle, folder / "images" / "0.jpg", folder / "images" / "1.jpg")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(folder / "images" / name) for name in ("0.jpg", "1.jpg")]
    assert all("bright 0." in line for line in lines)


def test_infer_names_what_is_not_better_than_chance(folder: Path, bundle: Path, tmp_path: Path) -> None:
    parts = json.loads((bundle / "metrics.json").read_text())["parts"]
    written = json.loads((bundle / "multilabel.json").read_text())
    assert written["not_better_than_chance"] == parts[-1]["not_better_than_chance"]
    doubtful = shutil.copytree(bundle, tmp_path / "doubtful")
    (doubtful / "multilabel.json").write_text(json.dumps({**written, "not_better_than_chance": ["bright", "noise"]}))
    result = run("infer", "--model", doubtful, folder / "images" / "3.jpg")
    assert result.exit_code == 0
    expected = "Not better than chance when the model was measured, so do not rely on: bright, noise.\n"
    assert result.stderr == expected
    assert "bright" in result.stdout


def test_infer_takes_folders_and_a_list_on_stdin(folder: Path, bundle: Path) -> None:
    listed = run(
        "infer", "--model", bundle, "--format", "csv", "-", stdin=f"{folder}/images/3.jpg\n\n{folder}/images/5.jpg\n"
    )
    assert [row["image"] for row in csv.DictReader(io.StringIO(listed.stdout))] == [
        f"{folder}/images/3.jpg",
        f"{folder}/images/5.jpg",
    ]
    whole = run("infer", "--model", bundle, "--format", "jsonl", folder / "images")
    rows = [json.loads(line) for line in whole.stdout.splitlines()]
    assert len(rows) == 41
    assert [row["image"] for row in rows if row["error"]] == [f"{folder}/images/broken.jpg"]
    assert whole.exit_code == 1
    assert whole.stderr.endswith("1 of 41 pictures could not be read.\n")


@pytest.mark.parametrize("style", ["text", "csv", "json", "jsonl"])
def test_output_file_equals_stdout(style: str, folder: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["infer", "--model", bundle, "--format", style, folder / "images" / "1.jpg"]
    assert run(*arguments, "--output", tmp_path / "out").stdout == ""
    assert (tmp_path / "out").read_text() == run(*arguments).stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_thresholds_of_a_call(folder: Path, bundle: Path) -> None:
    def present(*thresholds: str) -> list[str]:
        options = [part for threshold in thresholds for part in ("--threshold", threshold)]
        result = run("infer", "--model", bundle, "--format", "json", *options, folder / "images" / "1.jpg")
        return json.loads(result.stdout)[0]["present"]

    assert present("0") == ["bright", "noise"]
    assert present("1") == []
    assert present("1", "noise=0") == ["noise"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit"], 2, "Missing option '--labels'"),
        (["fit", "--labels", "x", "--image-size", "big"], 2, "'big' is not a size; expected pixels such as 224, or"),
        (["fit", "--labels", "x", "--val-share", "1"], 2, "1.0 is not in the range 0<x<1"),
        (["fit", "--labels", "x", "--lr", "0"], 2, "0.0 is not in the range x>0"),
        (["fit", "--labels", "x", "--backbone", "resnet5"], 2, "unknown backbone 'resnet5'; did you mean resnet50?"),
        (
            ["fit", "--labels", "x", "--backbone", "cnn", "--filters", "8"],
            2,
            "--backbone cnn has pretrained weights only in",
        ),
        (["infer"], 2, "Missing argument 'PATH...'"),
        (["infer", "--model", "nowhere", "x.jpg"], 1, "Error: nowhere is not a bundle (it does not exist); make"),
        (["nothing"], 2, "No such command 'nothing'"),
        ([], 2, "Usage: main [OPTIONS] COMMAND"),
        (["fit", "--labels", "x", "--image-size", "²"], 2, "'²' is not a size; expected pixels such as 224, or"),
        (["fit", "--labels", "x", "--lr", "nan"], 2, "--lr is nan; expected a number above 0, such as 0.001."),
        (["fit", "--labels", "x", "--val-share", "nan"], 2, "--val-share is nan; expected a number between 0 and 1"),
        (["fit", "--labels", "x", "--beta", "nan"], 2, "--beta is nan; expected a number above 0, and at most 100."),
        (["fit", "--labels", "x", "--beta", "1e9"], 2, "1000000000.0 is not in the range 0<x<=100"),
        (["fit", "--labels", "x", "--out", "m", "--cache", "m/c"], 2, "--cache m/c lies inside --out m, which is"),
    ],
)
def test_wrong_calls(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_that_is_none(folder: Path, bundle: Path) -> None:
    for threshold, message in {
        "noisy=0.5": "Error: --threshold noisy=0.5: there is no attribute 'noisy'; did you mean noise?\n",
        "half": "Error: --threshold half: 'half' is not a number from 0 to 1.\n",
        "noise=2": "Error: --threshold noise=2: '2' is not a number from 0 to 1.\n",
    }.items():
        result = run("infer", "--model", bundle, "--threshold", threshold, folder / "images" / "1.jpg")
        assert result.exit_code == 2
        assert result.stderr == message


def test_fit_refuses_to_overwrite_what_is_no_bundle(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = run("fit", "--labels", folder / "labels.txt", *QUICK, "--out", tmp_path)
    assert result.exit_code == 2
    assert "holds something that is no bundle; it is left as it is, choose another --out." in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_fit_leaves_the_old_bundle(folder: Path, bundle: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    bad = tmp_path / "labels.txt"
    bad.write_text("0.jpg 1 yes\n")
    assert run("fit", "--labels", bad, *QUICK, "--out", bundle).exit_code == 1
    diverging = ["--lr", "1e30", "--train-backbone"]
    arguments = ["--labels", folder / "labels.txt", *QUICK, *diverging, "--out", bundle]
    assert "the training loss is no longer a number; lower --lr" in run("fit", *arguments).stderr
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_frozen_backbone_with_random_weights_is_warned_of(folder: Path, bundle: Path) -> None:
    result = run("fit", "--labels", folder / "nothing.txt", *QUICK)
    assert "The backbone is frozen with random weights: good for trying things out" in result.stderr


def test_many_pictures_left_out_do_not_flood_the_terminal(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    gone = "".join(f"gone{number}.jpg,1\n" for number in range(25))
    labels.write_text("image,a\n" + gone + "".join(f"{number}.jpg,{number % 2}\n" for number in range(40)))
    result = run("fit", "--labels", labels, "--images", folder / "images", *QUICK, "--out", tmp_path / "out",
                 "--cache", folder / "cache")  # fmt: skip
    named = ", ".join(f"gone{number}.jpg" for number in range(20))
    assert (
        f"Left out, because the file is absent (25 pictures): {named} and 5 more, "
        "which skipped.csv in the bundle lists.\n"
    ) in result.stderr
    assert len(pd.read_csv(tmp_path / "out" / "skipped.csv")) == 25


def test_output_to_a_pipe_a_link_and_a_folder(folder: Path, bundle: Path, tmp_path: Path) -> None:
    arguments = ["infer", "--model", bundle, folder / "images" / "1.jpg", "--output"]
    expected = run(*arguments[:-1]).stdout
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert run(*arguments, tmp_path / "link").exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == expected
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        assert run(*arguments, tmp_path / "pipe").exit_code == 0
        assert reader.communicate(timeout=10)[0] == expected
    refused = run(*arguments, tmp_path)
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: {tmp_path} cannot be written (Is a directory); choose another --output.\n"


@pytest.mark.slow
def test_file_names_that_are_not_utf8_come_through_stdin(folder: Path, bundle: Path) -> None:
    name = os.fsencode(folder) + b"/caf\xe9.jpg"
    Path(os.fsdecode(name)).write_bytes((folder / "images" / "1.jpg").read_bytes())
    command = [sys.executable, "-m", "multilabel", "infer", "--model", bundle, "--format", "jsonl", "-"]
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, input=name + b"\n", capture_output=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["image"] == os.fsdecode(name)


def test_strict_makes_an_absent_picture_an_error(folder: Path, tmp_path: Path) -> None:
    result = run("fit", "--labels", folder / "labels.txt", *QUICK, "--strict", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "gone.jpg" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_attribute_without_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,known,unknown\n" + "".join(f"{number}.jpg,{number % 2},\n" for number in range(40)))
    result = run("fit", "--labels", labels, "--images", folder / "images", *QUICK, "--out", tmp_path / "out",
                 "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 1
    assert "no picture has a known label for unknown; label some, or leave it out." in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_attribute_with_one_class_is_warned_of(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,a,always\n" + "".join(f"{number}.jpg,{number % 2},1\n" for number in range(40)))
    result = run("fit", "--labels", labels, "--images", folder / "images", *QUICK, "--out", tmp_path / "out",
                 "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 0
    assert "always: no 0 among its known labels in the training part; its pos_weight is 1." in result.stderr
    assert "always cannot be judged" in result.stdout


@pytest.mark.parametrize(
    ("options", "warned"),
    [([], True), (["--loss", "asl", "--missing", "ll-ct"], False), (["--loss", "splc"], False)],
)
def test_what_unknown_labels_count(folder: Path, tmp_path: Path, options: list[str], warned: bool) -> None:
    labels, out = tmp_path / "labels.csv", tmp_path / "out"
    rows = "".join(f"{number}.jpg,{number % 2},{'1' if number % 3 else 'NA'}\n" for number in range(40))
    labels.write_text("image,a,liked\n" + rows)
    result = run("fit", "--labels", labels, "--images", folder / "images", *QUICK, "--out", out,
                 "--cache", folder / "cache", *options)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    text = (
        "liked: no 0 among its known labels in the training part; its pos_weight is 1. "
        "--missing negative would count its unknown labels as 0."
    )
    assert (text in result.stderr) is warned
    (head,) = json.loads((out / "multilabel.json").read_text())["heads"]
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    assert head["objective"] == chosen.get("--loss", "bce")
    assert head["missing"]["method"] == chosen.get("--missing", "ignore")
    known = json.loads((out / "metrics.json").read_text())["parts"][0]["known"]
    assert known < json.loads((out / "metrics.json").read_text())["parts"][0]["cells"]  # measured on known cells only


def test_selective_that_spares_every_unknown_label_says_so(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = "".join(f"{number}.jpg,{number % 2},{'NA' if number % 3 else number % 2}\n" for number in range(40))
    labels.write_text("image,a,b\n" + rows)
    result = run("fit", "--labels", labels, "--images", folder / "images", *QUICK, "--out", tmp_path / "out",
                 "--cache", folder / "cache", "--missing", "selective")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    text = "Every attribute is present in more than 5% of its known labels: with --missing selective no unknown label"
    assert f"{text} counts." in result.stderr


def test_a_loss_of_attributes_for_tags_alone(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "image,colour\n" + "".join(f"{number}.jpg,{'red' if number % 2 else 'blue'}\n" for number in range(8))
    )
    result = run("fit", "--labels", labels, "--tags", "colour", "--loss", "focal", "--pos-weight", "none", *QUICK,
                 "--out", tmp_path / "out")  # fmt: skip
    assert result.exit_code == 2
    text = "--loss, --pos-weight would do nothing without attributes, and the labels have only tags."
    assert text in result.stderr


def test_200_malformed_label_files(folder: Path, tmp_path: Path) -> None:
    count = 0
    for kind, content in malformed_label_files(200):
        labels = folder / "malformed.txt"
        labels.write_bytes(content)
        result = run("fit", "--labels", labels, *QUICK, "--out", tmp_path / "out")
        assert result.exit_code == 1, (kind, result.output)
        assert "Error: " in result.stderr, kind
        assert list(tmp_path.iterdir()) == [], kind
        count += 1
    assert count == 200


def test_60_broken_pictures(folder: Path, bundle: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "images"
    pictures.mkdir()
    names = []
    for name, content in broken_pictures(60):
        (pictures / name).write_bytes(content)
        names.append(name)
    (tmp_path / "labels.csv").write_text("image,a\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(names)))
    alone = run("fit", "--labels", tmp_path / "labels.csv", *QUICK, "--out", tmp_path / "out")
    assert alone.exit_code == 1
    assert "none of the 60 pictures can be read; the first: " in alone.stderr
    assert not (tmp_path / "out").exists()

    good = "".join(f"{folder}/images/{number}.jpg,{number % 2}\n" for number in range(40))
    with (tmp_path / "labels.csv").open("a") as file:
        file.write(good)
    mixed = run(
        "fit", "--labels", tmp_path / "labels.csv", *QUICK, "--out", tmp_path / "out", "--cache", tmp_path / "cache"
    )
    assert mixed.exit_code == 0, mixed.output
    assert pd.read_csv(tmp_path / "out" / "skipped.csv")["image"].tolist() == names

    predicted = run("infer", "--model", bundle, "--format", "json", *(pictures / name for name in names))
    assert predicted.exit_code == 1
    assert [bool(row["error"]) for row in json.loads(predicted.stdout)] == [True] * 60
    assert predicted.stderr == "60 of 60 pictures could not be read.\n"


def test_a_backbone_trained_from_scratch_serves_what_was_measured(folder: Path, tmp_path: Path) -> None:
    arguments = ["--labels", folder / "labels.txt", "--backbone", "cnn", "--train-backbone", "--image-size", "32x40"]
    result = run("fit", *arguments, "--epochs", "8", "--no-calibrate", "--out", tmp_path / "model")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "model" / "model.weights.h5").stat().st_size < 2_000_000  # no optimizer inside
    measured = pd.read_csv(tmp_path / "model" / "predictions.csv")
    images = [folder / "images" / name for name in measured["image"]]
    served = run("infer", "--model", tmp_path / "model", "--format", "csv", *images)
    assert served.exit_code == 0, served.output
    for column in ("attr1_probability", "attr2_probability"):
        np.testing.assert_allclose(pd.read_csv(io.StringIO(served.stdout))[column], measured[column], rtol=1e-4)


@pytest.mark.slow
def test_resnet50_with_weights_from_a_file(folder: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.weights.h5"
    network = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(64, 64, 3))
    network.save_weights(weights)
    arguments = [
        "fit",
        "--labels",
        folder / "labels.txt",
        "--backbone",
        "resnet50",
        "--image-size",
        "64",
        "--epochs",
        "2",
    ]
    arguments += ["--cache", tmp_path / "cache", "--out", tmp_path / "model"]
    result = run(*arguments, "--weights", weights)
    assert result.exit_code == 0, result.output
    loaded = load_bundle(tmp_path / "model")
    assert (loaded.backbone.name, loaded.backbone.weights) == ("resnet50", "mine.weights.h5")
    kept = loaded.backbone.model.get_layer("resnet50").get_weights()
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(kept, network.get_weights(), strict=True))

    mobile = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    mobile.save_weights(weights)
    wrong = run(*arguments, "--weights", weights)
    assert wrong.exit_code == 1
    assert wrong.stderr.splitlines()[-1].startswith(
        f"Error: {weights}: these are not weights of resnet50 without its top"
    )


def test_without_network_one_sentence_and_nothing_written(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "keras"
    result = run_offline(folder, tmp_path, home)
    assert result.returncode == 1
    assert result.stdout == ""
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("Error: the ImageNet weights of resnet50 could not be downloaded (")
    assert sentence.endswith(
        f"put resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 into {home / 'models'} on a machine without "
        "network, or pass --weights FILE, or choose a --backbone whose weights you have: "
        "those of cnn come with multilabel."
    )
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def run_offline(folder: Path, tmp_path: Path, home: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["fit", "--labels", folder / "labels.txt", "--out", tmp_path / "out"]
    os.environ["KERAS_HOME"] = str(home)
    try:
        return shell(*arguments)
    finally:
        del os.environ["KERAS_HOME"]


def test_tensorflow_keeps_quiet(folder: Path, bundle: Path) -> None:
    result = shell("infer", "--model", bundle, folder / "images" / "1.jpg")
    assert result.returncode == 0
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(folder: Path, bundle: Path) -> None:
    command = f"{sys.executable} -m multilabel infer --model {bundle} {folder}/images {folder}/images | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("backbone", ["frozen", pytest.param("trained", marks=pytest.mark.slow)])
def test_ctrl_c_ends_with_one_line(backbone: str, root: Path, tmp_path: Path) -> None:
    arguments = ["fit", "--labels", root / "data" / "labels.txt", *QUICK[:-1], "100000", "--patience", "100000"]
    arguments += ["--train-backbone"] * (backbone == "trained")
    command = [sys.executable, "-m", "multilabel", *map(str, arguments), "--out", "out", "--cache", "cache"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Training part:"):
                break
        if backbone == "trained":
            while process.poll() is None and not (tmp_path / "out.checkpoint" / STATE).exists():
                time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    kept = " The same command with --resume continues."
    if backbone == "frozen":
        kept = " The features are kept, so the same command is quick to train again."
    assert re.fullmatch(rf"Stopped after \d+ epochs? of training; no bundle was written.{kept}\n", errors)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_data_through_the_command(shared: Path, tmp_path: Path) -> None:
    aimonk = shared / "data" / "aimonk"
    weights = shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
    arguments = ["fit", "--labels", aimonk / "labels.txt", "--backbone", "mobilenet_v2", "--weights", weights]
    arguments += ["--folds", "0", "--no-calibrate", "--cache", tmp_path / "cache", "--out", tmp_path / "model"]
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert "the file is absent (3 pictures): image_489.jpg, image_624.jpg, image_875.jpg." in first.stderr
    assert "700 pictures, 4 attributes, 2,537 of 2,800 labels known (91%)." in first.stderr
    for attribute in ("attr1", "attr2", "attr3"):
        assert f"{attribute} is not better than chance" in first.stdout
    assert pd.read_csv(tmp_path / "model" / "skipped.csv")["image"].tolist() == [
        "image_489.jpg",
        "image_624.jpg",
        "image_875.jpg",
    ]
    assert "Features: 0 computed" in run(*arguments).stderr
    predicted = run("infer", "--model", tmp_path / "model", "--format", "jsonl", aimonk / "images")
    assert predicted.exit_code == 0
    assert len(predicted.stdout.splitlines()) == 700
    stored = pd.read_csv(tmp_path / "model" / "predictions.csv").set_index("image")["attr1_probability"]
    served = {Path(row["image"]).name: row["attributes"]["attr1"]["probability"]
              for row in map(json.loads, predicted.stdout.splitlines())}  # fmt: skip
    for image, probability in stored.items():
        assert served[str(image)] == pytest.approx(probability, abs=1e-5)


def test_no_file_that_is_read_is_written(folder: Path, bundle: Path, tmp_path: Path) -> None:
    labels, picture = tmp_path / "labels.txt", tmp_path / "1.jpg"
    shutil.copy(folder / "images" / "1.jpg", picture)
    labels.write_text("1.jpg 1 0\n")
    before = labels.read_bytes(), picture.read_bytes()
    refused = {
        f"--output {labels} is read, too": ["evaluate", "--model", bundle, "--labels", labels, "--output", labels],
        f"--out {labels} is read, too": ["inspect", "--labels", labels, "--out", labels],
        f"--output {picture} is read, too": ["infer", "--model", bundle, picture, "--output", picture],
        f"--sheet {tmp_path}/x.html is what --output writes, too": [
            *["infer", "--model", bundle, picture, "--output", tmp_path / "x.html", "--sheet", tmp_path / "x.html"]
        ],
    }
    for sentence, arguments in refused.items():
        result = run(*arguments)
        assert (result.exit_code, result.stderr) == (2, f"Error: {sentence}; choose another file.\n")
    assert (labels.read_bytes(), picture.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jpg", "labels.txt"]


def test_pictures_that_the_model_learnt_from_are_counted(folder: Path, bundle: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{number}.jpg {number % 2} 1\n" for number in range(10)))
    result = run("evaluate", "--model", bundle, "--labels", labels, "--images", folder / "images",
                 "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "The model learnt from 10 of these 10 pictures: the scores are flattering." in result.stderr
