"""Draw the sample data: small pictures of garments with four visible attributes, some labels unknown.

Run from the root of the repository:

    python examples/make_sample_data.py --out data --count 400 --seed 0

It writes, in about five seconds and under 2 MB,

    data/labels.txt     one row per picture: file name, then 1, 0 or NA for each attribute
    data/images/*.jpg   128 x 160 pixels
    data/regions.csv    where the heart is, in pixels of the picture
    data/README.md      what is in there, counted

The attributes, in the order of the columns: long_sleeves, stripes, buttons, heart. The first three are
balanced, the heart is rare (8 %). 10 % of the cells are NA. On purpose, three rows name a picture that does
not exist and one picture is cut off in the middle. No label is wrong.

A small convolutional network without pretrained weights learns all four in a minute on two CPU cores: expect
a macro F1 above 0.95 on a held-out fifth with the thresholds chosen on that fifth, and somewhat less, because of
the few hearts, with thresholds chosen elsewhere.

The same seed gives the same labels, and the same pictures byte for byte with the same Pillow version. What an
earlier run left in the folder is replaced.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

# name: (share of the pictures that have it, how to see it)
ATTRIBUTES = {
    "long_sleeves": (0.5, "sleeves down to the wrist, not to the elbow"),
    "stripes": (0.45, "horizontal stripes in a second colour"),
    "buttons": (0.5, "a band with five buttons down the front"),
    "heart": (0.08, "a red heart with a white edge on the chest"),
}
UNKNOWN_SHARE = 0.1
ABSENT_PICTURES = 3
WIDTH, HEIGHT = 128, 160
SUPERSAMPLING = 4  # drawn this much larger, then reduced: soft edges
JPEG_QUALITY = 80
HUES = 0.1, 0.85  # from yellow to purple; red is kept for the hearts, which are few to learn from

Colour = tuple[int, int, int]
Outline = list[tuple[float, float]]
Placement = Callable[[np.ndarray], Outline]
Box = tuple[int, int, int, int]
# RandomState and not default_rng: NumPy promises never to change its numbers (NEP 19).
Random = np.random.RandomState

# Outlines, shape (points, 2), in pixels of the picture; the origin is the middle of the chest, y points down.
TORSO = np.array([(-13, -52), (-34, -45), (-31, -18), (-30, 52), (30, 52), (31, -18), (34, -45), (13, -52)])
LONG_SLEEVE = np.array([(30, -47), (40, -37), (53, 36), (41, 40), (28, -14)])
SHORT_SLEEVE = np.array([(30, -47), (40, -37), (51, -9), (38, -1), (28, -14)])
V_NECK = np.array([(-13, -52), (0, -28), (13, -52)])
ROUND_NECK = np.array([(13 * np.cos(t), 12 * np.sin(t) - 52) for t in np.linspace(0, np.pi, 30)])
# Of radius 1, to be enlarged and moved.
CIRCLE = np.array([(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 24)])
HEART = np.array(
    [
        (np.sin(t) ** 3, (5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t) - 13 * np.cos(t)) / 16)
        for t in np.linspace(0, 2 * np.pi, 60)
    ]
)


def draw_labels(rng: Random, count: int) -> np.ndarray:
    """The attributes of `count` pictures, shape (count, 4), 0 or 1, each with exactly its share of ones."""
    columns = [np.arange(count) < max(1, round(share * count)) for share, _ in ATTRIBUTES.values()]
    return np.stack([rng.permutation(column) for column in columns], axis=1).astype(int)


def draw_unknown(rng: Random, shape: tuple[int, int]) -> np.ndarray:
    """Which cells become NA: exactly their share, and never a whole row."""
    cells = np.arange(np.prod(shape)) < round(UNKNOWN_SHARE * np.prod(shape))
    while True:
        unknown = rng.permutation(cells).reshape(shape)
        if not unknown.all(axis=1).any():
            return unknown


def brightness(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (ITU-R BT.601)."""
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def draw_colour(rng: Random, saturation: tuple[float, float], differs_from: Colour | None = None) -> Colour:
    """A random colour that can be told from `differs_from` by its brightness alone."""
    while True:
        hsv = rng.uniform(*HUES), rng.uniform(*saturation), rng.uniform(0.2, 1.0)
        colour = shade(colorsys.hsv_to_rgb(*hsv), 255)
        if differs_from is None or abs(brightness(colour) - brightness(differs_from)) > 60:
            return colour


