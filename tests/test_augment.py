"""Augmentation: the same views for the same seed, and matrices that move and colour as an independent oracle does."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import map_coordinates

from multilabel.augment import AUGMENTING, Augmentation, _apply, colour_matrices, movement_matrices
from multilabel.config import AUGMENTATIONS
from multilabel.errors import UsageError

KINDS = ["light", "strong"]


def pictures(height, width, count=2, seed=0):
    """Smooth ones, so that interpolation is not all there is to see."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in small]
    )


def moved(pixels, mirrored=False, rotation=0.0, zoom=1.0, translation=(0.0, 0.0)):
    matrices = movement_matrices(
        pixels.shape[1:3],
        mirrored=np.full(len(pixels), mirrored),
        rotation=np.full(len(pixels), rotation),
        zoom=np.full(len(pixels), zoom),
        translation=np.tile(translation, (len(pixels), 1)),
    )
    return _apply(pixels, matrices, None)


def coloured(pixels, saturation=1.0, contrast=1.0, brightness=0.0):
    count, height, width, _ = pixels.shape
    still = movement_matrices(
        (height, width), np.zeros(count, bool), np.zeros(count), np.ones(count), np.zeros((count, 2))
    )
    factors = (np.full(count, value) for value in (saturation, contrast, brightness))
    return _apply(pixels, still, colour_matrices(*factors))


