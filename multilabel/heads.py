"""Heads: what turns a picture's features into predictions of one kind.

A head owns its units, loss, activation, `to_probs` and metrics; nothing is guessed from shapes or value
ranges. There is one kind, the logit head over binary attributes. A new kind is one class with the same
members, and one more entry in `HEADS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from textwrap import shorten
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from .errors import DataError
from .labels import pos_weight as balanced_pos_weight
from .losses import MaskedBCE, PosWeight, cell_losses, plain_pos_weight


@keras.saving.register_keras_serializable(package="multilabel")
class KnownLoss(keras.metrics.Mean):
    """Sum of known losses / number of known cells, over all batches since the last reset.

    Not a mean of batch means: every known cell counts the same, in whatever batch it was. So it is comparable
    between batch sizes and between training and validation, which the loss with `coverage` is not.

    With `sample_weight`, one per sample, it is the weighted mean over the known cells; Keras passes weights
    only to `compile(weighted_metrics=...)`. It is 0 before any known cell was seen.

    Args:
        pos_weight: Factor on the loss of the positive labels, as in `MaskedBCE`.
        from_logits: Whether `y_pred` is logits or probabilities.
        name: Name of the metric.
        dtype: Dtype of the two sums; `None` means `keras.config.floatx()`, also under mixed precision.

    Raises:
        ValueError: If `pos_weight` is not positive.

    Example:

    >>> metric = KnownLoss()
    >>> metric.update_state([[1, 0]], [[2.0, -1.0]])  # two known cells: 0.1269, 0.3133
    >>> metric.update_state([[1, -1]], [[-1.0, 99.0]])  # one: 1.3133
    >>> print(round(float(metric.result()), 4))
    0.5845
    """

    _direction = "down"  # what Keras callbacks read for `mode="auto"`: lower is better

    def __init__(
        self,
        pos_weight: PosWeight = None,
        from_logits: bool = True,
        name: str = "known_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.pos_weight = plain_pos_weight(pos_weight)
        self.from_logits = from_logits

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch; shapes as in `masked_bce`."""
        losses, known = cell_losses(y_true, y_pred, self.pos_weight, self.from_logits)
        weight = keras.ops.cast(known, losses.dtype)
        if sample_weight is not None:
            per_sample = keras.ops.convert_to_tensor(sample_weight, dtype=losses.dtype)
            weight *= keras.ops.reshape(per_sample, (-1,) + (1,) * (len(losses.shape) - 1))
        super().update_state(keras.ops.reshape(losses, -1), sample_weight=keras.ops.reshape(weight, -1))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain numbers, strings and lists."""
        return {**super().get_config(), "pos_weight": self.pos_weight, "from_logits": self.from_logits}


@dataclass(frozen=True)
class LogitHead:
    """A head over K binary attributes: one logit for each.

    Attributes:
        attributes: the names of the K attributes, in the order of the units.
        pos_weight: factor on the loss of each attribute's positive labels.
        coverage: share of known cells in the training part, above 0 and at most 1.
        name: name of the output layer, and the key of this head's labels and predictions.

    Raises:
        ValueError: a value that cannot be used, said in one sentence.
    """

    attributes: tuple[str, ...]
    pos_weight: tuple[float, ...]
    coverage: float
    name: str = "attributes"

    def __post_init__(self) -> None:
        """Checks what is cheap to check, so that a head that exists can be built."""
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"A head needs attributes with different names; got {list(self.attributes)}.")
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(f"A head needs a name without '/', which names its layer; got {self.name!r}.")
        if len(self.pos_weight) != len(self.attributes):
            raise ValueError(
                f"A head needs one pos_weight for each attribute; got {len(self.pos_weight)} for {self.units}."
            )
        self.loss()  # checks pos_weight and coverage

    @classmethod
    def for_labels(cls, names: Sequence[str], y_train: npt.ArrayLike, name: str = "attributes") -> LogitHead:
        """Makes the head for a training part; nothing else may be looked at.

        Args:
            names: the names of the K attributes.
            y_train: labels of the training part, `(images, K)` of 1, 0 and unknown (-1).
            name: the head's name.

        Returns:
            A head with `pos_weight` = negatives / positives of each attribute (1 if either is missing: see
            `missing_classes`) and `coverage` = the share of known cells.

        Raises:
            DataError: attributes without a single known label; the text names them.
            ValueError: `y_train` does not have one column for each name.
        """
        labels = _label_matrix(names, y_train)
        known = labels >= 0
        unlabelled = [names[column] for column in np.flatnonzero(~known.any(axis=0)).tolist()]
        if unlabelled:
            raise DataError(
                f"No picture of the training part has a known label for {', '.join(unlabelled)}; "
                "label some pictures for it, or leave it out."
            )
        weights = balanced_pos_weight(labels)
        return cls(tuple(names), tuple(float(weight) for weight in weights), float(known.mean()), name)

    @property
    def units(self) -> int:
        """Number of outputs: K."""
        return len(self.attributes)

    def layer(self) -> keras.layers.Dense:
        """Returns a new layer, `(batch, features)` to `(batch, K)` logits; float32 under every policy."""
        return keras.layers.Dense(self.units, dtype="float32", name=self.name)

    def loss(self) -> MaskedBCE:
        """Returns the loss for `compile`, normalised by `coverage` so that it adds up over batches."""
        return MaskedBCE(pos_weight=list(self.pos_weight), coverage=self.coverage)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns new metrics for `compile`."""
        return [KnownLoss(pos_weight=list(self.pos_weight))]

    def to_probs(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Returns `sigmoid(logits)` in float64, of the same shape, without overflow at any logit."""
        return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))

    def get_config(self) -> dict[str, Any]:
        """Returns what `head_from_config` needs, as plain JSON values."""
        lists = {"attributes": list(self.attributes), "pos_weight": list(self.pos_weight)}
        return {"kind": "logit", **asdict(self), **lists}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LogitHead:
        """Makes the head that `get_config` described.

        Raises:
            ValueError: the configuration is malformed, said in one sentence.
        """
        values = {key: value for key, value in config.items() if key != "kind"}
        if (
            values.keys() != {field.name for field in fields(cls)}
            or not _is_list_of(values["attributes"], str)
            or not _is_list_of(values["pos_weight"], int | float)
            or not isinstance(values["coverage"], int | float)
        ):
            raise ValueError(
                "A logit head needs attributes (a list of names), pos_weight (a list of numbers), coverage "
                f"(a number) and name; got {shorten(repr(config), 200)}."
            )
        values["attributes"] = tuple(values["attributes"])
        values["pos_weight"] = tuple(values["pos_weight"])
        return cls(**values)


HEADS = {"logit": LogitHead}


def head_from_config(config: Any) -> LogitHead:
    """Makes a head of any kind from what its `get_config` returned, such as a bundle's JSON.

    Args:
        config: an object with `"kind"` and that kind's values; anything else is refused.

    Returns:
        The head.

    Raises:
        ValueError: the kind is unknown or the values are malformed, said in one sentence.
    """
    kind = config.get("kind") if isinstance(config, Mapping) else None
    if not isinstance(kind, str) or kind not in HEADS:
        raise ValueError(
            f"A head is an object whose kind is one of: {', '.join(HEADS)}; got {shorten(repr(config), 200)}."
        )
    return HEADS[kind].from_config(config)


def missing_classes(names: Sequence[str], y_train: npt.ArrayLike) -> tuple[list[str], list[str]]:
    """Finds the attributes that a head cannot learn to tell apart, so that the caller can warn.

    Args:
        names: the names of the K attributes.
        y_train: labels of the training part, `(images, K)` of 1, 0 and unknown (-1).

    Returns:
        `(without_positives, without_negatives)`: names, in the order given.

    Raises:
        ValueError: `y_train` does not have one column for each name.
    """
    labels = _label_matrix(names, y_train)
    without = [
        [names[column] for column in np.flatnonzero(~(labels == label).any(axis=0)).tolist()] for label in (1, 0)
    ]
    return without[0], without[1]


def _label_matrix(names: Sequence[str], y_train: npt.ArrayLike) -> npt.NDArray[Any]:
    labels = np.asarray(y_train)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(f"The labels must have the shape (images, {len(names)}); got {labels.shape}.")
    return labels


def _is_list_of(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
