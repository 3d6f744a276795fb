"""Cross-entropies over the known cells of partially labelled attributes.

Negative labels are unknown (`labels.UNKNOWN`, -1). The others are 1 (present) and 0 (absent) in `masked_bce` and
`MaskedBCE`, and class indices in `masked_sparse_categorical_crossentropy` and
`MaskedSparseCategoricalCrossentropy`, for a tag, which is one of several classes. Functions and classes go
straight into `model.compile(loss=...)` of any Keras 3 model. This file stands on `keras.ops` alone, so it runs on
TensorFlow, JAX and PyTorch and can be lifted out of the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

PosWeight = float | Sequence[float] | None
ClassWeight = Sequence[float] | None


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
    return _per_sample(losses, known, coverage)


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
    y_true, y_pred = of_one_shape(y_true, y_pred)
    advice = "attributes (its last axis); give one number, or one for each attribute."
    weight = _weight_tensor("pos_weight", plain_pos_weight(pos_weight), y_pred, advice)
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

    def cells(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Returns the loss of every cell and whether it is known: `cell_losses` with this loss's arguments."""
        return cell_losses(y_true, y_pred, self.pos_weight, self.from_logits)

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
    plain = _plain_weights(pos_weight)
    if plain is None and pos_weight is not None:
        raise ValueError(
            f"pos_weight must be a number above 0, or a list with one for each attribute; got {pos_weight!r}."
        )
    return plain


@keras.saving.register_keras_serializable(package="multilabel")
def masked_sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    class_weight: ClassWeight = None,
    label_smoothing: float = 0.0,
    from_logits: bool = True,
    coverage: float | None = None,
) -> Any:
    """Computes the softmax cross-entropy of the known cells, as one value per sample.

    The sibling of `masked_bce` for a tag, which is exactly one of `C` classes: a cell holds the index of its
    class, and usually a sample has one cell.

    Formula, for sample `i` of a batch of `B` samples, label `y`, logits `z`, class weights `w`, smoothing `s`:

    ```python
    target[i, c] = (1 - s) * (y[i] == c) + s / C
    loss[i] = -w[y[i]] * sum_c(target[i, c] * log_softmax(z[i])[c])  # 0 where unknown
    value[i] = loss[i] * B / known_cells_of_the_batch                # coverage=None
    value[i] = loss[i] / coverage                                    # with coverage
    ```

    The mean of the first over the batch is exactly `sum of known losses / number of known cells`, and 0 for a
    batch without a known cell; that of the second adds up over batches and replicas. See `masked_bce` for the
    choice. The divisor is the number of known cells, not the sum of their weights.

    Unknown cells have exactly zero value and gradient, whatever is predicted for them, even NaN and infinity.

    Source of the smoothing: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2016.

    Args:
        y_true: Class indices of shape `(batch,)` or `(batch, 1)`, in any signed numeric dtype. A cell is known
            if its label is `>= 0`, so `-1` and NaN are unknown. A known label that is not one of
            `0, ..., C - 1` has no gradient and the loss NaN, as a compiled step cannot raise an error.
        y_pred: Predictions of shape `(batch, C)`, with `C` at least 2. With several cells for each sample,
            `(batch, ..., C)` against labels of shape `(batch, ...)` or `(batch, ..., 1)`; the second divisor is
            then `cells of a sample * coverage`.
        class_weight: Factor on the loss of each class, `C` numbers. `None` means 1.
        label_smoothing: Share of the target that is spread evenly over all classes, from 0 to 1.
        from_logits: Whether `y_pred` is logits, or probabilities that add up to 1. These are clipped to
            `[epsilon, 1 - epsilon]` with `keras.config.epsilon()`, and have no gradient beyond.
        coverage: Share of known cells in the whole training set, above 0 and at most 1. `None` means the
            share in the batch.

    Returns:
        Values of shape `(batch,)`: float64 if `y_pred` is, otherwise float32 (half precision is cast up).

    Raises:
        ValueError: If the shapes do not match, there are fewer than 2 classes, `class_weight` is not one positive
            number for each class, or `label_smoothing` or `coverage` is out of range.

    Example:

    >>> y_true = [0, 2, -1]  # the last label is unknown
    >>> logits = [[2.0, -1.0, 0.0], [0.0, 1.0, 0.5], [99.0, 0.0, 0.0]]
    >>> values = masked_sparse_categorical_crossentropy(y_true, logits)
    >>> print([round(float(value), 4) for value in values])
    [0.2548, 1.7704, 0.0]
    >>> print(round(float(keras.ops.mean(values)), 4))  # (0.1698 + 1.1803) / 2 known cells
    0.6751
    >>> values = masked_sparse_categorical_crossentropy(y_true, logits, class_weight=[1.0, 1.0, 3.0], coverage=0.5)
    >>> print([round(float(value), 4) for value in values])
    [0.3397, 7.0816, 0.0]
    """
    _check_coverage(coverage)
    losses, known = class_cell_losses(y_true, y_pred, class_weight, label_smoothing, from_logits)
    return _per_sample(losses, known, coverage)


