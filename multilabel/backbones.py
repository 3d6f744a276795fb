"""Backbones: a pretrained network without its top, by name, with the preprocessing that belongs to it inside.

A `Backbone` maps RGB pictures with values 0..255 to *features*, its globally average-pooled output. The networks
are those of `keras.applications`, and `cnn`, a small one of ours whose layers can be chosen (`CnnShape`).
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.resources
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from .config import PRECISIONS, CnnShape
from .errors import UsageError, WeightsError
from .images import DECODING

IMAGENET = "imagenet"
NO_WEIGHTS = "none"
EMBEDDED = "embedded"
CNN = "cnn"
SMALLEST_SIDE = 32
LARGEST_SIDE = 4096
_IMAGENET_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
_PROCESSOR = Path("/proc/cpuinfo")
_BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
_HARDWARE = {
    "float16": "a GPU",
    "bfloat16": "a GPU of compute capability 8.0 or more, or a processor with AVX512-BF16 or AMX-BF16",
}


@dataclass(frozen=True)
class Architecture:
    """One entry of the catalogue.

    Attributes:
        builder: its name in `keras.applications`; empty for `cnn`.
        preprocessing: `caffe` (BGR, mean subtracted), `tf` (-1..1), `torch` (mean and standard deviation) or
            `builtin` (the network takes 0..255 itself), as the network was trained.
        side: the picture's height, and width if no other is given, that it was made for, in pixels.
        width: the picture's width, where pictures are not square.
    """

    builder: str
    preprocessing: str
    side: int = 224
    width: int | None = None


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
    CNN: Architecture("", "tf", 80, 60),
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
        weights: where its weights came from: `imagenet`, `embedded`, `none` or the file's name.
        model: `(batch, height, width, 3)` RGB 0..255 → `(batch, dimension)` features, float32.
        cnn: the layers of `cnn`; `None` for all other networks.
    """

    name: str
    image_size: tuple[int, int]
    weights: str
    model: keras.Model
    cnn: CnnShape | None = None

    @property
    def dimension(self) -> int:
        """Length of a feature."""
        return int(self.model.output_shape[-1])

    @property
    def network(self) -> keras.Model:
        """The network itself, without our preprocessing: what a weights file holds."""
        return next(layer for layer in self.model.layers if isinstance(layer, keras.Model))

    @property
    def precision(self) -> str:
        """What its layers compute in: `float32`, `bfloat16` or `float16`; their weights are float32 in any case."""
        computing = {layer.compute_dtype for layer in _layers(self.model)}
        return next((lower for lower in ("bfloat16", "float16") if lower in computing), "float32")

    @property
    def pretrained(self) -> bool:
        """Whether its weights came from somewhere, and are not random numbers."""
        return self.weights != NO_WEIGHTS

    def fingerprint(self) -> str:
        """A hexadecimal digest of all that determines a feature besides the picture."""
        digest = hashlib.sha256()
        preprocessing = ARCHITECTURES[self.name].preprocessing
        digest.update(
            repr((self.name, self.image_size, DECODING, preprocessing, "avg", self.precision, self.cnn)).encode()
        )
        for variable in self.model.weights:
            value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value))
            digest.update(repr((value.shape, str(value.dtype))).encode())
            digest.update(value.data)
        return digest.hexdigest()

    def get_config(self) -> dict[str, Any]:
        """What a bundle records of it: name, size, where the weights came from, and the layers of `cnn`."""
        return {
            "name": self.name,
            "image_size": list(self.image_size),
            "weights": self.weights,
            "cnn": asdict(self.cnn) if self.cnn else None,
        }


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


def resolve_precision(name: str) -> str:
    """What layers compute in on this machine.

    Args:
        name: one of `PRECISIONS`. `"auto"` stands for float16 on a GPU, for bfloat16 on a processor that computes in
            it, and else for float32.

    Raises:
        UsageError: for a precision that there is not, or that nothing here computes in.
    """
    if name == "float32":
        return name
    available = _available_precisions()
    if name == "auto":
        return available[0]
    if name not in PRECISIONS:
        raise UsageError(f"--precision is {name}; expected one of {', '.join(PRECISIONS)}.")
    if name not in available:
        raise UsageError(
            f"--precision {name} needs {_HARDWARE[name]}, which this machine has not; "
            f"choose {' or '.join(['auto', *available])}."
        )
    return name


def computes_in(precision: str) -> bool:
    """Whether this machine computes in a precision, and does not only imitate it."""
    return precision == "float32" or precision in _available_precisions()


def _available_precisions() -> list[str]:
    """What this machine computes in; first what `"auto"` takes."""
    import tensorflow as tf  # Keras has loaded it already, but has no name of its own for what a GPU can do

    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    if gpus:
        recent = all(gpu.get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus)
        return ["float16", "bfloat16", "float32"] if recent else ["float16", "float32"]
    try:
        words = set(_PROCESSOR.read_text().split())
    except OSError:  # not Linux
        words = set()
    return ["bfloat16", "float32"] if words & _BFLOAT16_INSTRUCTIONS else ["float32"]


