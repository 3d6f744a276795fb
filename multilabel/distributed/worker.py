"""A worker: holds the model once, and turns shards of a job into parts, whatever engine hands them to it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .. import __version__
from ..errors import DataError, MultilabelError
from ..images import chunks, read_pictures
from ..places import reason_of
from ..writing import encodable
from .job import Job

BATCH_SIZE = 32
_log = logging.getLogger("multilabel")


class Model(Protocol):
    """What computes the rows of a job. Arrays are those of pyarrow."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of its pictures, in pixels."""

    @property
    def fields(self) -> list[Any]:
        """The `pyarrow.Field`s of its columns; those of pictures that cannot be read are null."""

    def __call__(self, pixels: np.ndarray) -> list[Any]:
        """The columns of n pictures, uint8 `(n, height, width, 3)`."""

    def stored(self, digests: Sequence[bytes]) -> tuple[list[bytes], list[Any]]:
        """Those of the digests whose rows are known already, and their columns."""


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        shard: which.
        pictures: of it.
        errors: how many of them could not be read.
        failure: why there is no part: a sentence; every shard will fail in this way, so the job stops.
        node: the machine.
    """

    shard: int
    pictures: int = 0
    errors: int = 0
    failure: str | None = None
    node: str = ""


@dataclass(frozen=True)
class Start:
    """How to start a worker; it can be sent to other machines.

    Attributes:
        job: what to do.
        load: loads the model of a job.
        batch_size: pictures that go through the model at once.
        retry_errors: pictures that could not be read are tried again.
        gpu: whether the model computes on a GPU where there is one.
        version: of multilabel.
    """

    job: Job
    load: Callable[[Job], Model]
    batch_size: int = BATCH_SIZE
    retry_errors: bool = False
    gpu: bool = True
    version: str = field(default=__version__)

    def __call__(self) -> Worker:
        """A worker on this machine.

        Raises:
            MultilabelError: the job's folder, the model, or what it needs is not here.
        """
        if __version__ != self.version:
            raise DataError(f"multilabel {__version__} is installed there, {self.version} here; install the same.")
        self.job.check()
        return Worker(self.job, self.load(self.job), self.batch_size, retry_errors=self.retry_errors)


class Worker:
    """Makes the parts of shards, one after the other."""

    def __init__(self, job: Job, model: Model, batch_size: int = BATCH_SIZE, *, retry_errors: bool = False) -> None:
        self.job, self.model, self.batch_size, self.retry_errors = job, model, batch_size, retry_errors

    def __call__(self, shard: int) -> Done:
        """Makes the part of a shard. Pictures that cannot be read are rows with an error.

        A part that is there stays: another machine may have been lost after it wrote it, and before it said so.
        """
        try:
            errors = self.job.errors(shard)
            if errors is not None and not (errors and self.retry_errors):
                return Done(shard, self.job.manifest.rows(shard), errors)
            old = self.job.table(shard) if errors else None
            table = self._table(self.job.paths(shard)) if old is None else self._retried(shard, old)
            if table.num_rows != self.job.manifest.rows(shard):
                return Done(shard, failure=f"{self.job.out}: its list of pictures is damaged; choose another folder.")
            self.job.write(shard, table)
        except MultilabelError as error:
            return Done(shard, failure=str(error))
        except Exception as error:  # an engine would do the same again and again, or show the person a traceback
            _log.debug("What went wrong:", exc_info=True)
            return Done(shard, failure=self._why(shard, error))
        return Done(shard, table.num_rows, table.num_rows - table["error"].null_count)

    def _why(self, shard: int, error: Exception) -> str:
        try:
            self.job.check()
        except DataError as gone:
            return str(gone)
        return f"{self.job.out}: its shard {shard} cannot be computed ({type(error).__name__}: {reason_of(error)})."

    def _retried(self, shard: int, old: Any) -> Any:
        """The rows of a shard; only those with an error are made anew, whatever has become of the other pictures."""
        import pyarrow as pa

        failed = np.flatnonzero(old["error"].is_valid())
        paths = self.job.paths(shard)
        new = self._table([paths[row] for row in failed])
        rows = np.arange(old.num_rows)
        rows[failed] = old.num_rows + np.arange(len(failed))
        return pa.concat_tables([old, new]).combine_chunks().take(pa.array(rows))

    def _table(self, paths: Sequence[str]) -> Any:
        """The rows of some pictures; what they have in common is computed once."""
        import pyarrow as pa

        index: dict[bytes | None, int] = {}  # by digest, where in the columns
        columns: list[list[Any]] = []
        reasons: dict[bytes | None, str] = {}
        rows: list[tuple[str, bytes | None, str | None]] = []
        asked: set[bytes] = set()

        def keep(digests: Iterable[bytes], computed: list[Any]) -> None:
            index.update(zip(digests, itertools.count(len(index))))
            columns.append(computed)

        def wanted(digests: Sequence[bytes]) -> set[bytes]:
            new = set(digests) - asked
            asked.update(new)
            known, stored = self.model.stored(sorted(new))
            if known:
                keep(known, stored)
            return new.difference(known)

        pictures = read_pictures(paths, self.model.image_size, wanted=wanted, chunk=min(64, self.batch_size))
        for batch in chunks(pictures, self.batch_size):
            new = {
                picture.digest: picture.pixels
                for picture in batch
                if picture.digest is not None and picture.pixels is not None and picture.digest not in index
            }
            if new:
                keep(new, self.model(np.stack(list(new.values()))))
            for picture in batch:
                if picture.error is not None:
                    reasons[picture.digest] = picture.error.reason
                reason = None if picture.digest in index else reasons[picture.digest]
                rows.append((encodable(picture.path), picture.digest, reason))

        where = pa.array([index.get(digest) for _, digest, _ in rows], pa.int64())
        fields = self.model.fields
        computed = [
            pa.chunked_array([batch[number] for batch in columns], field.type).combine_chunks().take(where)
            for number, field in enumerate(fields)
        ]
        paths_column = pa.array([path for path, _, _ in rows], pa.string())
        digests = pa.array([digest and digest.hex() for _, digest, _ in rows], pa.string())
        errors = pa.array([reason for _, _, reason in rows], pa.string())
        schema = pa.schema(
            [
                pa.field("path", pa.string(), nullable=False),
                pa.field("sha256", pa.string()),
                *fields,
                pa.field("error", pa.string()),
            ]
        )
        return pa.table([paths_column, digests, *computed, errors], schema)
