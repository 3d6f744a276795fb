"""What is known about the pictures: `LabelTable`, its pictures' files, its counts, and its rare classes.

1 present, 0 absent, the number of a class, and everywhere `UNKNOWN` for what is not known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .config import RARE
from .errors import DataError, UsageError

UNKNOWN = -1
PARTS = ("training", "validation", "test")
PART_SPELLINGS = {  # in lower case
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}


@dataclass(frozen=True)
class Tag:
    """A multi-class label column.

    Attributes:
        name: the column's name.
        classes: what it can be; a label is a position in here.
    """

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Pictures and what is known about them.

    Attributes:
        images: n pictures, as the file names them or, once located, as absolute paths.
        y: int8 of shape (n, K): 1 present, 0 absent, -1 unknown. K may be 0 where there are tags.
        names: the K attributes.
        notes: sentences for the person about what reading changed.
        tags: the T tags.
        tag_y: int16 of shape (n, T): the number of the class, -1 unknown.
        parts: the part each picture is meant for, one of `PARTS` or "" for none; `None` if the file does not say.
    """

    images: tuple[str, ...]
    y: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    tag_y: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int16))
    parts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Gives `tag_y` its shape where there are no tags."""
        if not self.tags:
            object.__setattr__(self, "tag_y", np.empty((len(self.images), 0), np.int16))

    def take(self, indices: Sequence[int] | np.ndarray) -> LabelTable:
        """Return the table of these rows, in this order.

        Args:
            indices: row numbers, or a boolean array of length n.
        """
        wanted = indices if isinstance(indices, np.ndarray) else list(indices)
        rows = np.arange(len(self.images))[wanted]
        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            y=self.y[rows],
            tag_y=self.tag_y[rows],
            parts=None if self.parts is None else tuple(self.parts[row] for row in rows),
        )


def locate_images(
    table: LabelTable, labels_path: str | os.PathLike[str], images_dir: Path | None, *, strict: bool = False
) -> tuple[LabelTable, tuple[str, ...]]:
    """Find the pictures of a table.

    Absolute names are taken as they are. Others are looked for in `images_dir`; without one, in `images/`
    beside the labels file (or beside the folder of JSON files) and then in the folder that this `images/` is in,
    picture by picture.

    Args:
        table: a table with the names of the labels file.
        labels_path: the labels file, or the folder of JSON files.
        images_dir: the folder of the pictures, or `None`.
        strict: any absent picture is an error.

    Returns:
        The table of the pictures that exist, with absolute paths, and the names of the absent ones.

    Raises:
        DataError: `images_dir` is not a folder; more than half of the pictures (if `strict`, any) are absent;
            two names lead to the same file.
    """
    beside = os.path.dirname(os.path.abspath(labels_path))
    folders = [os.path.join(beside, "images"), beside]
    if images_dir is not None:
        folders = [os.path.abspath(images_dir)]
        if not os.path.isdir(images_dir):
            raise DataError(f"{images_dir}: is not a folder; give the folder of the pictures with --images.")
    places = ([os.path.abspath(os.path.join(folder, name)) for folder in folders] for name in table.images)
    paths = [next(filter(os.path.isfile, tried), None) for tried in places]
    absent = tuple(name for name, path in zip(table.images, paths, strict=True) if path is None)
    most_absent = 2 * len(absent) > len(paths)
    if most_absent or (strict and absent):
        shown = absent if strict or len(absent) <= 5 else (*absent[:5], "...")
        advice = "is --images right?" if most_absent else "without --strict they are left out."
        raise DataError(
            f"{labels_path}: {len(absent)} of {len(paths)} pictures are not in {' or '.join(folders)} "
            f"({', '.join(map(printable, shown))}); {advice}"
        )
    name_of: dict[str, str] = {}
    for name, path in zip(table.images, paths, strict=True):
        if path is not None and name_of.setdefault(path, name) != name:
            raise DataError(f"{labels_path}: '{name_of[path]}' and '{name}' are the same file; name it once.")
    kept = table.take([row for row, path in enumerate(paths) if path is not None])
    return replace(kept, images=tuple(name_of)), absent


def path_ending(name: str) -> str:
    """A picture's name as the path of the picture ends, wherever it is."""
    return re.sub(r"^(\.\./)+", "", os.path.normpath(name))