def shade(colour: tuple[float, float, float], factor: float) -> Colour:
    """The colour made lighter or darker."""
    red, green, blue = (round(min(255, channel * factor)) for channel in colour)
    return red, green, blue


def draw_placement(rng: Random) -> Placement:
    """A small random rotation, scale and shift, from the outlines' coordinates to the large drawing's."""
    angle, scale = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(0.9, 1.08)
    centre = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-4, 4, size=2)
    matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def place(outline: np.ndarray) -> Outline:
        placed = (outline @ matrix + centre) * SUPERSAMPLING
        return [(float(x), float(y)) for x, y in placed]

    return place


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """The outline of an upright rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def draw_background(rng: Random, colour: Colour) -> Image.Image:
    """A gradient in a random direction between two shades of a colour."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.25)
    y, x = np.mgrid[-1 : 1 : HEIGHT * SUPERSAMPLING * 1j, -1 : 1 : WIDTH * SUPERSAMPLING * 1j]
    light = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y) / np.sqrt(2)
    return Image.fromarray(np.clip(light[..., None] * colour, 0, 255).astype(np.uint8))


def draw_garment(rng: Random, labels: dict[str, int]) -> tuple[Image.Image, Box | None]:
    """One picture with the given attributes, and the box of its heart (x0, y0, x1, y1) if it has one."""
    background = draw_colour(rng, saturation=(0, 0.35))
    body = draw_colour(rng, saturation=(0.2, 0.9), differs_from=background)
    place = draw_placement(rng)
    image = draw_background(rng, background)

    # The cloth is drawn over the whole picture and cut to shape afterwards, sleeves under the torso.
    torso = Image.new("RGB", image.size, body)
    if labels["stripes"]:
        draw_stripes(rng, torso, place, draw_colour(rng, saturation=(0, 0.9), differs_from=body))
    sleeves = torso.point(lambda value: value * 0.85)
    sleeve = LONG_SLEEVE if labels["long_sleeves"] else SHORT_SLEEVE
    cut(image, sleeves, [place(sleeve * (side, 1)) for side in (-1, 1)])

    neck = (ROUND_NECK, V_NECK)[rng.randint(2)]
    ImageDraw.Draw(torso).line(place(neck), shade(body, 0.6), width=5 * SUPERSAMPLING, joint="curve")
    if labels["buttons"]:
        draw_buttons(torso, place, body, top=neck[:, 1].max())
    box = draw_heart(rng, torso, place) if labels["heart"] else None
    cut(image, torso, [place(TORSO)], hole=place(neck))

    pixels = np.asarray(image.reduce(SUPERSAMPLING), dtype=float)
    noisy = pixels * rng.uniform(0.85, 1.1) + rng.normal(0, rng.uniform(1, 4), pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), box


def cut(image: Image.Image, cloth: Image.Image, pieces: list[Outline], hole: Outline | None = None) -> None:
    """Paste the cloth into the picture where the pieces are, except for the hole."""
    mask = Image.new("L", image.size, 0)
    for piece in pieces:
        ImageDraw.Draw(mask).polygon(piece, fill=255)
    if hole is not None:
        ImageDraw.Draw(mask).polygon(hole, fill=0)
    image.paste(cloth, mask=mask)


def draw_stripes(rng: Random, cloth: Image.Image, place: Placement, colour: Colour) -> None:
    """Horizontal stripes over the whole cloth."""
    period = rng.uniform(10, 15)
    for top in np.arange(-60 + rng.uniform(0, period), 60, period):
        ImageDraw.Draw(cloth).polygon(place(rectangle(-80, top, 80, top + period * 0.45)), fill=colour)


def draw_buttons(cloth: Image.Image, place: Placement, body: Colour, top: float) -> None:
    """A plain band down the front, with buttons that stand out from it."""
    band = shade(body, 0.75)
    button = (25, 25, 25) if brightness(band) > 110 else (240, 240, 240)
    draw = ImageDraw.Draw(cloth)
    draw.polygon(place(rectangle(-5, top, 5, 60)), fill=band)
    for y in np.linspace(top + 7, 43, 5):
        draw.polygon(place(3 * CIRCLE + (0, y)), fill=button)


