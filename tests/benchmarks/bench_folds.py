"""What out-of-fold evaluation costs: `fit --folds 5` against `--folds 0`, on stored features, start-up included.

Pictures are the sample data's, repeated under new names with a comment that makes each file another one; their features
are computed first, and that is not measured. Prints a Markdown table; a ratio is that of the medians of its rounds.

    python tests/benchmarks/bench_folds.py
    python tests/benchmarks/bench_folds.py --pictures 45000 --tags 7 --rounds 1
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CLASSES = (5, 7, 45, 140, 46, 4, 8, 3, 12)  # of the tags, as many as those of the fashion products


def write_pictures(folder: Path, count: int) -> list[str]:
    """Pictures that look like the sample data's and are all different files."""
    folder.mkdir()
    sources = []
    for path in sorted((ROOT / "data" / "images").glob("*.jpg")):
        content = path.read_bytes()
        if content.endswith(b"\xff\xd9"):  # one is cut off on purpose
            sources.append(content)
    names = [f"{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        comment = f"{number:06}".encode()
        content = sources[number % len(sources)]
        marked = content[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:]
        (folder / name).write_bytes(marked)
    return names


def write_labels(path: Path, names: list[str], tags: int, attributes: int) -> None:
    """Labels that features can partly tell: they follow the number of the picture they are drawn from, with noise."""
    rng = np.random.default_rng(0)
    kind = np.arange(len(names)) % 397
    columns = []
    for number in range(attributes):
        truth = (np.random.default_rng(number).random(397) < 0.4)[kind]
        columns.append(np.where(rng.random(len(names)) < 0.2, ~truth, truth).astype(int).astype(str))
    for number in range(tags):
        count = CLASSES[number % len(CLASSES)]
        of_kind = np.minimum(np.random.default_rng(100 + number).zipf(1.6, 397) - 1, count - 1)[kind]
        random = rng.integers(count, size=len(names))
        columns.append(np.char.add("c", np.where(rng.random(len(names)) < 0.2, random, of_kind).astype(str)))
    for column in columns:
        column[rng.random(len(names)) < 0.1] = "NA"
    header = ["image", *(f"attr{n + 1}" for n in range(attributes)), *(f"tag{n + 1}" for n in range(tags))]
    rows = zip(names, *columns, strict=True)
    path.write_text("\n".join(",".join(row) for row in [header, *rows]))


@click.command(help=__doc__)
@click.option("--pictures", default=972, show_default=True)
@click.option("--attributes", default=4, show_default=True, help="Ignored where there are tags.")
@click.option("--tags", default=0, show_default=True)
@click.option("--backbone", default="mobilenet_v2", show_default=True, help="With random weights.")
@click.option("--image-size", default="64", show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(pictures: int, attributes: int, tags: int, backbone: str, image_size: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        names = write_pictures(folder / "images", pictures)
        write_labels(folder / "labels.csv", names, tags, 0 if tags else attributes)
        columns = ["--tags", ",".join(f"tag{number + 1}" for number in range(tags))] if tags else []
        command = [sys.executable, "-m", "multilabel", "fit", "--labels", "labels.csv", *columns]
        command += ["--backbone", backbone, "--weights", "none", "--image-size", image_size, "--cache", "cache"]

        def seconds(*options: str) -> float:
            started = time.perf_counter()
            subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)
            return time.perf_counter() - started

        seconds("--folds", "0", "--epochs", "1")  # computes the features
        taken: dict[str, list[float]] = {"0": [], "5": []}
        for _ in range(rounds):
            for folds, values in taken.items():
                values.append(seconds("--folds", folds))
        what = f"{tags} tags" if tags else f"{attributes} attributes"
        print(f"\n{pictures:,} pictures, {what}, {backbone} features, {os.cpu_count()} cores, {rounds} rounds\n")
        print("| `fit` on stored features | seconds (median) | lowest to highest | ratio to `--folds 0` |")
        print("| --- | ---: | ---: | ---: |")
        for folds, values in taken.items():
            ratio = np.median(values) / np.median(taken["0"])
            print(
                f"| `--folds {folds}` | {np.median(values):.1f} | {min(values):.1f} to {max(values):.1f} "
                f"| {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()
