"""Runtimes: a bundle and its exports say the same, whatever computes; and whatever is wrong is one sentence."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_bundle import DESCRIPTION, WEIGHTS, small_bundle, tag_bundle

from multilabel import bundle as bundles
from multilabel import export, networks, runtimes, sidecar
from multilabel.cli import main
from multilabel.errors import BundleError, DataError, MultilabelError, UsageError
from multilabel.inference import predict
from multilabel.runtimes import load, needs_tensorflow
from multilabel.thresholds import Threshold

for package in ("openvino", "onnx", "tf2onnx", "onnxruntime", "ai_edge_litert"):
    pytest.importorskip(package, reason="the runtimes are not installed: pip install -e '.[test-exports]'")

FILES = {"onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite", "saved_model": "m", "keras": "m.keras"}
WAYS = [  # every file, and every runtime that runs it
    ("m.onnx", None),
    ("m.onnx", "onnxruntime"),
    ("m.onnx", "openvino"),
    ("m.xml", None),
    ("m.xml", "openvino"),
    ("m.tflite", None),
    ("m", "tensorflow"),
    ("m.keras", None),
    ("model", None),
    ("model", "tensorflow"),
    ("model", "onnxruntime"),
    ("model", "openvino"),
]
AGAIN = "run `multilabel export` again."


@pytest.fixture(scope="module")
def bundle():
    """Two attributes and two tags, whose probabilities differ from picture to picture."""
    made = tag_bundle()
    rng = np.random.default_rng(3)
    for head in made.heads:
        layer = made.model.get_layer(head.name)
        layer.set_weights([rng.normal(size=array.shape) * 2 for array in layer.get_weights()])
    provenance = {"settings": {"rare": "pool", "pool_name": "grey"}, "rare_classes": {"colour": {"pink": 1}}}
    return replace(made, not_better_than_chance=("coat",), provenance=provenance)


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    """The bundle in `model`, and every export of it; not to be changed."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "model").mkdir()
    bundles.save(bundle, folder / "model")
    for format, name in FILES.items():
        export.export(bundle, format, folder / name)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A user's cache folder, the same for all tests that do not ask for one of their own."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own cache"))
    return tmp_path / "own cache" / "multilabel" / "exports"


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def quick(folder, monkeypatch):
    """Conversions are copies of the exports that are there already; how many were made."""
    made = []

    def copy(bundle, format, out):
        made.append(out)
        out.parent.mkdir()
        original = folder / FILES[format]
        shutil.copy(sidecar.sidecar_of(original), sidecar.sidecar_of(out))
        for source, target in zip(sidecar.files_of(original), sidecar.files_of(out), strict=True):
            shutil.copy(source, target)

    monkeypatch.setattr(export, "export", copy)
    return made


