"""Train, threshold and honestly measure Keras models on pictures with partially labelled attributes.

The names in `__all__` are the public door. They are imported when first used: `from multilabel import masked_bce`
brings in Keras and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import load as load_bundle
    from .config import CnnShape, FitConfig
    from .errors import MultilabelError
    from .formats import read_labels
    from .inference import predict
    from .labels import UNKNOWN, LabelTable
    from .losses import (
        LossEpochs,
        MaskedASL,
        MaskedBCE,
        MaskedHill,
        MaskedSparseCategoricalCrossentropy,
        MaskedSPLC,
        Missing,
        masked_asl,
        masked_bce,
        masked_hill,
        masked_sparse_categorical_crossentropy,
        masked_splc,
    )
    from .measuring import evaluate_bundle
    from .pipeline import fit

__version__ = "0.1.0"

_HOMES = {
    "CnnShape": "config",
    "FitConfig": "config",
    "LabelTable": "labels",
    "LossEpochs": "losses",
    "MaskedASL": "losses",
    "MaskedBCE": "losses",
    "MaskedHill": "losses",
    "MaskedSPLC": "losses",
    "MaskedSparseCategoricalCrossentropy": "losses",
    "Missing": "losses",
    "MultilabelError": "errors",
    "UNKNOWN": "labels",
    "evaluate_bundle": "measuring",
    "fit": "pipeline",
    "load_bundle": "bundle:load",
    "masked_asl": "losses",
    "masked_bce": "losses",
    "masked_hill": "losses",
    "masked_sparse_categorical_crossentropy": "losses",
    "masked_splc": "losses",
    "predict": "inference",
    "read_labels": "formats",
}

__all__ = [
    "UNKNOWN",
    "CnnShape",
    "FitConfig",
    "LabelTable",
    "LossEpochs",
    "MaskedASL",
    "MaskedBCE",
    "MaskedHill",
    "MaskedSPLC",
    "MaskedSparseCategoricalCrossentropy",
    "Missing",
    "MultilabelError",
    "evaluate_bundle",
    "fit",
    "load_bundle",
    "masked_asl",
    "masked_bce",
    "masked_hill",
    "masked_sparse_categorical_crossentropy",
    "masked_splc",
    "predict",
    "read_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, inside = _HOMES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), inside or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
