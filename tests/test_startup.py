"""Start-up: nothing heavy is imported before it is needed, and TensorFlow not at all where another runtime computes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_bundle import tag_bundle

from multilabel import bundle as bundles
from multilabel import export
from multilabel.cli import main

HEAVY = {"tensorflow", "keras", "pandas", "sklearn", "scipy", "matplotlib", "h5py", "tqdm", "numpy", "PIL"}
RUNTIMES = {"openvino", "onnxruntime", "ai_edge_litert"}
NEEDED = {"numpy", "PIL"}  # by everyone who predicts
EXPORTS = {"onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite"}
RUN = """
import json, sys
from multilabel.cli import main
code = 0
try:
    main(json.loads(sys.argv[1]))
except SystemExit as end:
    code = end.code
print(json.dumps(sorted({name.partition('.')[0] for name, module in sys.modules.items() if module})))
sys.exit(code)
"""


def imported(*arguments: object, code: int = 0, **environment: str) -> set[str]:
    """The packages that a command has imported in a process of its own."""
    command = [sys.executable, "-c", RUN, json.dumps(list(map(str, arguments)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == code, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in sorted(main.commands))]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) & (HEAVY | RUNTIMES) == set()


def test_help_is_quick() -> None:
    """In seconds of the processor, the best of three runs: other programs may be at work."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "multilabel", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("room", ["inference", "runtimes", "networks", "sheet", "matching", "description", "sidecar"])
def test_rooms_without_keras(room: str) -> None:
    code = f"import sys; import multilabel.{room}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert found & (HEAVY | RUNTIMES) <= NEEDED


def test_inspect_does_without_tensorflow(data: Path) -> None:
    assert imported("inspect", "--labels", data / "labels.csv", "--tags", "colour,shape").isdisjoint(
        {"tensorflow", "keras"} | RUNTIMES
    )


# --- predictions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures and their labels."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    (folder / "labels.csv").write_text(
        "image,hat,coat,colour,shape\n0.png,1,0,red,round\n1.png,0,1,green,square\n2.png,1,,red,round\n"
    )
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, its exports, and in `cache` its conversions, as far as the runtimes are installed."""
    if find_spec("openvino") is None or find_spec("onnxruntime") is None or find_spec("ai_edge_litert") is None:
        pytest.skip("the runtimes are not installed: pip install -e '.[test-exports]'")
    from multilabel import runtimes

    folder, bundle = tmp_path_factory.mktemp("models"), tag_bundle()
    (folder / "model").mkdir()
    bundles.save(bundle, folder / "model")
    for format, name in EXPORTS.items():
        export.export(bundle, format, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        # A conversion is an export: those that are there will do.
        patch.setattr(export, "export", lambda _, format, out: _copy(folder / EXPORTS[format], out))
        for runtime in ("openvino", "onnxruntime"):
            runtimes.load(folder / "model", runtime)
    return folder


def _copy(export: Path, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    for suffix in {"", ".json"} | ({".bin"} if export.suffix == ".xml" else set()):
        for path in ((export, out) if suffix != ".bin" else (export.with_suffix(""), out.with_suffix("")),):
            shutil.copy(f"{path[0]}{suffix}", f"{path[1]}{suffix}")


@pytest.mark.parametrize(
    ("name", "runtime", "package"),
    [
        ("model", "openvino", "openvino"),
        ("model", "onnxruntime", "onnxruntime"),
        ("m.xml", None, "openvino"),
        ("m.onnx", None, "onnxruntime"),
        ("m.onnx", "openvino", "openvino"),
        ("m.tflite", None, "ai_edge_litert"),
    ],
)
def test_predictions_import_their_runtime_and_no_other(
    models: Path, data: Path, tmp_path: Path, name: str, runtime: str | None, package: str
) -> None:
    chosen = [] if runtime is None else ["--runtime", runtime]
    found = imported(
        *["infer", "--model", models / name, *chosen, data / "images", "--format", "csv"],
        *["--output", tmp_path / "out.csv", "--sheet", tmp_path / "sheet.html", "--labels", data / "labels.csv"],
        XDG_CACHE_HOME=str(models / "cache"),
    )
    assert found & (HEAVY | RUNTIMES) == NEEDED | {package}
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
    assert "right" in (tmp_path / "sheet.html").read_text()


def test_the_bundle_itself_needs_tensorflow(models: Path, data: Path) -> None:
    found = imported("infer", "--model", models / "model", data / "images")
    assert found >= {"tensorflow", "keras"}
    assert found.isdisjoint(RUNTIMES)


def test_runtimes_keep_to_themselves(models: Path, data: Path, tmp_path: Path) -> None:
    """None writes to the terminal or tells its makers, for which they would keep an identity beside the cache."""
    shutil.copytree(models / "cache", tmp_path / "cache")
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_CPP_MIN_LOG_LEVEL")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
    for name, *chosen in (("model", "--runtime", "openvino"), ("m.onnx",), ("m.tflite",)):
        command = [sys.executable, "-m", "multilabel", "infer", "--model", str(models / name), *chosen]
        done = subprocess.run(
            [*command, str(data / "images")], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["multilabel"]
    assert not (tmp_path / "home").exists()


def test_what_is_wrong_is_said_without_tensorflow(models: Path) -> None:
    arguments = ["infer", "--model", models / "m.xml", "--runtime", "onnxruntime", "x.png"]
    command = [sys.executable, "-X", "importtime", "-m", "multilabel", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Error: --runtime onnxruntime does not run" in done.stderr
    assert "tensorflow.python" not in done.stderr