def class_cell_losses(
    y_true: Any,
    y_pred: Any,
    class_weight: ClassWeight = None,
    label_smoothing: float = 0.0,
    from_logits: bool = True,
) -> tuple[Any, Any]:
    """Computes the softmax cross-entropy of every cell: what `masked_sparse_categorical_crossentropy` adds up.

    Args:
        y_true: Labels, as in `masked_sparse_categorical_crossentropy`.
        y_pred: Predictions, as in `masked_sparse_categorical_crossentropy`.
        class_weight: Factor on the loss of each class, `C` numbers.
        label_smoothing: Share of the target that is spread evenly over all classes.
        from_logits: Whether `y_pred` is logits or probabilities.

    Returns:
        `(losses, known)`, both of shape `(batch, ..., 1)`: the losses, exactly 0 for unknown cells, and
        booleans that tell which cells are known.

    Raises:
        ValueError: If the shapes do not match, or `class_weight` or `label_smoothing` cannot be used.
    """
    _check_label_smoothing(label_smoothing)
    y_true, y_pred = labels_and_classes(y_true, y_pred)
    advice = "classes (its last axis); give one for each class."
    weight = _weight_tensor("class_weight", plain_class_weight(class_weight), y_pred, advice)
    # Before the mathematics and after it, as in `cell_losses`.
    known = y_true >= 0
    label = ops.where(known, y_true, 0.0)
    prediction = ops.where(known, y_pred, 0.5)
    if from_logits:
        log_probs = ops.log_softmax(prediction, axis=-1)
    else:
        epsilon = keras.config.epsilon()
        log_probs = ops.log(ops.clip(prediction, epsilon, 1 - epsilon))
    classes = ops.arange(ops.shape(y_pred)[-1], dtype=y_pred.dtype)
    is_label = ops.equal(label, classes)
    is_class = ops.any(is_label, axis=-1, keepdims=True)
    losses = -_sum_where(is_label, log_probs)
    if label_smoothing:
        # Not `ops.mean`, which computes float64 in float32 on PyTorch.
        share = label_smoothing / ops.cast(ops.size(classes), y_pred.dtype)
        losses = (1 - label_smoothing) * losses - share * ops.sum(log_probs, axis=-1, keepdims=True)
    losses = ops.where(is_class, _sum_where(is_label, weight) * losses, math.nan)
    return ops.where(known, losses, 0.0), known


