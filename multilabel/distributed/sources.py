"""Which pictures: folders, lists, CSV and Parquet of paths, on a disk or behind URLs; a folder at most is in memory."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import DataError, UsageError
from ..images import is_named_like_a_picture, walk_pictures
from ..places import in_a_sentence, is_folder, is_url, open_file, walk_url

csv.field_size_limit(1 << 24)  # captions and the like stand beside paths
COLUMNS = ("path", "image")  # of a table, the first that it has holds the paths
_ROWS = 10_000  # of a table, read at once


def find(paths: Iterable[str], column: str | None = None) -> Iterator[str]:
    """Absolute paths and URLs of pictures, in a settled order.

    Args:
        paths: pictures; folders, for all pictures below them; lists (`.txt`, a path a line; `.csv`, `.tsv` and
            `.parquet`, a path a row); each a path or a URL. Relative paths in lists
            begin at the current folder; lines that begin with `#` are none.
        column: the column of tables that holds the paths; default: the first of `COLUMNS` that they have.

    Raises:
        DataError: a folder or list cannot be read, or has no pictures. (A picture that is not there is found here.)
        UsageError: a column was given, and no table.
    """
    tables = 0
    for path in map(os.fspath, paths):
        reader = _LISTS.get(os.path.splitext(path)[1].lower())
        if reader is not None and not os.path.isdir(path):
            tables += reader is not _lines
            yield from map(_absolute, _not_empty(path, _sentences(path, reader(path, column))))
        elif is_url(path):
            yield from _sentences(path, _behind(path))
        elif not os.path.exists(path) and not is_named_like_a_picture(os.path.basename(path)):
            raise DataError(f"{path}: there is no such file or folder.")
        elif os.path.isdir(path):
            yield from map(_absolute, _not_empty(path, walk_pictures(path)))
        else:
            yield _absolute(path)
    if column is not None and not tables:
        raise UsageError(f"--column {column} is for tables (.csv, .tsv, .parquet), and none was given; leave it out.")


def _behind(url: str) -> Iterator[str]:
    named_like_a_picture = is_named_like_a_picture(url.rsplit("/", 1)[-1])
    if named_like_a_picture or not is_folder(url):  # to ask for each of many takes long
        yield url
        return
    named = (found for found in walk_url(url) if is_named_like_a_picture(found.rsplit("/", 1)[-1]))
    yield from _not_empty(url, named)


def _absolute(path: str) -> str:
    """Other machines begin elsewhere."""
    return path if is_url(path) else os.path.abspath(path)


def _not_empty(path: str, found: Iterator[str]) -> Iterator[str]:
    first = next(found, None)
    if first is None:
        raise DataError(f"{path}: no pictures were found there; is the path right?")
    yield first
    yield from found


def _sentences(path: str, found: Iterator[str]) -> Iterator[str]:
    with in_a_sentence(path):
        yield from found


def _lines(path: str, column: str | None) -> Iterator[str]:
    with open_file(path) as file:
        for line in io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="\n"):  # as Python reads file names
            line = line.rstrip("\r\n")
            if line and not line.startswith("#"):
                yield line


def _csv(path: str, column: str | None, separator: str = ",") -> Iterator[str]:
    with open_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        reader = csv.reader(text, delimiter=separator, strict=True)
        rows = filter(None, _split(path, reader))
        names = next(rows, None)
        if names is None:
            raise DataError(f"{path}: is empty; expected a line with the names of its columns.")
        wanted = names.index(_column(path, names, column))
        for row in rows:
            if len(row) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, expected {len(names)}; "
                    "what holds the separator belongs between double quotes."
                )
            if not row[wanted]:
                raise DataError(f"{path}: line {reader.line_num} has no path; leave the line out.")
            yield row[wanted]


def _split(path: str, reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} cannot be read ({error}); check its quotes.") from error


def _tsv(path: str, column: str | None) -> Iterator[str]:
    return _csv(path, column, "\t")


def _parquet(path: str, column: str | None) -> Iterator[str]:
    import pyarrow.parquet as pq

    with open_file(path) as file:
        table = pq.ParquetFile(file)
        wanted = _column(path, table.schema_arrow.names, column)
        batches = table.iter_batches(_ROWS, columns=[wanted])
        for row, value in enumerate(value for batch in batches for value in batch.column(0).to_pylist()):
            if value is not None and not isinstance(value, str):
                raise DataError(f"{path}: its column {wanted} holds {type(value).__name__}, expected paths.")
            if not value:
                raise DataError(f"{path}: row {row} has no path; leave the row out.")
            yield value


def _column(path: str, names: Sequence[str], column: str | None) -> str:
    for name in COLUMNS if column is None else (column,):
        if name in names:
            return name
    missing = " or ".join(COLUMNS) if column is None else column
    listed = ", ".join(names)
    raise DataError(f"{path}: has no column {missing}, but {listed}; say with --column which holds the paths.")


_LISTS = {".txt": _lines, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}
