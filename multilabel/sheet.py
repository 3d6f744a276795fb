"""Contact sheets: pictures with what the model says of them, and what they are labelled, as a page or as one PNG."""

from __future__ import annotations

import base64
import io
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from . import page
from .errors import MultilabelError, UsageError
from .inference import Model, Prediction, TagPrediction
from .labels import UNKNOWN, LabelTable, path_ending
from .writing import replacing

LIMITS = {".html": 2000, ".htm": 2000, ".png": 200}
"""Most pictures on a sheet, by how its file ends; they make some 15 MB of HTML or 10 MB of PNG."""

_SIDE = 160  # pixels of a picture
_MOST_LINES = 20  # of text below a picture
_SIGNS = {"right": "✓ ", "wrong": "✗ ", "unknown": "? ", "plain": ""}
_LEGEND = "✓ right, ✗ wrong, ? not labelled or undecided. "
_LARGER = f"<style>.pictures img, .blank {{ width: {_SIDE / 16}rem; height: {_SIDE / 16}rem; }}</style>"


@dataclass(frozen=True)
class _Line:
    """What is said of one attribute or tag of a picture; `kind` is a key of `_SIGNS`, no text goes without saying."""

    kind: str
    text: str

    def __str__(self) -> str:
        return _SIGNS[self.kind] + self.text