@keras.saving.register_keras_serializable(package="multilabel")
class MaskedSparseCategoricalCrossentropy(keras.losses.Loss):
    """Softmax cross-entropy over known cells: `masked_sparse_categorical_crossentropy` with its arguments bound.

    Under the default reduction the loss of a batch is `sum of known losses / number of known cells`, and with
    `coverage` it is `sum of known losses / (cells of the batch * coverage)`. See
    `masked_sparse_categorical_crossentropy` for the formula and the shapes.

    `sample_weight` is one weight per sample, `(batch,)`: it multiplies the losses of all cells of that sample,
    and the divisors above stay as they are, as in every Keras loss.

    Args:
        class_weight: Factor on the loss of each class, `C` numbers.
        label_smoothing: Share of the target that is spread evenly over all classes, from 0 to 1.
        from_logits: Whether `y_pred` is logits or probabilities.
        coverage: Share of known cells in the training set; give it if a step is spread over several batches
            or replicas, as in `MaskedBCE`.
        reduction: As in every Keras loss: `"sum_over_batch_size"`, `"sum"`, `"mean"`,
            `"mean_with_sample_weight"`, or `"none"` for the values per sample.
        name: Name of the loss.
        dtype: Dtype of the computation; `None` means `keras.config.floatx()`, also under mixed precision. Keras
            casts the labels to it as well, and half precision cannot tell large class indices apart (above
            256 in bfloat16, above 2048 in float16).

    Raises:
        ValueError: If `class_weight` is not a list of positive numbers, or `label_smoothing` or `coverage` is out
            of range.

    Example:

    >>> loss = MaskedSparseCategoricalCrossentropy(class_weight=[1.0, 1.0, 3.0], label_smoothing=0.1)
    >>> print(round(float(loss([0, 2, -1], [[2.0, -1.0, 0.0], [0.0, 1.0, 0.5], [99.0, 0.0, 0.0]])), 4))
    1.9387

    Usage with `compile()`:

    ```python
    model.compile(optimizer="adam", loss=MaskedSparseCategoricalCrossentropy(label_smoothing=0.1))
    ```
    """

    def __init__(
        self,
        class_weight: ClassWeight = None,
        label_smoothing: float = 0.0,
        from_logits: bool = True,
        coverage: float | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "masked_sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check_label_smoothing(label_smoothing)
        _check_coverage(coverage)
        self.class_weight = plain_class_weight(class_weight)
        self.label_smoothing = float(label_smoothing)
        self.from_logits = from_logits
        self.coverage = None if coverage is None else float(coverage)

    def cells(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Returns the loss of every cell and whether it is known: `class_cell_losses` with this loss's arguments."""
        return class_cell_losses(y_true, y_pred, self.class_weight, self.label_smoothing, self.from_logits)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the values per sample, `(batch,)`."""
        return masked_sparse_categorical_crossentropy(
            y_true, y_pred, self.class_weight, self.label_smoothing, self.from_logits, self.coverage
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain numbers, strings and lists."""
        return {
            **super().get_config(),
            "class_weight": self.class_weight,
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
            "coverage": self.coverage,
            "dtype": self.dtype,
        }


def plain_class_weight(class_weight: Any) -> list[float] | None:
    """Checks class weights and turns arrays and tensors into plain numbers.

    Args:
        class_weight: `None`, or a sequence, array or tensor of shape `(C,)`.

    Returns:
        `None`, or a list of `C` floats.

    Raises:
        ValueError: If a weight is not a finite number above 0, or the shape is another one.
    """
    if class_weight is None:
        return None
    plain = _plain_weights(class_weight)
    # `model.fit` has a `class_weight` that is a dict; as a list, its keys would pass for the weights.
    if not isinstance(plain, list) or isinstance(class_weight, dict):
        raise ValueError(
            f"class_weight must be a list of numbers above 0, one for each class in order; got {class_weight!r}."
        )
    return plain


def _per_sample(losses: Any, known: Any, coverage: float | None) -> Any:
    """The values `(batch,)` of losses and known cells of shape `(batch, ..., cells)`."""
    total = ops.sum(losses, axis=tuple(range(1, len(losses.shape))))
    batch_size, cells = (ops.cast(n, losses.dtype) for n in (ops.shape(losses)[0], ops.size(losses)))
    if coverage is not None:
        return total / (cells / batch_size * coverage)
    # At least 1: a batch without a known cell has no loss either, and 0 / 1 is 0.
    known_cells = ops.maximum(ops.sum(ops.cast(known, losses.dtype)), 1.0)
    return total * (batch_size / known_cells)


def _sum_where(condition: Any, values: Any) -> Any:
    """The sum over the last axis, which stays; unlike a product with 0 and 1, deaf to infinity elsewhere."""
    return ops.sum(ops.where(condition, values, 0.0), axis=-1, keepdims=True)


def _check_coverage(coverage: float | None) -> None:
    if coverage is not None and not 0 < coverage <= 1:
        raise ValueError(
            f"coverage must be the share of known labels in the training set, above 0 and at most 1; got {coverage!r}."
        )


def _check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be at least 0 and at most 1; got {label_smoothing!r}.")


def _as_floats(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    y_pred = ops.convert_to_tensor(y_pred)
    # Half precision is too coarse for a loss. `result_type` would turn float64 into float32 on some backends.
    dtype = "float64" if keras.backend.standardize_dtype(y_pred.dtype) == "float64" else "float32"
    return ops.cast(ops.convert_to_tensor(y_true), dtype), ops.cast(y_pred, dtype)


def _may_be_equal(shape: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Whether two shapes are equal as far as they are known while a graph is traced."""
    return len(shape) == len(other) and all(a == b or a is None or b is None for a, b in zip(shape, other, strict=True))


def of_one_shape(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Makes labels and predictions of attributes float tensors of one shape; broadcasting would hide mistakes.

    Args:
        y_true: Labels, as in `masked_bce`.
        y_pred: Predictions, as in `masked_bce`.

    Returns:
        `(y_true, y_pred)`, both of shape `(batch, ..., K)`: float64 if `y_pred` is, otherwise float32.

    Raises:
        ValueError: If the shapes do not match.
    """
    y_true, y_pred = _as_floats(y_true, y_pred)
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    # Keras squeezes `(batch, 1)` to `(batch,)` in some places, for one of the two or for both.
    y_true, y_pred = (ops.expand_dims(y, -1) if len(y.shape) == 1 else y for y in (y_true, y_pred))
    if len(y_pred.shape) < 2 or not _may_be_equal(y_true.shape, y_pred.shape):
        raise ValueError(
            "y_true and y_pred must have the same shape, (batch, attributes) or (batch,); "
            f"got {shapes[0]} and {shapes[1]}."
        )
    return y_true, y_pred


def labels_and_classes(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Makes labels and predictions of a tag float tensors of the same number of axes.

    Args:
        y_true: Labels, as in `masked_sparse_categorical_crossentropy`.
        y_pred: Predictions, as in `masked_sparse_categorical_crossentropy`.

    Returns:
        `(y_true, y_pred)` of shape `(batch, ..., 1)` and `(batch, ..., C)`: float64 if `y_pred` is, otherwise
        float32.

    Raises:
        ValueError: If the shapes do not match, or there are fewer than 2 classes.
    """
    y_true, y_pred = _as_floats(y_true, y_pred)
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    if len(y_true.shape) < len(y_pred.shape):
        y_true = ops.expand_dims(y_true, -1)
    if len(y_pred.shape) < 2 or not _may_be_equal(y_true.shape, (*y_pred.shape[:-1], 1)):
        raise ValueError(
            "y_true must have the shape of y_pred without its last axis, (batch,) or (batch, 1) against "
            f"(batch, classes); got {shapes[0]} and {shapes[1]}."
        )
    classes = y_pred.shape[-1]
    if classes is not None and classes < 2:
        raise ValueError(
            f"y_pred must have at least 2 classes in its last axis; got {shapes[1]}. "
            "For an attribute that is present or absent, use masked_bce."
        )
    return y_true, y_pred


def _plain_weights(weights: Any) -> float | list[float] | None:
    """One float or a list of them, each above 0; `None` if they cannot be read as such."""
    try:
        weights = weights.tolist() if hasattr(weights, "tolist") else weights
        plain = [float(weight) for weight in weights] if hasattr(weights, "__len__") else float(weights)
    except (TypeError, ValueError, OverflowError):
        return None
    flat = plain if isinstance(plain, list) else [plain]
    return plain if flat and all(0 < weight < math.inf for weight in flat) else None


def _weight_tensor(name: str, weight: float | list[float] | None, y_pred: Any, advice: str) -> Any:
    size = y_pred.shape[-1]
    if isinstance(weight, list) and size is not None and len(weight) != size:
        raise ValueError(f"{name} has {len(weight)} values, but y_pred has {size} {advice}")
    return ops.convert_to_tensor(1.0 if weight is None else weight, dtype=y_pred.dtype)
