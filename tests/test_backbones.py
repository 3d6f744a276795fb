"""The catalogue of backbones: names, preprocessing, weights and what moves in training, against Keras itself."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import shutil
import sys
import urllib.error
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import imagenet_utils
from keras.src.backend import config as keras_config
from keras.src.utils import file_utils

from multilabel import backbones
from multilabel.backbones import (
    ARCHITECTURES,
    Backbone,
    Preprocessing,
    build_backbone,
    freeze,
    resolve_name,
    resolve_precision,
    save_embedded,
    thaw,
)
from multilabel.config import CnnShape
from multilabel.errors import UsageError, WeightsError
from multilabel.heads import LogitHead
from multilabel.training import build_models

HEAD = LogitHead(("hat", "scarf"), (2.0, 1.0), 0.75)
SHAPE = CnnShape((16, 32, 64, 128), (3,), 0, "before", 0.0)
ARRAYS, LAYERS = 5 * 4, 2 * 4  # of our own network in this shape
SMALLEST = {"xception": 71, "inception_v3": 75, "inception_resnet_v2": 75}
FAMILIES = [
    *("resnet50_v2", "vgg16", "vgg19", "xception", "inception_v3", "inception_resnet_v2", "mobilenet"),
    *("mobilenet_v2", "mobilenet_v3_small", "densenet121", "nasnet_mobile", "nasnet_large"),
    *("efficientnet_b0", "efficientnet_v2_b0", "convnext_tiny"),
]


def pictures(height=64, width=64, count=2, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def features(backbone, x):
    """Without `predict`, whose tracing takes longer than these few pictures."""
    return keras.ops.convert_to_numpy(backbone.model(x, training=False))


def build_cnn(weights="none", size=(32, 32), shape=SHAPE, **options):
    """Our own network."""
    return build_backbone("cnn", weights, size, cnn=shape, **options)


def network_of(backbone):
    """The network without our preprocessing: what a weights file holds."""
    (network,) = [layer for layer in backbone.model.layers if isinstance(layer, keras.Model)]
    return network


def spread(network, x=None, seed=0):
    """Gives random weights to a network, with which its features tell pictures apart.

    Fresh BatchNorms change nothing, so that leaving one out would not show. Here they have random factors and
    offsets, and the statistics of what comes in when the network sees `x` (default: noise of its size).
    """
    rng = np.random.default_rng(seed)
    if x is None:
        x = rng.uniform(-1, 1, (8, *network.input_shape[1:])).astype(np.float32)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.gamma.assign(rng.uniform(0.8, 1.25, layer.gamma.shape)) if layer.scale else None
        layer.beta.assign(rng.normal(0, 0.1, layer.beta.shape))
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(x, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return network


def module_of(name):
    """The module of `keras.applications` that holds the class, with its own `preprocess_input`."""
    return sys.modules[getattr(keras.applications, ARCHITECTURES[name].builder).__module__]


def preprocessed(name, x):
    x = x.astype(np.float32)
    return x / 127.5 - 1 if name == "cnn" else module_of(name).preprocess_input(x)


def plain_keras(name, size, **options):
    """The network without pooling, as a user of Keras builds it."""
    return getattr(keras.applications, ARCHITECTURES[name].builder)(
        **{"include_top": False, "pooling": None, "weights": None, "input_shape": (*size, 3), **options}
    )


def weights_of(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]


def same(values, others):
    assert len(values) == len(others)
    return [np.array_equal(value, other) for value, other in zip(values, others, strict=True)]


def close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert np.isfinite(expected).all()
    assert expected.std(axis=0).max() > 100 * tolerance * np.abs(expected).max()  # the pictures can be told apart
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def save(network, file):
    """In the format that the file's ending stands for."""
    network.save_weights(file) if file.name.endswith(".weights.h5") else network.save(file)


@pytest.fixture
def quiet(capfd, recwarn):
    """A context in which nothing reaches the person's terminal but that Keras starts a download, on stderr."""

    @contextlib.contextmanager
    def checked():
        capfd.readouterr()  # what preparing has printed
        recwarn.clear()
        yield
        out, err = capfd.readouterr()
        assert (out, re.sub("Downloading data from .*\n", "", err)) == ("", "")
        assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []

    return checked


@pytest.fixture
def refused(quiet):
    """The one sentence with which `build_backbone` refuses, and nothing is printed."""

    def sentence(error_type, name, *arguments, **options):
        if name == "cnn":
            options = {"cnn": SHAPE, **options}
        with quiet(), pytest.raises(error_type) as caught:
            build_backbone(name, *arguments, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return sentence


@pytest.fixture(scope="module")
def cnn():
    keras.utils.set_random_seed(0)
    backbone = build_cnn()
    spread(network_of(backbone))
    return backbone


@pytest.fixture(scope="module")
def cnn_file(cnn, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    network_of(cnn).save_weights(file)
    return file


# --- names


def test_every_network_of_keras_is_in_the_catalogue_once():
    public = sorted(name for name in dir(keras.applications) if name[0].isupper())
    assert sorted(architecture.builder for architecture in ARCHITECTURES.values()) == ["", *public]
    assert ARCHITECTURES["cnn"].builder == ""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_resolve_however_they_are_written(name):
    spellings = [name, name.upper(), name.replace("_", "-"), name.replace("_", ""), ARCHITECTURES[name].builder or name]
    assert {resolve_name(spelling) for spelling in spellings} == {name}


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("resnet5", "did you mean resnet50? "),
        ("densenet-12", "did you mean densenet121? "),
        ("ConvNext", "did you mean convnext_tiny? "),
        ("yolo", ""),
        ("", ""),
    ],
)
def test_unknown_names(wrong, hint, refused):
    expected = f"unknown backbone {wrong!r}; {hint}known are {', '.join(ARCHITECTURES)}."
    assert refused(UsageError, wrong, "none") == expected


