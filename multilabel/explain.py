"""Where in a picture the evidence for an attribute or a class lies: class activation maps, and pictures of them."""

from __future__ import annotations

import difflib
import io
import itertools
import os
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from .bundle import Bundle
from .errors import UsageError
from .heads import Head, LogitHead, SoftmaxHead
from .images import PICTURE_SUFFIXES, read_image
from .writing import replacing

_POOLING = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Flatten,  # of `cnn`: the largest response in each half of the picture
    keras.layers.Concatenate,
    keras.layers.Dropout,
)
_LONGEST_NAME = 100  # bytes; file systems take 255
_FINEST_DRAWN = 30  # positions along the longer side: single pixels, where `cnn` finds things, are hard to see


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one logit of one picture is made of.

    Attributes:
        image: the picture's path as it was given; empty if there is none.
        name: the attribute or the tag.
        class_name: the tag's class; `None` for an attribute.
        map: floats of shape (h, w), covering the picture. If `exact`, the share of the logit that each position
            brings in, so that their sum is `logit - bias`. Else Grad-CAM: not negative, and of no unit.
        logit: the model's logit, calibration included.
        bias: the part of it that no picture changes.
        probability: what `infer` says.
        exact: whether the map adds up to the logit.
        pixels: uint8 (height, width, 3), the picture as the model sees it.
    """

    image: str
    name: str
    class_name: str | None
    map: np.ndarray
    logit: float
    bias: float
    probability: float
    exact: bool
    pixels: np.ndarray

    @property
    def title(self) -> str:
        """What is explained: `heart`, `gender Men`."""
        return self.name if self.class_name is None else f"{self.name} {self.class_name}"

    def upsampled(self, image_size: tuple[int, int] | None = None) -> np.ndarray:
        """The map, bilinear, float32 of shape `image_size` (height, width); `None`: that of `pixels`."""
        return _resized(self.map, image_size or self.pixels.shape[:2])


@dataclass(frozen=True)
class _Target:
    """One unit of a head; `None` is the likeliest class."""

    head: Head
    unit: int | None


def explain(
    bundle: Bundle,
    path: str | os.PathLike[str],
    attribute: str | None = None,
    tag: str | None = None,
    class_name: str | None = None,
) -> Explanation:
    """Maps where in a picture the evidence for an attribute, or for a class of a tag, lies.

    Where the features are pooled from feature maps and nothing else comes in between, the logit is a sum over
    positions, and the map shows its summands: with average pooling of maps f over N positions
    `logit - bias = Σ_xy (w · f(x, y)) / N`, the class activation map of Zhou et al. 2016 (arXiv:1512.04150). The
    largest responses that `cnn` takes instead stand at the positions where they were found; those of its four
    resolutions are added, each spread evenly over the pixels that it stands for.

    Otherwise (`cnn` with dense units, ConvNeXt, which normalises its features) the map is Grad-CAM of the last
    feature maps (Selvaraju et al. 2017, arXiv:1610.02391): `ReLU(Σ_k a_k f_k)`, where `a_k` is the mean over
    positions of the logit's derivative by f_k.

    Args:
        bundle: the model.
        path: the picture.
        attribute: the attribute; or else
        tag: the tag.
        class_name: its class; `None`: the likeliest one.

    Raises:
        UsageError: the model has no such attribute, tag or class, or not one of attribute and tag is given.
        ImageError: the picture cannot be read.
    """
    targets = [_target(bundle, attribute, tag, class_name)]
    return _explain(bundle, read_image(path, bundle.image_size), os.fspath(path), targets)[0]


def explain_pixels(bundle: Bundle, pixels: np.ndarray, name: str) -> Explanation:
    """`explain` of an attribute, or of a tag's likeliest class, for a picture that is decoded already.

    Args:
        bundle: the model.
        pixels: uint8 `(height, width, 3)` of the model's size.
        name: of the attribute or the tag.

    Raises:
        UsageError: the model has neither.
    """
    target = _target(bundle, name) if name in bundle.attributes else _target(bundle, tag=name)
    return _explain(bundle, pixels, "", [target])[0]


def explain_all(bundle: Bundle, path: str | os.PathLike[str]) -> list[Explanation]:
    """`explain` for every attribute and for each tag's likeliest class, in the heads' order.

    Raises:
        ImageError: the picture cannot be read.
    """
    return _explain(bundle, read_image(path, bundle.image_size), os.fspath(path), _all_targets(bundle))


def write(
    bundle: Bundle,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] = ".",
    attribute: str | None = None,
    tag: str | None = None,
    class_name: str | None = None,
) -> list[tuple[Explanation, Path]]:
    """Writes `overlay` of one attribute or tag or, if none is named, of all, one PNG each.

    Args:
        bundle: the model.
        path: the picture.
        out: folder of the files, which are called `PICTURE_ATTRIBUTE.png`; for one alone, also a file.
        attribute, tag, class_name: as `explain` takes them.

    Returns:
        The explanations and their files.

    Raises:
        UsageError: as `explain`, or `out` is a file that does not suit.
        ImageError: the picture cannot be read.
        MultilabelError: a file cannot be written.
    """
    everything = attribute is None and tag is None and class_name is None
    targets = _all_targets(bundle) if everything else [_target(bundle, attribute, tag, class_name)]
    file = _as_file(Path(out), Path(path), len(targets))
    explanations = _explain(bundle, read_image(path, bundle.image_size), os.fspath(path), targets)
    names = _file_names(Path(path).stem, [explanation.title for explanation in explanations])
    files = [file] if file else [Path(out, name) for name in names]
    for explanation, target in zip(explanations, files, strict=True):
        _save(overlay(explanation), target)
    return list(zip(explanations, files, strict=True))


def _all_targets(bundle: Bundle) -> list[_Target]:
    targets: list[_Target] = []
    for head in bundle.heads:
        targets += [_Target(head, unit) for unit in range(head.units)] if isinstance(head, LogitHead) else []
        targets += [_Target(head, None)] if isinstance(head, SoftmaxHead) else []
    return targets


def _target(
    bundle: Bundle, attribute: str | None = None, tag: str | None = None, class_name: str | None = None
) -> _Target:
    """The unit that is meant."""
    if attribute is not None and (tag, class_name) != (None, None):
        raise UsageError(f"--attribute {attribute} and --{'tag' if tag else 'class'}: choose one of the two.")
    if attribute is not None:
        units = {
            name: _Target(head, unit)
            for head in bundle.heads
            if isinstance(head, LogitHead)
            for unit, name in enumerate(head.attributes)
        }
        return units[_known(attribute, "--attribute", "attribute", units)]
    if tag is None:
        raise UsageError("there is nothing to explain: name an --attribute, or a --tag (and its --class).")
    heads = {head.tag: head for head in bundle.heads if isinstance(head, SoftmaxHead)}
    head = heads[_known(tag, "--tag", "tag", heads)]
    if class_name is None:
        return _Target(head, None)
    return _Target(head, head.classes.index(_known(class_name, "--class", f"class of {tag}", head.classes)))


def _known(name: str, option: str, noun: str, known: Iterable[str]) -> str:
    """The name, if there is such a one."""
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the model knows {', '.join(names) or 'none'}."
        raise UsageError(f"{option} {name}: there is no {noun} {name!r}; {hint}")
    return name


def _explain(bundle: Bundle, pixels: np.ndarray, image: str, targets: Sequence[_Target]) -> list[Explanation]:
    import tensorflow as tf  # Keras has loaded it already, but has no gradients of its own

    tensors, exact = _feature_maps(bundle.backbone.network)
    prepared = bundle.backbone.model.get_layer("preprocessing")(pixels[np.newaxis])
    # Outside of the tape: derivatives by one map shall not run through the later ones, which are made of it.
    maps = keras.tree.flatten(keras.Model(bundle.backbone.network.input, tensors)(prepared))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        features = _features_of(bundle.backbone.network, tensors, maps)
        all_logits = [bundle.model.get_layer(target.head.name)(features)[0] for target in targets]
        units = [
            int(np.argmax(logits)) if target.unit is None else target.unit
            for target, logits in zip(targets, all_logits, strict=True)
        ]
        chosen = [logits[unit] for logits, unit in zip(all_logits, units, strict=True)]
    explanations = []
    for target, logits, unit, logit in zip(targets, all_logits, units, chosen, strict=True):
        head = target.head
        name, class_name = (
            (head.tag, head.classes[unit]) if isinstance(head, SoftmaxHead) else (head.attributes[unit], None)
        )
        pairs = [
            (np.asarray(f[0], np.float64), np.asarray(slopes[0], np.float64))
            for f, slopes in zip(maps, tape.gradient(logit, maps), strict=True)
        ]
        explanations.append(
            Explanation(
                image,
                name,
                class_name,
                _summands(pairs) if exact else _grad_cam(*pairs[-1]),
                float(logit),
                float(bundle.model.get_layer(head.name).bias[unit]),
                float(head.to_probs(logits)[unit]),
                exact,
                pixels,
            )
        )
    return explanations


def _feature_maps(network: keras.Model) -> tuple[list[Any], bool]:
    """The tensors of rank 4 that the features are made of, the deepest last, and whether by pooling alone."""
    made_by = {id(layer.output): layer for layer in network.layers}
    maps, only_pooling, waiting = [], True, [network.output]
    while waiting:
        layer = made_by[id(waiting.pop(0))]
        only_pooling &= isinstance(layer, _POOLING)
        for tensor in keras.tree.flatten(layer.input):
            if len(tensor.shape) < 4:
                waiting.append(tensor)
            elif isinstance(layer, keras.layers.Flatten):
                maps.append(made_by[id(tensor)].input)  # before the halves were pooled
            else:
                maps.append(tensor)
    return maps, only_pooling


def _features_of(network: keras.Model, tensors: Sequence[Any], maps: Sequence[Any]) -> Any:
    """The features of the maps: what the network's last layers make of them."""
    made_by = {id(layer.output): layer for layer in network.layers}
    values = {id(tensor): value for tensor, value in zip(tensors, maps, strict=True)}

    def value(tensor: Any) -> Any:
        if id(tensor) not in values:
            layer = made_by[id(tensor)]
            values[id(tensor)] = layer(keras.tree.map_structure(value, layer.input))
        return values[id(tensor)]

    return value(network.output)


