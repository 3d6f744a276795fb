"""`multilabel export`: every format computes what the bundle computes, without this package, and says what it means."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from test_bundle import with_random_heads
from test_cli import run

import multilabel
from multilabel import bundle as bundles
from multilabel import export as exporting
from multilabel import export_check, load_bundle
from multilabel.backbones import Backbone, build_backbone, freeze
from multilabel.config import EXPORT_FORMATS
from multilabel.errors import DataError, MultilabelError, UsageError
from multilabel.export import ExportResult, check_out, export, export_folder, serving_model
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.thresholds import Threshold

ATTRIBUTES = ("größe/1", "hat, or cap", "outputs")
CLASSES = ("rouge é", "red", "a/b")
SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite", "saved_model": ".saved_model", "keras": ".keras"}
PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",), "litert": ("ai_edge_litert",)}
STANDALONE = Path(__file__).with_name("standalone_inference.py")
# Runs a program in a process in which this package and what it is built on cannot be imported.
ALONE = """
import sys, runpy
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} must not be needed")
sys.meta_path.insert(0, Nothing())
"""


def needs(format: str) -> None:
    absent = [module for module in PACKAGES.get(format, ()) if find_spec(module) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: pip install -e '.[test-exports]'")


@pytest.fixture(scope="module", params=EXPORT_FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def exported(format: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """The bundle in each format, in a folder of its own."""
    return export_folder(folder, format, tmp_path_factory.mktemp(format) / f"m{SUFFIX[format]}")


def odd_bundle() -> bundles.Bundle:
    """A `cnn` of random weights, with names that are no identifiers and a tag that is called like an attribute."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone("cnn", "none", (40, 32))
    freeze(backbone)
    heads = (
        LogitHead(ATTRIBUTES, (1.0,) * 3, 0.5),
        SoftmaxHead("größe/1", CLASSES, name="tag1_gr_e_1"),
        SoftmaxHead("attributes", ("x", "y"), name="tag2_attributes"),
    )
    thresholds = (
        Threshold(0.25, "tuned", 12, (0.125, 0.3)),
        Threshold(1 / 3, "shared", 3),
        Threshold(0.5, "default", 0),
    )
    provenance = {
        "settings": {"labels": "gone/labels.txt", "images": None, "attributes": None, "names": list(ATTRIBUTES)}
        | {"rare": "pool", "pool_name": "other", "beta": 1.0, "seed": 0},
        "rare_classes": {"größe/1": {"blue": 2}},
        "learnt_from": "",
    }
    scaled = {"größe/1": {"kind": "platt", "slope": 0.5, "intercept": -1.0}}
    model = with_random_heads(backbone, heads)
    return bundles.Bundle("été 1", backbone, heads, thresholds, model, provenance, ("outputs",), scaled)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "model"
    with bundles.writing(out) as new:
        bundles.save(odd_bundle(), new)
    return out


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((90, 70)).save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def expected_of(bundle: bundles.Bundle, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the bundle's own model says, by a softmax and a sigmoid of this file."""
    logits = {name: np.float64(z) for name, z in bundle.model.predict(pixels, verbose=0).items()}
    shares = {name: np.exp(z - z.max(axis=1, keepdims=True)) for name, z in logits.items()}
    return {
        name: 1 / (1 + np.exp(-z)) if name == "attributes" else shares[name] / shares[name].sum(axis=1, keepdims=True)
        for name, z in logits.items()
    }


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def metadata_in(format: str, path: Path) -> dict[str, object]:
    """The sidecar's text as the file itself holds it."""
    if format == "onnx":
        import onnx

        return json.loads({prop.key: prop.value for prop in onnx.load(path).metadata_props}["multilabel"])
    if format == "openvino":
        import openvino

        return json.loads(openvino.Core().read_model(path).get_rt_info("multilabel").value)
    if format == "saved_model":
        return json.loads((path / "assets.extra" / "multilabel.json").read_text())
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("multilabel.json"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg16", (32, 40)),  # caffe
        ("mobilenet", (40, 32)),  # tf
        pytest.param("densenet121", (32, 32), marks=pytest.mark.slow),  # torch
        ("mobilenet_v3_small", (32, 32)),  # builtin
        ("cnn", (33, 35)),
    ],
)
def test_the_serving_model_is_the_bundle(name: str, size: tuple[int, int]) -> None:
    keras.utils.set_random_seed(1)
    backbone = build_backbone(name, "none", size)
    pixels = export_check.generated_pictures(size)
    settle(backbone, pixels)
    heads = (LogitHead(("a", "b"), (1.0, 2.0), 0.5), SoftmaxHead("c", ("x", "y", "z"), name="tag1_c"))
    thresholds = (Threshold(0.5, "default", 0),) * 2
    bundle = bundles.Bundle("run", backbone, heads, thresholds, with_random_heads(backbone, heads))
    serving = serving_model(bundle)
    expected, found = expected_of(bundle, pixels), serving.predict(pixels, verbose=0)
    assert set(found) == set(expected)
    for output, p in expected.items():
        assert p.std(axis=0).max() > 0.005
        np.testing.assert_allclose(found[output], p, atol=1e-4)
        assert found[output].dtype == np.float32
    (image,) = serving.inputs
    assert (image.name, image.dtype, tuple(image.shape)) == ("image", "uint8", (None, *size, 3))
    assert all(type(layer).__module__.startswith("keras.") for layer in serving._flatten_layers())


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx"], indirect=True)
@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny"])
def test_onnx_holds_networks_that_its_converter_alone_gets_wrong(format: str, name: str, tmp_path: Path) -> None:
    """Those with a Normalization layer, and those with GELU."""
    keras.utils.set_random_seed(1)
    backbone = build_backbone(name, "none", (64, 64))
    pixels = export_check.generated_pictures((64, 64))
    settle(backbone, pixels)
    heads = (LogitHead(("a", "b"), (1.0, 2.0), 0.5),)
    thresholds = (Threshold(0.5, "default", 0),) * 2
    bundle = bundles.Bundle("run", backbone, heads, thresholds, with_random_heads(backbone, heads))
    done = export(bundle, format, tmp_path / "m.onnx", pixels)
    assert done.comparison.difference < 1e-4
    assert expected_of(bundle, pixels)["attributes"].std(axis=0).max() > 0.005


