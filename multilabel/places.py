"""Files on a disk and behind URLs of fsspec: read, listed, and on disks and object stores written whole or not."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import DataError, MultilabelError, UsageError

_ABANDONED = 3600.0  # seconds after which nobody writes to a file any more
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # one letter alone is a drive of Windows


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it is a URL and no path."""
    return _URL.match(os.fspath(path)) is not None


def check_url(url: str) -> None:
    """Makes sure that URLs of this kind can be used here; nothing is read.

    Raises:
        UsageError: a package is missing, or no package knows such URLs.
    """
    try:
        _filesystem(url)
    except MissingPackage as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # each kind of filesystem has its own
        raise UsageError(f"{url}: such URLs cannot be used ({reason_of(error)}).") from error


class MissingPackage(MultilabelError):
    """A URL of a kind whose package is not installed."""


def read_url(url: str) -> bytes:
    """What is behind a URL.

    Raises:
        MissingPackage: nothing installed reads such URLs.
        Exception: whatever its filesystem raises.
    """
    filesystem, path = _filesystem(url)
    data: bytes = filesystem.cat_file(path)
    return data


def is_folder(url: str) -> bool:
    """Whether there are files below a URL, or it ends like that of a folder.

    Raises:
        MissingPackage: nothing installed reads such URLs.
        Exception: whatever its filesystem raises.
    """
    filesystem, path = _filesystem(url)
    return url.endswith("/") or bool(filesystem.isdir(path))


def reason_of(error: Exception) -> str:
    """What went wrong with a file, in a few words; each kind of filesystem has errors of its own."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def walk_url(url: str) -> Iterator[str]:
    """All files below a URL, a folder at a time, each sorted; hidden files and folders are skipped.

    Raises:
        MissingPackage: nothing installed reads such URLs.
        Exception: whatever its filesystem raises.
    """
    filesystem, path = _filesystem(url)
    url = url.rstrip("/")
    before = url.removesuffix(path) if url.endswith(path) else None  # with the host, which names in a listing lack
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        items = sorted(filesystem.ls(folder, detail=True), key=lambda item: str(item["name"]))
        items = [item for item in items if not item["name"].rsplit("/", 1)[-1].startswith(".")]
        filesystem.invalidate_cache(folder)  # of millions of names it would be large
        below = [item["name"] for item in items if item["type"] == "directory" and item["name"] != folder]
        waiting += reversed(below)
        for item in items:
            if item["type"] == "file" and not item["name"].endswith("/"):  # a folder may be an object of its own
                yield filesystem.unstrip_protocol(item["name"]) if before is None else before + item["name"]


def open_file(path: str, **settings: Any) -> IO[bytes]:
    """A file or what is behind a URL, to read from anywhere in it; settings are those of `fsspec`'s `open`."""
    if not is_url(path):
        return open(path, "rb")
    filesystem, inside = _filesystem(path)
    opened: IO[bytes] = filesystem.open(inside, "rb", **settings)
    return opened


@contextmanager
def in_a_sentence(path: str) -> Iterator[None]:
    """Whatever goes wrong in the block with a file or a URL is one sentence.

    Raises:
        DataError: something went wrong.
    """
    try:
        yield
    except MultilabelError:
        raise
    except Exception as error:  # each kind of file and filesystem has its own
        raise DataError(f"{path}: cannot be read ({reason_of(error)}).") from error


