"""How many processors this process computes on: all of its machine, unless it shares the machine with other workers."""

from __future__ import annotations

import os

_limit: int | None = None


def use(count: int) -> None:
    """Sets how many; to be called before anything is computed or TensorFlow is loaded."""
    global _limit
    _limit = count
    for kind in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{kind}_THREADS"] = str(count)


def processors() -> int:
    """How many."""
    return _limit or os.cpu_count() or 1


def limit() -> int | None:
    """How many were set; `None`: all."""
    return _limit
