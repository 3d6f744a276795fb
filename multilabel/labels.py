"""Every annotation format becomes one `LabelTable` here: 1 present, 0 absent, `UNKNOWN` not known.

Reading forgives what leaves no doubt (byte order marks, line endings, tabs, comments, spaces in file names)
and refuses everything else, all bad lines of a file at once.
"""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from .config import FORMATS
from .errors import DataError, LabelError, UsageError

UNKNOWN = -1
_DELIMITERS = {"auto": ",;\t", "aimonk": "", "csv": ",;", "tsv": "\t"}  # that a format's header may show

# How a cell may be spelled, in lower case; only delimited files can hold a blank one.
_TOKENS = {
    **dict.fromkeys(("1", "1.0"), 1),
    **dict.fromkeys(("0", "0.0"), 0),
    **dict.fromkeys(("na", "nan", "?", "-1", "-1.0", ""), UNKNOWN),
}
# Everything up to the last field that ends like a picture's file name.
_PICTURE = re.compile(
    r".*\.(?:jpe?g?|jfif|mpo|a?png|webp|gif|bmp|tiff?|p[pgbn]m|avif|heic)(?=\s|$)", re.IGNORECASE | re.DOTALL
)

_Problem = tuple[int, str]  # line number, what is wrong with it
_Row = tuple[int, str, list[str]]  # line number, image, labels as they are spelled


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Pictures and what is known about them.

    Attributes:
        images: n pictures, as the file names them or, once located, as absolute paths.
        y: int8 of shape (n, K): 1 present, 0 absent, -1 unknown.
        names: the K attributes.
        notes: sentences for the person about what reading changed.
    """

    images: tuple[str, ...]
    y: np.ndarray
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def take(self, indices: Sequence[int] | np.ndarray) -> LabelTable:
        """Return the table of these rows, in this order.

        Args:
            indices: row numbers, or a boolean array of length n.
        """
        wanted = indices if isinstance(indices, np.ndarray) else list(indices)
        rows = np.arange(len(self.images))[wanted]
        return replace(self, images=tuple(self.images[row] for row in rows), y=self.y[rows])


def read_labels(
    path: str | os.PathLike[str], *, format: str = "auto", names: Sequence[str] | None = None
) -> LabelTable:
    """Read a labels file.

    `aimonk` files have no header and separate by white space: `image_0.jpg 1 NA 0 1`. `csv` (`,` or `;`) and
    `tsv` files start with a header; their first column is the image, and a blank cell is unknown. Rows of the
    same picture that agree with or complete each other become one row.

    Args:
        path: the labels file, in UTF-8, or in UTF-16 with a byte order mark.
        format: one of `FORMATS`; `"auto"` decides by the first line that is neither blank nor a `#` comment.
        names: the attributes' names instead of the header's (or of attr1..attrK where there is no header).

    Returns:
        The table, with at least one row and one attribute.

    Raises:
        UsageError: an unknown format; names that are empty, repeated or of the wrong number.
        LabelError: lines that cannot be used, all of them.
        DataError: the file cannot be read, is not text or holds no labels.
    """
    path = os.fspath(path)
    if format not in FORMATS:
        raise UsageError(f"'{format}' is not a format of labels files; choose from {', '.join(FORMATS)}.")
    given = None if names is None else _one_line_each(names)
    if given is not None and (wrong := _wrong_names(given)):
        raise UsageError(f"The given names cannot be used: {'; '.join(wrong)}.")
    lines = _read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next(filter(_has_content, lines), None)
    if first is None:
        raise DataError(f"{path}: holds no labels; it is empty or only comments.")
    problems: list[_Problem] = []
    delimiter = _choose_delimiter(first, format)
    if delimiter is None:
        attributes, rows = _whitespace_rows(path, lines, given, problems)
    else:
        attributes, rows = _delimited_rows(path, lines, delimiter, given, problems)
    if given is not None and len(given) != len(attributes):
        counts = f"attributes in the file: {len(attributes)}, names given: {len(given)}"
        raise UsageError(f"{path}: {counts}; give one name for each attribute.")
    table = _merge(rows, given or attributes, problems)
    if problems:
        raise LabelError(path, sorted(problems, key=lambda problem: problem[0]))
    return table


def locate_images(
    table: LabelTable, labels_path: str | os.PathLike[str], images_dir: Path | None, *, strict: bool = False
) -> tuple[LabelTable, tuple[str, ...]]:
    """Find the pictures of a table.

    Absolute names are taken as they are. Others are looked for in `images_dir`; without one, in `images/`
    beside the labels file and then in the labels file's folder, picture by picture.

    Args:
        table: a table with the names of the labels file.
        labels_path: the labels file.
        images_dir: the folder of the pictures, or `None`.
        strict: any absent picture is an error.

    Returns:
        The table of the pictures that exist, with absolute paths, and the names of the absent ones.

    Raises:
        DataError: `images_dir` is not a folder; more than half of the pictures (if `strict`, any) are absent;
            two names lead to the same file.
    """
    beside = os.path.dirname(os.path.abspath(labels_path))
    folders = [os.path.join(beside, "images"), beside]
    if images_dir is not None:
        folders = [os.path.abspath(images_dir)]
        if not os.path.isdir(images_dir):
            raise DataError(f"{images_dir}: is not a folder; give the folder of the pictures with --images.")
    places = ([os.path.abspath(os.path.join(folder, name)) for folder in folders] for name in table.images)
    paths = [next(filter(os.path.isfile, tried), None) for tried in places]
    absent = tuple(name for name, path in zip(table.images, paths, strict=True) if path is None)
    most_absent = 2 * len(absent) > len(paths)
    if most_absent or (strict and absent):
        shown = absent if strict or len(absent) <= 5 else (*absent[:5], "...")
        advice = "is --images right?" if most_absent else "without --strict they are left out."
        raise DataError(
            f"{labels_path}: {len(absent)} of {len(paths)} pictures are not in {' or '.join(folders)} "
            f"({', '.join(map(_show, shown))}); {advice}"
        )
    name_of: dict[str, str] = {}
    for name, path in zip(table.images, paths, strict=True):
        if path is not None and name_of.setdefault(path, name) != name:
            raise DataError(f"{labels_path}: '{name_of[path]}' and '{name}' are the same file; name it once.")
    kept = table.take([row for row, path in enumerate(paths) if path is not None])
    return replace(kept, images=tuple(name_of)), absent


def class_counts(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the known cells of each attribute.

    Args:
        y: labels of shape (n, K), 1, 0 or -1.

    Returns:
        Positives and negatives, two integer arrays of shape (K,).
    """
    return (y == 1).sum(axis=0), (y == 0).sum(axis=0)


