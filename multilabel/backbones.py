"""Backbones: a pretrained network without its top, by name, with the preprocessing that belongs to it inside.

A `Backbone` maps RGB pictures with values 0..255 to *features*, its globally average-pooled output. The networks
are those of `keras.applications`, and `cnn`, a small one of ours that is made to be trained from scratch.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from .errors import UsageError, WeightsError
from .images import DECODING

IMAGENET = "imagenet"
NO_WEIGHTS = "none"
CNN = "cnn"
CNN_FILTERS = (16, 32, 64, 128)
SMALLEST_SIDE = 32
LARGEST_SIDE = 4096
_IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """One entry of the catalogue.

    Attributes:
        builder: its name in `keras.applications`; empty for `cnn`.
        preprocessing: `caffe` (BGR, mean subtracted), `tf` (-1..1), `torch` (mean and standard deviation) or
            `builtin` (the network takes 0..255 itself), as the network was trained.
        side: the picture's height and width it was made for, in pixels.
    """

    builder: str
    preprocessing: str
    side: int = 224


ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture("ResNet50", "caffe"),
    "resnet101": Architecture("ResNet101", "caffe"),
    "resnet152": Architecture("ResNet152", "caffe"),
    "resnet50_v2": Architecture("ResNet50V2", "tf"),
    "resnet101_v2": Architecture("ResNet101V2", "tf"),
    "resnet152_v2": Architecture("ResNet152V2", "tf"),
    "vgg16": Architecture("VGG16", "caffe"),
    "vgg19": Architecture("VGG19", "caffe"),
    "xception": Architecture("Xception", "tf", 299),
    "inception_v3": Architecture("InceptionV3", "tf", 299),
    "inception_resnet_v2": Architecture("InceptionResNetV2", "tf", 299),
    "mobilenet": Architecture("MobileNet", "tf"),
    "mobilenet_v2": Architecture("MobileNetV2", "tf"),
    "mobilenet_v3_small": Architecture("MobileNetV3Small", "builtin"),
    "mobilenet_v3_large": Architecture("MobileNetV3Large", "builtin"),
    "densenet121": Architecture("DenseNet121", "torch"),
    "densenet169": Architecture("DenseNet169", "torch"),
    "densenet201": Architecture("DenseNet201", "torch"),
    "nasnet_mobile": Architecture("NASNetMobile", "tf"),
    "nasnet_large": Architecture("NASNetLarge", "tf", 331),
    "efficientnet_b0": Architecture("EfficientNetB0", "builtin"),
    "efficientnet_b1": Architecture("EfficientNetB1", "builtin", 240),
    "efficientnet_b2": Architecture("EfficientNetB2", "builtin", 260),
    "efficientnet_b3": Architecture("EfficientNetB3", "builtin", 300),
    "efficientnet_b4": Architecture("EfficientNetB4", "builtin", 380),
    "efficientnet_b5": Architecture("EfficientNetB5", "builtin", 456),
    "efficientnet_b6": Architecture("EfficientNetB6", "builtin", 528),
    "efficientnet_b7": Architecture("EfficientNetB7", "builtin", 600),
    "efficientnet_v2_b0": Architecture("EfficientNetV2B0", "builtin"),
    "efficientnet_v2_b1": Architecture("EfficientNetV2B1", "builtin", 240),
    "efficientnet_v2_b2": Architecture("EfficientNetV2B2", "builtin", 260),
    "efficientnet_v2_b3": Architecture("EfficientNetV2B3", "builtin", 300),
    "efficientnet_v2_s": Architecture("EfficientNetV2S", "builtin", 384),
    "efficientnet_v2_m": Architecture("EfficientNetV2M", "builtin", 480),
    "efficientnet_v2_l": Architecture("EfficientNetV2L", "builtin", 480),
    "convnext_tiny": Architecture("ConvNeXtTiny", "builtin"),
    "convnext_small": Architecture("ConvNeXtSmall", "builtin"),
    "convnext_base": Architecture("ConvNeXtBase", "builtin"),
    "convnext_large": Architecture("ConvNeXtLarge", "builtin"),
    "convnext_xlarge": Architecture("ConvNeXtXLarge", "builtin"),
    CNN: Architecture("", "tf", 64),
}


@keras.saving.register_keras_serializable(package="multilabel")
class Preprocessing(keras.layers.Layer):
    """What a family of networks expects of its input, as a layer: RGB 0..255 in, prepared float32 out.

    Args:
        mode: `caffe`, `tf`, `torch` (as `keras.applications.imagenet_utils.preprocess_input` names them) or
            `builtin` (nothing to do).
    """

    def __init__(self, mode: str, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **kwargs})
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        """Shapes: (batch, height, width, 3) → the same."""
        inputs = keras.ops.cast(inputs, "float32")  # arithmetic on uint8 would wrap around
        if self.mode == "builtin":
            return inputs
        return keras.applications.imagenet_utils.preprocess_input(inputs, mode=self.mode)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape is kept."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """`mode` beside the layer's own."""
        return {**super().get_config(), "mode": self.mode}


