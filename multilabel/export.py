"""Exports: a bundle as a file for another runtime, with a sidecar that says what its numbers mean.

What is written was first run in that runtime, on pictures, beside the bundle. Nothing of this package is needed to use
an export: decoded pictures go in, probabilities come out, and the sidecar, `<file>.json`, is plain JSON.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from . import __version__
from . import sidecar as sidecars
from .backbones import ARCHITECTURES
from .bundle import Bundle, load
from .config import EXPORT_FORMATS
from .description import read
from .errors import DataError, MultilabelError, UsageError
from .export_check import Comparison, compare, generated_pictures, open_export, sample_pictures
from .folding import fold
from .heads import Head, SoftmaxHead
from .measuring import LabelSource, read_for
from .networks import import_openvino
from .quantization import INT8_FORMAT, Measured, calibration_pictures, measure, quantize
from .thresholds import Threshold
from .writing import folder_beside

METADATA = "multilabel"  # under this name the sidecar's text also stands in the file itself
_IN_FOLDERS = f"{METADATA}.json"
TOLERANCE = 1e-3  # how far a probability may be from the bundle's
_AGREEING = 0.95  # share of decisions in which int8 agrees with the bundle, without a warning
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torch: RGB, 0..1
_CAFFE_MEAN = np.array([103.939, 116.779, 123.68])  # BGR, 0..255
_SUFFIX_OF = {format: suffix for suffix, format in sidecars.FORMAT_OF.items()} | {"saved_model": ".saved_model"}
_PACKAGES = {  # beside TensorFlow, as they are imported; the extra of the format's name installs them
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "litert": ("ai_edge_litert",),
}
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how it compares with the bundle.

    Attributes:
        path: the file, or the folder.
        size: its bytes, of all its files but the sidecar.
        sidecar: what the sidecar says.
        comparison: the export beside the bundle, on pictures.
        source: which pictures these were.
        measured: both on labelled pictures, where there were labels.
    """

    path: Path
    size: int
    sidecar: dict[str, Any]
    comparison: Comparison
    source: str
    measured: Measured | None = None

    def summary(self) -> str:
        """What people are told: where it is, how close to the bundle, and what its outputs are."""
        compared, beside = self.comparison, sidecars.sidecar_of(self.path).name
        lines = [
            f"{self.path}: {self.size / 1e6:.1f} MB, {self.sidecar['precision']}; {beside} says what its numbers mean.",
            f"Run beside the bundle on {compared.pictures} {self.source}: probabilities differ by at most "
            f"{compared.difference:.1g}, {compared.differing} of {compared.decisions} decisions differ.",
            "",
        ]
        outputs = [(one["name"], one["tag"] or one["kind"], ", ".join(one["names"])) for one in self.sidecar["outputs"]]
        widths = [max(map(len, column)) for column in zip(*outputs, ("output", "of", ""), strict=True)]
        for row in (("output", "of", "names"), *outputs):
            lines.append(f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {shorten(row[2], 80, placeholder=' ...')}")
        return "\n".join(lines)


def serving_model(bundle: Bundle) -> keras.Model:
    """The whole way from pixels to probabilities as one model of Keras' built-in layers, in float32.

    Returns:
        A model with the input `image`, uint8 `(batch, height, width, 3)` RGB, and one float32 output of probabilities
        by head name: `(batch, K)` of attributes, `(batch, C)` of a tag.
    """
    backbone = bundle.backbone
    image = keras.Input((*backbone.image_size, 3), dtype="uint8", name="image")
    features = fold(backbone.network)(_prepared(image, ARCHITECTURES[backbone.name].preprocessing))
    outputs = {}
    for head in bundle.heads:
        layer = keras.layers.Dense(head.units, activation=head.activation, dtype="float32", name=head.name)
        outputs[head.name] = layer(features)
        layer.set_weights(bundle.model.get_layer(head.name).get_weights())
    return keras.Model(image, outputs, name="multilabel")


def _prepared(image: Any, mode: str) -> Any:
    """What `backbones.Preprocessing` does, in layers that every copy of Keras has."""
    scale, offset = 1.0, 0.0
    if mode == "tf":
        scale, offset = 1 / 127.5, -1.0
    elif mode == "torch":
        scale, offset = (1 / (255 * _DEVIATION)).tolist(), (-_MEAN / _DEVIATION).tolist()
    prepared = keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(image)
    if mode == "caffe":
        to_bgr = keras.layers.Conv2D(3, 1, dtype="float32", name="bgr_minus_mean")
        prepared = to_bgr(prepared)
        to_bgr.set_weights([np.eye(3)[::-1].reshape(1, 1, 3, 3), -_CAFFE_MEAN])
    return prepared


def export_folder(
    folder: Path,
    format: str,
    out: Path | None = None,
    *,
    int8: bool = False,
    calibrate_on: Path | None = None,
    check_on: Path | None = None,
    labels: LabelSource | None = None,
    progress: bool = False,
) -> ExportResult:
    """Writes the bundle in a folder for another runtime, checked on pictures.

    Args:
        folder: the bundle.
        format: one of `EXPORT_FORMATS`.
        out: the file, or of `saved_model` the folder, to write; default: the bundle's name with the format's suffix,
            beside the bundle.
        int8: in whole numbers of 8 bits; for `openvino` alone.
        calibrate_on: with `int8`, a folder of pictures that show how large numbers become.
        check_on: a folder of pictures to check on; default: those that the bundle was made of, where they are still
            there, else generated ones.
        labels: with `int8`, labels that the model has not learnt from: both are measured there, and the thresholds
            chosen anew.
        progress: show bars on stderr, where a person watches.

    Raises:
        UsageError: options that contradict each other, a package that is not installed, or something at `out` that is
            no export.
        MultilabelError: for anything else that stops it; what was there before is then untouched.
    """
    read(folder)  # says what is wrong with it, before anything else is asked
    _check_int8(format, int8, calibrate_on, labels)
    out = out or _default_out(folder, format, int8)
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} lies inside --model {folder}, which `fit` replaces; choose another --out.")
    check_out(out, format, int8=int8)
    bundle = load(folder)
    pictures, source = sample_pictures(bundle, folder, check_on)
    calibration = calibration_pictures(calibrate_on, bundle.backbone.image_size) if calibrate_on else None
    return export(
        bundle, format, out, pictures, source=source, calibration=calibration, labels=labels, progress=progress
    )


