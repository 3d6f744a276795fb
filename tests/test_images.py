from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import struct
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from broken_pictures import broken_pictures, encode, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from multilabel import images
from multilabel.errors import DataError, ImageError, UsageError
from multilabel.images import content_digest, decode, find_pictures, read_image, read_pictures

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = SIZE = (6, 8)
NOT_A_PICTURE = "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, SIZE, dtype=np.uint8)
ALPHA = np.resize(np.array([0, 255, 1, 254, 128, 77], np.uint8), SIZE)
PALETTE = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
INDEX = RNG.integers(0, 16, SIZE, dtype=np.uint8)


def grey_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def palette_image(index: np.ndarray = INDEX) -> Image.Image:
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(PALETTE.tobytes())
    return image


def smooth(width: int, height: int) -> Image.Image:
    """A picture with structure at all scales but little noise, like a photograph."""
    noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    assert np.abs(actual - expected.astype(float)).max() <= tolerance


# What is in the file


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_rgb_of_every_lossless_format_is_exact(format):
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = decode(encode(Image.fromarray(RGB), format, **options), SIZE)
    np.testing.assert_array_equal(pixels, RGB)
    assert pixels.flags.writeable


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_is_exact(compression):
    data = encode(Image.fromarray(RGB), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(data, SIZE), RGB)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_greyscale(format):
    np.testing.assert_array_equal(decode(encode(Image.fromarray(GREY), format), SIZE), grey_rgb(GREY))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_one_bit(format):
    bits = GREY > 127
    np.testing.assert_array_equal(decode(encode(Image.fromarray(bits), format), SIZE), grey_rgb(bits * 255))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_palette(format):
    np.testing.assert_array_equal(decode(encode(palette_image(), format), SIZE), PALETTE[INDEX])


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (10, 200, 90), (128, 128, 128)])
def test_lossy_formats_keep_a_flat_colour(format, colour):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot read AVIF")
    data = encode(Image.new("RGB", (16, 16), colour), format, quality=95)
    assert_close(decode(data, (16, 16)), np.full((16, 16, 3), colour), 5)


@pytest.mark.parametrize("ink", [(0, 255, 255, 0), (255, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0), (40, 80, 20, 60)])
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_is_ink_on_white_paper(format, ink):
    data = encode(Image.new("CMYK", (16, 16), ink), format)
    assert (b"Adobe" in data) == (format == "JPEG")  # such a JPEG stores the inks inverted
    *colours, black = np.array(ink)
    expected = (255 - np.array(colours)) * (255 - black) / 255
    assert_close(decode(data, (16, 16)), np.broadcast_to(expected, (16, 16, 3)), 3)


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces(mode):
    if mode == "LAB":  # white: all the lightness, and neither of the two colour axes
        image, colour = Image.new("LAB", (4, 4), (255, 128, 128)), (255, 255, 255)
    else:
        image, colour = Image.new("RGB", (4, 4), (200, 30, 60)).convert("YCbCr"), (200, 30, 60)
    assert_close(decode(encode(image, "TIFF"), (4, 4)), np.full((4, 4, 3), colour), 3)


def test_16_bit_png_is_scaled_and_not_clipped():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode(encode(Image.fromarray(values), "PNG"), (256, 256))
    np.testing.assert_array_equal(pixels, grey_rgb(np.round(values / 65535 * 255)))
    assert (pixels[0, 0, 0], pixels[255, 255, 0]) == (0, 255)


@pytest.mark.parametrize(
    ("mode", "data"),
    [
        ("I;16", tiff(3, 1, 16, struct.pack("<3H", 0, 32768, 65535))),
        ("I;16B", encode(Image.frombytes("I;16B", (3, 1), struct.pack(">3H", 0, 32768, 65535)), "TIFF")),
        ("I", b"P5 3 1 65535\n" + struct.pack(">3H", 0, 32768, 65535)),
        ("I", tiff(3, 1, 32, struct.pack("<3i", 0, 32768, 65535), sample_format=2)),
        ("RGB", b"P6 1 1 65535\n" + struct.pack(">3H", 0, 32768, 65535)),
        ("I;16", tiff(3, 1, 12, bytes([0x00, 0x08, 0x00, 0xFF, 0xF0]))),  # 0, 2048, 4095 of 12 bits
    ],
)
def test_wide_greys_of_every_kind_end_at_255(mode, data):
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == mode
        size = (image.height, image.width)
    greys = decode(data, size)[0, :, 0] if mode != "RGB" else decode(data, size)[0, 0]
    np.testing.assert_array_equal(greys, [0, 128, 255])


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_rgba_over_white(format):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.fromarray(np.dstack([RGB, ALPHA])), format, **options)
    assert_close(decode(data, SIZE), over_white(RGB, ALPHA), 1)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_grey_with_alpha_over_white(format):
    data = encode(Image.fromarray(np.dstack([GREY, ALPHA])), format)
    assert_close(decode(data, SIZE), over_white(grey_rgb(GREY), ALPHA), 1)


