"""Models in the runtime that suits: a bundle with TensorFlow or converted for another runtime, or an export of one.

Without TensorFlow a picture is predicted in the time that TensorFlow takes to begin. What it does is imported by
nothing here but the branches that need it, and a test sees to that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, description, sidecar
from .config import RUNTIMES
from .errors import BundleError, MultilabelError, UsageError
from .inference import Model
from .labels import Tag
from .networks import RUNTIMES_OF, Network, computes_in, open_network
from .thresholds import Threshold
from .writing import folder_beside

_CONVERSION = 1  # of what is converted, and how; a change that alters what a conversion says raises it
_CONVERTED = {"onnxruntime": ".onnx", "openvino": ".xml"}  # what a bundle is converted to
_PACKAGES = {  # by runtime, with what installs it
    "tensorflow": ("tensorflow", "multilabel"),
    "onnxruntime": ("onnxruntime", "multilabel[onnx]"),
    "openvino": ("openvino", "multilabel[openvino]"),
    "litert": ("ai_edge_litert", "multilabel[litert]"),
}
_log = logging.getLogger("multilabel")
_refusing_damage = partial(description.refusing_damage, command="export")


@dataclass(frozen=True)
class Exported:
    """A model in a runtime that is not Keras; an `inference.Model`.

    Attributes:
        run_name: the run's name.
        image_size: (height, width) of its pictures, in pixels.
        outputs: names of its outputs: that of the attributes first, if there are any, then one per tag.
        attributes: names of all attributes.
        tags: all tags with their classes.
        thresholds: one per attribute.
        not_better_than_chance: attributes and tags that were measured, and found to be no better than chance.
        provenance: how its labels were read.
        network: pixels → probabilities by output.
        precision: what it computes in; `None` where the file settles that, int8.
    """

    run_name: str
    image_size: tuple[int, int]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    tags: tuple[Tag, ...]
    thresholds: tuple[Threshold, ...]
    not_better_than_chance: tuple[str, ...]
    provenance: Mapping[str, Any]
    network: Network = field(repr=False)
    precision: str | None = None

    def probabilities(self, pixels: np.ndarray) -> Mapping[str, np.ndarray]:
        """Probabilities of n pictures by output.

        Args:
            pixels: uint8 `(n, height, width, 3)`, RGB.

        Returns:
            `(n, K)` of the attributes, `(n, C)` of a tag.

        Raises:
            BundleError: the file does not compute what its sidecar says.
        """
        return self.network(pixels)


def load(path: str | os.PathLike[str], runtime: str | None = None, precision: str | None = None) -> Model:
    """Loads a model to predict with.

    Args:
        path: a bundle, or what `export` has written: a file ending in `.onnx`, `.xml`, `.tflite` or `.keras`, or the
            folder of a SavedModel.
        runtime: `"tensorflow"`, `"onnxruntime"`, `"openvino"` or `"litert"`; default: TensorFlow for a bundle, and the
            file's own for an export. A bundle is converted for onnxruntime and openvino when that is first wanted,
            which takes TensorFlow; the conversion is kept in the user's cache folder.
        precision: `"float32"` or `"bfloat16"`, what it computes in; default: what the bundle was measured in, where the
            runtime can, and float32 for an export.

    Raises:
        UsageError: the runtime or the precision does not suit the file or the machine, or is not installed.
        BundleError: the file cannot be read.
    """
    path = Path(path)
    runtime = settled_runtime(path, runtime)
    if sidecar.format_of(path) is not None:
        return _exported(path, runtime, precision)
    if runtime != "tensorflow":
        return _converted(path, runtime, precision)
    from .backbones import computes_in as machine_computes_in
    from .bundle import load as load_bundle

    bundle = load_bundle(path)
    if precision is None:
        return bundle
    if not machine_computes_in(precision):
        raise _no_such_machine(precision)
    return replace(bundle, precision=precision)


def settled_precision(model: Any) -> str | None:
    """What a loaded model computes in on this machine; `load` with it computes the same on another, or refuses."""
    return model.precision if isinstance(model, Exported) else model.engine.precision


def is_folded(model: Any) -> bool:
    """Whether a loaded model computes on this machine with what was made of it to be fast; if not, it is slower, and
    its probabilities are slightly other ones."""
    return isinstance(model, Exported) or model.engine.reliable is model.engine


def needs_tensorflow(path: str | os.PathLike[str], runtime: str | None = None) -> bool:
    """Whether `load` would import TensorFlow.

    Raises:
        UsageError: the runtime does not suit the file, or is not installed.
        BundleError: the file cannot be read.
    """
    path = Path(path)
    runtime = settled_runtime(path, runtime)
    if runtime == "tensorflow" or sidecar.format_of(path) is not None:
        return runtime == "tensorflow"
    folder, said = description.read(path)
    with description.refusing_damage(folder):
        return not _conversion_of(said, runtime).exists()


def settled_runtime(path: Path, runtime: str | None = None) -> str:
    """The runtime that `load` takes.

    Raises:
        UsageError: the one that is wanted does not suit the file, or it is not installed.
    """
    format = sidecar.format_of(path)
    fitting = RUNTIMES if format is None else RUNTIMES_OF[format]
    runtime = runtime or fitting[0]
    if runtime not in fitting:
        raise UsageError(
            f"--runtime {runtime} does not run {path}, which is for {' or '.join(fitting)}; leave out --runtime."
        )
    package, installs = _PACKAGES[runtime]
    if find_spec(package) is None:
        raise UsageError(f"{runtime} is not installed; install it with `pip install '{installs}'`.")
    return runtime


def _exported(path: Path, runtime: str, precision: str | None, recorded: str = "float32") -> Exported:
    """The model in an exported file.

    Args:
        path: the file, or the folder.
        runtime: what runs it.
        precision: what a person wants it to compute in, if anything.
        recorded: what it computes in otherwise, where the runtime can.
    """
    said = sidecar.read(path)
    if said.get("precision") == "int8" and precision is not None:
        raise UsageError(f"--precision {precision}: {path} was exported to compute in int8; leave it out.")
    with _refusing_damage(sidecar.sidecar_of(path)):
        outputs = sidecar.outputs_of(said)
        height, width = (int(side) for side in said["image_size"])
        attributes = tuple(name for output in outputs if output["kind"] == "attributes" for name in output["names"])
        model = Exported(
            run_name=str(said["run_name"]),
            image_size=(height, width),
            outputs=tuple(output["name"] for output in outputs),
            attributes=attributes,
            tags=tuple(Tag(output["tag"], tuple(output["names"])) for output in outputs if output["kind"] == "tag"),
            thresholds=description.thresholds_of(said, attributes),
            not_better_than_chance=tuple(said["not_better_than_chance"]),
            provenance=said["labels"],
            network=dict,
        )
    settled = _settled_precision(runtime, precision, recorded)
    known = None if said.get("precision") == "int8" else settled
    with _refusing_damage(path):
        return replace(model, network=_checked(open_network(runtime, path, settled), path, outputs), precision=known)


def _checked(network: Network, path: Path, outputs: Sequence[Mapping[str, Any]]) -> Network:
    """The network, which refuses a file that does not fit its sidecar."""

    def checked(pixels: np.ndarray) -> dict[str, np.ndarray]:
        with _refusing_damage(path):
            computed = network(pixels)
            for output in outputs:
                if output["name"] not in computed:
                    raise ValueError(f"it has no output {output['name']}")
                if computed[output["name"]].shape != (len(pixels), len(output["names"])):
                    raise ValueError(f"its output {output['name']} is not of {len(output['names'])} names")
            return {output["name"]: computed[output["name"]] for output in outputs}

    return checked


def _settled_precision(runtime: str, wanted: str | None, recorded: str) -> str:
    if computes_in(runtime, wanted or recorded):
        return wanted or recorded
    if wanted is None:
        _log.info(
            f"The model was measured in {recorded}; {runtime} computes in float32 here, and its "
            "probabilities are slightly other ones."
        )
        return "float32"
    if runtime == "openvino":
        raise _no_such_machine(wanted)
    raise UsageError(f"--precision {wanted}: {runtime} computes exports in float32 alone; leave it out.")


def _no_such_machine(precision: str) -> UsageError:
    return UsageError(f"--precision {precision}: this machine does not compute in it; leave it out.")


def _converted(path: Path, runtime: str, precision: str | None) -> Exported:
    """A bundle in another runtime: the network is the conversion's, all that can change is the bundle's own."""
    folder, said = description.read(path)
    with description.refusing_damage(folder):
        description.check_weights(said, folder)
        file, recorded = _conversion_of(said, runtime), description.precision_of(said)
    model = _kept(file, runtime, precision, recorded)
    if model is None:
        _convert(folder, runtime, file)
        model = _exported(file, runtime, precision, recorded)
    with description.refusing_damage(folder):
        return replace(
            model,
            run_name=str(said["run_name"]),
            thresholds=description.thresholds_of(said, model.attributes),
            not_better_than_chance=tuple(map(str, said["not_better_than_chance"])),
            provenance=said["provenance"],
        )


def _kept(file: Path, runtime: str, precision: str | None, recorded: str) -> Exported | None:
    if not file.exists():
        return None
    try:
        return _exported(file, runtime, precision, recorded)
    except BundleError as error:
        _log.warning(f"A conversion that was kept is made anew: {error}")
        shutil.rmtree(file.parent, ignore_errors=True)
        return None


def _convert(folder: Path, runtime: str, file: Path) -> None:
    from .bundle import load as load_bundle
    from .export import export

    place = file.parent
    try:
        with folder_beside(place) as new:
            _log.info(
                f"{folder} is converted for {runtime} with TensorFlow, once; the conversion is kept in {place.parent}."
            )
            made = new / "made"
            export(load_bundle(folder), sidecar.FORMAT_OF[file.suffix], made / file.name)
            try:
                made.rename(place)
            except OSError:
                if not file.exists():  # otherwise another process was quicker
                    raise
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be converted for {runtime}, because {place.parent} cannot be written "
            f"({error.strerror or error}); run `multilabel export`, and give its file as --model."
        ) from error
    except (BundleError, UsageError):
        raise
    except MultilabelError as error:
        raise BundleError(
            f"{folder} cannot be converted for {runtime}; leave out --runtime. What went wrong: {error}"
        ) from error


def _conversion_of(said: Mapping[str, Any], runtime: str) -> Path:
    """Where a bundle's conversion is kept; its name changes with all that determines what it computes."""
    from platformdirs import user_cache_path

    parts = (said["weights_sha256"], said["backbone"], said["heads"], _CONVERSION, __version__)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return user_cache_path("multilabel") / "exports" / f"{digest[:32]}-{runtime}" / f"model{_CONVERTED[runtime]}"
