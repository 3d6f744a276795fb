"""The terminal: results on stdout or in a file, remarks and errors as sentences on stderr, TensorFlow's log nowhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NoReturn, cast

import click

from .errors import Interrupted, MultilabelError, UsageError
from .streams import silent_stderr
from .writing import replacing


@contextmanager
def written_to(path: Path | None) -> Iterator[IO[str]]:
    """Stdout, or a file that appears only when it is complete."""
    if path is None:
        cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    with replacing(path, "choose another --output") as new, new.open("w", encoding="utf-8", newline="") as file:
        yield file


def check_outputs(outputs: Mapping[str, Path | None], *inputs: str | Path | None, model: Path | None = None) -> None:
    """Makes sure that no file to write is one that is read, lies inside the model, or is another one to write.

    Raises:
        UsageError: one is, or does.
    """
    taken = {os.path.realpath(path): "is read" for path in inputs if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        if why := taken.get(os.path.realpath(path)):
            raise UsageError(f"{option} {path} {why}, too; choose another file.")
        if model is not None and model.resolve() in (path.resolve(), *path.resolve().parents):
            raise UsageError(f"{option} {path} lies inside --model {model}; choose another file.")
        taken[os.path.realpath(path)] = f"is what {option} writes"


def listed(paths: Sequence[str]) -> Iterator[str]:
    """Paths as they were given; for `-`, those on stdin, a line each."""
    for path in paths:
        if path == "-":
            cast(TextIOWrapper, sys.stdin).reconfigure(errors="surrogateescape")  # as Python reads file names
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield path


@contextmanager
def sentences(stopped: str, *, with_keras: bool = True) -> Iterator[None]:
    """Turns every error raised on purpose, and Ctrl-C, into one sentence on stderr and an exit code."""
    try:
        _quiet()
        if with_keras:
            import_keras()
        yield
    except Interrupted as error:
        _stop(str(error))
    except MultilabelError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _stop(stopped)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _stop(sentence: str) -> NoReturn:
    """Ends the process at once: TensorFlow's threads may wait for data that no longer comes."""
    click.echo(sentence, err=True)
    sys.stdout.flush()
    os._exit(1)


def _quiet() -> None:
    """Shows our remarks, and keeps TensorFlow's own log off the terminal unless a person asked for it."""
    logger = logging.getLogger("multilabel")
    logger.setLevel(logging.INFO)
    logger.handlers = [logging.StreamHandler()]
    logger.propagate = False
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def import_keras() -> None:
    """Loads Keras and TensorFlow, quietly unless a person asked for their log; what needs them finds them loaded."""
    with silent_stderr() if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" else nullcontext():
        import keras  # noqa: F401
