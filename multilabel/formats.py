"""Every annotation format becomes one `LabelTable` here, as the columns that the caller chose say.

Reading forgives what leaves no doubt (byte order marks, line endings, tabs, comments, spaces in file names)
and refuses everything else, all bad lines of a file at once.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from .columns import ATTRIBUTE, Choice, Columns, Problem, Row, one_line
from .config import FORMATS
from .errors import DataError, LabelError, UsageError
from .labels import LabelTable, printable

# What a format's header may separate its columns with.
_DELIMITERS = {"auto": ",;\t", "aimonk": "", "csv": ",;", "tsv": "\t", "fashion": ","}

# Everything up to the last field that ends like a picture's file name.
_PICTURE = re.compile(
    r".*\.(?:jpe?g?|jfif|mpo|a?png|webp|gif|bmp|tiff?|p[pgbn]m|avif|heic)(?=\s|$)", re.IGNORECASE | re.DOTALL
)
# The columns of Kaggle's fashion data that tell it from other files.
_FREE_TEXT = "productDisplayName"
_FASHION = ("masterCategory", "articleType", _FREE_TEXT)
_FASHION_HEADER = "id,gender,masterCategory,subCategory,articleType,..."
_FILES_SHOWN = 20
_OTHER_COLUMNS = (
    "Is one of these columns no attribute? Name columns of several classes with --tags, and with --attributes those of "
    "1, 0 and NA; then the rest is not read."
)


def read_labels(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",
    names: Sequence[str] | None = None,
    tags: Sequence[str] = (),
    attributes: Sequence[str] | None = None,
    split: str | None = None,
) -> LabelTable:
    """Read a labels file, or a folder of JSON files.

    `aimonk` files have no header and separate by white space: `image_0.jpg 1 NA 0 1`. `csv` (`,` or `;`) and
    `tsv` files start with a header; their first column is the image, and a blank cell is unknown. Rows of the
    same picture that agree with or complete each other become one row.

    `fashion` is Kaggle's Fashion Product Images: `styles.csv`, where commas in `productDisplayName` need no quotes,
    or the folder `styles` with one `<id>.json` per picture, whose columns are the keys of its object `data`: texts,
    numbers or objects with a `typeName`. The picture is `<id>.jpg`, and only the columns that are asked for are read.

    Args:
        path: the labels file, in UTF-8, or in UTF-16 with a byte order mark; or the folder.
        format: one of `FORMATS`; `"auto"` decides by the first line that is neither blank nor a `#` comment.
        names: the attributes' names instead of the header's (or of attr1..attrK where there is no header).
        tags: columns whose every text is a class; blank, NA, NaN, N/A, null, ? and -1 are unknown.
        attributes: the columns of 1, 0 or NA; `None`: all others in `csv` and `tsv` files, none in `fashion` data.
        split: a column that says `train`, `val` or `test`, or is blank.

    Returns:
        The table, with at least one row and one attribute or tag.

    Raises:
        UsageError: an unknown format or column; a column asked for twice; names that are empty, repeated or of the
            wrong number; no columns chosen where they must be.
        LabelError: lines that cannot be used, all of them.
        DataError: the file cannot be read, is not text or holds no labels; a tag has fewer than 2 classes, or is
            free text; JSON files that cannot be used.
    """
    path = os.fspath(path)
    if format not in FORMATS:
        raise UsageError(f"'{format}' is not a format of labels files; choose from {', '.join(FORMATS)}.")
    choice = Choice(names, tags, attributes, split)
    if format in ("auto", "fashion") and os.path.isdir(path):
        return _read_folder(path, choice)
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next(filter(_has_content, lines), None)
    if first is None:
        raise DataError(f"{path}: holds no labels; it is empty or only comments.")
    problems: list[Problem] = []
    notes: tuple[str, ...] = ()
    delimiter = _choose_delimiter(first, format)
    if delimiter is None:
        columns, width, rows = _whitespace_rows(path, lines, choice, problems)
    elif format == "fashion" or (format == "auto" and _is_fashion(first)):
        columns, width, rows, notes = _fashion_rows(path, lines, choice, problems)
    else:
        columns, width, rows = _delimited_rows(path, lines, delimiter, choice, problems)
    unreadable = len(problems)
    images, cells = columns.merge(rows, width, problems)
    if problems:
        by_line = sorted(problems, key=lambda problem: problem[0])
        # Only where all columns that nobody spoke of were taken for attributes may some be something else.
        may_be_others = delimiter and attributes is None and columns.attributes and len(problems) > unreadable
        raise LabelError(path, by_line, _OTHER_COLUMNS if may_be_others else "")
    if repeated := len(rows) - len(images):
        notes += (f"Repeated rows merged into the first row of their picture: {repeated}.",)
    return columns.table(path, images, cells, notes)


def read_text(path: str, what: str = "labels", advice: str = "is --labels right?") -> str:
    """Read a text file without its byte order marks.

    Args:
        path: a file in UTF-8, or in UTF-16 with a byte order mark.
        what: what the file holds, for the messages.
        advice: the advice for a path that cannot be read.

    Raises:
        DataError: the file cannot be read or is not text.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        raise DataError(f"{path}: cannot be read ({_reason(error)}); {advice}") from None
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = data.decode(encoding)
        position = len(text.partition("\0")[0].encode(encoding)) if "\0" in text else None
    except UnicodeDecodeError as error:
        position = error.start
    if position is not None:
        where = f"byte {data[position]:#04x} at position {position}"
        raise DataError(f"{path}: is not {encoding.upper()} text ({where}); save the {what} as UTF-8 text.")
    return text.replace("\ufeff", "")  # also amid the text, where files were joined


