"""The bundle: the folder that `fit` writes and everything else reads. Data only, never code."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .backbones import NO_WEIGHTS, Backbone, build_backbone, check_arrays, computes_in, freeze, set_weights
from .config import CnnShape
from .description import (
    DESCRIPTION,
    SCHEMA_VERSION,
    WEIGHTS,
    check_weights,
    digest_of,
    precision_of,
    read,
    refusing_damage,
    set_aside,
    thresholds_of,
)
from .engine import Engine
from .errors import BundleError, UsageError
from .heads import Head, LogitHead, SoftmaxHead, head_from_config
from .labels import Tag
from .thresholds import Threshold
from .training import build_models
from .writing import folder_beside, replacing

TABLES = (
    "metrics.json",
    "predictions.csv",
    "history.csv",
    "loss_curve.png",
    "report.html",
    "label_issues.csv",
    "suggested_labels.csv",
    "skipped.csv",
)
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Bundle:
    """Everything inference needs, together.

    Attributes:
        run_name: the run's name.
        backbone: the backbone, frozen.
        heads: the model's heads.
        thresholds: one per attribute, in the heads' order; tags have none.
        model: `(batch, height, width, 3)` RGB 0..255 → logits by head name, in float32.
        provenance: where it came from: versions, data, settings.
        not_better_than_chance: attributes and tags that were measured, and found to be no better than chance.
        calibration: by attribute and tag, how its logits were scaled; the weights hold that already.
        weights_sha256: of the weights file that it was loaded from; `None` if it was not.
        precision: what the backbone computes in where the bundle serves: what it was measured in.
    """

    run_name: str
    backbone: Backbone
    heads: tuple[Head, ...]
    thresholds: tuple[Threshold, ...]
    model: keras.Model
    provenance: dict[str, Any] = field(default_factory=dict)
    not_better_than_chance: tuple[str, ...] = ()
    calibration: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str | None = None
    precision: str = "float32"

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of all attributes, in the heads' order."""
        logit_heads = (head for head in self.heads if isinstance(head, LogitHead))
        return tuple(attribute for head in logit_heads for attribute in head.attributes)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """All tags with their classes, in the heads' order."""
        return tuple(Tag(head.tag, head.classes) for head in self.heads if isinstance(head, SoftmaxHead))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all heads: that of the attributes first, if there is one, then those of the tags in their order."""
        return tuple(head.name for kind in (LogitHead, SoftmaxHead) for head in self.heads if isinstance(head, kind))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its pictures, in pixels."""
        return self.backbone.image_size

    @cached_property
    def engine(self) -> Engine:
        """What computes its features: in `precision` or, where the machine does not compute in that, in float32."""
        if computes_in(self.precision):
            return Engine(self.backbone, self.precision)
        _log.info(
            f"The model was measured in {self.precision}, which this machine does not compute in: it computes in "
            "float32, and its probabilities are slightly other ones."
        )
        return Engine(self.backbone)

    @cached_property
    def heads_model(self) -> keras.Model:
        """The heads alone: `(batch, dimension)` features → logits by head name."""
        features = keras.Input((self.backbone.dimension,))
        return keras.Model(features, {head.name: self.model.get_layer(head.name)(features) for head in self.heads})

    def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities of n pictures by head name, as their stored features give them.

        Args:
            pixels: uint8 `(n, height, width, 3)`, RGB.

        Returns:
            `(n, K)` of the attributes, `(n, C)` of a tag.
        """
        logits = self.heads_model(self.engine.reliable(pixels))
        return {head.name: head.to_probs(keras.ops.convert_to_numpy(logits[head.name])) for head in self.heads}


def check_out(folder: str | os.PathLike[str]) -> None:
    """Makes sure, before any work is done, that a bundle may be written there.

    Raises:
        UsageError: if something is there that is no bundle, or that cannot be replaced.
        BundleError: if the folder cannot be written.
    """
    path = Path(folder)
    try:
        if path.name in ("", "..") or os.path.realpath(path) == os.getcwd():
            raise UsageError(f"{path} is not a folder that a bundle can replace; choose another --out.")
        _recover(path)
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError(f"{path} is not a folder; choose another --out.")
        if path.is_dir() and any(path.iterdir()) and not (path / DESCRIPTION).is_file():
            raise UsageError(f"{path} holds something that is no bundle; it is left as it is, choose another --out.")
        others = sorted({item.name for item in path.glob("*")} - {DESCRIPTION, WEIGHTS, *TABLES})
        if others:
            raise UsageError(
                f"{path} holds, besides a bundle, {', '.join(others[:5])}, which would be lost; "
                "move that away or choose another --out."
            )
        parent = path.absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise BundleError(
                f"{path} cannot be written ({parent} is not a folder you may write to); choose another --out."
            )
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); choose another --out.") from error


@contextmanager
def writing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well, and vanishes when it does not.

    Raises:
        UsageError: if something is there that is no bundle; it is never replaced.
        BundleError: if the disk is full or the folder cannot be written; the old bundle is untouched.
    """
    path = Path(folder)
    check_out(path)
    try:
        with folder_beside(path) as new:
            yield new
            _swap(new, path)
    except OSError as error:
        raise BundleError(
            f"{path} could not be written ({error.strerror or error}); what was there before is untouched."
        ) from error


