"""Pictures → predictions, one or a million, with any model; and the formats they are written in.

Nothing here knows what computes: a bundle with Keras, or an export of one in another runtime (`runtimes.py`).
"""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any, ClassVar, Protocol, TypeVar

import numpy as np

from .errors import DataError, ImageError, UsageError
from .images import Picture, find_pictures, read_pictures
from .labels import Tag
from .thresholds import Threshold, apply_thresholds
from .writing import encodable

BATCH_SIZE = 32
TOP = 3  # classes of a tag that a prediction names


class Model(Protocol):
    """What predicts: a bundle, or an export of one. It is a dataclass, and `replace` gives it other thresholds."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def run_name(self) -> str:
        """The name of the run that made it."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its pictures, in pixels."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs: that of all attributes first, if there are any, then one per tag in their order."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of all K attributes."""

    @property
    def tags(self) -> tuple[Tag, ...]:
        """All tags, each with its C classes."""

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """One per attribute."""

    @property
    def not_better_than_chance(self) -> tuple[str, ...]:
        """Attributes and tags that were measured, and found to be no better than chance."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where it came from; of it, only how labels were read matters for predictions, see `matching.py`."""

    def probabilities(self, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Probabilities of n pictures, uint8 `(n, height, width, 3)`, by output: `(n, K)`, and `(n, C)` of a tag."""


AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class TagPrediction:
    """What the model says of one tag of one picture.

    Attributes:
        top: the 3 most likely classes (or all, if there are fewer) and their probabilities, best first.
        decided: whether the best probability is high enough to say so.
    """

    top: tuple[tuple[str, float], ...]
    decided: bool


@dataclass(frozen=True)
class Prediction:
    """What the model says of one picture.

    Attributes:
        image: the path as it was given.
        probabilities: by attribute, between 0 and 1; empty if the picture cannot be read.
        present: by attribute, whether the probability is above its threshold.
        error: why the picture cannot be read.
        tags: by tag, its most likely classes; empty if the picture cannot be read.
    """

    image: str
    probabilities: dict[str, float]
    present: dict[str, bool]
    error: str | None = None
    tags: dict[str, TagPrediction] = field(default_factory=dict)


def predict(
    model: Model, paths: Iterable[str], *, batch_size: int = BATCH_SIZE, min_confidence: float = 0.0
) -> Iterator[Prediction]:
    """Predicts pictures in order; one that cannot be read becomes a prediction with an error.

    Memory does not grow with the number of pictures.

    Args:
        model: a bundle, or what `runtimes.load` returns.
        paths: files and folders, as `expand` takes them.
        batch_size: pictures that go through the model at once.
        min_confidence: a tag whose best class has a lower probability is undecided.

    Raises:
        UsageError: if `paths` is one path and not several, or `min_confidence` is out of range.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise UsageError(f"predict takes several paths; give [{paths!r}] for one.")
    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence is {min_confidence}; expected a number from 0 to 1, such as 0.5.")
    return _predict(model, paths, batch_size, min_confidence)


def _predict(model: Model, paths: Iterable[str], batch_size: int, min_confidence: float) -> Iterator[Prediction]:
    pictures = read_pictures(expand(paths), model.image_size)
    while batch := list(islice(pictures, batch_size)):
        yield from _predict_batch(model, batch, min_confidence)


def expand(paths: Iterable[str]) -> Iterator[str]:
    """Files as they are, folders as the pictures below them; a folder without any stays, to become an error."""
    for path in map(os.fspath, paths):
        found: list[str] = []
        if os.path.isdir(path):
            with suppress(DataError):  # a folder that may not be listed
                found = find_pictures(path)
        yield from found or [path]


def _predict_batch(model: Model, pictures: Sequence[Picture], min_confidence: float) -> Iterator[Prediction]:
    pixels = [picture.pixels for picture in pictures if picture.pixels is not None]
    probs = model.probabilities(np.stack(pixels)) if pixels else {}
    rows = ({name: p[row] for name, p in probs.items()} for row in range(len(pixels)))
    for picture in pictures:
        if picture.pixels is None:
            yield Prediction(picture.path, {}, {}, _reason(picture.error))
        else:
            yield prediction_of(model, picture.path, next(rows), min_confidence)


def prediction_of(model: Model, image: str, probs: Mapping[str, np.ndarray], min_confidence: float = 0.0) -> Prediction:
    """The prediction from one picture's probabilities by output, `(K,)` and `(C,)` of a tag."""
    outputs = iter(model.outputs)
    p = probs[next(outputs)] if model.attributes else np.empty(0)
    (present,) = apply_thresholds(p[np.newaxis], model.thresholds)
    return Prediction(
        image,
        dict(zip(model.attributes, p.tolist(), strict=True)),
        dict(zip(model.attributes, present.tolist(), strict=True)),
        tags={
            tag.name: _tag_prediction(tag, probs[output], min_confidence)
            for tag, output in zip(model.tags, outputs, strict=True)
        },
    )


def _tag_prediction(tag: Tag, p: np.ndarray, min_confidence: float) -> TagPrediction:
    best = np.argsort(-p, kind="stable")[:TOP]
    top = tuple((tag.classes[index], float(p[index])) for index in best.tolist())
    return TagPrediction(top, top[0][1] >= min_confidence)


def _reason(error: ImageError | None) -> str:
    if error is None:
        return "cannot be read"
    return "a folder in which no pictures were found" if os.path.isdir(error.path) else error.reason


def with_thresholds(model: AnyModel, overrides: Sequence[str]) -> AnyModel:
    """The model with other thresholds: `0.5` for all attributes, `attr4=0.3` for one; later ones win.

    Raises:
        UsageError: for an unknown attribute, a value that is no number from 0 to 1, or a model of tags alone.
    """
    thresholds = dict(zip(model.attributes, model.thresholds, strict=True))
    if overrides and not thresholds:
        raise UsageError(f"--threshold {overrides[0]}: the model has no attributes, only tags; use --min-confidence.")
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
    return replace(model, thresholds=tuple(thresholds.values()))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def write(predictions: Iterable[Prediction], model: Model, style: str, file: IO[str]) -> tuple[int, int]:
    """Writes predictions as they come.

    Args:
        predictions: in the order to write.
        model: gives names and thresholds.
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

    _WRITERS[style](counted(), model, file)
    return failed, pictures


def _write_text(predictions: Iterable[Prediction], model: Model, file: IO[str]) -> None:
    for prediction in predictions:
        print(encodable(f"{prediction.image}: {_sentence(prediction)}"), file=file)


def _sentence(prediction: Prediction) -> str:
    if prediction.error is not None:
        return f"error: {prediction.error}"
    tags = ", ".join(f"{name} {_tag_phrase(tag)}" for name, tag in prediction.tags.items())
    return "; ".join(part for part in (_attributes_sentence(prediction), tags) if part)


def _attributes_sentence(prediction: Prediction) -> str:
    listed = {True: "", False: ""}
    for present in listed:
        names = [name for name, value in prediction.present.items() if value is present]
        listed[present] = ", ".join(f"{name} {prediction.probabilities[name]:.2f}" for name in names)
    absent = f"  (absent: {listed[False]})" if listed[False] else ""
    return f"{listed[True] or 'none'}{absent}" if prediction.present else ""


def _tag_phrase(tag: TagPrediction) -> str:
    best, probability = tag.top[0]
    return f"{best} {probability:.2f}" if tag.decided else f"undecided ({best} {probability:.2f})"


def _write_csv(predictions: Iterable[Prediction], model: Model, file: IO[str]) -> None:
    names, tags = model.attributes, [tag.name for tag in model.tags]
    writer = csv.writer(file, lineterminator="\n")
    # With a suffix on every attribute's and tag's column, none can be taken for another column, not even "image".
    columns = [f"{name}_{what}" for what in ("present", "probability") for name in names]
    columns += [f"{name}_{what}" for name in tags for what in ("class", "probability")]
    writer.writerow(["image", *columns, "error"])
    for prediction in predictions:
        cells: list[Any] = [""] * len(columns)
        if prediction.error is None:
            cells = [int(prediction.present[name]) for name in names]
            cells += [f"{prediction.probabilities[name]:.6g}" for name in names]
            cells += [cell for name in tags for cell in _tag_cells(prediction.tags[name])]
        writer.writerow([encodable(prediction.image), *cells, prediction.error or ""])


def _tag_cells(tag: TagPrediction) -> tuple[str, str]:
    best, probability = tag.top[0]
    return best if tag.decided else "", f"{probability:.6g}"


def _write_jsonl(predictions: Iterable[Prediction], model: Model, file: IO[str]) -> None:
    for prediction in predictions:
        print(_json(prediction, model), file=file)


def _write_json(predictions: Iterable[Prediction], model: Model, file: IO[str]) -> None:
    lead = "[\n"
    for prediction in predictions:
        file.write(lead + _json(prediction, model))
        lead = ",\n"
    file.write("[]\n" if lead == "[\n" else "\n]\n")


def record_of(prediction: Prediction, model: Model) -> dict[str, Any]:
    """What JSON says of a picture."""
    record: dict[str, Any] = {
        "image": prediction.image,
        "error": prediction.error,
        "present": None,
        "attributes": None,
        "tags": None,
    }
    if prediction.error is None:
        record["present"] = [name for name, present in prediction.present.items() if present]
        record["attributes"] = {
            name: {
                "probability": prediction.probabilities[name],
                "threshold": threshold.value,
                "present": prediction.present[name],
            }
            for name, threshold in zip(model.attributes, model.thresholds, strict=True)
        }
        record["tags"] = {name: _tag_json(tag) for name, tag in prediction.tags.items()}
    return record


def _json(prediction: Prediction, model: Model) -> str:
    return encodable(json.dumps(record_of(prediction, model), ensure_ascii=False, allow_nan=False))


def _tag_json(tag: TagPrediction) -> dict[str, Any]:
    best, probability = tag.top[0]
    return {
        "class": best if tag.decided else None,
        "probability": probability,
        "top": [{"class": name, "probability": value} for name, value in tag.top],
    }


_WRITERS = {"text": _write_text, "csv": _write_csv, "json": _write_json, "jsonl": _write_jsonl}
