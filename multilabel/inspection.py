"""What the labels and the pictures are like, before anything is trained: counts, copies, and what to mend first.

Nothing here needs a model, so nothing here imports Keras.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import duplicates
from .duplicates import Look, find_similar
from .formats import read_labels
from .images import read_pictures
from .labels import UNKNOWN, LabelTable, class_counts, locate_images

_PAIRED = 200  # so many attributes, those with the most positives, are compared in pairs
_PATTERNS = 20  # so many patterns of unknown labels are kept
_SMALLEST_EXPECTED = 5  # below this expected count a measure of association says little (Cochran, 1954)
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class AttributeFacts:
    """How often an attribute is present, absent and unknown."""

    name: str
    positives: int
    negatives: int
    unknown: int

    @property
    def known(self) -> int:
        """Pictures with a label."""
        return self.positives + self.negatives

    @property
    def share(self) -> float:
        """Share of the known labels that say present; NaN where none is known."""
        return self.positives / self.known if self.known else math.nan

    @property
    def f1_of_always_yes(self) -> float:
        """The F1 of saying "present" of every picture: 2 share / (1 + share)."""
        return 2 * self.share / (1 + self.share)


@dataclass(frozen=True)
class TagFacts:
    """How often each class of a tag is the label.

    Attributes:
        name: the tag's.
        counts: classes and their labels, the most frequent first.
        unknown: pictures without a label.
    """

    name: str
    counts: tuple[tuple[str, int], ...]
    unknown: int

    @property
    def known(self) -> int:
        """Pictures with a label."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True, eq=False)
