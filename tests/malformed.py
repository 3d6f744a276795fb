"""Labels files that must be refused: one good file, damaged in every way that we could think of."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator

PICTURES = 20
ATTRIBUTES = 3
FLIPPED = {"1": "0", "0": "1"}

Rows = list[list[str]]  # the fields of each row: the picture's name and its labels


def malformed_label_files(count: int = 200, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield `(kind, content)` of files that must be refused; the kinds take turns."""
    kinds = list(DAMAGES)
    for index in range(count):
        kind = kinds[index % len(kinds)]
        rng = random.Random(f"{seed}-{index}")
        content = DAMAGES[kind](rng)
        yield kind, content.encode() if isinstance(content, str) else content


def good_label_file(rng: random.Random) -> str:
    """Return what every damage starts from: a file that must be accepted."""
    return _write(_good_rows(rng), rng.choice(" \t,;"))


def _good_rows(rng: random.Random) -> Rows:
    rows = [[f"image_{n}.jpg", *rng.choices(["1", "0", "NA"], k=ATTRIBUTES)] for n in range(PICTURES)]
    for row in rows:
        row[1] = rng.choice("10")  # a known label in every row, which damages can contradict
    return rows


def _write(rows: Rows, separator: str, header: str | None = None) -> str:
    if header is None and separator in ",;":
        header = separator.join(["image", "attr1", "attr2", "attr3"])
    lines = [] if header is None else [header]
    return "\n".join(lines + [separator.join(row) for row in rows]) + "\n"


def _damage_rows(change: Callable[[random.Random, Rows, list[str]], object]) -> Callable[[random.Random], str]:
    """Damage one to three rows of a file in any format; `change` gets all rows and one of them."""

    def damage(rng: random.Random) -> str:
        rows = _good_rows(rng)
        for row in rng.sample(rows, rng.randint(1, 3)):
            change(rng, rows, row)
        return _write(rows, rng.choice(" \t,;"))

    return damage


def _damage_csv(change: Callable[[random.Random, list[str]], object]) -> Callable[[random.Random], str]:
    """Damage the lines of a CSV file; the first one is the header."""

    def damage(rng: random.Random) -> str:
        lines = _write(_good_rows(rng), ",").splitlines()
        change(rng, lines)
        return "\n".join(lines) + "\n"

    return damage


def _damage_bytes(change: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random], bytes]:
    return lambda rng: change(rng, good_label_file(rng).encode())


def _insert(data: bytes, rng: random.Random, what: bytes) -> bytes:
    position = rng.randint(1, len(data) - 1)
    return data[:position] + what + data[position:]


def _wrong_token(rng: random.Random, rows: Rows, row: list[str]) -> None:
    wrong = ["2", "yes", "x", "1.5", "-2", "TRUE", "0,5", "01", "1e0", "N/A", "None", "O", "l", "−1", "１", "¿", "[1]"]
    row[rng.randint(1, ATTRIBUTES)] = rng.choice(wrong)


def _contradiction(rng: random.Random, rows: Rows, row: list[str]) -> None:
    other = [row[0], FLIPPED[row[1]], *row[2:]]
    rows.insert(rng.randint(0, len(rows)), other)


def _contradiction_under_another_spelling(rng: random.Random, rows: Rows, row: list[str]) -> None:
    prefix = rng.choice(["./", "x/../", ".//"])
    rows.append([prefix + row[0], FLIPPED[row[1]], "NA", "NA"])


def _contradicted_completion(rng: random.Random, rows: Rows, row: list[str]) -> None:
    name = row[0]
    rows.extend([[name, "NA", *row[2:]], [name, FLIPPED[row[1]], "NA", "?"]])


def _missing_name(rng: random.Random) -> str:
    rows = _good_rows(rng)
    separator = rng.choice(" \t,;")
    row = rng.choice(rows)
    row[:] = ["", *row[1:]] if separator in ",;" else row[1:]
    return _write(rows, separator)


def _joined_rows(rng: random.Random) -> str:
    lines = good_label_file(rng).splitlines()
    first = rng.randint(1, len(lines) - 2)
    lines[first : first + 2] = [lines[first] + rng.choice(["", " "]) + lines[first + 1]]
    return "\n".join(lines)


def _other_delimiter(rng: random.Random, lines: list[str]) -> None:
    for row in rng.sample(range(1, len(lines)), rng.choice([1, 5, PICTURES])):
        lines[row] = lines[row].replace(",", rng.choice([";", "\t", "|", " "]))


def _open_quote(rng: random.Random, lines: list[str]) -> None:
    row = rng.randrange(len(lines))
    fields = lines[row].split(",")
    column = rng.randrange(len(fields))
    fields[column] = '"' + fields[column]
    lines[row] = ",".join(fields)


def _quotes_that_swallow_rows(rng: random.Random, lines: list[str]) -> None:
    """A quote opens a field of one row and closes at the end of a field of a later row."""
    first = rng.randint(0, 10)
    last = first + rng.randint(1, 5)
    fields = lines[first].split(",")
    column = rng.randrange(len(fields))
    fields[column] = '"' + fields[column]
    lines[first] = ",".join(fields)
    fields = lines[last].split(",")
    column = rng.randrange(len(fields))
    fields[column] += '"'
    lines[last] = ",".join(fields)


def _text_behind_quote(rng: random.Random, lines: list[str]) -> None:
    row = rng.randint(1, PICTURES)
    name, _, rest = lines[row].partition(",")
    lines[row] = f'"{name}"x,{rest}'


