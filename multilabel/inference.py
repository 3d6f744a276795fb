"""Pictures → predictions, one or a million, with what a bundle holds; and the formats they are written in."""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any

import numpy as np

from .bundle import Bundle
from .errors import DataError, ImageError, UsageError
from .images import Picture, find_pictures, read_pictures
from .thresholds import Threshold, apply_thresholds

BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        image: the path as it was given.
        probabilities: by attribute, between 0 and 1; empty if the picture cannot be read.
        present: by attribute, whether the probability is above its threshold.
        error: why the picture cannot be read.
    """

    image: str
    probabilities: dict[str, float]
    present: dict[str, bool]
    error: str | None = None


def predict(bundle: Bundle, paths: Iterable[str], *, batch_size: int = BATCH_SIZE) -> Iterator[Prediction]:
    """Predicts pictures in order; one that cannot be read becomes a prediction with an error.

    Memory does not grow with the number of pictures.

    Raises:
        UsageError: if `paths` is one path and not several.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise UsageError(f"predict takes several paths; give [{paths!r}] for one.")
    return _predict(bundle, paths, batch_size)


def _predict(bundle: Bundle, paths: Iterable[str], batch_size: int) -> Iterator[Prediction]:
    pictures = read_pictures(expand(paths), bundle.backbone.image_size)
    while batch := list(islice(pictures, batch_size)):
        yield from _predict_batch(bundle, batch)


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Files as they are, folders as the pictures below them; a folder without any stays, to become an error."""
    for path in map(os.fspath, paths):
        found: list[str] = []
        if os.path.isdir(path):
            with suppress(DataError):  # a folder that may not be listed
                found = find_pictures(path)
        yield from found or [path]


def _predict_batch(bundle: Bundle, pictures: Sequence[Picture]) -> Iterator[Prediction]:
    pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
    rows: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if pixels:
        logits = bundle.model.predict_on_batch(np.stack(pixels))
        p = np.concatenate([head.to_probs(logits[head.name]) for head in bundle.heads], axis=1)
        rows = zip(p, apply_thresholds(p, bundle.thresholds), strict=True)
    for picture in pictures:
        if picture.pixels is None:
            yield Prediction(picture.path, {}, {}, _reason(picture.error))
            continue
        probabilities, present = next(rows)
        yield Prediction(
            picture.path,
            dict(zip(bundle.attributes, probabilities.tolist(), strict=True)),
            dict(zip(bundle.attributes, present.tolist(), strict=True)),
        )


def _reason(error: ImageError | None) -> str:
    if error is None:
        return "cannot be read"
    return "a folder in which no pictures were found" if os.path.isdir(error.path) else error.reason


def with_thresholds(bundle: Bundle, overrides: Sequence[str]) -> Bundle:
    """The bundle with other thresholds: `0.5` for all attributes, `attr4=0.3` for one; later ones win.

    Raises:
        UsageError: for an unknown attribute, or a value that is no number from 0 to 1.
    """
    thresholds = dict(zip(bundle.attributes, bundle.thresholds, strict=True))
    for override in overrides:
        name, equals, text = override.rpartition("=")
        if equals and name not in thresholds:
            close = difflib.get_close_matches(name, thresholds, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the model knows {', '.join(thresholds)}."
            raise UsageError(f"--threshold {override}: there is no attribute {name!r}; {hint}")
        value = _number(text)
        if value is None or not 0 <= value <= 1:
            raise UsageError(f"--threshold {override}: {text!r} is not a number from 0 to 1.")
        for changed in [name] if equals else list(thresholds):
            thresholds[changed] = Threshold(value, "given", thresholds[changed].positives)
    return replace(bundle, thresholds=tuple(thresholds.values()))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def write(predictions: Iterable[Prediction], bundle: Bundle, style: str, file: IO[str]) -> tuple[int, int]:
    """Writes predictions as they come.

    Args:
        predictions: in the order to write.
        bundle: gives names and thresholds.
        style: `text` (for people), `csv`, `json` (one list) or `jsonl` (one object per line).
        file: where to.

    Returns:
        How many pictures could not be read, and of how many.
    """
    failed = pictures = 0

    def counted() -> Iterator[Prediction]:
        nonlocal failed, pictures
        for prediction in predictions:
            pictures += 1
            failed += prediction.error is not None
            yield prediction

    _WRITERS[style](counted(), bundle, file)
    return failed, pictures


def _write_text(predictions: Iterable[Prediction], bundle: Bundle, file: IO[str]) -> None:
    for prediction in predictions:
        print(_encodable(f"{prediction.image}: {_sentence(prediction)}"), file=file)


def _sentence(prediction: Prediction) -> str:
    if prediction.error is not None:
        return f"error: {prediction.error}"
    listed = {True: "", False: ""}
    for present in listed:
        names = [name for name, value in prediction.present.items() if value is present]
        listed[present] = ", ".join(f"{name} {prediction.probabilities[name]:.2f}" for name in names)
    return f"{listed[True] or 'none'}" + (f"  (absent: {listed[False]})" if listed[False] else "")


def _write_csv(predictions: Iterable[Prediction], bundle: Bundle, file: IO[str]) -> None:
    names = bundle.attributes
    writer = csv.writer(file, lineterminator="\n")
    # With a suffix on every attribute's column, no attribute can be taken for another column, not even "image".
    columns = [f"{name}_{what}" for what in ("present", "probability") for name in names]
    writer.writerow(["image", *columns, "error"])
    for prediction in predictions:
        cells: list[Any] = [""] * (2 * len(names))
        if prediction.error is None:
            cells = [int(prediction.present[name]) for name in names]
            cells += [f"{prediction.probabilities[name]:.6g}" for name in names]
        writer.writerow([_encodable(prediction.image), *cells, prediction.error or ""])


def _write_jsonl(predictions: Iterable[Prediction], bundle: Bundle, file: IO[str]) -> None:
    for prediction in predictions:
        print(_json(prediction, bundle), file=file)


def _write_json(predictions: Iterable[Prediction], bundle: Bundle, file: IO[str]) -> None:
    lead = "[\n"
    for prediction in predictions:
        file.write(lead + _json(prediction, bundle))
        lead = ",\n"
    file.write("[]\n" if lead == "[\n" else "\n]\n")


def _json(prediction: Prediction, bundle: Bundle) -> str:
    record: dict[str, Any] = {"image": prediction.image, "error": prediction.error, "present": None, "attributes": None}
    if prediction.error is None:
        record["present"] = [name for name, present in prediction.present.items() if present]
        record["attributes"] = {
            name: {
                "probability": prediction.probabilities[name],
                "threshold": threshold.value,
                "present": prediction.present[name],
            }
            for name, threshold in zip(bundle.attributes, bundle.thresholds, strict=True)
        }
    return _encodable(json.dumps(record, ensure_ascii=False, allow_nan=False))


def _encodable(text: str) -> str:
    r"""File names may hold bytes that are no UTF-8: they become `\udcff`, which in JSON is the escape for them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_WRITERS = {"text": _write_text, "csv": _write_csv, "json": _write_json, "jsonl": _write_jsonl}