class Sheet:
    """Gathers what a sheet shows while predictions pass by; memory does not grow beyond that.

    Args:
        model: gives the model's name, and what not to rely on.
        path: the file to write; `.html` becomes a self-contained page, `.png` one picture.
        actual: the labels, as the model has them (`labels.align`), and the pictures as the labels file calls them.
            They belong to the picture whose path ends so.

    Raises:
        UsageError: `path` ends otherwise.
        MultilabelError: nothing can be written there.
    """

    def __init__(self, model: Model, path: str | os.PathLike[str], actual: LabelTable | None = None) -> None:
        self.path = Path(path)
        self._style = self.path.suffix.lower()
        if self._style not in LIMITS:
            raise UsageError(f"--sheet {self.path}: expected a file that ends in .html or .png.")
        folder = self.path.absolute().parent
        if self.path.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            why = "it is a folder" if self.path.is_dir() else f"{folder} is no folder that you may write to"
            raise MultilabelError(f"{self.path} cannot be written ({why}); choose another --sheet.")
        self._model = model
        self._actual = actual
        self._rows = {} if actual is None else {path_ending(name): row for row, name in enumerate(actual.images)}
        self._shown: list[tuple[Prediction, list[_Line]]] = []
        self._counts: Counter[str] = Counter()

    def gather(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Passes predictions on unchanged, and keeps the first of them.

        Raises:
            UsageError: the sheet would replace one of the pictures.
        """
        own = {os.path.abspath(self.path), os.path.realpath(self.path)}
        for prediction in predictions:
            if os.path.abspath(prediction.image) in own:
                raise UsageError(f"--sheet {self.path} is one of the pictures to predict; put it elsewhere.")
            row = self._row(prediction.image)
            lines = list(_lines(prediction, self._actual, row))
            if row is not None:
                self._counts.update(line.kind for line in lines)
            self._counts.update(pictures=1, failed=prediction.error is not None, found=row is not None)
            if len(self._shown) < LIMITS[self._style]:
                self._shown.append((prediction, lines))
            yield prediction

    def remarks(self) -> list[str]:
        """Sentences for the person about what the sheet does not show."""
        pictures, found, said = self._counts["pictures"], self._counts["found"], []
        if pictures > len(self._shown):
            said.append(f"{self.path.name} shows the first {len(self._shown):,} of {pictures:,} pictures.")
        if self._actual is not None and found < pictures:
            said.append(f"The labels file has {found:,} of the {pictures:,} pictures.")
        return said

    def write(self) -> None:
        """Writes the file; it appears when it is complete.

        Raises:
            MultilabelError: it cannot be written.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            thumbnails = list(pool.map(_thumbnail, [prediction for prediction, _ in self._shown]))
        if self._style == ".png":
            self._write_png(thumbnails)
        else:
            page.write(self.path, self._html(thumbnails))

    def _row(self, image: str) -> int | None:
        """The row of the labels whose name the picture's path ends with; of several, that of the longest name."""
        if not self._rows:
            return None
        parts = Path(os.path.abspath(image)).parts
        endings = (os.path.join(*parts[start:]) for start in range(len(parts)))
        return next((self._rows[ending] for ending in endings if ending in self._rows), None)

    def _title(self) -> str:
        return f"Predictions of {self._model.run_name}"

    def _summary(self) -> list[str]:
        """Sentences that stand above the pictures."""
        pictures, failed = self._counts["pictures"], self._counts["failed"]
        said = [f"{pictures:,} picture{'' if pictures == 1 else 's'}{f', {failed:,} cannot be read' * bool(failed)}."]
        right, wrong = self._counts["right"], self._counts["wrong"]
        if self._actual is not None:
            share = f" ({right / (right + wrong):.0%})" if right + wrong else ""
            said.append(f"Of {right + wrong:,} labels, {right:,} are as predicted{share} and {wrong:,} are not.")
        said += self.remarks()
        if names := self._model.not_better_than_chance:
            said.append(f"Not better than chance when the model was measured, so do not rely on: {', '.join(names)}.")
        return said

    def _legend(self) -> str:
        return f"{_LEGEND if self._actual is not None else ''}Numbers are probabilities."

    def _html(self, thumbnails: Sequence[str | None]) -> str:
        pictures = [
            page.GridPicture(thumbnail, prediction.image, [str(line) for line in _short(lines)], _kind(lines))
            for (prediction, lines), thumbnail in zip(self._shown, thumbnails, strict=True)
        ]
        lead = "".join(f"<p>{page.escape(sentence)}</p>" for sentence in self._summary())
        body = _LARGER + page.picture_grid(pictures, self._legend())
        return page.page(self._title(), lead, [page.Section("pictures", "Pictures", body)])

    def _write_png(self, thumbnails: Sequence[str | None]) -> None:
        tiles = [
            _tile(prediction.image, _short(lines), thumbnail)
            for (prediction, lines), thumbnail in zip(self._shown, thumbnails, strict=True)
        ]
        drawn = _arranged(_header(self._title(), [*self._summary(), self._legend()]), tiles)
        with replacing(self.path, "choose another --sheet") as new:
            drawn.save(new, "PNG")


def write(
    predictions: Iterable[Prediction],
    model: Model,
    path: str | os.PathLike[str],
    actual: LabelTable | None = None,
) -> list[str]:
    """Writes a sheet of predictions that nobody else needs; see `Sheet`.

    Returns:
        Sentences for the person about what the sheet does not show.
    """
    sheet = Sheet(model, path, actual)
    deque(sheet.gather(predictions), maxlen=0)
    sheet.write()
    return sheet.remarks()


def _thumbnail(prediction: Prediction) -> str | None:
    return None if prediction.error is not None else page.thumbnail(prediction.image, _SIDE, quality=75)


def _lines(prediction: Prediction, actual: LabelTable | None, row: int | None) -> Iterator[_Line]:
    """One line for each attribute and tag, beside its label if the picture has a row of labels."""
    if prediction.error is not None:
        yield _Line("plain", f"error: {prediction.error}")
        return
    if actual is None or row is None:
        for name, present in prediction.present.items():
            yield _Line("plain", f"{name} {prediction.probabilities[name]:.2f}" if present else "")
        for name, tag in prediction.tags.items():
            yield _Line("plain", f"{name} {_class(tag)}")
        if actual is not None:
            yield _Line("unknown", "not in the labels file")
        return
    for name, label in zip(actual.names, actual.y[row].tolist(), strict=True):
        yield _attribute_line(name, prediction.probabilities[name], prediction.present[name], label)
    for column, number in zip(actual.tags, actual.tag_y[row].tolist(), strict=True):
        label_name = None if number == UNKNOWN else column.classes[number]
        yield _tag_line(column.name, prediction.tags[column.name], label_name)


def _attribute_line(name: str, probability: float, present: bool, label: int) -> _Line:
    if label == UNKNOWN:
        return _Line("unknown", f"{name} {probability:.2f}, not labelled" if present else "")
    if present == bool(label):
        return _Line("right", f"{name} {probability:.2f}, right" if present else "")
    if present:
        return _Line("wrong", f"{name} {probability:.2f}, wrong: labelled absent")
    return _Line("wrong", f"{name} absent ({probability:.2f}), wrong: labelled present")


def _tag_line(name: str, tag: TagPrediction, label: str | None) -> _Line:
    said = f"{name} {_class(tag)}"
    if label is None:
        return _Line("unknown", f"{said}, not labelled")
    if not tag.decided:
        return _Line("unknown", f"{said}, labelled {label}")
    return _Line("right", f"{said}, right") if tag.top[0][0] == label else _Line("wrong", f"{said}, wrong: {label}")


def _class(tag: TagPrediction) -> str:
    best, probability = tag.top[0]
    return f"{best} {probability:.2f}" if tag.decided else f"undecided ({best} {probability:.2f})"


def _short(lines: Sequence[_Line]) -> list[_Line]:
    """The lines with a text; those that go without saying are counted."""
    said = [line for line in lines if line.text]
    if len(said) > _MOST_LINES:
        said = [*said[:_MOST_LINES], _Line("plain", f"... and {len(said) - _MOST_LINES} more")]
    if absent := sum(line.kind == "right" and not line.text for line in lines):
        said.append(_Line("right", f"{absent} rightly absent"))
    return said or [_Line("plain", "nothing present")]


def _kind(lines: Sequence[_Line]) -> page.Kind:
    """Of the whole picture: all that is labelled is right, something is wrong, or nobody knows."""
    kinds = {line.kind for line in lines}
    return "wrong" if "wrong" in kinds else "right" if "right" in kinds else "neutral"


# The PNG. Four columns are 800 pixels: they fill no screen, but on a phone the text can still be read.
_COLUMNS, _GAP, _MARGIN, _TEXT_SIZE = 4, 24, 20, 14
_INK = {"right": page.LIGHT["good"], "wrong": page.LIGHT["bad"], "unknown": page.LIGHT["muted"]}


def _font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """A font with the signs, which Pillow's own has not; matplotlib brings it."""
    import matplotlib  # slow to import, and needed here alone

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{weight}.ttf"), size)


def _tile(name: str, lines: Sequence[_Line], thumbnail: str | None) -> Image.Image:
    """One picture and what is said of it, as tall as it needs to be."""
    texts = _text_block(
        [(name, _font(_TEXT_SIZE - 2), page.LIGHT["muted"])]
        + [(str(line), _font(_TEXT_SIZE), _INK.get(line.kind, page.LIGHT["ink"])) for line in lines],
        _SIDE,
    )
    tile = Image.new("RGB", (_SIDE, _SIDE + 6 + texts.height), "white")
    if thumbnail is None:
        ImageDraw.Draw(tile).rectangle((0, 0, _SIDE - 1, _SIDE - 1), page.LIGHT["raised"], page.LIGHT["grid"])
    else:
        with Image.open(io.BytesIO(base64.b64decode(thumbnail.partition(",")[2]))) as picture:
            tile.paste(picture, (0, _SIDE - picture.height))
    tile.paste(texts, (0, _SIDE + 6))
    return tile


def _header(title: str, sentences: Sequence[str]) -> Image.Image:
    texts = [(title, _font(22, "-Bold"), page.LIGHT["ink"])]
    texts += [(sentence, _font(_TEXT_SIZE), page.LIGHT["ink"]) for sentence in sentences]
    return _text_block(texts, _COLUMNS * (_SIDE + _GAP) - _GAP)


def _text_block(texts: Sequence[tuple[str, ImageFont.FreeTypeFont, str]], width: int) -> Image.Image:
    """Paragraphs of text, font and colour, wrapped to a width."""
    wrapped = [(line, font, colour) for text, font, colour in texts for line in _wrapped(text, font, width)]
    block = Image.new("RGB", (width, int(sum(1.35 * font.size for _, font, _ in wrapped)) + 1), "white")
    draw, top = ImageDraw.Draw(block), 0.0
    for line, font, colour in wrapped:
        draw.text((0, top), line, colour, font)
        top += 1.35 * font.size
    return block


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than that, broken after spaces and slashes, within words only where they are too long."""
    lines = [""]
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    for word in re.split(r"(?<=[\s/_-])", text):
        for part in [word] if font.getlength(word.rstrip()) <= width else word:
            if lines[-1] and font.getlength((lines[-1] + part).rstrip()) > width:
                lines.append("")
            lines[-1] += part
    return lines


def _arranged(header: Image.Image, tiles: Sequence[Image.Image]) -> Image.Image:
    """Rows of tiles, as tall as their tallest, below the header."""
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    size = (header.width + 2 * _MARGIN, 2 * _MARGIN + header.height + sum(_GAP + height for height in heights))
    sheet = Image.new("RGB", size, "white")
    sheet.paste(header, (_MARGIN, _MARGIN))
    top = _MARGIN + header.height + _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_MARGIN + column * (_SIDE + _GAP), top))
        top += height + _GAP
    return sheet