# --- the whole


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(32, 32), (33, 20), (20, 47)])
def test_views_have_the_type_and_shape_of_the_pictures(kind, size):
    pixels = pictures(*size, count=3)
    before = pixels.copy()
    augmentation = Augmentation(kind, size)
    views = augmentation(pixels, 0)
    assert (views.dtype, views.shape) == (np.uint8, pixels.shape)
    assert np.array_equal(views, pixels) == (kind == "none")
    assert augmentation(pixels[:0], 0).shape == (0, *size, 3)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_nothing_else(kind):
    pixels, others = pictures(24, 18, 4), pictures(24, 18, 7, seed=1)
    first = Augmentation(kind, (24, 18))
    views = {seed: first(pixels, seed) for seed in (0, 1, 2**32 - 1)}
    second = Augmentation(kind, (24, 18))
    second(others, 5)
    for seed in reversed(views):  # another object, another order, other calls in between
        np.testing.assert_array_equal(second(pixels, seed), views[seed])
        second(others, seed)
    assert len({view.tobytes() for view in views.values()}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_of_a_batch_is_changed_in_its_own_way(kind):
    same_picture = np.repeat(pictures(24, 18, 1), 16, axis=0)
    views = Augmentation(kind, (24, 18))(same_picture, 0)
    assert len({view.tobytes() for view in views}) == 16
    assert not (views == same_picture).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_pictures_are_mirrored(kind):
    """The left is dark, the right is bright: no rotation, zoom or movement of ours exchanges them."""
    pixels = np.zeros((400, 16, 16, 3), np.uint8)
    pixels[:, :, 8:] = 200
    views = Augmentation(kind, (16, 16))(pixels, 0).astype(float)
    mirrored = views[:, :, :3].mean(axis=(1, 2, 3)) > views[:, :, -3:].mean(axis=(1, 2, 3))
    assert 160 <= mirrored.sum() <= 240  # four standard deviations


@pytest.mark.parametrize(("kind", "reach"), [("light", 0.1), ("strong", 0.15)])
def test_pictures_are_moved_as_far_as_it_says(kind, reach):
    """A grey disc does not show how it was turned; its centre of mass shows where it went."""
    side = 65
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    disc = 180.0 * ((x - 32) ** 2 + (y - 32) ** 2 < 100)
    views = Augmentation(kind, (side, side))(np.tile(disc.astype(np.uint8)[None, :, :, None], (300, 1, 1, 3)), 0)
    mass = views[..., 0].astype(float)
    mass -= mass[:, :1, :1]  # the background, which brightness lifts
    total = mass.sum(axis=(1, 2))
    shifts = np.stack([(mass * axis).sum(axis=(1, 2)) / total - 32 for axis in (x, y)]) / side
    assert np.abs(shifts).max() < reach + 0.01
    assert (shifts.max(axis=1) > 0.9 * reach).all()
    assert (shifts.min(axis=1) < -0.9 * reach).all()
    assert abs(np.corrcoef(shifts)[0, 1]) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_no_borders_appear(kind):
    """What is moved in from outside is the colour of the border, neither black nor a mirror image."""
    pixels = np.full((50, 30, 20, 3), 255, np.uint8)
    pixels[:, 12:18, 8:12] = 60  # an object in the middle of a white ground
    views = Augmentation(kind, (30, 20))(pixels, 0).reshape(50, -1, 3)
    frame = np.ones((30, 20), bool)
    frame[1:-1, 1:-1] = False
    border = views[:, frame.ravel()]
    assert (border == border[:, :1]).all()
    if kind == "light":
        assert (border == 255).all()
    else:
        assert border.min() > 150  # darker, and still bright
        assert (border.max(axis=2) == border.min(axis=2)).all()  # and still grey


def test_light_leaves_colours_alone_and_strong_leaves_hues():
    pixels = np.full((40, 8, 8, 3), (200, 100, 50), np.uint8)
    assert (Augmentation("light", (8, 8))(pixels, 0) == pixels).all()
    red, green, blue = Augmentation("strong", (8, 8))(pixels, 0)[:, 0, 0].astype(float).T
    assert len(set(zip(red, green, blue, strict=True))) > 35
    assert ((red > green) & (green > blue)).all()
    unclipped = (red < 255) & (blue > 0)
    assert unclipped.sum() > 30
    np.testing.assert_allclose(((green - blue) / (red - blue))[unclipped], 1 / 3, atol=0.03)


@pytest.mark.slow
def test_randaugment_is_kerass_and_the_seed_decides():
    pixels = pictures(24, 18, 6)
    augmentation = Augmentation("randaugment", (24, 18))
    views = [augmentation(pixels, seed) for seed in range(6)]
    for seed in reversed(range(6)):
        np.testing.assert_array_equal(Augmentation("randaugment", (24, 18))(pixels, seed), views[seed])
    assert len({view.tobytes() for view in views}) == 6
    # Where nothing is moved, only Keras' layer is left, and it is that of the seed.
    flat = np.full((3, 24, 18, 3), (200, 100, 50), np.uint8)
    layer = keras.layers.RandAugment(value_range=(0, 255), factor=0.1, seed=4)
    expected = keras.ops.convert_to_numpy(layer(flat.astype(np.float32), training=True))
    np.testing.assert_allclose(Augmentation("randaugment", (24, 18))(flat, 4), expected, atol=0.5)


def test_descriptions_differ():
    described = [Augmentation(kind, (8, 8)).describe() for kind in AUGMENTATIONS]
    assert described == [
        f"none-{AUGMENTING}",
        f"light-{AUGMENTING}",
        f"strong-{AUGMENTING}",
        f"randaugment-{AUGMENTING}",
    ]


def test_kinds_that_there_are_not():
    with pytest.raises(UsageError) as caught:
        Augmentation("wild", (8, 8))
    assert str(caught.value) == "--augment is wild; expected one of none, light, strong, randaugment."


# --- movements


@pytest.mark.parametrize("size", [(12, 12), (12, 9), (9, 12)])
def test_movements_that_need_no_interpolation(size):
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    height, width = size
    np.testing.assert_array_equal(moved(pixels), pixels)
    np.testing.assert_array_equal(moved(pixels, mirrored=True), pixels[:, :, ::-1])
    np.testing.assert_array_equal(moved(pixels, rotation=180.0), pixels[:, ::-1, ::-1])
    if height == width:
        np.testing.assert_array_equal(moved(pixels, rotation=90.0), np.rot90(pixels, axes=(1, 2)))
    down_left = np.pad(pixels, ((0, 0), (2, 0), (0, 3), (0, 0)), mode="edge")[:, :-2, 3:]
    np.testing.assert_array_equal(moved(pixels, translation=(2 / height, -3 / width)), down_left)
    np.testing.assert_array_equal(
        moved(pixels, mirrored=True, translation=(2 / height, -3 / width)),
        np.pad(pixels[:, :, ::-1], ((0, 0), (2, 0), (0, 3), (0, 0)), mode="edge")[:, :-2, 3:],
    )


@pytest.mark.parametrize("size", [(24, 24), (31, 18)])
@pytest.mark.parametrize("rotation", [-15.0, 7.2])
@pytest.mark.parametrize("zoom", [0.8, 1.2])
@pytest.mark.parametrize("mirrored", [True, False])
def test_movements_against_scipy(size, rotation, zoom, mirrored):
    """Each pixel of the view, taken back step by step: the shift, the zoom, the rotation, the mirror."""
    pixels = pictures(*size)
    height, width = size
    down, right = 0.1, -0.05
    view = moved(pixels, mirrored, rotation, zoom, (down, right))
    y, x = np.mgrid[:height, :width].astype(float)
    point = (x - (width - 1) / 2 - right * width) + 1j * ((height - 1) / 2 + down * height - y)  # y goes up
    point = point / zoom * np.exp(-1j * np.deg2rad(rotation))  # it came from where it was before it was turned
    across = -point.real if mirrored else point.real
    places = [(height - 1) / 2 - point.imag, (width - 1) / 2 + across]
    expected = np.stack(
        [
            [map_coordinates(one[..., c].astype(float), places, order=1, mode="nearest") for c in range(3)]
            for one in pixels
        ]
    ).transpose(0, 2, 3, 1)
    assert np.abs(view - expected).max() < 0.6  # rounding, and float32
    assert np.abs(view - pixels.astype(float)).mean() > 5


# --- colours


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_saturation_against_pillow(factor):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 12, 3), dtype=np.uint8)
    expected = np.asarray(ImageEnhance.Color(Image.fromarray(pixels[0])).enhance(factor)).astype(int)
    assert np.abs(coloured(pixels, saturation=factor)[0] - expected).max() <= 1  # Pillow rounds the grey, and cuts off


