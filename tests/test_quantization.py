"""int8: what stays in float, what it costs, and thresholds that are chosen for it."""

from __future__ import annotations

import csv
import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from test_cli import QUICK, run

from multilabel import load_bundle, read_labels
from multilabel.config import FOLDS
from multilabel.errors import DataError
from multilabel.export import export_folder
from multilabel.export_check import generated_pictures, in_batches, open_export
from multilabel.images import read_image
from multilabel.measuring import LabelSource, evaluate_bundle
from multilabel.quantization import calibration_pictures
from multilabel.splits import assign_parts
from multilabel.thresholds import choose_thresholds, cross_fit_thresholds

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None,
    reason="needs openvino and nncf: pip install -e '.[test-exports]'",
)
NAMES = ("bright", "red", "never")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 pictures: 100 to learn from, 60 of `other.csv`; two attributes and a tag can be seen, to a degree."""
    folder = tmp_path_factory.mktemp("quantization")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(160):
        bright, red, kind = rng.integers(2), rng.integers(2), rng.integers(3)
        coarse = rng.integers(0, 150, (5, 5, 3)) + 60 * bright
        coarse[..., 0] += 45 * red
        coarse[..., 2] += 22 * kind
        pixels = np.asarray(Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((40, 40)))
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        unknown = number % 9 == 0
        rows.append(f"{number}.png,{'' if unknown else bright},{red},{int(number < 3)},{'abc'[kind]}")
    header = "image,bright,red,never,kind"
    (folder / "train.csv").write_text("\n".join([header, *rows[:100]]))
    (folder / "other.csv").write_text("\n".join([header, *rows[100:]]))
    (folder / "few").mkdir()
    for number in range(31):
        shutil.copy(folder / "images" / f"{number}.png", folder / "few")
    (folder / "few" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    result = run("fit", "--labels", folder / "train.csv", "--tags", "kind", *QUICK, "--beta", "2",
                 "--out", folder / "model", "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "model"


@pytest.fixture(scope="module")
def quantized(folder: Path, model: Path) -> Path:
    """Measured, with thresholds of its own."""
    result = run("export", "--model", model, "--format", "openvino", "--int8", "--calibrate-on", folder / "images",
                 "--labels", folder / "other.csv", "--cache", folder / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    (folder / "said.txt").write_text(result.stdout)
    return folder / "model-int8.xml"


def labelled(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of `other.csv`."""
    rows = list(csv.DictReader((folder / "other.csv").open()))
    pixels = np.stack([read_image(folder / "images" / row["image"], (32, 32)) for row in rows])
    return pixels, np.array([[int(row[name] or -1) for name in NAMES] for row in rows], np.int8)


def test_convolutions_are_in_int8_and_the_rest_is_not(quantized: Path) -> None:
    import openvino

    model = openvino.Core().read_model(quantized)
    weights, sources = {}, {}
    for node in model.get_ops():
        if node.get_type_name() in ("Convolution", "MatMul"):
            picture, kernel = (node.input_value(number).get_node() for number in (0, 1))
            sources.setdefault(node.get_type_name(), []).append(picture.get_type_name())
            while kernel.get_type_name() not in ("Constant", "FakeQuantize"):
                kernel = kernel.input_value(0).get_node()
            weights.setdefault(node.get_type_name(), []).append(kernel.get_element_type().get_type_name())
    assert weights == {"Convolution": ["i8"] * 4, "MatMul": ["f32"] * 2}
    assert set(sources["Convolution"]) == {"FakeQuantize", "MaxPool"}  # of what is in int8 already
    assert "FakeQuantize" not in sources["MatMul"]
    assert (
        quantized.with_suffix(".bin").stat().st_size
        < 0.3 * (quantized.parent / "model/model.weights.h5").stat().st_size
    )


def test_its_sidecar_has_thresholds_of_its_own(folder: Path, model: Path, quantized: Path) -> None:
    pixels, y = labelled(folder)
    p = in_batches(open_export("openvino", quantized), pixels, len(pixels))["attributes"].astype(np.float64)
    sidecar = json.loads(Path(f"{quantized}.json").read_text())
    assert sidecar["precision"] == "int8"
    chosen = choose_thresholds(y[:, :2], p[:, :2], 2.0)  # --beta of fit
    folds = assign_parts(np.c_[y, read_labels(folder / "other.csv", tags=("kind",)).tag_y], [1.0] * FOLDS, seed=0)
    present, spreads = cross_fit_thresholds(
        y[:, :2], p[:, :2], folds, lambda y, p: choose_thresholds(y, p, 2.0, own=[True] * 2)
    )
    assert [one["attribute"] for one in sidecar["thresholds"]] == list(NAMES)
    for said, expected, spread in zip(sidecar["thresholds"], chosen, spreads, strict=False):
        assert said["value"] == pytest.approx(expected.value, abs=1e-6)
        assert (said["source"], said["positives"]) == ("tuned", expected.positives)
        assert said["spread"] == pytest.approx(spread, abs=1e-6)
    assert sidecar["thresholds"][2]["value"] == load_bundle(model).thresholds[2].value  # nothing there is positive
    text = (folder / "said.txt").read_text()
    after = text.partition("\nThe export:\n")[2]
    assert "Measured on the pictures of other.csv: 60 pictures, 2" in after
    for column, name in enumerate(NAMES[:2]):
        known = y[:, column] >= 0
        score = f1_score(y[known, column], present[known, column])
        line = next(line for line in after.splitlines() if line.startswith(name))
        assert float(line.split("score")[1].split()[2]) == pytest.approx(score, abs=0.006)


