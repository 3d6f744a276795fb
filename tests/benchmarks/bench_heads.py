"""Heads on stored features: steps of Adam against L-BFGS, and how much memory training takes.

Heads are cross-fitted, and calibrated as `fit` does, with several seeds; every score is out of fold. Prints Markdown
tables; a ± is the standard deviation over the seeds. Features of the pictures are computed first, and that is not
measured; without --labels, features are made up.

    python tests/benchmarks/bench_heads.py --labels labels.txt --backbone mobilenet_v2 --weights FILE
    python tests/benchmarks/bench_heads.py --labels styles.csv --tags gender,articleType
    python tests/benchmarks/bench_heads.py --pictures 45000 --seeds 1
    python tests/benchmarks/bench_heads.py --memory 1000000
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
CLASSES = (5, 7, 45, 140, 46, 4, 8)  # of the tags, as many as those of the fashion products
DIMENSION = 1280
BIG_DIMENSION = 2048


def made_up(pictures: int, tags: int, attributes: int) -> tuple[Any, Any]:
    """A stand-in for a backbone and a data set: features follow what a picture shows, and labels are partly wrong."""
    from multilabel.backbones import build_backbone
    from multilabel.dataset import Dataset
    from multilabel.labels import LabelTable, Tag
    from multilabel.training import Pictures

    rng = np.random.default_rng(0)
    kind = rng.integers(397, size=pictures)
    x = rng.normal(size=(397, DIMENSION)).astype(np.float32)[kind]
    x += 4 * rng.standard_normal(x.shape, dtype=np.float32)
    y = np.empty((pictures, 0 if tags else attributes), np.int8)
    for number in range(y.shape[1]):
        truth = (np.random.default_rng(number).random(397) < 0.4)[kind]
        y[:, number] = np.where(rng.random(pictures) < 0.2, ~truth, truth)
    tag_y = np.empty((pictures, tags), np.int16)
    for number in range(tags):
        count = CLASSES[number % len(CLASSES)]
        of_kind = np.minimum(np.random.default_rng(100 + number).zipf(1.6, 397) - 1, count - 1)[kind]
        tag_y[:, number] = np.where(rng.random(pictures) < 0.2, rng.integers(count, size=pictures), of_kind)
    for labels in (y, tag_y):
        labels[rng.random(labels.shape) < 0.1] = -1
    names = [str(number) for number in range(pictures)]
    known = [Tag(f"tag{n + 1}", tuple(map(str, range(CLASSES[n % len(CLASSES)])))) for n in range(tags)]
    table = LabelTable(
        tuple(names), y, tuple(f"attr{n + 1}" for n in range(y.shape[1])), tags=tuple(known), tag_y=tag_y
    )
    digests = [name.encode() for name in names]
    backbone = build_backbone("mobilenet_v2", "none", (96, 96))  # for its dimension alone
    return backbone, Dataset(table, names, digests, [], x, "float32", Pictures(names, (96, 96)), 0, 0.0)


def read(settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Configuration, backbone and data set of real pictures."""
    from multilabel.backbones import build_backbone, freeze
    from multilabel.config import FitConfig
    from multilabel.dataset import read_dataset, read_table
    from multilabel.engine import Engine

    config = FitConfig(**{name: value for name, value in settings.items() if value is not None})
    backbone = build_backbone(str(config.backbone), str(config.weights), config.image_size)
    freeze(backbone)
    return config, backbone, read_dataset(config, read_table(config), Engine(backbone), False)


def scores(config: Any, backbone: Any, data: Any) -> tuple[dict[str, tuple[float, float]], tuple[float, float]]:
    """Per attribute and tag the log loss, and AUC or accuracy; and the seconds of training, by clock and processor."""
    from sklearn.metrics import roc_auc_score

    from multilabel.crossfit import cross_fit, deal
    from multilabel.heads import SoftmaxHead
    from multilabel.held_out import HeldOut

    rows = np.arange(len(data.names))
    folds = deal(data, rows, 5, config.seed)
    clocks = time.perf_counter, time.process_time
    started = [clock() for clock in clocks]
    found = cross_fit(config, backbone, data, rows, folds, False)
    seconds, busy = (clock() - start for clock, start in zip(clocks, started, strict=True))
    click.echo(f"{config.solver}, seed {config.seed}: {seconds:.1f} s", err=True)
    heads = found.kept.heads
    part = HeldOut.calibrated("out-of-fold", rows, found.logits, folds, heads, data.table)
    of_columns: dict[str, tuple[float, float]] = {}
    for head in heads:
        y, p = head.targets(data.table), np.clip(part.p[head.name], 1e-12, 1)
        if isinstance(head, SoftmaxHead):
            known = np.flatnonzero(y >= 0)
            right = p[known].argmax(axis=1) == y[known]
            of_columns[head.tag] = float(-np.log(p[known, y[known]]).mean()), float(right.mean())
            continue
        for name, labels, shares in zip(head.attributes, y.T, p.T, strict=True):
            known = labels >= 0
            of_labels = np.where(labels[known] == 1, shares[known], np.maximum(1 - shares[known], 1e-12))
            of_columns[name] = float(-np.log(of_labels).mean()), float(roc_auc_score(labels[known], shares[known]))
    return of_columns, (seconds, busy)


