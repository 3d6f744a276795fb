"""A process that is killed at any moment loses at most one batch, and spoils nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from multilabel.features import BATCH_SIZE

MOMENTS = 20
RUNS = 5  # the next after each kill is killed, too, until so many are left to end

# `fit` as a user runs it, with a line in a file for every feature that is computed, before it is stored.
DRIVER = """
import os, sys
from multilabel import features
from multilabel.cli import main

put = features.FeatureStore.put

def logged(store, digests, rows):
    with open(os.environ["COMPUTED"], "a") as log:
        log.writelines(digest.hex() + "\\n" for digest in digests)
    put(store, digests, rows)

features.FeatureStore.put = logged
import multilabel.pipeline
print("ready", flush=True)
main(sys.argv[1:])
"""


@dataclass
class Run:
    """One place to run in: its store, its bundle, its log."""

    folder: Path
    labels: Path

    def start(self) -> subprocess.Popen[str]:
        arguments = ["fit", "--labels", str(self.labels), "--backbone", "cnn", "--weights", "none"]
        arguments += ["--image-size", "64", "--epochs", "15", "--cache", "cache", "--out", "model"]
        environment = {**os.environ, "COMPUTED": "computed.txt"}
        command = [sys.executable, "-c", DRIVER, *arguments]
        self.folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def finish(self) -> float:
        """Runs to the end; seconds after loading."""
        process = self.start()
        started = time.perf_counter()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return time.perf_counter() - started

    def kill_after(self, seconds: float) -> None:
        process = self.start()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    @property
    def computed(self) -> list[str]:
        log = self.folder / "computed.txt"
        return log.read_text().split() if log.exists() else []

    def outcome(self) -> dict[str, str]:
        """All that a bundle says, but for when and where it was made."""
        model = self.folder / "model"
        description = json.loads((model / "multilabel.json").read_text())
        del description["provenance"]
        tables = {name: (model / name).read_text() for name in ("metrics.json", "predictions.csv", "history.csv")}
        return {"description": json.dumps(description), **tables}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Run, float]:
    run = Run(tmp_path_factory.mktemp("kill") / "undisturbed", root / "data" / "labels.txt")
    return run, run.finish()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(RUNS))
def test_killed_at_any_moment_the_next_run_finishes_and_is_equal(
    first: int, undisturbed: tuple[Run, float], tmp_path: Path
) -> None:
    whole, seconds = undisturbed
    run = Run(tmp_path / "run", whole.labels)
    # One moment in each twentieth of the run, so that extraction, training and writing are all met.
    moments = range(first, MOMENTS, RUNS)
    for moment in moments:
        run.kill_after(seconds * (moment + random.Random(moment).random()) / MOMENTS)
    run.finish()
    assert run.outcome() == whole.outcome()
    assert set(run.computed) == set(whole.computed)
    assert len(run.computed) - len(set(run.computed)) <= BATCH_SIZE * len(moments)
    assert sorted(path.name for path in run.folder.iterdir()) == ["cache", "computed.txt", "model"]
