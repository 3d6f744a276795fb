"""A bundle measured on other labels than those it was made of."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .bundle import Bundle
from .config import FitConfig
from .dataset import Dataset, labels_digest, read_dataset, read_table
from .evaluation import Evaluation
from .held_out import HeldOut
from .matching import columns, matched
from .phases import logits_of_features

DIGEST_BYTES = 6  # of a picture's SHA-256 that tell whether a model learnt from it
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class LabelSource:
    """Where labels are and how to read them, as `fit` does.

    Attributes:
        labels: the labels file, or a folder of JSON files.
        images: the folder of the pictures; `None`: `images/` beside the labels file, else its folder.
        format: one of `config.FORMATS`.
        strict: any absent picture is an error.
        cache: folder of the stored features; `None`: the user's cache folder.
    """

    labels: Path
    images: Path | None = None
    format: str = "auto"
    strict: bool = False
    cache: Path | None = None

    @property
    def title(self) -> str:
        """What scores on these labels say they are of."""
        return f"pictures of {self.labels.name}"


def evaluate_bundle(
    bundle: Bundle,
    labels: Path,
    *,
    images: Path | None = None,
    format: str = "auto",
    strict: bool = False,
    cache: Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measures a bundle on other labels, which are read as those of its training were.

    Args:
        bundle: the model and its thresholds.
        labels: the labels file, or a folder of JSON files. What it does not have is unknown; attributes, tags and
            classes that the model does not have are left out.
        images: the folder of the pictures; `None`: `images/` beside the labels file, else its folder.
        format: one of `config.FORMATS`.
        strict: any absent picture is an error.
        cache: folder of the stored features; `None`: the user's cache folder.
        progress: show bars on stderr, where a person watches.

    Raises:
        MultilabelError: the labels or the pictures cannot be used, or have nothing to do with the model.
    """
    source = LabelSource(Path(labels), images, format, strict, cache)
    config, data = read_for(bundle, source, progress)
    p = probabilities_of(bundle, data)
    part = HeldOut("all", np.arange(len(data.names)), p, p)
    return part.evaluation(bundle.heads, data.table, bundle.thresholds, source.title, config.seed)


def read_for(bundle: Bundle, source: LabelSource, progress: bool) -> tuple[FitConfig, Dataset]:
    """Reads other labels as a bundle knows them, with features; warns of pictures that the bundle learnt from.

    Raises:
        MultilabelError: the labels or the pictures cannot be used, or have nothing to do with the model.
    """
    config = FitConfig(**vars(source), **columns(bundle))
    read = read_table(config)
    table = matched(bundle, config.labels, read.table)
    data = read_dataset(config, replace(read, table=table), bundle.engine, progress)
    if bundle.provenance.get("labels_sha256") == labels_digest(data):
        _log.warning("These are the labels and pictures that the model was made of: the scores are flattering.")
    elif learnt := _learnt_from(bundle, data):
        _log.warning(
            f"The model learnt from {learnt:,} of these {len(data.names):,} pictures: the scores are flattering."
        )
    return config, data


def _learnt_from(bundle: Bundle, data: Dataset) -> int:
    """How many of the pictures had a say in the model."""
    joined = base64.b64decode(bundle.provenance.get("learnt_from", ""))
    learnt = {joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)}
    return sum(digest[:DIGEST_BYTES] in learnt for digest in data.digests)


def probabilities_of(bundle: Bundle, data: Dataset) -> dict[str, np.ndarray]:
    """The probabilities of all pictures, by head name, from their features."""
    logits = logits_of_features(bundle.heads_model, data, np.arange(len(data.names)))
    return {head.name: head.to_probs(logits[head.name]) for head in bundle.heads}
