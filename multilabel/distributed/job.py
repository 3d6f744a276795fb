"""A job: a folder of parts, one for each shard of the pictures; whatever breaks, only what is not there is done again.

    OUT/part-0000000.parquet   the rows of one shard, written whole or not at all
    OUT/_job/manifest.json     model and input; written last, and never changed
    OUT/_job/inputs-*.parquet  the paths, a row group for each shard; the name says of which list
    OUT/_job/model...          what computes

What begins with `_` is passed over by what reads a folder of Parquet. Nothing here knows what runs the shards.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from typing import Any, TypeVar

from ..errors import DataError, MultilabelError, UsageError
from ..images import chunks
from ..places import Folder, check_url, in_a_sentence, is_url, reason_of

SCHEMA_VERSION = 1
SHARD_SIZE = 1024  # pictures
MANIFEST = "manifest.json"
_JOB = "_job"
_NAMES = ("backbone weights", "name", "export")  # of what the weights came from: digests tell what they are
_FOOTERS_AT_ONCE = 16  # of parts, read side by side: a remote folder answers slowly
_T = TypeVar("_T")
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Manifest:
    """What a job is; a rerun has to be of the same.

    Attributes:
        command: what makes its rows, `embed` or `infer`.
        model: all that its rows depend on besides the pictures.
        pictures: how many.
        input_sha256: of their paths, in order.
        shard_size: pictures of a shard; the last may have fewer.
    """

    command: str
    model: Mapping[str, Any]
    pictures: int
    input_sha256: str
    shard_size: int

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.pictures // self.shard_size)

    def rows(self, shard: int) -> int:
        """Pictures of a shard."""
        return min(self.shard_size, self.pictures - shard * self.shard_size)


@dataclass(frozen=True)
class Job:
    """A job that has begun; it can be sent to other machines.

    Attributes:
        out: its folder, a path or a URL.
        manifest: what it is.
        manifest_sha256: of the manifest's file.
    """

    out: str
    manifest: Manifest
    manifest_sha256: str

    @property
    def parts(self) -> Folder:
        """Where the parts are."""
        return Folder(self.out)

    @property
    def own(self) -> Folder:
        """Where all else is."""
        return Folder(self.parts.join(_JOB))

    def paths(self, shard: int) -> list[str]:
        """The pictures of a shard."""
        import pyarrow.parquet as pq

        with self.own.open(_inputs_name(self.manifest.input_sha256, self.manifest.shard_size)) as file:
            (column,) = pq.ParquetFile(file).read_row_group(shard).columns
        return [os.fsdecode(path) for path in column.to_pylist()]

    def check(self) -> None:
        """Makes sure that this folder is that of the job.

        Raises:
            DataError: it is gone, or is another: a shared folder that is no longer there, or not on this machine.
        """
        try:
            found = hashlib.sha256(self.own.read(MANIFEST)).hexdigest()
        except Exception as error:  # each kind of filesystem has its own
            raise DataError(
                f"{self.own.join(MANIFEST)} cannot be read ({reason_of(error)}); it has to be in a folder that "
                "every machine of the job sees, or a URL."
            ) from error
        if found != self.manifest_sha256:
            raise DataError(f"{self.out} is no longer the folder of this job; nothing more is written to it.")

    def write(self, shard: int, table: Any) -> None:
        """Writes the rows of a shard, a `pyarrow.Table`, all or none.

        Raises:
            DataError: they cannot be written; no part is there then, or the one that was.
        """
        import pyarrow.parquet as pq

        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.check()
        try:
            self.parts.write(part_name(shard), buffer.getvalue())
        except Exception as error:  # each kind of filesystem has its own
            self.check()  # a folder that went away just now is said as such
            raise DataError(
                f"{self.parts.join(part_name(shard))} cannot be written ({reason_of(error)}); "
                "mend that, and run the same command again: what is finished is kept."
            ) from error

    def finished(self) -> dict[int, int]:
        """The shards whose parts are there, and how many of the pictures of each could not be read.

        A part that is shorter than what was written, which only a fault of the disk can bring about, counts as absent.
        """
        with in_a_sentence(self.out):
            names = set(self.parts.names())
        there = [shard for shard in range(self.manifest.shards) if part_name(shard) in names]
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            counted = list(zip(there, pool.map(self.errors, there), strict=True))
        for shard, errors in counted:
            if errors is None:
                _log.warning(f"{self.parts.join(part_name(shard))} is damaged, and counts as absent.")
        return {shard: errors for shard, errors in counted if errors is not None}

    def errors(self, shard: int) -> int | None:
        """How many pictures of a finished shard could not be read; `None` if its part is absent or damaged.

        Raises:
            DataError: it cannot be read now, whatever it is.
        """
        return self._of_part(shard, _errors_of)

    def table(self, shard: int) -> Any:
        """The rows of a finished shard, a `pyarrow.Table`; `None` if its part is absent or damaged.

        Raises:
            DataError: it cannot be read now, whatever it is.
        """
        return self._of_part(shard, lambda part: part.read())

    def _of_part(self, shard: int, look: Callable[[Any], _T]) -> _T | None:
        """What a `pyarrow.parquet.ParquetFile` says."""
        import pyarrow.parquet as pq

        try:
            with self.parts.open(part_name(shard)) as file:
                part = pq.ParquetFile(file)
                return look(part) if part.metadata.num_rows == self.manifest.rows(shard) else None
        except FileNotFoundError:
            return None
        except Exception as error:  # each kind of filesystem has its own
            if _is_damage(error):
                return None
            raise DataError(f"{self.parts.join(part_name(shard))} cannot be read ({reason_of(error)}).") from error


def _is_damage(error: Exception) -> bool:
    """Whether it is what pyarrow finds wrong with a file's content; otherwise the file could not be read."""
    if isinstance(error, OSError):
        return type(error) is OSError and error.errno is None
    return isinstance(error, ValueError | TypeError | AttributeError | LookupError | NotImplementedError)


