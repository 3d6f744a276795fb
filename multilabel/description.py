"""What a bundle says of itself, `multilabel.json`, read without Keras: who does not rebuild the model needs no more.

The weights are compared with it before anything else: those of another run would fit as well as the right ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import PRECISIONS
from .errors import BundleError
from .thresholds import Threshold

SCHEMA_VERSION = 1
DESCRIPTION = "multilabel.json"
WEIGHTS = "model.weights.h5"


def read(folder: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Reads the description of a bundle.

    Returns:
        The folder that holds the bundle: another if a kill has left it half replaced. And the description.

    Raises:
        BundleError: there is no bundle, or its description cannot be read or is of a newer version.
    """
    path = Path(folder)
    try:
        path = _readable(path)
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = "it does not exist"
        if path.exists():
            why = f"it holds no {DESCRIPTION}" if path.is_dir() else "it is no folder"
        raise BundleError(f"{path} is not a bundle ({why}); make one with `multilabel fit`.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path / DESCRIPTION} cannot be read ({error}); run `multilabel fit` again.") from error
    if not isinstance(description, dict) or not isinstance(description.get("schema"), int):
        raise BundleError(f"{path / DESCRIPTION} is not a bundle's description; run `multilabel fit` again.")
    if description["schema"] > SCHEMA_VERSION:
        raise BundleError(f"{path} was written by a newer multilabel; update with `pip install -U multilabel`.")
    return path, description


@contextmanager
def refusing_damage(path: Path, command: str = "fit") -> Iterator[None]:
    """Whatever goes wrong in the block is said to be damage: our code, Keras and h5py raise nearly anything on it.

    Args:
        path: what is read in the block.
        command: the one that writes it.

    Raises:
        BundleError: something went wrong; the text says what.
    """
    try:
        yield
    except (BundleError, ImportError, MemoryError):  # these say nothing of the file
        raise
    except Exception as error:
        # OpenVINO's errors begin with lines of where they come from, which end in a colon.
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().endswith(":")]
        reason = f"{error} is missing" if isinstance(error, KeyError) else (lines or [type(error).__name__])[0]
        raise BundleError(f"{path} is damaged ({reason}); run `multilabel {command}` again.") from error


def check_weights(description: dict[str, Any], path: Path) -> None:
    """Makes sure that the weights are those that were saved with the description.

    Raises:
        ValueError: they are not.
        OSError: they cannot be read.
        KeyError: the description does not say.
    """
    if digest_of(path / WEIGHTS) != description["weights_sha256"]:
        raise ValueError(f"{WEIGHTS} is not the file that was saved with {DESCRIPTION}")


def thresholds_of(description: dict[str, Any], attributes: Sequence[str]) -> tuple[Threshold, ...]:
    """The thresholds of these attributes, in their order.

    Raises:
        ValueError: they are those of others, or are not finite numbers.
        KeyError: the description lacks something.
    """
    recorded = description["thresholds"]
    thresholds = tuple(
        Threshold(float(item["value"]), str(item["source"]), int(item["positives"]), _spread(item["spread"]))
        for item in recorded
    )
    if [item["attribute"] for item in recorded] != list(attributes):
        raise ValueError("its thresholds do not belong to its attributes")
    if not all(math.isfinite(threshold.value) for threshold in thresholds):
        raise ValueError("a threshold is not a finite number")
    return thresholds


def precision_of(description: dict[str, Any]) -> str:
    """What the bundle was measured in.

    Raises:
        ValueError: it is none of `config.PRECISIONS`.
        KeyError: the description does not say.
    """
    precision = str(description["precision"])
    if precision not in PRECISIONS[1:]:
        raise ValueError(f"its precision is {precision!r}")
    return precision


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def set_aside(path: Path) -> Path:
    """Where a bundle is while another takes its place."""
    return path.with_name(f".{path.name}.old")


def _readable(path: Path) -> Path:
    """The bundle, or the old one if a kill fell between the two renames; a reader moves nothing."""
    return set_aside(path) if path.name and not path.exists() and set_aside(path).is_dir() else path


def _spread(recorded: Any) -> tuple[float, float] | None:
    """Lowest and highest threshold of the folds."""
    if recorded is None:
        return None
    low, high = map(float, recorded)
    return low, high
