"""Which columns of a labels file are read, and how their cells, as they are spelled, become a `LabelTable`."""

from __future__ import annotations

import difflib
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import DataError, UsageError
from .labels import PART_SPELLINGS, UNKNOWN, LabelTable, Tag, printable

# How cells may be spelled, in lower case; `None` is unknown. Only delimited files can hold a blank one.
ATTRIBUTE: dict[str, int | str | None] = {
    **dict.fromkeys(("1", "1.0"), 1),
    **dict.fromkeys(("0", "0.0"), 0),
    **dict.fromkeys(("na", "nan", "?", "-1", "-1.0", "")),
}
TAG: dict[str, int | str | None] = dict.fromkeys(("na", "nan", "?", "-1", "n/a", "null", ""))
PART: dict[str, int | str | None] = {**TAG, **PART_SPELLINGS}
_FEW_VALUES = 20  # a tag with more than these should repeat them
_SHOWN = 60  # so many columns are named in a message

Problem = tuple[int, str]  # line number, what is wrong with it
Row = tuple[int, str, list[str]]  # line number, picture, the other cells


@dataclass(frozen=True)
class Column:
    """A column to be read.

    Attributes:
        name: what it is called in the table.
        place: its place in a row, the picture's column not counted.
        spellings: what a cell in lower case stands for; `None` is unknown.
        expected: these spellings in words; "" if any other text is the name of a class.
    """

    name: str
    place: int
    spellings: Mapping[str, int | str | None]
    expected: str = ""

    def read(self, text: str) -> int | str | None:
        """Return what a cell stands for.

        Raises:
            ValueError: what is wrong with it.
        """
        folded = text.lower()
        if folded in self.spellings:
            return self.spellings[folded]
        if self.expected:
            raise ValueError(f"is '{printable(text)}'; expected {self.expected}")
        if "\n" in text:
            raise ValueError(f"is '{printable(text)}', which goes over several lines; is a quote (\") missing?")
        return one_line(text)


