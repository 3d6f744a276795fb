"""Pictures to features: Keras as it is, PyTorch, OpenVINO, our engine alone, and `extract` from files to the store.

    python tests/benchmarks/bench_features.py [--backbone resnet50] [--pictures 320] [--rounds 5]
        [--labels FILE] [--images FOLDER] [--torch-python PATH]

Pictures per second of a process that has computed before; all ways take turns in every round. The backbone has random
weights, which does not change the work. Pictures are those of data/, or of --labels, at several sizes, no two alike.
--torch-python names a Python that has torch and transformers, where this one has not.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from table import interleaved, machine, markdown

from multilabel.backbones import build_backbone, resolve_precision
from multilabel.config import FitConfig
from multilabel.dataset import read_table
from multilabel.engine import Engine
from multilabel.features import BATCH_SIZE, FeatureStore, extract

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"60×80": (60, 80), "800×762": (800, 762), "1600×1200": (1600, 1200)}
BASE = "Keras, float32, `predict` on `image_dataset_from_directory`"
_TORCH = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel
precision, side, folder = getattr(torch, sys.argv[1]), int(sys.argv[2]), sys.argv[3]
from pathlib import Path
paths = sorted(Path(folder).iterdir())
model = ResNetModel(ResNetConfig()).eval().to(precision).to(memory_format=torch.channels_last)
mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
def decode(path):
    return np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
def features(pixels):
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    x = ((x - mean) / deviation).to(precision).contiguous(memory_format=torch.channels_last)
    return model(x).pooler_output.flatten(1).float().numpy()
with torch.inference_mode(), ThreadPoolExecutor() as pool:
    features([decode(path) for path in paths[:32]])
    started = time.perf_counter()
    ahead = pool.map(decode, paths)
    for start in range(0, len(paths), 32):
        features([next(ahead) for _ in paths[start : start + 32]])
print(len(paths) / (time.perf_counter() - started))
"""


def make_pictures(sources: list[str], count: int, size: tuple[int, int], folder: Path) -> list[str]:
    """JPEGs of a size (width, height), with a little noise that makes each another file."""
    rng = np.random.default_rng(0)
    for index in range(count):
        with Image.open(sources[index % len(sources)]) as opened:
            image = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(image, np.int16) + rng.integers(-4, 5, (image.height, image.width, 1))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg", quality=88)
    return sorted(map(str, folder.iterdir()))


def rate(count: int, work: Callable[[], object]) -> float:
    """Pictures per second."""
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def keras_predict(model: keras.Model, folder: Path) -> None:
    """What a person would write with Keras alone."""
    size = model.input_shape[1:3]
    data = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=size, batch_size=BATCH_SIZE, shuffle=False, verbose=False
    )
    model.predict(data, verbose=0)


def in_batches(compute: Callable[[np.ndarray], object], pixels: np.ndarray, count: int) -> None:
    """So many pictures of pixels that are there already."""
    for start in range(0, count, BATCH_SIZE):
        compute(pixels[: min(BATCH_SIZE, count - start)])


def ours(engine: Engine, paths: list[str]) -> None:
    """From files to features in a new store."""
    with tempfile.TemporaryDirectory() as cache, FeatureStore(cache, engine) as store:
        if (computed := extract(engine, paths, store).computed) != len(paths):
            raise SystemExit(f"{computed} of {len(paths)} features were computed.")


def torch_rate(python: str, precision: str, side: int, folder: Path) -> float:
    """Pictures per second of a ResNet-50 of transformers."""
    command = [python, "-c", _TORCH, precision, str(side), str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def openvino_network(model: keras.Model) -> Callable[[np.ndarray], object]:
    """The network compiled by OpenVINO, in bfloat16."""
    import openvino
    import tensorflow as tf

    shape = (None, *model.input_shape[1:])
    function = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec(shape, tf.uint8)])
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(openvino.convert_model(function), "CPU", settings)


def has_torch(python: str) -> bool:
    """Whether an interpreter has what the PyTorch rows need."""
    return subprocess.run([python, "-c", "import torch, transformers"], capture_output=True).returncode == 0


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--labels", type=Path, default=ROOT / "data" / "labels.txt")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable)
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # pictures that are absent or broken

    backbone = build_backbone(options.backbone, "none")
    precision = resolve_precision("auto")
    engine = Engine(backbone, precision)
    side, count = backbone.image_size[0], options.pictures
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, *backbone.image_size, 3), dtype=np.uint8)
    sources = [path for path in read_table(FitConfig(options.labels, options.images)).table.images if whole(path)]
    absent = []
    bare: dict[str, Callable[[], float]] = {}
    if importlib.util.find_spec("openvino"):
        network = openvino_network(backbone.model)
        bare["OpenVINO, bfloat16, forward pass alone"] = partial(
            rate, count, partial(in_batches, network, pixels, count)
        )
    else:
        absent.append("OpenVINO is not installed: no row of it.")
    forward = partial(in_batches, engine, pixels, count)
    bare[f"our engine, {precision}, forward pass alone"] = partial(rate, count, forward)
    with_torch = backbone.name == "resnet50" and has_torch(options.torch_python)
    if not with_torch:
        absent.append(
            "PyTorch and transformers are not there, or this is no resnet50: no rows of them (--torch-python)."
        )

    print(f"{backbone.name} at {backbone.image_size}; {count} pictures, {options.rounds} rounds; {machine()}")
    print("\n".join(absent))
    for title, size in SIZES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            paths = make_pictures(sources, count, size, folder)
            ways = {BASE: partial(rate, count, partial(keras_predict, backbone.model, folder))}
            for torch_precision in ("float32", "bfloat16") if with_torch else ():
                ways[f"PyTorch, transformers, {torch_precision}"] = partial(
                    torch_rate, options.torch_python, torch_precision, side, folder
                )
            ways |= bare
            ways[f"ours, {precision}, from files into the store"] = partial(rate, count, partial(ours, engine, paths))
            interleaved(ways, 1)  # what is compiled or read for the first time
            print(f"\n{markdown(title, 'pictures/s', interleaved(ways, options.rounds), BASE)}", flush=True)


def whole(path: str) -> bool:
    """Whether it is a picture; data/ holds broken ones, too."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