class Together:
    """Attributes in pairs, each counted over the pictures where both are known.

    Attributes:
        names: A attributes.
        both: `(A, A)` pictures where row and column are present.
        only: `(A, A)` pictures where the row is present and the column absent.
        neither: `(A, A)` pictures where both are absent.
    """

    names: tuple[str, ...]
    both: np.ndarray
    only: np.ndarray
    neither: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Pictures where both are known, `(A, A)`."""
        return self.both + self.only + self.only.T + self.neither

    @property
    def expected(self) -> np.ndarray:
        """How often both were present if neither said anything of the other, `(A, A)`; NaN without known pictures."""
        with np.errstate(invalid="ignore"):
            return (self.both + self.only) * (self.both + self.only.T) / self.known

    @property
    def phi(self) -> np.ndarray:
        """The correlation of the two, -1..1, `(A, A)`; NaN where one does not vary (Yule, 1912)."""
        rows, columns = self.both + self.only, self.both + self.only.T
        spread = np.sqrt(rows * (self.known - rows) * (columns * (self.known - columns)).astype(float))
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.both * self.neither - self.only * self.only.T) / spread

    @property
    def few(self) -> np.ndarray:
        """Where one of the four expected counts is below 5, so that `phi` says little, `(A, A)`."""
        rows, columns, known = self.both + self.only, self.both + self.only.T, self.known
        smallest = np.minimum(rows, known - rows) * np.minimum(columns, known - columns)
        return smallest < _SMALLEST_EXPECTED * np.maximum(known, 1)


@dataclass(frozen=True, eq=False)
class Missing:
    """Which labels are unknown together.

    Attributes:
        names: C columns, the attributes and then the tags.
        known_per_picture: `(C + 1,)` pictures with 0, 1, ... C known labels.
        patterns: the columns that are unknown, and in how many pictures exactly these are; the most frequent first.
        more_patterns: how many there are beyond these.
        together: `(C, C)` pictures where row and column are unknown.
    """

    names: tuple[str, ...]
    known_per_picture: np.ndarray
    patterns: tuple[tuple[tuple[str, ...], int], ...]
    more_patterns: int
    together: np.ndarray


@dataclass(frozen=True, eq=False)
class PictureFacts:
    """What the n picture files are like.

    Attributes:
        readable: `(n,)` bool.
        broken: names of the files that cannot be read, and why.
        sizes: `(readable, 2)` width and height in pixels, upright.
        file_sizes: `(readable,)` bytes.
        modes: how the files store their pixels, in Pillow's words, and how many do.
        formats: the same for the files' formats.
        plain: names of pictures that are nearly of one colour.
        image_size: (height, width) of the model's input that they are compared with.
        smaller: readable pictures narrower or lower than that.
    """

    readable: np.ndarray
    broken: tuple[tuple[str, str], ...]
    sizes: np.ndarray
    file_sizes: np.ndarray
    modes: tuple[tuple[str, int], ...]
    formats: tuple[tuple[str, int], ...]
    plain: tuple[str, ...]
    image_size: tuple[int, int]
    smaller: int


@dataclass(frozen=True)
class Conflict:
    """An attribute or tag of which copies of a picture say different things.

    Attributes:
        column: its name.
        said: the pictures' rows where it is known, and what it says there: "1", "0" or a class.
    """

    column: str
    said: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Group:
    """Pictures that are the same.

    Attributes:
        rows: two or more, in the order of the labels file.
        identical: byte for byte; otherwise they look alike, and of identical files only the first is here.
        conflicts: what their labels contradict each other in.
        parts: the parts of the split that they are meant for.
    """

    rows: tuple[int, ...]
    identical: bool
    conflicts: tuple[Conflict, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Inspection:
    """All that `inspect_labels` found.

    Attributes:
        labels: the labels file.
        table: the n pictures that have a file, with absolute paths.
        names: the same pictures as the labels file calls them.
        absent: names of the pictures without a file.
        notes: what reading changed.
        attributes: of the pictures that have a file.
        tags: the same.
        together: of the attributes, or of those with the most positives where they are many.
        missing: of attributes and tags.
        pictures: of all files.
        groups: identical files first, then pictures that look alike; those with conflicts first.
        min_count: fewer labels than this are few.
    """

    labels: str
    table: LabelTable
    names: tuple[str, ...]
    absent: tuple[str, ...]
    notes: tuple[str, ...]
    attributes: tuple[AttributeFacts, ...]
    tags: tuple[TagFacts, ...]
    together: Together
    missing: Missing
    pictures: PictureFacts
    groups: tuple[Group, ...]
    min_count: int

    @property
    def known(self) -> int:
        """Labels that are known."""
        return sum(facts.known for facts in self.attributes) + sum(facts.known for facts in self.tags)

    @property
    def cells(self) -> int:
        """Labels there could be."""
        return len(self.names) * (len(self.attributes) + len(self.tags))


def inspect_labels(
    labels: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    format: str = "auto",
    tags: Sequence[str] = (),
    attributes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    split: str | None = None,
    min_count: int = 10,
    image_size: tuple[int, int] = (224, 224),
    progress: bool = False,
) -> Inspection:
    """Look at labels and pictures before training.

    Every picture is read once, on all processors, as training would read it; nothing is stored.

    Args:
        labels: the labels file, or a folder of JSON files.
        images: the folder of the pictures; `None`: `images/` beside the labels, else their folder.
        format: as in `read_labels`, and so are the next four.
        tags: columns of several classes each.
        attributes: columns of 1, 0 and NA; `None`: all that are no tags.
        names: names of the attributes.
        split: a column that says `train`, `val` or `test`; copies in different parts are then named.
        min_count: fewer labels of a class than this are few.
        image_size: (height, width) of the model's input.
        progress: show a bar, if a person watches.

    Raises:
        UsageError: columns or names that do not fit the labels file.
        DataError: the labels cannot be used; more than half of the pictures are absent.
    """
    given = read_labels(labels, format=format, tags=tags, attributes=attributes, names=names, split=split)
    table, absent = locate_images(given, labels, None if images is None else Path(images))
    gone = set(absent)
    called = tuple(name for name in given.images if name not in gone)
    pictures, groups = _read(table, called, image_size, progress)
    return Inspection(
        os.fspath(labels),
        table,
        called,
        absent,
        given.notes,
        _attributes(table),
        _tags(table),
        _together(table),
        _missing(table),
        pictures,
        groups,
        min_count,
    )


# Labels


def _attributes(table: LabelTable) -> tuple[AttributeFacts, ...]:
    counts = zip(table.names, *(count.tolist() for count in class_counts(table.y)), strict=True)
    return tuple(AttributeFacts(name, yes, no, len(table.images) - yes - no) for name, yes, no in counts)


def _tags(table: LabelTable) -> tuple[TagFacts, ...]:
    facts = []
    for tag, labels in zip(table.tags, table.tag_y.T, strict=True):
        counts = np.bincount(labels[labels != UNKNOWN], minlength=len(tag.classes))
        by_count = [(tag.classes[number], int(counts[number])) for number in np.argsort(-counts, kind="stable")]
        facts.append(TagFacts(tag.name, tuple(by_count), int((labels == UNKNOWN).sum())))
    return tuple(facts)


def _together(table: LabelTable) -> Together:
    positives = (table.y == 1).sum(axis=0)
    chosen = np.sort(np.argsort(-positives, kind="stable")[:_PAIRED])
    y = table.y[:, chosen]
    yes, no = ((y == value).astype(np.float64) for value in (1, 0))  # products of floats are fast, and exact here
    both, only, neither = (np.rint(product).astype(np.int64) for product in (yes.T @ yes, yes.T @ no, no.T @ no))
    return Together(tuple(table.names[column] for column in chosen), both, only, neither)


def _missing(table: LabelTable) -> Missing:
    names = (*table.names, *(tag.name for tag in table.tags))
    unknown = np.concatenate([table.y == UNKNOWN, table.tag_y == UNKNOWN], axis=1)
    packed = Counter(row.tobytes() for row in np.packbits(unknown, axis=1))
    patterns = []
    for pattern, count in packed.most_common(_PATTERNS):
        columns = np.flatnonzero(np.unpackbits(np.frombuffer(pattern, np.uint8), count=len(names)))
        patterns.append((tuple(names[column] for column in columns), count))
    together = np.rint(unknown.T.astype(np.float64) @ unknown).astype(np.int64)
    known = np.bincount((~unknown).sum(axis=1), minlength=len(names) + 1)
    return Missing(names, known, tuple(patterns), len(packed) - len(patterns), together)


# Pictures


def _read(
    table: LabelTable, names: Sequence[str], image_size: tuple[int, int], progress: bool
) -> tuple[PictureFacts, tuple[Group, ...]]:
    looks: list[Look | None] = []
    headers: list[_Header] = []
    readable, broken = np.zeros(len(names), bool), []
    same: dict[bytes, list[int]] = {}
    bar = tqdm(total=len(names), desc="pictures", unit="picture", disable=None if progress else True)
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for row, picture in enumerate(read_pictures(table.images, duplicates.SIZE)):
            bar.update()
            looks.append(None)
            if picture.pixels is None or picture.digest is None:
                reason = picture.error.reason if picture.error else "cannot be read"
                broken.append((names[row], reason))
                continue
            readable[row] = True
            headers.append(_header(picture.path))
            copies = same.setdefault(picture.digest, [])
            copies.append(row)
            if len(copies) == 1:
                looks[row] = Look.of(picture.pixels)
    plain = [name for name, look in zip(names, looks, strict=True) if look is not None and look.plain]
    facts = _picture_facts(headers, readable, broken, plain, image_size)
    groups = [_group(table, rows, identical=True) for rows in same.values() if len(rows) > 1]
    groups += [_group(table, rows, identical=False) for rows in find_similar(looks)]
    groups.sort(key=lambda group: (not group.identical, not group.conflicts, group.rows))
    return facts, tuple(groups)


class _Header(NamedTuple):
    width: int  # upright, as is the height
    height: int
    mode: str
    format: str
    file_size: int


def _header(path: str) -> _Header:
    """What a file that has just been decoded says of itself; reads no pixels."""
    with Image.open(path) as image:
        (width, height), kind = image.size, str(image.format)
        # Pillow would decode all of a PNG to look for an orientation; there it is as good as never set.
        if kind != "PNG" and image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        return _Header(width, height, image.mode, kind, os.path.getsize(path))


def _picture_facts(
    headers: Sequence[_Header],
    readable: np.ndarray,
    broken: Sequence[tuple[str, str]],
    plain: Sequence[str],
    image_size: tuple[int, int],
) -> PictureFacts:
    sizes = np.array([(header.width, header.height) for header in headers], np.int64).reshape(len(headers), 2)
    smaller = (sizes < image_size[::-1]).any(axis=1)
    file_sizes = np.array([header.file_size for header in headers], np.int64)
    modes = tuple(Counter(header.mode for header in headers).most_common())
    formats = tuple(Counter(header.format for header in headers).most_common())
    return PictureFacts(
        readable, tuple(broken), sizes, file_sizes, modes, formats, tuple(plain), image_size, int(smaller.sum())
    )


def _group(table: LabelTable, rows: Sequence[int], *, identical: bool) -> Group:
    parts = {table.parts[row] for row in rows if table.parts[row]} if table.parts else set()
    return Group(tuple(rows), identical, tuple(_conflicts(table, rows)), tuple(sorted(parts)))


def _conflicts(table: LabelTable, rows: Sequence[int]) -> Iterator[Conflict]:
    columns: list[tuple[str, np.ndarray, tuple[str, ...]]]
    columns = [(name, labels, ("0", "1")) for name, labels in zip(table.names, table.y.T, strict=True)]
    columns += [(tag.name, labels, tag.classes) for tag, labels in zip(table.tags, table.tag_y.T, strict=True)]
    for name, labels, words in columns:
        said = tuple((row, words[labels[row]]) for row in rows if labels[row] != UNKNOWN)
        if len({word for _, word in said}) > 1:
            yield Conflict(name, said)