def settle(backbone: Backbone, pixels: np.ndarray) -> None:
    """Gives random weights statistics of pictures; else all pictures look the same to the heads."""
    for layer in backbone.network._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.adapt_mean.assign([0.4, 0.5, 0.6])
            layer.adapt_variance.assign([0.05, 0.06, 0.07])
            layer.finalize_state()
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone.model(pixels, training=True)
    freeze(backbone)


def noise(size: tuple[int, int], count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_what_is_written(format: str, exported: ExportResult, folder: Path) -> None:
    done, parent = exported, exported.path.parent
    names = {f"m{SUFFIX[format]}", f"m{SUFFIX[format]}.json", *["m.bin"] * (format == "openvino")}
    assert {path.name for path in parent.iterdir()} == names
    text = Path(f"{done.path}.json").read_text()
    sidecar = json.loads(text)
    files = [done.path, done.path.with_suffix(".bin")] if format == "openvino" else [done.path]
    if format == "saved_model":
        files = [done.path / "saved_model.pb", *sorted((done.path / "variables").iterdir())]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert sidecar == done.sidecar == {
        "schema": 1,
        "format": format,
        "multilabel": multilabel.__version__,
        "run_name": "été 1",
        "image_size": [40, 32],
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colours": "RGB"},
        "outputs": [
            {"name": "attributes", "kind": "attributes", "tag": None,
             "names": list(ATTRIBUTES)},
            {"name": "tag1_gr_e_1", "kind": "tag", "tag": "größe/1", "names": list(CLASSES)},
            {"name": "tag2_attributes", "kind": "tag", "tag": "attributes",
             "names": ["x", "y"]},
        ],
        "thresholds": [
            {"attribute": "größe/1", "value": 0.25, "source": "tuned", "positives": 12, "spread": [0.125, 0.3]},
            {"attribute": "hat, or cap", "value": 1 / 3, "source": "shared", "positives": 3, "spread": None},
            {"attribute": "outputs", "value": 0.5, "source": "default", "positives": 0, "spread": None},
        ],
        "not_better_than_chance": ["outputs"],
        "precision": "float32",
        "model_sha256": json.loads((folder / "multilabel.json").read_text())["weights_sha256"],
        "file_sha256": digest,
        "labels": {
            "settings": {"attributes": None, "names": list(ATTRIBUTES), "rare": "pool", "pool_name": "other"},
            "rare_classes": {"größe/1": {"blue": 2}},
        },
    }  # fmt: skip
    del sidecar["file_sha256"]
    assert metadata_in(format, done.path) == json.loads(json.dumps(sidecar))
    assert done.source == "generated pictures"
    assert (done.comparison.pictures, done.comparison.decisions, done.comparison.differing) == (16, 80, 0)
    assert done.comparison.difference < 1e-5
    size = sum(path.stat().st_size for path in parent.rglob("*") if path.is_file())
    assert done.size == size - len(text.encode())


@pytest.mark.parametrize("count", [1, 7])
def test_it_computes_what_the_bundle_computes(format: str, exported: ExportResult, count: int, folder: Path) -> None:
    """For another number of pictures than it was checked on, too."""
    pixels = noise((40, 32), count)
    found = export_check.open_export(format, exported.path)(pixels)
    expected = expected_of(load_bundle(folder), pixels)
    assert set(found) == set(expected)
    for name, p in expected.items():
        np.testing.assert_allclose(found[name], p, atol=1e-5)


@pytest.mark.parametrize("format", ["openvino"], indirect=True)
def test_weights_are_float32(exported: ExportResult) -> None:
    import openvino

    nodes = openvino.Core().read_model(exported.path).get_ops()
    constants = {node.get_element_type().get_type_name() for node in nodes if node.get_type_name() == "Constant"}
    assert "f32" in constants
    assert not constants & {"f16", "bf16"}


@pytest.mark.parametrize("format", ["onnx", "litert"], indirect=True)
def test_it_needs_nothing_of_this_package(exported: ExportResult, folder: Path, pictures: Path) -> None:
    check_standalone(exported.path, load_bundle(folder), sorted(pictures.glob("[0-9]*")))


def check_standalone(path: Path, bundle: bundles.Bundle, pictures: list[Path]) -> None:
    """Probabilities of a process that knows nothing of this package, beside those of `predict` in float32."""
    bundle = replace(bundle, precision="float32")
    code = ALONE.format(blocked={"multilabel", "keras", "tensorflow"})
    code += f"sys.argv = sys.argv[:1] + {[str(path), *map(str, pictures)]!r}\n"
    code += f"runpy.run_path({str(STANDALONE)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for one, expected in zip(said, multilabel.predict(bundle, pictures), strict=True):
        p = one["p"].get("attributes", [])
        assert p == pytest.approx(list(expected.probabilities.values()), abs=1e-3)
        near = {
            name
            for name, threshold in zip(bundle.attributes, bundle.thresholds, strict=True)
            if abs(expected.probabilities[name] - threshold.value) < 1e-3
        }
        assert set(one["present"]) - near == {name for name, present in expected.present.items() if present} - near
        for tag, prediction in expected.tags.items():
            (first, p_first), (_, p_second) = prediction.top[:2]
            assert one["tags"][tag] == first or p_first - p_second < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "litert"], indirect=True)