def _summands(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Σ_k f_k · ∂logit/∂f_k at each position of the finest map; Euler's theorem makes their sum the logit less bias.

    Pooling doubles with its input, so the logit is linear in every direction from zero.
    """
    maps = [(f * slopes).sum(axis=-1) for f, slopes in pairs]
    height, width = max(shares.shape for shares in maps)
    total = np.zeros((height, width))
    for shares in maps:
        # Blocks halve a picture and drop an odd last row or column, so that this division leaves a rest.
        rows, columns = (
            1 << ((fine // coarse).bit_length() - 1) for fine, coarse in zip((height, width), shares.shape, strict=True)
        )
        spread = np.kron(shares, np.full((rows, columns), 1 / (rows * columns)))
        total[: spread.shape[0], : spread.shape[1]] += spread
    return total


def _grad_cam(f: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    return np.maximum(f @ slopes.mean(axis=(0, 1)), 0)


def overlay(explanation: Explanation) -> Image.Image:
    """Draws the picture, and beside it in grey with the map over it: red speaks for it, blue against it."""
    from matplotlib import colormaps  # slow to import, and needed here alone
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    height, width = explanation.pixels.shape[:2]
    inches = max(6.5, 7.5 * min(1.6, width / height) + 1.5)
    figure = Figure(figsize=(inches, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = colormaps["RdBu_r"]  # of even lightness on both sides, and told apart by the colour-blind
    left.imshow(explanation.pixels)
    right.imshow(_blend(explanation, colours))
    for axes in (left, right):
        axes.set_axis_off()
    scale = figure.colorbar(ScalarMappable(Normalize(-1, 1), colours), ax=right, ticks=[-1, 0, 1], shrink=0.7)
    scale.ax.set_yticklabels(["lowers it", "no effect", "raises it"])
    if not explanation.exact:
        scale.ax.set_ylim(0, 1)
    columns = int(11 * inches)
    name = textwrap.shorten(os.path.basename(explanation.image), 60, placeholder="...")
    title = f"{name}\n{textwrap.fill(explanation.title, columns)}: probability {explanation.probability:.2f}"
    # Names come from people: "$" begins no formula, and not all that a file is called is UTF-8 or in the font.
    figure.suptitle(title.encode("utf-8", "replace").decode("utf-8"), parse_math=False)
    figure.supxlabel(textwrap.fill(_caption(explanation), columns), fontsize=9)
    drawn = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")


def _caption(explanation: Explanation) -> str:
    if not explanation.exact:
        return "Grad-CAM: red parts raise the logit; how red they are can be compared within this picture alone."
    return (
        "Class activation map: red parts raise the logit, blue parts lower it. "
        f"With the bias {explanation.bias:.2f}, they add up to the logit {explanation.logit:.2f}."
    )


def tint(explanation: Explanation) -> Image.Image:
    """The map alone, RGBA in the picture's size, to be laid over it: red speaks for it, blue against it."""
    from matplotlib import colormaps

    colours, opacity = _coloured(explanation, explanation.pixels.shape[:2], colormaps["RdBu_r"])
    return Image.fromarray((255 * np.concatenate([colours, opacity], axis=-1)).round().astype(np.uint8))


def _blend(explanation: Explanation, colours: Any) -> np.ndarray:
    """RGB floats 0..1 of the picture in grey, under the map."""
    size = tuple(4 * side for side in explanation.pixels.shape[:2])
    coloured, opacity = _coloured(explanation, size, colours)
    grey = 0.3 + 0.7 * _resized(np.asarray(Image.fromarray(explanation.pixels).convert("L")) / 255, size)
    return (1 - opacity) * grey[..., np.newaxis] + opacity * coloured


def _coloured(explanation: Explanation, size: tuple[int, ...], colours: Any) -> tuple[np.ndarray, np.ndarray]:
    """The map's colours `(height, width, 3)` and how opaque they are `(height, width, 1)`, floats 0..1."""
    height, width = explanation.map.shape
    reduction = max(1, max(height, width) / _FINEST_DRAWN)
    values = _resized(_resized(explanation.map, (round(height / reduction), round(width / reduction))), size)
    values = values / (np.abs(values).max() or 1)
    opacity = 0.9 * np.abs(values)[..., np.newaxis] ** 0.75  # a lower power draws the lines where the sign changes
    return colours((values + 1) / 2)[..., :3], opacity


def _resized(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bilinear, with antialiasing where it shrinks: float32 of shape `size`, (height, width)."""
    height, width = size
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.array(image.resize((max(1, width), max(1, height)), Image.Resampling.BILINEAR))


def _as_file(out: Path, picture: Path, count: int) -> Path | None:
    """`out` if it names a file, and not a folder."""
    if out.is_dir() or (out.suffix.lower() not in PICTURE_SUFFIXES and not out.exists()):
        return None
    if count > 1:
        raise UsageError(
            f"--out {out} is one file, but there are {count} pictures to write; "
            "give a folder, or choose one with --attribute or --tag."
        )
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: expected a folder, or a file that ends in .png.")
    if out.exists() and picture.exists() and out.samefile(picture):
        raise UsageError(f"--out {out} is the picture itself, which would be lost; choose another --out.")
    return out


def _file_names(stem: str, names: Sequence[str]) -> list[str]:
    """Different names, also where capitals do not count, that every file system takes."""
    files: dict[str, str] = {}
    for name in names:
        cut = (part.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore") for part in (stem, name))
        plain = re.sub(r"[^\w.-]+", "_", "_".join(cut))
        numbered = (plain if number == 1 else f"{plain}_{number}" for number in itertools.count(1))
        file = next(file for file in numbered if file.lower() not in files)
        files[file.lower()] = f"{file}.png"
    return list(files.values())


def _save(drawn: Image.Image, file: Path) -> None:
    """Writes a PNG that appears only when it is complete."""
    with replacing(file, "choose another --out") as new:
        new.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(new, format="PNG")
