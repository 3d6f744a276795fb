"""The bundle: what is written can be read again, what is damaged is refused, and nothing good is ever lost."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multilabel import backbones
from multilabel import bundle as bundles
from multilabel.backbones import build_backbone, freeze, set_weights
from multilabel.bundle import DESCRIPTION, WEIGHTS, Bundle, check_out, load, load_backbone, save, writing
from multilabel.config import CnnShape
from multilabel.engine import Engine
from multilabel.errors import BundleError, UsageError
from multilabel.heads import LogitHead, SoftmaxHead
from multilabel.labels import Tag
from multilabel.losses import Missing
from multilabel.thresholds import Threshold
from multilabel.training import build_models

THRESHOLDS = (Threshold(0.25, "tuned", 12, (0.125, 0.3)), Threshold(1 / 3, "shared", 3), Threshold(0.5, "default", 0))
COLOURS = ("red", "green", "blue", "grey")
SHAPES = ("round", "square")
NOT_A_BUNDLE = "is not a bundle's description; run `multilabel fit` again."


def small_bundle(seed=0, attributes=("hat", "scarf", "coat"), thresholds=THRESHOLDS):
    """A `cnn` of random weights for pictures of 32 px."""
    keras.utils.set_random_seed(seed)
    backbone = build_backbone("cnn", "none", (32, 32))
    freeze(backbone)
    head = LogitHead(tuple(attributes), (2.0, 0.5, 1.0), 0.75)
    model = with_random_heads(backbone, [head], seed)
    return Bundle(
        "été 1",
        backbone,
        (head,),
        tuple(thresholds),
        model,
        {"created": "today", "pictures": {"a": 7}},
        ("coat",),
        {"hat": {"kind": "platt", "slope": 0.5, "intercept": -1.0}},
    )


def tag_bundle(attributes=("hat", "coat")):
    """One of two tags and, unless there are none, attributes."""
    keras.utils.set_random_seed(0)
    shape = CnnShape(filters=(8, 16), kernel_sizes=(5, 3), dense_units=8, batch_norm="after", dropout=0.25)
    backbone = build_backbone("cnn", "none", (32, 40), cnn=shape)
    freeze(backbone)
    tags = (
        SoftmaxHead("colour", COLOURS, (0.5, 1.0, 2.0, 4.0), 0.1, 0.75, 3.0, "tag1_colour"),
        SoftmaxHead("shape", SHAPES, name="tag2_shape"),
    )
    heads = (LogitHead(attributes, (1.0,) * len(attributes), 0.5), *tags) if attributes else tags
    thresholds = THRESHOLDS[: len(attributes)]
    return Bundle("tags", backbone, heads, thresholds, with_random_heads(backbone, heads))


def with_random_heads(backbone, heads, seed=0):
    """Backbone and heads, whose weights are 0 until they learn, as if they had learnt something."""
    model = build_models(backbone, heads)[1]
    rng = np.random.default_rng(seed)
    for head in heads:
        layer = model.get_layer(head.name)
        layer.set_weights([rng.normal(0, 0.1, weights.shape) for weights in layer.get_weights()])
    return model


def pixels(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def logits(bundle):
    return bundle.model.predict(pixels(), verbose=0)["attributes"]


def contents(folder):
    """Names, bytes and kinds of all that is below a folder, hidden files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def begin_writing(folder):
    """And give up at once."""
    with suppress(KeyboardInterrupt), writing(folder):
        raise KeyboardInterrupt


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def describe(folder, description):
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


