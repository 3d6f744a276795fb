"""An export beside its bundle: run in its own runtime on pictures, before it is accepted."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import DataError
from .heads import LogitHead
from .images import find_pictures, read_pictures
from .networks import RUNTIMES_OF, Network, open_network
from .thresholds import Threshold, apply_thresholds
from .training import Inputs

SAMPLED = 32  # pictures that an export is checked on
GENERATED = 16  # pictures that are made where there are none
_BATCH = 16


@dataclass(frozen=True)
class Comparison:
    """How an export compares with its bundle.

    Attributes:
        pictures: how many both were run on.
        difference: the largest between two probabilities; NaN if one is NaN.
        decisions: how many attributes and tags were decided, of all pictures together.
        differing: how many of these the two decide otherwise.
    """

    pictures: int
    difference: float
    decisions: int
    differing: int


def open_export(format: str, path: Path) -> Network:
    """What runs an export in float32, in the runtime that it is for.

    Args:
        format: one of `config.EXPORT_FORMATS`.
        path: the file, or the folder.
    """
    return open_network(RUNTIMES_OF[format][0], path)


def in_batches(run: Network, pictures: Inputs, count: int) -> dict[str, NDArray[Any]]:
    """What `run` says of the first `count` pictures, a few at a time; the last batch may hold fewer."""
    starts = range(0, count, _BATCH)
    parts = [run(pictures[np.arange(start, min(start + _BATCH, count))]) for start in starts]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bundle_runner(bundle: Bundle) -> Network:
    """What runs a bundle's own model in float32."""

    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        logits = bundle.model.predict_on_batch(pixels)
        return {head.name: head.to_probs(logits[head.name]) for head in bundle.heads}

    return run


def compare(bundle: Bundle, run: Network, thresholds: Sequence[Threshold], pixels: NDArray[np.uint8]) -> Comparison:
    """Runs a bundle and an export of it on the same pictures.

    Args:
        bundle: the model, in float32, and its thresholds.
        run: the export.
        thresholds: the export's, one for each attribute.
        pixels: `(n, height, width, 3)` RGB.

    Raises:
        DataError: the outputs have other names or shapes than the bundle's.
    """
    expected, found = (in_batches(one, pixels, len(pixels)) for one in (bundle_runner(bundle), run))
    shapes = [{name: p.shape for name, p in outputs.items()} for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise DataError(f"the export's outputs are {shapes[1]}, those of the bundle {shapes[0]}; nothing was written.")
    ours, theirs = _decisions(bundle, expected, bundle.thresholds), _decisions(bundle, found, thresholds)
    differences = [np.abs(expected[name] - found[name]).max() for name in expected]
    return Comparison(len(pixels), float(np.max(differences)), ours.size, int((ours != theirs).sum()))


def _decisions(bundle: Bundle, p: Mapping[str, NDArray[Any]], thresholds: Sequence[Threshold]) -> NDArray[Any]:
    """Which attributes are present, and the likeliest class of each tag, `(n, attributes + tags)`."""
    columns, left = [], list(thresholds)
    for head in bundle.heads:
        if isinstance(head, LogitHead):
            own, left = left[: head.units], left[head.units :]
            columns.append(apply_thresholds(p[head.name], own).astype(int))
        else:
            columns.append(p[head.name].argmax(axis=1)[:, np.newaxis])
    return np.concatenate(columns, axis=1)


def sample_pictures(bundle: Bundle, folder: Path, check_on: Path | None) -> tuple[NDArray[np.uint8], str]:
    """The pictures to check on: those of a folder, else of the bundle's own training, else generated ones.

    Args:
        bundle: the bundle.
        folder: where it is; its predictions name the pictures that it was made of.
        check_on: a folder of pictures.

    Returns:
        Pixels `(n, height, width, 3)`, and what to call the pictures.

    Raises:
        DataError: there is no readable picture in `check_on`.
    """
    size = bundle.backbone.image_size
    if check_on is not None:
        pixels = read_some(find_pictures(check_on), size, SAMPLED)
        if not len(pixels):
            raise DataError(f"{check_on} holds no picture that can be read; choose another --check-on.")
        return pixels, f"pictures of {check_on}"
    pixels = read_some(_pictures_of(bundle, folder), size, SAMPLED)
    if len(pixels):
        return pixels, "pictures that the bundle was made of"
    return generated_pictures(size), "generated pictures"


def read_some(paths: Sequence[str], image_size: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """So many readable pictures, or as many as there are, spread over all by chance but always the same ones.

    Returns:
        Pixels `(n, height, width, 3)`.
    """
    order = np.random.default_rng(0).permutation(len(paths))
    readable = (
        picture.pixels
        for picture in read_pictures((paths[index] for index in order.tolist()), image_size, chunk=16)
        if picture.pixels is not None
    )
    return np.array(list(islice(readable, count)), np.uint8).reshape(-1, *image_size, 3)


def _pictures_of(bundle: Bundle, folder: Path) -> list[str]:
    """Where the pictures of the bundle's predictions are, as far as they are still there."""
    settings = bundle.provenance.get("settings", {})
    try:
        with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
            names = [row["image"] for row in csv.DictReader(file)]
        beside = Path(settings["labels"]).absolute().parent
    except (OSError, ValueError, KeyError, TypeError, csv.Error):  # all of it is here for people, and may be gone
        return []
    places = [Path(settings["images"])] if settings.get("images") else [beside / "images", beside]
    found = ([place / name for place in places if (place / name).is_file()] for name in names)
    return [str(paths[0]) for paths in found if paths]


def generated_pictures(image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise from coarse to fine, `(GENERATED, height, width, 3)`; always the same."""
    rng = np.random.default_rng(0)
    height, width = image_size
    pictures = []
    for number in range(GENERATED):
        cells = 2 ** (1 + number % 6)  # a side
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        pictures.append(coarse[np.ix_(np.arange(height) * cells // height, np.arange(width) * cells // width)])
    return np.stack(pictures)