def draw_heart(rng: Random, cloth: Image.Image, place: Placement) -> Box:
    """A red heart with a white edge, left or right on the chest; returns its box in the saved picture."""
    centre = rng.choice((-1, 1)) * rng.uniform(16, 17), rng.uniform(-12, 4)
    radius = rng.uniform(12.5, 13.5)
    edge, inside = place(radius * HEART + centre), place(0.72 * radius * HEART + centre)
    draw = ImageDraw.Draw(cloth)
    draw.polygon(edge, fill=(250, 250, 250))
    draw.polygon(inside, fill=(215, 20, 40))
    corners = np.array(edge) / SUPERSAMPLING
    x0, y0 = np.floor(corners.min(axis=0)).astype(int)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def jpeg(image: Image.Image) -> bytes:
    """The bytes of the picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def describe(count: int, seed: int, cells: np.ndarray, absent: list[str], broken: str) -> str:
    """The text of data/README.md; `cells` are the texts 1, 0 and NA as written, shape (count, 4)."""
    counts = {text: np.sum(cells == text, axis=0) for text in ("1", "0", "NA")}
    table = "\n".join(
        f"| {column + 1} | `{name}` | {meaning} | "
        + " | ".join(str(of_columns[column]) for of_columns in counts.values())
        + " |"
        for column, (name, (_, meaning)) in enumerate(ATTRIBUTES.items())
    )
    return f"""# Sample data: drawn garments

{count} rows with four attributes; every picture is drawn by a program. Written, from the repository's root, by

    python examples/make_sample_data.py --out data --count {count} --seed {seed}

Do not edit by hand: change the program and run it again. The licence is the project's, Apache-2.0.

- `labels.txt`: file name, then one cell per attribute, in the order of the table; no header.
- `images/`: JPEG, {WIDTH} × {HEIGHT} pixels.
- `regions.csv`: where the heart is, in pixels of the picture; `x1` and `y1` lie just outside it.
  It lists every readable picture with a heart, also where the label is `NA`.

| column | attribute | what to look for | `1` present | `0` absent | `NA` unknown |
| --- | --- | --- | --- | --- | --- |
{table}

Wrong on purpose, as in real collections:

- {ABSENT_PICTURES} rows name a picture that does not exist: {", ".join(f"`{name}`" for name in absent)};
- 1 picture is cut off in the middle and cannot be read: `{broken}`.

No label is wrong.
"""


def write(path: Path, text: str) -> None:
    """Write a text file that is the same on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), show_default=True)
@click.option("--count", type=click.IntRange(20, 999), default=400, show_default=True, help="Rows to write.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
def main(out: Path, count: int, seed: int) -> None:
    """Draw the sample data into the folder --out."""
    rng = Random(seed)
    labels = draw_labels(rng, count)
    cells = np.where(draw_unknown(rng, labels.shape), "NA", labels.astype(str))
    names = [f"garment_{number:03d}.jpg" for number in range(count)]
    *absent, broken = (str(name) for name in rng.choice(names, ABSENT_PICTURES + 1, replace=False))
    absent.sort()

    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for earlier in images.glob("garment_*.jpg"):
        earlier.unlink()  # of another seed or count: an absent picture has to be absent
    regions = ["image,attribute,x0,y0,x1,y1"]
    for number, name in enumerate(names):
        # A picture of its own seed: it stays the same whatever is drawn before it.
        image, box = draw_garment(Random([seed, number]), dict(zip(ATTRIBUTES, labels[number], strict=True)))
        if name in absent:
            continue
        content = jpeg(image)
        (images / name).write_bytes(content[: len(content) // 2] if name == broken else content)
        if box and name != broken:
            regions.append(",".join([name, "heart", *map(str, box)]))

    rows = [" ".join([name, *row]) for name, row in zip(names, cells, strict=True)]
    write(out / "labels.txt", "\n".join(rows) + "\n")
    write(out / "regions.csv", "\n".join(regions) + "\n")
    write(out / "README.md", describe(count, seed, cells, absent, broken))
    click.echo(f"{out}: {count} rows, {count - ABSENT_PICTURES} pictures, {len(regions) - 1} hearts")


if __name__ == "__main__":
    main()