# Files without a header


def _choose_delimiter(line: str, format: str) -> str | None:
    """Return what separates the fields of a file that starts with `line`; `None`: white space, no header."""
    unquoted = re.sub(r'"[^"]*"', "", line)
    delimiter = max(_DELIMITERS[format], key=unquoted.count, default=None)
    if format != "auto" or delimiter is None:
        return delimiter
    last_field = line.strip().split(delimiter)[-1].strip().lower()
    starts_with_row = _PICTURE.match(line) or (delimiter == "\t" and last_field in ATTRIBUTE)
    return None if delimiter not in unquoted or starts_with_row else delimiter


def _whitespace_rows(
    path: str, lines: list[str], choice: Choice, problems: list[Problem]
) -> tuple[Columns, int, list[Row]]:
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if _has_content(line)]
    counts = Counter(_count_labels(line) for _, line in numbered)
    del counts[0]
    if not counts:
        raise DataError(
            f"{path}: no line holds labels; expected lines like 'image_0.jpg 1 NA', or a CSV file with a header."
        )
    if choice.columns or choice.attributes is not None:
        raise UsageError(f"{path}: has no header, so no columns can be chosen; add one, or do not choose.")
    size = counts.most_common(1)[0][0]
    if choice.names is not None and len(choice.names) in counts:
        size = len(choice.names)
    rows: list[Row] = []
    for number, line in numbered:
        picture = _PICTURE.match(line)
        if picture and _holds_two_rows(picture[0]):
            problems.append((number, f"'{printable(line)}' holds two rows; put each on a line of its own"))
        elif picture:
            rows.append((number, picture[0], line[picture.end() :].split()))
        elif number == numbered[0][0] and not any(field.lower() in ATTRIBUTE for field in line.split()):
            problems.append((number, f"'{printable(line)}' looks like a header; remove it and use --names"))
        else:
            image, *labels = line.rsplit(maxsplit=size)
            rows.append((number, image, labels))
    return choice.find(path, unnamed(size), all_others=True), size, rows


def unnamed(count: int) -> tuple[str, ...]:
    """What attributes are called that have no names: `attr1`, `attr2`, ..."""
    return tuple(f"attr{number}" for number in range(1, count + 1))