@pytest.fixture(scope="module")
def original():
    return small_bundle()


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    """A bundle on the disk; not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    with writing(folder) as new:
        save(original, new)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A bundle on the disk, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


# --- saved and loaded


def test_a_loaded_bundle_is_the_saved_one(original, saved):
    loaded = load(saved)
    np.testing.assert_array_equal(logits(loaded), logits(original))
    assert (loaded.run_name, loaded.heads, loaded.thresholds) == ("été 1", original.heads, THRESHOLDS)
    assert loaded.attributes == ("hat", "scarf", "coat")
    assert loaded.provenance == original.provenance
    assert loaded.not_better_than_chance == ("coat",)
    assert loaded.calibration == original.calibration != {}
    assert loaded.backbone.get_config() == original.backbone.get_config()
    assert loaded.backbone.fingerprint() == original.backbone.fingerprint()
    assert not loaded.backbone.model.trainable_weights


@pytest.fixture
def machine(monkeypatch):
    """Pretends to run on a machine that computes in these precisions."""
    return lambda *precisions: monkeypatch.setattr(backbones, "_available_precisions", lambda: list(precisions))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_probabilities_are_those_of_the_heads_on_the_engines_features(precision, original, tmp_path, machine):
    machine("bfloat16", "float32")
    with writing(tmp_path / "model") as new:
        save(replace(original, precision=precision), new)
    loaded = load(tmp_path / "model")
    assert (loaded.precision, loaded.engine.precision) == (precision, precision)
    probabilities = loaded.probabilities(pixels())
    features = Engine(original.backbone, precision)(pixels())
    kernel, bias = original.model.get_layer("attributes").get_weights()
    expected = 1 / (1 + np.exp(-(features.astype(np.float64) @ kernel + bias)))
    assert list(probabilities) == ["attributes"]
    np.testing.assert_allclose(probabilities["attributes"], expected, rtol=1e-5)
    plain = 1 / (1 + np.exp(-logits(loaded).astype(np.float64)))
    np.testing.assert_allclose(probabilities["attributes"], plain, atol=1e-5 if precision == "float32" else 0.05)
    if precision == "bfloat16":
        assert not np.allclose(probabilities["attributes"], plain, atol=1e-6)


def test_probabilities_of_a_picture_do_not_depend_on_the_others(original):
    together = original.probabilities(pixels())["attributes"]
    np.testing.assert_allclose(original.probabilities(pixels()[2:3])["attributes"], together[2:3], rtol=1e-4)


@pytest.mark.parametrize("attributes", [("hat", "coat"), ()])
def test_outputs_are_attributes_then_tags(attributes):
    bundle = tag_bundle(attributes)
    outputs = (*(["attributes"] if attributes else []), "tag1_colour", "tag2_shape")
    assert bundle.outputs == outputs
    assert bundle.image_size == (32, 40)
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), dtype=np.uint8)
    probabilities = bundle.probabilities(x)
    assert {name: p.shape for name, p in probabilities.items()} == {
        name: (3, units) for name, units in zip(outputs, (*([2] if attributes else []), 4, 2), strict=True)
    }
    np.testing.assert_allclose(probabilities["tag1_colour"].sum(axis=1), 1, rtol=1e-5)


def test_a_precision_that_the_machine_has_not_is_float32_and_said_once(original, machine, caplog):
    machine("float32")
    bundle = replace(original, precision="bfloat16")
    with caplog.at_level("INFO", "multilabel"):
        probabilities = bundle.probabilities(pixels())["attributes"]
        np.testing.assert_array_equal(bundle.probabilities(pixels())["attributes"], probabilities)
    np.testing.assert_array_equal(probabilities, original.probabilities(pixels())["attributes"])
    assert caplog.messages == [
        "The model was measured in bfloat16, which this machine does not compute in: it computes in float32, and its "
        "probabilities are slightly other ones."
    ]


def test_a_loaded_bundle_can_be_saved_again(saved, tmp_path):
    save(load(saved), tmp_path)
    first, second = strict_json(saved / DESCRIPTION), strict_json(tmp_path / DESCRIPTION)
    assert second == {**first, "weights_sha256": second["weights_sha256"]}
    np.testing.assert_array_equal(logits(load(tmp_path)), logits(load(saved)))


def test_several_heads(tmp_path):
    backbone = build_backbone("cnn", "none", (64, 48))
    heads = (LogitHead(("hat", "coat"), (1.0, 2.0), 0.5, "wardrobe"), LogitHead(("warm",), (1.0,), 1.0, "season"))
    model = with_random_heads(backbone, heads)
    save(Bundle("run", backbone, heads, THRESHOLDS, model), tmp_path)
    loaded = load(tmp_path)
    assert (loaded.heads, loaded.attributes, loaded.provenance) == (heads, ("hat", "coat", "warm"), {})
    given_pixels = np.zeros((2, 64, 48, 3))
    for name, values in model.predict(given_pixels, verbose=0).items():
        np.testing.assert_array_equal(loaded.model.predict(given_pixels, verbose=0)[name], values)


@pytest.mark.parametrize("attributes", [("hat", "coat"), ()])
def test_tags_beside_attributes_and_alone(tmp_path, attributes):
    original = tag_bundle(attributes)
    save(original, tmp_path)
    loaded = load(tmp_path)
    assert (loaded.heads, loaded.thresholds) == (original.heads, original.thresholds)
    assert loaded.attributes == attributes
    assert loaded.tags == (Tag("colour", COLOURS), Tag("shape", SHAPES))
    assert loaded.backbone.cnn == original.backbone.cnn
    assert loaded.backbone.get_config() == original.backbone.get_config()
    described = strict_json(tmp_path / DESCRIPTION)
    assert described["schema"] == 1
    assert described["heads"] == [head.get_config() for head in original.heads]
    assert [item["attribute"] for item in described["thresholds"]] == list(attributes)
    given_pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), dtype=np.uint8)
    found, expected = (bundle.model.predict(given_pixels, verbose=0) for bundle in (loaded, original))
    assert set(found) == {head.name for head in original.heads}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_thresholds_without_attributes_are_refused(tmp_path):
    save(tag_bundle(()), tmp_path)
    threshold = {"attribute": "hat", "value": 0.5, "source": "default", "positives": 0, "spread": None}
    describe(tmp_path, {**strict_json(tmp_path / DESCRIPTION), "thresholds": [threshold]})
    with pytest.raises(BundleError) as error:
        load(tmp_path)
    reason = "its thresholds do not belong to its attributes"
    assert str(error.value) == f"{tmp_path} is damaged ({reason}); run `multilabel fit` again."


@pytest.mark.parametrize("image_size", [None, (32, 40), (64, 48)])
def test_the_backbone_of_a_bundle_at_any_size(tmp_path, image_size):
    original = tag_bundle()
    rng = np.random.default_rng(0)  # weights that no network starts with, BatchNorm statistics among them
    original.backbone.model.set_weights([rng.uniform(0.1, 1, w.shape) for w in original.backbone.model.get_weights()])
    save(original, tmp_path)
    backbone = load_backbone(str(tmp_path), image_size)
    assert backbone.weights == f"bundle {tmp_path.name}"
    assert backbone.image_size == (image_size or (32, 40))
    assert backbone.pretrained
    assert backbone.cnn == original.backbone.cnn
    assert not backbone.model.trainable_weights
    for found, expected in zip(backbone.model.get_weights(), original.backbone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    if backbone.image_size == (32, 40):
        assert backbone.fingerprint() == original.backbone.fingerprint()
    build_models(backbone, [LogitHead(("new",), (1.0,), 1.0)])  # other heads fit


@pytest.mark.slow
def test_the_statistics_of_a_normalization_go_along(tmp_path):
    """EfficientNet's: Keras' `set_weights` alone would leave it computing with the mean 0 and the variance 1."""
    backbone = build_backbone("efficientnet_b0", "none", (64, 64))
    (layer,) = [layer for layer in backbone.network.layers if isinstance(layer, keras.layers.Normalization)]
    layer.adapt_mean.assign([0.4, 0.5, 0.6])
    layer.adapt_variance.assign([0.05, 0.06, 0.07])
    layer.finalize_state()
    head = LogitHead(("new",), (1.0,), 1.0)
    _, model = build_models(backbone, [head])
    save(Bundle("run", backbone, (head,), (Threshold(0.5, "default", 0),), model), tmp_path)
    resized = load_backbone(tmp_path, (96, 64))
    (layer,) = [layer for layer in resized.network.layers if isinstance(layer, keras.layers.Normalization)]
    np.testing.assert_allclose(np.ravel(layer.mean), [0.4, 0.5, 0.6], rtol=1e-6)
    back = build_backbone("efficientnet_b0", "none", (64, 64))
    set_weights(back.model, resized.model.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found, expected = (one.model.predict_on_batch(pixels) for one in (back, backbone))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_backbone_of_the_bundle_one_is_in(saved, monkeypatch):
    monkeypatch.chdir(saved)
    assert load_backbone(".").weights == "bundle model"


def test_a_backbone_that_cannot_be_loaded(saved, tmp_path):
    with pytest.raises(BundleError) as error:
        load_backbone(tmp_path)
    assert (
        str(error.value) == f"{tmp_path} is not a bundle (it holds no {DESCRIPTION}); make one with `multilabel fit`."
    )
    with pytest.raises(UsageError) as error:
        load_backbone(saved, (16, 32))
    assert str(error.value) == "image size 16x32 is out of range; expected 32 to 4096 pixels a side."


def test_the_description_is_strict_json_with_these_fields(saved):
    weights = (saved / WEIGHTS).read_bytes()
    assert strict_json(saved / DESCRIPTION) == {
        "schema": 1,
        "run_name": "été 1",
        "backbone": {
            "name": "cnn",
            "image_size": [32, 32],
            "weights": "none",
            "cnn": {
                "filters": [32, 64, 128, 256],
                "kernel_sizes": [3],
                "dense_units": 0,
                "batch_norm": "before",
                "dropout": 0.0,
            },
        },
        "heads": [
            {
                "kind": "logit",
                "attributes": ["hat", "scarf", "coat"],
                "pos_weight": [2.0, 0.5, 1.0],
                "coverage": 0.75,
                "name": "attributes",
                "weight": 1.0,
                "objective": "bce",
                "missing": Missing().get_config(),
            }
        ],
        "thresholds": [
            {"attribute": "hat", "value": 0.25, "source": "tuned", "positives": 12, "spread": [0.125, 0.3]},
            {"attribute": "scarf", "value": 1 / 3, "source": "shared", "positives": 3, "spread": None},
            {"attribute": "coat", "value": 0.5, "source": "default", "positives": 0, "spread": None},
        ],
        "precision": "float32",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "not_better_than_chance": ["coat"],
        "calibration": {"hat": {"kind": "platt", "slope": 0.5, "intercept": -1.0}},
        "provenance": {"created": "today", "pictures": {"a": 7}},
    }
    assert "été 1" in (saved / DESCRIPTION).read_text("utf-8")  # readable for people too


def test_names_of_files_that_are_no_utf_8(original, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    save(replace(original, run_name=odd), tmp_path)
    strict_json(tmp_path / DESCRIPTION)
    assert load(tmp_path).run_name == odd


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_who_may_read_it_is_for_the_umask_to_say(original, tmp_path, umask, folder_mode, file_mode):
    before = os.umask(umask)
    try:
        with writing(tmp_path / "model") as new:
            save(original, new)
        assert os.umask(umask) == umask  # not left changed
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "model", *(tmp_path / "model").iterdir()]
    }
    assert modes == {"model": folder_mode, DESCRIPTION: file_mode, WEIGHTS: file_mode}


# --- writing: all or nothing


def test_a_new_bundle_takes_the_place_of_the_old_one(copied, tmp_path):
    (copied / "history.csv").write_text("old")
    with writing(copied) as new:
        assert new.parent == tmp_path  # so that it can be renamed
        (new / DESCRIPTION).write_text("{}")
        assert (copied / "history.csv").read_text() == "old"
    assert contents(tmp_path) == {"model": None, f"model/{DESCRIPTION}": b"{}"}


def test_the_folders_above_are_made(tmp_path):
    with writing(tmp_path / "runs" / "2" / "model") as new:
        (new / DESCRIPTION).write_text("{}")
    assert (tmp_path / "runs" / "2" / "model" / DESCRIPTION).is_file()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_fails_while_it_is_written_leaves_everything_as_it_was(original, copied, tmp_path, error):
    before = contents(tmp_path)
    with pytest.raises(error), writing(copied) as new:  # noqa: PT012
        save(original, new)
        raise error
    assert contents(tmp_path) == before


@contextmanager
def largest_file(size):
    """Writing more into a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99])