# --- sizes


class _DefaultSize(Exception):
    """Carries Keras' own default side out of a builder before it builds."""


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith(("cnn", "mobilenet_v3"))])
def test_the_default_side_is_that_of_keras(name, monkeypatch):
    def stop(input_shape, default_size, **options):
        raise _DefaultSize(default_size)

    monkeypatch.setattr(imagenet_utils, "obtain_input_shape", stop)
    with pytest.raises(_DefaultSize) as caught:
        getattr(keras.applications, ARCHITECTURES[name].builder)(weights=None)
    assert ARCHITECTURES[name].side == caught.value.args[0]


@pytest.mark.parametrize(
    ("size", "written"),
    [((31, 64), "31x64"), ((64, 31), "64x31"), ((0, 0), "0x0"), ((64, 4097), "64x4097"), ((-5, 64), "-5x64")],
)
def test_sizes_out_of_range(size, written, refused):
    expected = f"image size {written} is out of range; expected 32 to 4096 pixels a side."
    assert refused(UsageError, "cnn", "none", size) == expected
    assert refused(UsageError, "cnn", "imagenet", size) == expected


@pytest.mark.parametrize("weights", ["none", "imagenet"])
@pytest.mark.parametrize("name", SMALLEST)
def test_sizes_that_a_network_does_not_take(name, weights, refused):
    smallest = SMALLEST[name]
    sentence = refused(UsageError, name, weights, (70, 96))
    assert sentence == (
        f"{name} cannot be built for pictures of 70x96: Input size must be at least {smallest}x{smallest}; "
        "Received: input_shape=(70, 96, 3)"
    )


def test_pictures_need_not_be_square(cnn):
    wide = build_backbone("CNN", "none", (32, 96), cnn=SHAPE)
    wide.model.set_weights(cnn.model.get_weights())
    assert (wide.image_size, wide.dimension, wide.name) == ((32, 96), 2 * sum(SHAPE.filters), "cnn")
    assert wide.model.input_shape == (None, 32, 96, 3)
    # Nine tenths of a wide picture are one colour: the pooled feature is that of all of it, not of a square part.
    x = np.full((1, 32, 96, 3), 40, np.uint8)
    x[:, :, :8] = pictures(32, 8, 1)
    assert not np.array_equal(features(wide, x), features(wide, np.full_like(x, 40)))
    assert build_backbone("cnn", "none").image_size == (80, 60)


# --- preprocessing


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocessing_is_that_of_the_network(name, dtype):
    x = pictures(5, 7).astype(dtype)
    x[0, 0, 0], x[0, 0, 1] = (0, 128, 255), (255, 0, 1)
    if dtype == np.float32:
        x[1] += 0.37  # interpolated values
    before = x.copy()
    prepared = Preprocessing(ARCHITECTURES[name].preprocessing)(x)
    assert keras.backend.standardize_dtype(prepared.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(prepared), preprocessed(name, x.copy()), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(x, before)


def test_preprocessing_goes_through_a_config_and_trains_nothing():
    layer = keras.layers.deserialize(keras.layers.serialize(Preprocessing("torch", name="mine")))
    assert isinstance(layer, Preprocessing)
    assert (layer.mode, layer.name, layer.trainable, layer.weights) == ("torch", "mine", False, [])
    assert layer.compute_output_shape((None, 5, 7, 3)) == (None, 5, 7, 3)


# --- features


@functools.cache
def random_backbone(name):
    keras.utils.set_random_seed(1)
    backbone = build_backbone(name, "none", (64, 96))
    spread(network_of(backbone), preprocessed(name, pictures(64, 96, 8)))
    return backbone


@pytest.mark.parametrize(
    "name", ["vgg16", "mobilenet_v2", "mobilenet_v3_small", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_a_feature_is_the_mean_of_what_plain_keras_computes(name):
    backbone = random_backbone(name)
    plain = plain_keras(name, (64, 96))
    plain.set_weights(network_of(backbone).get_weights())
    x = pictures(64, 96)
    maps = keras.ops.convert_to_numpy(plain(preprocessed(name, x), training=False))
    assert maps.ndim == 4
    close(features(backbone, x), maps.astype(np.float64).mean(axis=(1, 2)))
    assert backbone.dimension == maps.shape[-1]
    # The model takes 0..255 of either type.
    np.testing.assert_array_equal(features(backbone, x.astype(np.float32)), features(backbone, x))


SHAPES = [
    SHAPE,
    CnnShape((4, 6), (5,), 0, "before", 0.0),
    CnnShape((4, 6, 5), (5, 2, 3), 0, "after", 0.0),
    CnnShape((4, 6), (1, 4), 7, "none", 0.5),
    CnnShape((3,) * 7, (3,), 5, "after", 0.0),  # of 33 rows one is left after five blocks
]


def features_in_numpy(network, shape, x):
    """Convolution, BatchNorm, ReLU, the halves' maxima, pooling and the dense layer, written out in float64."""
    values = x.astype(np.float64) / 127.5 - 1
    weights = iter(network.get_weights())
    largest = []

    def normalised(values):
        gamma, beta, mean, variance = (next(weights) for _ in range(4))
        return gamma * (values - mean) / np.sqrt(variance + 1e-3) + beta

    for block in range(len(shape.filters)):
        kernel = next(weights).astype(np.float64)
        side = len(kernel)
        assert side == (shape.kernel_sizes * 7)[block]
        around = ((side - 1) // 2, side // 2)
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(values, ((0, 0), around, around, (0, 0))), (side, side), axis=(1, 2)
        )
        values = np.einsum("nhwcij,ijcf->nhwf", windows, kernel)
        values = normalised(values) if shape.batch_norm == "before" else values + next(weights)
        values = np.maximum(values, 0)
        if shape.batch_norm == "after":
            values = normalised(values)
        count, height, width, filters = values.shape
        half = (height + 1) // 2
        largest += [part.max(axis=(1, 2)) for part in (values[:, :half], values[:, half:]) if part.size]
        if min(height, width) > 1:
            values = values[:, : height // 2 * 2, : width // 2 * 2]
            values = values.reshape(count, height // 2, 2, width // 2, 2, filters).max(axis=(2, 4))
    values = np.concatenate(largest, axis=1)
    if shape.dense_units:
        values = np.maximum(values @ next(weights) + next(weights), 0)
    assert next(weights, None) is None
    return values


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)])
def test_a_feature_of_our_own_network_in_numpy(shape, size):
    keras.utils.set_random_seed(2)
    backbone = build_cnn("none", size, shape)
    network = spread(network_of(backbone))
    for layer in network.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.assign(np.random.default_rng(3).uniform(0, 0.3, layer.bias.shape))
    x = pictures(*size)
    expected = features_in_numpy(network, shape, x)
    assert expected.shape == (2, shape.dense_units or 2 * sum(shape.filters))
    close(features(backbone, x), expected)
    assert backbone.dimension == expected.shape[1]
    assert backbone.cnn == shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_our_own_network_has_the_layers_it_was_told_to_have(shape):
    network = network_of(build_cnn("none", (80, 60), shape))
    count, channels, pooled, height, width = 0, 3, 0, 80, 60
    for filters, kernel in zip(shape.filters, (shape.kernel_sizes * 7), strict=False):
        pooled += filters * min(2, height)
        if min(height, width) > 1:
            height, width = height // 2, width // 2
        norm = 0 if shape.batch_norm == "none" else 4 * filters
        bias = 0 if shape.batch_norm == "before" else filters
        count, channels = count + channels * kernel**2 * filters + bias + norm, filters
    count += (pooled + 1) * shape.dense_units
    assert network.count_params() == count
    blocks = len(shape.filters)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds) - {"InputLayer", "GlobalAveragePooling2D"})} == {
        kind: n
        for kind, n in {
            "BatchNormalization": 0 if shape.batch_norm == "none" else blocks,
            "Conv2D": blocks,
            "Dense": bool(shape.dense_units),
            "Dropout": shape.dropout > 0,
            "Concatenate": blocks > 1,
            "Flatten": blocks,
            "MaxPooling2D": blocks + min(blocks - 1, 5),  # the halves; and between blocks, 60, 30, 15, 7, 3, 1
            "ReLU": blocks,
        }.items()
        if n
    }


