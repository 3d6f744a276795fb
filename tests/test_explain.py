"""Maps of the evidence: they add up to the logit, lie where the thing is drawn, and are written with care."""

from __future__ import annotations

import csv
import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from test_bundle import COLOURS, small_bundle, tag_bundle

from multilabel import FitConfig, fit, load_bundle
from multilabel.backbones import Backbone, Preprocessing, build_backbone, freeze
from multilabel.bundle import Bundle, save
from multilabel.cli import main
from multilabel.config import CnnShape
from multilabel.errors import ImageError, UsageError
from multilabel.explain import explain, explain_all, overlay, write
from multilabel.heads import LogitHead
from multilabel.images import read_image
from multilabel.inference import predict
from multilabel.thresholds import Threshold
from multilabel.training import build_models

NAMES = ("hat", "scarf", "coat")
NETWORKS = [
    ("resnet50", (64, 96)),
    ("mobilenet_v2", (96, 64)),
    ("efficientnet_b0", (64, 64)),
    ("cnn", (80, 60)),
    ("cnn", (63, 47)),
]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """One with an odd name and much to see."""
    path = tmp_path_factory.mktemp("pictures") / "a $b$ é.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(path)
    return path


def bundle_of(backbone, pixels):
    """Random heads whose logits are neither tiny nor huge, with a bias as calibration leaves one."""
    freeze(backbone)
    head = LogitHead(NAMES, (1.0, 1.0, 1.0), 1.0)
    model = build_models(backbone, [head])[1]
    layer, rng = model.get_layer("attributes"), np.random.default_rng(0)
    features = keras.ops.convert_to_numpy(backbone.model(pixels[np.newaxis]))[0]
    kernel = rng.normal(size=(len(features), 3)) * 5 / np.linalg.norm(features)
    layer.set_weights([kernel, rng.normal(size=3)])
    return Bundle("random", backbone, (head,), (Threshold(0.5, "default", 0),) * 3, model)


def random_bundle(name, image_size, path, **settings):
    keras.utils.set_random_seed(0)
    return bundle_of(build_backbone(name, "none", image_size, **settings), read_image(path, image_size))


def weights(bundle, attribute):
    kernel, bias = bundle.model.get_layer("attributes").get_weights()
    column = bundle.attributes.index(attribute)
    return kernel[:, column].astype(np.float64), float(bias[column])


def outputs(bundle, layers, path):
    """What layers of the network make of a picture, float64, without the batch."""
    network = bundle.backbone.network
    prepared = bundle.backbone.model.get_layer("preprocessing")(read_image(path, bundle.backbone.image_size)[None])
    values = keras.tree.flatten(keras.Model(network.input, [layer.output for layer in layers])(prepared))
    return [keras.ops.convert_to_numpy(value)[0].astype(np.float64) for value in values]


