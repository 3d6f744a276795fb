"""The command line: parse, call one function, print. Everything heavy is imported inside the commands."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import click

from . import __version__
from .config import FORMATS, LARGEST_BETA, FitConfig
from .errors import Interrupted, MultilabelError

_DEFAULTS = {name: field.default for name, field in FitConfig.__dataclass_fields__.items()}


class _ImageSize(click.ParamType):
    """`224` or `HEIGHTxWIDTH`."""

    name = "SIDE|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(
                f"{value!r} is not a size; expected pixels such as 224, or HEIGHTxWIDTH such as 80x60.",
                param,
                ctx,
            )
        return int(match[1]), int(match[2] or match[1])


class _Names(click.ParamType):
    """A comma-separated list."""

    name = "A,B,C"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        return value if isinstance(value, tuple) else tuple(name.strip() for name in value.split(","))


_FILE = click.Path(path_type=Path)
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_POSITIVE = click.FloatRange(0, min_open=True)


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option of `fit` with the default that `FitConfig` has."""
    field = names[-1].lstrip("-").replace("-", "_")
    default = _DEFAULTS[field]
    if not isinstance(default, bool):
        settings.setdefault("show_default", default is not None)
    return click.option(*names, default=default, **settings)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="multilabel")
def main() -> None:
    """Train, threshold and honestly measure models on pictures with partially labelled attributes."""


@main.command()
@click.option("--labels", type=_FILE, required=True, help="Labels file: lines like `photo.jpg 1 NA 0`, or CSV/TSV.")
@_option(
    "--images",
    type=_FILE,
    help="Folder of the pictures.  [default: images/ beside the labels, else their folder]",
)
@_option("--format", type=click.Choice(FORMATS), help="Format of the labels file.")
@_option("--names", type=_Names(), help="Names of the attributes.  [default: the file's, or attr1, attr2, ...]")
@_option("--strict", is_flag=True, help="Fail if any picture file is absent.")
@_option("--out", type=_FILE, help="Folder of the bundle to write.")
@_option("--run-name", help="Name of the run, title of the loss curve.  [default: the name of --out]")
@_option("--backbone", help="An architecture of keras.applications, or cnn (small, to be trained from scratch).")
@_option(
    "--weights",
    metavar="imagenet|none|FILE",
    help="Weights of the backbone.  [default: imagenet; none for cnn]",
)
@_option("--image-size", type=_ImageSize(), help="Size of the model's input.  [default: the backbone's own]")
@_option("--train-backbone", is_flag=True, help="Train the backbone too, instead of freezing it.")
@_option("--val-share", type=_SHARE, help="Share of the pictures kept for validation.")
@_option("--test-share", type=click.FloatRange(0, 1, max_open=True), help="Share kept aside for an untouched test.")
@_option("--epochs", type=click.IntRange(1), help="Passes over the training part, at most.")
@_option("--lr", type=_POSITIVE, help="Adam's learning rate.")
@_option("--batch-size", type=click.IntRange(1), help="Pictures per training step.")
@_option("--patience", type=click.IntRange(1), help="Epochs without a better validation loss before it stops.")
@_option(
    "--beta",
    type=click.FloatRange(0, LARGEST_BETA, min_open=True),
    help="Thresholds maximise F-beta; above 1 favours recall.",
)
@_option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of split, initial weights and order.")
@_option("--cache", type=_FILE, help="Folder of the stored features.  [default: the user's cache folder]")
def fit(**settings: Any) -> None:
    """Train, threshold and measure a model; write its bundle."""
    with _sentences("Stopped; no bundle was written, and features stored until now are kept."):
        from .evaluation import verdicts
        from .pipeline import fit
        from .report import score_table

        result = fit(FitConfig(**settings), progress=True)
    for evaluation in result.evaluations:
        click.echo(f"\n{score_table(evaluation)}\n")
        for sentence in verdicts(evaluation):
            click.echo(sentence)
    click.echo(f"\nThe bundle is in {result.out}; use it with: multilabel infer --model {result.out} PICTURE...")


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--model", type=_FILE, default=Path("model"), show_default=True, help="Folder of the bundle.")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="VALUE|NAME=VALUE",
    help="Threshold of all attributes, or of one; may be repeated.  [default: the bundle's tuned thresholds]",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "csv", "json", "jsonl"]),
    default="text",
    show_default=True,
    help="text for people, the others for programs.",
)
@click.option("--output", type=_FILE, help="File to write.  [default: stdout]")
def infer(paths: Sequence[str], model: Path, thresholds: Sequence[str], style: str, output: Path | None) -> None:
    """Predict pictures: files, folders, or - (paths on stdin)."""
    with _sentences("Stopped; what was not printed is lost, and no --output file was written."):
        from . import bundle, inference

        loaded = inference.with_thresholds(bundle.load(model), thresholds)
        predictions = inference.predict(loaded, _listed(paths))
        with _output(output) as file:
            failed, pictures = inference.write(predictions, loaded, style, file)
    if not pictures:
        click.echo("There were no pictures to predict.", err=True)
    if failed:
        click.echo(f"{failed} of {pictures} pictures could not be read.", err=True)
        sys.exit(1)


def _listed(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            cast(TextIOWrapper, sys.stdin).reconfigure(errors="surrogateescape")  # as Python reads file names
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield path


@contextmanager
def _output(path: Path | None) -> Iterator[IO[str]]:
    """Stdout, or a file that appears only when it is complete."""
    if path is None:
        cast(TextIOWrapper, sys.stdout).reconfigure(errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(os.path.realpath(path))
    regular = path.is_file() or not path.exists()  # a pipe or a device cannot be replaced, only written to
    new = path.with_name(f".{path.name}.new-{os.getpid()}") if regular else path
    try:
        with new.open("w", encoding="utf-8", newline="") as file:
            yield file
        if regular:
            new.replace(path)
    except OSError as error:
        raise MultilabelError(
            f"{path} cannot be written ({error.strerror or error}); choose another --output."
        ) from error
    finally:
        if regular:
            new.unlink(missing_ok=True)


@contextmanager
def _sentences(stopped: str) -> Iterator[None]:
    """Turns every error raised on purpose, and Ctrl-C, into one sentence on stderr and an exit code."""
    try:
        _quiet()
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
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
        with _silent_stderr():
            import keras  # noqa: F401


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """While TensorFlow loads, its libraries write to the file descriptor itself, whatever the level is set to."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