def class_counts(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the known cells of each attribute.

    Args:
        y: labels of shape (n, K), 1, 0 or -1.

    Returns:
        Positives and negatives, two integer arrays of shape (K,).
    """
    return (y == 1).sum(axis=0), (y == 0).sum(axis=0)


def pos_weight(y: np.ndarray) -> np.ndarray:
    """Weigh positives so that both classes of each attribute count the same: negatives / positives.

    Args:
        y: labels of shape (n, K), 1, 0 or -1; unknown cells do not count.

    Returns:
        Floats of shape (K,); 1 for an attribute whose known cells lack one of the classes.
    """
    positives, negatives = class_counts(y)
    both = (positives > 0) & (negatives > 0)
    return np.where(both, negatives / np.maximum(positives, 1), 1.0)


def pool_rare(
    table: LabelTable, *, min_count: int = 0, min_share: float = 0.0, rare: str = "pool", pool_name: str = "None"
) -> tuple[LabelTable, dict[str, dict[str, int]]]:
    """Put the rare classes of every tag together, or drop them; attributes are left alone.

    Args:
        table: labels with tags.
        min_count: a class with fewer labels than this is rare.
        min_share: so is one with a smaller share of the tag's known cells, between 0 and 1.
        rare: `"pool"` makes rare classes one class, the last; `"drop"` makes their cells unknown.
        pool_name: the name of that class. One that exists takes the rare ones in, and is not rare itself.

    Returns:
        The new table and, for every tag that changed, the rare classes and how many labels each had.

    Raises:
        UsageError: `rare` is neither of the two.
        DataError: a tag is left with fewer than 2 classes.
    """
    if rare not in RARE:
        raise UsageError(f"{rare!r} is nothing to do with rare classes; choose pool or drop.")
    tags, tag_y = list(table.tags), table.tag_y.copy()
    taken: dict[str, dict[str, int]] = {}
    for column, tag in enumerate(table.tags):
        rare_classes = _rare_classes(tag, tag_y[:, column], min_count, min_share, pool_name if rare == "pool" else None)
        if not rare_classes:
            continue
        taken[tag.name] = rare_classes
        kept = [name for name in tag.classes if name not in rare_classes]
        if rare == "pool" and (pool_name in kept or any(rare_classes.values())):
            kept = [*(name for name in kept if name != pool_name), pool_name]
        if len(kept) < 2:
            needs = " and ".join(
                [f"{min_count} labels"] * bool(min_count) + [f"{min_share:.3g} of all"] * bool(min_share)
            )
            raise DataError(
                f"Tag {printable(tag.name)}: {len(kept)} of {len(tag.classes)} classes would be left, because a class "
                f"needs {needs}; ask for less, or leave the tag out."
            )
        number_of = {name: number for number, name in enumerate(kept)}
        pool = number_of.get(pool_name, UNKNOWN) if rare == "pool" else UNKNOWN
        renumbered = [number_of.get(name, pool) for name in tag.classes]
        tag_y[:, column] = np.array([*renumbered, UNKNOWN])[tag_y[:, column]]  # -1 finds the last
        tags[column] = Tag(tag.name, tuple(kept))
    return replace(table, tags=tuple(tags), tag_y=tag_y), taken


def align(
    table: LabelTable, names: Sequence[str], tags: Sequence[Tag], pooled: Mapping[str, Mapping[str, str]]
) -> tuple[LabelTable, dict[str, int]]:
    """Arrange labels as a model has them; what the model does not know is left out.

    Args:
        table: labels of any attributes and tags.
        names: the model's attributes. One that the table does not have is unknown for every picture.
        tags: the model's tags, the same.
        pooled: by tag, the classes that the model has in another one, and which.

    Returns:
        The table with these attributes and tags, and how many labels became unknown because their class is none of
        the model's, by `tag: class`.
    """
    y = np.full((len(table.images), len(names)), UNKNOWN, np.int8)
    for column, name in enumerate(names):
        if name in table.names:
            y[:, column] = table.y[:, table.names.index(name)]
    tag_y = np.full((len(table.images), len(tags)), UNKNOWN, np.int16)
    given = {tag.name: (tag, labels) for tag, labels in zip(table.tags, table.tag_y.T, strict=True)}
    strange: dict[str, int] = {}
    for column, tag in enumerate(tags):
        source, labels = given.get(tag.name, (Tag(tag.name, ()), np.array([], int)))
        into = {name: number for number, name in enumerate(tag.classes)}
        numbers = [into.get(pooled.get(tag.name, {}).get(name, name), UNKNOWN) for name in source.classes]
        for number, name in enumerate(source.classes):
            if numbers[number] == UNKNOWN:
                strange[f"{tag.name}: {name}"] = int((labels == number).sum())
        if len(labels):
            tag_y[:, column] = np.array([*numbers, UNKNOWN])[labels]  # -1 finds the last
    return replace(table, names=tuple(names), y=y, tags=tuple(tags), tag_y=tag_y), strange


def _rare_classes(tag: Tag, labels: np.ndarray, min_count: int, min_share: float, exempt: str | None) -> dict[str, int]:
    counts = np.bincount(labels[labels != UNKNOWN], minlength=len(tag.classes))
    # Divided rather than multiplied: 0.07 × 100 is above 7, but 7 / 100 is 0.07 to the last bit.
    is_rare = (counts < min_count) | (counts / max(counts.sum(), 1) < min_share)
    classes = zip(tag.classes, counts.tolist(), is_rare, strict=True)
    return {name: count for name, count, rare in classes if rare and name != exempt}


def printable(text: str) -> str:
    """Return `text` fit for one line of a message: cut when very long, odd characters escaped."""
    cut = text if len(text) <= 100 else text[:100] + "..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