def test_dropout_leaves_features_out_in_training_alone():
    backbone = build_cnn("none", (32, 32), dataclasses.replace(SHAPE, dropout=0.5))
    without = build_cnn()
    without.model.set_weights(backbone.model.get_weights())
    x = pictures(32, 32, 8)
    np.testing.assert_array_equal(features(backbone, x), features(without, x))
    freeze(backbone)  # as the docstring says: dropout is not frozen
    dropped = keras.ops.convert_to_numpy(backbone.model(x, training=True)) == 0
    before = features(backbone, x) == 0
    assert 0.35 < dropped[~before].mean() < 0.65
    assert backbone.fingerprint() != without.fingerprint()


def test_lists_and_single_numbers_become_tuples():
    shape = CnnShape([8, 16], 5)
    assert (shape.filters, shape.kernel_sizes, shape.kernels) == ((8, 16), (5,), (5, 5))
    assert CnnShape(8).filters == (8,)
    assert CnnShape((8, 16), [1, 3]).kernels == (1, 3)
    assert CnnShape(**dataclasses.asdict(shape)) == shape


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(
            (
                {"filters": given},
                f"--filters is {written}; expected for each block a whole number from 1 to 4096, such as 16,32,64.",
            )
            for given, written in [((), "empty"), ((16, 0), "16,0"), (5000, "5000"), (1.5, "1.5"), ("16,32", "16,32")]
        ),
        *(
            (
                {"filters": (8, 16, 32), "kernel_sizes": given},
                f"--kernel-size is {written}; expected a whole number from 1 to 31, or one for each of the 3 blocks of "
                "--filters 8,16,32.",
            )
            for given, written in [((), "empty"), (0, "0"), (32, "32"), ((3, 3), "3,3"), ((3, 5, -1), "3,5,-1")]
        ),
        ({"dense_units": -1}, "--dense-units is -1; expected a whole number up to 4096, or 0 for none."),
        ({"dense_units": 4097}, "--dense-units is 4097; expected a whole number up to 4096, or 0 for none."),
        ({"batch_norm": "both"}, "--batch-norm is both; expected one of before, after, none."),
        ({"dropout": 1.0}, "--dropout is 1.0; expected a number from 0 to below 1, such as 0.3."),
        ({"dropout": -0.1}, "--dropout is -0.1; expected a number from 0 to below 1, such as 0.3."),
        ({"dropout": float("nan")}, "--dropout is nan; expected a number from 0 to below 1, such as 0.3."),
    ],
)
def test_shapes_out_of_range(value, message):
    with pytest.raises(UsageError) as caught:
        CnnShape(**value)
    assert str(caught.value) == message


def test_the_shape_is_for_our_own_network_alone(refused):
    assert build_backbone("mobilenet", "none", (32, 32), cnn=CnnShape()).cnn is None
    assert build_backbone("cnn", "none", (32, 32)).cnn == CnnShape()
    assert refused(UsageError, "mobilenet", "none", cnn=CnnShape(filters=(7,))) == (
        "--filters, --kernel-size, --dense-units, --batch-norm and --dropout are the layers of cnn, not of mobilenet; "
        "leave them out, or choose --backbone cnn."
    )


# --- weights from a file