@dataclass(frozen=True)
class Choice:
    """The columns that the caller asked for, and new names for the attributes; see `formats.read_labels`.

    Raises:
        UsageError: names are empty or repeated; a column is asked for twice.
    """

    names: Sequence[str] | None = None
    tags: Sequence[str] = ()
    attributes: Sequence[str] | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        """Puts every name on one line, as those of headers are, and checks them."""
        for field in ("names", "tags", "attributes"):
            if (names := getattr(self, field)) is not None:
                object.__setattr__(self, field, tuple(map(one_line, names)))
        if self.split is not None:
            object.__setattr__(self, "split", one_line(self.split))
        if wrong := wrong_names(self.names or ()):
            raise UsageError(f"The given names cannot be used: {'; '.join(wrong)}.")
        for name, count in Counter(self.columns).items():
            if count > 1:
                raise UsageError(
                    f"Column '{printable(name)}' is asked for more than once; it is an attribute, a tag or the split."
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is asked for by its name."""
        split = () if self.split is None else (self.split,)
        return (*(self.attributes or ()), *self.tags, *split)

    def check(self, path: str, header: Sequence[str], *, all_others: bool) -> None:
        """Check that the columns are there, and that there is something to learn.

        Args:
            path: the file, for messages.
            header: its columns but for the pictures'.
            all_others: unless attributes are asked for, they are all columns that nobody asked for.

        Raises:
            UsageError: a column is not there; none is an attribute or a tag.
        """
        for name in self.columns:
            if not name or name not in header:
                close = difflib.get_close_matches(name, header, n=1)
                hint = f"did you mean '{printable(close[0])}'? There" if close else "there"
                raise UsageError(f"{path}: there is no column '{printable(name)}'; {hint} are {_list(header)}.")
        others = all_others and self.attributes is None and set(header) - set(self.columns)
        if not (self.tags or self.attributes or others):
            raise UsageError(
                f"{path}: no column is an attribute or a tag; "
                f"choose the columns with --tags; there are {_list(header)}."
            )

    def find(self, path: str, header: Sequence[str], *, all_others: bool) -> Columns:
        """Find the columns; as `check`, which it includes.

        Raises:
            UsageError: as `check`; there are not as many names as attributes.
        """
        self.check(path, header, all_others=all_others)
        expected = "1, 0 or NA"
        if self.attributes is not None:
            places = [header.index(name) for name in self.attributes]
        else:
            places = [place for place, name in enumerate(header) if all_others and name not in self.columns]
        if self.names is not None and len(self.names) != len(places):
            counts = f"attributes in the file: {len(places)}, names given: {len(self.names)}"
            raise UsageError(f"{path}: {counts}; give one name for each attribute.")
        names = [header[place] for place in places] if self.names is None else self.names
        if shared := [name for name in names if name in self.tags]:
            raise UsageError(f"{path}: --names calls an attribute '{printable(shared[0])}', and so is a tag called.")
        split = () if self.split is None else (self.split,)
        return Columns(
            tuple(Column(name, place, ATTRIBUTE, expected) for name, place in zip(names, places, strict=True)),
            tuple(Column(name, header.index(name), TAG) for name in self.tags),
            tuple(Column(name, header.index(name), PART, "train, val, test or a blank") for name in split),
        )

    def wrong_header(self, header: Sequence[str], *, all_others: bool) -> list[str]:
        """Say which columns that are read have no name, or share one; given names heal those of the attributes."""
        wrong = [f"'{printable(name)}' is there more than once" for name in self.columns if header.count(name) > 1]
        if all_others and self.names is None and self.attributes is None:
            wrong += wrong_names([name for name in header if name not in self.columns])
        return wrong


@dataclass(frozen=True)
class Columns:
    """The columns to be read, of each kind; `split` is one or none."""

    attributes: tuple[Column, ...]
    tags: tuple[Column, ...]
    split: tuple[Column, ...]

    def merge(
        self, rows: Sequence[Row], width: int, problems: list[Problem]
    ) -> tuple[tuple[str, ...], list[list[Any]]]:
        """Understand the cells, and turn the rows of one picture into one row.

        Args:
            rows: in file order.
            width: how many cells a row should have.
            problems: where rows that cannot be used are added.

        Returns:
            The pictures and, for each, what every column says of it; `None` where nothing is known.
        """
        columns = (*self.attributes, *self.tags, *self.split)
        images: dict[str, str] = {}
        said: dict[str, list[tuple[Any, int]]] = {}  # per cell what is known, and the line that says so
        for line, image, texts in rows:
            shown = printable(image)
            if len(texts) != width:
                problems.append((line, f"{shown}: labels found: {len(texts)}, expected: {width}"))
                continue
            key = posixpath.normpath(image)
            images.setdefault(key, image)
            cells = said.setdefault(key, [(None, 0)] * len(columns))
            for number, column in enumerate(columns):
                before, before_line = cells[number]
                try:
                    value = column.read(texts[column.place])
                    if before is None:
                        cells[number] = (value, line)
                    elif value not in (None, before):
                        raise ValueError(f"is {_quoted(value)}, but line {before_line} says {_quoted(before)}")
                except ValueError as error:
                    problems.append((line, f"{shown}: {printable(column.name)} {error}"))
        return tuple(images.values()), [[value for value, _ in cells] for cells in said.values()]

    def table(self, path: str, images: tuple[str, ...], cells: list[list[Any]], notes: tuple[str, ...]) -> LabelTable:
        """Turn merged cells into numbers.

        Raises:
            DataError: a tag has fewer than 2 classes, or is free text.
        """
        values = [list(column) for column in zip(*cells, strict=True)]
        count = len(self.attributes)
        attributes = [[UNKNOWN if value is None else value for value in column] for column in values[:count]]
        tags = [_tag(path, column.name, said) for column, said in zip(self.tags, values[count:], strict=False)]
        tag_y = [_numbers(tag, said) for tag, said in zip(tags, values[count:], strict=False)]
        return LabelTable(
            images,
            np.array(attributes, np.int8).reshape(count, len(images)).T.copy(),
            tuple(column.name for column in self.attributes),
            notes,
            tuple(tags),
            np.array(tag_y, np.int16).reshape(len(tags), len(images)).T.copy(),
            tuple(part or "" for part in values[-1]) if self.split else None,
        )


def one_line(text: str) -> str:
    """Return `text` with single spaces for all white space."""
    return " ".join(text.split())


def wrong_names(names: Sequence[str]) -> list[str]:
    """Say which names of attributes are empty or repeated."""
    wrong = [f"attribute {column} has no name" for column, name in enumerate(names, start=1) if not name]
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    return wrong + [f"'{printable(name)}' is there more than once" for name in repeated]


def _tag(path: str, name: str, said: list[Any]) -> Tag:
    known = [value for value in said if value is not None]
    values = sorted(set(known))
    column = f"{path}: column '{printable(name)}'"
    free_text = len(values) > _FEW_VALUES and 2 * len(values) > len(known)
    if free_text or len(values) > np.iinfo(np.int16).max:
        found = f"{len(values):,} different values in {len(known):,} rows"
        raise DataError(f"{column} has {found}; a tag needs few classes that repeat.")
    if len(values) < 2:
        found = f"only the value '{printable(values[0])}'" if values else "no known value"
        raise DataError(f"{column} has {found}; a tag needs at least 2 classes.")
    with suppress(ValueError):  # in the order of numbers, if all are numbers
        values.sort(key=float)
    return Tag(name, tuple(values))


def _numbers(tag: Tag, said: list[Any]) -> list[int]:
    number_of = {name: number for number, name in enumerate(tag.classes)}
    return [number_of.get(value, UNKNOWN) for value in said]


def _quoted(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f"'{printable(value)}'"


def _list(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    return ", ".join(shown if len(shown) <= _SHOWN else [*shown[:_SHOWN], "..."])