def _count_labels(line: str) -> int:
    """Count the fields after the picture's name or, where no field looks like one, the labels at the end."""
    if picture := _PICTURE.match(line):
        return len(line[picture.end() :].split())
    backwards = reversed(line.split()[1:])
    return len(list(takewhile(lambda field: field.lower() in ATTRIBUTE, backwards)))


def _holds_two_rows(image: str) -> bool:
    """Tell a file name with spaces from two rows that lost their line break, `a.jpg 1 0b.jpg`."""
    fields = image.split()
    earlier = _PICTURE.match(" ".join(fields[:-1]))
    return earlier is not None and fields[len(earlier[0].split())].lower() in ATTRIBUTE


# Files with a header


def _delimited_rows(
    path: str, lines: list[str], delimiter: str, choice: Choice, problems: list[Problem]
) -> tuple[Columns, int, list[Row]]:
    records = _records(lines, delimiter, problems)
    number, fields = next(records, (1, []))
    if problems:  # the header itself; nothing below it can be judged
        raise LabelError(path, problems)
    sign = "<tab>" if delimiter == "\t" else delimiter
    expected = f"expected a header like image{sign}attr1{sign}..."
    if len(fields) < 2:
        raise LabelError(path, [(number, f"there are no columns of attributes; {expected}")])
    if any("\n" in field for field in fields):
        raise LabelError(path, [(number, 'the header goes over several lines; is a quote (") missing?')])
    if _PICTURE.match(fields[0]) or (any(fields[1:]) and all(text.lower() in ATTRIBUTE for text in fields[1:])):
        raise LabelError(path, [(number, f"'{printable(sign.join(fields))}' is a row of labels; {expected}")])
    header = tuple(map(one_line, fields[1:]))
    columns = choice.find(path, header, all_others=True)
    problems.extend((number, f"header: {wrong}") for wrong in choice.wrong_header(header, all_others=True))
    rows: list[Row] = []
    for number, (image, *cells) in records:
        if not image:
            problems.append((number, "there is no file name in the first column"))
        elif "\n" in image:
            problems.append((number, f"'{printable(image)}' goes over several lines; is a quote (\") missing?"))
        else:
            rows.append((number, image, cells))
    if not rows and not problems:
        raise DataError(f"{path}: there are no rows below the header.")
    return columns, len(header), rows


def _records(lines: list[str], delimiter: str, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
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
            problems.append((start + 1, _cannot_split(error)))
            continue
        position = start + reader.line_num
        if any(fields):
            yield start + 1, fields


# Kaggle's fashion data


def _fashion_header(line: str) -> tuple[str, ...]:
    return tuple(one_line(name).strip('"') for name in line.split(","))


def _is_fashion(line: str) -> bool:
    first, *others = _fashion_header(line)
    return first == "id" and any(name in others for name in _FASHION)


def _fashion_rows(
    path: str, lines: list[str], choice: Choice, problems: list[Problem]
) -> tuple[Columns, int, list[Row], tuple[str, ...]]:
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if _has_content(line))
    number, line = next(numbered)
    names = _fashion_header(line)
    if names[0] != "id":
        raise LabelError(path, [(number, f"'{printable(line)}' is not a header like {_FASHION_HEADER}")])
    columns = choice.find(path, names[1:], all_others=False)
    problems.extend((number, f"header: {wrong}") for wrong in choice.wrong_header(names[1:], all_others=False))
    rows: list[Row] = []
    repaired = 0
    for number, line in numbered:
        try:
            (name, *cells), surplus = _fashion_fields(line, names)
        except csv.Error as error:
            problems.append((number, _cannot_split(error)))
            continue
        repaired += surplus > 0
        if len(cells) + 1 != len(names):
            problems.append((number, f"'{printable(name)}': fields found: {len(cells) + 1}, expected: {len(names)}"))
        elif not name:
            problems.append((number, "there is no id in the first column"))
        else:
            rows.append((number, name if name.lower().endswith(".jpg") else f"{name}.jpg", cells))
    if not rows and not problems:
        raise DataError(f"{path}: there are no rows below the header.")
    notes = (f"Lines with unquoted commas in {_FREE_TEXT}, repaired: {repaired}.",) if repaired else ()
    return columns, len(names) - 1, rows, notes