@dataclass(frozen=True)
class Backbone:
    """A network from pictures to features.

    Attributes:
        name: its name in `ARCHITECTURES`.
        image_size: (height, width) of its pictures, in pixels.
        weights: where its weights came from: `imagenet`, `none` or the file's name.
        model: `(batch, height, width, 3)` RGB 0..255 → `(batch, dimension)` features.
    """

    name: str
    image_size: tuple[int, int]
    weights: str
    model: keras.Model

    @property
    def dimension(self) -> int:
        """Length of a feature."""
        return int(self.model.output_shape[-1])

    @property
    def pretrained(self) -> bool:
        """Whether its weights came from somewhere, and are not random numbers."""
        return self.weights != NO_WEIGHTS

    def fingerprint(self) -> str:
        """A hexadecimal digest of all that determines a feature besides the picture."""
        digest = hashlib.sha256()
        preprocessing = ARCHITECTURES[self.name].preprocessing
        precision = self.model.layers[-1].dtype_policy.name
        digest.update(repr((self.name, self.image_size, DECODING, preprocessing, "avg", precision)).encode())
        for variable in self.model.weights:
            value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value))
            digest.update(repr((value.shape, str(value.dtype))).encode())
            digest.update(value.data)
        return digest.hexdigest()

    def get_config(self) -> dict[str, Any]:
        """What a bundle records of it: name, size, and where the weights came from."""
        return {"name": self.name, "image_size": list(self.image_size), "weights": self.weights}


def resolve_name(name: str) -> str:
    """The catalogue's name for what a person typed (`ResNet50`, `resnet-50`).

    Raises:
        UsageError: if there is no such backbone.
    """
    plain = {re.sub(r"[^a-z0-9]", "", known): known for known in ARCHITECTURES}
    wanted = re.sub(r"[^a-z0-9]", "", name.lower())
    if wanted in plain:
        return plain[wanted]
    close = difflib.get_close_matches(wanted, plain, n=1)
    hint = f"did you mean {plain[close[0]]}? " if close else ""
    raise UsageError(f"unknown backbone {name!r}; {hint}known are {', '.join(ARCHITECTURES)}.")


def build_backbone(
    name: str, weights: str | os.PathLike[str] = IMAGENET, image_size: tuple[int, int] | None = None
) -> Backbone:
    """Builds a backbone and loads its weights.

    Args:
        name: see `ARCHITECTURES`; case, `-` and `_` do not matter.
        weights: `"imagenet"` (Keras downloads them once), `"none"` (random) or a weights file of the same
            architecture without its top (`.weights.h5`, or `.h5` as older Keras versions wrote it).
        image_size: (height, width) in pixels; default: what the architecture was made for.

    Raises:
        UsageError: for an unknown name, or a size that no such network takes.
        WeightsError: if the weights cannot be downloaded, found or loaded.
    """
    name = resolve_name(name)
    architecture = ARCHITECTURES[name]
    height, width = image_size or (architecture.side, architecture.side)
    if not SMALLEST_SIDE <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise UsageError(
            f"image size {height}x{width} is out of range; expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side."
        )
    source = os.fspath(weights)
    try:
        network = _build_network(name, (height, width), imagenet=source == IMAGENET)
    except ValueError as error:  # Keras' own words on sizes a network cannot take
        raise UsageError(f"{name} cannot be built for pictures of {height}x{width}: {_first_line(error)}") from error
    if source not in (IMAGENET, NO_WEIGHTS):
        _load_file(network, name, Path(source))
        source = Path(source).name
    inputs = keras.Input((height, width, 3), name="image")
    prepared = Preprocessing(architecture.preprocessing, name="preprocessing")(inputs)
    return Backbone(name, (height, width), source, keras.Model(inputs, network(prepared), name="backbone"))


def freeze(backbone: Backbone) -> None:
    """Stops all its weights and its BatchNorm statistics from moving."""
    backbone.model.trainable = False


