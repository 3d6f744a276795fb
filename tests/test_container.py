"""The Dockerfile, as far as it can be checked without an engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from multilabel.cli import main


def test_the_linter_finds_nothing(root: Path) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    linter = str(beside) if beside.exists() else shutil.which("hadolint")
    if linter is None:
        pytest.skip("needs hadolint: pip install -e '.[test-container]'")
    done = subprocess.run([linter, root / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_copies_what_there_is_and_calls_what_there_is(root: Path) -> None:
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    stages = text.split("\nFROM ")
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", stages[1], re.MULTILINE) for name in line.split()
    }
    allowed = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert all((root / name).exists() for name in copied)
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", stages[2], re.MULTILINE)[0])
    command = json.loads(re.findall(r"^CMD (.*)$", stages[2], re.MULTILINE)[0])
    assert entry[:2] == ["multilabel", "serve"]
    anywhere = ["0" if argument == "8000" else argument for argument in [*entry[1:], *command]]
    result = CliRunner().invoke(main, anywhere)
    assert result.output == "Error: /model is not a bundle (it does not exist); make one with `multilabel fit`.\n"
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", stages[2], re.MULTILINE)
    assert "HEALTHCHECK" in stages[2]
