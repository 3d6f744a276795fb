"""Exported networks in the runtimes that compute them: pixels → every output, by its name in the file.

No runtime is imported before one of its files is opened, and none imports another. They use all processors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .processors import limit, processors

Network = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""n pictures, uint8 `(n, height, width, 3)` RGB → `(n, ...)` by output."""

RUNTIMES_OF = {  # by format of an export; the first is the default
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "litert": ("litert",),
    "saved_model": ("tensorflow",),
    "keras": ("tensorflow",),
}
_AT_ONCE = 4  # pictures: the processor's caches hold what is computed of so few, and all processors get some
_MANY = 8  # pictures from which on OpenVINO computes several at a time instead of each quickly
_OPENVINO_PRECISIONS = {"float32": ("FP32", "f32"), "bfloat16": ("BF16", "bf16"), "float16": ("FP16", "f16")}


def open_network(runtime: str, file: Path, precision: str = "float32") -> Network:
    """Reads a network.

    Args:
        runtime: `"openvino"` (`.xml`, `.onnx`), `"onnxruntime"` (`.onnx`), `"litert"` (`.tflite`) or `"tensorflow"`
            (`.keras`, or the folder of a SavedModel).
        file: the file, or the folder.
        precision: what it computes in; see `computes_in`.

    Raises:
        Exception: whatever the runtime raises on a file that it cannot read.
    """
    if runtime == "openvino":
        return _OpenVino(file, precision)
    return {"onnxruntime": _onnxruntime, "litert": _litert, "tensorflow": _tensorflow}[runtime](file)


def computes_in(runtime: str, precision: str) -> bool:
    """Whether a runtime computes an exported network in a precision, on this machine."""
    if precision == "float32":
        return True
    if runtime != "openvino":
        return False
    capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return _OPENVINO_PRECISIONS[precision][0] in capabilities


def import_openvino() -> Any:
    """OpenVINO without what tells its makers what it is used for; it can do without, and is imported sooner."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def import_onnxruntime() -> Any:
    """ONNX Runtime, which since 1.29 tells its makers what it is used for unless this variable is there before."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class _OpenVino:
    """Compiled for the first pictures that come: few are computed by all processors together, many side by side.

    Of two processors' time, side by side takes MobileNetV2 a quarter less and ResNet50 a few percent. To keep what was
    compiled for the next start (`CACHE_DIR`) would save 0.06 s of it, which is not worth a second kind of files.
    """

    def __init__(self, file: Path, precision: str) -> None:
        self._core = import_openvino().Core()
        self._model = self._core.read_model(file)
        # Left to itself, OpenVINO computes in bfloat16 where the processor can.
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISIONS[precision][1]}
        if threads := limit():
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._queue: Any = None

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        if self._queue is None:
            self._queue = self._compiled("THROUGHPUT" if len(pixels) >= _MANY else "LATENCY")
        parts: dict[int, dict[str, np.ndarray]] = {}

        def keep(request: Any, start: int) -> None:
            outputs = enumerate(request.model_outputs)
            parts[start] = {port.any_name: request.get_output_tensor(index).data.copy() for index, port in outputs}

        self._queue.set_callback(keep)
        for start in range(0, len(pixels), _AT_ONCE):
            self._queue.start_async({0: pixels[start : start + _AT_ONCE]}, start)
        self._queue.wait_all()
        return _joined([parts[start] for start in sorted(parts)])

    def _compiled(self, hint: str) -> Any:
        model = self._core.compile_model(self._model, "CPU", {**self._settings, "PERFORMANCE_HINT": hint})
        return import_openvino().AsyncInferQueue(model)


def _onnxruntime(file: Path) -> Network:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Threads that wait for work must not keep the processors from decoding the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = limit() or 0  # 0: all
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return _few_at_once(lambda pixels: dict(zip(names, session.run(names, {image.name: pixels}), strict=True)))


def _litert(file: Path) -> Network:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=processors())
    interpreter.allocate_tensors()  # whatever is wrong with the file is found now
    run = interpreter.get_signature_runner()
    (image,) = run.get_input_details()

    def network(pixels: np.ndarray, _interpreter: Any = interpreter) -> dict[str, np.ndarray]:  # `run` does not hold it
        return dict(run(**{image: pixels}))

    return _few_at_once(network)


def _tensorflow(file: Path) -> Network:
    if file.is_file():
        import keras

        model = keras.saving.load_model(file, compile=False)
        return lambda pixels: dict(model.predict_on_batch(pixels))
    import tensorflow as tf

    loaded = tf.saved_model.load(str(file))
    run = loaded.signatures["serving_default"]
    (image,) = run.structured_input_signature[1]

    def network(pixels: np.ndarray, _loaded: Any = loaded) -> dict[str, np.ndarray]:  # `run` does not hold it
        return {name: output.numpy() for name, output in run(**{image: tf.constant(pixels)}).items()}

    return network


def _few_at_once(network: Network) -> Network:
    return lambda pixels: _joined(
        [network(pixels[start : start + _AT_ONCE]) for start in range(0, len(pixels), _AT_ONCE)]
    )


def _joined(parts: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