def test_real_pictures_without_this_package(format: str, tmp_path: Path) -> None:
    """100 pictures of the real data, or those of data/ where they are absent."""
    root = Path(__file__).resolve().parent.parent
    real = root.parent / "shared" / "data" / "aimonk"
    data = real if real.is_dir() else root / "data"
    result = run("fit", "--labels", data / "labels.txt", "--backbone", "cnn", "--folds", "0", "--epochs", "20", "--out",
                 tmp_path / "model", "--cache", tmp_path / "cache")  # fmt: skip
    assert result.exit_code == 0, result.output
    result = run("export", "--model", tmp_path / "model", "--format", format)
    assert result.exit_code == 0, result.output
    assert "Run beside the bundle on 32 pictures that the bundle was made of: " in result.stdout
    bundle = load_bundle(tmp_path / "model")
    paths = sorted((data / "images").iterdir())
    readable = [path for path in paths if next(multilabel.predict(bundle, [path])).error is None]
    check_standalone(tmp_path / f"model{SUFFIX[format]}", bundle, readable[:100])


@pytest.mark.parametrize("format", ["keras"], indirect=True)
def test_keras_opens_it_in_safe_mode_without_this_package(exported: ExportResult, folder: Path, tmp_path: Path) -> None:
    pixels = noise((40, 32))
    np.save(tmp_path / "pixels.npy", pixels)
    code = ALONE.format(blocked={"multilabel"}) + (
        "import keras, numpy as np\n"
        f"model = keras.models.load_model({str(exported.path)!r}, safe_mode=True)\n"
        f"p = model.predict(np.load({str(tmp_path / 'pixels.npy')!r}), verbose=0)\n"
        f"np.savez({str(tmp_path / 'p.npz')!r}, **p)\n"
        "assert 'multilabel' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "p.npz") as found:
        for name, p in expected_of(load_bundle(folder), pixels).items():
            np.testing.assert_allclose(found[name], p, atol=1e-5)


def test_the_command_says_what_it_did(folder: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.keras"
    result = run("export", "--model", folder, "--format", "keras", "--out", out, "--check-on", pictures)
    assert result.exit_code == 0, result.output
    first, second, empty, *table = result.stdout.splitlines()
    assert first == f"{out}: {out.stat().st_size / 1e6:.1f} MB, float32; m.keras.json says what its numbers mean."
    pattern = (
        f"Run beside the bundle on 20 pictures of {re.escape(str(pictures))}: probabilities differ by at most "
        r"\de-\d\d, 0 of 100 decisions differ\."
    )
    assert re.fullmatch(pattern, second)
    assert empty == ""
    assert table == [
        "output           of          names",
        "attributes       attributes  größe/1, hat, or cap, outputs",
        "tag1_gr_e_1      größe/1     rouge é, red, a/b",
        "tag2_attributes  attributes  x, y",
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--format", "keras"], "model.keras"),
        (["--format", "saved_model"], "model.saved_model"),
    ],
)
def test_it_lies_beside_the_bundle(options: list[str], name: str, folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "runs" / "model"
    with bundles.writing(model) as new:
        bundles.save(load_bundle(folder), new)
    result = run("export", "--model", model, *options)
    assert result.exit_code == 0, result.output
    assert {path.name for path in model.parent.iterdir()} == {"model", name, f"{name}.json"}


def test_pictures_of_the_bundle_are_found_again(folder: Path, pictures: Path) -> None:
    """As `fit` found them: in the folder that was given, in images/ beside the labels, or beside these."""
    bundle = load_bundle(folder)
    names = sorted(path.name for path in pictures.iterdir())
    there = folder.parent / "made"
    (there / "images").mkdir(parents=True)
    (there / "predictions.csv").write_text("image,part\n" + "".join(f"{name},x\n" for name in ["gone.jpg", *names]))
    for name in names:
        (there / "images" / name).write_bytes((pictures / name).read_bytes())

    def sampled(**settings: object) -> tuple[np.ndarray, str]:
        made = replace(bundle, provenance={"settings": {"labels": "nowhere/l.csv", "images": None, **settings}})
        return export_check.sample_pictures(made, there, None)

    for settings in ({"images": str(pictures)}, {"labels": str(there / "l.csv")}, {"labels": str(pictures / "l.csv")}):
        pixels, source = sampled(**settings)
        assert (pixels.shape, pixels.dtype, source) == (
            (20, 40, 32, 3),
            np.uint8,
            "pictures that the bundle was made of",
        )
    pixels, source = sampled()
    assert (pixels.shape, source) == ((16, 40, 32, 3), "generated pictures")
    np.testing.assert_array_equal(pixels, sampled()[0])
    assert len(np.unique(pixels.reshape(16, -1), axis=0)) == 16


@pytest.mark.parametrize("format", ["openvino", "saved_model", "keras"], indirect=True)  # two files, a folder, a file
def test_an_export_takes_the_place_of_an_older_one(format: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / f"m{SUFFIX[format]}"
    (tmp_path / "other.txt").write_text("mine")
    export_folder(folder, format, out)
    first = contents(tmp_path)
    bundle = load_bundle(folder)
    layer = bundle.model.get_layer("attributes")
    layer.set_weights([2 * weights for weights in layer.get_weights()])
    export(bundle, format, out)
    second = contents(tmp_path)
    assert first.keys() == second.keys()
    assert second["other.txt"] == b"mine"
    assert first[f"{out.name}.json"] != second[f"{out.name}.json"]
    pixels = noise((40, 32))
    found = export_check.open_export(format, out)(pixels)
    np.testing.assert_allclose(found["attributes"], expected_of(bundle, pixels)["attributes"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["openvino", "saved_model"], indirect=True)
@pytest.mark.parametrize("moves", [1, 2, 3])
def test_an_export_that_cannot_take_its_place_leaves_the_older_one(
    format: str, moves: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the moves aside and into place, one after the other fails."""
    out = tmp_path / f"m{SUFFIX[format]}"
    export_folder(folder, format, out)
    before, left, rename = contents(tmp_path), moves, Path.rename

    def until_it_fails(source: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            left = -1  # the way back is open
            raise OSError(errno.EIO, "Input/output error")
        left -= 1
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", until_it_fails)
    with pytest.raises(MultilabelError, match=r"cannot be written \(Input/output error\); choose another --out\.$"):
        export_folder(folder, format, out)
    monkeypatch.undo()
    assert left < 0
    assert contents(tmp_path) == before


def test_files_of_others_in_a_saved_model_are_not_lost(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.saved_model"
    export_folder(folder, "saved_model", out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        export_folder(folder, "saved_model", out)
    assert str(caught.value) == (
        f"{out} holds, besides an export, notes.txt, which would be lost; move that away or choose another --out."
    )
    assert (out / "notes.txt").read_text() == "mine"


def test_what_a_kill_has_left_is_cleared(folder: Path, tmp_path: Path) -> None:
    left = tmp_path / ".m.keras.new-999999999"
    left.mkdir()
    (left / "half").write_text("half")
    export_folder(folder, "keras", tmp_path / "m.keras")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.keras", "m.keras.json"]


def test_an_export_that_differs_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(folder)
    export(bundle, "keras", tmp_path / "m.keras")
    before = contents(tmp_path)

    def other(bundle: bundles.Bundle, by: float) -> keras.Model:
        model = serving_model(bundle)
        layer = model.get_layer("attributes")
        kernel, bias = layer.get_weights()
        layer.set_weights([0 * kernel, 0 * bias + by])
        return model

    pixels = export_check.generated_pictures((40, 32))
    expected = expected_of(bundle, pixels)["attributes"]
    difference = np.abs(expected - 0.5).max()
    monkeypatch.setattr(exporting, "serving_model", lambda bundle: other(bundle, 0.0))
    with pytest.raises(DataError) as caught:
        export(bundle, "keras", tmp_path / "m.keras")
    assert str(caught.value) == (
        f"the keras export and the bundle differ by {difference:.2g} in a probability (16 generated pictures), more "
        "than 0.001; nothing was written. Choose another --format."
    )
    monkeypatch.setattr(exporting, "serving_model", lambda bundle: other(bundle, np.nan))
    with pytest.raises(DataError, match=r"differ by nan in a probability"):
        export(bundle, "keras", tmp_path / "m.keras")
    monkeypatch.setattr(exporting, "serving_model", lambda bundle: 1 / 0)
    with pytest.raises(DataError) as caught:
        export(bundle, "keras", tmp_path / "m.keras")
    assert str(caught.value) == "été 1 cannot be written as keras (division by zero); choose another --format."
    monkeypatch.setattr(exporting, "_convert", lambda model, format, path: path.write_bytes(b"nonsense"))
    monkeypatch.setattr(exporting, "serving_model", serving_model)
    with pytest.raises(DataError, match=r"^été 1 cannot be written as keras \(.*\); choose another --format\.$"):
        export(bundle, "keras", tmp_path / "m.keras")
    assert contents(tmp_path) == before


def test_compared_decisions_are_counted(folder: Path) -> None:
    bundle = load_bundle(folder)
    pixels = noise((40, 32))
    p = expected_of(bundle, pixels)
    moved = {name: values.copy() for name, values in p.items()}
    moved["attributes"][2, 0] = 0.25 + (0.01 if p["attributes"][2, 0] <= 0.25 else -0.01)
    moved["tag1_gr_e_1"][4] = np.roll(p["tag1_gr_e_1"][4], 1)
    largest = max(np.abs(p[name] - moved[name]).max() for name in p)
    comparison = export_check.compare(bundle, lambda _: moved, bundle.thresholds, pixels)
    assert comparison == export_check.Comparison(6, pytest.approx(largest, abs=1e-6), 30, 2)
    del moved["tag2_attributes"]
    with pytest.raises(
        DataError, match=r"^the export's outputs are \{.*\}, those of the bundle \{.*\}; nothing was wri"
    ):
        export_check.compare(bundle, lambda _: moved, bundle.thresholds, pixels)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "keras", "--out", "m.onnx"],
         "--out m.onnx: the name does not suit --format keras; choose one such as model.keras."),
        (["--format", "saved_model", "--out", "m.xml"],
         "--out m.xml: the name does not suit --format saved_model; choose one such as model.saved_model."),
        (["--format", "keras", "--int8", "--calibrate-on", "p"],
         "--int8 is for --format openvino alone, not for keras."),
        (["--format", "onnx", "--int8", "--calibrate-on", "p"], "--int8 is for --format openvino alone, not for onnx."),
        (["--format", "openvino", "--int8"],
         "--int8 needs pictures that show how large numbers become; give a folder of --calibrate-on."),
        (["--format", "openvino", "--calibrate-on", "p"],
         "--calibrate-on belongs to --int8; add --int8, or leave it out."),
        (["--format", "keras", "--labels", "l.csv"], "--labels belongs to --int8; add --int8, or leave it out."),
        (["--format", "keras", "--images", "i"], "--images belongs to --labels; add --labels, or leave it out."),
        (["--format", "keras", "--cache", "c"], "--cache belongs to --labels; add --labels, or leave it out."),
        (["--format", "keras", "--out", "model/m.keras"],
         "--out model/m.keras lies inside --model model, which `fit` replaces; choose another --out."),
        (["--format", "saved_model", "--out", "model"],
         "--out model lies inside --model model, which `fit` replaces; choose another --out."),
        (["--format", "saved_model", "--out", "full"],
         "full is there, and was not written by `multilabel export --format saved_model`; it is left as it is, choose "
         "another --out."),
        (["--format", "keras", "--out", "mine.keras"],
         "mine.keras is there, and was not written by `multilabel export --format keras`; it is left as it is, choose "
         "another --out."),
        (["--format", "keras", "--out", "named.keras"],
         "named.keras.json is there, and was not written by `multilabel export --format keras`; it is left as it is, "
         "choose another --out."),
    ],
)  # fmt: skip
def test_wrong_calls(options, sentence, folder, tmp_path, monkeypatch) -> None:
    os.symlink(folder, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    Path("mine.keras").write_text("mine")
    Path("named.keras.json").write_text('{"schema": 1, "multilabel": "0", "format": "onnx"}')
    before = contents(tmp_path)
    result = run("export", "--model", "model", *options)
    assert (result.exit_code, result.stderr) == (2, f"Error: {sentence}\n")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--out", "m.keras", "--check-on", "none"], "none: the folder cannot be listed (No such file or directory)."),
        (
            ["--out", "m.keras", "--check-on", "empty"],
            "empty holds no picture that can be read; choose another --check-on.",
        ),
        (["--out", "file.txt/m.keras"], "file.txt/m.keras cannot be written (File exists); choose another --out."),
    ],
)
def test_data_that_cannot_be_used(options, sentence, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.txt").touch()
    result = run("export", "--model", folder, "--format", "keras", *options)
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "file.txt"}


def test_no_bundle(tmp_path: Path) -> None:
    result = run("export", "--model", tmp_path, "--format", "keras")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path} is not a bundle (it holds no multilabel.json); make one with `multilabel fit`.\n"
    )


@pytest.mark.parametrize(
    ("format", "int8", "absent", "sentence"),
    [
        ("onnx", False, {"tf2onnx"},
         "--format onnx needs another package (tf2onnx); install it with `pip install 'multilabel[onnx]'`."),
        ("onnx", False, {"onnx", "onnxruntime"},
         "--format onnx needs other packages (onnx, onnxruntime); install them with "
         "`pip install 'multilabel[onnx]'`."),
        ("openvino", True, {"openvino", "nncf"},
         "--format openvino needs other packages (openvino, nncf); install them with "
         "`pip install 'multilabel[openvino]'`."),
        ("litert", False, {"ai_edge_litert"},
         "--format litert needs another package (ai-edge-litert); install it with `pip install 'multilabel[litert]'`."),
    ],
)  # fmt: skip
def test_absent_packages(format, int8, absent, sentence, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(UsageError) as caught:
        check_out(tmp_path / f"m{SUFFIX[format]}", format, int8=int8)
    assert str(caught.value) == sentence


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export(odd_bundle(), "coreml", tmp_path / "m")
    assert str(caught.value) == (
        "'coreml' is no format of an export; choose from onnx, openvino, litert, saved_model, keras."
    )


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_convert", full)
    out = tmp_path / "m.keras"
    with pytest.raises(MultilabelError) as caught:
        export(load_bundle(folder), "keras", out)
    assert str(caught.value) == f"{out} cannot be written (No space left on device); choose another --out."
    assert list(tmp_path.iterdir()) == []
