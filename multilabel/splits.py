"""Split pictures into parts so that rare labels reach every part, or as the person says."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, LabelError, UsageError
from .formats import read_text
from .labels import PART_SPELLINGS, PARTS, printable


def split_parts(
    y: NDArray,
    val_share: float,
    test_share: float = 0.0,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """A training, a validation and, if wanted, a test part; see `assign_parts`.

    Args:
        y: labels of attributes and tags, shape (n, columns): whole numbers from 0, or -1 (unknown).
        val_share: share of the pictures for validation, above 0.
        test_share: share of the pictures for the test part; 0 for none. Both together are below 1.
        groups: one per picture (for instance a digest of its content); equal ones stay together.
        seed: of the order in which pictures are dealt out.

    Returns:
        The row numbers of the three parts, ascending. None is empty, but for the test part if its share is 0.

    Raises:
        UsageError: the shares are out of range.
        DataError: there are fewer different pictures than parts.
    """
    if not (val_share > 0 and test_share >= 0 and val_share + test_share < 1):
        raise UsageError(
            f"The validation share is {val_share} and the test share {test_share}; "
            "the first must be above 0, and both together below 1."
        )
    shares = (1 - val_share - test_share, val_share, test_share)[: 3 if test_share else 2]
    distinct = len(y) if groups is None else len(set(groups))
    if distinct < len(shares):
        what = "training, validation and test" if test_share else "training and validation"
        there = {0: "there are none", 1: "there is 1"}.get(distinct, f"there are {distinct}")
        raise DataError(f"Parts for {what} need at least {len(shares)} different pictures, and {there}.")
    parts = assign_parts(y, shares, groups=groups, seed=seed)
    training, validation, test = (np.flatnonzero(parts == part) for part in range(3))
    return training, validation, test


def fixed_parts(
    parts: Sequence[str],
    y: NDArray,
    val_share: float,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The parts that the person fixed; without a validation part, one is split off the training part.

    Args:
        parts: per picture one of `PARTS`, or "": in no part.
        y: as for `split_parts`.
        val_share: share of the training part that becomes the validation part, if there is none.
        groups: as for `split_parts`; across fixed parts equal ones stay where they are, see `shared_groups`.
        seed: as for `split_parts`.

    Returns:
        The row numbers of the training, the validation and the test part, ascending. Only the last may be empty.

    Raises:
        UsageError: the share is out of range.
        DataError: no picture is for training; there are too few different ones to split.
    """
    training, validation, test = (np.flatnonzero([part == name for part in parts]) for name in PARTS)
    if not len(training):
        raise DataError("No picture is in the training part; mark those to train on with train.")
    if not len(validation):
        among = None if groups is None else [groups[row] for row in training.tolist()]
        first, second, _ = split_parts(y[training], val_share, groups=among, seed=seed)
        training, validation = training[first], training[second]
    return training, validation, test


def shared_groups(parts: Sequence[NDArray[np.intp]], groups: Sequence[Hashable]) -> int:
    """Count the groups that lie in more than one part: identical pictures that training and scoring would share.

    Args:
        parts: row numbers of each part.
        groups: one per picture.
    """
    found_in = Counter(group for rows in parts for group in {groups[row] for row in rows})
    return sum(count > 1 for count in found_in.values())


