"""The recipes in examples/, run as a user runs them, on pictures that are drawn here and for a moment only."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multilabel import load_bundle

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RECIPES = sorted(path.stem for path in EXAMPLES.glob("*.sh"))
COLUMNS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")
BUNDLE = {
    "history.csv",
    "label_issues.csv",
    "loss_curve.png",
    "metrics.json",
    "model.weights.h5",
    "multilabel.json",
    "predictions.csv",
    "report.html",
    "skipped.csv",
    "suggested_labels.csv",
}


def text_of(name: str) -> str:
    return (EXAMPLES / f"{name}.sh").read_text(encoding="utf-8")


def header_of(name: str) -> str:
    """The comment on top, without the signs of a comment."""
    lines = [line.lstrip("# ") for line in text_of(name).splitlines()[1:] if line.startswith("#")]
    return "\n".join(lines)


def command_of(name: str) -> list[str]:
    """The words of the recipe's command; none if there is none."""
    lines = [line for line in text_of(name).splitlines() if not line.startswith("#")]
    return shlex.split("\n".join(lines))


def option(command: list[str], name: str) -> str:
    """The value of an option; "" if it is not given."""
    return command[command.index(name) + 1] if name in command else ""


def of_recipes() -> list[object]:
    """Every recipe; all but one are slow."""
    quick = ["fashion_cnn_from_scratch"]
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in RECIPES]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures and both kinds of labels; of each tag the class `rare` has a single label."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    rows, lines = [], []
    for number in range(40):
        pixels = rng.integers(0, 80, (80, 60, 3)) + np.eye(3, dtype=int)[number % 3] * 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number}.jpg")
        classes = [f"{column} {(number // (place + 1)) % 3}" for place, column in enumerate(COLUMNS)]
        rows.append([str(number), *(classes if number else ["rare"] * len(COLUMNS)), "A thing, unquoted"])
        cells = [("NA" if (number + place) % 10 == 0 else str((number >> place) % 2)) for place in range(4)]
        lines.append(" ".join([f"{number}.jpg", *cells]))
    header = ",".join(["id", *COLUMNS, "productDisplayName"])
    (folder / "styles.csv").write_text("\n".join([header, *(",".join(row) for row in rows)]))
    (folder / "labels.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("name", of_recipes())
def test_a_recipe_runs(name: str, data: Path, tmp_path: Path) -> None:
    """Its own options, but shorter: fewer epochs, smaller pictures, random weights, and classes of 2 labels."""
    command = command_of(name)
    assert command[:3] == ["exec", "multilabel", "fit"], f"{name} holds no command"
    assert command[-1] == "$@"
    called = tmp_path / "bin" / "multilabel"
    called.parent.mkdir()
    called.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m multilabel "$@"\n')
    called.chmod(0o755)
    paths = {"PATH": called.parent, "PYTHONPATH": EXAMPLES.parent}
    environment = {**os.environ, **{key: f"{path}{os.pathsep}{os.environ.get(key, '')}" for key, path in paths.items()}}
    labels = data / ("styles.csv" if option(command, "--tags") else "labels.txt")
    shorter = ["--labels", labels, "--cache", tmp_path / "cache", "--weights", "none"]
    shorter += ["--epochs", "1,1" if option(command, "--fine-tune") else "1"]
    shorter += ["--image-size", "64"] if name == "fashion_pooled_classes" else ["--image-size", "32"]
    if option(command, "--tags"):
        shorter += ["--min-count", "2", "--min-share", "0"]
    done = subprocess.run(
        ["sh", EXAMPLES / f"{name}.sh", *map(str, shorter)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("The bundle is in model; use it with: multilabel infer --model mod")
    out = tmp_path / "model"
    assert {path.name for path in out.iterdir()} == BUNDLE
    bundle = load_bundle(out)
    tags = tuple(filter(None, option(command, "--tags").split(",")))
    assert tuple(tag.name for tag in bundle.tags) == tags
    assert bundle.attributes == (() if tags else ("attr1", "attr2", "attr3", "attr4"))
    assert bundle.backbone.name == option(command, "--backbone")
    description = json.loads((out / "multilabel.json").read_text())
    assert description["run_name"] == (option(command, "--run-name") or "model")
    assert description["provenance"]["rare_classes"] == {tag: {"rare": 1} for tag in tags}
    pooled = option(command, "--rare") == "pool"
    assert all((option(command, "--pool-name") in tag.classes) == pooled for tag in bundle.tags)
    with (out / "history.csv").open() as file:
        phases = {row["phase"] for row in csv.DictReader(file)}
    assert phases == ({"1", "2"} if "--fine-tune" in command else {"1"})
    assert bool(list(tmp_path.glob("logs/**/events.*"))) == ("--tensorboard" in command)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_how_to_run_it(name: str) -> None:
    header = header_of(name)
    labels = option(command_of(name), "--labels")
    assert f"sh examples/{name}.sh --labels {labels}" in header
    assert "images/" in header


def test_readme_mentions_every_example(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert [name for name in RECIPES if name not in readme] == []


def test_recipes_do_what_they_are_known_for() -> None:
    """The settings by which each recipe was asked for, wherever else they may change."""
    known = {
        "aimonk_resnet50": {"--backbone": "resnet50", "--image-size": "224", "--lr": "1e-4", "--epochs": "5"},
        "fashion_eight_tags": {"--backbone": "efficientnet_b0", "--epochs": "25,50", "--lr": "5e-3,5e-5"},
        "fashion_pooled_classes": {"--backbone": "efficientnet_b3", "--min-count": "500", "--pool-name": "None"},
        "fashion_cnn_from_scratch": {"--backbone": "cnn", "--image-size": "80x60", "--min-share": "0.01"},
        "fashion_six_tags": {"--backbone": "efficientnet_b0", "--fine-tune": "all"},
    }
    for name, settings in known.items():
        command = command_of(name)
        assert {key: option(command, key) for key in settings} == settings, name
    assert len(option(command_of("fashion_eight_tags"), "--tags").split(",")) == 8
    assert len(option(command_of("fashion_six_tags"), "--tags").split(",")) == 6
