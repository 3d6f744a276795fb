"""Pictures: a file or bytes become a `uint8` RGB array of one size, or an `ImageError` that says why not.

Training, serving and batch prediction all decode here, so they cannot drift apart.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from .errors import DataError, ImageError, UsageError
from .places import MissingPackage, is_url, read_url, reason_of
from .processors import processors

DECODING = 1
"""Version of all that turns bytes into pixels here; a change that alters pixels raises it, and so renews features."""

MAX_PIXELS = 89_478_485
"""The most pixels a picture may have: where Pillow begins to warn of decompression bombs."""

_SUFFIXES = "jpg jpeg jpe jfif mpo png apng webp gif bmp tif tiff ppm pgm pbm pnm avif"
PICTURE_SUFFIXES = frozenset("." + suffix for suffix in _SUFFIXES.split())

# All that Pillow may try; EPS, for one, would run Ghostscript. MPO is opened as JPEG.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAP_SIDES = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}
_NO_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

# Without any handler, Python itself would print Pillow's log of odd files to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Picture:
    """One file, as `read_pictures` found it.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes; `None` where they could not be read.
        pixels: `uint8` (height, width, 3); `None` where not wanted or not readable.
        error: why it cannot be read; `None` where it can, or where its pixels were not wanted.
    """

    path: str
    digest: bytes | None
    pixels: np.ndarray | None = None
    error: ImageError | None = None


def content_digest(data: bytes) -> bytes:
    """The SHA-256 digest (32 bytes) by which a picture is known, whatever its name."""
    return hashlib.sha256(data).digest()


def decode(
    data: bytes,
    image_size: tuple[int, int],
    name: str | os.PathLike[str] = "<bytes>",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Turn the bytes of a picture into an RGB array of one size.

    The content decides the format, not the name. EXIF orientation is applied, transparency is laid over
    white, 16-bit grey is scaled to 8 bits, and an animation gives its first frame. The whole picture is then
    stretched to `image_size`, bilinear with antialiasing. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size
    where that is no smaller than `image_size`.

    Args:
        data: the content of a file.
        image_size: (height, width) in pixels.
        name: what errors call the picture.
        max_pixels: the most that it may have; its header tells, before anything is decoded.

    Returns:
        `uint8` array of shape (height, width, 3).

    Raises:
        ImageError: not a picture that can be read; its `reason` says why.
        UsageError: `image_size` is not two positive numbers.
    """
    height, width = image_size
    if height < 1 or width < 1:
        raise UsageError(f"image_size is {image_size}; expected (height, width), each at least 1.")
    if not data:
        raise ImageError(name, "the file is empty")
    try:
        with _without_pillow_warnings(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            rgb = _load_rgb(image, (width, height), max_pixels)
            if rgb.size != (width, height):
                rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
            return np.array(rgb)
    except _Refusal as refusal:
        reason = str(refusal)
    except UnidentifiedImageError:
        reason = "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"
    except Image.DecompressionBombError as error:  # at twice our limit; only the text tells the pixels
        reason = _too_large(int(re.findall(r"\d+", str(error))[0]), max_pixels)
    except Exception as error:  # on malformed files Pillow raises nearly anything
        reason = f"truncated or damaged: {str(error) or type(error).__name__}"
    raise ImageError(name, reason)


def read_image(source: str | os.PathLike[str] | bytes, image_size: tuple[int, int]) -> np.ndarray:
    """`decode` for a path, or for bytes; `ImageError` also where the file cannot be opened."""
    if isinstance(source, bytes):
        return decode(source, image_size)
    return decode(_read_bytes(source), image_size, source)


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width in pixels, turned as a camera says; the header alone is read.

    Raises:
        ImageError: the header cannot be read.
    """
    try:
        with _without_pillow_warnings(), Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            return (width, height) if _turn(image) in _SWAP_SIDES else (height, width)
    except Exception as error:  # on malformed files Pillow raises nearly anything
        raise ImageError(path, str(error)) from None


def read_pictures(
    paths: Iterable[str],
    image_size: tuple[int, int],
    *,
    wanted: Callable[[Sequence[bytes]], Collection[bytes]] | None = None,
    chunk: int = 64,
    threads: int | None = None,
) -> Iterator[Picture]:
    """Read many pictures in threads, one chunk ahead of the caller.

    Each file is read once. The pixels of at most two chunks are alive, however many paths there are.

    Args:
        paths: the files, or URLs.
        image_size: (height, width) in pixels.
        wanted: given the digests of a chunk, returns those whose pixels are needed; called in the caller's
            thread. `None`: all are needed.
        chunk: pictures per chunk.
        threads: how many decode at a time; `None`: one per processor.

    Yields:
        One `Picture` per path, in order; a file that cannot be read comes with its `error`.

    Raises:
        MissingPackage: nothing installed reads such URLs.
    """

    def load(path: str) -> tuple[Picture, bytes | None]:
        try:
            data = _read_bytes(path)
        except ImageError as error:
            return Picture(path, None, error=error.with_traceback(None)), None
        return Picture(path, content_digest(data)), data

    def keep_wanted(loaded: list[tuple[Picture, bytes | None]]) -> list[tuple[Picture, bytes | None]]:
        digests = [picture.digest for picture, _ in loaded if picture.digest is not None]
        needed = set(wanted(digests)) if wanted and digests else set(digests)
        return [(picture, data if picture.digest in needed else None) for picture, data in loaded]

    def decode_kept(loaded: tuple[Picture, bytes | None]) -> Picture:
        picture, data = loaded
        if data is None:
            return picture
        try:
            return replace(picture, pixels=decode(data, image_size, picture.path))
        except ImageError as error:  # its traceback would keep the bytes of every broken file in memory
            return replace(picture, error=error.with_traceback(None))

    pool = ThreadPoolExecutor(threads or processors(), thread_name_prefix="read_pictures")
    try:
        loaded_chunks = _one_chunk_ahead(pool, load, chunks(paths, chunk))
        for pictures in _one_chunk_ahead(pool, decode_kept, map(keep_wanted, loaded_chunks)):
            yield from pictures
            del pictures  # before a third chunk is decoded
    finally:
        pool.shutdown(cancel_futures=True)


def find_pictures(folder: str | os.PathLike[str]) -> list[str]:
    """All files below a folder that are named like pictures, sorted; hidden files and folders are skipped.

    Raises:
        DataError: the folder, or one below it, cannot be listed.
    """

    return sorted(walk_pictures(folder))


def walk_pictures(folder: str | os.PathLike[str]) -> Iterator[str]:
    """What `find_pictures` finds, a folder at a time, each sorted: memory does not grow with all of them.

    Raises:
        DataError: the folder, or one below it, cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: the folder cannot be listed ({error.strerror}).")

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_named_like_a_picture(name):
                yield os.path.join(parent, name)


def is_named_like_a_picture(name: str) -> bool:
    """Whether a file's name, without its folder, is that of a picture; hidden files are none."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


class _Refusal(Exception):
    """Why a picture is not accepted; `decode` adds the name."""


def _load_rgb(opened: ImageFile.ImageFile, at_least: tuple[int, int], max_pixels: int) -> Image.Image:
    """Load a picture upright and in RGB; a JPEG only as large as `at_least` (width, height) needs it."""
    if opened.width * opened.height > max_pixels:
        raise _Refusal(_too_large(opened.width * opened.height, max_pixels))
    if opened.format in ("JPEG", "MPO"):
        opened.draft("RGB", at_least[::-1] if _turn(opened) in _SWAP_SIDES else at_least)
    raw_mode = _raw_mode(opened)  # gone once loaded
    opened.load()
    turn = _turn(opened)  # only now: a PNG may tell it after the pixels, and Pillow has turned a TIFF itself
    image = opened.transpose(turn) if turn is not None else opened
    if image.mode == "F":
        raise _Refusal("floating-point pixels, whose white is not known; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _to_8_bits(image, white=4095 if raw_mode == "I;12" else 65535)
    elif raw_mode in ("L;2", "L;4") and "transparency" in image.info:  # unlike the pixels, not yet scaled
        image.info["transparency"] *= 85 if raw_mode == "L;2" else 17
    if image.mode == "La":  # premultiplied grey; Pillow converts it to LA and nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def _to_8_bits(image: Image.Image, white: int) -> Image.Image:
    """Scale grey values 0..`white` to 0..255; Pillow's own conversion would clip them at 255."""
    values = np.asarray(image)
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > white:
        raise _Refusal(f"grey values {lowest}..{highest} go beyond 0..{white}; save it with 8 or 16 bits")
    grey = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    if "transparency" in image.info:
        opaque = values != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What sets the picture upright, by its EXIF orientation; a broken EXIF block counts as none."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # EXIF is parsed here, and whatever is wrong with it, the pixels can be read
        return None


def _raw_mode(opened: ImageFile.ImageFile) -> Any:
    """How the file stores its pixels, in Pillow's words."""
    arguments = opened.tile[0].args if opened.tile else None
    return arguments[0] if isinstance(arguments, tuple) else arguments


def _too_large(pixels: int, max_pixels: int) -> str:
    size, limit = f"{pixels / 1e6:.1f} megapixels", f"{max_pixels / 1e6:.1f}"
    return f"the picture has {size}, the limit is {limit} (a decompression bomb?); save it smaller"


@contextmanager
def _without_pillow_warnings() -> Iterator[None]:
    """Ignore Pillow's warnings of odd metadata and of sizes, safely in threads.

    `warnings.catch_warnings` saves and restores the filters of the whole process, so two threads undo each
    other's. Here each adds one entry to the list it finds, and takes an equal one out of the same list.
    """
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, _NO_PILLOW_WARNINGS)
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody has emptied the list meanwhile
            filters.remove(_NO_PILLOW_WARNINGS)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    if is_url(path):
        return _read_url(os.fspath(path))
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        reason = "no such file"
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, PermissionError):
            reason = "permission denied"
        if os.path.isdir(path):
            reason = "a folder, not a file"
    raise ImageError(path, reason)


def _read_url(url: str) -> bytes:
    try:
        return read_url(url)
    except MissingPackage:  # which says nothing of the picture
        raise
    except Exception as error:  # each kind of filesystem has its own
        reason = reason_of(error)
        raise ImageError(url, reason if isinstance(error, FileNotFoundError) else f"cannot be read: {reason}") from None


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of so many; the last may have fewer."""
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def _one_chunk_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], chunks: Iterable[list[Item]]
) -> Iterator[list[Result]]:
    """Apply `function` to every item in the pool; while one chunk is out, the next is being worked on."""
    ahead: list[Future[Result]] = []
    for chunk in itertools.chain(chunks, [[]]):  # the empty chunk brings out the last one
        submitted = [pool.submit(function, item) for item in chunk]
        if ahead:
            yield [future.result() for future in ahead]
        ahead = submitted
