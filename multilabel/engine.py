"""The engine: a frozen backbone, from pixels to features, as fast as this machine runs it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np

from .backbones import Backbone
from .folding import fold

_VERSION = 2  # of all that turns pixels into features here; a change that alters features raises it
# Largest differences of features, as shares of the largest one. The same network stays below 1e-4, and has room for the
# TensorFloat-32 of GPUs.
_SAME = 1e-2
# What rounding alone may do. Random weights stay below 0.02; but bfloat16 takes MobileNetV2 of ImageNet, whose weights
# cancel one another, to 0.36, with features that are as good to learn from. What went wrong goes further.
_ROUNDED = {"bfloat16": 0.5, "float16": 0.1}
_log = logging.getLogger("multilabel")


class FoldingError(Exception):
    """A folded backbone is not as the backbone is; the text says how far from it."""


class Engine:
    """Features of a frozen backbone, whose BatchNorm is folded and whose weights are constants of one graph.

    It is built at the first call, with the weights that the backbone has then: a run whose features are all stored
    never pays for it. Building compares it with the backbone itself, folded in float32 and then in its own precision.

    Args:
        backbone: the backbone; not changed.
        precision: `"float32"`, `"bfloat16"` or `"float16"`, what it computes in; features are float32.
        folded: `False`: the backbone as it is, in float32.

    Attributes:
        backbone: the backbone.
        precision: what it computes in.
        folded: whether it is folded.
    """

    def __init__(self, backbone: Backbone, precision: str = "float32", *, folded: bool = True) -> None:
        self.backbone = backbone
        self.precision = precision
        self.folded = folded

    @property
    def name(self) -> str:
        """The backbone's name."""
        return self.backbone.name

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its pictures, in pixels."""
        return self.backbone.image_size

    @property
    def dimension(self) -> int:
        """Length of a feature."""
        return self.backbone.dimension

    def fingerprint(self) -> str:
        """64 hexadecimal digits: all that determines a feature besides the picture."""
        parts = (self.backbone.fingerprint(), self.precision, "folded" if self.folded else "plain", _VERSION)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features of pictures.

        Args:
            pixels: uint8 `(n, height, width, 3)`.

        Returns:
            float32 `(n, dimension)`.

        Raises:
            FoldingError: the first call, where it is not as the backbone is; use `reliable` instead.
        """
        return self._compute(pixels)

    @cached_property
    def reliable(self) -> Engine:
        """Itself, or where folding goes wrong the backbone as it is, in float32, with a warning."""
        try:
            _ = self._compute
        except FoldingError as error:
            _log.warning(f"{error}; the backbone is used as it is, in float32, which is slower.")
            return Engine(self.backbone, folded=False)
        return self

    @cached_property
    def _compute(self) -> Callable[[np.ndarray], np.ndarray]:
        if not self.folded:
            return _frozen(self.backbone.model)
        pixels = np.random.default_rng(0).integers(0, 256, (2, *self.image_size, 3), dtype=np.uint8)
        expected = keras.ops.convert_to_numpy(self.backbone.model(pixels, training=False))

        def check(features: Any, precision: str, largest: float) -> None:
            difference = np.abs(keras.ops.convert_to_numpy(features) - expected).max() / np.abs(expected).max()
            if not difference <= largest:  # NaN is no more than anything
                share = f"{difference:.2g} of the largest one"
                raise FoldingError(f"{self.name}: folded and in {precision}, its features differ by {share}")

        if self.precision != "float32":  # which hides a slip in folding
            check(_folded(self.backbone, "float32")(pixels, training=False), "float32", _SAME)
        compute = _frozen(_folded(self.backbone, self.precision))
        check(compute(pixels), self.precision, _ROUNDED.get(self.precision, _SAME))
        return compute


def _folded(backbone: Backbone, precision: str) -> keras.Model:
    """The backbone with its preprocessing, its network folded."""
    inputs = keras.Input((*backbone.image_size, 3), name="image", dtype="uint8")
    prepared = backbone.model.get_layer("preprocessing")(inputs)
    return keras.Model(inputs, fold(backbone.network, precision)(prepared))


def _frozen(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The model in inference with its weights as constants, which are laid out for the processor once.

    In most networks the feature of a picture is the same to the last bit in batches of every size.
    """
    if keras.config.backend() != "tensorflow":
        return lambda pixels: np.asarray(model.predict_on_batch(pixels))
    import tensorflow as tf

    variables = (model.trainable_variables, model.non_trainable_variables)
    values = [[variable.numpy() for variable in of_a_kind] for of_a_kind in variables]

    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)], autograph=False)
    def compute(pixels: Any) -> Any:
        constants = [[tf.constant(value) for value in of_a_kind] for of_a_kind in values]
        return model.stateless_call(*constants, pixels, training=False)[0]

    graph = compute.get_concrete_function()
    return lambda pixels: graph(tf.constant(pixels)).numpy()
