"""What the server does with pictures: decode on a few threads, compute on one, explain on another."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from ..errors import ImageError
from ..images import decode
from ..inference import Model, Prediction, prediction_of, record_of
from .batcher import SIZES, Batcher, Full, Probabilities
from .limits import MEGABYTE, Limits, Refusal, busy
from .uploads import Upload

_log = logging.getLogger("multilabel")
_DECODED = 4  # at a time; the largest PNG with transparency takes a gigabyte meanwhile
_EXPLAINED = 8  # requests that may wait for explanations, which take longer than everything else


class Service:
    """A model that answers many at a time.

    Args:
        model: the model.
        limits: what a request may bring.
        min_confidence: a tag whose best class is less probable is undecided.
        explains: whether the model is a `Bundle`, which can be explained.
        on_batch: called with the size of each batch.
    """

    def __init__(
        self,
        model: Model,
        limits: Limits,
        min_confidence: float = 0.0,
        explains: bool = False,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.model, self.limits, self.explains = model, limits, explains
        self.batcher = Batcher(model.probabilities, capacity=max(limits.waiting, limits.files), on_batch=on_batch)
        self._min_confidence = min_confidence
        self._decoders = ThreadPoolExecutor(min(os.cpu_count() or 1, _DECODED), thread_name_prefix="decoder")
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explainer")
        self._explained = 0
        self._warming: list[Future[Probabilities]] = []

    def start(self) -> None:
        """Starts to compute, first pictures of nothing in each size of batch, so that nobody waits for first times."""
        blank = np.zeros((*self.model.image_size, 3), np.uint8)
        self._warming = [self.batcher.submit(blank) for size in SIZES for _ in range(size)]
        self._warming[0].add_done_callback(_tell_failure)
        self.batcher.start()

    @property
    def unready(self) -> str:
        """Why it is not ready; empty if these went through the model, and well."""
        if any(answer.done() and answer.exception() for answer in self._warming):
            return "The model fails; the server's log says how."
        done = self._warming and all(answer.done() for answer in self._warming)
        return "" if done else "The model is still warming up; ask again in a second."

    def close(self) -> None:
        """Ends once everything that was accepted is computed."""
        self.batcher.close()
        self._decoders.shutdown()
        self._explainer.shutdown()

    async def predict(self, uploads: Sequence[Upload], explain: str | None = None) -> list[dict[str, Any]]:
        """What JSON says of each picture, in their order.

        Args:
            uploads: the pictures.
            explain: an attribute or tag whose evidence is to be shown, too.

        Raises:
            Refusal: there is too much to do, it took too long, or there is nothing of that name to explain.
        """
        try:
            with self.batcher.places(len(uploads)), self._explaining(explain):
                async with asyncio.timeout(self.limits.seconds):
                    return list(await asyncio.gather(*[self._predict_one(upload, explain) for upload in uploads]))
        except (Full, TimeoutError):
            raise busy() from None

    async def _predict_one(self, upload: Upload, explain: str | None) -> dict[str, Any]:
        limit = self.limits.file_bytes
        if len(upload.data) > limit:
            size, most = len(upload.data) / MEGABYTE, limit / MEGABYTE
            error = f"the file has {size:.3g} MB, the limit is {most:.3g}; save it smaller"
            return self._record(Prediction(upload.name, {}, {}, error))
        loop = asyncio.get_running_loop()
        to_pixels = partial(decode, upload.data, self.model.image_size, upload.name, self.limits.pixels)
        try:
            pixels = await loop.run_in_executor(self._decoders, to_pixels)
        except ImageError as error:
            return self._record(Prediction(upload.name, {}, {}, error.reason))
        p = await asyncio.wrap_future(self.batcher.submit(pixels))
        record = self._record(prediction_of(self.model, upload.name, p, self._min_confidence))
        if explain is not None:
            record["explanation"] = await self._explain(pixels, explain)
        return record

    def _record(self, prediction: Prediction) -> dict[str, Any]:
        return record_of(prediction, self.model)

    @contextmanager
    def _explaining(self, name: str | None) -> Iterator[None]:
        """Counts a request that wants explanations, and refuses what cannot be explained."""
        if name is None:
            yield
            return
        known = [*self.model.attributes, *(tag.name for tag in self.model.tags)]
        if not self.explains:
            raise Refusal(422, "This server explains nothing, as only a bundle in TensorFlow can; leave out explain.")
        if name not in known:
            raise Refusal(422, f"There is nothing called {name!r} to explain; the model knows {', '.join(known)}.")
        if self._explained >= _EXPLAINED:
            raise busy()
        self._explained += 1
        try:
            yield
        finally:
            self._explained -= 1

    async def _explain(self, pixels: np.ndarray, name: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._explainer, explained, self.model, pixels, name)


def _tell_failure(answer: Future[Probabilities]) -> None:
    if error := answer.exception():
        _log.error(f"The model fails: {error or type(error).__name__}")


def explained(model: Any, pixels: np.ndarray, name: str) -> dict[str, Any]:
    """What JSON says of where the evidence for an attribute or tag lies."""
    from ..explain import explain_pixels, tint

    explanation = explain_pixels(model, pixels, name)
    file = io.BytesIO()
    tint(explanation).save(file, "PNG")
    overlay = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    return {"name": explanation.title, "exact": explanation.exact, "overlay": overlay}
