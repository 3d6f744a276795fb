"""One picture from a cold start, and a thousand warm, with every runtime and precision that is installed here.

    python tests/benchmarks/bench_infer.py [--backbone resnet50] [--pictures 1000] [--rounds 5]

Cold: the seconds of the whole command `multilabel infer PICTURE`, start-up included, with conversions already made.
Warm: pictures per second of `predict` in a process that has answered before, from files to decisions. The model has a
backbone with random weights, which does not change the work, and is fitted to the pictures in data/.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from table import interleaved, machine, markdown

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"tensorflow": "tensorflow", "openvino": "openvino", "onnxruntime": "onnxruntime"}
PRECISIONS = {"tensorflow": ("float32", "bfloat16"), "openvino": ("float32", "bfloat16"), "onnxruntime": ("float32",)}
INT8 = ("openvino", "int8")  # an export of its own
_WARM = """
import itertools, sys, time
from multilabel.inference import predict
from multilabel.runtimes import load
model = load(sys.argv[1], sys.argv[2], sys.argv[3] if sys.argv[3] != "int8" else None)
pictures = list(itertools.islice(itertools.cycle(sys.argv[5:]), int(sys.argv[4])))
list(predict(model, pictures[:64]))
started = time.perf_counter()
list(predict(model, pictures))
print(len(pictures) / (time.perf_counter() - started))
"""


def cold(model: Path, runtime: str, precision: str, picture: str) -> float:
    """Seconds of the whole command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "multilabel", "infer", picture, "--model", str(model), "--runtime", runtime]
    command += ["--precision", precision] if precision != "int8" else []
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def warm(model: Path, runtime: str, precision: str, count: int, pictures: list[str]) -> float:
    """Pictures per second."""
    command = [sys.executable, "-c", _WARM, str(model), runtime, precision, str(count), *pictures]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", default="224")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    whole = [path for path in sorted((ROOT / "data" / "images").glob("*.jpg")) if path.read_bytes()[-2:] == b"\xff\xd9"]
    pictures = list(map(str, itertools.islice(whole, 100)))
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        fit = ["fit", "--labels", str(ROOT / "data" / "labels.txt"), "--backbone", options.backbone]
        fit += ["--weights", "none", "--image-size", options.image_size, "--folds", "0", "--out", str(model)]
        subprocess.run([sys.executable, "-m", "multilabel", *fit], check=True, capture_output=True)
        installed = [name for name, package in PACKAGES.items() if importlib.util.find_spec(package)]
        ways = {(runtime, precision): model for runtime in installed for precision in PRECISIONS[runtime]}
        if "openvino" in installed and importlib.util.find_spec("nncf"):
            ways[INT8] = Path(folder) / "model-int8.xml"
            export = ["export", "--model", str(model), "--format", "openvino", "--int8"]
            export += ["--calibrate-on", str(ROOT / "data" / "images"), "--out", str(ways[INT8])]
            subprocess.run([sys.executable, "-m", "multilabel", *export], check=True, capture_output=True)
        for way, path in ways.items():
            cold(path, *way, pictures[0])  # converts
        print(f"\n{options.backbone} at {options.image_size}; {machine()}, {options.rounds} rounds\n")
        one = {", ".join(way): partial(cold, path, *way, pictures[0]) for way, path in ways.items()}
        base = ", ".join(next(iter(ways)))
        print(markdown("one picture, cold", "seconds", interleaved(one, options.rounds), base), "\n")
        many = {", ".join(way): partial(warm, path, *way, options.pictures, pictures) for way, path in ways.items()}
        what = f"{options.pictures:,} pictures, warm"
        print(markdown(what, "pictures/s", interleaved(many, options.rounds), base))


if __name__ == "__main__":
    main()