def _errors_of(part: Any) -> int:
    footer = part.metadata
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    column = footer.schema.names.index("error")
    return int(footer.num_rows - sum(group.column(column).statistics.null_count for group in groups))


def check_installed(engine: str, out: str) -> None:
    """Makes sure that what a job needs is here.

    Raises:
        UsageError: a package is missing; the text says what installs it.
    """
    needed = {"pyarrow": "parquet", **({"ray": "ray"} if engine == "ray" else {})}
    for package, extra in needed.items():
        if find_spec(package) is None:
            what = "--engine ray" if package == "ray" else "Parquet"
            raise UsageError(f"{what} needs another package; install it with `pip install 'multilabel[{extra}]'`.")
    if is_url(out):
        check_url(out)


def _inputs_name(digest: str, shard_size: int) -> str:
    """Of a list of pictures: two that are begun at once in one folder do not replace each other's."""
    return f"inputs-{digest[:16]}-{shard_size}.parquet"


def part_name(shard: int) -> str:
    """The name of a shard's part."""
    return f"part-{shard:07d}.parquet"


def begin(
    out: str,
    command: str,
    model: Mapping[str, Any],
    paths: Iterable[str],
    put_model: Callable[[Folder], None],
    shard_size: int | None = None,
) -> Job:
    """Begins a job, or goes on with the one that is there.

    Args:
        out: its folder, a path or a URL.
        command: what makes its rows.
        model: all that its rows depend on besides the pictures; can be written as JSON.
        paths: the pictures, in the same order each time.
        put_model: writes what computes into a folder.
        shard_size: pictures of a shard; default: those of the job that is there, or `SHARD_SIZE`.

    Raises:
        UsageError: the folder holds another job, or something else.
        DataError: the folder cannot be used, or there are no pictures.
    """
    try:
        begun, listed = _read(out), None
        if begun is None:
            listed = _prepare(out, command, model, paths, put_model, shard_size or SHARD_SIZE)
            begun = _read(out)
    except MultilabelError:
        raise
    except Exception as error:  # each kind of filesystem has its own
        raise DataError(f"{out}: cannot be used ({reason_of(error)}); choose another folder.") from error
    if begun is None:
        raise DataError(f"{out}: its manifest was written, and is not there; choose another folder.")
    _compare(begun, command, model, shard_size)
    pictures, digest = listed or _count(paths)
    if digest != begun.manifest.input_sha256:
        counts = f"{begun.manifest.pictures:,}, now {pictures:,}"
        raise UsageError(f"{out} was begun with other pictures ({counts}); {_advice(begun)}")
    return begun


