"""The engine of one machine: this process does one shard after the other."""

from __future__ import annotations

import platform
from collections.abc import Generator, Sequence
from dataclasses import replace

from .worker import Done, Start


def run(start: Start, shards: Sequence[int]) -> Generator[Done, None, None]:
    """Does shards, in order.

    Args:
        start: makes a worker.
        shards: which.

    Yields:
        What became of each.

    Raises:
        MultilabelError: there can be no worker on this machine.
    """
    worker = start()
    for shard in shards:
        yield replace(worker(shard), node=platform.node())
