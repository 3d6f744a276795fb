"""Servers for tests: one in this process around a model of NumPy, one in a process of its own, as a user starts it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multilabel.labels import Tag
from multilabel.thresholds import Threshold

BOUNDARY = "frontier"


@dataclass(frozen=True)
class MeanModel:
    """Says how bright the channels of a picture are: `red` and `green` as attributes, and a tag."""

    run_name: str = "means"
    image_size: tuple[int, int] = (8, 8)
    outputs: tuple[str, ...] = ("attributes", "tag_tone")
    attributes: tuple[str, ...] = ("red", "green")
    tags: tuple[Tag, ...] = (Tag("tone", ("dark", "bright")),)
    thresholds: tuple[Threshold, ...] = (Threshold(0.5, "tuned", 20), Threshold(0.25, "tuned", 20))
    not_better_than_chance: tuple[str, ...] = ("green",)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        means = pixels.mean(axis=(1, 2)) / 255
        bright = means.mean(axis=1)
        return {"attributes": means[:, :2], "tag_tone": np.stack([1 - bright, bright], axis=1)}


def picture(colour: tuple[int, int, int] = (200, 100, 0), size: tuple[int, int] = (16, 12)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def form(*files: tuple[str, bytes], field: str = "files") -> bytes:
    """The body of a form of files, by their names."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        request = urllib.request.Request(self.url + path, body, dict(headers or (FORM if body is not None else {})))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def resident(self) -> float:
        """Its memory, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def stop(self) -> int:
        """Tells it to end, and waits; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def served(model: Path, log: Path, *options: object) -> Iterator[Running]:
    """`multilabel serve`, ready."""
    command = [sys.executable, "-m", "multilabel", "serve", "--model", model, "--port", 0, *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ}
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+/", said)
        assert found, (said, log.read_text())
        running = Running(process, found[0], log)
        until = time.monotonic() + 120
        while running.ask("readyz")[0] != 200:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield running
    finally:
        process.kill()
        process.wait()