def export(
    bundle: Bundle,
    format: str,
    out: Path,
    pictures: NDArray[np.uint8] | None = None,
    *,
    source: str = "pictures",
    calibration: NDArray[np.uint8] | None = None,
    labels: LabelSource | None = None,
    progress: bool = False,
) -> ExportResult:
    """Writes a bundle for another runtime, with its sidecar `<out>.json`; both were tried before they appear.

    Args:
        bundle: the bundle.
        format: one of `EXPORT_FORMATS`.
        out: the file, or of `saved_model` the folder, to write.
        pictures: to check on, uint8 `(n, height, width, 3)` RGB; default: generated ones.
        source: what to call these pictures.
        calibration: pictures of the same shape, for an export in int8; `None`: float32.
        labels: with calibration, see `export_folder`.
        progress: show bars on stderr, where a person watches.

    Raises:
        UsageError: a package is not installed, or something at `out` is no export.
        DataError: the export is not as the bundle is; nothing was written.
        MultilabelError: it cannot be written; what was there before is untouched.
    """
    out, int8 = Path(out), calibration is not None
    check_out(out, format, int8=int8)
    if pictures is None:
        pictures, source = generated_pictures(bundle.backbone.image_size), "generated pictures"
    labelled = read_for(bundle, labels, progress) if labels else None
    with _new_beside(out) as new:
        _write(bundle, format, new, calibration)
        measured = measure(bundle, open_export(format, new), *labelled, labels.title) if labels and labelled else None
        thresholds = measured.thresholds if measured else bundle.thresholds
        sidecar = _sidecar(bundle, format, thresholds, int8=int8)
        _annotate(format, new, json.dumps(sidecar, allow_nan=False))
        comparison = compare(bundle, open_export(format, new), thresholds, pictures)
        _judge(comparison, format, source, int8=int8, measured=measured is not None)
        sidecar["file_sha256"] = sidecars.digest_of(new)
        size = sum(file.stat().st_size for file in new.parent.rglob("*") if file.is_file())
        sidecars.sidecar_of(new).write_text(_text(sidecar), encoding="ascii")
        _place(new, out)
    return ExportResult(out, size, sidecar, comparison, source, measured)


