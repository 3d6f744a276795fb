"""What an exported file says of itself: the JSON beside it, read without Keras and checked against the file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .description import refusing_damage
from .errors import BundleError

SCHEMA_VERSION = 1
SAVED_MODEL = {"assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"}  # what its folder holds
FORMAT_OF = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert", ".keras": "keras"}  # else it is a SavedModel


def format_of(path: str | os.PathLike[str]) -> str | None:
    """Which format a file or folder is exported in, as its name says; `None`: it is no export."""
    path = Path(path)
    if path.is_dir():
        return "saved_model" if (path / "saved_model.pb").is_file() else None
    return FORMAT_OF.get(path.suffix)


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of an export is."""
    named = path if path.name not in ("", "..") else path.resolve()
    return named.with_name(f"{named.name}.json")


def files_of(path: Path) -> list[Path]:
    """The files of an export; OpenVINO's weights have one of their own."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def digest_of(path: Path) -> str:
    """The SHA-256 of an export's files, one after the other; of a SavedModel, of those that say what it computes."""
    files = files_of(path)
    if path.is_dir():
        files = [path / "saved_model.pb", *sorted((path / "variables").iterdir())]
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            hashlib.file_digest(opened, lambda: digest)
    return digest.hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The sidecar of an export.

    Args:
        path: the file, or the folder of a SavedModel.

    Raises:
        BundleError: there is no such export, its sidecar is missing or cannot be read, or they do not belong together.
    """
    sidecar = sidecar_of(path)
    try:
        digest = digest_of(path)
    except OSError as error:
        beside = Path(error.filename or path).name
        reason = f"{error.strerror}" if beside == path.name else f"{beside}: {error.strerror}"
        raise BundleError(f"{path} cannot be read ({reason}); make one with `multilabel export`.") from error
    try:
        said = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{sidecar} is missing, and only it says what {path.name} predicts; "
            "put it there, or run `multilabel export` again."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{sidecar} cannot be read ({error}); run `multilabel export` again.") from error
    if not isinstance(said, dict) or not isinstance(said.get("schema"), int):
        raise BundleError(f"{sidecar} is not an export's description; run `multilabel export` again.")
    if said["schema"] > SCHEMA_VERSION:
        raise BundleError(f"{path} was exported by a newer multilabel; update with `pip install -U multilabel`.")
    with refusing_damage(sidecar, "export"):
        if said["format"] != format_of(path) or said["file_sha256"] != digest:
            raise BundleError(
                f"{path} is not the file that was exported with {sidecar.name}; run `multilabel export` again."
            )
    return said


def outputs_of(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The outputs as `inference.Model.outputs` orders them: that of all attributes first, then the tags."""
    return sorted(said["outputs"], key=lambda output: output["kind"] != "attributes")
