"""Heads: what turns a picture's features into predictions of one kind.

A head owns its units, loss, activation, `to_probs` and metrics; nothing is guessed from shapes or value
ranges. There are two kinds: the logit head over binary attributes, and the softmax head over the classes of one
tag. A new kind is one class with the same members, and one more entry in `HEADS`; what
is said of its predictions to people stands in the rooms above.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from textwrap import shorten
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_softmax

from .config import CLASS_WEIGHTS, LOSSES
from .errors import DataError, UsageError
from .labels import LabelTable, Tag
from .labels import pos_weight as balanced_pos_weight
from .losses import (
    BinaryLoss,
    MaskedASL,
    MaskedBCE,
    MaskedHill,
    MaskedSparseCategoricalCrossentropy,
    MaskedSPLC,
    Missing,
)
from .metrics.streaming import KnownAccuracy, KnownLoss

_FOCAL_GAMMA = 2.0  # as in the paper, Lin et al. 2017
_IGNORE = Missing()
_LossAndSlope = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class LogitHead:
    """A head over K binary attributes: one logit for each.

    Attributes:
        attributes: the names of the K attributes, in the order of the units.
        pos_weight: factor on the loss of each attribute's positive labels.
        coverage: share of known cells in the training part, above 0 and at most 1.
        name: name of the output layer, and the key of this head's labels and predictions.
        weight: factor on this head's loss in the total loss.
        objective: the kind of loss, one of `LOSSES`.
        missing: what unknown cells count in it.
        activation: Keras' name of what makes probabilities of logits.

    Raises:
        ValueError: a value that cannot be used, said in one sentence.
    """

    attributes: tuple[str, ...]
    pos_weight: tuple[float, ...]
    coverage: float
    name: str = "attributes"
    weight: float = 1.0
    objective: str = "bce"
    missing: Missing = _IGNORE
    activation: ClassVar[str] = "sigmoid"

    def __post_init__(self) -> None:
        """Checks what is cheap to check, so that a head that exists can be built."""
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"A head needs attributes with different names; got {list(self.attributes)}.")
        _check_name_and_weight(self.name, self.weight)
        if len(self.pos_weight) != len(self.attributes):
            raise ValueError(
                f"A head needs one pos_weight for each attribute; got {len(self.pos_weight)} for {self.units}."
            )
        if self.objective not in LOSSES:
            raise ValueError(f"The loss of a head is one of: {', '.join(LOSSES)}; got {self.objective!r}.")
        self.loss()  # checks pos_weight and coverage

    @classmethod
    def for_labels(
        cls,
        names: Sequence[str],
        y_train: npt.ArrayLike,
        name: str = "attributes",
        weight: float = 1.0,
        objective: str = "bce",
        missing: str = "ignore",
        pos_weight: str = "balanced",
    ) -> LogitHead:
        """Makes the head for a training part; nothing else may be looked at.

        Args:
            names: the names of the K attributes.
            y_train: labels of the training part, `(images, K)` of 1, 0 and unknown (-1).
            name: the head's name.
            weight: factor on the head's loss.
            objective: the kind of loss, one of `LOSSES`.
            missing: what unknown cells count in it, the name of a method of `Missing`.
            pos_weight: `"balanced"` or `"none"`.

        Returns:
            A head with `coverage` = the share of known cells, and `pos_weight` = negatives / positives of each
            attribute (1 if either is missing: see `classes_without_labels`) if it is to be balanced and the loss is
            a cross-entropy of known cells alone. Otherwise it is 1.

        Raises:
            DataError: attributes without a single known label; the text names them.
            ValueError: `y_train` does not have one column for each name.
        """
        labels = _label_matrix(names, y_train)
        known = labels >= 0
        _check_labelled([names[column] for column in np.flatnonzero(~known.any(axis=0)).tolist()])
        balanced = pos_weight == "balanced" and objective in ("bce", "focal") and missing == "ignore"
        weights = balanced_pos_weight(labels) if balanced else np.ones(len(names))
        return cls(
            tuple(names),
            tuple(float(value) for value in weights),
            float(known.mean()),
            name,
            weight,
            objective,
            _missing(missing, labels),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What the units are of: the attributes."""
        return self.attributes

    @property
    def units(self) -> int:
        """Number of outputs: K."""
        return len(self.attributes)

    def layer(self) -> keras.layers.Dense:
        """Returns a new layer, `(batch, features)` to `(batch, K)` logits; float32 under every policy."""
        return keras.layers.Dense(self.units, kernel_initializer="zeros", dtype="float32", name=self.name)

    def loss(self) -> BinaryLoss:
        """Returns the loss for `compile`, with a constant divisor (`coverage`) so that it adds up over batches."""
        if self.objective == "hill":
            return MaskedHill()
        if self.objective == "splc":
            return MaskedSPLC()
        coverage = self.coverage if self.missing.method == "ignore" else None
        if self.objective == "asl":
            return MaskedASL(coverage=coverage, missing=self.missing)
        gamma = _FOCAL_GAMMA if self.objective == "focal" else 0.0
        return MaskedBCE(list(self.pos_weight), coverage=coverage, gamma=gamma, missing=self.missing)

    def loss_and_slope(self, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> _LossAndSlope:
        """What the loss says of cells, in closed form: for solvers that need a convex loss.

        Args:
            y: labels, `(images, K)`.
            logits: of the same shape.

        Returns:
            The losses of the cells, and their derivatives by the logits, of the same shape; 0 for cells that do not
            count.

        Raises:
            ValueError: the loss is not convex: the objective is not `"bce"`, or unknown cells count by the logits.
        """
        if self.objective != "bce" or self.missing.method not in ("ignore", "negative"):
            raise ValueError(f"The loss {self.objective} with {self.missing.method} is not convex.")
        present = (y == 1) * np.asarray(self.pos_weight, logits.dtype)
        absent = ((y < 1) if self.missing.method == "negative" else (y == 0)).astype(logits.dtype)
        losses = present * np.logaddexp(0, -logits) + absent * np.logaddexp(0, logits)
        return losses, (present + absent) * expit(logits) - present

    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns new metrics for `compile`."""
        return [KnownLoss(self.loss()), KnownAccuracy("binary")]

    def targets(self, table: LabelTable) -> np.ndarray:
        """Returns the labels of this head, `(images, K)` of 1, 0 and unknown (-1).

        Raises:
            DataError: the table has other attributes.
        """
        if table.names != self.attributes:
            raise DataError(
                f"The labels are of {', '.join(table.names) or 'no attributes'}, but the model is of "
                f"{', '.join(self.attributes)}."
            )
        return table.y

    def to_probs(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Returns `sigmoid(logits)` in float64, of the same shape, without overflow at any logit."""
        return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))

    def get_config(self) -> dict[str, Any]:
        """Returns what `head_from_config` needs, as plain JSON values."""
        return {"kind": "logit", **_plain(self), "missing": self.missing.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LogitHead:
        """Makes the head that `get_config` described.

        Raises:
            ValueError: the configuration is malformed, said in one sentence.
        """
        values = {key: value for key, value in config.items() if key != "kind"}
        if (
            values.keys() != {field.name for field in fields(cls)}
            or not isinstance(values["missing"], Mapping)
            or not values["missing"].keys() <= {field.name for field in fields(Missing)}
            or not _is_list_of(values["attributes"], str)
            or not _is_list_of(values["pos_weight"], int | float)
            or not _is_list_of([values["coverage"], values["weight"]], int | float)
        ):
            raise ValueError(
                "A logit head needs attributes (a list of names), pos_weight (a list of numbers), coverage and "
                f"weight (numbers), name, objective and missing (an object); got {shorten(repr(config), 200)}."
            )
        values["attributes"] = tuple(values["attributes"])
        values["pos_weight"] = tuple(values["pos_weight"])
        values["missing"] = Missing.of(values["missing"])
        return cls(**values)


@dataclass(frozen=True)
class SoftmaxHead:
    """A head over one tag: one logit for each of its C classes, exactly one of which a picture shows.

    Attributes:
        tag: the tag's name.
        classes: the names of the C classes, in the order of the units and of the labels' class indices.
        class_weight: factor on the loss of each class; `None` means 1.
        label_smoothing: share of the target that is spread evenly over all classes, from 0 to 1.
        coverage: share of known labels in the training part, above 0 and at most 1.
        weight: factor on this head's loss in the total loss.
        name: name of the output layer, and the key of this head's labels and predictions.
        activation: Keras' name of what makes probabilities of logits.

    Raises:
        ValueError: a value that cannot be used, said in one sentence.
    """

    tag: str
    classes: tuple[str, ...]
    class_weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    coverage: float = 1.0
    weight: float = 1.0
    name: str = "tag"
    activation: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        """Checks what is cheap to check, so that a head that exists can be built."""
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"A softmax head needs 2 or more classes of different names; got {list(self.classes)}.")
        _check_name_and_weight(self.name, self.weight)
        if self.class_weight is not None and len(self.class_weight) != self.units:
            raise ValueError(
                f"A softmax head needs one class_weight for each class; got {len(self.class_weight)} for {self.units}."
            )
        self.loss()  # checks class_weight, label_smoothing and coverage

    @classmethod
    def for_labels(
        cls,
        tag: Tag,
        y_train: npt.ArrayLike,
        *,
        class_weight: str = "none",
        label_smoothing: float = 0.0,
        weight: float = 1.0,
        name: str = "tag",
    ) -> SoftmaxHead:
        """Makes the head for a training part; nothing else may be looked at.

        Args:
            tag: the tag and its C classes.
            y_train: labels of the training part, `(images,)` of class indices and unknown (-1).
            class_weight: `"none"`, or `"balanced"`: known labels / (classes with labels * labels of the class),
                as scikit-learn's `compute_class_weight` has it, and 1 for a class without a label.
            label_smoothing: share of the target that is spread evenly over all classes.
            weight: factor on the head's loss.
            name: the head's name.

        Returns:
            A head with these weights and `coverage` = the share of known labels.

        Raises:
            DataError: the tag has fewer than 2 classes, or no known label.
            UsageError: `class_weight` is neither.
            ValueError: the shape of `y_train` is another, or a label is not one of the classes.
        """
        if class_weight not in CLASS_WEIGHTS:
            raise UsageError(f"'{class_weight}' is no class weight; choose from {', '.join(CLASS_WEIGHTS)}.")
        if len(tag.classes) < 2:
            raise DataError(f"{tag.name} has fewer than 2 classes ({', '.join(tag.classes)}); leave it out.")
        counts = _class_counts(tag.classes, y_train)
        _check_labelled([] if counts.any() else [tag.name])
        weights = None
        if class_weight == "balanced":
            balanced = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
            weights = tuple(np.where(counts, balanced, 1.0).tolist())
        coverage = float(counts.sum() / np.size(y_train))
        return cls(tag.name, tag.classes, weights, label_smoothing, coverage, weight, name)

    @property
    def names(self) -> tuple[str, ...]:
        """What the units are of: the classes."""
        return self.classes

    @property
    def units(self) -> int:
        """Number of outputs: C."""
        return len(self.classes)

    def layer(self) -> keras.layers.Dense:
        """Returns a new layer, `(batch, features)` to `(batch, C)` logits; float32 under every policy."""
        return keras.layers.Dense(self.units, kernel_initializer="zeros", dtype="float32", name=self.name)

    def loss(self) -> MaskedSparseCategoricalCrossentropy:
        """Returns the loss for `compile`, normalised by `coverage` so that it adds up over batches."""
        weights = None if self.class_weight is None else list(self.class_weight)
        return MaskedSparseCategoricalCrossentropy(weights, self.label_smoothing, coverage=self.coverage)

    def loss_and_slope(self, y: npt.NDArray[Any], logits: npt.NDArray[Any]) -> _LossAndSlope:
        """What the loss says of labels, in closed form: for solvers that need a convex loss.

        Args:
            y: labels, `(images,)`.
            logits: `(images, C)`.

        Returns:
            The losses `(images,)`, and their derivatives by the logits, `(images, C)`; 0 for unknown labels.
        """
        label = np.where(y >= 0, y, 0)
        weight = (y >= 0) * np.asarray(self.class_weight or np.ones(self.units), logits.dtype)[label]
        target = np.full(logits.shape, self.label_smoothing / self.units, logits.dtype)
        target[np.arange(len(y)), label] += 1 - self.label_smoothing
        log_p = log_softmax(logits, axis=1)
        return -weight * (target * log_p).sum(axis=1), weight[:, np.newaxis] * (np.exp(log_p) - target)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns new metrics for `compile`."""
        return [KnownLoss(self.loss()), KnownAccuracy("class")]

    def targets(self, table: LabelTable) -> np.ndarray:
        """Returns the labels of this head, `(images,)` of class indices and unknown (-1).

        Raises:
            DataError: the table does not have this tag, or has other classes of it.
        """
        tag = Tag(self.tag, self.classes)
        if tag not in table.tags:
            raise DataError(f"The labels do not have the tag {self.tag} with the classes of the model.")
        return table.tag_y[:, table.tags.index(tag)]

    def to_probs(self, logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Returns `softmax(logits)` over the last axis in float64, of the same shape, without overflow."""
        values = np.asarray(logits, dtype=np.float64)
        shares = np.exp(values - values.max(axis=-1, keepdims=True))
        return shares / shares.sum(axis=-1, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """Returns what `head_from_config` needs, as plain JSON values."""
        return {"kind": "softmax", **_plain(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SoftmaxHead:
        """Makes the head that `get_config` described.

        Raises:
            ValueError: the configuration is malformed, said in one sentence.
        """
        values = {key: value for key, value in config.items() if key != "kind"}
        if (
            values.keys() != {field.name for field in fields(cls)}
            or not isinstance(values["tag"], str)
            or not _is_list_of(values["classes"], str)
            or not (values["class_weight"] is None or _is_list_of(values["class_weight"], int | float))
            or not _is_list_of([values[key] for key in ("label_smoothing", "coverage", "weight")], int | float)
        ):
            raise ValueError(
                "A softmax head needs tag (a name), classes (a list of names), class_weight (a list of numbers or "
                "null), label_smoothing, coverage and weight (numbers) and name; "
                f"got {shorten(repr(config), 200)}."
            )
        values["classes"] = tuple(values["classes"])
        values["class_weight"] = None if values["class_weight"] is None else tuple(values["class_weight"])
        return cls(**values)


Head = LogitHead | SoftmaxHead
HEADS: dict[str, type[LogitHead] | type[SoftmaxHead]] = {"logit": LogitHead, "softmax": SoftmaxHead}


def head_from_config(config: Any) -> Head:
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


def check_loss_weights(table: LabelTable, weights: Iterable[str]) -> None:
    """Makes sure that each weight is one of a head of this table.

    Raises:
        UsageError: one is not.
    """
    names = [*(["attributes"] if table.names else []), *(tag.name for tag in table.tags)]
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise UsageError(f"A loss weight is given for '{unknown[0]}', which is none of {', '.join(names)}.")


def heads_for(
    table: LabelTable,
    training: np.ndarray,
    *,
    objective: str = "bce",
    missing: str = "ignore",
    pos_weight: str = "balanced",
    class_weight: str = "none",
    label_smoothing: float = 0.0,
    weights: Mapping[str, float] | None = None,
) -> tuple[Head, ...]:
    """Makes the heads for a table: one over all attributes if there are any, then one for each tag.

    Args:
        table: attributes and tags, and their labels.
        training: the rows of the training part; the labels of others are not looked at.
        objective: of the attributes, as in `LogitHead`.
        missing: of the attributes, as in `LogitHead.for_labels`.
        pos_weight: of the attributes, as in `LogitHead.for_labels`.
        class_weight: of the tags' classes, as in `SoftmaxHead.for_labels`.
        label_smoothing: of the tags, as in `SoftmaxHead`.
        weights: factor on a head's loss, by the tag's name, or by `"attributes"`; 1 where none is given.

    Returns:
        The heads, named `attributes`, `tag1_NAME`, `tag2_NAME`...: letters and digits, as names of layers must be.

    Raises:
        DataError: attributes or tags without a known label in the training part; a tag with one class.
        UsageError: `weights` for something else; an unknown `class_weight`.
        ValueError: a weight or the label smoothing is out of range.
    """
    weights = weights or {}
    check_loss_weights(table, weights)
    heads: list[Head] = []
    if table.names:
        weight = weights.get("attributes", 1.0)
        heads.append(
            LogitHead.for_labels(
                table.names,
                table.y[training],
                weight=weight,
                objective=objective,
                missing=missing,
                pos_weight=pos_weight,
            )
        )
    for number, (tag, labels) in enumerate(zip(table.tags, table.tag_y[training].T, strict=True), start=1):
        head = SoftmaxHead.for_labels(
            tag,
            labels,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            weight=weights.get(tag.name, 1.0),
            name=f"tag{number}_{re.sub('[^A-Za-z0-9]+', '_', tag.name)}",
        )
        heads.append(head)
    return tuple(heads)


def classes_without_labels(names: Sequence[str], y_train: npt.ArrayLike) -> tuple[list[str], list[str]]:
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


def tag_classes_without_labels(head: SoftmaxHead, y_train: npt.ArrayLike) -> list[str]:
    """Finds the classes that a head cannot learn, so that the caller can warn.

    Args:
        head: the head of the tag.
        y_train: labels of the training part, `(images,)` of class indices and unknown (-1).

    Returns:
        The names of the classes without a label, in the head's order.

    Raises:
        ValueError: the shape of `y_train` is another, or a label is not one of the classes.
    """
    return [head.classes[index] for index in np.flatnonzero(_class_counts(head.classes, y_train) == 0).tolist()]


def _missing(method: str, y_train: npt.NDArray[Any]) -> Missing:
    """The method with what it must know of the labels.

    An attribute's share of positives is `known 1s / known cells`, and `known 1s / pictures`, a lower bound, where no 0
    is known. The likely positives per picture are `sum(share * (1 - known cells / pictures))`, but at most 5. An
    attribute without a known 0 is never spared for being common: nothing of it would count as absent.
    """
    if method != "selective":
        return Missing(method)
    known, positives = (y_train >= 0).sum(axis=0), (y_train == 1).sum(axis=0)
    has_absent = known > positives
    share = positives / np.where(has_absent, known, len(y_train))
    expected = float((share * (1 - known / len(y_train))).sum())
    prior = tuple(np.where(has_absent, share, 0.0).tolist())
    return Missing(method, prior=prior, top_k=min(Missing.top_k, expected))


def _label_matrix(names: Sequence[str], y_train: npt.ArrayLike) -> npt.NDArray[Any]:
    labels = np.asarray(y_train)
    if labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(f"The labels must have the shape (images, {len(names)}); got {labels.shape}.")
    return labels


def _class_counts(classes: Sequence[str], y_train: npt.ArrayLike) -> npt.NDArray[np.intp]:
    labels = np.asarray(y_train)
    if labels.ndim != 1:
        raise ValueError(f"The labels of a tag must have the shape (images,); got {labels.shape}.")
    counts = np.bincount(labels[labels >= 0].astype(int), minlength=len(classes))
    if len(counts) > len(classes):
        raise ValueError(f"The labels of a tag must be below {len(classes)}, its classes; got {len(counts) - 1}.")
    return counts


def _check_labelled(unlabelled: Sequence[str]) -> None:
    if unlabelled:
        raise DataError(
            f"No picture of the training part has a known label for {', '.join(unlabelled)}; "
            "label some pictures for it, or leave it out."
        )


def _check_name_and_weight(name: Any, weight: float) -> None:
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"A head needs a name without '/', which names its layer; got {name!r}.")
    if not 0 < weight <= sys.float_info.max:  # the largest number that is not infinite
        raise ValueError(f"A head needs a weight above 0, the factor on its loss; got {weight!r}.")


def _plain(head: Head) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(head).items()}


def _is_list_of(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