@pytest.mark.parametrize(
    ("contrast", "brightness", "expected"),
    [
        (1.0, 0.0, [0, 1, 100, 254, 255]),
        (1.0, 0.2, [51, 52, 151, 255, 255]),
        (1.0, -0.2, [0, 0, 49, 203, 204]),
        (0.5, 0.0, [64, 64, 114, 191, 191]),
        (2.0, 0.0, [0, 0, 72, 255, 255]),
        (2.0, 0.2, [0, 0, 123, 255, 255]),
    ],
)
def test_contrast_and_brightness(contrast, brightness, expected):
    greys = np.array([0, 1, 100, 254, 255], np.uint8).reshape(1, 1, 5, 1).repeat(3, axis=3)
    values = coloured(greys, contrast=contrast, brightness=brightness)
    np.testing.assert_allclose(values[0, 0], np.repeat(expected, 3).reshape(5, 3), atol=1)


def test_photographs_stay_what_they_are(shared):
    """A view is nearer to its own picture than to others, in what a thumbnail shows of it."""
    files = sorted((shared / "data" / "fashion" / "images").glob("*.jpg"))[:40]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((48, 64))) for file in files])
    views = Augmentation("light", (64, 48))(pixels, 0)
    histograms, of_views = (
        np.stack([np.concatenate([np.histogram(one[..., c], 12, (0, 256))[0] for c in range(3)]) for one in batch])
        for batch in (pixels, views)
    )
    distance = np.abs(of_views[:, None] - histograms[None]).sum(axis=2)
    ranks = (distance < np.diag(distance)[:, None]).sum(axis=1)
    assert (ranks <= 1).mean() > 0.8