@pytest.mark.parametrize("name", ["cnn", "mobilenet"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_come_back_from_a_file(name, suffix, cnn, tmp_path, quiet):
    source = cnn if name == "cnn" else random_backbone(name)
    network, size = network_of(source), source.image_size
    file = tmp_path / f"ours{suffix}"
    save(network, file)
    with quiet():
        loaded = build_backbone(name, file, size, cnn=source.cnn)
    assert all(same(weights_of(loaded.model), weights_of(source.model)))
    assert (loaded.weights, loaded.pretrained) == (f"ours{suffix}", True)
    assert loaded.get_config() == {
        "name": name,
        "image_size": list(size),
        "weights": f"ours{suffix}",
        "cnn": dataclasses.asdict(SHAPE) if name == "cnn" else None,
    }
    np.testing.assert_array_equal(features(loaded, pictures(*size)), features(source, pictures(*size)))
    assert build_backbone(name, str(file), (64, 64), cnn=source.cnn).image_size == (64, 64)  # the size is free


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_a_network_that_was_trained_brings_its_optimizer(ending, cnn, tmp_path):
    network = keras.models.clone_model(network_of(cnn))
    network.compile("adam", "mse")
    network.optimizer.build(network.trainable_variables)
    file = tmp_path / f"trained{ending}"
    (network.save if ending == ".h5" else network.save_weights)(file)
    loaded = build_cnn(file)
    assert all(same(weights_of(loaded.model), weights_of(network)))


NOT_THE_WEIGHTS = (
    "{file}: these are not weights of {name} without its top ({reason}); "
    "pass the file that belongs to the backbone, or another --backbone."
)


def test_weights_of_another_network(cnn, cnn_file, tmp_path, refused):
    sentence = refused(WeightsError, "mobilenet", cnn_file, (32, 32))
    reason = f"it holds {ARRAYS} arrays of 'cnn', mobilenet has 135 of other shapes"
    assert sentence == NOT_THE_WEIGHTS.format(file=cnn_file, name="mobilenet", reason=reason)


def test_weights_of_another_network_in_the_old_format(cnn, tmp_path, refused):
    file = tmp_path / "mine.h5"
    network_of(cnn).save(file)
    sentence = refused(WeightsError, "mobilenet", file, (32, 32))
    reason = (
        f"Layer count mismatch when loading weights from file. Model expected 54 layers, found {LAYERS} saved layers"
    )
    assert sentence == NOT_THE_WEIGHTS.format(file=file, name="mobilenet", reason=reason)


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".weights.h5", f"it holds {ARRAYS} arrays of 'cnn', cnn has {ARRAYS} of other shapes"),
        (".h5", "Shape mismatch in layer #0 (named conv2d"),
    ],
)
def test_weights_of_a_network_with_as_many_layers(suffix, reason, cnn, tmp_path, refused):
    file = tmp_path / f"mine{suffix}"
    save(network_of(cnn), file)
    sentence = refused(
        WeightsError, "cnn", file, (32, 32), cnn=dataclasses.replace(SHAPE, filters=(8, *SHAPE.filters[1:]))
    )
    start, end = NOT_THE_WEIGHTS.format(file=file, name="cnn", reason="|").split("|")
    assert sentence.startswith(start + reason)
    assert sentence.endswith(end)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_of_the_next_larger_network_of_a_family(suffix, tmp_path, refused):
    """EfficientNetB1 and B2 differ in nothing but the sizes of their arrays."""
    larger = plain_keras("efficientnet_b2", (32, 32))
    file = tmp_path / f"larger{suffix}"
    save(larger, file)
    sentence = refused(WeightsError, "efficientnet_b1", file, (32, 32))
    assert sentence.startswith(f"{file}: these are not weights of efficientnet_b1 without its top (")


def test_weights_with_the_top(tmp_path, refused):
    whole = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    whole.save_weights(tmp_path / "whole.weights.h5")
    sentence = refused(WeightsError, "mobilenet", tmp_path / "whole.weights.h5", (32, 32))
    reason = "it holds 137 arrays of 'mobilenet_1.00_32', mobilenet has 135 of other shapes"
    assert sentence == NOT_THE_WEIGHTS.format(file=tmp_path / "whole.weights.h5", name="mobilenet", reason=reason)


@pytest.mark.parametrize("how", ["inside another model", "the old format under the new name"])
def test_the_right_arrays_in_the_wrong_places(how, cnn, tmp_path, refused):
    """Keras warns a dozen times, prints its layers, and could keep random weights; a person gets one sentence."""
    file = tmp_path / "other.weights.h5"
    if how == "inside another model":
        cnn.model.save_weights(file)
    else:
        network_of(cnn).save(tmp_path / "old.h5")
        shutil.move(tmp_path / "old.h5", file)
    sentence = refused(WeightsError, "cnn", file, (32, 32))
    reason = f"A total of {LAYERS} objects could not be loaded"
    assert sentence == NOT_THE_WEIGHTS.format(file=file, name="cnn", reason=reason)


@pytest.mark.parametrize("path", ["nothing.weights.h5", "nothing.h5", "nothing", "folder.h5"])
def test_a_weights_file_that_is_not_there(path, tmp_path, refused):
    (tmp_path / "folder.h5").mkdir()
    assert refused(WeightsError, "cnn", tmp_path / path) == (
        f"{tmp_path / path}: no such weights file; "
        "expected a bundle, or a Keras weights file of cnn (.weights.h5 or .h5)."
    )


