"""The command of `make demo` learns the sample data."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_reaches_its_macro_f1(root: Path, tmp_path: Path) -> None:
    recipe = re.search(r"multilabel (fit .*?)--out", (root / "Makefile").read_text(), re.DOTALL)
    assert recipe
    arguments = shlex.split(recipe[1].replace("\\\n", " "))
    out = tmp_path / "model"
    command = [sys.executable, "-m", "multilabel", *arguments, "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((out / "metrics.json").read_text())["parts"][0]
    assert metrics["macro_f1"] > 0.8
    assert all(scores["better_than_chance"] for scores in metrics["attributes"].values())