def test_premultiplied_grey_over_white():
    la = tiff(2, 1, 8, bytes([50, 128, 0, 0]), samples=2)
    data = la[:8] + struct.pack("<H", 11) + la[10:130] + struct.pack("<HHII", 338, 3, 1, 1) + la[130:]
    data = data.replace(struct.pack("<HHII", 273, 4, 1, 134), struct.pack("<HHII", 273, 4, 1, 146))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "La"
    assert_close(decode(data, (1, 2)), grey_rgb([[50 + 255 - 128, 255]]), 1)


def test_palette_with_alpha_channel_over_white():
    image = Image.merge("PA", [palette_image(), Image.fromarray(ALPHA)])
    image.putpalette(PALETTE.tobytes())
    assert_close(decode(encode(image, "TIFF"), SIZE), over_white(PALETTE[INDEX], ALPHA), 1)


def test_palette_with_an_alpha_per_colour_over_white():
    alphas = np.arange(16, dtype=np.uint8) * 17
    data = encode(palette_image(), "PNG", transparency=alphas.tobytes())
    assert_close(decode(data, SIZE), over_white(PALETTE[INDEX], alphas[INDEX]), 1)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_one_transparent_palette_colour_is_white(format):
    expected = np.where((INDEX == 5)[..., None], 255, PALETTE[INDEX])
    np.testing.assert_array_equal(decode(encode(palette_image(), format, transparency=5), SIZE), expected)


def test_one_transparent_rgb_colour_is_white():
    pixels = np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8)
    data = encode(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3))
    np.testing.assert_array_equal(decode(data, (1, 2)), [[[255, 255, 255], [1, 2, 4]]])


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "expected"),
    [
        (1, b"\x40", 1, [0, 255]),
        (1, b"\x40", 0, [255, 255]),
        (2, b"\x10", 1, [0, 255]),  # 0, 1 of 0..3
        (4, b"\x0a", 10, [0, 255]),  # 0, 10 of 0..15
        (4, b"\x0a", 0, [255, 170]),
        (8, b"\x00\x0a", 10, [0, 255]),
        (16, struct.pack(">2H", 0, 1000), 1000, [0, 255]),
        (16, struct.pack(">2H", 0, 1000), 1001, [0, 4]),
    ],
)
def test_one_transparent_grey_is_white_at_every_depth(bits, row, transparent, expected):
    data = png(2, 1, bits, 0, b"\0" + row, (b"tRNS", struct.pack(">H", transparent)))
    np.testing.assert_array_equal(decode(data, (1, 2))[0, :, 0], expected)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(decode(data, (7, 9)), np.full((7, 9, 3), (255, 0, 0)))