def halves(f):
    """The upper and the lower half of a map, as its pooling takes them: an odd height has a smaller lower half."""
    # TensorFlow pads "same" windows at the top first, and an odd height lacks one row: at the end.
    upper = -(-len(f) // 2)
    return (slice(0, upper), slice(upper, len(f)))


# --- exact maps


@pytest.mark.parametrize(("name", "image_size"), NETWORKS)
def test_the_map_adds_up_to_the_logit_less_the_bias(name, image_size, picture):
    bundle = random_bundle(name, image_size, picture)
    logits = keras.ops.convert_to_numpy(bundle.model(read_image(picture, image_size)[None])["attributes"])[0]
    last = bundle.backbone.network.layers[-1]
    for attribute, logit in zip(NAMES, logits, strict=True):
        explanation = explain(bundle, picture, attribute)
        assert explanation.exact
        assert explanation.map.sum() == pytest.approx(explanation.logit - explanation.bias, abs=1e-4)
        assert explanation.logit == pytest.approx(float(logit), abs=1e-4)
        assert explanation.bias == weights(bundle, attribute)[1]
        assert abs(explanation.logit - explanation.bias) > 0.1  # else this would say little
    if isinstance(last, keras.layers.GlobalAveragePooling2D):  # then it is the class activation map, of the last name
        before = next(layer for layer in bundle.backbone.network.layers if layer.output is last.input)
        (f,) = outputs(bundle, [before], picture)
        expected = f @ weights(bundle, attribute)[0] / (f.shape[0] * f.shape[1])
        assert expected.size > 1
        np.testing.assert_allclose(explanation.map, expected, atol=1e-5)


@pytest.mark.parametrize("image_size", [(80, 60), (63, 47), (32, 33), (35, 100)])
@pytest.mark.parametrize("batch_norm", ["before", "after"])
def test_the_largest_responses_of_cnn_stand_where_they_were_found(image_size, batch_norm, picture):
    shape = CnnShape(filters=(4, 6, 8), kernel_sizes=(3, 5, 3), batch_norm=batch_norm, dropout=0.5)
    bundle = random_bundle("cnn", image_size, picture, cnn=shape)
    kernel, _ = weights(bundle, "coat")
    kind = keras.layers.BatchNormalization if batch_norm == "after" else keras.layers.ReLU
    layers = [layer for layer in bundle.backbone.network.layers if isinstance(layer, kind)]
    expected, number = np.zeros(image_size), 0
    for block, f in enumerate(outputs(bundle, layers, picture)):
        side = 2**block  # pixels that a position stands for
        for rows, k in itertools.product(halves(f), range(f.shape[2])):
            half = f[rows, :, k]
            y, x = np.unravel_index(half.argmax(), half.shape)
            y += rows.start
            where = (slice(y * side, (y + 1) * side), slice(x * side, (x + 1) * side))
            expected[where] += kernel[number] * half.max() / side**2
            number += 1
    assert number == len(kernel)
    explanation = explain(bundle, picture, "coat")
    np.testing.assert_allclose(explanation.map, expected, atol=1e-5)
    assert explanation.map.sum() == pytest.approx(explanation.logit - explanation.bias, abs=1e-4)


def test_calibration_in_the_head_changes_nothing_of_that(picture):
    bundle = random_bundle("cnn", (40, 40), picture)
    before = explain(bundle, picture, "hat")
    layer = bundle.model.get_layer("attributes")
    kernel, bias = layer.get_weights()
    layer.set_weights([2.5 * kernel, 2.5 * bias - 0.75])
    after = explain(bundle, picture, "hat")
    np.testing.assert_allclose(after.map, 2.5 * before.map, rtol=1e-5, atol=1e-6)
    assert after.logit == pytest.approx(2.5 * before.logit - 0.75, abs=1e-5)
    assert after.map.sum() == pytest.approx(after.logit - after.bias, abs=1e-4)


# --- Grad-CAM


def grad_cam(f, logit_of, step=1e-4):
    """By finite differences: raising map k everywhere by a step changes the logit by the sum of its derivatives."""
    slopes = []
    for k in range(f.shape[2]):
        raised, lowered = f.copy(), f.copy()
        raised[..., k] += step
        lowered[..., k] -= step
        slopes.append((logit_of(raised) - logit_of(lowered)) / (2 * step) / (f.shape[0] * f.shape[1]))
    return np.maximum(f @ np.array(slopes), 0)


def test_dense_units_make_it_grad_cam(picture):
    shape = CnnShape(filters=(4, 6), dense_units=5)
    bundle = random_bundle("cnn", (32, 40), picture, cnn=shape)
    network = bundle.backbone.network
    dense, dense_bias = (array.astype(np.float64) for array in network.layers[-1].get_weights())
    first, last = outputs(bundle, [x for x in network.layers if isinstance(x, keras.layers.ReLU)], picture)

    def pooled(f):
        return [f[rows].max(axis=(0, 1)) for rows in halves(f)]

    largest = []
    for attribute in NAMES:
        kernel, bias = weights(bundle, attribute)

        def logit_of(f, kernel=kernel, bias=bias):
            return np.maximum(np.concatenate([*pooled(first), *pooled(f)]) @ dense + dense_bias, 0) @ kernel + bias

        explanation = explain(bundle, picture, attribute)
        assert not explanation.exact
        assert explanation.logit == pytest.approx(logit_of(last), abs=1e-5)
        assert explanation.map.shape == (16, 20)
        expected = grad_cam(last, logit_of)
        np.testing.assert_allclose(explanation.map, expected, atol=1e-7)
        largest.append(expected.max())
    assert max(largest) > 1e-4


def normalised(image_size=(32, 48)):
    """A backbone that, as ConvNeXt does, normalises its pooled features."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*image_size, 3))
    x = keras.layers.Conv2D(8, 8, strides=8, activation="gelu")(inputs)
    features = keras.layers.LayerNormalization()(keras.layers.GlobalAveragePooling2D()(x))
    network = keras.Model(inputs, features)
    image = keras.Input((*image_size, 3))
    model = keras.Model(image, network(Preprocessing("tf", name="preprocessing")(image)))
    return Backbone("convnext_tiny", image_size, "none", model)


def test_normalised_features_make_it_grad_cam(picture):
    bundle = bundle_of(normalised(), read_image(picture, (32, 48)))
    (f,) = outputs(bundle, [bundle.backbone.network.layers[1]], picture)
    for attribute in NAMES:
        kernel, bias = weights(bundle, attribute)

        def logit_of(f, kernel=kernel, bias=bias):
            mean = f.mean(axis=(0, 1))
            return (mean - mean.mean()) / np.sqrt(mean.var() + 1e-3) @ kernel + bias

        explanation = explain(bundle, picture, attribute)
        assert not explanation.exact
        assert explanation.logit == pytest.approx(logit_of(f), abs=1e-4)
        np.testing.assert_allclose(explanation.map, grad_cam(f, logit_of), atol=1e-5)


@pytest.mark.slow
def test_convnext_normalises_its_features(picture):
    explanation = explain(random_bundle("convnext_tiny", (64, 64), picture), picture, "hat")
    assert not explanation.exact
    assert explanation.map.shape == (2, 2)


# --- what is explained


@pytest.fixture(scope="module")
def tags():
    bundle = tag_bundle()
    rng = np.random.default_rng(0)
    for head in bundle.heads:
        layer = bundle.model.get_layer(head.name)
        layer.set_weights([rng.normal(size=array.shape) for array in layer.get_weights()])
    return bundle


def test_probabilities_and_likeliest_classes_are_those_of_infer(tags, picture):
    (prediction,) = predict(tags, [str(picture)])
    explanations = explain_all(tags, picture)
    likeliest = {name: tag.top[0][0] for name, tag in prediction.tags.items()}
    assert [(e.name, e.class_name) for e in explanations] == [("hat", None), ("coat", None), *likeliest.items()]
    assert [e.title for e in explanations] == ["hat", "coat", *(f"{tag} {name}" for tag, name in likeliest.items())]
    expected = [*prediction.probabilities.values(), *(tag.top[0][1] for tag in prediction.tags.values())]
    np.testing.assert_allclose([e.probability for e in explanations], expected, rtol=1e-4)
    for explanation in explanations:
        assert explanation.image == str(picture)
        np.testing.assert_array_equal(explanation.pixels, read_image(picture, (32, 40)))


def test_every_class_of_a_tag_can_be_explained(tags, picture):
    explanations = [explain(tags, picture, tag="colour", class_name=name) for name in COLOURS]
    assert sum(e.probability for e in explanations) == pytest.approx(1)
    best = max(explanations, key=lambda e: e.probability)
    likeliest = explain(tags, picture, tag="colour")
    assert likeliest.class_name == best.class_name
    np.testing.assert_array_equal(likeliest.map, best.map)
    odds = np.exp(explanations[1].logit - explanations[0].logit)
    assert explanations[1].probability / explanations[0].probability == pytest.approx(odds)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"attribute": "hta"}, "--attribute hta: there is no attribute 'hta'; did you mean hat?"),
        ({"attribute": "xyz"}, "--attribute xyz: there is no attribute 'xyz'; the model knows hat, coat."),
        ({"tag": "color"}, "--tag color: there is no tag 'color'; did you mean colour?"),
        (
            {"tag": "colour", "class_name": "gray"},
            "--class gray: there is no class of colour 'gray'; did you mean grey?",
        ),
        (
            {"tag": "colour", "class_name": "purple"},
            "--class purple: there is no class of colour 'purple'; the model knows red, green, blue, grey.",
        ),
        ({"attribute": "hat", "tag": "colour"}, "--attribute hat and --tag: choose one of the two."),
        ({"attribute": "hat", "class_name": "red"}, "--attribute hat and --class: choose one of the two."),
        ({"class_name": "red"}, "there is nothing to explain: name an --attribute, or a --tag (and its --class)."),
        ({}, "there is nothing to explain: name an --attribute, or a --tag (and its --class)."),
    ],
)
def test_what_the_model_does_not_know_is_refused(tags, picture, wanted, message):
    with pytest.raises(UsageError) as caught:
        explain(tags, picture, **wanted)
    assert str(caught.value) == message


def test_a_model_without_tags_says_so(picture):
    with pytest.raises(UsageError, match=re.escape("--tag a: there is no tag 'a'; the model knows none.")):
        explain(small_bundle(), picture, tag="a")


def test_a_picture_that_cannot_be_read(tags, tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        explain(tags, tmp_path / "absent.jpg", "hat")


# --- pictures


def test_upsampling_is_bilinear(tags, picture):
    explanation = replace(explain(tags, picture, "hat"), map=np.array([[0.0, 1.0], [2.0, 5.0]]))
    assert explanation.upsampled().shape == (32, 40)
    found = explanation.upsampled((4, 4))
    # Centres of a 4x4 grid lie at -0.25, 0.25, 0.75, 1.25 of the coarse one, clipped at the rim.
    t = np.clip([-0.25, 0.25, 0.75, 1.25], 0, 1)
    y, x = np.meshgrid(t, t, indexing="ij")
    np.testing.assert_allclose(found, (1 - y) * (1 - x) * 0 + (1 - y) * x * 1 + y * (1 - x) * 2 + y * x * 5, atol=1e-6)


def test_the_overlay_is_red_where_the_map_is_high_and_blue_where_it_is_low(picture):
    explanation = explain(small_bundle(), picture, "hat")
    shares = np.zeros((32, 32))
    shares[4:12, 4:12], shares[20:28, 20:28] = 1.0, -0.5
    drawn = np.asarray(overlay(replace(explanation, map=shares)).convert("RGB"), int)
    right = drawn[:, drawn.shape[1] // 2 :]
    red, blue = (np.argwhere(right[..., a] - right[..., b] > 25) for a, b in ((0, 2), (2, 0)))
    picture_only = [part[part[:, 1] < right.shape[1] * 0.7] for part in (red, blue)]  # and not the scale beside it
    assert all(len(part) > 100 for part in picture_only)
    assert (picture_only[0].mean(axis=0) < picture_only[1].mean(axis=0)).all()


@pytest.mark.parametrize("values", [np.zeros((1, 1)), np.full((2, 300), -1.0), np.eye(5)])
@pytest.mark.parametrize("exact", [True, False])
def test_every_map_can_be_drawn(picture, values, exact):
    explanation = replace(explain(small_bundle(), picture, "hat"), map=values, exact=exact, name="\udcff 字 $x" * 30)
    drawn = overlay(explanation)
    assert drawn.mode == "RGB"
    assert 700 <= drawn.width <= 1800


# --- the command


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tags):
    """Two bundles as `fit` writes them: by name."""
    made = {}
    for name, bundle in {"attributes": small_bundle(), "tags": tags}.items():
        made[name] = tmp_path_factory.mktemp(name)
        save(bundle, made[name])
    return made


def run(*arguments):
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def test_everything_is_explained_into_a_folder(folders, tags, picture, tmp_path):
    out = tmp_path / "new" / "folder"
    done = run(picture, "--model", folders["tags"], "--out", out)
    assert done.exit_code == 0, done.output
    explanations = explain_all(tags, picture)
    files = [out / f"a_b_é_{e.title.replace(' ', '_')}.png" for e in explanations]
    lines = [f"{e.title} {e.probability:.2f}: {file}" for e, file in zip(explanations, files, strict=True)]
    assert done.stdout.splitlines() == lines
    assert sorted(out.iterdir()) == sorted(files)
    for file in files:
        with Image.open(file) as drawn:
            assert drawn.format == "PNG"
    assert done.stderr == ""


def test_one_is_explained_into_a_file(folders, picture, tmp_path):
    done = run(picture, "--model", folders["attributes"], "--attribute", "coat", "--out", tmp_path / "coat.PNG")
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["coat.PNG"]
    assert done.stderr == "Not better than chance when the model was measured, so do not rely on: coat.\n"


def test_without_out_it_is_this_folder(folders, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(picture, "--model", folders["tags"], "--tag", "colour", "--class", "red")
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir()] == ["a_b_é_colour_red.png"]


def test_names_that_files_cannot_have(picture, tmp_path):
    names = ("a/b", "a b", "A:B", "../c", "x" * 300, "x" * 301)
    head = LogitHead(names, (1.0,) * 6, 1.0)
    backbone = small_bundle().backbone
    bundle = Bundle("", backbone, (head,), (Threshold(0.5, "default", 0),) * 6, build_models(backbone, [head])[1])
    files = [file for _, file in write(bundle, picture, tmp_path)]
    expected = ["a_b", "a_b_2", "A_B_3", ".._c", "x" * 100, "x" * 100 + "_2"]
    assert [file.name for file in files] == [f"a_b_é_{name}.png" for name in expected]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_file_for_many_is_refused(folders, picture, tmp_path):
    out = tmp_path / "a.png"
    done = run(picture, "--model", folders["attributes"], "--out", out)
    assert done.exit_code == 2
    assert done.stderr == (
        f"Error: --out {out} is one file, but there are 3 pictures to write; "
        "give a folder, or choose one with --attribute or --tag.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jpg", "notes.txt"])
def test_a_file_that_is_no_png_is_refused(folders, picture, tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    done = run(picture, "--model", folders["attributes"], "--attribute", "hat", "--out", tmp_path / name)
    assert done.exit_code == 2
    assert done.stderr == f"Error: --out {tmp_path / name}: expected a folder, or a file that ends in .png.\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_picture_itself_is_never_replaced(folders, picture):
    before = picture.read_bytes()
    done = run(picture, "--model", folders["attributes"], "--attribute", "hat", "--out", picture)
    assert done.exit_code == 2
    assert done.stderr == f"Error: --out {picture} is the picture itself, which would be lost; choose another --out.\n"
    assert picture.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--attribute", "hta"], 2, "--attribute hta: there is no attribute 'hta'; did you mean hat?"),
        (["--tag", "colour"], 2, "--tag colour: there is no tag 'colour'; the model knows none."),
    ],
)
def test_a_wrong_call_is_one_sentence(folders, picture, tmp_path, arguments, code, message):
    done = run(picture, "--model", folders["attributes"], "--out", tmp_path / "out", *arguments)
    assert (done.exit_code, done.stderr) == (code, f"Error: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_picture_is_one_sentence(folders, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    done = run(broken, "--model", folders["attributes"], "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr == (
        f"Error: {broken}: not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jpg"]


def test_an_out_that_cannot_be_written_is_one_sentence(folders, picture, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "folder"
    done = run(picture, "--model", folders["attributes"], "--attribute", "hat", "--out", out)
    assert done.exit_code == 1
    file = out / "a_b_é_hat.png"
    assert done.stderr == f"Error: {file} cannot be written (Not a directory); choose another --out.\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folders, picture, tmp_path):
    tmp_path.chmod(0o500)
    done = run(picture, "--model", folders["attributes"], "--attribute", "hat", "--out", tmp_path)
    assert done.exit_code == 1
    assert "cannot be written (Permission denied); choose another --out." in done.stderr


# --- does it show the right place?


@pytest.mark.slow
def test_the_peak_for_the_heart_lies_in_the_heart(root, tmp_path):
    names = ("long_sleeves", "stripes", "buttons", "heart")
    out = tmp_path / "model"
    fit(FitConfig(root / "data" / "labels.txt", names=names, backbone="cnn", out=out, cache=tmp_path / "cache"))
    bundle = load_bundle(out)
    height, width = bundle.backbone.image_size
    rows = [line.split() for line in (root / "data" / "labels.txt").read_text().splitlines()]
    labelled = {row[0] for row in rows if row[4] == "1"}
    with Path(root, "data", "regions.csv").open() as file:
        regions = {row["image"]: row for row in csv.DictReader(file) if row["image"] in labelled}
    assert len(regions) == 30
    hits = 0
    for image, region in regions.items():
        values = explain(bundle, root / "data" / "images" / image, "heart").upsampled()
        y, x = np.unravel_index(values.argmax(), values.shape)
        left, right = (int(region[side]) * width / 128 for side in ("x0", "x1"))
        top, bottom = (int(region[side]) * height / 160 for side in ("y0", "y1"))
        hits += left <= x + 0.5 < right and top <= y + 0.5 < bottom
    assert hits >= 27, f"{hits} of 30"
