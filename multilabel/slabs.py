"""Rows of features wherever they lie, gathered slab by slab: memory does not grow with their number.

Features are an array or a memory-mapped file (`np.memmap`), float32 or float16, of any number of rows.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

SLAB_BYTES = 2**26  # of a slab, in float32
_AT_ONCE = 1024  # rows that are read from a file before its pages are let go of


def rows_of_slab(dimension: int, multiple_of: int = 1) -> int:
    """How many rows a slab holds: as many as fit, in whole batches of `multiple_of`, and one batch at least."""
    return max(1, SLAB_BYTES // (4 * dimension * multiple_of)) * multiple_of


def slabs(features: NDArray, rows: NDArray, multiple_of: int = 1) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The rows in order, a slab at a time.

    Args:
        features: shape (n, dimension).
        rows: which of the n, in which order.
        multiple_of: a slab holds a multiple of so many rows; the last may hold fewer.

    Yields:
        Which of `rows`, and their features as float32.
    """
    size = rows_of_slab(features.shape[1], multiple_of)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield part, gather(features, rows[part])


def gather(features: NDArray, rows: NDArray) -> NDArray[np.float32]:
    """A copy of some rows as float32, shape (rows, dimension); of a file no page stays in memory."""
    file = _file(features)
    if file is None and features.dtype == np.float32:
        return features[rows]
    order = np.argsort(rows, kind="stable")  # a disk reads forwards
    gathered = np.empty((len(rows), features.shape[1]), np.float32)
    for start in range(0, len(rows), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        gathered[part] = features[rows[part]]
        if file is not None:
            file.madvise(mmap.MADV_DONTNEED)
    return gathered


def _file(features: NDArray) -> mmap.mmap | None:
    """The file that an array is mapped from, if it is and its pages can be let go of."""
    array: Any = features
    while array is not None and hasattr(mmap, "MADV_DONTNEED"):  # Windows does without
        if isinstance(array, mmap.mmap):
            return array
        if isinstance(array, np.memmap) and array.mode == "c":  # what was written to it would be lost
            return None
        array = getattr(array, "base", None)
    return None
