"""What a job of `multilabel infer` computes: probabilities and decisions of a model, which lies in the job's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import description as descriptions
from .. import runtimes, sidecar
from ..errors import DataError, UsageError
from ..images import DECODING
from ..inference import Model
from ..places import Folder
from ..thresholds import apply_thresholds
from .job import Job

COMMAND = "infer"


def description(path: Path, model: Model, runtime: str | None, min_confidence: float) -> dict[str, Any]:
    """All that the rows depend on besides the pictures.

    Args:
        path: the bundle, or an export of one.
        model: it, loaded, with the thresholds of the job.
        runtime: what computes; default: as `runtimes.load`.
        min_confidence: a tag whose best class has a lower probability is undecided.
    """
    thresholds = zip(model.attributes, model.thresholds, strict=True)
    return {
        "name": model.run_name,
        "sha256": _digest_of(path),
        "export": "" if sidecar.format_of(path) is None else path.name,
        "runtime": runtimes.settled_runtime(path, runtime),
        "precision": runtimes.settled_precision(model),
        "folded": runtimes.is_folded(model),
        "thresholds": {name: threshold.value for name, threshold in thresholds},
        "min_confidence": min_confidence,
        "decoding": DECODING,
    }


def put(path: Path, said: Mapping[str, Any], folder: Folder) -> None:
    """Writes what a bundle or an export needs to predict; `said` is its description."""
    inside = Folder(folder.join(_folder_name(said)))
    for file in _files(path):
        inside.put(file, file.relative_to(path.parent if sidecar.format_of(path) else path).as_posix())


def _folder_name(said: Mapping[str, Any]) -> str:
    """Of a model's files: those of another one, which were left when a command was killed, lie elsewhere."""
    return f"model-{said['sha256'][:16]}"


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(bytes.fromhex(descriptions.digest_of(file)))
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if sidecar.format_of(path) is None:
        return [path / descriptions.DESCRIPTION, path / descriptions.WEIGHTS]
    found = sidecar.files_of(path)
    if path.is_dir():  # a hidden file may be what a killed command has left
        found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [*found, sidecar.sidecar_of(path)]


class Predicting:
    """Computes probabilities and decisions.

    Args:
        model: what predicts, and its thresholds.
        min_confidence: a tag whose best class has a lower probability is undecided.
    """

    def __init__(self, model: Model, min_confidence: float) -> None:
        import pyarrow as pa

        self._model, self._min_confidence = model, min_confidence
        self.image_size = model.image_size
        self.fields = [pa.field(f"{name}_present", pa.bool_()) for name in model.attributes]
        self.fields += [pa.field(f"{name}_probability", pa.float32()) for name in model.attributes]
        for tag in model.tags:
            self.fields.append(pa.field(f"{tag.name}_class", pa.string()))
            self.fields.append(pa.field(f"{tag.name}_probability", pa.float32()))

    def __call__(self, pixels: np.ndarray) -> list[Any]:
        """The columns of n pictures, uint8 `(n, height, width, 3)`."""
        import pyarrow as pa

        probs = self._model.probabilities(pixels)
        outputs = iter(self._model.outputs)
        columns: list[Any] = []
        if self._model.attributes:
            p = probs[next(outputs)]
            columns += [*apply_thresholds(p, self._model.thresholds).T, *p.T]
        for tag, output in zip(self._model.tags, outputs, strict=True):
            best = probs[output].argmax(axis=1)  # the first, if there are several
            p = probs[output][np.arange(len(best)), best]
            undecided = p.astype(float) < self._min_confidence
            columns += [np.where(undecided, None, np.array(tag.classes, object)[best]), p]
        return [pa.array(column, field.type) for column, field in zip(columns, self.fields, strict=True)]

    def stored(self, digests: Sequence[bytes]) -> tuple[list[bytes], list[Any]]:
        """None."""
        return [], []


def load(job: Job) -> Predicting:
    """What predicts the pictures of a job, on this machine.

    Raises:
        DataError: this machine cannot compute what the job began with.
        BundleError: the model cannot be read.
    """
    said = job.manifest.model
    name = _folder_name(said)
    with job.own.on_disk(name) as folder:
        path = folder / said["export"]
        if _digest_of(path) != said["sha256"]:
            raise DataError(f"{job.own.join(name)} is not the model that the job was begun with.")
        try:
            model = runtimes.load(path, said["runtime"], said["precision"])
        except UsageError as error:
            raise DataError(f"the model cannot compute there as it did where the job began: {error}") from error
    if runtimes.is_folded(model) != said["folded"]:
        raise DataError(
            "this machine computes other probabilities than the one that began the job (on one of them "
            "folding the backbone goes wrong); continue on one like that, or begin in another folder."
        )
    named = zip(model.attributes, model.thresholds, strict=True)
    thresholds = tuple(replace(threshold, value=said["thresholds"][name]) for name, threshold in named)
    return Predicting(replace(model, thresholds=thresholds), said["min_confidence"])