def test_a_full_disk_is_one_sentence_and_leaves_everything_as_it_was(original, copied, tmp_path, share):
    before, size = contents(tmp_path), int(share * (copied / WEIGHTS).stat().st_size)
    with pytest.raises(BundleError) as error, largest_file(size), writing(copied) as new:
        save(original, new)
    assert str(error.value) == f"{copied} could not be written (File too large); what was there before is untouched."
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["cnn", "mobilenet_v2"])
def test_the_space_that_is_reserved_is_enough(name, tmp_path):
    model = build_models(build_backbone(name, "none", (32, 32)), [LogitHead(("hat",), (1.0,), 1.0)])[1]
    bundles._reserve(tmp_path / WEIGHTS, model)
    reserved = (tmp_path / WEIGHTS).stat().st_size
    model.save_weights(tmp_path / WEIGHTS)
    assert 0.9 * reserved < (tmp_path / WEIGHTS).stat().st_size <= reserved


def test_an_old_bundle_that_cannot_be_moved_back_and_forth(copied, tmp_path, monkeypatch):
    """The second rename of the swap fails: the first is taken back."""
    before, rename = contents(tmp_path), Path.rename

    def failing(self, target):
        if self.name.startswith(".model.new-"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(BundleError) as error, writing(copied) as new:
        (new / DESCRIPTION).write_text("{}")
    assert str(error.value) == (
        f"{copied} could not be written (Input/output error); what was there before is untouched."
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize("find", [check_out, begin_writing])
def test_a_kill_between_the_two_renames_loses_nothing(copied, tmp_path, find):
    before = contents(copied)
    copied.rename(tmp_path / ".model.old")
    find(copied)
    assert contents(copied) == before
    assert not (tmp_path / ".model.old").exists()


def test_a_kill_between_the_two_renames_does_not_stop_a_reader(copied, tmp_path):
    attributes = load(copied).attributes
    copied.rename(tmp_path / ".model.old")
    before = contents(tmp_path)
    assert load(copied).attributes == attributes
    assert contents(tmp_path) == before  # moving is for writers: another one may be at work


def test_a_kill_in_the_middle_of_writing_leaves_what_the_next_writing_clears(copied, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for process in (gone.pid, os.getppid()):
        (tmp_path / f".model.new-{process}").mkdir()
        (tmp_path / f".model.new-{process}" / "half").write_text("a half")
    with writing(copied) as new:
        (new / DESCRIPTION).write_text("{}")
    at_work = f".model.new-{os.getppid()}"  # another process' writing is left alone
    assert contents(tmp_path) == {
        "model": None,
        f"model/{DESCRIPTION}": b"{}",
        at_work: None,
        f"{at_work}/half": b"a half",
    }


def test_what_else_lies_in_a_bundle_is_not_lost(copied):
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as error:
        check_out(copied)
    assert str(error.value) == (
        f"{copied} holds, besides a bundle, notes.txt, which would be lost; move that away or choose another --out."
    )


def test_what_a_kill_after_the_renames_left_is_cleared_by_the_next_writing(copied, tmp_path):
    shutil.copytree(copied, tmp_path / ".model.old")
    check_out(copied)
    with writing(copied) as new:
        (new / DESCRIPTION).write_text("{}")
    assert contents(tmp_path) == {"model": None, f"model/{DESCRIPTION}": b"{}"}


# --- check_out


def make_folder_of_photos(path):
    path.mkdir()
    (path / "holiday.jpg").write_text("precious")


def make_link(path):
    target = path.with_name("elsewhere")
    target.mkdir()
    path.symlink_to(target)


NO_BUNDLE = "holds something that is no bundle; it is left as it is, choose another --out."
NO_FOLDER = "is not a folder; choose another --out."


@pytest.mark.parametrize("door", [check_out, begin_writing])
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (make_folder_of_photos, NO_BUNDLE),
        (lambda path: path.write_text("a file"), NO_FOLDER),
        (make_link, NO_FOLDER),
        (lambda path: path.symlink_to("nowhere"), NO_FOLDER),
        (lambda path: path.symlink_to(path), NO_FOLDER),
    ],
)
def test_what_is_no_bundle_is_never_replaced(tmp_path, make, complaint, door):
    out = tmp_path / "out"
    make(out)
    before = contents(tmp_path)
    with pytest.raises(UsageError) as error:
        door(out)
    assert str(error.value) == f"{out} {complaint}"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", [".", "..", "/", "inside/..", "../here", "{cwd}"])
def test_folders_that_cannot_be_replaced(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = out.format(cwd=os.getcwd())
    with pytest.raises(UsageError) as error:
        check_out(out)
    assert str(error.value) == f"{out} is not a folder that a bundle can replace; choose another --out."


def test_an_absent_an_empty_folder_and_a_bundle_are_accepted(copied, tmp_path):
    (tmp_path / "empty").mkdir()
    before = contents(tmp_path)
    for out in (copied, tmp_path / "empty", tmp_path / "absent", tmp_path / "a" / "b" / "c"):
        check_out(out)
        check_out(str(out))
    assert contents(tmp_path) == before
    with writing(tmp_path / "empty") as new:
        (new / DESCRIPTION).write_text("{}")
    assert (tmp_path / "empty" / DESCRIPTION).is_file()


def test_a_folder_in_which_nothing_may_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(BundleError) as error:
        check_out(tmp_path / "absent" / "model")
    assert str(error.value) == (
        f"{tmp_path}/absent/model cannot be written ({tmp_path} is not a folder you may write to); "
        "choose another --out."
    )


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError) as error:
        check_out(tmp_path / "file" / "model")
    assert str(error.value) == (
        f"{tmp_path}/file/model cannot be written ({tmp_path}/file is not a folder you may write to); "
        "choose another --out."
    )


def test_a_name_that_is_too_long(tmp_path):
    path = tmp_path / ("x" * 300)
    with pytest.raises(BundleError) as error:
        check_out(path)
    assert str(error.value) == f"{path} cannot be written (File name too long); choose another --out."
    with pytest.raises(
        BundleError, match=r"cannot be read \(.*File name too long: .*\); run `multilabel fit` again\.$"
    ):
        load(path)


@contextmanager
def without_rights(folder):
    """Nothing in `folder` can be reached; root, who could, becomes another user for a while."""
    folder.chmod(0)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_a_folder_that_may_not_be_looked_into(copied, tmp_path):
    with without_rights(tmp_path):
        with pytest.raises(
            BundleError, match=r"model cannot be written \(Permission denied\); choose another --out\.$"
        ):
            check_out(copied)
        with pytest.raises(
            BundleError, match=r"cannot be read \(.*Permission denied.*\); run `multilabel fit` again\.$"
        ):
            load(copied)


# --- what cannot be loaded


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "it does not exist"),
        (Path.mkdir, f"it holds no {DESCRIPTION}"),
        (Path.touch, "it is no folder"),
    ],
    ids=["absent", "empty", "file"],
)
def test_a_folder_without_a_bundle(tmp_path, make, why):
    make(tmp_path / "model")
    with pytest.raises(BundleError) as error:
        load(tmp_path / "model")
    assert str(error.value) == f"{tmp_path}/model is not a bundle ({why}); make one with `multilabel fit`."


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"9" * 5000, b'{"schema": 1,}'],
    ids=["empty", "cut", "binary", "deep", "long", "comma"],
)
def test_a_description_that_is_no_json(copied, content):
    (copied / DESCRIPTION).write_bytes(content)
    with pytest.raises(BundleError) as error:
        load(copied)
    message = str(error.value)
    assert message.startswith(f"{copied / DESCRIPTION} cannot be read (")
    assert message.endswith("); run `multilabel fit` again.")
    assert "\n" not in message