def build_backbone(
    name: str,
    weights: str | os.PathLike[str] = IMAGENET,
    image_size: tuple[int, int] | None = None,
    *,
    cnn: CnnShape | None = None,
    precision: str = "float32",
) -> Backbone:
    """Builds a backbone and loads its weights.

    Args:
        name: see `ARCHITECTURES`; case, `-` and `_` do not matter.
        weights: `"imagenet"` (Keras downloads them once), `"embedded"` (of `cnn`, part of this package), `"none"`
            (random) or a weights file of the same architecture without its top (`.weights.h5`, or `.h5` as older
            Keras versions wrote it).
        image_size: (height, width) in pixels; default: what the architecture was made for.
        cnn: the layers of `cnn`, for it alone; default: those of the embedded weights if they are wanted, else
            `CnnShape()`.
        precision: `"float32"`, `"bfloat16"` or `"float16"`, what the layers compute in; weights, preprocessing and
            features are float32 in any case. Training in float16 needs `keras.optimizers.LossScaleOptimizer`.

    Raises:
        UsageError: for an unknown name, a size that no such network takes, or layers of `cnn` that do not belong
            to the network or the embedded weights.
        WeightsError: if the weights cannot be downloaded, found or loaded.
    """
    name = resolve_name(name)
    architecture = ARCHITECTURES[name]
    height, width = image_size or (architecture.side, architecture.width or architecture.side)
    if not SMALLEST_SIDE <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise UsageError(
            f"image size {height}x{width} is out of range; expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side."
        )
    if precision not in _POLICIES:
        raise UsageError(f"--precision is {precision}; expected one of {', '.join(_POLICIES)}.")
    source = os.fspath(weights)
    if name != CNN:
        _refuse_cnn_options(name, cnn, source)
        cnn = None
    elif source == EMBEDDED:
        cnn, arrays = _read_embedded(cnn)
    else:
        cnn = cnn or CnnShape()
    try:
        with _computing_in(precision):
            network = _build_network(name, (height, width), cnn, imagenet=source == IMAGENET)
    except ValueError as error:  # Keras' own words on sizes a network cannot take
        raise UsageError(f"{name} cannot be built for pictures of {height}x{width}: {_first_line(error)}") from error
    if source == EMBEDDED:
        network.set_weights(arrays)
    elif source not in (IMAGENET, NO_WEIGHTS):
        _load_file(network, name, Path(source))
        source = Path(source).name
    with _computing_in("float32"):
        inputs = keras.Input((height, width, 3), name="image")
        features = network(Preprocessing(architecture.preprocessing, name="preprocessing")(inputs))
        if precision != "float32":
            features = keras.layers.Activation("linear", name="features")(features)
        model = keras.Model(inputs, features, name="backbone")
    return Backbone(name, (height, width), source, model, cnn)


def set_weights(layer: keras.layers.Layer, weights: Sequence[np.ndarray]) -> None:
    """`layer.set_weights`, for a layer or a model that may hold a `Normalization`: that computes with the statistics
    that it was told last, not with those in its weights (EfficientNet has one, with those of ImageNet)."""
    layer.set_weights(list(weights))
    waiting = [layer]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "layers", [])
        if isinstance(one, keras.layers.Normalization):
            one.finalize_state()


def freeze(backbone: Backbone) -> None:
    """Stops all its weights and its BatchNorm statistics from moving.

    Dropout and stochastic depth are no weights: where a network has them (`cnn` with dropout, EfficientNet,
    ConvNeXt), they stay active while a model with the frozen backbone inside is fitted. Stored features know neither.
    """
    backbone.model.trainable = False


def thaw(backbone: Backbone, last: int | None = None) -> None:
    """Lets its weights train, or those of its last layers; all others are frozen, as `freeze` does it.

    BatchNorm layers of a pretrained network stay in inference mode: with few pictures, or with statistics folded
    away, training-mode normalisation destroys what was learned. Those of a network with random weights train.

    Args:
        backbone: the backbone; a model that holds it must be compiled again.
        last: how many of the last layers of the network train, those without weights not counted; `None`: all.

    Raises:
        UsageError: if it has fewer layers, or these are all BatchNorm layers that stay as they are.
    """
    layers = [layer for layer in backbone.network.layers if layer.weights]
    if last is not None and not 1 <= last <= len(layers):
        raise UsageError(
            f"the last {last} layers of {backbone.name} cannot be trained: expected 1 to {len(layers)}, "
            "the number of its layers with weights."
        )
    backbone.model.trainable = True
    for layer in layers[: len(layers) - last] if last else []:
        layer.trainable = False
    if backbone.pretrained:
        for layer in _layers(backbone.model):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    if not backbone.model.trainable_weights:
        raise UsageError(f"the last {last} layers of {backbone.name} are BatchNorm, which stays as it is; take more.")


