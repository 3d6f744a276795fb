"""What the feature store is worth: `fit` beside the plain way, on the same pictures, in one process.

    python tests/benchmarks/bench_fit.py [--labels labels.txt] [--backbone resnet50] [--epochs 5] [--rounds 5]

Plain: one Keras model in float32, frozen backbone inside, every picture through it in every epoch; read by `tf.data` in
every epoch, as such recipes do, or decoded beforehand and kept in memory, which no large set of pictures can be. Its
time is that of `Model.fit` alone. Ours: all that `fit` does once
TensorFlow is loaded and the backbone is built: reading and hashing pictures, features, heads, thresholds, intervals,
report and bundle; once with an empty store and once with a full one; with five folds, which train six models, and with
`--folds 0`, which like plain Keras trains one. What building the backbone takes, of both, stands below the table.
Weights are random; they do not change the work.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from table import interleaved, machine, markdown

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
PLAIN = "plain Keras, files read by `tf.data`"


def from_files(paths: np.ndarray, y: np.ndarray, name: str, config: FitConfig, *, shuffled: bool) -> tf.data.Dataset:
    """Pictures and labels, read anew in every epoch."""

    def read(path: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        pixels = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(pixels, (224, 224)), {name: labels}

    data = tf.data.Dataset.from_tensor_slices((paths, y))
    if shuffled:
        data = data.shuffle(len(paths), seed=config.seed)
    return data.map(read, tf.data.AUTOTUNE).batch(config.batch_size).prefetch(tf.data.AUTOTUNE)


def plain(config: FitConfig, *, files: bool) -> float:
    """Seconds that `Model.fit` takes with the backbone in the graph."""
    table, _ = locate_images(read_labels(config.labels), config.labels, None)
    keras.utils.set_random_seed(config.seed)
    backbone = build_backbone(str(config.backbone), "none", config.image_size)
    freeze(backbone)
    pictures = list(read_pictures(table.images, backbone.image_size))
    rows = [row for row, picture in enumerate(pictures) if picture.pixels is not None]
    y = table.y[rows]
    training, validation, _ = split_parts(y, config.val_share, seed=config.seed)
    head = LogitHead.for_labels(table.names, y[training])
    _, model = build_models(backbone, [head])
    model.compile("adam", {head.name: head.loss()})
    if files:
        paths = np.array([table.images[row] for row in rows])
        fitted = {"x": from_files(paths[training], y[training], head.name, config, shuffled=True)}
        judged: Any = from_files(paths[validation], y[validation], head.name, config, shuffled=False)
    else:
        x = np.stack([pictures[row].pixels for row in rows])
        fitted = {"x": x[training], "y": {head.name: y[training]}, "batch_size": config.batch_size}
        judged = x[validation], {head.name: y[validation]}
    started = time.perf_counter()
    model.fit(**fitted, validation_data=judged, epochs=config.epochs[0], verbose=0)
    return time.perf_counter() - started


def ours(config: FitConfig, building: list[float], *, empty: bool) -> float:
    """Seconds of all that `fit` does once the backbone is built; notes what that took."""
    if empty:
        shutil.rmtree(str(config.cache), ignore_errors=True)
    started = time.perf_counter()
    building.append(fit(config).building_seconds)
    return time.perf_counter() - started - building[-1]


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=Path, default=ROOT / "data" / "labels.txt")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("multilabel").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recipe = {"backbone": options.backbone, "weights": "none", "epochs": options.epochs, "lr": 1e-4}

        def config(folds: int) -> FitConfig:
            return FitConfig(
                options.labels, out=place / "model", folds=folds, cache=place / "cache", solver="adam", **recipe
            )

        building: list[float] = []
        fit(config(0))  # what TensorFlow loads when it is first used belongs to no way
        ways = {
            PLAIN: partial(plain, config(0), files=True),
            "plain Keras, pictures decoded beforehand": partial(plain, config(0), files=False),
            "`fit`, empty store": partial(ours, config(5), building, empty=True),
            "`fit --folds 0`, empty store": partial(ours, config(0), building, empty=True),
            "`fit`, full store": partial(ours, config(5), building, empty=False),
            "`fit --folds 0`, full store": partial(ours, config(0), building, empty=False),
        }
        measured = interleaved(ways, options.rounds)
    print(f"\n{options.backbone}, {options.labels.name}, {options.epochs} epochs; {machine()}\n")
    print(markdown("way", "seconds", measured, PLAIN, inverse=True))
    print(f"\nThe ratio says how many times as fast as plain Keras. Building the backbone: {median(building):.2f} s.")


if __name__ == "__main__":
    main()
