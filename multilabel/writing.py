"""What is written appears when it is complete; until then, and after a failure, what was there before is."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import MultilabelError


def encodable(text: str) -> str:
    r"""File names may hold bytes that are no UTF-8: they become `\udcff`, which in JSON is the escape for them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def replacing(path: str | os.PathLike[str], remedy: str) -> Iterator[Path]:
    """A place to write to, beside the file; what is there takes the file's place when the block ends well.

    Args:
        path: the file; of a link, what it points to is replaced. A pipe or a device cannot be replaced and is the
            place itself.
        remedy: what a person can do where the file cannot be written, the end of the sentence that says so.

    Raises:
        MultilabelError: the file cannot be written; the old one, if there was one, is untouched.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            yield target
            return
        new = target.with_name(f".{target.name}.new-{os.getpid()}")
        try:
            yield new
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise MultilabelError(f"{os.fspath(path)} cannot be written ({error.strerror or error}); {remedy}.") from error


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new folder beside a path, which vanishes when the block ends; so do those of processes that were killed.

    Raises:
        OSError: nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.parent.glob(f".{glob.escape(path.name)}.new-*"):
        process = folder.name.rpartition("-")[2]
        if not process.isdigit() or int(process) == os.getpid() or not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
