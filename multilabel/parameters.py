"""Kinds of values that options take on the command line; click names what does not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
POSITIVE = click.FloatRange(0, min_open=True)
BELOW_ONE = click.FloatRange(0, 1, max_open=True)


class ImageSize(click.ParamType):
    """`224` or `HEIGHTxWIDTH`."""

    name = "SIDE|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Height and width in pixels."""
        match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(
                f"{value!r} is not a size; expected pixels such as 224, or HEIGHTxWIDTH such as 80x60.",
                param,
                ctx,
            )
        return int(match[1]), int(match[2] or match[1])


class ListOf(click.ParamType):
    """A comma-separated list, each item of a type of its own."""

    def __init__(self, item: click.ParamType, name: str, most: int | None = None) -> None:
        self.item, self.name, self.most = item, name, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The items, as a tuple."""
        if isinstance(value, tuple):
            return value
        items = [item.strip() for item in str(value).split(",")]
        if self.most is not None and len(items) > self.most:
            self.fail(f"{value!r} has {len(items)} values; expected {self.name}.", param, ctx)
        return tuple(self.item.convert(item, param, ctx) for item in items)


NAMES = ListOf(click.STRING, "A,B,C")


def per_phase(item: click.ParamType) -> ListOf:
    """One value for both phases of training, or one for each."""
    return ListOf(item, "HEADS[,FINE-TUNING]", most=2)


class Layers(click.ParamType):
    """`all`, `none` or a number of layers."""

    name = "all|N|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """The word, or how many."""
        if value in ("all", "none") or isinstance(value, int):
            return value
        if not re.fullmatch("[1-9][0-9]{0,5}", value):
            self.fail(f"{value!r}: expected all, none, or how many of the last layers to train.", param, ctx)
        return int(value)


class Weight(click.ParamType):
    """`NAME=VALUE`, a factor."""

    name = "TAG=FACTOR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Name and factor."""
        name, equals, text = str(value).rpartition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not {self.name}, such as gender=2.", param, ctx)
        return name, click.FloatRange(0, min_open=True)(text, param, ctx)
