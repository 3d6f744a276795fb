"""`multilabel serve` under load, beside the bare model: how much of its throughput gets through HTTP.

    python tests/benchmarks/bench_serve.py [--backbone resnet50] [--runtime tensorflow] [--seconds 60]

Both in one run: batches of 32 pictures that are in memory already through the model, before and after; then requests of
one picture each from another process on loopback, as many at a time as there are connections, JPEGs of three sizes, one
in twenty broken. Weights are random; they do not change the work.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from table import machine

ROOT = Path(__file__).resolve().parents[2]
BATCH = 32
SIZES = ((80, 60), (400, 300), (800, 762))  # (height, width)
BROKEN = 0.05
BARE = """
import sys, time, numpy as np
from multilabel.runtimes import load
model = load(sys.argv[1], sys.argv[2])
pixels = np.random.default_rng(0).integers(0, 256, (32, *model.image_size, 3), dtype=np.uint8)
for _ in range(3):
    model.probabilities(pixels)
started, done = time.perf_counter(), 0
while time.perf_counter() - started < float(sys.argv[3]):
    model.probabilities(pixels)
    done += len(pixels)
print(done / (time.perf_counter() - started))
"""


def picture(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG with some structure: noise alone would be larger than photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse) + rng.normal(0, 6, (*size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


def form(data: bytes) -> bytes:
    """The body of a request of one file."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + data + b"\r\n--b--\r\n"


def bare(model: Path, runtime: str, seconds: float) -> float:
    """Pictures per second of the model alone, in a process of its own."""
    command = [sys.executable, "-c", BARE, str(model), runtime, str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def resident(pid: int) -> float:
    """Memory of a process, in MiB."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


class Load:
    """Requests from several connections until the time is over."""

    def __init__(self, port: int, bodies: list[bytes], broken: list[bytes]) -> None:
        self.port, self.bodies, self.broken = port, bodies, broken
        self.latencies: list[float] = []
        self.statuses: Counter[int | str] = Counter()
        self.wrong = 0
        self._lock = threading.Lock()

    def run(self, connections: int, seconds: float) -> float:
        """Seconds that it took."""
        started = time.perf_counter()
        threads = [
            threading.Thread(target=self._ask, args=(number, started + seconds)) for number in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def _ask(self, seed: int, until: float) -> None:
        rng = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        while time.perf_counter() < until:
            is_broken = rng.random() < BROKEN
            body = rng.choice(self.broken if is_broken else self.bodies)
            asked = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, headers)
                answer = connection.getresponse()
                answer.read()
                status: int | str = answer.status
            except (OSError, http.client.HTTPException) as error:
                status = type(error).__name__
                connection.close()
            with self._lock:
                self.latencies.append(time.perf_counter() - asked)
                self.statuses[status] += 1
                self.wrong += status != 503 and status != (422 if is_broken else 200)


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--runtime", default="tensorflow")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        fit = ["fit", "--labels", ROOT / "data" / "labels.txt", "--backbone", options.backbone, "--weights", "none"]
        fit += ["--folds", "0", "--epochs", "1", "--cache", Path(folder, "cache"), "--out", model]
        multilabel = [sys.executable, "-m", "multilabel"]
        subprocess.run([*multilabel, *map(str, fit)], check=True, capture_output=True)
        alone = [bare(model, options.runtime, 15)]
        command = [*multilabel, "serve", "--model", str(model), "--port", "0", "--runtime", options.runtime]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
            bodies = [form(picture(size, seed)) for size in SIZES for seed in range(8)]
            broken = [body[: len(body) // 3] + b"\r\n--b--\r\n" for body in bodies]
            Load(port, bodies, broken).run(options.connections, 10)  # until it is warm
            before = resident(server.pid)
            load = Load(port, bodies, broken)
            seconds = load.run(options.connections, options.seconds)
            after = resident(server.pid)
        finally:
            server.terminate()
            server.wait()
        alone.append(bare(model, options.runtime, 15))
    rate, base = len(load.latencies) / seconds, median(alone)
    predicted = load.statuses[200] / seconds
    p50, p99 = np.percentile(load.latencies, [50, 99]) * 1000
    print(f"\n{options.backbone}, {options.runtime}, {options.connections} connections, {seconds:.0f} s; {machine()}\n")
    print("| | pictures/s | ratio |\n| --- | ---: | ---: |")
    print(f"| the model alone, batches of {BATCH} | {base:.1f} ({min(alone):.1f} to {max(alone):.1f}) | 1 |")
    print(f"| over HTTP, predicted | {predicted:.1f} | {predicted / base:.3f} |")
    print(f"| over HTTP, answered, broken ones too | {rate:.1f} | {rate / base:.3f} |")
    print(f"\nOf requests p50 {p50:.0f} ms, p99 {p99:.0f} ms; memory {before:.0f} to {after:.0f} MiB.")
    statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(load.statuses.items(), key=str))
    print(f"Answers: {statuses}; not as they should be: {load.wrong}.")


if __name__ == "__main__":
    main()
