"""Folding: the same features, whatever the BatchNorm statistics, in every architecture."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multilabel.backbones import ARCHITECTURES, build_backbone
from multilabel.config import CnnShape
from multilabel.folding import fold

SMALLEST = {"inception_v3": 75, "xception": 71, "inception_resnet_v2": 75}
# Quick ones that have between them all there is to fold: convolutions, depthwise, separable and grouped ones, BatchNorm
# behind a ReLU or a concatenation, maps pooled in the middle, plain operations, stochastic depth.
QUICK = (
    "resnet50",
    "resnet50_v2",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "xception",
)
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES if name != "cnn"]
SHAPES = {
    "batch norm before": CnnShape(filters=(8, 16)),
    "batch norm after": CnnShape(filters=(8, 16), batch_norm="after", kernel_sizes=(5, 3)),
    "no batch norm": CnnShape(filters=(8, 16), batch_norm="none"),
    "dense and dropout": CnnShape(filters=(8, 16), dense_units=12, dropout=0.5),
}
LAYERS = keras.layers


@pytest.fixture(scope="module")
def table():
    """One line per architecture, shown when all are done: how far folded features are from plain ones."""
    lines = []
    yield lines
    print("\n" + "\n".join([f"{'network':24}{'BatchNorm':>10}{'left':>6}{'difference':>12}", *lines]))


@pytest.fixture(autouse=True)
def cleared():
    yield
    keras.backend.clear_session()


def randomise(network, inputs):
    """Gives BatchNorm statistics and weights, and biases that are not 0.

    Statistics are near those of the inputs and scales below 1, as a training leaves them. With others the deepest
    networks are chaotic: one millionth more of an input changes half of a feature of EfficientNetV2S.
    """
    rng = np.random.default_rng(0)
    for layer in all_layers(network):
        if isinstance(layer, LAYERS.Normalization) and layer.input_mean is None:  # EfficientNet's, of ImageNet's pixels
            layer.adapt_mean.assign(rng.uniform(0.3, 0.7, layer.adapt_mean.shape))
            layer.adapt_variance.assign(rng.uniform(0.03, 0.1, layer.adapt_variance.shape))
            layer.finalize_state()
    norms = [layer for layer in all_layers(network) if isinstance(layer, LAYERS.BatchNormalization)]
    for layer in norms:
        shape = layer.moving_mean.shape
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.2, 0.7, shape) * rng.choice([-1, 1], shape, p=[0.1, 0.9]))
        if layer.center:
            layer.beta.assign(rng.normal(0, 0.3, shape))
        layer.momentum = 0.0
    for layer in all_layers(network):
        if getattr(layer, "use_bias", False):
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    if norms:
        network(inputs, training=True)
    for layer in norms:
        shape = layer.moving_mean.shape
        deviation = np.sqrt(layer.moving_variance)
        layer.moving_mean.assign_add(deviation * rng.normal(0, 0.1, shape))
        layer.moving_variance.assign(layer.moving_variance * rng.uniform(0.8, 1.25, shape) + 0.01)


def all_layers(network):
    for layer in network.layers:
        yield from all_layers(layer) if isinstance(layer, keras.Model) else [layer]


def count(network, kind):
    return sum(isinstance(layer, kind) for layer in all_layers(network))


def differences(network, folded, inputs):
    """The largest difference of features, as a share of the largest feature."""
    expected = np.asarray(network(inputs, training=False))
    values = np.asarray(folded(inputs, training=False))
    assert values.dtype == np.float32
    assert values.shape == expected.shape
    return np.abs(values - expected).max() / np.abs(expected).max()


def pictures_for(backbone, pictures=2):
    return np.random.default_rng(1).integers(0, 256, (pictures, *backbone.image_size, 3), dtype=np.uint8)


def inputs_for(backbone, pictures=2):
    return backbone.model.get_layer("preprocessing")(pictures_for(backbone, pictures))


def random_backbone(name, **options):
    side = SMALLEST.get(name, 64)
    keras.utils.set_random_seed(0)
    backbone = build_backbone(name, "none", (side, side), **options)
    randomise(backbone.network, inputs_for(backbone, 4))
    return backbone


@pytest.mark.parametrize("name", NAMES)
def test_features_stay_the_same(name, table, record_property):
    backbone = random_backbone(name)
    before = [weights.copy() for weights in backbone.model.get_weights()]
    folded = fold(backbone.network)
    difference = differences(backbone.network, folded, inputs_for(backbone))
    norms = count(backbone.network, LAYERS.BatchNormalization)
    left = count(folded, LAYERS.DepthwiseConv2D) - count(backbone.network, LAYERS.DepthwiseConv2D)
    table.append(f"{name:24}{norms:10}{left if norms else 0:6}{difference:12.1e}")
    record_property("difference", float(difference))
    assert difference < 1e-4
    assert not any(count(folded, kind) for kind in (LAYERS.BatchNormalization, LAYERS.Dropout))
    assert not any(type(layer).__name__ == "StochasticDepth" for layer in all_layers(folded))
    assert all(map(np.array_equal, backbone.model.get_weights(), before))
    # And these features are ones.
    features = np.asarray(backbone.model(pictures_for(backbone)))
    assert features.shape == (2, backbone.dimension)
    assert np.isfinite(features).all()
    assert not np.array_equal(*features)
    assert (backbone.weights, backbone.pretrained) == ("none", False)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_features_of_cnn_stay_the_same(shape, table):
    backbone = random_backbone("cnn", cnn=shape)
    folded = fold(backbone.network)
    difference = differences(backbone.network, folded, inputs_for(backbone))
    left = count(folded, LAYERS.DepthwiseConv2D)
    norms = count(backbone.network, LAYERS.BatchNormalization)
    table.append(f"{'cnn, batch norm ' + shape.batch_norm:24}{norms:10}{left:6}{difference:12.1e}")
    assert difference < 1e-4
    assert left == (2 if shape.batch_norm == "after" else 0)


def dense_norm():
    image = keras.Input((8, 8, 3))
    x = LAYERS.Flatten()(image)
    x = LAYERS.BatchNormalization()(LAYERS.Dense(6, use_bias=False)(x))
    return keras.Model(image, x)


def norm_without_scale_and_offset():
    image = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(4, 3)(image)
    x = LAYERS.BatchNormalization(scale=False, center=False)(x)
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


def several_outputs_of_each_channel():
    image = keras.Input((8, 8, 3))
    x = LAYERS.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(image)
    x = LAYERS.BatchNormalization()(x)
    x = LAYERS.BatchNormalization()(LAYERS.Conv2D(12, 3, groups=6)(x))  # two outputs of each group of one channel
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


def groups_of_two():
    image = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(4, 1)(image)
    x = LAYERS.BatchNormalization()(LAYERS.Conv2D(6, 3, groups=2, use_bias=False)(x))
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


def used_twice():
    """The convolution feeds something else, too, which must see it as it was."""
    image = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(4, 3)(image)
    x = LAYERS.Add()([LAYERS.BatchNormalization()(x), x])
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


def used_by_an_operation():
    """As `used_twice`, but what it feeds is no layer."""
    image = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(4, 3)(image)
    x = LAYERS.BatchNormalization()(x) * (x + 3.0)
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


def not_linear():
    image = keras.Input((8, 8, 3))
    x = LAYERS.BatchNormalization()(LAYERS.Conv2D(4, 3, activation="relu")(image))
    return keras.Model(image, LAYERS.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (dense_norm, 0),
        (norm_without_scale_and_offset, 0),
        (several_outputs_of_each_channel, 0),
        (groups_of_two, 0),
        (used_twice, 1),
        (used_by_an_operation, 1),
        (not_linear, 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_folded_and_what_is_not(build, left):
    keras.utils.set_random_seed(0)
    network = build()
    inputs = np.random.default_rng(1).normal(0, 1, (8, 8, 8, 3)).astype(np.float32)
    randomise(network, inputs)
    folded = fold(network)
    assert differences(network, folded, inputs) < 1e-5
    assert count(folded, LAYERS.BatchNormalization) == 0
    norms = {layer.name for layer in all_layers(network) if isinstance(layer, LAYERS.BatchNormalization)}
    assert sum(layer.name in norms for layer in all_layers(folded)) == left


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "mobilenet_v2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientnet_b0", "convnext_tiny")),
    ],
)
def test_layers_compute_in_the_precision_but_for_preprocessing_and_the_last_pooling(name, precision):
    backbone = random_backbone(name)
    folded = fold(backbone.network, precision)
    exact = {
        layer.name
        for layer in all_layers(folded)
        if isinstance(layer, LAYERS.Rescaling | LAYERS.Normalization)
        or (isinstance(layer, LAYERS.Activation) and layer.activation is keras.activations.gelu)
        or (layer.name == "avg_pool" or (len(layer.output.shape) == 2 and not layer.name.endswith("se_squeeze")))
        or isinstance(layer, LAYERS.InputLayer)
    }
    for layer in all_layers(folded):
        dtype = "float32" if layer.name in exact else precision
        assert layer.compute_dtype == dtype, layer.name
        if not isinstance(layer, LAYERS.Normalization):  # it counts its samples, too
            assert {variable.dtype for variable in layer.weights} <= {dtype}, layer.name
    assert differences(backbone.network, folded, inputs_for(backbone)) < 0.03
