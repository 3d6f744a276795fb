"""Folding: the same frozen network with fewer steps, and in the precision that a machine is fastest in.

A BatchNorm in inference is a scale and an offset per channel. Behind a convolution both go into its kernel and its
bias, and the step is gone; elsewhere they are computed once, for all pictures. The network stays one of Keras'
built-in layers.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np

from .backbones import set_weights

_LINEAR = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_NEARLY_ZERO = 1e-30
_PREPARE = (keras.layers.Rescaling, keras.layers.Normalization)


def fold(network: keras.Model, precision: str = "float32") -> keras.Model:
    """A network for inference that gives the same features, folded.

    Every BatchNorm goes into the convolution or dense layer before it, where that is linear and feeds nothing else;
    any other becomes one scale and offset: a depthwise 1×1 convolution, which runs together with the ReLU behind it.
    Convolutions in as many groups as channels (ConvNeXt) become depthwise ones: Keras compiles the former with XLA,
    which takes ten times as long on a processor. Dropout and stochastic depth are left out. Whatever the precision,
    preprocessing inside the network, the last pooling and what follows it compute in float32: they cost nothing, and
    features are not rounded once more. So does the GELU of ConvNeXt, which is three times as fast so.

    Args:
        network: a functional model `(batch, height, width, 3)` → `(batch, dimension)`; it stays as it is.
        precision: `"float32"`, `"bfloat16"` or `"float16"`, what the other layers compute in and keep weights in.

    Returns:
        The folded network, of Keras' own layers: `(batch, height, width, 3)` → `(batch, dimension)` float32.
    """
    in_float32 = _in_float32(network)
    into = _foldable(network)
    left_out = {norm.name for norm in into.values()}

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer.__class__.from_config(layer.get_config())  # a plain operation, such as an addition
        if isinstance(layer, keras.Sequential):
            return keras.models.clone_model(layer, clone_function=clone)
        dtype = "float32" if layer.name in in_float32 else precision
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.DepthwiseConv2D(1, name=layer.name, dtype=dtype)
        config = {**layer.get_config(), "dtype": dtype}
        config |= {name: "zeros" for name in config if name.endswith("_initializer")}  # quick: weights are set below
        if layer.name in into:
            config["use_bias"] = True
        if _is_depthwise(layer):
            for name in ("filters", "groups"):
                del config[name]
            for what in ("initializer", "regularizer", "constraint"):
                config[f"depthwise_{what}"] = config.pop(f"kernel_{what}")
            return keras.layers.DepthwiseConv2D(**config, depth_multiplier=layer.filters // layer.groups)
        return layer.__class__.from_config(config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer.name in left_out or isinstance(layer, keras.layers.Dropout) or _is_stochastic_depth(layer):
            return args[0]
        kwargs.pop("mask", None)  # BatchNorm takes one, what stands for it does not
        return layer(*args, **kwargs)

    folded = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.weights and layer.name not in left_out:
            set_weights(folded.get_layer(layer.name), _folded(layer, into.get(layer.name)))
    folded.trainable = False
    return folded


def _in_float32(network: keras.Model) -> set[str]:
    """Names of the layers that compute in float32 whatever the precision."""
    made_by = {id(tensor): layer for layer in network.layers for tensor in keras.tree.flatten(layer.output)}
    names = {layer.name for layer in network.layers if isinstance(layer, _PREPARE) or _is_gelu(layer)}
    waiting = [network.output]
    while waiting:  # from the features back to the maps that they are pooled from
        layer = made_by[id(waiting.pop())]
        names.add(layer.name)
        waiting += [tensor for tensor in keras.tree.flatten(layer.input) if len(tensor.shape) == 2]
    return names


def _is_gelu(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.gelu


def _foldable(network: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """By the name of a convolution or dense layer, the BatchNorm that goes into it."""
    made_by = {id(tensor): layer for layer in network.layers for tensor in keras.tree.flatten(layer.output)}
    uses = Counter(
        id(tensor)
        for operation in network.operations
        if not isinstance(operation, keras.layers.InputLayer)
        for tensor in keras.tree.flatten(operation.input)
    )
    into = {}
    for norm in network.layers:
        if isinstance(norm, keras.layers.BatchNormalization) and uses[id(norm.input)] == 1:
            before = made_by.get(id(norm.input))
            if isinstance(before, _LINEAR) and before.activation is keras.activations.linear:
                into[before.name] = norm
    return into


def _is_depthwise(layer: Any) -> bool:
    return type(layer) is keras.layers.Conv2D and 1 < layer.groups == layer.input.shape[-1]


def _is_stochastic_depth(layer: Any) -> bool:
    return type(layer).__name__ == "StochasticDepth"  # of ConvNeXt; Keras has no public name for it


def _folded(layer: Any, norm: keras.layers.BatchNormalization | None) -> list[np.ndarray]:
    """The weights of what stands for a layer, and for its BatchNorm if one goes into it."""
    if isinstance(layer, keras.layers.BatchNormalization):
        scale, offset = _scale_and_offset(layer)
        return [scale.reshape(1, 1, -1, 1), offset]
    weights = layer.get_weights()
    if norm is not None:
        scale, offset = _scale_and_offset(norm)
        *kernels, kernel = weights[:-1] if layer.use_bias else weights
        bias = weights[-1] * scale if layer.use_bias else 0.0
        # The outputs of each input channel of a depthwise kernel lie side by side.
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        weights = [*kernels, kernel * (scale.reshape(kernel.shape[-2:]) if is_depthwise else scale), bias + offset]
    if _is_depthwise(layer):
        weights[0] = weights[0].reshape(*layer.kernel_size, layer.groups, -1)
    return weights


def _scale_and_offset(norm: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    """What a BatchNorm does to each channel in inference: `scale * x + offset`."""
    mean, variance = (np.asarray(value, np.float64) for value in (norm.moving_mean, norm.moving_variance))
    gamma = np.asarray(norm.gamma, np.float64) if norm.scale else 1.0
    beta = np.asarray(norm.beta, np.float64) if norm.center else 0.0
    scale = gamma / np.sqrt(variance + norm.epsilon)
    offset = np.asarray(beta - mean * scale)
    # TensorFlow leaves out the addition of zeros, which random weights have here, and then does not see that
    # convolution, bias and ReLU are one step: such a network would be slower than the one with trained weights.
    offset[offset == 0] = _NEARLY_ZERO
    return scale.astype(np.float32), offset.astype(np.float32)
