"""The engine: the backbone's features, quicker; lazy, repeatable, and never silently wrong."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

from multilabel import backbones
from multilabel import engine as engines
from multilabel.backbones import Preprocessing, build_backbone, computes_in, freeze
from multilabel.bundle import load
from multilabel.config import FitConfig
from multilabel.engine import Engine, FoldingError
from multilabel.errors import ImageError
from multilabel.features import FeatureStore
from multilabel.folding import fold
from multilabel.images import read_image
from multilabel.pipeline import fit
from multilabel.training import Pictures


def pictures(n=5, size=(32, 32), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def random_cnn(seed=0, size=(32, 32)):
    keras.utils.set_random_seed(seed)
    backbone = build_backbone("cnn", "none", size)
    rng = np.random.default_rng(seed)
    backbone.model.set_weights([rng.uniform(0.1, 1, w.shape) * np.sign(w + 1e-9) for w in backbone.model.get_weights()])
    freeze(backbone)
    return backbone


def relative(values, expected):
    return np.abs(values - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def cnn():
    return random_cnn()


@pytest.mark.parametrize(("precision", "largest"), [("float32", 1e-5), ("bfloat16", 0.03), ("float16", 0.003)])
def test_features_are_those_of_the_backbone(precision, largest, cnn, caplog):
    engine = Engine(cnn, precision)
    features = engine(pictures())
    assert features.dtype == np.float32
    assert features.shape == (5, cnn.dimension)
    assert 0 < relative(features, cnn.model.predict_on_batch(pictures())) < largest
    assert (engine.name, engine.image_size, engine.dimension, engine.precision) == (
        "cnn",
        (32, 32),
        cnn.dimension,
        precision,
    )
    assert not caplog.records


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_calls_are_equal_to_the_bit_whatever_the_batch(precision, cnn):
    engine = Engine(cnn, precision)
    features = engine(pictures(32))
    np.testing.assert_array_equal(engine(pictures(32)), features)
    for n in (1, 2, 7, 31):
        np.testing.assert_array_equal(engine(pictures(32)[:n]), features[:n])
    np.testing.assert_array_equal(Engine(cnn, precision)(pictures(32)), features)


def test_pictures_that_are_not_square():
    backbone = random_cnn(size=(40, 32))
    x = pictures(size=(40, 32))
    assert relative(Engine(backbone)(x), backbone.model.predict_on_batch(x)) < 1e-5


def test_features_of_bfloat16_are_not_rounded_to_it():
    backbone = build_backbone("mobilenet", "none", (96, 96))  # means of nine numbers
    features = Engine(backbone, "bfloat16")(pictures(size=(96, 96)))
    rounded = features.view(np.uint32) & 0xFFFF == 0
    assert rounded[features != 0].mean() < 0.2


@pytest.mark.skipif(not computes_in("bfloat16"), reason="this processor does not compute in bfloat16")
def test_the_graph_is_one_of_constants(cnn):
    """No variable is read: weights are laid out for the processor once."""
    graph = engines._frozen(engines._folded(cnn, "bfloat16")).__closure__
    functions = [cell.cell_contents for cell in graph if hasattr(cell.cell_contents, "graph")]
    operations = [operation.type for operation in functions[0].graph.get_operations()]
    assert "ReadVariableOp" not in operations
    assert operations.count("Conv2D") == 4


def test_the_graph_holds_the_weights_of_the_first_call():
    backbone = random_cnn()
    engine = Engine(backbone)
    backbone.model.set_weights(random_cnn(1).model.get_weights())
    features = engine(pictures())
    assert relative(features, random_cnn(1).model.predict_on_batch(pictures())) < 1e-5
    backbone.model.set_weights(random_cnn(2).model.get_weights())
    np.testing.assert_array_equal(engine(pictures()), features)


def test_it_is_built_at_the_first_call_and_once(cnn, monkeypatch):
    built = []

    def watched(network, precision):
        built.append(precision)
        return fold(network, precision)

    monkeypatch.setattr(engines, "fold", watched)
    engine = Engine(cnn, "bfloat16")
    assert len(engine.fingerprint()) == 64
    assert engine.dimension == cnn.dimension
    assert built == []
    engine(pictures())
    engine(pictures(3))
    assert built == ["float32", "bfloat16"]  # the first to see that folding is right


def test_the_fingerprint_knows_weights_and_precision(cnn):
    prints = [Engine(cnn, precision).fingerprint() for precision in ("float32", "bfloat16", "float16")]
    prints += [Engine(random_cnn(1)).fingerprint(), Engine(replace(cnn, name="vgg16")).fingerprint(), cnn.fingerprint()]
    assert len(set(prints)) == 6
    assert all(len(digits) == 64 and int(digits, 16) for digits in prints)
    assert Engine(random_cnn()).fingerprint() == prints[0]


def test_the_fingerprint_knows_the_version(cnn, monkeypatch):
    before = Engine(cnn).fingerprint()
    monkeypatch.setattr(engines, "_VERSION", engines._VERSION + 1)
    assert Engine(cnn).fingerprint() != before


def wrong(network, precision):
    """A fold that forgets the last convolution's kernel."""
    folded = fold(network, precision)
    layer = [layer for layer in folded.layers if layer.weights][-1]
    layer.set_weights([-np.asarray(weights, np.float32) for weights in layer.get_weights()])
    return folded


