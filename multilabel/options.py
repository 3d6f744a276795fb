"""Options that several commands share, and those that have their defaults from `FitConfig`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .config import ENGINES, FORMATS, RUNTIMES, CnnShape, FitConfig
from .parameters import FILE, NAMES

_DEFAULTS = {name: field.default for name, field in FitConfig.__dataclass_fields__.items()}
CNN_OPTIONS = {"filters": "filters", "kernel_size": "kernel_sizes", "dense_units": "dense_units"}
CNN_OPTIONS |= {"batch_norm": "batch_norm", "dropout": "dropout"}


def fit_option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option of `fit` with the default that `FitConfig` has."""
    default = _DEFAULTS[names[-1].lstrip("-").replace("-", "_")]
    return _with_default(default, *names, **settings)


def cnn_option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option of `fit` with the default that `CnnShape` has."""
    field = CNN_OPTIONS[names[-1].lstrip("-").replace("-", "_")]
    return _with_default(getattr(CnnShape(), field), *names, **settings)


def _with_default(default: Any, *names: str, **settings: Any) -> Callable[[Any], Any]:
    if isinstance(default, tuple) and default:
        default = ",".join(f"{value:g}" for value in default)
    if not isinstance(default, bool | tuple):
        settings.setdefault("show_default", default is not None)
    return click.option(*names, default=default, **settings)


def limit_option(name: str, most: int, default: int, help: str) -> Callable[[Any], Any]:
    """An option that is a whole number of at least 1."""
    return click.option(name, type=click.IntRange(1, most), default=default, show_default=True, help=help)


def _together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options that commands share, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model = click.option("--model", type=FILE, default=Path("model"), show_default=True, help="Folder of the bundle.")
served_model = click.option(
    "--model", type=FILE, default=Path("model"), show_default=True, help="Folder of the bundle, or an export of one."
)
thresholds = click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="VALUE|NAME=VALUE",
    help="Threshold of all attributes, or of one; may be repeated.  [default: the bundle's tuned thresholds]",
)
min_confidence = click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="A tag whose best class is less probable is undecided.",
)
runtime = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    help="What computes; all but tensorflow start sooner.  [default: tensorflow, or what an export is for]",
)
precision = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    help="What it computes in.  [default: what the bundle was measured in; float32 for an export]",
)
cluster = _together(
    click.option("--column", help="Column of tables that holds the paths.  [default: path, else image]"),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        help="What runs it: this process, or a Ray cluster.  [default: local]",
    ),
    click.option(
        "--address",
        metavar="HOST:PORT|auto",
        help="Running Ray cluster; auto: that of this machine.  [default: one of this machine alone, for this job]",
    ),
    click.option(
        "--workers-per-node",
        type=click.IntRange(1),
        help="Workers of the smallest machine of a Ray cluster.  [default: as many as suit it]",
    ),
    click.option(
        "--batch-size", type=click.IntRange(1), help="Pictures that go through the model at once. [default: 32]"
    ),
    click.option("--shard-size", type=click.IntRange(1), help="Pictures of a part.  [default: 1024]"),
    click.option("--retry-errors", is_flag=True, default=None, help="Try again what could not be read."),
)
images = fit_option(
    "--images", type=FILE, help="Folder of the pictures.  [default: images/ beside the labels, else their folder]"
)
label_format = fit_option("--format", type=click.Choice(FORMATS), help="Format of the labels file.")
strict = fit_option("--strict", is_flag=True, help="Fail if any picture file is absent.")
cache = fit_option("--cache", type=FILE, help="Folder of the stored features.  [default: the user's cache folder]")
columns = _together(
    fit_option("--tags", type=NAMES, help="Columns of several classes each."),
    fit_option("--attributes", type=NAMES, help="Columns of 1, 0 and NA.  [default: all that are no tags]"),
    fit_option("--names", type=NAMES, help="Names of the attributes.  [default: the file's, or attr1, attr2, ...]"),
)
other_labels = _together(
    click.option(
        "--labels", type=FILE, required=True, help="Labels of other pictures, in the format of the training's."
    ),
    images,
    label_format,
    strict,
    cache,
)
