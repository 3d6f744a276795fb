"""Features that `multilabel embed` has written, for the pictures of a labels file, wherever these were embedded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine import Engine
from ..errors import DataError, ImageError
from ..features import Extraction, FeatureStore
from ..labels import LabelTable, path_ending
from ..places import in_a_sentence, is_url
from ..writing import encodable
from .embedding import COMMAND, FEATURE, engine_of
from .job import all_parts, check_installed, read

_ROWS = 4096  # read at once


class Embedded:
    """The features of a folder that `embed` has written.

    Args:
        out: the folder, a path or a URL.

    Attributes:
        engine: what computed them.

    Raises:
        DataError: it is none, or parts are missing.
    """

    def __init__(self, out: str) -> None:
        check_installed("local", out)
        self._job = read(out)
        if self._job.manifest.command != COMMAND:
            raise DataError(f"{out} was written by `multilabel {self._job.manifest.command}`; expected `embed`.")
        self._parts = list(all_parts(self._job))
        with in_a_sentence(out):
            self.engine: Engine = engine_of(self._job)
        self._found: dict[str, tuple[bytes | None, str]] = {}  # by path, digest and error

    def locate(
        self, table: LabelTable, labels: str | os.PathLike[str], *, strict: bool
    ) -> tuple[LabelTable, tuple[str, ...]]:
        """Finds the pictures of a table by the ends of their paths: `a/1.jpg` is `s3://bucket/photos/a/1.jpg`.

        Args:
            table: with the names of the labels file.
            labels: that file.
            strict: any absent picture is an error.

        Returns:
            The table of the pictures that were embedded, with their paths then, and the names of the others.

        Raises:
            DataError: none was embedded (if `strict`, one was not), a name is that of several pictures, or two names
                are that of one.
        """
        row_of: dict[str, int] = {}
        for row, name in enumerate(table.images):
            ending = encodable(name if is_url(name) else _slashes(path_ending(name)))
            if (other := table.images[row_of.setdefault(ending, row)]) != name:
                raise DataError(f"{labels}: '{other}' and '{name}' may both be {ending}; write more of their paths.")
        candidates: dict[int, dict[str, tuple[bytes | None, str]]] = {}
        for path, digest, error in self._rows():
            at = next((row_of[end] for end in _ends(path) if end in row_of), None)
            if at is not None:
                self._keep(candidates.setdefault(at, {}), path, digest, error)
        paths: dict[int, str] = {}
        for row, found in candidates.items():
            first, *others = found
            if differing := [path for path in others if found[path][0] != found[first][0]]:
                may_be = f"'{table.images[row]}' may be {first} or {differing[0]}"
                raise DataError(f"{labels}: {may_be}; write more of its path into the file.")
            paths[row] = first
            self._found[first] = found[first]
        absent = tuple(name for row, name in enumerate(table.images) if row not in paths)
        if not paths or (strict and absent):
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            raise DataError(
                f"{labels}: {len(absent)} of {len(table.images)} pictures are not in --features {self._job.out} "
                f"({shown})."
            )
        rows = sorted(paths)
        return replace(table.take(rows), images=tuple(paths[row] for row in rows)), absent

    def _keep(self, found: dict[str, tuple[bytes | None, str]], path: str, digest: bytes | None, error: str) -> None:
        """Notes a row; of several rows of one path, one with a feature."""
        known, _ = found.get(path, (None, ""))
        if known is None:
            found[path] = (digest, error)
        elif digest not in (known, None):
            raise DataError(f"{self._job.out}: {path} changed while it was embedded twice; embed into another folder.")

    def extract(self, paths: Sequence[str], store: FeatureStore) -> Extraction:
        """Puts the features of located pictures into the store, as `features.extract` does by computing them."""
        digests = [self._found[path][0] for path in paths]
        missing = store.missing([digest for digest in digests if digest is not None])
        if missing:
            for batch in self._batches(["sha256", FEATURE]):
                hexadecimal = batch.column("sha256").to_pylist()
                rows = {bytes.fromhex(text): row for row, text in enumerate(hexadecimal) if text is not None}
                wanted = [digest for digest in rows if digest in missing]
                if wanted:
                    features = batch.column(FEATURE).take([rows[digest] for digest in wanted]).flatten()
                    store.put(wanted, np.asarray(features).reshape(len(wanted), -1))
                    missing.difference_update(wanted)
                if not missing:
                    break
        errors = [ImageError(path, self._found[path][1]) for path in paths if self._found[path][0] is None]
        return Extraction(digests, errors, 0)

    def _rows(self) -> Iterator[tuple[str, bytes | None, str]]:
        """Path, digest (`None` if the picture could not be read) and error of every row."""
        for batch in self._batches(["path", "sha256", "error"]):
            for path, digest, error in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield path, bytes.fromhex(digest) if error is None else None, error or ""

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        for part in self._parts:
            with in_a_sentence(self._job.parts.join(part)), self._job.parts.open(part) as file:
                yield from pq.ParquetFile(file).iter_batches(_ROWS, columns=columns)


def _ends(path: str) -> Iterator[str]:
    """A path and what follows each of its slashes, the longest first."""
    path = _slashes(path)
    yield path
    for slash in re.finditer("/", path):
        if rest := path[slash.end() :]:
            yield rest


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")
