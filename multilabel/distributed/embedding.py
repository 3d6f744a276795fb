"""What a job of `multilabel embed` computes: features of a frozen backbone, which lies in the job's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..backbones import Backbone, computes_in
from ..bundle import backbone_from, save_backbone
from ..engine import Engine, FoldingError
from ..errors import DataError
from ..features import FeatureStore
from ..places import Folder
from .job import Job

COMMAND = "embed"
FEATURE = "feature"


def description(engine: Engine) -> dict[str, Any]:
    """All that the features depend on besides the pictures."""
    return {
        "backbone": engine.backbone.get_config(),
        "precision": engine.precision,
        "folded": engine.folded,
        "dimension": engine.dimension,
        "fingerprint": engine.fingerprint(),
    }


def put(engine: Engine, folder: Folder) -> None:
    """Writes the backbone's weights."""
    with TemporaryDirectory() as temporary:
        file = Path(temporary) / "model.weights.h5"
        save_backbone(engine.backbone, file)
        folder.put(file, _file_name(engine.fingerprint()))


def _file_name(fingerprint: str) -> str:
    """Of an engine's weights: two that are begun at once in one folder do not replace each other's."""
    return f"model-{fingerprint[:16]}.weights.h5"


def engine_of(job: Job) -> Engine:
    """The engine of a job, rebuilt.

    Raises:
        DataError: what is in the folder computes other features than its manifest says.
    """
    said = job.manifest.model
    name = _file_name(said["fingerprint"])
    with job.own.on_disk(name) as file:
        backbone = backbone_from(said["backbone"], file)
    engine = Engine(backbone, said["precision"], folded=said["folded"])
    if engine.fingerprint() != said["fingerprint"]:
        raise DataError(f"{job.own.join(name)} is not the backbone that the job was begun with.")
    return engine


class Embedding:
    """Computes features.

    Args:
        engine: what computes them.
        store: the features that are there already, to be taken from it.
    """

    def __init__(self, engine: Engine, store: FeatureStore | None = None) -> None:
        import pyarrow as pa

        self._engine, self._store = engine, store
        self._type = pa.list_(pa.float32(), engine.dimension)
        self.fields = [pa.field(FEATURE, self._type)]
        self.image_size = engine.image_size

    def __call__(self, pixels: np.ndarray) -> list[Any]:
        """The features of n pictures, uint8 `(n, height, width, 3)`."""
        return [self._array(self._engine(pixels))]

    def stored(self, digests: Sequence[bytes]) -> tuple[list[bytes], list[Any]]:
        """Those of the digests whose features are in the store, and these."""
        if self._store is None or not digests:
            return [], []
        missing = self._store.missing(digests)
        known = [digest for digest in digests if digest not in missing]
        return known, [self._array(self._store.load(known))]

    def _array(self, features: np.ndarray) -> Any:
        import pyarrow as pa

        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(features).ravel()), type=self._type)


def load(job: Job) -> Embedding:
    """What computes the features of a job, on this machine.

    Raises:
        DataError: this machine computes other ones.
    """
    engine = engine_of(job)
    if not computes_in(engine.precision):
        raise DataError(
            f"this machine does not compute in {engine.precision}, as the job was begun; begin one with "
            "--precision float32 in another folder."
        )
    try:
        engine(np.zeros((1, *engine.image_size, 3), np.uint8))
    except FoldingError as error:
        raise DataError(f"this machine computes other features than the one that began the job ({error}).") from error
    return Embedding(engine)


def settled(backbone: Backbone, precision: str) -> Engine:
    """The engine that a job begins with."""
    return Engine(backbone, precision).reliable
