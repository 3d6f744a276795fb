"""Split pictures into parts so that rare positives and known negatives reach every part."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, UsageError


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
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
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


def assign_parts(
    y: NDArray, shares: Sequence[float], *, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> NDArray[np.intp]:
    """Deal pictures out to parts by iterative stratification.

    After Sechidis, Tsoumakas and Vlahavas (2011), On the Stratification of Multi-Label Data: pictures with the kind of
    label of which the fewest are left are dealt out first. A kind is an attribute's positives or an attribute's
    negatives, so unknown labels count for nothing; a last kind, being a picture, deals out pictures without a known
    label and keeps the sizes.

    Two things differ from the paper. A picture goes to the part with the greatest shortfall in all the picture's kinds
    (each relative to its total), not in the rarest alone: this minimises Σ shortfall² / total step by step, and common
    labels come out as even as rare ones. And as soon as there are only as many pictures left with some label as there
    are parts without this label, they go to these parts: two positives under the shares (0.8, 0.2) go one to each,
    unless other labels of the same pictures prevent it.

    Args:
        y: labels, shape (n, attributes): 1, 0 or -1 (unknown).
        shares: wanted share of each part, in any unit.
        groups: one per picture (for instance a digest of its content); pictures of equal groups go to the same part.
        seed: of the order in which pictures are dealt out; equal seeds give equal parts.

    Returns:
        The part of each picture, shape (n,), from 0 to `len(shares) - 1`. Sizes are close to the shares, not exact.
    """
    group = _group_numbers(groups, len(y))
    kinds = np.concatenate([y == 1, y == 0, np.ones((len(y), 1), bool)], axis=1)
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