def check_out(out: Path, format: str, *, int8: bool = False) -> None:
    """Makes sure, before any work is done, that an export of a format can be made, and may be written there.

    Raises:
        UsageError: there is no such format, a package is not installed, the name ends wrongly, or something is there
            that is no export.
    """
    if format not in EXPORT_FORMATS:
        raise UsageError(f"'{format}' is no format of an export; choose from {', '.join(EXPORT_FORMATS)}.")
    _check_packages(format, (*_PACKAGES.get(format, ()), *["nncf"] * int8))
    suffix = _SUFFIX_OF[format]
    if sidecars.FORMAT_OF.get(out.suffix, "saved_model") != format:
        raise UsageError(f"--out {out}: the name does not suit --format {format}; choose one such as model{suffix}.")
    files = [file for file in reversed(_all_files(out)) if os.path.lexists(file)]
    if files and not _is_ours(out, format):
        raise UsageError(
            f"{files[0]} is there, and was not written by `multilabel export --format {format}`; it is left as it is, "
            "choose another --out."
        )
    if out.is_dir() and (others := sorted({item.name for item in out.iterdir()} - sidecars.SAVED_MODEL)):
        raise UsageError(
            f"{out} holds, besides an export, {', '.join(others[:5])}, which would be lost; "
            "move that away or choose another --out."
        )


def _check_packages(format: str, modules: Sequence[str]) -> None:
    absent = [module.replace("_", "-") for module in modules if find_spec(module) is None]
    if absent:
        others, them = ("another package", "it") if len(absent) == 1 else ("other packages", "them")
        raise UsageError(
            f"--format {format} needs {others} ({', '.join(absent)}); "
            f"install {them} with `pip install 'multilabel[{format}]'`."
        )


def _check_int8(format: str, int8: bool, calibrate_on: Path | None, labels: LabelSource | None) -> None:
    if not int8:
        given = {"--calibrate-on": calibrate_on, "--labels": labels}
        for option in (option for option, value in given.items() if value):
            raise UsageError(f"{option} belongs to --int8; add --int8, or leave it out.")
    elif format != INT8_FORMAT:
        raise UsageError(f"--int8 is for --format {INT8_FORMAT} alone, not for {format}.")
    elif calibrate_on is None:
        raise UsageError("--int8 needs pictures that show how large numbers become; give a folder of --calibrate-on.")


def _default_out(folder: Path, format: str, int8: bool) -> Path:
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}{'-int8' * int8}{_SUFFIX_OF[format]}")


def _is_ours(out: Path, format: str) -> bool:
    try:
        sidecar = json.loads(sidecars.sidecar_of(out).read_text(encoding="utf-8"))
        return {"multilabel", "schema"} <= sidecar.keys() and sidecar["format"] == format
    except (OSError, ValueError, AttributeError, KeyError):
        return False


@contextmanager
def _new_beside(out: Path) -> Iterator[Path]:
    """Where to write an export first, in a folder of its own beside its place; it vanishes.

    Raises:
        MultilabelError: nothing can be written there.
    """
    try:
        with folder_beside(out) as folder:
            yield folder / out.name
    except OSError as error:
        raise MultilabelError(f"{out} cannot be written ({error.strerror or error}); choose another --out.") from error


def _place(new: Path, out: Path) -> None:
    """Puts file after file into its place; where one cannot be, all that was there before comes back.

    The sidecar is first: what it names is recognised as ours after a kill, and not taken for what it is not.
    """
    aside: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for source, target in zip(_all_files(new), _all_files(out), strict=True):
            if os.path.lexists(target):
                aside.append((target, target.rename(new.with_name(f"old{len(aside)}"))))
            placed.append(source.rename(target))
    except BaseException:
        for target in placed:
            target.rename(new.with_name(f"new{target.suffix}"))
        for target, old in aside:
            old.rename(target)
        raise


def _all_files(out: Path) -> list[Path]:
    return [sidecars.sidecar_of(out), *sidecars.files_of(out)]


def _write(bundle: Bundle, format: str, path: Path, calibration: NDArray[np.uint8] | None) -> None:
    """Writes the model in a format.

    Raises:
        DataError: the format cannot hold it.
    """
    with tempfile.TemporaryDirectory() as folder:
        exact = path if calibration is None else Path(folder) / f"float32{_SUFFIX_OF[format]}"
        try:
            _convert(serving_model(bundle), format, exact)
            if calibration is not None:
                quantize(exact, path, calibration)
            open_export(format, path)(generated_pictures(bundle.backbone.image_size)[:2])
        except OSError:
            raise
        except Exception as error:  # converters raise nearly anything
            reason = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
            raise DataError(
                f"{bundle.run_name} cannot be written as {format} ({reason}); choose another --format."
            ) from error