@pytest.mark.parametrize("content", ["[]", "1", "null", "{}", '{"schema": "1"}', '{"schema": null}'])
def test_json_that_is_no_description(copied, content):
    (copied / DESCRIPTION).write_text(content)
    with pytest.raises(BundleError) as error:
        load(copied)
    assert str(error.value) == f"{copied / DESCRIPTION} {NOT_A_BUNDLE}"


def test_a_newer_schema(copied):
    describe(copied, {**strict_json(copied / DESCRIPTION), "schema": 2, "heads": "unheard of"})
    with pytest.raises(BundleError) as error:
        load(copied)
    assert str(error.value) == (f"{copied} was written by a newer multilabel; update with `pip install -U multilabel`.")


def changed(description, place, value):
    """A copy with one value replaced."""
    description = copy.deepcopy(description)
    *way, last = place
    inner = description
    for key in way:
        inner = inner[key]
    inner[last] = value
    return description


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (["backbone", "name"], "resnet51", "unknown backbone 'resnet51'; did you mean resnet50? known are "),
        (["backbone", "name"], 7, "'int' object has no attribute 'lower'"),
        (["backbone", "image_size"], [32, 10**9], "image size 32x1000000000 is out of range; expected 32 to 4096"),
        (["backbone", "image_size"], [32, 1e999], "cannot convert float infinity to integer"),
        (["backbone", "image_size"], [], "not enough values to unpack (expected 2, got 0)"),
        (["backbone", "cnn"], {"filters": []}, "--filters is empty; expected for each block a whole number from 1 to"),
        (["backbone", "cnn", "more"], 1, "CnnShape.__init__() got an unexpected keyword argument 'more'"),
        (["heads", 0, "kind"], "sigmoid", "A head is an object whose kind is one of: logit, softmax; got "),
        (["heads", 0, "kind"], "softmax", "A softmax head needs tag (a name), classes (a list of names), class_weight"),
        (["heads", 0, "attributes"], ["hat", "scarf"], "A head needs one pos_weight for each attribute; got 3 for 2."),
        (["heads"], None, "'NoneType' object is not iterable"),
        (["thresholds"], [], "its thresholds do not belong to its attributes"),
        (["thresholds", 0, "attribute"], "cap", "its thresholds do not belong to its attributes"),
        (["thresholds", 1, "value"], float("nan"), "a threshold is not a finite number"),
        (["thresholds", 1, "value"], "half", "could not convert string to float: 'half'"),
        (["thresholds", 0, "spread"], [0.5], "not enough values to unpack (expected 2, got 1)"),
        (["thresholds", 0, "spread"], "?!", "could not convert string to float: '?'"),
        (["calibration"], 7, "'int' object is not iterable"),
        (["precision"], "auto", "its precision is 'auto'"),
        (["precision"], "int8", "its precision is 'int8'"),
        (["weights_sha256"], "0" * 64, f"{WEIGHTS} is not the file that was saved with {DESCRIPTION}"),
    ],
)
def test_a_description_that_does_not_fit(copied, place, value, reason):
    describe(copied, changed(strict_json(copied / DESCRIPTION), place, value))
    with pytest.raises(BundleError) as error:
        load(copied)
    message = str(error.value)
    assert message.startswith(f"{copied} is damaged ({reason}")
    assert message.endswith("); run `multilabel fit` again.")
    assert "\n" not in message


