"""The micro-batcher: pictures of many requests go through the model together, on one thread.

Batches have one of few sizes, so that a runtime prepares itself for these alone. Who waits is not made to wait for a
larger one to fill: the largest that can be filled is computed, and the rest are the first of the next. To pad what is
there to the next size instead would have a processor compute up to twice as much; small batches cost it less than that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

SIZES = (32, 16, 8, 4, 2, 1)

Probabilities = Mapping[str, np.ndarray]


class Full(Exception):
    """As many pictures as may wait are waiting."""


class _Waiting(NamedTuple):
    pixels: np.ndarray
    answer: Future[Probabilities]
    since: float


class Batcher:
    """Computes pictures on a thread of its own, from the first call of `start` to `close`.

    Args:
        compute: n pictures, uint8 `(n, height, width, 3)` → `(n, ...)` by output.
        capacity: pictures that may be in the house at a time, decoded or not.
        patience: seconds that a picture waits for others if the thread has nothing else to do.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[np.ndarray], Probabilities],
        *,
        capacity: int = 256,
        patience: float = 0.003,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.capacity = capacity
        self._compute, self._patience, self._on_batch = compute, patience, on_batch
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._taken = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    @property
    def taken(self) -> int:
        """Pictures in the house."""
        return self._taken

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread once all that wait are computed."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Keeps places for pictures, from before they are decoded until they are answered.

        Raises:
            Full: there are not so many left.
        """
        with self._changed:
            if self._taken + count > self.capacity:
                raise Full
            self._taken += count
        try:
            yield
        finally:
            with self._changed:
                self._taken -= count

    def submit(self, pixels: np.ndarray) -> Future[Probabilities]:
        """A picture, uint8 `(height, width, 3)`, whose probabilities by output the future will hold."""
        answer: Future[Probabilities] = Future()
        with self._changed:
            self._queue.append(_Waiting(pixels, answer, time.monotonic()))
            self._changed.notify()
        return answer

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            if not batch:  # who waited has gone
                continue
            self._on_batch(len(batch))
            try:
                computed = self._compute(np.stack([waiting.pixels for waiting in batch]))
                rows = [{name: values[row] for name, values in computed.items()} for row in range(len(batch))]
            except Exception as error:  # who asked is told; the next batch may go well
                for waiting in batch:
                    waiting.answer.set_exception(error)
                continue
            for waiting, row in zip(batch, rows, strict=True):
                waiting.answer.set_result(row)

    def _next(self) -> list[_Waiting] | None:
        """The next batch; `None` once it is closed and nobody waits."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            while self._queue and len(self._queue) < SIZES[0] and not self._closed:
                left = self._queue[0].since + self._patience - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not self._queue:
                return None
            wanted = [waiting for waiting in self._queue if not waiting.answer.cancelled()]
            size = next((size for size in SIZES if size <= len(wanted)), 0)
            self._queue = deque(wanted[size:])
            # Who goes away from now on is answered all the same.
            return [waiting for waiting in wanted[:size] if waiting.answer.set_running_or_notify_cancel()]
