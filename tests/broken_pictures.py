"""Pictures that nobody can read, for tests: every one must be refused, by name and with a reason."""

from __future__ import annotations

import functools
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

Rng = np.random.Generator
Maker = Callable[[Rng], bytes]


def broken_pictures(count: int = 60, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, bytes) of `count` files, none of which is a readable picture; the same for the same seed.

    All kinds come once before the first comes again, cut and damaged at other places.
    """
    rng = np.random.default_rng(seed)
    for index, (name, make) in enumerate(itertools.islice(itertools.cycle(_KINDS), count)):
        yield f"{index:03}_{name}", make(rng)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of the file that Pillow would save."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, bits: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of raw rows (each begins with its filter byte), with extra chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in body)


def tiff(width: int, height: int, bits: int, pixels: bytes, sample_format: int = 1, samples: int = 1) -> bytes:
    """An uncompressed grey little-endian TIFF; sample format 1: unsigned, 2: signed, 3: floating point."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 134, 277: samples, 278: height}
    tags |= {279: len(pixels), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + pixels


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@functools.cache
def _whole(format: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return encode(Image.fromarray(noise).resize((120, 80)), format, **options)


def _cut(format: str, **options: object) -> Maker:
    """The first 5 to 90 per cent of a good file."""

    def make(rng: Rng) -> bytes:
        data = _whole(format, **options)
        return data[: int(len(data) * rng.uniform(0.05, 0.9))]

    return make


def _damaged_header(format: str) -> Maker:
    """A good file with noise for its first 24 bytes; the zero keeps it from being a signature by chance."""
    return lambda rng: b"\0" + rng.bytes(23) + _whole(format)[24:]


def _damaged_pixels(rng: Rng) -> bytes:
    """A PNG whose compressed pixels are overwritten in the middle, its checksums left as they were."""
    data = bytearray(_whole("PNG"))
    start = int(rng.integers(len(data) // 4, len(data) // 2))
    data[start : start + 200] = rng.bytes(200)
    return bytes(data)


@functools.cache
def _png_bomb(side: int) -> bytes:
    """A white square of 1 bit per pixel: a valid file of some 50 kB that takes side² × 3 bytes as RGB."""
    return png(side, side, 1, 0, (b"\0" + b"\xff" * -(-side // 8)) * side)


def _jpeg_of_size(width: int, height: int) -> bytes:
    """A good JPEG that claims another size."""
    data = _whole("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(3) + b"\xff" * 3 + b",\0\0\0\0" + size + b"\0\x02\x02L\x01\0;"


def _bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def _webp(width: int, height: int) -> bytes:
    """An extended WebP whose canvas has this size, and that has no picture on it."""
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides


def _without_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG less its first chunk of a kind."""
    at = data.index(kind) - 4
    return data[:at] + data[at + 12 + struct.unpack_from(">I", data, at)[0] :]


_SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>'
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
_PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"

_KINDS: list[tuple[str, Maker]] = [
    ("empty.jpg", lambda rng: b""),
    ("jpeg_cut.jpg", _cut("JPEG")),
    ("png_cut.png", _cut("PNG")),
    ("page.jpg", lambda rng: b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"),
    ("png_bomb.png", lambda rng: _png_bomb(20_000)),
    ("text.jpg", lambda rng: b"not a picture, only its name\n"),
    ("random.jpg", lambda rng: b"\0" + rng.bytes(5000)),
    ("webp_cut.webp", _cut("WEBP")),
    ("gif_cut.gif", _cut("GIF")),
    ("bmp_cut.bmp", _cut("BMP")),
    ("tiff_cut.tif", _cut("TIFF")),
    ("tiff_lzw_cut.tif", _cut("TIFF", compression="tiff_lzw")),
    ("ppm_cut.ppm", _cut("PPM")),
    ("jpeg_progressive_cut.jpg", _cut("JPEG", progressive=True)),
    ("webp_lossless_cut.webp", _cut("WEBP", lossless=True)),
    ("jpeg_damaged_header.jpg", _damaged_header("JPEG")),
    ("png_damaged_header.png", _damaged_header("PNG")),
    ("webp_damaged_header.webp", _damaged_header("WEBP")),
    ("gif_damaged_header.gif", _damaged_header("GIF")),
    ("bmp_damaged_header.bmp", _damaged_header("BMP")),
    ("tiff_damaged_header.tif", _damaged_header("TIFF")),
    ("png_damaged_pixels.png", _damaged_pixels),
    ("png_wrong_checksum.png", lambda rng: _whole("PNG")[:29] + rng.bytes(4) + _whole("PNG")[33:]),
    ("png_without_pixels.png", lambda rng: _without_chunk(b"IDAT", _whole("PNG"))),
    ("png_without_header.png", lambda rng: _without_chunk(b"IHDR", _whole("PNG"))),
    ("png_medium_bomb.png", lambda rng: _png_bomb(11_000)),
    ("jpeg_bomb.jpg", lambda rng: _jpeg_of_size(65_500, 65_500)),
    ("gif_bomb.gif", lambda rng: _gif(65_535, 65_535)),
    ("gif_medium_bomb.gif", lambda rng: _gif(10_000, 10_000)),
    ("bmp_bomb.bmp", lambda rng: _bmp(30_000, 30_000)),
    ("webp_bomb.webp", lambda rng: _webp(16_383, 16_383)),
    ("tiff_bomb.tif", lambda rng: tiff(30_000, 30_000, 8, b"")),
    ("ppm_bomb.ppm", lambda rng: b"P6 30000 30000 255\n"),
    ("png_no_area.png", lambda rng: png(0, 5, 8, 0, b"")),
    ("jpeg_no_area.jpg", lambda rng: _jpeg_of_size(0, 5)),
    ("gif_no_area.gif", lambda rng: _gif(0, 0)),
    ("bmp_no_area.bmp", lambda rng: _bmp(0, 0)),
    ("ppm_no_area.ppm", lambda rng: b"P6 0 0 255\n"),
    ("float.tif", lambda rng: tiff(2, 2, 32, rng.random(4, dtype=np.float32).tobytes(), sample_format=3)),
    ("wide_integers.tif", lambda rng: tiff(2, 1, 32, struct.pack("<2i", 0, 70_000), sample_format=2)),
    ("negative.tif", lambda rng: tiff(2, 1, 16, struct.pack("<2h", -1, 5), sample_format=2)),
    ("many_samples.tif", lambda rng: tiff(2, 2, 8, bytes(4), samples=200)),
    ("document.pdf.jpg", lambda rng: _PDF),
    ("drawing.eps.jpg", lambda rng: _EPS),
    ("drawing.svg.png", lambda rng: _SVG),
    ("icon.ico.png", lambda rng: encode(Image.new("RGB", (16, 16)), "ICO")),
    ("archive.zip.jpg", lambda rng: b"PK\3\4" + rng.bytes(100)),
    ("film.mp4.jpg", lambda rng: b"\0\0\0\x18ftypmp42" + rng.bytes(100)),
    ("zeros.jpg", lambda rng: bytes(1000)),
    ("utf16.png", lambda rng: "a text of Windows".encode("utf-16")),
    ("jpeg_magic_only.jpg", lambda rng: b"\xff\xd8\xff"),
    ("jpeg_without_pixels.jpg", lambda rng: _whole("JPEG")[: _whole("JPEG").index(b"\xff\xda")] + b"\xff\xd9"),
    ("png_magic_only.png", lambda rng: b"\x89PNG\r\n\x1a\n"),
    ("gif_magic_only.gif", lambda rng: b"GIF89a"),
    ("webp_magic_only.webp", lambda rng: b"RIFF\0\0\0\0WEBPVP8 "),
    ("tiff_magic_only.tif", lambda rng: b"II*\0"),
]