@pytest.mark.parametrize(
    "key",
    [
        "run_name",
        "backbone",
        "heads",
        "thresholds",
        "precision",
        "weights_sha256",
        "provenance",
        "not_better_than_chance",
        "calibration",
    ],
)
def test_a_description_without_a_key(copied, key):
    description = strict_json(copied / DESCRIPTION)
    del description[key]
    describe(copied, description)
    with pytest.raises(BundleError) as error:
        load(copied)
    assert str(error.value) == f"{copied} is damaged ('{key}' is missing); run `multilabel fit` again."


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def take_those_of_another_run(path):
    save_weights = small_bundle(seed=1).model.save_weights
    save_weights(path)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, take_those_of_another_run, lambda path: path.write_text("none")])
def test_weights_that_are_not_the_saved_ones(copied, damage):
    damage(copied / WEIGHTS)
    with pytest.raises(BundleError) as error:
        load(copied)
    reason = f"{WEIGHTS} is not the file that was saved with {DESCRIPTION}"
    assert str(error.value) == f"{copied} is damaged ({reason}); run `multilabel fit` again."


def test_no_weights(copied):
    (copied / WEIGHTS).unlink()
    with pytest.raises(BundleError) as error:
        load(copied)
    reason = f"[Errno 2] No such file or directory: '{copied / WEIGHTS}'"
    assert str(error.value) == f"{copied} is damaged ({reason}); run `multilabel fit` again."


def test_weights_that_are_no_keras_file(copied):
    with h5py.File(copied / WEIGHTS, "w") as file:
        file["something"] = np.zeros(3)
    digest = hashlib.sha256((copied / WEIGHTS).read_bytes()).hexdigest()
    describe(copied, {**strict_json(copied / DESCRIPTION), "weights_sha256": digest})
    with pytest.raises(BundleError) as error:
        load(copied)
    reason = "it holds 1 arrays, the model has 22 of other shapes"
    assert str(error.value) == f"{copied} is damaged ({reason}); run `multilabel fit` again."


def places(value, way=()):
    """All places in a JSON document."""
    if way:
        yield list(way)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*way, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("vgg16"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_description_says_it_is_a_bundle_or_a_sentence(saved, copied, data):
    description = strict_json(saved / DESCRIPTION)
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(description))))
        description = changed(description, place, data.draw(JSON))
    describe(copied, description)
    try:
        loaded = load(copied)
    except BundleError as error:
        sentence = str(error)
    else:
        assert logits(loaded).shape == (5, 3)
        return
    assert "\n" not in sentence