def pos_weight(y: np.ndarray) -> np.ndarray:
    """Weigh positives so that both classes of each attribute count the same: negatives / positives.

    Args:
        y: labels of shape (n, K), 1, 0 or -1; unknown cells do not count.

    Returns:
        Floats of shape (K,); 1 for an attribute whose known cells lack one of the classes.
    """
    positives, negatives = class_counts(y)
    both = (positives > 0) & (negatives > 0)
    return np.where(both, negatives / np.maximum(positives, 1), 1.0)


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); is --labels right?") from None
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = data.decode(encoding)
        position = len(text.partition("\0")[0].encode(encoding)) if "\0" in text else None
    except UnicodeDecodeError as error:
        position = error.start
    if position is not None:
        where = f"byte {data[position]:#04x} at position {position}"
        raise DataError(f"{path}: is not {encoding.upper()} text ({where}); save the labels as UTF-8 text.")
    return text.replace("\ufeff", "")  # also amid the text, where files were joined


def _choose_delimiter(line: str, format: str) -> str | None:
    """Return what separates the fields of a file that starts with `line`; `None`: white space, no header."""
    unquoted = re.sub(r'"[^"]*"', "", line)
    delimiter = max(_DELIMITERS[format], key=unquoted.count, default=None)
    if format != "auto" or delimiter is None:
        return delimiter
    last_field = line.strip().split(delimiter)[-1].strip().lower()
    starts_with_row = _PICTURE.match(line) or (delimiter == "\t" and last_field in _TOKENS)
    return None if delimiter not in unquoted or starts_with_row else delimiter


def _whitespace_rows(
    path: str, lines: list[str], given: tuple[str, ...] | None, problems: list[_Problem]
) -> tuple[tuple[str, ...], list[_Row]]:
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if _has_content(line)]
    counts = Counter(_count_labels(line) for _, line in numbered)
    del counts[0]
    if not counts:
        raise DataError(
            f"{path}: no line holds labels; expected lines like 'image_0.jpg 1 NA', or a CSV file with a header."
        )
    size = counts.most_common(1)[0][0] if given is None or len(given) not in counts else len(given)
    rows: list[_Row] = []
    for number, line in numbered:
        picture = _PICTURE.match(line)
        if picture and _holds_two_rows(picture[0]):
            problems.append((number, f"'{_show(line)}' holds two rows; put each on a line of its own"))
        elif picture:
            rows.append((number, picture[0], line[picture.end() :].split()))
        elif number == numbered[0][0] and not any(field.lower() in _TOKENS for field in line.split()):
            problems.append((number, f"'{_show(line)}' looks like a header; remove it and use --names"))
        else:
            image, *labels = line.rsplit(maxsplit=size)
            rows.append((number, image, labels))
    return tuple(f"attr{column}" for column in range(1, size + 1)), rows


def _count_labels(line: str) -> int:
    """Count the fields after the picture's name or, where no field looks like one, the labels at the end."""
    if picture := _PICTURE.match(line):
        return len(line[picture.end() :].split())
    backwards = reversed(line.split()[1:])
    return len(list(takewhile(lambda field: field.lower() in _TOKENS, backwards)))