def save_embedded(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Writes the weights of a `cnn` as the package's embedded ones: float16, with the shape they belong to.

    Raises:
        WeightsError: if a weight is beyond the range of float16.
    """
    with np.errstate(over="ignore"):
        arrays = [array.astype(np.float16) for array in backbone.network.get_weights()]
    if not all(np.isfinite(array).all() for array in arrays):
        raise WeightsError(f"{path}: not written, since some weights are beyond the range of float16.")
    named = {str(index): array for index, array in enumerate(arrays)}
    np.savez_compressed(path, **named, shape=np.array(json.dumps(backbone.get_config()["cnn"])))


def _embedded_file() -> Traversable:
    return importlib.resources.files(__package__) / "weights" / "cnn.npz"


def _read_embedded(wanted: CnnShape | None) -> tuple[CnnShape, list[np.ndarray]]:
    """The layers and the arrays of the embedded weights; dropout is free, since it has no weights."""
    file = _embedded_file()
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            shape = CnnShape(**json.loads(str(archive["shape"])))
            arrays = [archive[str(index)].astype(np.float32) for index in range(len(archive.files) - 1)]
    except Exception as error:  # on damaged files NumPy and zipfile raise nearly anything
        raise WeightsError(
            f"the embedded weights of {CNN} cannot be read ({_first_line(error)}); "
            "install multilabel again, or pass --weights none or a file."
        ) from error
    wanted = wanted or shape
    if _as_options(wanted) != _as_options(shape):
        raise UsageError(
            f"the embedded weights belong to {_as_options(shape)}, and not to {_as_options(wanted)}; "
            "leave these options out, or pass --weights none or a file."
        )
    return wanted, arrays


def _as_options(shape: CnnShape) -> str:
    """All of the shape that determines the weights."""
    filters, kernels = (",".join(map(str, values)) for values in (shape.filters, shape.kernels))
    return (
        f"--filters {filters} --kernel-size {kernels} --dense-units {shape.dense_units} --batch-norm {shape.batch_norm}"
    )


def _refuse_cnn_options(name: str, cnn: CnnShape | None, source: str) -> None:
    if source == EMBEDDED:
        raise UsageError(f"--weights {EMBEDDED} belong to {CNN}, not to {name}; choose others, or --backbone {CNN}.")
    if cnn not in (None, CnnShape()):
        raise UsageError(
            f"--filters, --kernel-size, --dense-units, --batch-norm and --dropout are the layers of {CNN}, "
            f"not of {name}; leave them out, or choose --backbone {CNN}."
        )


@contextlib.contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """The builders of Keras take the precision from the global policy alone."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _build_network(name: str, image_size: tuple[int, int], cnn: CnnShape | None, *, imagenet: bool) -> keras.Model:
    if cnn is not None:
        if imagenet:
            raise WeightsError(
                f"there are no ImageNet weights for {CNN}; train it (--train-backbone) or pass --weights FILE."
            )
        return _build_cnn(cnn, image_size)
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


def _build_cnn(shape: CnnShape, image_size: tuple[int, int]) -> keras.Model:
    """Blocks of convolution, BatchNorm, ReLU and 2×2 max pooling; see `CnnShape`.

    The features are the largest response of each filter of every block, once in the upper and once in the lower half
    of the picture: small things such as a button would drown in an average, and early blocks know textures that the
    last one has forgotten.
    """
    layers = keras.layers
    x = inputs = keras.Input((*image_size, 3))
    largest = []
    for filters, kernel in zip(shape.filters, shape.kernels, strict=True):
        # Subtracting the mean undoes a bias; a ReLU in between does not let it.
        bias = shape.batch_norm != "before"
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=bias, kernel_initializer="he_normal")(x)
        # Keras' momentum of 0.99 needs hundreds of steps to settle; small data sets have fewer.
        if shape.batch_norm == "before":
            x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        if shape.batch_norm == "after":
            x = layers.BatchNormalization(momentum=0.9)(x)
        height, width = x.shape[1:3]
        halves = layers.MaxPooling2D((-(-height // 2), width), padding="same")(x)
        largest.append(layers.Flatten()(halves))
        if min(height, width) > 1:
            x = layers.MaxPooling2D()(x)
    x = layers.Concatenate()(largest)
    if shape.dense_units:
        x = layers.Dense(shape.dense_units, activation="relu", kernel_initializer="he_normal")(x)
    if shape.dropout:
        x = layers.Dropout(shape.dropout)(x)
    return keras.Model(inputs, x, name=CNN)


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
            f"{path}: no such weights file; expected a bundle, or a Keras weights file of {name} (.weights.h5 or .h5)."
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
        "on a machine without network, or pass --weights FILE, or choose a --backbone whose weights you have: "
        "those of cnn come with multilabel."
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n", 1)[0]
    return line.split(" Example error")[0].rstrip(".")[:300]
