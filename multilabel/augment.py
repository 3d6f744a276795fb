"""Augmentation: other views of the same pictures for training, all of them decided by a seed.

A picture is moved and coloured, each by one matrix. Flip, rotation, zoom and translation are one map of coordinates,
so that pixels are interpolated once; saturation, contrast and brightness are one map of colours. There is no state:
the numbers come from a generator that is made anew from the seed of every call.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from .config import AUGMENTATIONS
from .errors import UsageError

AUGMENTING = 1  # to be raised whenever the same seed gives other pictures
_GREY = np.array([0.299, 0.587, 0.114])  # lightness of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class _Ranges:
    """How far to go, either way.

    Hue is left alone: colours would turn into others, and they are what labels often tell.
    """

    rotation: float  # degrees
    translation: float  # share of the side
    zoom: float  # share of the scale
    saturation: float = 0.0  # share of the factor
    contrast: float = 0.0  # share of the factor
    brightness: float = 0.0  # share of the range from black to white


_RANGES = {
    "light": _Ranges(rotation=7.2, translation=0.1, zoom=0.1),
    "randaugment": _Ranges(rotation=0, translation=0.1, zoom=0.1),
    "strong": _Ranges(rotation=15, translation=0.15, zoom=0.2, saturation=0.4, contrast=0.25, brightness=0.15),
}


class Augmentation:
    """Makes other views of pictures.

    Half of the pictures are mirrored, and all are rotated, zoomed and moved at random, each in its own way; what lies
    outside a picture is filled with its nearest border pixel. `strong` goes further, and changes the colours.
    `randaugment` mirrors and moves, and then does two operations of Keras' RandAugment (Cubuk et al. 2020), the same
    two to a whole batch. It takes many times as long, and some operations turn colours into others.

    Args:
        kind: one of `AUGMENTATIONS`; `"none"` gives the pictures back as they are.
        image_size: (height, width) of the pictures, in pixels.

    Raises:
        UsageError: if there is no such kind.
    """

    def __init__(self, kind: str, image_size: tuple[int, int]) -> None:
        if kind not in AUGMENTATIONS:
            raise UsageError(f"--augment is {kind}; expected one of {', '.join(AUGMENTATIONS)}.")
        self.kind = kind
        self.image_size = image_size

    def describe(self) -> str:
        """What it does, in a word that stores can put into their keys."""
        return f"{self.kind}-{AUGMENTING}"

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """New views of a batch, on the processor; the same ones for the same pixels and seed, whatever came before.

        Args:
            pixels: `(n, height, width, 3)` uint8, RGB.
            seed: a whole number, 0 or more.

        Returns:
            uint8 of the same shape.
        """
        if self.kind == "none" or not len(pixels):
            return pixels
        ranges, count, rng = _RANGES[self.kind], len(pixels), np.random.default_rng(seed)

        def draw(centre: float, reach: float) -> np.ndarray:
            return rng.uniform(centre - reach, centre + reach, count)

        movement = movement_matrices(
            self.image_size,
            mirrored=rng.random(count) < 0.5,
            rotation=draw(0, ranges.rotation),
            zoom=draw(1, ranges.zoom),
            translation=np.stack([draw(0, ranges.translation), draw(0, ranges.translation)], axis=1),
        )
        colour = None
        if ranges.saturation or ranges.contrast or ranges.brightness:
            colour = colour_matrices(
                saturation=draw(1, ranges.saturation),
                contrast=draw(1, ranges.contrast),
                brightness=draw(0, ranges.brightness),
            )
        views = _apply(pixels, movement, colour)
        return _rand_augment(views, seed) if self.kind == "randaugment" else views


def _rand_augment(pixels: np.ndarray, seed: int) -> np.ndarray:
    with keras.device("cpu:0"):
        # A new layer each time: one that is kept would remember how often it was called.
        layer = keras.layers.RandAugment(value_range=(0, 255), factor=0.1, seed=seed)
        views = keras.ops.convert_to_numpy(layer(pixels.astype(np.float32), training=True))
    return np.clip(np.rint(views), 0, 255).astype(np.uint8)


def movement_matrices(
    image_size: tuple[int, int], mirrored: np.ndarray, rotation: np.ndarray, zoom: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """Where each pixel of a new view comes from, as `keras.ops.image.affine_transform` takes it.

    Args:
        image_size: (height, width) in pixels.
        mirrored: `(n,)` bool, left and right exchanged.
        rotation: `(n,)` degrees about the centre, counterclockwise.
        zoom: `(n,)` factors; above 1 enlarges.
        translation: `(n, 2)` down and to the right, as shares of height and width.

    Returns:
        `(n, 8)` float32: pixel (x, y) of the view is pixel (a₀x + a₁y + a₂, b₀x + b₁y + b₂) of the picture, and two
        zeros.
    """
    height, width = image_size
    x, y = (width - 1) / 2, (height - 1) / 2
    angle = np.deg2rad(rotation)
    a = np.stack([np.cos(angle), -np.sin(angle)], axis=1) / zoom[:, None]
    b = np.stack([np.sin(angle), np.cos(angle)], axis=1) / zoom[:, None]
    # From the view's pixel: move back, to the centre, turn and shrink, mirror, and back from the centre.
    centre = np.stack([x + width * translation[:, 1], y + height * translation[:, 0]], axis=1)
    a *= np.where(mirrored, -1, 1)[:, None]
    rest = np.zeros_like(a)
    offsets = x - (a * centre).sum(axis=1, keepdims=True), y - (b * centre).sum(axis=1, keepdims=True)
    return np.concatenate([a, offsets[0], b, offsets[1], rest], axis=1).astype(np.float32)


def colour_matrices(saturation: np.ndarray, contrast: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Saturation, then contrast about middle grey, then brightness, as one affine map of RGB 0..255.

    Args:
        saturation: `(n,)` factors; 0 leaves greys.
        contrast: `(n,)` factors; 0 leaves middle grey.
        brightness: `(n,)` what is added, as a share of the range from black to white.

    Returns:
        `(n, 4, 3)` float32: a row (red, green, blue, 1) times it is the new colour.
    """
    s, c = saturation[:, None, None], contrast[:, None, None]
    mixing = c * (s * np.eye(3) + (1 - s) * np.tile(_GREY[:, None], 3))
    offset = 127.5 * (1 - contrast) + 255 * brightness
    return np.concatenate([mixing, np.tile(offset[:, None, None], 3)], axis=1).astype(np.float32)


def _apply(pixels: np.ndarray, movement: np.ndarray, colour: np.ndarray | None) -> np.ndarray:
    ops = keras.ops
    with keras.device("cpu:0"):
        # On uint8, Keras would cut interpolated values off instead of rounding them.
        values = ops.image.affine_transform(
            ops.cast(pixels, "float32"),
            movement,
            interpolation="bilinear",
            fill_mode="nearest",
            data_format="channels_last",
        )
        if colour is not None:
            values = ops.einsum("nhwc,ncd->nhwd", values, colour[:, :3]) + colour[:, None, 3:]
        values = ops.cast(ops.round(ops.clip(values, 0, 255)), "uint8")
    return ops.convert_to_numpy(values)