def _holds_two_rows(image: str) -> bool:
    """Tell a file name with spaces from two rows that lost their line break, `a.jpg 1 0b.jpg`."""
    fields = image.split()
    earlier = _PICTURE.match(" ".join(fields[:-1]))
    return earlier is not None and fields[len(earlier[0].split())].lower() in _TOKENS


def _delimited_rows(
    path: str, lines: list[str], delimiter: str, given: tuple[str, ...] | None, problems: list[_Problem]
) -> tuple[tuple[str, ...], list[_Row]]:
    records = _records(lines, delimiter, problems)
    number, header = next(records, (1, []))
    if problems:  # the header itself; nothing below it can be judged
        raise LabelError(path, problems)
    sign = "<tab>" if delimiter == "\t" else delimiter
    expected = f"expected a header like image{sign}attr1{sign}..."
    if len(header) < 2:
        raise LabelError(path, [(number, f"there are no columns of attributes; {expected}")])
    if any("\n" in field for field in header):
        raise LabelError(path, [(number, 'the header goes over several lines; is a quote (") missing?')])
    if _PICTURE.match(header[0]) or (any(header[1:]) and all(text.lower() in _TOKENS for text in header[1:])):
        raise LabelError(path, [(number, f"'{_show(sign.join(header))}' is a row of labels; {expected}")])
    names = _one_line_each(header[1:])
    if given is None:
        problems.extend((number, f"header: {wrong}") for wrong in _wrong_names(names))
    rows: list[_Row] = []
    for number, (image, *labels) in records:
        if not image:
            problems.append((number, "there is no file name in the first column"))
        elif "\n" in image:
            problems.append((number, f"'{_show(image)}' goes over several lines; is a quote (\") missing?"))
        else:
            rows.append((number, image, labels))
    if not rows and not problems:
        raise DataError(f"{path}: there are no rows below the header.")
    return names, rows


def _records(lines: list[str], delimiter: str, problems: list[_Problem]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of a record's first line and its fields; a quoted field may hold line breaks."""
    position = 0
    while position < len(lines):
        start = position
        position += 1
        if not _has_content(lines[start]):
            continue
        # One reader per record: comments are told only between records, and a bad record costs one line.
        rest = (lines[index] + "\n" for index in range(start, len(lines)))
        reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            fields = [field.strip() for field in next(reader)]
        except csv.Error as error:
            problems.append((start + 1, f"the line cannot be split into fields ({error}); check its quotes"))
            continue
        position = start + reader.line_num
        if any(fields):
            yield start + 1, fields


def _merge(rows: list[_Row], names: tuple[str, ...], problems: list[_Problem]) -> LabelTable:
    """Turn spellings into numbers and the rows of one picture into one row."""
    images: dict[str, str] = {}
    said: dict[str, list[int]] = {}  # per cell the line that says so: +line present, -line absent, 0 nobody
    repeated = 0
    for line, image, texts in rows:
        shown = _show(image)
        if len(texts) != len(names):
            problems.append((line, f"{shown}: labels found: {len(texts)}, expected: {len(names)}"))
            continue
        key = posixpath.normpath(image)
        repeated += key in said
        images.setdefault(key, image)
        cells = said.setdefault(key, [0] * len(names))
        for column, text in enumerate(texts):
            value, before, wrong = _TOKENS.get(text.lower()), cells[column], ""
            says = line if value == 1 else -line
            if value is None:
                wrong = f"is '{_show(text)}'; expected 1, 0 or NA"
            elif value != UNKNOWN and before * says < 0:
                wrong = f"is {value}, but line {abs(before)} says {1 - value}"
            elif value != UNKNOWN:
                cells[column] = before or says
            if wrong:
                problems.append((line, f"{shown}: {_show(names[column])} {wrong}"))
    notes = (f"Repeated rows merged into the first row of their picture: {repeated}.",) if repeated else ()
    lines = np.array(list(said.values())).reshape(-1, len(names))
    y = np.where(lines == 0, UNKNOWN, lines > 0).astype(np.int8)
    return LabelTable(tuple(images.values()), y, names, notes)


def _wrong_names(names: tuple[str, ...]) -> list[str]:
    wrong = [f"attribute {column} has no name" for column, name in enumerate(names, start=1) if not name]
    repeated = [name for name, count in Counter(names).items() if name and count > 1]
    return wrong + [f"'{_show(name)}' is there more than once" for name in repeated]


def _has_content(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#")


def _one_line_each(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in names)


def _show(text: str) -> str:
    """Return `text` fit for one line of a message: cut when very long, odd characters escaped."""
    cut = text if len(text) <= 100 else text[:100] + "..."
    return cut if cut.isprintable() else repr(cut)[1:-1]