@pytest.mark.parametrize("name", ["model.keras", "model.weights", "checkpoint", "model.H5", "model.hdf5"])
def test_a_weights_file_with_another_ending(name, tmp_path, refused):
    file = tmp_path / name
    file.write_bytes(b"x")
    assert refused(WeightsError, "cnn", file) == (
        f"{file}: weights are read from Keras files ending in .weights.h5 or .h5, without the top."
    )


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize("damage", ["empty", "junk", "text", "truncated", "overwritten"])
def test_damaged_weights_files(damage, suffix, cnn, tmp_path, refused):
    file = tmp_path / f"damaged{suffix}"
    save(network_of(cnn), file)
    whole = file.read_bytes()
    file.write_bytes(
        {
            "empty": b"",
            "junk": np.random.default_rng(0).bytes(5000),
            "text": b"<html>404 Not Found</html>\n" * 100,
            "truncated": whole[: len(whole) * 2 // 3],
            "overwritten": whole.replace(b"HEAP", b"JUNK"),  # h5py raises RuntimeError, which is no OSError
        }[damage]
    )
    sentence = refused(WeightsError, "cnn", file, (32, 32))
    start, end = NOT_THE_WEIGHTS.format(file=file, name="cnn", reason="|").split("|")
    assert sentence.startswith(start)
    assert sentence.endswith(end)
    reason = sentence[len(start) : -len(end)]
    assert len(reason) <= 300
    expected = {
        "truncated": "Unable to synchronously open file (truncated file: ",
        "overwritten": "",
    }
    assert reason.startswith(expected.get(damage, "Unable to synchronously open file (file signature not found)"))


def test_hdf5_files_that_hold_something_else(tmp_path, refused):
    for name in ("else.weights.h5", "else.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["numbers"] = np.arange(5.0)
    assert f"(it holds 1 arrays, cnn has {ARRAYS} of other shapes);" in refused(
        WeightsError, "cnn", tmp_path / "else.weights.h5", (32, 32)
    )
    assert f"Model expected {LAYERS} layers, found 0 saved layers);" in refused(
        WeightsError, "cnn", tmp_path / "else.h5", (32, 32)
    )


def test_real_weights(shared, quiet):
    """MobileNetV2 with weights from ImageNet, and the photograph-like range of features that they give."""
    file = shared / "weights" / "mobilenet_v2_imagenet_notop.weights.h5"
    with quiet():
        backbone = build_backbone("mobilenet_v2", file, (96, 96))
    plain = plain_keras("mobilenet_v2", (96, 96), weights=str(file))
    x = pictures(96, 96)
    maps = keras.ops.convert_to_numpy(plain(preprocessed("mobilenet_v2", x), training=False))
    close(features(backbone, x), maps.astype(np.float64).mean(axis=(1, 2)))
    assert backbone.weights == file.name


# --- weights from ImageNet


def serve(monkeypatch, file):
    """Lets Keras "download" a file of ours; returns what it asks for."""
    asked = []

    def get_file(fname=None, origin=None, **options):
        asked.append((fname, origin))
        print("Downloading data from", origin)  # as Keras does, on stdout
        return str(file)

    monkeypatch.setattr(file_utils, "get_file", get_file)
    return asked


def check_efficientnet(name, suffix, tmp_path, monkeypatch):
    side = 32
    source = spread(plain_keras(name, (side, side)), pictures(side, side, 8).astype(np.float32))
    file = tmp_path / f"ours{suffix}"
    save(source, file)
    asked = serve(monkeypatch, file)
    keras_own = plain_keras(name, (side, side), weights="imagenet")
    assert len(asked) == 1
    x = pictures(side, side, 3)
    expected = keras.ops.convert_to_numpy(keras_own(x.astype(np.float32), training=False)).mean(axis=(1, 2))
    from_file = build_backbone(name, file, (side, side))
    close(features(from_file, x), expected)
    without = keras.ops.convert_to_numpy(source(x.astype(np.float32), training=False)).mean(axis=(1, 2))
    assert np.abs(without - expected).max() > 1e-3 * np.abs(expected).max()  # the trap is real
    return from_file, x, expected


def test_efficientnet_from_a_file_is_that_of_keras_with_imagenet(tmp_path, monkeypatch):
    check_efficientnet("efficientnet_b0", ".weights.h5", tmp_path, monkeypatch)


@pytest.mark.slow
def test_efficientnet_is_the_same_downloaded_and_from_a_file(tmp_path, monkeypatch):
    from_file, x, expected = check_efficientnet("efficientnet_b0", ".weights.h5", tmp_path, monkeypatch)
    downloaded = build_backbone("efficientnet_b0", "imagenet", from_file.image_size)
    close(features(downloaded, x), expected)
    assert downloaded.fingerprint() == from_file.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_b3"])
def test_efficientnets_from_a_file_of_the_old_format(name, tmp_path, monkeypatch):
    check_efficientnet(name, ".h5", tmp_path, monkeypatch)
    keras.backend.clear_session()


def test_nothing_but_stderr_hears_of_a_download(tmp_path, monkeypatch, quiet):
    """MobileNet at 64 px: Keras prints on stdout, and warns that it takes the weights of 224 px."""
    spread(plain_keras("mobilenet", (64, 64))).save_weights(tmp_path / "ours.weights.h5")
    asked = serve(monkeypatch, tmp_path / "ours.weights.h5")
    with quiet():
        backbone = build_backbone("mobilenet", "imagenet", (64, 64))
    assert (backbone.weights, backbone.pretrained) == ("imagenet", True)
    assert [fname for fname, _ in asked] == ["mobilenet_1_0_224_tf_no_top.h5"]


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty folder as the home of Keras, which reads the variable only when it is imported."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras_config, "_KERAS_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(url, *rest):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(file_utils, "urlretrieve", refuse)


OFFLINE = (
    "the ImageNet weights of {name} could not be downloaded ({reason}); put {file} into {folder} on a machine "
    "without network, or pass --weights FILE, or choose a --backbone whose weights you have: "
    "those of cnn come with multilabel."
)


def test_without_network(keras_home, offline, refused):
    assert refused(WeightsError, "resnet50", "imagenet", (32, 32)) == OFFLINE.format(
        name="resnet50",
        reason="[Errno -2] Name or service not known",
        file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        folder=keras_home / "models",
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_without_network_the_sentence_names_the_file_that_keras_looks_for(name, keras_home, monkeypatch, refused):
    asked = []

    def get_file(fname, origin, **options):
        asked.append(fname)
        raise Exception(f"URL fetch failure on {origin}: 503 -- Service Unavailable")

    monkeypatch.setattr(file_utils, "get_file", get_file)
    side = max(64, SMALLEST.get(name, 0))
    sentence = refused(WeightsError, name, "imagenet", (side, side))
    assert sentence == OFFLINE.format(
        name=name, reason="Service Unavailable", file=asked[0], folder=keras_home / "models"
    )
    keras.backend.clear_session()


def test_following_the_advice_helps(keras_home, offline, refused):
    sentence = refused(WeightsError, "mobilenet", "imagenet", (64, 64))
    words = sentence.split("; put ")[1].split(" on a machine")[0]
    file, folder = words.split(" into ")
    plain = spread(plain_keras("mobilenet", (64, 64)))
    plain.save(Path(folder) / file)
    backbone = build_backbone("mobilenet", "imagenet", (64, 64))
    assert all(same(weights_of(backbone.model), weights_of(plain)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("The read operation timed out"), "The read operation timed out"),
        (
            ValueError("Incomplete or corrupted file detected. The md5 file hash does not match the provided value."),
            "Incomplete or corrupted file detected. The md5 file hash does not match the provided value",
        ),
        (OSError("Unable to open file\nsecond line"), "Unable to open file"),
    ],
)
def test_downloads_that_fail_otherwise(error, reason, keras_home, monkeypatch, refused):
    def get_file(*arguments, **options):
        raise error

    monkeypatch.setattr(file_utils, "get_file", get_file)
    expected = OFFLINE.format(
        name="vgg16", reason=reason, file="the right file", folder=keras_home / "models"
    )  # no address, so no name of the file
    assert refused(WeightsError, "vgg16", "imagenet", (32, 32)) == expected


def test_the_folder_is_where_keras_looks(tmp_path, monkeypatch, refused):
    error = Exception("URL fetch failure on https://host/a/b.h5: None -- timed out")
    monkeypatch.setattr(keras.applications, "VGG16", functools.partial(_raise, error))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".keras").mkdir()
    sentence = refused(WeightsError, "vgg16", "imagenet")
    assert f"(timed out); put b.h5 into {tmp_path / '.keras' / 'models'} on" in sentence
    # Keras does not look into a home that it cannot write to.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "; put b.h5 into /tmp/.keras/models on" in refused(WeightsError, "vgg16", "imagenet")


def _raise(error, **options):
    raise error


def test_our_own_network_has_no_imagenet_weights(refused):
    assert refused(WeightsError, "cnn") == (
        "there are no ImageNet weights for cnn; train it (--train-backbone) or pass --weights FILE."
    )


# --- embedded weights


@pytest.fixture
def embedded(cnn, tmp_path, monkeypatch):
    """The weights of `cnn` as those of the package."""
    file = tmp_path / "cnn.npz"
    save_embedded(cnn, file)
    monkeypatch.setattr(backbones, "_embedded_file", lambda: file)
    return file


def test_embedded_weights_come_back_as_float16_rounds_them(cnn, embedded, quiet):
    with quiet():
        backbone = build_backbone("cnn", "embedded", (33, 47))
    expected = [value.astype(np.float16).astype(np.float32) for value in weights_of(network_of(cnn))]
    assert not all(same(expected, weights_of(network_of(cnn))))
    assert all(same(weights_of(network_of(backbone)), expected))
    assert (backbone.weights, backbone.pretrained, backbone.cnn) == ("embedded", True, SHAPE)
    assert embedded.stat().st_size < 2.1 * network_of(cnn).count_params() + 10_000


def test_embedded_weights_of_the_same_shape_otherwise_written(embedded):
    shape = dataclasses.replace(SHAPE, kernel_sizes=(3, 3, 3, 3), dropout=0.4)
    assert build_cnn("embedded", shape=shape).cnn == shape


def test_embedded_weights_of_another_shape(embedded, refused):
    assert refused(UsageError, "cnn", "embedded", cnn=dataclasses.replace(SHAPE, filters=(8, 16), dense_units=5)) == (
        "the embedded weights belong to --filters 16,32,64,128 --kernel-size 3,3,3,3 --dense-units 0 --batch-norm "
        "before, and not to --filters 8,16 --kernel-size 3,3 --dense-units 5 --batch-norm before; leave these options "
        "out, or pass --weights none or a file."
    )


def test_embedded_weights_of_another_network(embedded, refused):
    assert refused(UsageError, "mobilenet", "embedded") == (
        "--weights embedded belong to cnn, not to mobilenet; choose others, or --backbone cnn."
    )


@pytest.mark.parametrize("damage", ["absent", "truncated", "pickled"])
def test_embedded_weights_that_cannot_be_read(damage, embedded, refused):
    if damage == "absent":
        embedded.unlink()
    elif damage == "truncated":
        embedded.write_bytes(embedded.read_bytes()[:5000])
    else:
        np.savez(embedded, shape=np.array([{"filters": (1,)}], dtype=object))
    reason = {
        "absent": f"[Errno 2] No such file or directory: '{embedded}'",
        "truncated": "File is not a zip file",
        "pickled": "Object arrays cannot be loaded when allow_pickle=False",
    }[damage]
    assert refused(WeightsError, "cnn", "embedded") == (
        f"the embedded weights of cnn cannot be read ({reason}); install multilabel again, or pass --weights none or "
        "a file."
    )


def test_weights_beyond_float16_are_not_written(tmp_path):
    backbone = build_cnn()
    last = network_of(backbone).weights[-1]
    last.assign(np.full(last.shape, 1e5))
    with pytest.raises(WeightsError) as caught:
        save_embedded(backbone, tmp_path / "cnn.npz")
    assert (
        str(caught.value) == f"{tmp_path / 'cnn.npz'}: not written, since some weights are beyond the range of float16."
    )
    assert not list(tmp_path.iterdir())


# --- precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["cnn", pytest.param("mobilenet", marks=pytest.mark.slow)])
def test_layers_compute_in_the_precision_and_features_are_float32(name, precision, cnn, tmp_path):
    source = cnn if name == "cnn" else random_backbone(name)
    size = source.image_size
    backbone = build_backbone(name, "none", size, cnn=source.cnn, precision=precision)
    assert keras.config.dtype_policy().name == "float32"
    source.model.save_weights(tmp_path / "all.weights.h5")
    backbone.model.load_weights(tmp_path / "all.weights.h5")  # as a bundle does it
    assert all(same(weights_of(backbone.model), weights_of(source.model)))
    convolutions = [layer for layer in network_of(backbone).layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.compute_dtype for layer in convolutions} == {precision}
    assert {variable.dtype for variable in backbone.model.weights} == {"float32"}
    assert backbone.model.get_layer("preprocessing").compute_dtype == "float32"
    x = pictures(*size)
    values, expected = features(backbone, x), features(source, x)
    assert values.dtype == np.float32
    assert not np.array_equal(values, expected)
    # Rounding adds up from layer to layer, and MobileNet has 27, of random weights here: 0.85 in bfloat16.
    assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > (0.999 if name == "cnn" else 0.7)
    assert (source.precision, backbone.precision) == ("float32", precision)
    assert backbone.fingerprint() != source.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_fingerprint_tells_precisions_apart_in_every_family(name):
    side = max(32, SMALLEST.get(name, 0))
    first = build_backbone(name, "none", (side, side))
    prints = {first.fingerprint()}
    for precision in ("bfloat16", "float16"):
        backbone = build_backbone(name, "none", (side, side), precision=precision)
        backbone.model.set_weights(first.model.get_weights())
        assert backbone.precision == precision
        prints.add(backbone.fingerprint())
    assert len(prints) == 3
    keras.backend.clear_session()


def test_the_policy_of_the_person_is_put_back(monkeypatch, refused):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert build_cnn().precision == "float32"
        assert keras.config.dtype_policy().name == "mixed_float16"

        def fail(*arguments):
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            raise ValueError("no.")

        monkeypatch.setattr(backbones, "_build_cnn", fail)
        sentence = refused(UsageError, "cnn", "none", (32, 32), precision="bfloat16")
        assert sentence == "cnn cannot be built for pictures of 32x32: no"
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_precisions_that_there_are_not(refused):
    assert refused(UsageError, "cnn", "none", (32, 32), precision="int8") == (
        "--precision is int8; expected one of float32, bfloat16, float16."
    )
    with pytest.raises(UsageError) as caught:
        resolve_precision("half")
    assert str(caught.value) == "--precision is half; expected one of auto, float32, bfloat16, float16."


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretends to run on a machine with this processor and these GPUs, given by their compute capability."""

    def pretend(flags, *capabilities):
        processor = tmp_path / "cpuinfo"
        if flags is not None:
            processor.write_text(f"model name\t: Some\nflags\t\t: fpu {flags} sse2\n")
        monkeypatch.setattr(backbones, "_PROCESSOR", processor)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities if kind == "GPU" else ())
        details = {(9, 0): {"compute_capability": (9, 0)}, (7, 5): {"compute_capability": (7, 5)}, None: {}}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)

    return pretend


BFLOAT16 = "a GPU of compute capability 8.0 or more, or a processor with AVX512-BF16 or AMX-BF16"


@pytest.mark.parametrize(
    ("described", "available"),
    [
        (("avx512f avx2",), ["float32"]),
        ((None,), ["float32"]),
        (("avx512_bf16",), ["bfloat16", "float32"]),
        (("amx_bf16 amx_tile",), ["bfloat16", "float32"]),
        (("avx2", (9, 0)), ["float16", "bfloat16", "float32"]),
        (("amx_bf16", (7, 5)), ["float16", "float32"]),
        (("avx2", (9, 0), (7, 5)), ["float16", "float32"]),
        (("avx2", None), ["float16", "float32"]),
    ],
)
def test_what_a_machine_computes_in(described, available, machine):
    machine(*described)
    assert resolve_precision("auto") == available[0]
    for precision, hardware in (("float32", ""), ("bfloat16", BFLOAT16), ("float16", "a GPU")):
        if precision in available:
            assert resolve_precision(precision) == precision
        else:
            with pytest.raises(UsageError) as caught:
                resolve_precision(precision)
            assert str(caught.value) == (
                f"--precision {precision} needs {hardware}, which this machine has not; "
                f"choose {' or '.join(['auto', *available])}."
            )


# --- freezing


def train(backbone):
    """A few steps of the whole model on noise; returns the backbone's weights before and after."""
    _, model = build_models(backbone, [HEAD])
    model.compile(keras.optimizers.SGD(0.1), loss={HEAD.name: HEAD.loss()}, jit_compile=False)
    height, width = backbone.image_size
    before, head = weights_of(backbone.model), weights_of(model.get_layer(HEAD.name))
    labels = np.random.default_rng(0).integers(-1, 2, (8, 2))
    model.fit(pictures(height, width, 8), {HEAD.name: labels}, batch_size=4, epochs=2, verbose=0)
    assert not any(same(weights_of(model.get_layer(HEAD.name)), head))
    return before, weights_of(backbone.model)


def kinds(backbone):
    """Per weight: a BatchNorm's statistic, a BatchNorm's factor or offset, or another."""
    last = [variable.path.rsplit("/", 1)[-1] for variable in backbone.model.weights]
    return np.array(
        ["statistic" if n.startswith("moving_") else "norm" if n in ("gamma", "beta") else "kernel" for n in last]
    )


@pytest.fixture
def fresh(cnn, cnn_file):
    """Makes a backbone of which a test may change the weights; from a file, it counts as pretrained."""

    def make(*, pretrained):
        backbone = build_cnn(cnn_file if pretrained else "none")
        assert backbone.pretrained == pretrained
        backbone.model.set_weights(cnn.model.get_weights())
        return backbone

    return make


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("thawed_before", [True, False])
def test_frozen_means_frozen(pretrained, thawed_before, fresh):
    backbone = fresh(pretrained=pretrained)
    if thawed_before:
        thaw(backbone)
    freeze(backbone)
    assert backbone.model.trainable_weights == []
    before, after = train(backbone)
    assert all(same(before, after))


def test_thawed_weights_train_but_pretrained_statistics_stay(fresh):
    backbone = fresh(pretrained=True)
    freeze(backbone)
    thaw(backbone)
    unchanged = np.array(same(*train(backbone)))
    assert not unchanged[kinds(backbone) == "kernel"].any()
    assert unchanged[kinds(backbone) == "statistic"].all()
    assert unchanged[kinds(backbone) == "norm"].all()
    assert sorted(set(kinds(backbone))) == ["kernel", "norm", "statistic"]


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("last", [2, 3, 8])
def test_the_last_layers_train_and_those_before_do_not(last, pretrained, fresh):
    backbone = fresh(pretrained=pretrained)
    layers = [layer for layer in network_of(backbone).layers if layer.weights]
    assert len(layers) == LAYERS
    chosen = [id(variable) for layer in layers[-last:] for variable in layer.weights]
    thaw(backbone)  # what trained before counts for nothing
    thaw(backbone, last)
    unchanged = np.array(same(*train(backbone)))
    trains = np.array([id(variable) in chosen for variable in backbone.model.weights])
    assert trains.sum() == {2: 5, 3: 9, 8: ARRAYS}[last]
    if pretrained:
        trains &= kinds(backbone) == "kernel"
    np.testing.assert_array_equal(~unchanged, trains)


def test_a_batch_norm_alone_does_not_train(fresh):
    backbone = fresh(pretrained=True)
    with pytest.raises(UsageError) as caught:
        thaw(backbone, 1)
    assert str(caught.value) == "the last 1 layers of cnn are BatchNorm, which stays as it is; take more."


@pytest.mark.parametrize("last", [0, -1, 9])
def test_more_layers_than_there_are(last, fresh):
    backbone = fresh(pretrained=True)
    freeze(backbone)
    with pytest.raises(UsageError) as caught:
        thaw(backbone, last)
    assert str(caught.value) == (
        f"the last {last} layers of cnn cannot be trained: expected 1 to 8, the number of its layers with weights."
    )
    assert backbone.model.trainable_weights == []


def test_statistics_of_random_weights_move(fresh):
    backbone = fresh(pretrained=False)
    freeze(backbone)
    thaw(backbone)
    assert not any(same(*train(backbone)))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["freeze", "thaw", "thaw random"])