def compare(config: Any, backbone: Any, data: Any, seeds: int, solvers: Sequence[str]) -> None:
    """Prints the table of the solvers."""
    x = data.stored_features
    tags = ", ".join(f"{tag.name} ({len(tag.classes)})" for tag in data.table.tags)
    print(
        f"\n{x.shape[0]:,} pictures × {x.shape[1]} features, {tags or f'{len(data.table.names)} attributes'}, ", end=""
    )
    print(f"5 folds, {seeds} seeds, {os.cpu_count()} cores\n")
    print("| attribute or tag | solver | log loss | AUC or accuracy |\n| --- | --- | ---: | ---: |")
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for seed in range(seeds):
        for solver in solvers:
            found, seconds = scores(replace(config, folds=5, seed=seed, solver=solver), backbone, data)
            taken[solver].append(seconds)
            for name, of_column in found.items():
                values[name, solver].append(of_column)
    for (name, solver), of_seeds in values.items():
        (loss, good), (loss_sd, good_sd) = np.mean(of_seeds, axis=0), np.std(of_seeds, axis=0)
        print(f"| {name} | {solver} | {loss:.4f} ± {loss_sd:.4f} | {good:.4f} ± {good_sd:.4f} |")
    print("\n| solver | seconds (median) | lowest to highest | of the processor |\n| --- | ---: | ---: | ---: |")
    for solver, of_runs in taken.items():
        (seconds, busy), low, high = np.median(of_runs, axis=0), min(of_runs)[0], max(of_runs)[0]
        print(f"| {solver} | {seconds:.1f} | {low:.1f} to {high:.1f} | {busy:.1f} |")


def peak_memory(rows: int, solver: str, folder: Path, dimension: int = BIG_DIMENSION) -> tuple[float, float]:
    """Peak resident memory in GiB of a process that trains heads on that many rows of float16 in a file, and seconds.

    The file is sparse: it takes no room on the disk, but in memory it would.
    """
    code = f"""
import resource, sys, time
import numpy as np
from multilabel.convex import train_convex
from multilabel.head_training import train_on_features
from multilabel.heads import LogitHead
from multilabel.training import Batches, Phase, build_heads
rows, dimension = {rows}, {dimension}
x = np.memmap(sys.argv[1], np.float16, "r+", shape=(rows, dimension))
x[:: rows // 100] = np.random.default_rng(0).normal(size=x[:: rows // 100].shape)
y = np.random.default_rng(1).integers(-1, 2, (rows, 4)).astype(np.int8)
head = LogitHead.for_labels("abcd", y)
learn, stop = np.split(np.arange(rows), [rows * 4 // 5])
batches = [Batches(x, {{head.name: y}}, part, 256, 0) for part in (learn, stop)]
trainer, steps = {{"adam": (train_on_features, 1), "lbfgs": (train_convex, 2)}}["{solver}"]
started = time.perf_counter()
trainer(build_heads(dimension, [head]), [head], *batches, Phase(steps, 1e-3, 5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter() - started)
"""
    path = folder / f"{rows}.f16"
    with path.open("wb") as file:
        file.truncate(2 * rows * dimension)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    finally:
        path.unlink()
    kilobytes, seconds = map(float, done.stdout.split())
    return kilobytes / 2**20, seconds


def show_memory(most: int) -> None:
    """Prints the table of peak memory, of a hundredth of the rows and of all."""
    print(f"\nPeak memory of a process that trains heads on float16 features × {BIG_DIMENSION} in a file\n")
    print("| solver | rows | file | peak memory | seconds |\n| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for solver in ("adam", "lbfgs"):
            for rows in (most // 100, most):
                size = 2 * rows * BIG_DIMENSION / 2**30
                peak, seconds = peak_memory(rows, solver, Path(folder))
                print(f"| {solver} | {rows:,} | {size:.2f} GiB | {peak:.2f} GiB | {seconds:.0f} |")


@click.command(help=__doc__)
@click.option("--labels", type=click.Path(path_type=Path), help="Labels of real pictures.")
@click.option("--images", type=click.Path(path_type=Path))
@click.option("--tags", default="", help="Columns of the labels.")
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path))
@click.option("--pictures", default=6000, show_default=True, help="Without --labels.")
@click.option("--made-up-tags", default=7, show_default=True, help="Without --labels; 0: 4 attributes.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--solvers", default="adam,lbfgs", show_default=True)
@click.option("--memory", type=int, help="Measure peak memory on so many rows, and nothing else.")
def main(pictures: int, made_up_tags: int, seeds: int, solvers: str, memory: int | None, **settings: Any) -> None:
    if memory is not None:
        show_memory(memory)
        return
    if settings["labels"] is None:
        from multilabel.config import FitConfig

        config = FitConfig(Path("made up"))
        backbone, data = made_up(pictures, made_up_tags, 4)
    else:
        config, backbone, data = read({**settings, "tags": settings["tags"] or None})
    compare(config, backbone, data, seeds, solvers.split(","))


if __name__ == "__main__":
    main()