def read(out: str) -> Job:
    """The job of a folder.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    with in_a_sentence(out):
        job = _read(out)
    if job is None:
        raise DataError(f"{out} is no folder that `multilabel embed` has written.")
    return job


def _read(out: str) -> Job | None:
    """The job of a folder, if there is one."""
    folder = Folder(Folder(out).join(_JOB))
    try:
        data = folder.read(MANIFEST)
    except FileNotFoundError:
        return None
    try:
        said = json.loads(data)
        if said.pop("schema") > SCHEMA_VERSION:
            raise DataError(f"{out} was begun by a newer multilabel; update with `pip install -U multilabel`.")
        return Job(out, Manifest(**said), hashlib.sha256(data).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder.join(MANIFEST)} is damaged ({error}); choose another folder.") from error


def _prepare(
    out: str,
    command: str,
    model: Mapping[str, Any],
    paths: Iterable[str],
    put_model: Callable[[Folder], None],
    shard_size: int,
) -> tuple[int, str]:
    """Makes a folder that of a job, if no other command has done so meanwhile; how many pictures, and their digest."""
    folder = Folder(out)
    if others := sorted(set(folder.names()) - {_JOB}):
        raise UsageError(f"{out} holds something else ({', '.join(others[:3])}); choose another folder.")
    own = Folder(folder.join(_JOB))
    pictures, digest = _write_inputs(own, paths, shard_size)
    put_model(own)
    manifest = Manifest(command, model, pictures, digest, shard_size)
    text = json.dumps({"schema": SCHEMA_VERSION, **asdict(manifest)}, indent=2, ensure_ascii=False, allow_nan=False)
    with suppress(FileExistsError):
        own.create(MANIFEST, f"{text}\n".encode("utf-8", "backslashreplace"))
    return pictures, digest


def _count(paths: Iterable[str]) -> tuple[int, str]:
    """How many paths, and their digest."""
    digest, pictures = hashlib.sha256(), 0
    for path in paths:
        digest.update(_line(path))
        pictures += 1
    return pictures, digest.hexdigest()


def _write_inputs(own: Folder, paths: Iterable[str], shard_size: int) -> tuple[int, str]:
    """Writes the paths, a row group for each shard; how many there are, and their digest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest, pictures = hashlib.sha256(), 0
    schema = pa.schema([pa.field("path", pa.binary(), nullable=False)])  # names may be no UTF-8
    shards = chunks(paths, shard_size)
    first = next(shards, None)
    if first is None:
        raise DataError("There are no pictures.")
    own.make()
    name = lambda: _inputs_name(digest.hexdigest(), shard_size)  # noqa: E731
    with own.writing(name) as new, pq.ParquetWriter(new, schema, compression="zstd") as writer:
        for shard in chain([first], shards):
            writer.write_table(pa.table([[os.fsencode(path) for path in shard]], schema), row_group_size=shard_size)
            digest.update(b"".join(map(_line, shard)))
            pictures += len(shard)
    return pictures, digest.hexdigest()


def _line(path: str) -> bytes:
    return os.fsencode(path) + b"\0"


def _compare(begun: Job, command: str, model: Mapping[str, Any], shard_size: int | None) -> None:
    old = begun.manifest
    if old.command != command:
        raise UsageError(f"{begun.out} was begun by `multilabel {old.command}`; {_advice(begun)}")
    before, now = _flat(old.model), _flat(json.loads(json.dumps(dict(model))))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not set(differing) <= set(_NAMES):
        changes = "; ".join(f"{key} {_short(before.get(key))}, now {_short(now.get(key))}" for key in differing[:3])
        changes += "; ..." * (len(differing) > 3)
        what = f"another model or other settings ({changes})"
        raise UsageError(f"{begun.out} was begun with {what}; {_advice(begun)}")
    if shard_size is not None and shard_size != old.shard_size:
        raise UsageError(f"{begun.out} was begun with --shard-size {old.shard_size}; give that, or none.")


def _advice(begun: Job) -> str:
    if any(name.startswith("part-") for name in begun.parts.names()):
        return "choose another folder."
    return "choose another folder, or delete this one, which has no rows yet."


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}..."


def all_parts(job: Job) -> Iterator[str]:
    """The names of all parts, in order.

    Raises:
        DataError: some are not there.
    """
    finished = job.finished()
    if missing := job.manifest.shards - len(finished):
        raise DataError(
            f"{job.out}: parts missing or damaged: {missing:,} of {job.manifest.shards:,}; "
            f"run the same `multilabel {job.manifest.command}` again, which makes them."
        )
    return map(part_name, range(job.manifest.shards))