def not_a_number(network, precision):
    folded = fold(network, precision)
    layer = [layer for layer in folded.layers if layer.weights][-1]
    layer.set_weights([np.full(weights.shape, np.nan) for weights in layer.get_weights()])
    return folded


def slightly_wrong(network, precision):
    folded = fold(network, precision)
    folded.set_weights([np.asarray(weights, np.float32) * 1.01 for weights in folded.get_weights()])
    return folded


def wrong_in_bfloat16(network, precision):
    return (fold if precision == "float32" else not_a_number)(network, precision)


@pytest.mark.parametrize(
    ("broken", "precision", "found_in"),
    [
        (wrong, "float32", "float32"),
        (wrong, "bfloat16", "float32"),
        (not_a_number, "bfloat16", "float32"),
        (wrong_in_bfloat16, "bfloat16", "bfloat16"),
        (slightly_wrong, "float32", "float32"),
        (slightly_wrong, "bfloat16", "float32"),  # which rounding would hide
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fold_that_is_wrong_is_not_used(broken, precision, found_in, cnn, monkeypatch, caplog):
    monkeypatch.setattr(engines, "fold", broken)
    engine = Engine(cnn, precision)
    with pytest.raises(FoldingError):
        engine(pictures())
    with caplog.at_level(logging.WARNING, "multilabel"):
        features = engine.reliable(pictures())
        np.testing.assert_array_equal(engine.reliable(pictures()), features)
    assert relative(features, cnn.model.predict_on_batch(pictures())) < 1e-5
    assert (engine.reliable.precision, engine.reliable.folded) == ("float32", False)
    assert engine.reliable.fingerprint() not in {Engine(cnn).fingerprint(), engine.fingerprint()}
    (message,) = caplog.messages
    start, _, end = message.partition(" by ")
    assert start == f"cnn: folded and in {found_in}, its features differ"
    assert end.partition(" ")[2] == ("of the largest one; the backbone is used as it is, in float32, which is slower.")


def test_a_fold_that_is_right_is_reliable(cnn):
    engine = Engine(cnn, "bfloat16")
    assert engine.reliable is engine


def test_features_of_a_wrong_fold_are_never_stored(folder, tmp_path, machine, monkeypatch, caplog):
    """They would be found where right ones are looked for; `fit` goes on with the backbone as it is."""
    monkeypatch.setattr(engines, "fold", wrong)
    with caplog.at_level(logging.WARNING, "multilabel"):
        assert fit(settings(folder, tmp_path, precision="bfloat16")).computed == 40
    assert len([message for message in caplog.messages if "the backbone is used as it is" in message]) == 1
    bundle = load(tmp_path / "model")
    assert bundle.precision == "float32"
    backbone = bundle.backbone
    plain = Engine(backbone, folded=False)
    x = np.stack([read_image(folder / f"{number}.png", (32, 32)) for number in range(40)])
    digests = [hashlib.sha256((folder / f"{number}.png").read_bytes()).digest() for number in range(40)]
    with FeatureStore(tmp_path / "cache", plain) as store:
        np.testing.assert_array_equal(store.load(digests), plain(x))
    for precision in ("float32", "bfloat16"):
        with FeatureStore(tmp_path / "cache", Engine(backbone, precision)) as store:
            assert store.missing(digests) == set(digests)
    np.testing.assert_array_equal(  # as the bundle says, too
        bundle.probabilities(x[:4])["attributes"],
        bundle.heads[0].to_probs(np.asarray(bundle.heads_model(plain(x[:4]))["attributes"])),
    )


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch", "builtin"])
def test_every_preprocessing_takes_pixels_as_they_are(mode):
    image = keras.Input((32, 32, 3))
    inner = keras.Input((32, 32, 3))
    network = keras.Model(inner, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inner)))
    model = keras.Model(image, network(Preprocessing(mode, name="preprocessing")(image)))
    backbone = replace(random_cnn(), model=model)
    x = pictures()
    assert relative(Engine(backbone)(x), model.predict_on_batch(x)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50", "efficientnet_v2_b0", "densenet121", "mobilenet_v3_large", "convnext_tiny"]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_networks(name, precision):
    keras.utils.set_random_seed(0)
    backbone = build_backbone(name, "none", (64, 64))
    x = pictures(3, (64, 64))
    features = Engine(backbone, precision)(x)
    assert relative(features, backbone.model.predict_on_batch(x)) < {"float32": 1e-5, "bfloat16": 0.05}[precision]
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_of_keras(backend, root):
    pytest.importorskip(backend)
    script = (
        "import numpy as np\nfrom multilabel.backbones import build_backbone\nfrom multilabel.engine import Engine\n"
        "backbone = build_backbone('cnn', 'embedded')\n"
        "x = np.random.default_rng(0).integers(0, 256, (3, 80, 60, 3), dtype=np.uint8)\n"
        "print(np.abs(Engine(backbone)(x) - np.asarray(backbone.model.predict_on_batch(x))).max())\n"
    )
    environment = {"KERAS_BACKEND": backend, "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1e-3


# --- what `fit` makes of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 pictures; `bright` is to be seen."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray((rng.integers(0, 120, (40, 40, 3)) + 130 * (number % 2)).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
    (folder / "labels.txt").write_text("\n".join(f"{number}.png {number % 2}" for number in range(40)))
    return folder


@pytest.fixture
def machine(monkeypatch):
    """Computes in bfloat16 wherever the tests run."""
    monkeypatch.setattr(backbones, "_available_precisions", lambda: ["bfloat16", "float32"])


def settings(folder, tmp_path, **others):
    paths = {"labels": folder / "labels.txt", "out": tmp_path / "model", "cache": tmp_path / "cache"}
    return FitConfig(
        **paths, backbone="cnn", image_size=(32, 32), weights="none", **{"epochs": 3, "folds": 0, **others}
    )


def test_precisions_do_not_share_features(folder, tmp_path, machine, caplog):
    """And the difference is said where features were computed in a lower precision, once."""
    said = []
    for precision, resolved, computed in (
        ("float32", "float32", 40),
        ("bfloat16", "bfloat16", 40),
        ("auto", "bfloat16", 0),
        ("float32", "float32", 0),
    ):
        caplog.clear()
        with caplog.at_level("INFO", "multilabel"):
            assert fit(settings(folder, tmp_path, precision=precision)).computed == computed
        assert load(tmp_path / "model").precision == resolved
        said.append([message for message in caplog.messages if message.startswith("Features are computed in")])
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert [len(messages) for messages in said] == [0, 1, 0, 0]
    found = re.fullmatch(
        r"Features are computed in bfloat16; on 4 pictures probabilities differ from float32 by at most (0\.\d{4}) "
        r"\(median (0\.\d{4})\)\.",
        said[1][0],
    )
    assert found
    assert 0 <= float(found[2]) <= float(found[1]) < 0.1


def test_a_picture_that_is_gone_after_training_costs_no_bundle(folder, tmp_path, machine, monkeypatch, caplog):
    def gone(self, rows):
        raise ImageError("1.png", "No such file or directory")

    monkeypatch.setattr(Pictures, "__getitem__", gone)
    with caplog.at_level("INFO", "multilabel"):
        fit(settings(folder, tmp_path, precision="bfloat16"))
    assert load(tmp_path / "model").precision == "bfloat16"
    assert not [message for message in caplog.messages if message.startswith("Features are computed in")]


def test_the_bundle_gives_what_fit_measured(folder, tmp_path, machine):
    fit(settings(folder, tmp_path, precision="bfloat16"))
    bundle = load(tmp_path / "model")
    with (tmp_path / "model" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "validation"]
    x = np.stack([read_image(folder / row["image"], (32, 32)) for row in rows])
    measured = [float(row["attr1_probability"]) for row in rows]
    np.testing.assert_allclose(bundle.probabilities(x)["attributes"][:, 0], measured, rtol=1e-4)


@pytest.mark.parametrize(
    "training",
    [{"train_backbone": True, "folds": None, "epochs": 1}, {"fine_tune": "all", "epochs": (1, 1)}],
    ids=["trained", "fine-tuned"],
)
@pytest.mark.parametrize("precision", ["auto", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_backbone_that_is_trained_serves_in_float32(training, precision, folder, tmp_path, machine, caplog):
    with caplog.at_level("INFO", "multilabel"):
        fit(settings(folder, tmp_path, precision=precision, **training))
    bundle = load(tmp_path / "model")
    assert bundle.precision == "float32"
    assert bundle.provenance["settings"]["precision"] == {"auto": "float32"}.get(precision, precision)
    assert not [message for message in caplog.messages if message.startswith("Features are computed in")]
