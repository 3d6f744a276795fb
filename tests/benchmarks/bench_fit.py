"""What the feature store is worth: `fit` beside the plain way, on the same pictures, in one process.

    python tests/benchmarks/bench_fit.py [--labels labels.txt] [--backbone resnet50] [--epochs 5]

(a) the plain way: one Keras model, frozen backbone inside, every picture through it in every epoch (decoded once and
    kept in memory, which favours this side);
(b) `fit` with an empty store: every picture once through the backbone, then the head on stored features;
(c) `fit` again, with the store full.

Two figures each: the training itself (for b: extraction and training), and all that `fit` does once TensorFlow is
loaded: building the backbone, hashing pictures, thresholds, intervals, and writing the bundle. Weights are random;
they do not change the work.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

from multilabel.backbones import build_backbone, freeze
from multilabel.config import FitConfig
from multilabel.formats import read_labels
from multilabel.heads import LogitHead
from multilabel.images import read_pictures
from multilabel.labels import locate_images
from multilabel.pipeline import fit
from multilabel.splits import split_parts
from multilabel.training import build_models

ROOT = Path(__file__).resolve().parents[2]


def plain(config: FitConfig) -> float:
    """Seconds that `Model.fit` takes with the backbone in the graph."""
    table, _ = locate_images(read_labels(config.labels), config.labels, None)
    keras.utils.set_random_seed(config.seed)
    backbone = build_backbone(config.backbone, "none", config.image_size)
    freeze(backbone)
    pictures = list(read_pictures(table.images, backbone.image_size))
    rows = [row for row, picture in enumerate(pictures) if picture.pixels is not None]
    x = np.stack([pictures[row].pixels for row in rows])
    y = table.y[rows]
    training, validation, _ = split_parts(y, config.val_share, seed=config.seed)
    head = LogitHead.for_labels(table.names, y[training])
    _, model = build_models(backbone, [head])
    model.compile("adam", {head.name: head.loss()})
    started = time.perf_counter()
    model.fit(
        x[training],
        {head.name: y[training]},
        validation_data=(x[validation], {head.name: y[validation]}),
        batch_size=config.batch_size,
        epochs=config.epochs,
        verbose=0,
    )
    return time.perf_counter() - started


def ours(config: FitConfig) -> tuple[float, float]:
    """Seconds of extraction and training, and of all that `fit` does."""
    started = time.perf_counter()
    result = fit(config)
    return result.extraction_seconds + result.training_seconds, time.perf_counter() - started


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=Path, default=ROOT / "data" / "labels.txt")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("multilabel").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        config = FitConfig(
            options.labels,
            out=Path(folder) / "model",
            backbone=options.backbone,
            weights="none",
            epochs=options.epochs,
            lr=1e-4,
            folds=0,  # as the plain way does it
            cache=Path(folder) / "cache",
        )
        a = plain(config)
        rows = [("a  plain, backbone in the graph", a, None), ("b  fit, empty store", *ours(config))]
        rows.append(("c  fit, full store", *ours(config)))
    print(f"{options.backbone}, {options.labels}, {options.epochs} epochs, one run")
    print("| way | training s | ratio to a | all of fit s | ratio to a |")
    print("|---|---:|---:|---:|---:|")
    for name, training, whole in rows:
        rest = "| |" if whole is None else f"{whole:.1f} | 1/{a / whole:.1f} |"
        print(f"| {name} | {training:.1f} | 1/{a / training:.1f} | {rest}")


if __name__ == "__main__":
    main()
