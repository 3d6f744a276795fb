"""Where the time of a first `fit` goes, stage by stage: the plain way beside ours.

    python tests/benchmarks/bench_stages.py [--labels labels.txt] [--backbone resnet50] [--pictures 320] [--rounds 5]

Every stage is measured alone, on the same pictures, and the two ways take turns. Plain: pictures opened at full size
one after the other, `Model.predict` in float32, heads by `Model.fit`. Ours: what `fit` does. "Files to features" is the
whole way, in which ours decodes while it computes; the last rows are what every process pays once.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from bench_features import BASE, ROOT, keras_predict, make_pictures, whole
from PIL import Image
from table import interleaved, machine

from multilabel.backbones import build_backbone, resolve_precision
from multilabel.config import FitConfig
from multilabel.dataset import read_table
from multilabel.engine import Engine
from multilabel.features import BATCH_SIZE, FeatureStore, extract
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead
from multilabel.images import read_pictures
from multilabel.training import Batches, Phase, build_heads, train

ATTRIBUTES = 4


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def decode_plainly(paths: list[str], size: tuple[int, int]) -> None:
    """One after the other, at full size."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))


def compute(network: Callable[[np.ndarray], object], pixels: np.ndarray) -> None:
    """All pictures, batch by batch."""
    for start in range(0, len(pixels), BATCH_SIZE):
        network(pixels[start : start + BATCH_SIZE])


def to_features(engine: Engine, paths: list[str]) -> None:
    """From files into a new store."""
    with tempfile.TemporaryDirectory() as cache, FeatureStore(cache, engine) as store:
        extract(engine, paths, store)


def learn(trainer: Callable[..., object], features: np.ndarray, y: np.ndarray) -> None:
    """Five epochs of heads."""
    head = LogitHead.for_labels([f"attr{number}" for number in range(y.shape[1])], y)
    learnt, stopped_by = np.split(np.arange(len(y)), [len(y) * 4 // 5])
    batches = [Batches(features, {head.name: y}, rows, 32, 0) for rows in (learnt, stopped_by)]
    trainer(build_heads(features.shape[1], [head]), [head], *batches, Phase(5, 1e-3, 5))


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=Path, default=ROOT / "data" / "labels.txt")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # pictures that are absent or broken

    backbone = build_backbone(options.backbone, "none")
    engine = Engine(backbone, resolve_precision("auto"))
    size, count = backbone.image_size, options.pictures
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    features = rng.normal(size=(700, backbone.dimension)).astype(np.float32)
    y = rng.integers(-1, 2, (700, ATTRIBUTES)).astype(np.int8)
    digests = [bytes([index // 256, index % 256]) for index in range(len(features))]
    sources = [path for path in read_table(FitConfig(options.labels)).table.images if whole(path)]

    def keep() -> None:
        with tempfile.TemporaryDirectory() as cache, FeatureStore(cache, engine) as store:
            store.put(digests[:count], features[:count])

    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(sources, count, (800, 762), Path(folder))
        stages: dict[str, tuple[Callable[[], object] | None, Callable[[], object] | None]] = {
            "read, hash and decode": (partial(decode_plainly, paths, size), lambda: list(read_pictures(paths, size))),
            "forward pass": (
                lambda: backbone.model.predict(pixels, batch_size=BATCH_SIZE, verbose=0),
                partial(compute, engine, pixels),
            ),
            "write features": (None, keep),
            "**files to features**": (
                partial(keras_predict, backbone.model, Path(folder)),
                partial(to_features, engine, paths),
            ),
            "heads, 5 epochs on 700 features": (
                partial(learn, train, features, y),
                partial(learn, train_on_features, features, y),
            ),
        }
        ways = {
            (stage, way): partial(seconds, work)
            for stage, works in stages.items()
            for way, work in zip(("plain", "ours"), works, strict=True)
            if work is not None
        }
        interleaved(ways, 1)  # what is compiled or read for the first time
        taken = {name: median(values) for name, values in interleaved(ways, options.rounds).items()}
    once = {
        "once: load TensorFlow": partial(subprocess.run, [sys.executable, "-c", "import tensorflow"], check=True),
        "once: build the backbone": partial(build_backbone, options.backbone, "none"),
        "once: fold, check and freeze it": lambda: Engine(backbone, engine.precision)(pixels[:BATCH_SIZE]),
    }
    taken |= {
        (stage, "ours"): median(values)
        for stage, values in interleaved({name: partial(seconds, work) for name, work in once.items()}, 3).items()
    }
    print(f"\n{backbone.name} at {size}, {count} JPEGs of 800×762; {machine()}, {options.rounds} rounds\n")
    print(f"| stage | plain, seconds | ours ({engine.precision}), seconds | ratio |\n| --- | ---: | ---: | ---: |")
    for stage in dict.fromkeys(stage for stage, _ in taken):
        plain, ours = taken.get((stage, "plain")), taken[stage, "ours"]
        shown = ("", "") if plain is None else (f"{plain:.2f}", f"{plain / ours:.1f}")
        print(f"| {stage} | {shown[0]} | {ours:.2f} | {shown[1]} |")
    print(f"\nPlain files to features: {BASE}.")


if __name__ == "__main__":
    main()