def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "really_a.jpg"
    path.write_bytes(encode(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"))
    assert_close(read_image(path, SIZE), over_white(RGB, ALPHA), 1)
    np.testing.assert_array_equal(read_image(str(path), SIZE), read_image(path.read_bytes(), SIZE))


# Upright

TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_every_orientation_is_set_upright(format, orientation):
    options = {"lossless": True} if format == "WEBP" else {}
    image = Image.fromarray(RGB)
    plain = np.asarray(Image.open(io.BytesIO(encode(image, format, **options))))
    expected = TURNED[orientation](plain)
    data = encode(image, format, exif=exif_of(orientation), **options)
    np.testing.assert_array_equal(decode(data, expected.shape[:2]), expected)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@given(block=st.binary(max_size=60))
@settings(deadline=None, max_examples=60)
def test_a_broken_exif_block_leaves_the_picture_readable(format, block):
    image = smooth(16, 16)
    data = encode(image, format, exif=b"Exif\0\0MM\0*" + block)
    plain = decode(encode(image, format), (16, 16))
    assert any(np.array_equal(decode(data, (16, 16)), turned(plain)) for turned in TURNED.values())


@given(position=st.integers(6, 60), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=100)
def test_a_damaged_exif_block_leaves_the_picture_readable(position, byte):
    block = bytearray(exif_of(6).tobytes())
    block[position % len(block)] = byte
    data = encode(smooth(16, 16), "JPEG", exif=bytes(block))
    assert decode(data, (16, 16)).shape == (16, 16, 3)


# Size


def test_a_picture_is_stretched_to_height_and_width():
    image = smooth(90, 40)
    expected = np.asarray(image.resize((31, 57), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode(encode(image, "PNG"), (57, 31)), expected)


def loaded_size(monkeypatch: pytest.MonkeyPatch, data: bytes, image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the picture before it is stretched."""
    sizes = []
    load_rgb = images._load_rgb

    def spy(*arguments: object) -> Image.Image:
        rgb = load_rgb(*arguments)
        sizes.append((rgb.height, rgb.width))
        return rgb

    with monkeypatch.context() as patch:
        patch.setattr(images, "_load_rgb", spy)
        assert decode(data, image_size).shape == (*image_size, 3)
    return sizes[0]


@pytest.mark.parametrize(
    ("orientation", "image_size", "expected"),
    [
        (1, (224, 224), (300, 400)),
        (1, (150, 200), (150, 200)),
        (1, (151, 200), (300, 400)),
        (1, (100, 500), (600, 800)),
        (1, (1201, 10), (1200, 1600)),
        (6, (200, 150), (200, 150)),
        (8, (500, 100), (800, 600)),
        (5, (100, 500), (800, 600)),
        (7, (100, 601), (1600, 1200)),
        (3, (100, 500), (600, 800)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(monkeypatch, orientation, image_size, expected):
    data = encode(smooth(1600, 1200), "JPEG", exif=exif_of(orientation))
    assert loaded_size(monkeypatch, data, image_size) == expected


def test_a_jpeg_is_never_decoded_smaller_than_asked(monkeypatch):
    choose = random.Random(0)
    for _ in range(40):
        data = encode(Image.new("RGB", (choose.randint(1, 300), choose.randint(1, 300))), "JPEG")
        with Image.open(io.BytesIO(data)) as image:
            full = (image.height, image.width)
        wanted = (choose.randint(1, 60), choose.randint(1, 60))
        got = loaded_size(monkeypatch, data, wanted)
        assert all(g == f or g >= w for g, f, w in zip(got, full, wanted, strict=True))


def test_decoding_at_a_smaller_scale_looks_the_same():
    data = encode(smooth(1600, 1200), "JPEG", quality=95)
    full = Image.open(io.BytesIO(data)).resize((224, 224), Image.Resampling.BILINEAR)
    difference = np.abs(decode(data, (224, 224)).astype(int) - np.asarray(full))
    assert difference.mean() < 1
    assert difference.max() < 12


@pytest.mark.parametrize("image_size", [(0, 5), (5, -1)])
def test_an_impossible_size_is_no_fault_of_the_picture(image_size):
    with pytest.raises(UsageError) as error:
        decode(encode(Image.fromarray(RGB), "PNG"), image_size)
    assert str(error.value) == f"image_size is {image_size}; expected (height, width), each at least 1."


# What cannot be read


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, SIZE, "folder/a.jpg")
    assert error.value.path == "folder/a.jpg"
    assert str(error.value) == f"folder/a.jpg: {error.value.reason}"
    return error.value.reason


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty.jpg", "the file is empty"),
        ("page.jpg", NOT_A_PICTURE),
        ("document.pdf.jpg", NOT_A_PICTURE),
        ("drawing.eps.jpg", NOT_A_PICTURE),
        ("icon.ico.png", NOT_A_PICTURE),
        ("png_cut.png", "truncated or damaged: image file is truncated"),
        ("png_without_pixels.png", "truncated or damaged: cannot load this image"),
        ("float.tif", "floating-point pixels, whose white is not known; save it with 8 or 16 bits"),
        ("wide_integers.tif", "grey values 0..70000 go beyond 0..65535; save it with 8 or 16 bits"),
        ("negative.tif", "grey values -1..5 go beyond 0..65535; save it with 8 or 16 bits"),
    ]
    + [
        (
            kind,
            f"the picture has {megapixels} megapixels, the limit is 89.5 (a decompression bomb?); save it smaller",
        )
        for kind, megapixels in {
            "png_bomb.png": "400.0",
            "png_medium_bomb.png": "121.0",  # where Pillow only warns
            "jpeg_bomb.jpg": "4290.2",
            "gif_bomb.gif": "4294.8",
            "gif_medium_bomb.gif": "100.0",
            "bmp_bomb.bmp": "900.0",
            "webp_bomb.webp": "268.4",
            "tiff_bomb.tif": "900.0",
            "ppm_bomb.ppm": "900.0",
        }.items()
    ],
)
def test_the_reason_is_told_in_one_line(kind, reason):
    data = next(data for name, data in broken_pictures() if name[4:] == kind)
    assert reason_of(data) == reason


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_broken_picture_is_refused(seed):
    names = []
    for name, data in broken_pictures(count=120, seed=seed):
        with pytest.raises(ImageError) as error:
            decode(data, SIZE, name)
        assert error.value.path == name
        assert len(error.value.reason) > 10
        assert "\n" not in str(error.value)
        names.append(name)
    assert len(set(names)) == 120


def test_broken_pictures_are_the_same_for_the_same_seed():
    assert list(broken_pictures(20, seed=3)) == list(broken_pictures(20, seed=3))
    assert list(broken_pictures(20, seed=3)) != list(broken_pictures(20, seed=4))


def test_the_limit_of_pixels_is_inclusive():
    most = WIDTH * HEIGHT
    assert decode(encode(Image.fromarray(RGB), "PNG"), SIZE, max_pixels=most).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageError, match="megapixels"):
        decode(encode(Image.new("RGB", (most + 1, 1)), "PNG"), SIZE, max_pixels=most)


def test_a_failure_without_words_is_named_by_its_type(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_load_rgb", fail)
    assert reason_of(encode(Image.fromarray(RGB), "PNG")) == "truncated or damaged: MemoryError"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.jpg", "no such file"),
        ("folder", "a folder, not a file"),
        ("file.jpg/inside.jpg", "cannot be read: Not a directory"),
        ("nul\0.jpg", "cannot be read: embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_opened(tmp_path, name, reason):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.jpg").touch()
    path = str(tmp_path / name)
    with pytest.raises(ImageError) as error:
        read_image(path, SIZE)
    assert (error.value.path, error.value.reason) == (path, reason)


def test_a_file_without_permission(tmp_path, monkeypatch):
    def forbid(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbid)  # not chmod, which does not stop root
    with pytest.raises(ImageError, match=r"private\.jpg: permission denied$"):
        read_image(tmp_path / "private.jpg", SIZE)


GOOD = [
    encode(smooth(40, 30), "JPEG", exif=exif_of(6)),
    encode(smooth(40, 30).convert("CMYK"), "JPEG", progressive=True),
    encode(smooth(40, 30).convert("RGBA"), "PNG", exif=exif_of(5)),
    encode(smooth(40, 30).quantize(16), "PNG", transparency=3),
    encode(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
    encode(smooth(40, 30), "WEBP", exif=exif_of(7)),
    encode(palette_image(), "GIF", save_all=True, append_images=[palette_image(15 - INDEX)]),
    encode(smooth(40, 30), "BMP"),
    encode(smooth(40, 30), "TIFF", exif=exif_of(8)),
    encode(smooth(40, 30).convert("LAB"), "TIFF"),
    encode(smooth(40, 30), "PPM"),
]


@pytest.mark.parametrize("data", GOOD)
@given(damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), kept=st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_damage_gives_a_picture_or_an_image_error(data, damage, kept):
    damaged = bytearray(data)
    for place, byte in damage:
        damaged[int(place**3 * (len(data) - 1))] = byte  # most of it in the header
    if kept < 0.5:
        del damaged[int(len(data) * 2 * kept) :]
    try:
        pixels = decode(bytes(damaged), SIZE)
    except ImageError:
        return
    assert (pixels.shape, pixels.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)


# Nothing of Pillow's reaches the terminal, and nothing of the user's is changed

GRUMBLES = encode(smooth(16, 16), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05" + bytes(9))


def test_warnings_are_kept_from_the_user_and_only_while_decoding():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        assert decode(GRUMBLES, SIZE).shape == (HEIGHT, WIDTH, 3)
        assert warnings.filters == filters
        with pytest.raises(UserWarning, match="Corrupt EXIF data"):
            Image.open(io.BytesIO(GRUMBLES))
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


def test_warnings_are_kept_from_the_user_in_threads():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: decode(GRUMBLES, SIZE), range(400)))
        assert warnings.filters == filters
    assert caught == []


def test_the_limit_of_pillow_stays_as_it_was():
    assert Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS  # Pillow's default, where it begins to warn


def test_nothing_is_printed_even_where_warnings_are_errors():
    code = """if True:
        import sys
        from broken_pictures import broken_pictures
        from multilabel.errors import ImageError
        from multilabel.images import decode
        for name, data in broken_pictures():
            try:
                decode(data, (8, 8))
            except ImageError:
                continue
            sys.exit(name)
        assert not {"keras", "tensorflow", "pandas", "multilabel.labels"} & set(sys.modules)
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Many at a time


def test_the_digest_is_sha_256():
    assert content_digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Ten good pictures, each of one grey: 0, 10, 20 ..."""
    paths = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(Image.new("L", (5, 4), number * 10), "PNG"))
        paths.append(str(path))
    return paths


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read_pictures")]


@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_pictures_come_in_order_with_digest_and_pixels(files, chunk):
    paths = [*files[::-1], files[3], files[3]]
    pictures = list(read_pictures(iter(paths), (4, 5), chunk=chunk, threads=3))
    assert [picture.path for picture in pictures] == paths
    for picture in pictures:
        assert picture.error is None
        assert picture.digest == hashlib.sha256(Path(picture.path).read_bytes()).digest()
        np.testing.assert_array_equal(picture.pixels, read_image(picture.path, (4, 5)))
    assert reader_threads() == []


def test_no_paths_no_pictures():
    assert list(read_pictures([], SIZE)) == []


def test_broken_files_come_in_their_place_with_their_error(files, tmp_path):
    broken = tmp_path / "page.jpg"
    broken.write_bytes(b"<html>")
    paths = [files[0], str(broken), str(tmp_path / "absent.jpg"), files[1], str(tmp_path)]
    pictures = list(read_pictures(paths, (4, 5), chunk=2))
    assert [picture.path for picture in pictures] == paths
    assert [picture.error and picture.error.reason for picture in pictures] == [
        None,
        NOT_A_PICTURE,
        "no such file",
        None,
        "a folder, not a file",
    ]
    assert [picture.pixels is None for picture in pictures] == [False, True, True, False, True]
    assert pictures[1].digest == content_digest(b"<html>")
    assert pictures[2].digest is None
    for picture in pictures:
        if picture.error is not None:  # else a list of the broken files would keep all their bytes
            assert picture.error.__traceback__ is None
            assert picture.error.__context__ is None


def test_only_what_is_wanted_is_decoded(files, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not wanted, so nobody notices")
    paths = [*files[:5], str(broken), str(tmp_path / "absent.jpg"), *files[5:]]
    chosen = {content_digest(Path(path).read_bytes()) for path in files[::2]}
    asked: list[list[bytes]] = []
    caller = threading.current_thread()

    def wanted(digests):
        assert threading.current_thread() is caller
        asked.append(list(digests))
        return [digest for digest in digests if digest in chosen]

    pictures = list(read_pictures(paths, (4, 5), wanted=wanted, chunk=4))
    assert [picture.path for picture in pictures if picture.pixels is not None] == files[::2]
    assert [picture.path for picture in pictures if picture.error is not None] == [paths[6]]
    readable = [picture.digest for picture in pictures if picture.digest is not None]
    assert [len(digests) for digests in asked] == [4, 3, 4]
    assert list(itertools.chain(*asked)) == readable


def test_nothing_is_asked_about_files_that_cannot_be_read(tmp_path):
    def wanted(digests):
        pytest.fail("there are no digests to ask about")

    [picture] = read_pictures([str(tmp_path / "absent.jpg")], SIZE, wanted=wanted)
    assert picture.error is not None


def test_each_file_is_read_once(files, monkeypatch):
    read: list[str] = []
    read_bytes = images._read_bytes
    monkeypatch.setattr(images, "_read_bytes", lambda path: read.append(path) or read_bytes(path))
    assert len(list(read_pictures(files, (4, 5), chunk=3))) == len(files)
    assert sorted(read) == sorted(files)


def test_the_next_chunk_is_decoded_while_the_caller_works(files, monkeypatch):
    decoded = {path: threading.Event() for path in files}

    def fake(data, image_size, name):
        assert threading.current_thread() in reader_threads()
        decoded[name].set()
        return np.zeros((*image_size, 3), np.uint8)

    monkeypatch.setattr(images, "decode", fake)
    pictures = read_pictures(files, SIZE, chunk=2, threads=2)
    next(pictures)
    assert decoded[files[2]].wait(10)
    assert decoded[files[3]].wait(10)
    assert not decoded[files[4]].is_set()
    pictures.close()


def test_memory_is_bounded_by_two_chunks(files, monkeypatch):
    chunk, live, most = 4, 0, 0
    lock = threading.RLock()  # a weakref may die while it is held

    def died():
        nonlocal live
        with lock:
            live -= 1

    def fake(data, image_size, name):
        nonlocal live, most
        pixels = np.zeros((*image_size, 3), np.uint8)
        weakref.finalize(pixels, died)
        with lock:
            live += 1
            most = max(most, live)
        return pixels

    monkeypatch.setattr(images, "decode", fake)
    taken = 0

    def endless():
        nonlocal taken
        for path in itertools.cycle(files):
            taken += 1
            yield path

    for number, _ in enumerate(read_pictures(endless(), SIZE, chunk=chunk, threads=3)):
        assert taken <= number + 3 * chunk
        if number == 200:
            break
    assert chunk < most <= 2 * chunk + 1  # and the one that the caller holds


@pytest.mark.parametrize("stop", [GeneratorExit, RuntimeError, KeyboardInterrupt])
def test_threads_end_when_the_caller_stops_early(files, stop):
    def consume():
        for number, _ in enumerate(read_pictures(files * 50, (4, 5), chunk=4, threads=3)):
            if number == 5:
                assert reader_threads() != []
                if stop is GeneratorExit:
                    return
                raise stop

    if stop is GeneratorExit:
        consume()
    else:
        with pytest.raises(stop):
            consume()
    assert reader_threads() == []


def test_a_failure_in_wanted_reaches_the_caller(files):
    def wanted(digests):
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        list(read_pictures(files, SIZE, wanted=wanted, chunk=2))
    assert reader_threads() == []


# Folders


def test_pictures_of_a_folder(tmp_path):
    names = ["b.JPG", "a.png", "sub/c.Tiff", "sub/deep/d.webp", "e.jpeg", "z/f.gif", "with space.bmp"]
    others = ["notes.txt", ".hidden.jpg", ".git/g.jpg", "sub/.cache/h.png", "jpg", "i.jpg.part", "j.pdf"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = sorted(str(tmp_path / name) for name in names)
    assert find_pictures(tmp_path) == expected
    assert find_pictures(str(tmp_path)) == expected


def test_a_folder_that_cannot_be_listed(tmp_path):
    with pytest.raises(DataError) as error:
        find_pictures(tmp_path / "absent")
    assert str(error.value) == f"{tmp_path / 'absent'}: the folder cannot be listed (No such file or directory)."


def test_every_real_picture_is_read():
    folder = ROOT.parent / "shared" / "data" / "aimonk" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    paths = find_pictures(folder)
    assert len(paths) == 700
    disguised = 0
    for picture in read_pictures(paths, (32, 32)):
        assert picture.error is None
        assert (picture.pixels.shape, picture.pixels.dtype) == ((32, 32, 3), np.uint8)
        with Image.open(picture.path) as image:
            if picture.path.endswith(".jpg") and image.format == "PNG" and image.has_transparency_data:
                disguised += 1
                white = Image.new("RGB", image.size, "white")
                white.paste(image.convert("RGB"), mask=image.convert("RGBA").getchannel("A"))
                expected = np.asarray(white.resize((32, 32), Image.Resampling.BILINEAR))
                assert_close(picture.pixels, expected, 2)
    assert disguised > 0