def save(bundle: Bundle, folder: Path) -> None:
    """Writes description and weights into a folder; see `writing` for doing it safely."""
    _reserve(folder / WEIGHTS, bundle.model)
    # A model of the same layers that was never compiled: the optimizer's arrays do not belong into a bundle.
    model = keras.Model(bundle.model.input, bundle.model.output, name=bundle.model.name)
    model.save_weights(folder / WEIGHTS)
    _write_description(bundle, digest_of(folder / WEIGHTS), folder / DESCRIPTION)


def save_description(bundle: Bundle, folder: Path) -> None:
    """Replaces the description of a bundle on disk, thresholds and all, in one go; weights and tables stay.

    Raises:
        MultilabelError: it cannot be written; what was there is untouched.
    """
    with replacing(folder / DESCRIPTION, "it is as it was") as new:
        _write_description(bundle, digest_of(folder / WEIGHTS), new)


def _write_description(bundle: Bundle, weights_sha256: str, file: Path) -> None:
    description = {
        "schema": SCHEMA_VERSION,
        "run_name": bundle.run_name,
        "backbone": bundle.backbone.get_config(),
        "heads": [head.get_config() for head in bundle.heads],
        "thresholds": [
            {"attribute": attribute, **asdict(threshold)}
            for attribute, threshold in zip(bundle.attributes, bundle.thresholds, strict=True)
        ],
        "not_better_than_chance": list(bundle.not_better_than_chance),
        "calibration": bundle.calibration,
        "precision": bundle.precision,
        "weights_sha256": weights_sha256,
        "provenance": bundle.provenance,
    }
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
    # Names of files may hold bytes that are no UTF-8; the backslashes make a JSON escape of them.
    file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def load(folder: str | os.PathLike[str]) -> Bundle:
    """Rebuilds the model from the bundle's description with our own code, and loads its weights.

    Raises:
        BundleError: if there is no bundle, or it is damaged or of a newer version.
    """
    path, description = read(folder)
    with refusing_damage(path):
        return _rebuild(description, path)


def load_backbone(folder: str | os.PathLike[str], image_size: tuple[int, int] | None = None) -> Backbone:
    """The backbone of an earlier bundle, frozen, to train other heads on.

    Args:
        folder: the bundle.
        image_size: (height, width) in pixels; default: the bundle's own. The weights fit pictures of every size.

    Raises:
        BundleError: as `load`.
        UsageError: for a size that the network does not take.
    """
    backbone = load(folder).backbone
    if image_size is not None and image_size != backbone.image_size:
        resized = _build(backbone.get_config(), image_size)
        set_weights(resized.model, backbone.model.get_weights())
        freeze(resized)
        backbone = resized
    return replace(backbone, weights=f"bundle {Path(folder).resolve().name}")


def save_backbone(backbone: Backbone, file: Path) -> None:
    """Writes the weights of a backbone, for `backbone_from`.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    _reserve(file, backbone.model)
    backbone.model.save_weights(file)


def backbone_from(recorded: dict[str, Any], file: Path) -> Backbone:
    """The backbone of which `Backbone.get_config` and `save_backbone` have kept these, frozen.

    Raises:
        BundleError: the file is damaged.
    """
    with refusing_damage(file, "embed"):
        height, width = recorded["image_size"]
        backbone = _build(recorded, (height, width))
        check_arrays(backbone.model, "the backbone", file)
        backbone.model.load_weights(file)
    freeze(backbone)
    return backbone


def _build(recorded: dict[str, Any], image_size: tuple[int, int]) -> Backbone:
    """A backbone from what `Backbone.get_config` returned, with random weights."""
    cnn = CnnShape(**recorded["cnn"]) if recorded["cnn"] else None
    network = build_backbone(recorded["name"], NO_WEIGHTS, image_size, cnn=cnn)
    return replace(network, weights=str(recorded["weights"]))


def _rebuild(description: dict[str, Any], path: Path) -> Bundle:
    check_weights(description, path)  # first of all: HDF5 is not safe against damaged files
    recorded = description["backbone"]
    height, width = (int(side) for side in recorded["image_size"])
    backbone = _build(recorded, (height, width))
    heads = tuple(head_from_config(config) for config in description["heads"])
    _, model = build_models(backbone, heads)
    check_arrays(model, "the model", path / WEIGHTS)
    model.load_weights(path / WEIGHTS)
    freeze(backbone)
    bundle = Bundle(
        str(description["run_name"]),
        backbone,
        heads,
        (),
        model,
        description["provenance"],
        tuple(map(str, description["not_better_than_chance"])),
        dict(description["calibration"]),
        description["weights_sha256"],
        precision_of(description),
    )
    return replace(bundle, thresholds=thresholds_of(description, bundle.attributes))


def _reserve(file: Path, model: keras.Model) -> None:
    """Fails in good time if the disk is full: HDF5 would take the whole process down with it."""
    per_array = 4096  # more than HDF5 needs for one, besides its numbers
    size = 4 * model.count_params() + per_array * len(model.weights)
    with file.open("wb") as opened:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(opened.fileno(), 0, size)
        else:
            opened.write(bytes(size))


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = set_aside(path)
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(path: Path) -> None:
    """Puts the old bundle back if a kill fell between the two renames of `_swap`."""
    if not path.exists() and set_aside(path).is_dir():
        set_aside(path).rename(path)
