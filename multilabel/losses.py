"""Binary cross-entropy over the known cells of partially labelled attributes.

Labels are 1 (present), 0 (absent) and negative (unknown: `labels.UNKNOWN`, -1). The function `masked_bce` and
the class `MaskedBCE` go straight into `model.compile(loss=...)` of any Keras 3 model. This file stands on
`keras.ops` alone, so it runs on TensorFlow, JAX and PyTorch and can be lifted out of the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

PosWeight = float | Sequence[float] | None


@keras.saving.register_keras_serializable(package="multilabel")
def masked_bce(
    y_true: Any,
    y_pred: Any,
    pos_weight: PosWeight = None,
    from_logits: bool = True,
    coverage: float | None = None,
) -> Any:
    """Computes the binary cross-entropy of the known cells, as one value per sample.

    Formula, for sample `i` of a batch of `B` samples with `K` cells each, logits `z`, positive weights `w`:

    ```python
    loss[i, k] = w[k] * y[i, k] * softplus(-z[i, k]) + (1 - y[i, k]) * softplus(z[i, k])  # 0 where unknown
    value[i] = sum_k(loss[i, k]) * B / known_cells_of_the_batch                           # coverage=None
    value[i] = sum_k(loss[i, k]) / (K * coverage)                                         # with coverage
    ```

    The mean of the first over the batch is exactly `sum of known losses / number of known cells`, the number
    that people expect; it is 0 for a batch without a known cell. But its divisor differs from batch to batch,
    so it does not add up over batches. With `coverage` the divisor is a constant: the gradient of a step is
    the same however the step is spread over accumulated batches or replicas of equal size.

    Unknown cells have exactly zero value and gradient, whatever is predicted for them, even NaN and infinity.

    Args:
        y_true: Labels of shape `(batch,)` or `(batch, ..., K)`, in any signed numeric or boolean dtype. A
            cell is known if its label is `>= 0`, so `-1` and NaN are unknown. Values between 0 and 1 are soft
            labels.
        y_pred: Predictions of the same shape. With one attribute, `(batch,)` and `(batch, 1)` may be mixed.
        pos_weight: Factor on the loss of the positive labels: one number, or one for each of the `K`
            attributes of the last axis. `None` means 1.
        from_logits: Whether `y_pred` is logits, or probabilities. These are clipped to
            `[epsilon, 1 - epsilon]` with `keras.config.epsilon()`, and have no gradient beyond.
        coverage: Share of known cells in the whole training set, above 0 and at most 1. `None` means the
            share in the batch.

    Returns:
        Values of shape `(batch,)`: float64 if `y_pred` is, otherwise float32 (half precision is cast up).

    Raises:
        ValueError: If the shapes do not match, `pos_weight` is not positive, or `coverage` is out of range.

    Example:

    >>> y_true = [[1, 0], [1, -1]]  # the last label is unknown
    >>> logits = [[2.0, -1.0], [-1.0, 99.0]]
    >>> values = masked_bce(y_true, logits)
    >>> print([round(float(value), 4) for value in values])
    [0.2935, 0.8755]
    >>> print(round(float(keras.ops.mean(values)), 4))  # (0.1269 + 0.3133 + 1.3133) / 3 known cells
    0.5845
    >>> values = masked_bce(y_true, logits, coverage=0.5)
    >>> print([round(float(value), 4) for value in values])
    [0.4402, 1.3133]
    """
    _check_coverage(coverage)
    losses, known = cell_losses(y_true, y_pred, pos_weight, from_logits)
    total = ops.sum(losses, axis=tuple(range(1, len(losses.shape))))
    batch_size, cells = (ops.cast(n, losses.dtype) for n in (ops.shape(losses)[0], ops.size(losses)))
    if coverage is not None:
        return total / (cells / batch_size * coverage)
    # At least 1: a batch without a known cell has no loss either, and 0 / 1 is 0.
    known_cells = ops.maximum(ops.sum(ops.cast(known, losses.dtype)), 1.0)
    return total * (batch_size / known_cells)


def cell_losses(y_true: Any, y_pred: Any, pos_weight: PosWeight = None, from_logits: bool = True) -> tuple[Any, Any]:
    """Computes the binary cross-entropy of every cell: what `masked_bce` adds up.

    Args:
        y_true: Labels, as in `masked_bce`.
        y_pred: Predictions, as in `masked_bce`.
        pos_weight: Factor on the loss of the positive labels, as in `masked_bce`.
        from_logits: Whether `y_pred` is logits or probabilities.

    Returns:
        `(losses, known)`, both of shape `(batch, ..., K)`: the losses, exactly 0 for unknown cells, and
        booleans that tell which cells are known.

    Raises:
        ValueError: If the shapes do not match or `pos_weight` is not positive.
    """
    y_true, y_pred = _of_one_shape(y_true, y_pred)
    weight = _weight_tensor(pos_weight, y_pred)
    # Unknown cells are replaced before the mathematics and zeroed after it: with the second `where` alone,
    # their NaN or infinity would come back in the gradient as 0 * NaN. 0.5 is harmless as a logit and as a
    # probability.
    known = y_true >= 0
    target = ops.where(known, y_true, 0.0)
    prediction = ops.where(known, y_pred, 0.5)
    if from_logits:
        if_present, if_absent = ops.softplus(-prediction), ops.softplus(prediction)
    else:
        epsilon = keras.config.epsilon()
        # `1 - p` is clipped itself: computed from a clipped p, it would be off by float32's gaps below 1.
        if_present = -ops.log(ops.clip(prediction, epsilon, 1 - epsilon))
        if_absent = -ops.log(ops.clip(1 - prediction, epsilon, 1 - epsilon))
    losses = weight * target * if_present + (1 - target) * if_absent
    return ops.where(known, losses, 0.0), known


@keras.saving.register_keras_serializable(package="multilabel")
class MaskedBCE(keras.losses.Loss):
    """Binary cross-entropy over known cells: `masked_bce` with its arguments bound.

    Under the default reduction the loss of a batch is `sum of known losses / number of known cells`, and with
    `coverage` it is `sum of known losses / (cells of the batch * coverage)`. See `masked_bce` for the formula
    and the shapes.

    `sample_weight` is one weight per sample, `(batch,)`: it multiplies the losses of all cells of that sample,
    and the divisors above stay as they are, as in every Keras loss. A cell is left out by making it unknown.

    Args:
        pos_weight: Factor on the loss of the positive labels: one number, or one for each attribute.
        from_logits: Whether `y_pred` is logits or probabilities.
        coverage: Share of known cells in the training set; give it if a step is spread over several batches
            or replicas. The loss is then on the scale of that training set: on data with another share of
            known cells it is not the mean known loss.
        reduction: As in every Keras loss: `"sum_over_batch_size"`, `"sum"`, `"mean"`,
            `"mean_with_sample_weight"`, or `"none"` for the values per sample.
        name: Name of the loss.
        dtype: Dtype of the computation; `None` means `keras.config.floatx()`, also under mixed precision.

    Raises:
        ValueError: If `pos_weight` is not positive or `coverage` is not above 0 and at most 1.

    Example:

    >>> loss = MaskedBCE(pos_weight=[3.0, 1.0])
    >>> print(round(float(loss([[1, 0], [1, -1]], [[2.0, -1.0], [-1.0, 99.0]])), 4))
    1.5446

    Usage with `compile()`:

    ```python
    model.compile(optimizer="adam", loss=MaskedBCE(pos_weight=[3.0, 1.0]))
    ```
    """

    def __init__(
        self,
        pos_weight: PosWeight = None,
        from_logits: bool = True,
        coverage: float | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "masked_bce",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_coverage(coverage)
        self.pos_weight = plain_pos_weight(pos_weight)
        self.from_logits = from_logits
        self.coverage = None if coverage is None else float(coverage)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the values per sample, `(batch,)`."""
        return masked_bce(y_true, y_pred, self.pos_weight, self.from_logits, self.coverage)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain numbers, strings and lists."""
        return {
            **super().get_config(),
            "pos_weight": self.pos_weight,
            "from_logits": self.from_logits,
            "coverage": self.coverage,
            "dtype": self.dtype,
        }


def plain_pos_weight(pos_weight: Any) -> float | list[float] | None:
    """Checks positive weights and turns arrays and tensors into plain numbers.

    Args:
        pos_weight: `None`, one number, or a sequence, array or tensor of shape `(K,)`.

    Returns:
        `None`, one float, or a list of `K` floats.

    Raises:
        ValueError: If a weight is not a finite number above 0, or the shape is another one.
    """
    if pos_weight is None:
        return None
    try:
        weights = pos_weight.tolist() if hasattr(pos_weight, "tolist") else pos_weight
        plain = [float(weight) for weight in weights] if hasattr(weights, "__len__") else float(weights)
    except (TypeError, ValueError, OverflowError):
        plain = []
    flat = plain if isinstance(plain, list) else [plain]
    if not flat or not all(0 < weight < math.inf for weight in flat):
        raise ValueError(
            f"pos_weight must be a number above 0, or a list with one for each attribute; got {pos_weight!r}."
        )
    return plain


def _check_coverage(coverage: float | None) -> None:
    if coverage is not None and not 0 < coverage <= 1:
        raise ValueError(
            f"coverage must be the share of known labels in the training set, above 0 and at most 1; got {coverage!r}."
        )


def _of_one_shape(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both as float tensors of one shape, `(batch, ..., K)`; broadcasting would hide mistakes."""
    y_pred = ops.convert_to_tensor(y_pred)
    # Half precision is too coarse for a loss. `result_type` would turn float64 into float32 on some backends.
    dtype = "float64" if keras.backend.standardize_dtype(y_pred.dtype) == "float64" else "float32"
    y_pred = ops.cast(y_pred, dtype)
    y_true = ops.cast(ops.convert_to_tensor(y_true), dtype)
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    # Keras squeezes `(batch, 1)` to `(batch,)` in some places, for one of the two or for both.
    y_true, y_pred = (ops.expand_dims(y, -1) if len(y.shape) == 1 else y for y in (y_true, y_pred))
    same_rank = len(y_true.shape) == len(y_pred.shape) >= 2
    if not same_rank or any(
        a != b and a is not None and b is not None for a, b in zip(y_true.shape, y_pred.shape, strict=True)
    ):
        raise ValueError(
            "y_true and y_pred must have the same shape, (batch, attributes) or (batch,); "
            f"got {shapes[0]} and {shapes[1]}."
        )
    return y_true, y_pred


def _weight_tensor(pos_weight: PosWeight, y_pred: Any) -> Any:
    weight = plain_pos_weight(pos_weight)
    attributes = y_pred.shape[-1]
    if isinstance(weight, list) and attributes is not None and len(weight) != attributes:
        raise ValueError(
            f"pos_weight has {len(weight)} values, but y_pred has {attributes} attributes (its last axis); "
            "give one number, or one for each attribute."
        )
    return ops.convert_to_tensor(1.0 if weight is None else weight, dtype=y_pred.dtype)