@pytest.fixture
def copied(folder, tmp_path):
    """Bundle and exports, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Pictures of many colours and sizes; one is broken."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(37):
        pixels = np.clip(rng.normal(rng.integers(0, 256, 3), 40, (30 + number, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "11.png").write_bytes(b"no picture")
    return folder


def pixels(n):
    """Noise around a colour of its own in each picture."""
    rng = np.random.default_rng(7)
    return np.clip(rng.normal(rng.integers(0, 256, (n, 1, 1, 3)), 40, (n, 32, 40, 3)), 0, 255).astype(np.uint8)


def infer(*arguments):
    result = CliRunner().invoke(main, ["infer", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def change(path, *left_out, **values):
    """Replaces values of a JSON file, and leaves out some."""
    said = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in said.items() if name not in left_out}))


# --- the same, whatever computes


@pytest.mark.parametrize(("name", "runtime"), WAYS)
def test_every_runtime_predicts_what_the_bundle_predicts(folder, bundle, images, name, runtime):
    model = load(folder / name, runtime)
    assert model.run_name == "tags"
    assert (model.image_size, model.attributes, model.tags) == ((32, 40), bundle.attributes, bundle.tags)
    assert (model.outputs, model.thresholds) == (bundle.outputs, bundle.thresholds)
    assert model.not_better_than_chance == ("coat",)
    assert model.provenance["settings"]["pool_name"] == "grey"
    assert model.provenance["rare_classes"] == {"colour": {"pink": 1}}
    expected, found = (list(predict(used, [str(images)], min_confidence=0.6)) for used in (bundle, model))
    assert [prediction.image for prediction in found] == [prediction.image for prediction in expected]
    for ours, theirs in zip(expected, found, strict=True):
        assert (theirs.error, theirs.present) == (ours.error, ours.present)
        assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-4)
        assert list(theirs.tags) == list(ours.tags)
        for name, tag in ours.tags.items():
            assert theirs.tags[name].decided == tag.decided
            assert [label for label, _ in theirs.tags[name].top] == [label for label, _ in tag.top]
            assert dict(theirs.tags[name].top) == pytest.approx(dict(tag.top), abs=1e-4)
    assert sum(prediction.error is not None for prediction in found) == 1


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 9, 33])
@pytest.mark.parametrize("name", ["m.xml", "m.onnx", "m.tflite"])
def test_pictures_keep_their_places_however_many_come_at_once(folder, bundle, name, n):
    expected = bundle.probabilities(pixels(n))
    found = load(folder / name).probabilities(pixels(n))
    assert list(found) == list(expected)
    for output, p in expected.items():
        assert found[output].shape == p.shape
        np.testing.assert_allclose(found[output], p, atol=1e-4)
        assert len(np.unique(p.round(3), axis=0)) > n / 2  # else a wrong place would not be seen


def test_what_was_compiled_for_one_picture_takes_many(folder, bundle):
    model = load(folder / "m.xml")
    for n in (1, 33, 2):
        np.testing.assert_allclose(
            model.probabilities(pixels(n))["attributes"], bundle.probabilities(pixels(n))["attributes"], atol=1e-4
        )


def test_models_of_attributes_or_of_tags_alone(tmp_path):
    for made in (small_bundle(), tag_bundle(())):
        export.export(made, "openvino", tmp_path / f"{made.run_name}.xml")
        model = load(tmp_path / f"{made.run_name}.xml")
        shown = np.random.default_rng(0).integers(0, 256, (3, *made.image_size, 3), dtype=np.uint8)
        expected, found = made.probabilities(shown), model.probabilities(shown)
        assert (model.attributes, model.tags, model.run_name) == (made.attributes, made.tags, made.run_name)
        assert tuple(found) == made.outputs
        for output in made.outputs:
            np.testing.assert_allclose(found[output], expected[output], atol=1e-4)


def test_infer_says_the_same_of_the_sample_data_in_every_runtime(folder, root):
    pictures = sorted((root / "data" / "images").glob("*.jpg"))[:24]
    said = []
    for runtime in ("tensorflow", "openvino", "onnxruntime"):
        done = infer("--model", folder / "model", "--runtime", runtime, "--format", "csv", *pictures)
        said.append(list(csv.reader(io.StringIO(done.stdout))))
    header, *rows = said[0]
    assert len(rows) == 24
    for other in said[1:]:
        assert other[0] == header
        for ours, theirs in zip(rows, other[1:], strict=True):
            for column, our_cell, their_cell in zip(header, ours, theirs, strict=True):
                if column.endswith("_probability") and our_cell:
                    assert float(their_cell) == pytest.approx(float(our_cell), abs=1e-3)
                else:
                    assert their_cell == our_cell


def test_sheets_and_labels_are_the_same_in_every_runtime(folder, images, tmp_path):
    names = sorted(path.name for path in images.iterdir())
    rows = [
        f"{name},{number % 2},{'green' if number % 3 else 'pink'},{'round' if number % 5 else 'square'}"
        for number, name in enumerate(names)
    ]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["image,hat,colour,shape", *rows]) + "\n")
    told = {}
    for name in ("model", "m.xml", "m.tflite"):
        sheet = tmp_path / f"{name}.html"
        done = infer("--model", folder / name, images, "--sheet", sheet, "--labels", labels)
        assert sheet.exists(), done.stderr
        verdicts = re.findall(r'<li class="(\w+)">', sheet.read_text())
        counts = re.search(r"Of \d+ labels, \d+ are as predicted", sheet.read_text())[0]
        told[name] = (done.exit_code, verdicts, counts, done.stderr)
        assert {"right", "wrong"} <= set(verdicts)
    assert told["m.xml"] == told["m.tflite"] == told["model"]
    assert f"Not in {labels}, so not measured: coat." in told["m.xml"][3]


# --- conversions


def test_a_bundle_is_converted_once(folder, own_cache, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "multilabel")
    assert needs_tensorflow(folder / "model", "openvino")
    load(folder / "model", "openvino")
    assert caplog.messages == [
        f"{folder / 'model'} is converted for openvino with TensorFlow, once; the conversion is kept in {own_cache}."
    ]
    assert not needs_tensorflow(folder / "model", "openvino")
    assert needs_tensorflow(folder / "model", "onnxruntime")
    assert sorted(path.suffix for path in files_below(own_cache)) == [".bin", ".json", ".xml"]
    monkeypatch.setattr(bundles, "load", None)  # whoever uses TensorFlow now, fails
    load(folder / "model", "openvino")
    assert len(caplog.messages) == 1


def test_what_tune_changes_is_the_bundles_own(copied, bundle, own_cache, quick):
    load(copied / "model", "openvino")
    kept = files_below(own_cache)
    tuned = tuple(Threshold(value, "tuned", 30, (0.1, 0.9)) for value in (0.2, 0.8))
    bundles.save_description(replace(bundle, thresholds=tuned, run_name="other"), copied / "model")
    model = load(copied / "model", "openvino")
    assert (model.thresholds, model.run_name) == (tuned, "other")
    assert files_below(own_cache) == kept


def test_another_model_is_another_conversion(copied, bundle, own_cache, quick):
    load(copied / "model", "openvino")
    attributes, *tags = bundle.heads
    others = {
        "names": replace(bundle, heads=(replace(attributes, attributes=("coat", "hat")), *tags)),
        "weights": tag_bundle(),
        "size": replace(bundle, backbone=replace(bundle.backbone, image_size=(40, 32))),
    }
    for what, other in others.items():
        bundles.save(other, copied / "model")
        assert needs_tensorflow(copied / "model", "openvino"), what
    bundles.save(bundle, copied / "model")
    bundles.save_description(replace(bundle, precision="bfloat16", run_name="other"), copied / "model")
    assert not needs_tensorflow(copied / "model", "openvino")


@pytest.mark.parametrize("damaged", [".xml", ".bin", ".json"])
def test_a_kept_conversion_that_is_damaged_is_made_anew(folder, bundle, own_cache, quick, caplog, damaged):
    load(folder / "model", "openvino")
    (file,) = own_cache.glob(f"*/*{damaged}")
    file.write_bytes(b"damaged")
    caplog.clear()
    model = load(folder / "model", "openvino")
    assert caplog.messages[0].startswith(f"A conversion that was kept is made anew: {own_cache}")
    np.testing.assert_allclose(
        model.probabilities(pixels(2))["attributes"], bundle.probabilities(pixels(2))["attributes"], atol=1e-4
    )
    caplog.clear()
    load(folder / "model", "openvino")
    assert caplog.messages == []
    assert len(quick) == 2


def test_a_conversion_that_stops_leaves_nothing(folder, own_cache, monkeypatch):
    def stops(bundle, format, out):
        out.parent.mkdir()
        out.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export", stops)
    with pytest.raises(KeyboardInterrupt):
        load(folder / "model", "openvino")
    assert files_below(own_cache) == []
    assert needs_tensorflow(folder / "model", "openvino")


def test_two_processes_that_convert_the_same_bundle(folder, own_cache, quick, monkeypatch):
    """While one converts, the other is ready; what is there afterwards is whole."""
    alone = export.export

    def while_another_does(bundle, format, out):
        alone(bundle, format, out)
        monkeypatch.setattr(export, "export", alone)
        load(folder / "model", "openvino")

    monkeypatch.setattr(export, "export", while_another_does)
    load(folder / "model", "openvino")
    assert len(quick) == 2
    assert sorted(path.suffix for path in files_below(own_cache)) == [".bin", ".json", ".xml"]
    load(folder / "model", "openvino")
    assert len(quick) == 2


def test_a_cache_folder_that_cannot_be_written(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BundleError) as error:
        load(folder / "model", "openvino")
    assert str(error.value) == (
        f"{folder / 'model'} cannot be converted for openvino, because {tmp_path}/file/multilabel/exports cannot be "
        "written (Not a directory); run `multilabel export`, and give its file as --model."
    )


def damage_weights(model):
    (model / WEIGHTS).write_bytes(b"others")


def remove_weights(model):
    (model / WEIGHTS).unlink()


def spoil_json(model):
    (model / DESCRIPTION).write_text("{")


def newer(model):
    change(model / DESCRIPTION, schema=99)


def no_precision(model):
    change(model / DESCRIPTION, "precision")


def odd_precision(model):
    change(model / DESCRIPTION, precision="int4")


def no_thresholds(model):
    change(model / DESCRIPTION, thresholds=[])


def no_run_name(model):
    change(model / DESCRIPTION, "run_name")


DAMAGES = [damage_weights, remove_weights, spoil_json, newer, no_precision, odd_precision, no_thresholds, no_run_name]


@pytest.mark.parametrize("damage", [*DAMAGES, shutil.rmtree])
def test_a_damaged_bundle_is_told_of_in_the_same_words_in_every_runtime(copied, damage):
    load(copied / "model", "openvino")  # the conversion is kept
    damage(copied / "model")
    told = []
    for runtime in ("tensorflow", "openvino", "onnxruntime"):
        with pytest.raises(BundleError) as error:
            load(copied / "model", runtime)
        told.append(str(error.value))
    assert told[0] == told[1] == told[2]
    assert "multilabel" in told[0]


# --- precision


@pytest.fixture
def precisions(monkeypatch):
    """What networks are opened in."""
    used = []

    def opened(runtime, file, precision):
        used.append(precision)
        return lambda pixels: {}

    monkeypatch.setattr(runtimes, "open_network", opened)
    return used


@pytest.fixture
def able(monkeypatch):
    """A machine that computes in bfloat16."""
    monkeypatch.setattr(networks, "computes_in", None)
    monkeypatch.setattr(runtimes, "computes_in", lambda runtime, p: p == "float32" or runtime == "openvino")


def test_an_export_computes_in_float32_unless_told_otherwise(folder, precisions, able):
    load(folder / "m.xml")
    load(folder / "m.xml", precision="bfloat16")
    load(folder / "m.onnx", "openvino", "bfloat16")
    load(folder / "m.tflite", precision="float32")
    assert precisions == ["float32", "bfloat16", "bfloat16", "float32"]


def test_a_bundle_computes_in_what_it_was_measured_in(copied, precisions, able, caplog):
    caplog.set_level(logging.INFO, "multilabel")
    load(copied / "model", "onnxruntime")
    load(copied / "model", "openvino")
    change(copied / "model" / DESCRIPTION, precision="bfloat16")
    caplog.clear()
    load(copied / "model", "openvino")
    load(copied / "model", "openvino", "float32")
    assert caplog.messages == []
    load(copied / "model", "onnxruntime")
    assert caplog.messages == [
        "The model was measured in bfloat16; onnxruntime computes in float32 here, and its "
        "probabilities are slightly other ones."
    ]
    assert precisions == ["float32", "float32", "bfloat16", "float32", "float32"]


def test_a_bundle_in_tensorflow_takes_a_precision_too(copied, monkeypatch):
    monkeypatch.setattr("multilabel.backbones.computes_in", lambda precision: True)
    assert load(copied / "model").precision == "float32"
    assert load(copied / "model", precision="bfloat16").precision == "bfloat16"
    change(copied / "model" / DESCRIPTION, precision="bfloat16")
    assert load(copied / "model").precision == "bfloat16"
    assert load(copied / "model", precision="float32").precision == "float32"


def test_bfloat16_is_nearly_the_same_and_really_computed(folder, bundle):
    if not networks.computes_in("openvino", "bfloat16"):
        pytest.skip("this processor does not compute in bfloat16")
    exact = bundle.probabilities(pixels(8))["attributes"]
    difference = np.abs(load(folder / "m.xml", precision="bfloat16").probabilities(pixels(8))["attributes"] - exact)
    assert 1e-5 < difference.max() < 0.05


# --- wrong calls


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "message"),
    [
        ("m.onnx", "tensorflow", None, "tensorflow does not run {path}, which is for onnxruntime or openvino"),
        ("m.xml", "onnxruntime", None, "onnxruntime does not run {path}, which is for openvino"),
        ("m.tflite", "openvino", None, "openvino does not run {path}, which is for litert"),
        ("m", "openvino", None, "openvino does not run {path}, which is for tensorflow"),
        ("m.keras", "onnxruntime", None, "onnxruntime does not run {path}, which is for tensorflow"),
        ("model", "litert", None, "litert does not run {path}, which is for tensorflow or onnxruntime or openvino"),
        ("m.onnx", None, "bfloat16", "onnxruntime computes exports in float32 alone"),
        ("m.tflite", None, "bfloat16", "litert computes exports in float32 alone"),
        ("m", None, "bfloat16", "tensorflow computes exports in float32 alone"),
        ("m.keras", None, "bfloat16", "tensorflow computes exports in float32 alone"),
        ("model", "onnxruntime", "bfloat16", "onnxruntime computes exports in float32 alone"),
        ("m.xml", None, "bfloat16", "this machine does not compute in it"),
        ("model", "openvino", "bfloat16", "this machine does not compute in it"),
        ("model", "tensorflow", "bfloat16", "this machine does not compute in it"),
    ],
)
def test_what_does_not_fit(folder, monkeypatch, name, runtime, precision, message):
    monkeypatch.setattr(runtimes, "computes_in", lambda runtime, precision: precision == "float32")
    monkeypatch.setattr("multilabel.backbones.computes_in", lambda precision: precision == "float32")
    with pytest.raises(UsageError) as error:
        load(folder / name, runtime, precision)
    if precision is None:
        expected = f"--runtime {message.format(path=folder / name)}; leave out --runtime."
        with pytest.raises(UsageError, match=re.escape(expected)):
            needs_tensorflow(folder / name, runtime)
    else:
        expected = f"--precision {precision}: {message}; leave it out."
    assert str(error.value) == expected


def test_int8_has_its_precision(copied, precisions, monkeypatch):
    change(copied / "m.xml.json", precision="int8")
    load(copied / "m.xml")
    assert precisions == ["float32"]  # of what is not in int8
    for precision in ("float32", "bfloat16"):
        with pytest.raises(UsageError) as error:
            load(copied / "m.xml", precision=precision)
        assert str(error.value) == (
            f"--precision {precision}: {copied / 'm.xml'} was exported to compute in int8; leave it out."
        )


@pytest.mark.parametrize(
    ("name", "runtime", "installs"),
    [
        ("m.onnx", "onnxruntime", "multilabel[onnx]"),
        ("m.onnx", "openvino", "multilabel[openvino]"),
        ("m.xml", "openvino", "multilabel[openvino]"),
        ("m.tflite", "litert", "multilabel[litert]"),
        ("m.keras", "tensorflow", "multilabel"),
        ("model", "openvino", "multilabel[openvino]"),
        ("model", "onnxruntime", "multilabel[onnx]"),
    ],
)
def test_a_runtime_that_is_not_installed(folder, monkeypatch, name, runtime, installs):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as error:
        load(folder / name, runtime)
    assert str(error.value) == f"{runtime} is not installed; install it with `pip install '{installs}'`."


# --- damaged exports


def not_ours(file):
    return f"{file} is not the file that was exported with {file.name}.json; {AGAIN}"


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "m.tflite", "m.keras"])
def test_a_file_that_is_not_the_one_that_was_exported(copied, name):
    file = copied / name
    with file.open("ab") as opened:
        opened.write(b" ")
    refused(file, not_ours(file))


def test_the_weights_of_another_model(copied):
    (copied / "m.bin").write_bytes((copied / "m.bin").read_bytes()[:-4] + b"\0\0\0\0")
    refused(copied / "m.xml", not_ours(copied / "m.xml"))
    (copied / "m.bin").unlink()
    refused(
        copied / "m.xml",
        f"{copied / 'm.xml'} cannot be read (m.bin: No such file or directory); make one with `multilabel export`.",
    )


def test_the_sidecar_of_another_format(copied):
    change(copied / "m.json", format="keras")
    refused(copied / "m", not_ours(copied / "m"))


def test_a_saved_model_with_other_weights(copied):
    (data,) = (copied / "m" / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-4] + b"\0\0\0\0")
    refused(copied / "m", not_ours(copied / "m"))


@pytest.mark.parametrize("option", ["--output", "--sheet"])
@pytest.mark.parametrize("inside", ["model/multilabel.json", "model/new.html", "m/saved_model.pb"])
def test_predictions_do_not_go_into_a_model(copied, option, inside):
    model, output = copied / inside.partition("/")[0], copied / inside
    before = output.read_bytes() if output.exists() else None
    done = infer("1.jpg", "--model", model, option, output)
    assert (done.exit_code, done.stderr) == (
        2,
        f"Error: {option} {output} lies inside --model {model}; choose another file.\n",
    )
    assert (output.read_bytes() if output.exists() else None) == before


@pytest.mark.parametrize("name", ["m.xml", "m.bin", "m.xml.json"])
def test_predictions_do_not_replace_the_export(copied, name):
    before = (copied / name).read_bytes()
    output = copied / name
    done = infer("1.jpg", "--model", copied / "m.xml", "--format", "json", "--output", output)
    assert done.exit_code == 2
    assert done.stderr == f"Error: --output {output} is read, too; choose another file.\n"
    assert output.read_bytes() == before


def test_an_export_that_differs_from_its_bundle_is_no_conversion(folder, own_cache, monkeypatch):
    def differs(bundle, format, out):
        raise DataError("the onnx export and the bundle differ by 0.5 in a probability (16 generated pictures)")

    monkeypatch.setattr(export, "export", differs)
    with pytest.raises(BundleError) as error:
        load(folder / "model", "onnxruntime")
    assert str(error.value) == (
        f"{folder / 'model'} cannot be converted for onnxruntime; leave out --runtime. What went wrong: the onnx "
        "export and the bundle differ by 0.5 in a probability (16 generated pictures)"
    )
    assert files_below(own_cache) == []


def test_the_folder_of_a_saved_model_from_inside(folder, monkeypatch):
    monkeypatch.chdir(folder / "m")
    assert load(".").attributes == ("hat", "coat")


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "m.tflite", "m.keras"])
def test_no_file(tmp_path, name):
    refused(
        tmp_path / name,
        f"{tmp_path / name} cannot be read (No such file or directory); make one with `multilabel export`.",
    )


def test_what_is_neither(tmp_path):
    refused(
        tmp_path / "m.pt", f"{tmp_path / 'm.pt'} is not a bundle (it does not exist); make one with `multilabel fit`."
    )


def test_a_sidecar_that_is_missing(copied):
    (copied / "m.xml.json").unlink()
    refused(
        copied / "m.xml",
        f"{copied / 'm.xml.json'} is missing, and only it says what m.xml predicts; "
        "put it there, or run `multilabel export` again.",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("\xff", "cannot be read ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"),
        ("[]", "is not an export's description"),
        ("{}", "is not an export's description"),
        ('{"schema": "1"}', "is not an export's description"),
        ('{"schema": 1}', "is damaged ('format' is missing)"),
    ],
)
def test_a_sidecar_that_is_none(copied, text, message):
    (copied / "m.xml.json").write_bytes(text.encode("latin-1"))
    refused(copied / "m.xml", f"{copied / 'm.xml.json'} {message}; {AGAIN}")


def test_an_export_of_a_newer_version(copied):
    change(copied / "m.xml.json", schema=2)
    refused(
        copied / "m.xml",
        f"{copied / 'm.xml'} was exported by a newer multilabel; update with `pip install -U multilabel`.",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"outputs": [{"kind": "tag"}]}, "'name' is missing"),
        ({"thresholds": []}, "its thresholds do not belong to its attributes"),
        ({"image_size": [32]}, "not enough values to unpack (expected 2, got 1)"),
        ({"outputs": 7}, "'int' object is not iterable"),
    ],
)
def test_a_sidecar_that_says_something_else(copied, values, message):
    change(copied / "m.xml.json", **values)
    refused(copied / "m.xml", f"{copied / 'm.xml.json'} is damaged ({message}); {AGAIN}")


@pytest.mark.parametrize("key", ["outputs", "thresholds", "image_size", "labels", "run_name", "file_sha256"])
def test_a_sidecar_that_lacks_something(copied, key):
    change(copied / "m.xml.json", key)
    refused(copied / "m.xml", f"{copied / 'm.xml.json'} is damaged ('{key}' is missing); {AGAIN}")


@pytest.mark.parametrize("name", ["m.xml", "m.onnx", "m.tflite", "m", "m.keras"])
def test_outputs_that_the_file_does_not_have(copied, name):
    file = sidecar.sidecar_of(copied / name)
    outputs = json.loads(file.read_text())["outputs"]
    change(file, outputs=[{**outputs[0], "name": "nothing"}, *outputs[1:]])
    model = load(copied / name)
    with pytest.raises(BundleError) as error:
        model.probabilities(pixels(1))
    assert str(error.value) == f"{copied / name} is damaged (it has no output nothing); {AGAIN}"
    change(file, outputs=[{**outputs[0]}, {**outputs[1], "names": ["red", "green"]}, *outputs[2:]])
    model = load(copied / name)
    with pytest.raises(BundleError) as error:
        model.probabilities(pixels(1))
    assert (
        str(error.value) == f"{copied / name} is damaged (its output {outputs[1]['name']} is not of 2 names); {AGAIN}"
    )


@pytest.mark.parametrize("name", ["m.xml", "m.onnx", "m.tflite", "m.keras"])
def test_a_file_that_the_runtime_does_not_read(copied, name):
    (copied / name).write_bytes(b"nothing that can be read")
    change(copied / f"{name}.json", file_sha256=sidecar.digest_of(copied / name))
    with pytest.raises(BundleError) as error:
        load(copied / name)
    message = str(error.value)
    assert re.fullmatch(rf"{re.escape(str(copied / name))} is damaged \(.+\); {re.escape(AGAIN)}", message)
    assert "\n" not in message


def test_a_saved_model_that_cannot_be_read(copied):
    (copied / "m" / "saved_model.pb").write_bytes(b"nothing")
    refused(copied / "m", not_ours(copied / "m"))
    change(copied / "m.json", file_sha256=sidecar.digest_of(copied / "m"))
    with pytest.raises(BundleError, match=r"m is damaged \(.+\); run `multilabel export` again\.$"):
        load(copied / "m")


def refused(path, message):
    with pytest.raises(MultilabelError) as error:
        load(path)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--model", "m.xml"], 1), (["--model", "m.tflite", "--runtime", "openvino"], 2), (["--model", "nowhere"], 1)],
)
def test_infer_ends_with_one_sentence(copied, images, monkeypatch, arguments, code):
    monkeypatch.chdir(copied)
    (copied / "m.bin").write_bytes(b"")
    done = infer(*arguments, images, "--output", "out.txt")
    assert (done.exit_code, done.stdout) == (code, "")
    assert re.fullmatch(r"Error: .+\n", done.stderr)
    assert not (copied / "out.txt").exists()


def test_infer_does_not_write_over_its_model(copied, images):
    before = (copied / "m.xml").read_bytes()
    done = infer("--model", copied / "m.xml", images, "--output", copied / "m.xml")
    assert done.exit_code == 2
    assert done.stderr == f"Error: --output {copied / 'm.xml'} is read, too; choose another file.\n"
    assert (copied / "m.xml").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "runtime", "needs"),
    [
        ("m.onnx", None, False),
        ("m.xml", None, False),
        ("m.tflite", None, False),
        ("m", None, True),
        ("m.keras", None, True),
        ("model", None, True),
        ("model", "tensorflow", True),
    ],
)
def test_who_needs_tensorflow(folder, name, runtime, needs):
    assert needs_tensorflow(folder / name, runtime) is needs


def test_every_file_has_a_model_with_all_that_predictions_need(folder):
    model = load(folder / "m.xml")
    assert {field.name for field in fields(model)} >= {"thresholds", "attributes", "tags", "outputs"}
    assert "network" not in repr(model)