def test_freezing_a_network_of_keras(way, tmp_path):
    """As above, for a network whose layers nest and that holds 52 BatchNorms."""
    source = spread(plain_keras("mobilenet_v2", (32, 32)))
    source.save_weights(tmp_path / "ours.weights.h5")
    weights = "none" if way == "thaw random" else tmp_path / "ours.weights.h5"
    backbone = build_backbone("mobilenet_v2", weights, (32, 32))
    freeze(backbone)
    if way != "freeze":
        thaw(backbone)
    unchanged, kind = np.array(same(*train(backbone))), kinds(backbone)
    assert (kind == "statistic").sum() == 2 * 52
    expected = {"freeze": (True, True), "thaw": (False, True), "thaw random": (False, False)}[way]
    assert (unchanged[kind == "kernel"].all(), unchanged[kind == "statistic"].all()) == expected
    assert way == "freeze" or not unchanged[kind == "kernel"].any()


# --- the fingerprint


def test_the_fingerprint_is_equal_for_equal_backbones(cnn, cnn_file):
    assert cnn.fingerprint() == cnn.fingerprint()
    assert len(cnn.fingerprint()) == 64
    again = build_cnn(cnn_file)  # layers of other names, weights of another source
    assert again.fingerprint() == cnn.fingerprint()
    freeze(again)
    assert again.fingerprint() == cnn.fingerprint()


def test_the_fingerprint_is_another_for_another_name_or_size(cnn):
    other_size = build_cnn("none", (32, 64))
    other_size.model.set_weights(cnn.model.get_weights())
    turned = build_cnn("none", (64, 32))
    turned.model.set_weights(cnn.model.get_weights())
    other_name = dataclasses.replace(cnn, name="mobilenet")
    assert len({b.fingerprint() for b in (cnn, other_size, turned, other_name)}) == 4


@pytest.mark.parametrize("index", range(ARRAYS))
def test_the_fingerprint_is_another_if_one_bit_of_one_weight_is(index, cnn, fresh):
    backbone = Backbone("cnn", (32, 32), "none", keras.models.clone_model(cnn.model), SHAPE)
    values = cnn.model.get_weights()
    backbone.model.set_weights(values)
    assert backbone.fingerprint() == cnn.fingerprint()
    last = values[index].reshape(-1)
    last[-1] = np.nextafter(last[-1], np.float32(np.inf))
    backbone.model.set_weights(values)
    assert backbone.fingerprint() != cnn.fingerprint()