def _fashion_fields(line: str, names: tuple[str, ...]) -> tuple[list[str], int]:
    """Split one line, which is one record, and tell how many commas too many its free text had.

    Raises:
        csv.Error: a quote amid the other fields leaves it open which is which.
    """
    broken = None
    try:
        fields = next(csv.reader([line], strict=True))
    except csv.Error as error:
        broken, fields = error, line.split(",")
    surplus = len(fields) - len(names)
    start = names.index(_FREE_TEXT) if _FREE_TEXT in names else len(names)
    end = start + surplus + 1
    if broken and any('"' in field for field in fields[:start] + fields[end:]):
        raise broken
    if surplus > 0 and _FREE_TEXT in names:
        fields[start:end] = [",".join(fields[start:end])]
    return [field.strip() for field in fields], surplus


def _read_folder(path: str, choice: Choice) -> LabelTable:
    """Read every JSON file of the folder once; hidden ones are no labels."""
    try:
        files = sorted(name for name in os.listdir(path) if name.endswith(".json") and not name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)}); is --labels right?") from None
    if not files:
        raise DataError(f"{path}: is a folder without .json files; give it, or a file, that holds labels.")
    problems: list[Problem] = []
    header: dict[str, None] = {}
    rows: list[Row] = []
    for number, name in enumerate(files):
        try:
            values = _load_data(os.path.join(path, name))
            cells = [_text(key, values.get(key)) for key in choice.columns]
        except (OSError, ValueError) as error:
            problems.append((number, f"{printable(name)}: {_reason(error)}"))
            continue
        header |= dict.fromkeys(key for key, value in values.items() if key not in header and _is_scalar(value))
        rows.append((number, name.removesuffix(".json") + ".jpg", cells))
    if problems:
        raise _unusable_files(path, problems)
    choice.check(path, tuple(header), all_others=False)
    columns = choice.find(path, choice.columns, all_others=False)  # the rows hold no others
    images, texts = columns.merge(rows, len(choice.columns), problems)
    if problems:
        raise _unusable_files(path, problems)
    return columns.table(path, images, texts, ())


def _unusable_files(path: str, problems: list[Problem]) -> DataError:
    count = len({number for number, _ in problems})
    files, them = ("1 file", "it") if count == 1 else (f"{count:,} files", "them")
    shown = [f"  {what}" for _, what in problems[:_FILES_SHOWN]]
    if len(problems) > _FILES_SHOWN:
        shown.append(f"  ... and {len(problems) - _FILES_SHOWN:,} more")
    return DataError("\n".join([f"{path}: {files} cannot be used; correct or remove {them}.", *shown]))


def _load_data(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = file.read()
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({printable(str(error))})") from None
    values = document.get("data") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        raise ValueError("has no object 'data'")
    return values


def _scalar(value: Any) -> Any:
    return value["typeName"] if isinstance(value, dict) and "typeName" in value else value


def _is_scalar(value: Any) -> bool:
    return isinstance(_scalar(value), str | int | float)


def _text(key: str, value: Any) -> str:
    """The text of a column's value, on one line.

    Raises:
        ValueError: it has none.
    """
    if _scalar(value) is None:
        return ""
    if not _is_scalar(value):
        raise ValueError(f"'{printable(key)}' is neither text, nor a number, nor an object with a typeName")
    return one_line(re.sub("[\ud800-\udfff]", "\ufffd", str(_scalar(value))))  # halves of characters cannot be written


# Words


def _has_content(line: str) -> bool:
    stripped = line.strip()
    return bool(stripped) and not stripped.startswith("#")


def _cannot_split(error: csv.Error) -> str:
    return f"the line cannot be split into fields ({error}); check its quotes"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
