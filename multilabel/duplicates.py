"""Pictures that look alike: the same one saved again, in another size or quality.

A difference hash finds candidates quickly. It alone would take any two products on a white ground for copies, for most
of such a picture is background; so candidates are also compared by their colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIZE = (64, 72)
"""(height, width) of the pixels that a `Look` is taken from: 8 by 9 squares of 8 pixels for the hash."""

# Chosen on photographs of products, 60×80 to 320 pixels, and copies of them made on purpose.
_MARGIN = 2  # grey levels between neighbours that count; what less there is, is noise on a plain background
_BITS = 8  # of the 64 bits of the hash, that may differ
_LEVELS = 10  # of 255, by which the mean colours of two squares may differ
_SHARE = 0.15  # of what the pictures differ by from a plain one, that they may differ by from each other
_PLAIN = 2.0  # root mean square deviation in grey levels, below which a picture has nothing to compare
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of ITU-R BT.601


@dataclass(frozen=True, eq=False)
class Look:
    """What is compared of a picture.

    Attributes:
        cells: `uint8` (16, 18, 3), the mean colours of squares of 4 pixels.
        bits: the difference hash, a `uint64`: whether a square of 8 pixels is brighter than its left neighbour.
        contrast: root mean square deviation of the cells from their mean colour.
    """

    cells: np.ndarray
    bits: np.uint64
    contrast: float

    @classmethod
    def of(cls, pixels: np.ndarray) -> Look:
        """The look of a picture's pixels, `uint8` (64, 72, 3)."""
        cells = np.asarray(Image.fromarray(pixels).reduce(4))
        grey = _squares(cells) @ _GREY
        bits = np.packbits(grey[:, 1:] > grey[:, :-1] + _MARGIN).view(np.uint64)[0]
        return cls(cells, bits, float(np.sqrt(cells.var((0, 1)).mean())))

    @property
    def plain(self) -> bool:
        """Whether the picture is of nearly one colour, so that there is nothing to compare."""
        return self.contrast < _PLAIN


def find_similar(looks: Sequence[Look | None]) -> list[tuple[int, ...]]:
    """Groups of pictures that look alike.

    Every picture of a group is compared with the darkest of it. Only pictures of about the same brightness are, for
    the others cannot have about the same colours; so 45,000 pictures take seconds, though in the worst case (all as
    bright) the time grows with the square of their number.

    Args:
        looks: of the pictures; `None` for those to leave out.

    Returns:
        Positions in `looks`, each in one group at most; rising within a group, groups by their first.
    """
    kept = [number for number, look in enumerate(looks) if look is not None and not look.plain]
    known = [look for look in (looks[number] for number in kept) if look is not None]
    if not known:
        return []
    squares = np.stack([_squares(look.cells) for look in known])
    level = squares.mean((1, 2, 3))
    order = np.argsort(level, kind="stable")
    level, squares, bits = level[order], squares[order], np.array([look.bits for look in known])[order]
    ends = np.searchsorted(level, level + _LEVELS, "right")
    free = np.ones(len(known), bool)
    groups = []
    for first, end in enumerate(ends):
        if not free[first]:
            continue
        others = first + 1 + np.flatnonzero(np.bitwise_count(bits[first + 1 : end] ^ bits[first]) <= _BITS)
        others = others[free[others]]
        others = others[np.abs(squares[others] - squares[first]).max((1, 2, 3), initial=0) <= _LEVELS]
        alike = [other for other in others if _same_details(known[order[first]], known[order[other]])]
        if alike:
            free[alike] = False
            groups.append(tuple(sorted(kept[order[number]] for number in (first, *alike))))
    return sorted(groups)


def _squares(cells: np.ndarray) -> np.ndarray:
    """Mean colours of the 8 by 9 squares."""
    return cells.reshape(8, 2, 9, 2, 3).mean((1, 3), dtype=np.float32)


def _same_details(one: Look, other: Look) -> bool:
    difference = np.sqrt(np.square(one.cells.astype(np.float32) - other.cells).mean())
    return bool(difference <= _SHARE * min(one.contrast, other.contrast))