@dataclass(frozen=True)
class Folder:
    """A folder on a disk or behind a URL. What is written appears when it is complete; nothing is ever half there.

    Attributes:
        path: the folder.
    """

    path: str

    def join(self, name: str) -> str:
        """The path of a file in it."""
        return f"{self.path.rstrip('/')}/{name}" if is_url(self.path) else os.path.join(self.path, name)

    def make(self) -> None:
        """Makes it, with the folders above; object stores need none."""
        if not is_url(self.path):
            os.makedirs(self.path, exist_ok=True)

    def names(self) -> list[str]:
        """What lies in it, files and folders, but for what begins with a dot; nothing if it does not exist.

        Raises:
            NotADirectoryError: it is a file.
        """
        try:
            if not is_url(self.path):
                return [name for name in os.listdir(self.path) if not name.startswith(".")]
            filesystem, path = _filesystem(self.path)
            filesystem.invalidate_cache()
            others = (item.rstrip("/") for item in filesystem.ls(path, detail=False))
            found = (item.rsplit("/", 1)[-1] for item in others if item != path)  # a folder may be an object itself
            return [name for name in found if name and not name.startswith(".")]
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """The content of a file in it.

        Raises:
            FileNotFoundError: it is not there.
        """
        if is_url(self.path):
            return read_url(self.join(name))
        return Path(self.join(name)).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """A file in it, to read a little of."""
        return open_file(self.join(name), cache_type="none") if is_url(self.path) else open_file(self.join(name))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file: at once, or not at all."""
        if is_url(self.path):
            filesystem, path = _filesystem(self.join(name))
            filesystem.pipe_file(path, data)
            return
        with self.writing(name) as new:
            new.write_bytes(data)

    def create(self, name: str, data: bytes) -> None:
        """Writes a file that must not be there; of several at once one succeeds, on disks without fail.

        Raises:
            FileExistsError: it is there.
        """
        if is_url(self.path):
            filesystem, path = _filesystem(self.join(name))
            if filesystem.exists(path):
                raise FileExistsError(path)
            filesystem.pipe_file(path, data)
            return
        with self.writing(name, replace=False) as new:
            new.write_bytes(data)

    @contextmanager
    def writing(self, name: str | Callable[[], str], *, replace: bool = True) -> Iterator[Path]:
        """A file on this machine to write to, which becomes the one of that name when the block ends well.

        Args:
            name: of the file; or what says it then, where it depends on what was written.
            replace: whether a file of that name is replaced; otherwise it is a `FileExistsError`. (Of disks alone.)
        """
        settled = name if callable(name) else lambda: name
        if is_url(self.path):
            with tempfile.TemporaryDirectory() as folder:
                new = Path(folder) / "file"
                yield new
                filesystem, path = _filesystem(self.join(settled()))
                filesystem.put_file(str(new), path)
            return
        new = Path(self.join(f".new-{uuid.uuid4().hex}"))  # processes of many machines write here
        try:
            yield new
            with new.open("rb") as file:
                os.fsync(file.fileno())
            target = Path(self.join(settled()))
            new.replace(target) if replace else _take_place(new, target)
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what killed processes have begun to write, here and below; others may still write what is young."""
        if not is_url(self.path):
            for begun in Path(self.path).rglob(".new-*"):
                with suppress(OSError):
                    if time.time() - begun.stat().st_mtime > _ABANDONED:
                        begun.unlink()

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """A file or folder in it, on this machine: itself, or a copy that vanishes when the block ends."""
        if not is_url(self.path):
            yield Path(self.join(name))
            return
        with tempfile.TemporaryDirectory() as folder:
            filesystem, path = _filesystem(self.join(name))
            filesystem.get(path, str(Path(folder) / name), recursive=True)
            yield Path(folder) / name

    def put(self, source: Path, name: str) -> None:
        """Copies a file into it, or with slashes in the name into a folder below."""
        if not is_url(self.path):
            Path(self.join(name)).parent.mkdir(parents=True, exist_ok=True)
        with self.writing(name) as new:
            shutil.copyfile(source, new)


def _take_place(new: Path, target: Path) -> None:
    try:
        os.link(new, target)
    except FileExistsError:
        raise
    except OSError as error:  # the filesystem has no links
        if target.exists():
            raise FileExistsError(target) from error
        new.replace(target)


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        advice = "install it with `pip install 'multilabel[parquet]'`"
        raise MissingPackage(f"{url}: URLs need another package; {advice}.") from error
    protocol = url.partition("://")[0]
    try:
        # Not `url_to_fs`, for which `::` in a name has a meaning.
        kind = fsspec.get_filesystem_class(protocol)
        filesystem = fsspec.filesystem(protocol, **kind._get_kwargs_from_urls(url))
        path = kind._strip_protocol(url)
    except ImportError as error:
        raise MissingPackage(f"{url}: such URLs need another package ({str(error).rstrip('.')}).") from error
    return filesystem, path