def read_parts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read which part each picture is for: lines like `image 0.jpg train`, or with a comma or a tab.

    The part is the last field, so names may hold spaces. Blank lines and `#` comments are skipped.

    Args:
        path: a text file in UTF-8, or in UTF-16 with a byte order mark.

    Returns:
        By name, as it is spelled in the file, one of `PARTS`.

    Raises:
        LabelError: lines that cannot be used, all of them.
        DataError: the file cannot be read, is not text or holds no parts.
    """
    path = os.fspath(path)
    lines = read_text(path, "parts", "is its path right?").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    said: dict[str, tuple[str, int]] = {}  # by name the part, and the line that says so
    problems: list[tuple[int, str]] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        last = line.replace(",", " ").split()[-1:]
        name = line[: line.rindex(last[0])].rstrip(", \t") if last else ""
        part = PART_SPELLINGS.get(last[0].lower()) if last else None
        if not name:
            problems.append((number, f"'{printable(line)}' is not a name and a part; expected 'image_0.jpg train'"))
        elif part is None:
            what = f"the part is '{printable(last[0])}'; expected train, val or test"
            problems.append((number, f"{printable(name)}: {what}"))
        elif said.setdefault(name, (part, number))[0] != part:
            before, before_line = said[name]
            problems.append((number, f"{printable(name)}: the part is {part}, but line {before_line} says {before}"))
    if problems:
        raise LabelError(path, problems)
    if not said:
        raise DataError(f"{path}: holds no parts; expected lines like 'image_0.jpg train'.")
    return {name: part for name, (part, _) in said.items()}


def assign_parts(
    y: NDArray, shares: Sequence[float], *, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> NDArray[np.intp]:
    """Deal pictures out to parts by iterative stratification.

    After Sechidis, Tsoumakas and Vlahavas (2011), On the Stratification of Multi-Label Data: pictures with the kind of
    label of which the fewest are left are dealt out first. A kind is an attribute's positives, an attribute's
    negatives or a tag's class, so unknown labels count for nothing; a last kind, being a picture, deals out pictures
    without a known label and keeps the sizes.

    Two things differ from the paper. A picture goes to the part with the greatest shortfall in all the picture's kinds
    (each relative to its total), not in the rarest alone: this minimises Σ shortfall² / total step by step, and common
    labels come out as even as rare ones. And as soon as there are only as many pictures left with some label as there
    are parts without this label, they go to these parts: two positives under the shares (0.8, 0.2) go one to each,
    unless other labels of the same pictures prevent it.

    Args:
        y: labels of attributes and tags, shape (n, columns): whole numbers from 0, or -1 (unknown).
        shares: wanted share of each part, in any unit.
        groups: one per picture (for instance a digest of its content); pictures of equal groups go to the same part.
        seed: of the order in which pictures are dealt out; equal seeds give equal parts.

    Returns:
        The part of each picture, shape (n,), from 0 to `len(shares) - 1`. Sizes are close to the shares, not exact.
    """
    group = _group_numbers(groups, len(y))
    values = np.unique(y[y >= 0])[::-1]
    known = [column == value for value in values for column in y.T]
    kinds = np.stack([*(kind for kind in known if kind.any()), np.ones(len(y), bool)], axis=1)
    counts = np.zeros((group.max(initial=-1) + 1, kinds.shape[1]))
    np.add.at(counts, group, kinds)
    return _deal(counts, np.array(shares) / np.sum(shares), np.random.default_rng(seed))[group]


def _deal(counts: NDArray, shares: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """The part of each group; `counts` (groups, kinds) says how many cells of each kind a group brings."""
    brings = counts > 0
    left = brings.sum(axis=0)  # groups with each kind that are not dealt out yet
    weights = 1 / np.maximum(counts.sum(axis=0), 1)
    shortfall = np.zeros((len(shares), counts.shape[1]))  # share × dealt out so far − what the part has of it
    lacking = np.ones(shortfall.shape, bool)
    part_of = np.full(len(counts), -1)
    order = rng.permutation(len(counts))
    while left.any():
        rarest = np.where(left, left, len(counts) + 1).argmin()
        for item in order[brings[order, rarest] & (part_of[order] < 0)]:
            last_chance = brings[item] & (left <= lacking.sum(axis=0))
            urgency = (lacking & last_chance).sum(axis=1)
            shortfall += np.outer(shares, counts[item])
            need = shortfall @ (weights * counts[item])
            part = np.lexsort((need, urgency))[-1]  # the most urgent, and of equals the most in need
            shortfall[part] -= counts[item]
            lacking[part] &= ~brings[item]
            left -= brings[item]
            part_of[item] = part
    return part_of


def _group_numbers(groups: Sequence[Hashable] | None, count: int) -> NDArray[np.intp]:
    """Equal groups get equal numbers, counted from 0 in order of appearance."""
    if groups is None:
        return np.arange(count)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in groups], dtype=np.intp)