def _header(*headers: str) -> Callable[[random.Random], str]:
    return lambda rng: _write(_good_rows(rng), ",", rng.choice(headers))


def _huge_line(rng: random.Random) -> str:
    rows = _good_rows(rng)
    row = rng.choice(rows)
    separator = rng.choice(" \t,;")
    change = rng.randrange(4 if separator in ",;" else 3)
    if change == 0:
        row.extend(["1"] * 50_000)
    elif change == 1:
        row[2] = "1" * 200_000
    elif change == 2:
        row[:] = ["image_" * 40_000 + ".jpg"]
    else:
        row[0] = '"' + "x" * 300_000  # a quote that is never closed
    return _write(rows, separator)


def _truncated_utf16(rng: random.Random, data: bytes) -> bytes:
    encoded = data.decode().encode("utf-16")
    return encoded[: rng.randrange(3, len(encoded), 2)]


def _merge_conflict(rng: random.Random) -> str:
    lines = good_label_file(rng).splitlines()
    first = rng.randint(1, len(lines) - 3)
    lines[first:first] = ["<<<<<<< HEAD", lines[first], "======="]
    lines.insert(first + 4, ">>>>>>> other")
    return "\n".join(lines)


def _json(rng: random.Random) -> str:
    return json.dumps({row[0]: row[1:] for row in _good_rows(rng)}, indent=rng.choice([None, 1, 2]))


def _binary(start: bytes) -> Callable[[random.Random], bytes]:
    return lambda rng: start + rng.randbytes(rng.randint(200, 5000))


DAMAGES: dict[str, Callable[[random.Random], str | bytes]] = {
    "wrong token": _damage_rows(_wrong_token),
    "missing field": _damage_rows(lambda rng, rows, row: row.pop(rng.randint(1, ATTRIBUTES))),
    "extra field": _damage_rows(lambda rng, rows, row: row.insert(rng.randint(1, ATTRIBUTES + 1), "1")),
    "name without labels": _damage_rows(lambda rng, rows, row: row.__delitem__(slice(1, None))),
    "labels before the name": _damage_rows(lambda rng, rows, row: row.reverse()),
    "contradiction": _damage_rows(_contradiction),
    "contradiction, other spelling": _damage_rows(_contradiction_under_another_spelling),
    "contradicted completion": _damage_rows(_contradicted_completion),
    "missing name": _missing_name,
    "joined rows": _joined_rows,
    "all rows on one line": lambda rng: good_label_file(rng).replace("\n", rng.choice([" ", ""])),
    "names only": lambda rng: "\n".join(row[0] for row in _good_rows(rng)),
    "all reversed": lambda rng: _write([row[::-1] for row in _good_rows(rng)], rng.choice(" ,")),
    "other delimiter": _damage_csv(_other_delimiter),
    "open quote": _damage_csv(_open_quote),
    "quotes that swallow rows": _damage_csv(_quotes_that_swallow_rows),
    "text behind a quote": _damage_csv(_text_behind_quote),
    "no header": lambda rng: _write(_good_rows(rng), rng.choice(",;"), "# no header"),
    "only a header": lambda rng: rng.choice(["image,attr1,attr2", "image\tattr1\tattr2\n\n", "image;a;b\n# x"]),
    "same name twice in the header": _header("image,a,b,a", "image,a,a,a", "image, a,b,a ", 'image,"a",b,a'),
    "nameless attribute": _header("image,a,,c", "image,,,", "image,a,b, ", 'image,"",b,c'),
    "header of another width": _header("image,a,b", "image,a,b,c,d", "image,a"),
    "header over white space": lambda rng: _write(_good_rows(rng), " ", "image attr1 attr2 attr3"),
    "huge line": _huge_line,
    "merge conflict": _merge_conflict,
    "empty": lambda rng: rng.choice([b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
    "only blank lines": lambda rng: rng.choice(["\n", " ", "\t\n\n", "\r\n \r\n"]) * rng.randint(1, 9),
    "only comments": lambda rng: "# image_0.jpg 1 0 NA\n" * rng.randint(1, 9),
    "only delimiters": lambda rng: (rng.choice([",,,", ";", ", ,"]) + "\n") * rng.randint(1, 9),
    "NUL byte": _damage_bytes(lambda rng, data: _insert(data, rng, b"\0" * rng.randint(1, 3))),
    "not UTF-8": _damage_bytes(lambda rng, data: _insert(data, rng, rng.choice([b"\xff", b"\xe9", b"\xc3\x28"]))),
    "truncated UTF-16": _damage_bytes(_truncated_utf16),
    "UTF-16 without a mark": _damage_bytes(lambda rng, data: data.decode().encode("utf-16-le")),
    "UTF-32": _damage_bytes(lambda rng, data: data.decode().encode("utf-32")),
    "compressed": _damage_bytes(lambda rng, data: gzip.compress(data, mtime=0)),
    "JPEG": _binary(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01"),
    "PNG": _binary(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"),
    "spreadsheet": _binary(b"PK\x03\x04\x14\x00\x06\x00"),
    "binary junk": _binary(b"image_0.jpg 1 0 NA\n\x80"),
    "JSON": _json,
    "web page": lambda rng: "<!DOCTYPE html>\n<html><body>\n<p>404, not found</p>\n</body></html>\n",
    "prose": lambda rng: rng.choice(["Hello, world.\nThis is a letter, not a table.\n", "To do:\nbuy milk 1\n"]),
}
