"""What `/model` tells of the model that is served."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from .. import __version__, description, sidecar
from ..inference import Model
from .limits import MEGABYTE, Limits

_log = logging.getLogger("multilabel")


def about(path: Path, model: Model, limits: Limits, explains: bool) -> dict[str, Any]:
    """What `/model` tells.

    Args:
        path: the bundle, or the export of one.
        model: what it was loaded as.
        limits: what a request may bring.
        explains: whether explanations are given.
    """
    scores = None
    if sidecar.format_of(path) is None:
        folder, said = description.read(path)
        digest = said["weights_sha256"]
        try:
            scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["parts"]
        except (OSError, ValueError, KeyError):
            _log.warning(f"{folder / 'metrics.json'} cannot be read, so the server tells no scores.")
    else:
        digest = sidecar.read(path)["file_sha256"]
    chance = set(model.not_better_than_chance)
    return {
        "run_name": model.run_name,
        "version": __version__,
        "sha256": digest,
        "image_size": list(model.image_size),
        "explains": explains,
        "attributes": [
            {"name": name, "threshold": threshold.value, "not_better_than_chance": name in chance}
            for name, threshold in zip(model.attributes, model.thresholds, strict=True)
        ],
        "tags": [
            {"name": tag.name, "classes": list(tag.classes), "not_better_than_chance": tag.name in chance}
            for tag in model.tags
        ],
        "scores": scores,
        "limits": {
            "files": limits.files,
            "megabytes_per_file": limits.file_bytes / MEGABYTE,
            "megabytes": limits.body_bytes / MEGABYTE,
            "megapixels": limits.pixels / 1e6,
            "seconds": limits.seconds,
        },
    }