def test_both_are_measured_and_the_bundle_as_evaluate_does(
    folder: Path, model: Path, quantized: Path, tmp_path
) -> None:
    source = LabelSource(folder / "other.csv", cache=folder / "cache")
    calibration = folder / "images"
    done = export_folder(model, "openvino", tmp_path / "m.xml", int8=True, calibrate_on=calibration, labels=source)
    assert done.measured is not None
    expected = evaluate_bundle(load_bundle(model), folder / "other.csv", cache=folder / "cache")
    assert done.measured.before.to_json() == expected.to_json()
    pixels, _ = labelled(folder)
    p = in_batches(open_export("openvino", done.path), pixels, len(pixels))["tag1_kind"]
    kinds = read_labels(folder / "other.csv", tags=("kind",)).tag_y[:, 0]
    assert done.measured.after.tags[0].accuracy.value == pytest.approx((p.argmax(axis=1) == kinds).mean())
    assert [one["value"] for one in done.sidecar["thresholds"]] == [one.value for one in done.measured.thresholds]


def test_without_labels_the_thresholds_are_the_bundles(folder: Path, model: Path, tmp_path: Path) -> None:
    done = export_folder(model, "openvino", tmp_path / "m.xml", int8=True, calibrate_on=folder / "images")
    bundle = load_bundle(model)
    assert [one["value"] for one in done.sidecar["thresholds"]] == [one.value for one in bundle.thresholds]
    assert done.measured is None
    assert done.source == "pictures that the bundle was made of"
    assert 1e-6 < done.comparison.difference < 0.2
    assert done.comparison.differing < 0.2 * done.comparison.decisions


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("few", "few holds 31 pictures that can be read; --calibrate-on needs 32 or more, of the kind that the model "
                "is for."),
        ("none", "none: the folder cannot be listed (No such file or directory)."),
    ],
)  # fmt: skip
def test_too_few_pictures_to_calibrate_on(where, sentence, folder, model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    result = run("export", "--model", model, "--format", "openvino", "--int8", "--calibrate-on", where, "--out",
                 tmp_path / "m.xml")  # fmt: skip
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")
    assert list(tmp_path.iterdir()) == []


def test_of_many_pictures_always_the_same_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multilabel.quantization.CALIBRATED", 40)
    first, second = (calibration_pictures(folder / "images", (32, 32)) for _ in range(2))
    assert first.shape == (40, 32, 32, 3)
    np.testing.assert_array_equal(first, second)
    with pytest.raises(DataError):
        calibration_pictures(folder / "few", (32, 32))


def test_int8_that_is_far_from_the_bundle_is_said(folder, model, tmp_path, monkeypatch, caplog) -> None:
    """As where the pictures to calibrate on are of another kind: here all black."""
    black = np.zeros((40, 32, 32, 3), np.uint8)
    monkeypatch.setattr("multilabel.export.calibration_pictures", lambda *_: black)
    monkeypatch.setattr("multilabel.export._AGREEING", 1.0)
    done = export_folder(model, "openvino", tmp_path / "m.xml", int8=True, calibrate_on=folder / "images")
    differing, decisions = done.comparison.differing, done.comparison.decisions
    assert differing > 0
    assert caplog.messages[-1] == (
        f"int8 decides {differing} of {decisions} cases otherwise than the bundle; measure it on labelled pictures "
        "(--labels), or export without --int8."
    )


@pytest.mark.slow
def test_real_weights_lose_little_and_gain_speed(shared: Path, tmp_path: Path) -> None:
    """Measured: mean accuracies of 91.7 and 91.5% on 2,000 pictures; 1.5 times as fast as bfloat16."""
    import openvino

    data = shared / "data" / "fashion"
    rows = list(csv.DictReader((data / "styles.csv").open()))
    header = "id,gender,masterCategory,subCategory"
    for name, some in (("train.csv", rows[:4000]), ("held_out.csv", rows[4000:])):
        lines = [",".join(row[column] for column in header.split(",")) for row in some]
        (tmp_path / name).write_text(
            "\n".join([header.replace("id", "image"), *(line.replace(",", ".jpg,", 1) for line in lines)])
        )
    result = run("fit", "--labels", tmp_path / "train.csv", "--images", data / "images",
                 "--tags", "gender,masterCategory,subCategory", "--min-share", "0.01", "--rare", "drop",
                 "--backbone", "mobilenet_v2", "--image-size", "160x120", "--folds", "0", "--precision", "float32",
                 "--weights", shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5",
                 "--out", tmp_path / "model", "--cache", tmp_path / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    source = LabelSource(tmp_path / "held_out.csv", data / "images", cache=tmp_path / "cache")
    done = export_folder(tmp_path / "model", "openvino", int8=True, calibrate_on=data / "images", labels=source)
    assert done.measured is not None
    assert done.measured.after.mean_accuracy > done.measured.before.mean_accuracy - 0.005
    assert done.comparison.differing <= 0.05 * done.comparison.decisions
    exact = export_folder(tmp_path / "model", "openvino")
    pixels = np.tile(generated_pictures((160, 120)), (4, 1, 1, 1))
    core = openvino.Core()
    lower = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    compiled = {
        path: core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        for path, hint in ((exact.path, lower), (done.path, "f32"))
    }
    rounds = [{path: _seconds(model, pixels) for path, model in compiled.items()} for _ in range(15)]
    seconds = {path: min(one[path] for one in rounds) for path in compiled}
    assert seconds[exact.path] > 1.2 * seconds[done.path]  # 1.5, but the machine may be busy


def _seconds(compiled: object, pixels: np.ndarray) -> float:
    started = time.perf_counter()
    compiled(pixels)  # type: ignore[operator]
    return time.perf_counter() - started
