"""int8: an export with a third of the bytes, whose convolutions compute in whole numbers of 8 bits.

How large the numbers inside the network become is seen on pictures, without labels (calibration). What comes before
the first layer with weights, and the heads, stay in float32: they cost nothing, and their rounding would go straight
into the probabilities. Other probabilities need other thresholds, so these can be chosen anew.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .config import FOLDS, FitConfig
from .crossfit import deal
from .dataset import Dataset
from .errors import DataError
from .evaluation import Evaluation
from .export_check import in_batches, read_some
from .held_out import ATTRIBUTES, HeldOut
from .images import find_pictures
from .measuring import probabilities_of
from .networks import Network, import_openvino
from .thresholds import Threshold
from .tuning import Choice, chosen_anew

FEWEST = 32  # pictures to calibrate on
CALIBRATED = 300  # more of them change next to nothing
INT8_FORMAT = "openvino"  # ONNX Runtime's int8 lost more accuracy, and was slower than OpenVINO in bfloat16


def calibration_pictures(folder: Path, image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pictures of a folder to calibrate on, `(n, height, width, 3)`; of many, 300 by chance but always the same ones.

    Raises:
        DataError: the folder cannot be listed, or holds fewer than 32 that can be read.
    """
    pixels = read_some(find_pictures(folder), image_size, CALIBRATED)
    if len(pixels) < FEWEST:
        raise DataError(
            f"{folder} holds {len(pixels)} pictures that can be read; --calibrate-on needs {FEWEST} or more, "
            "of the kind that the model is for."
        )
    return pixels


def quantize(source: Path, target: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes an OpenVINO model in int8.

    Of NNCF's settings these cost MobileNetV2 least, at most 0.2 points of accuracy at three sizes: the slow correction
    of biases, and ranges that nothing seen goes beyond (ranges of an average picture cost 9 points at 96 pixels).

    Args:
        source: the model in float32, `.xml`.
        target: the file to write, `.xml`, too.
        pixels: to calibrate on, `(n, height, width, 3)`.
    """
    openvino = import_openvino()
    with _quiet():
        import nncf
        from nncf.quantization import range_estimator as ranges

        model = openvino.Core().read_model(str(source))
        quantized = nncf.quantize(
            model,
            nncf.Dataset([pixels[row : row + 1] for row in range(len(pixels))]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pixels),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=sorted(_heads_of(model))),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
            ),
        )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _heads_of(model: Any) -> set[str]:
    """Names of the nodes of the heads: from each output back to its matrix product."""
    names = set()
    for result in model.get_results():
        node = _input_of(result)
        while node.get_type_name() != "MatMul":
            names.add(node.get_friendly_name())
            node = _input_of(node)
        names.add(node.get_friendly_name())
    return names


def _input_of(node: Any) -> Any:
    """The node before this one; the other inputs are constants."""
    before = [node.input_value(number).get_node() for number in range(node.get_input_size())]
    return next(one for one in before if one.get_type_name() != "Constant")


@dataclass(frozen=True)
class Measured:
    """An export on labelled pictures, beside its bundle.

    Attributes:
        before: the bundle's scores, with its own thresholds.
        after: the export's, with thresholds chosen on these labels; a picture is called by those that others chose.
        thresholds: the export's, chosen on all of these labels.
    """

    before: Evaluation
    after: Evaluation
    thresholds: tuple[Threshold, ...]


def measure(bundle: Bundle, run: Network, config: FitConfig, data: Dataset, title: str) -> Measured:
    """Measures a bundle and an export of it on labelled pictures, and chooses the export's thresholds there.

    They are to do what the bundle's own were chosen to do. An attribute without a known positive keeps its threshold.

    Args:
        bundle: the model and its thresholds.
        run: the export.
        config: how the labels were read.
        data: labels that the model has not learnt from, with features.
        title: what the scores say that they are of.
    """
    rows, y, names = np.arange(len(data.names)), data.table.y, data.table.names
    folds = deal(data, rows, FOLDS, config.seed)
    p = probabilities_of(bundle, data)
    before = HeldOut("all", rows, p, p)
    p = in_batches(run, data.pictures, len(rows))
    after = HeldOut("all", rows, p, p, folds)
    thresholds: Sequence[Threshold] = ()
    if names:
        thresholds, present = chosen_anew(y, p[ATTRIBUTES], names, folds, bundle.thresholds, _choice(bundle))
        after = replace(after, present=present)
    return Measured(
        before.evaluation(bundle.heads, data.table, bundle.thresholds, title, config.seed),
        after.evaluation(bundle.heads, data.table, thresholds, title, config.seed),
        tuple(thresholds),
    )


def _choice(bundle: Bundle) -> Choice:
    """What the bundle's own thresholds were chosen to do, by `fit` or by a later `tune`."""
    tuned = bundle.provenance.get("tuned")
    if tuned:
        return Choice(tuned["beta"], tuned["min_precision"], tuned["shared"])
    return Choice(bundle.provenance.get("settings", {}).get("beta", 1.0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars and talks of itself."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