def thaw(backbone: Backbone) -> None:
    """Lets its weights train.

    BatchNorm layers of a pretrained network stay in inference mode: with few pictures, or with statistics folded
    away, training-mode normalisation destroys what was learned. Those of a network with random weights train.
    """
    backbone.model.trainable = True
    if backbone.pretrained:
        for layer in _layers(backbone.model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _build_network(name: str, image_size: tuple[int, int], *, imagenet: bool) -> keras.Model:
    if name == CNN:
        if imagenet:
            raise WeightsError(
                f"there are no ImageNet weights for {CNN}; train it (--train-backbone) or pass --weights FILE."
            )
        return _build_cnn(image_size)
    builder = getattr(keras.applications, ARCHITECTURES[name].builder)
    options = {"include_top": False, "pooling": "avg", "input_shape": (*image_size, 3)}
    if not imagenet:
        network = builder(weights=None, **options)
        return _with_rescaling(network) if name.startswith("efficientnet_b") else network
    try:
        # Keras reports its download on stdout, and warns that MobileNets of other sizes get the weights of 224×224.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
            return builder(weights=IMAGENET, **options)
    except Exception as error:  # keras.utils.get_file raises a bare Exception
        if "input_shape" in str(error):  # the size is wrong, not the weights
            raise
        raise WeightsError(_download_failed(name, error)) from error


def _build_cnn(image_size: tuple[int, int]) -> keras.Model:
    """Blocks of 3×3 convolution, BatchNorm, ReLU and 2×2 max pooling, then global average pooling."""
    x = inputs = keras.Input((*image_size, 3))
    for filters in CNN_FILTERS:
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        # Keras' momentum of 0.99 needs hundreds of steps to settle; small data sets have fewer.
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name=CNN)


def _with_rescaling(network: keras.Model) -> keras.Model:
    """EfficientNetB0..B7 as its ImageNet weights need it, whatever weights follow.

    Keras adds a layer that divides by the square root of the standard deviation only when it is asked for
    `weights="imagenet"`; without it the same weights from a file would see other inputs.
    """
    scale = [1.0 / math.sqrt(deviation) for deviation in _IMAGENET_STANDARD_DEVIATION]

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if isinstance(layer, keras.layers.Normalization):
            outputs = keras.layers.Rescaling(scale)(outputs)
        return outputs

    return keras.models.clone_model(network, call_function=call)


def _load_file(network: keras.Model, name: str, path: Path) -> None:
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; expected a Keras weights file of {name} (.weights.h5 or .h5)."
        )
    if path.suffix != ".h5":
        raise WeightsError(f"{path}: weights are read from Keras files ending in .weights.h5 or .h5, without the top.")
    try:
        if path.name.endswith(".weights.h5"):
            check_arrays(network, name, path)
        with warnings.catch_warnings(action="ignore"):  # of what Keras goes on to refuse
            network.load_weights(path)
    except Exception as error:  # on damaged files Keras and h5py raise nearly anything
        raise WeightsError(
            f"{path}: these are not weights of {name} without its top ({_first_line(error)}); "
            "pass the file that belongs to the backbone, or another --backbone."
        ) from error


def check_arrays(network: keras.Model, name: str, path: Path) -> None:
    """Makes sure that a `.weights.h5` file holds arrays of the network's shapes, no more and no fewer.

    Keras itself skips what it does not find, with a warning, and leaves random weights in its place.

    Raises:
        ValueError: if it does not.
        OSError: if it is no HDF5 file.
    """
    found: list[tuple[int, ...]] = []
    with h5py.File(path, "r") as file:
        saved_as = file["vars"].attrs.get("name", "") if "vars" in file else ""

        def visit(where: str, item: Any) -> None:
            # Neither the state of random generators nor that of an optimizer counts.
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and not where.startswith("optimizer/"):
                found.append(tuple(item.shape))

        file.visititems(visit)
    expected = [tuple(variable.shape) for variable in network.weights if "float" in str(variable.dtype)]
    if sorted(found) != sorted(expected):
        whose = f" of {saved_as!r}" if saved_as else ""
        raise ValueError(f"it holds {len(found)} arrays{whose}, {name} has {len(expected)} of other shapes")


def _download_failed(name: str, error: Exception) -> str:
    url = re.search(r"https?://\S+?(?=:? |:?$)", str(error))
    file = url.group().rstrip(":").rsplit("/", 1)[-1] if url else "the right file"
    if name.startswith("nasnet"):
        file = f"{name}_no_top.h5"  # what Keras looks for; its address ends otherwise
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")).expanduser()
    if not os.access(home, os.W_OK):
        home = Path("/tmp/.keras")  # Keras, too, then looks there and nowhere else
    reason = _first_line(error).rsplit(" -- ", 1)[-1]
    return (
        f"the ImageNet weights of {name} could not be downloaded ({reason}); put {file} into {home / 'models'} "
        "on a machine without network, or pass --weights FILE, or choose a --backbone whose weights you have."
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n", 1)[0]
    return line.split(" Example error")[0].rstrip(".")[:300]