def _convert(model: keras.Model, format: str, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # of the converters, to those who wrote them
        if format == "keras":
            model.save(path)
            return
        if format == "openvino":
            import_openvino()
        if format == "onnx":
            model = _for_onnx(model)
        model(np.zeros((1, *model.input_shape[1:]), np.uint8))  # Keras exports no model to ONNX that was never called
        model.export(str(path), format={"saved_model": "tf_saved_model"}.get(format, format), verbose=False)


def _for_onnx(model: keras.Model) -> keras.Model:
    """The same model without what tf2onnx makes wrong files of: constants of Normalization layers, and GELU's erfc."""

    def other(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance = (np.ravel(keras.ops.convert_to_numpy(of)) for of in (layer.mean, layer.variance))
            deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
            return keras.layers.Rescaling((1 / deviation).tolist(), (-mean / deviation).tolist(), name=layer.name)
        if isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.gelu:
            return keras.layers.Activation(lambda x: x * (1 + keras.ops.erf(x / 2**0.5)) / 2, name=layer.name)
        return layer

    return keras.models.clone_model(model, clone_function=other, recursive=True)


def _annotate(format: str, path: Path, text: str) -> None:
    """Puts the sidecar's text into the file itself, where the format has a place for such things."""
    if format == "onnx":
        import onnx

        model = onnx.load(path)
        onnx.helper.set_model_props(model, {METADATA: text})
        onnx.save(model, path)
    elif format == "openvino":
        core = import_openvino().Core()
        core.set_property({"ENABLE_MMAP": False})  # the file it reads is written anew
        model = core.read_model(str(path))
        model.set_rt_info(text, METADATA)
        import_openvino().save_model(model, str(path), compress_to_fp16=False)
    elif format == "saved_model":
        (path / "assets.extra").mkdir()  # where TensorFlow leaves room for files of others
        (path / "assets.extra" / _IN_FOLDERS).write_text(text, encoding="ascii")
    else:  # both may hold further files, as a ZIP archive does
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_IN_FOLDERS, text)


def _judge(comparison: Comparison, format: str, source: str, *, int8: bool, measured: bool) -> None:
    """Refuses an export in float32 that is not as the bundle is, and warns of one in int8 that is far from it.

    One that was measured on labels has thresholds of its own, and its scores say more.
    """
    if not comparison.difference <= (1.0 if int8 else TOLERANCE):  # NaN is no more than anything
        raise DataError(
            f"the {format} export and the bundle differ by {comparison.difference:.2g} in a probability "
            f"({comparison.pictures} {source}), more than {TOLERANCE:g}; nothing was written. Choose another --format."
        )
    if int8 and not measured and comparison.differing > (1 - _AGREEING) * comparison.decisions:
        _log.warning(
            f"int8 decides {comparison.differing} of {comparison.decisions} cases otherwise than the bundle; "
            "measure it on labelled pictures (--labels), or export without --int8."
        )


def _sidecar(bundle: Bundle, format: str, thresholds: Sequence[Threshold], *, int8: bool) -> dict[str, Any]:
    settings = bundle.provenance.get("settings", {})
    return {
        "schema": sidecars.SCHEMA_VERSION,
        "format": format,
        "multilabel": __version__,
        "run_name": bundle.run_name,
        "image_size": list(bundle.backbone.image_size),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colours": "RGB"},
        "outputs": [_output_of(head) for head in _attributes_first(bundle.heads)],
        "thresholds": [
            {"attribute": attribute, **asdict(threshold), "spread": threshold.spread and list(threshold.spread)}
            for attribute, threshold in zip(bundle.attributes, thresholds, strict=True)
        ],
        "not_better_than_chance": list(bundle.not_better_than_chance),
        "precision": "int8" if int8 else "float32",
        "model_sha256": bundle.weights_sha256,
        "labels": {
            "settings": {name: settings.get(name) for name in ("attributes", "names", "rare", "pool_name")},
            "rare_classes": bundle.provenance.get("rare_classes", {}),
        },
    }


def _attributes_first(heads: Sequence[Head]) -> list[Head]:
    return sorted(heads, key=lambda head: isinstance(head, SoftmaxHead))


def _output_of(head: Head) -> dict[str, Any]:
    tag = head.tag if isinstance(head, SoftmaxHead) else None
    return {
        "name": head.name,  # all converters keep it
        "kind": "attributes" if tag is None else "tag",
        "tag": tag,
        "names": list(head.names),
    }


def _text(sidecar: dict[str, Any]) -> str:
    # In ASCII, with escapes: names may come from files and hold bytes that are no UTF-8.
    return json.dumps(sidecar, indent=2, allow_nan=False) + "\n"
