"""What files may hold, and what they become; everything else is refused in clear sentences."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import DAMAGES, good_label_file, malformed_label_files

from multilabel.errors import DataError, LabelError, MultilabelError, UsageError
from multilabel.formats import read_labels
from multilabel.labels import UNKNOWN, LabelTable, Tag, class_counts

Write = Callable[[str | bytes], Path]


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write one labels file; session-wide, so that Hypothesis can use it too."""
    path = tmp_path_factory.mktemp("labels") / "labels.txt"

    def write_file(content: str | bytes) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def as_lists(table: LabelTable) -> tuple[list[str], list[list[int]], list[str]]:
    return list(table.images), table.y.tolist(), list(table.names)


def line_problems(path: Path, **options: object) -> list[tuple[int, str]]:
    with pytest.raises(LabelError) as caught:
        read_labels(path, **options)
    return caught.value.problems


# Reading


def test_aimonk(write: Write) -> None:
    table = read_labels(write("image_0.jpg 1 NA 0 1\nimage_1.jpg 0 0 1 NA\n"))
    assert table.images == ("image_0.jpg", "image_1.jpg")
    assert table.y.tolist() == [[1, -1, 0, 1], [0, 0, 1, -1]]
    assert table.y.dtype == np.int8
    assert table.names == ("attr1", "attr2", "attr3", "attr4")
    assert table.notes == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_header(write: Write, separator: str) -> None:
    lines = ["image,long sleeves,dress", "a.jpg,1,", "b c.jpg,,0"]
    table = read_labels(write("\n".join(lines).replace(",", separator)))
    expected = (["a.jpg", "b c.jpg"], [[1, -1], [-1, 0]], ["long sleeves", "dress"])
    assert as_lists(table) == expected
    assert as_lists(read_labels(write("\n".join(lines)), format="csv")) == expected


@pytest.mark.parametrize(
    ("spellings", "value"),
    [
        ("1 1.0", 1),
        ("0 0.0", 0),
        ("NA na Na NaN NAN nan ? -1 -1.0", -1),
    ],
)
def test_spellings(write: Write, spellings: str, value: int) -> None:
    rows = [f"{n}.jpg {token} 1" for n, token in enumerate(spellings.split())]
    assert read_labels(write("\n".join(rows))).y.tolist() == [[value, 1]] * len(rows)
    rows = [row.replace(" ", ",") for row in rows]
    assert read_labels(write("\n".join(["image,a,b", *rows]))).y.tolist() == [[value, 1]] * len(rows)


@pytest.mark.parametrize(
    ("line", "image"),
    [
        ("my photo.jpg 1 0", "my photo.jpg"),
        ("my  photo .PNG\t1 0", "my  photo .PNG"),
        ("1 0 NA.jpeg 1 0", "1 0 NA.jpeg"),
        ("a.jpg copy.webp 1 0", "a.jpg copy.webp"),
        ("a,b;c.jpg 1 0", "a,b;c.jpg"),
        ('"a".jpg 1 0', '"a".jpg'),
        ("dir\\a.jpg 1 0", "dir\\a.jpg"),
        ("Screenshot 9.41\u202fAM.png 1 0", "Screenshot 9.41\u202fAM.png"),
        ("my photo 1 0", "my photo"),
        ("12345 1 0", "12345"),
        ("1 1 0", "1"),
    ],
)
def test_file_names_in_white_space_files(write: Write, line: str, image: str) -> None:
    table = read_labels(write(f"{line}\nother.jpg 0 NA\n"))
    assert table.images == (image, "other.jpg")
    assert table.y.tolist() == [[1, 0], [0, -1]]


def test_names_settle_how_many_fields_are_labels(write: Write) -> None:
    path = write("photo 1 1 0\nphoto 2 1 0\nphoto 0 1 1\n")
    assert read_labels(path, names=["a", "b"]).images == ("photo 1", "photo 2", "photo 0")


@pytest.mark.parametrize("format", ["auto", "aimonk"])
def test_names_override(write: Write, format: str) -> None:
    assert read_labels(write("a.jpg 1 0\n"), format=format, names=["x", " y  z "]).names == ("x", "y z")


def test_names_override_a_header_even_a_wrong_one(write: Write) -> None:
    assert read_labels(write("image,a,a,\nx.jpg,1,0,1\n"), names=("p", "q", "r")).names == ("p", "q", "r")


def test_spaces_around_delimiters(write: Write) -> None:
    table = read_labels(write('image, "a, b", c\nx.jpg , "1", 0 \n'))
    assert as_lists(table) == (["x.jpg"], [[1, 0]], ["a, b", "c"])


def test_format_overrides_content(write: Write) -> None:
    path = write("image\t0\t1\nb.jpg\t1\t0\nc.jpg\t0\t0\n")
    assert read_labels(path).images == ("image", "b.jpg", "c.jpg")
    assert line_problems(path, format="tsv") == [
        (1, "'image<tab>0<tab>1' is a row of labels; expected a header like image<tab>attr1<tab>...")
    ]
    path = write("x,y 1 0\nb.jpg 1 0\n")
    assert read_labels(path, format="aimonk").images == ("x,y", "b.jpg")


def test_line_numbers_count_lines_inside_quotes_comments_and_blank_lines(write: Write) -> None:
    content = '# "a comment, with a quote\n\nimage,a,b\n"x.jpg","1\n\n","0"\n# "\n,,\n"y.jpg",2,0\n'
    assert line_problems(write(content)) == [(9, "y.jpg: a is '2'; expected 1, 0 or NA")]
    assert as_lists(read_labels(write(content.replace(",2,", ",1,")))) == (
        ["x.jpg", "y.jpg"],
        [[1, 0], [1, 0]],
        ["a", "b"],
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_counts_once(write: Write, end: str) -> None:
    path = write(end.join(["a.jpg 1 0", "", "b.jpg 2 0"]))
    assert line_problems(path) == [(3, "b.jpg: attr1 is '2'; expected 1, 0 or NA")]


def test_only_line_ends_end_lines(write: Write) -> None:
    path = write("a\x0cb\x85c.jpg 1 0\nd.jpg 2 0\n")
    assert line_problems(path) == [(2, "d.jpg: attr1 is '2'; expected 1, 0 or NA")]


def test_joined_files_with_byte_order_marks(write: Write) -> None:
    half = codecs.BOM_UTF8 + b"a.jpg 1 0\n"
    assert read_labels(write(half + half.replace(b"a", b"b"))).images == ("a.jpg", "b.jpg")


# Merging


def test_repeated_rows_are_merged(write: Write) -> None:
    content = "a.jpg 1 NA NA\nb.jpg 0 0 0\n./a.jpg NA 0 NA\na.jpg 1 0 NA\nx/../b.jpg 0 NA 0\n"
    table = read_labels(write(content))
    assert as_lists(table) == (["a.jpg", "b.jpg"], [[1, 0, -1], [0, 0, 0]], ["attr1", "attr2", "attr3"])
    assert table.notes == ("Repeated rows merged into the first row of their picture: 3.",)


def test_contradictions_name_the_line_that_said_otherwise(write: Write) -> None:
    content = "image_7.jpg 1 NA NA\nb.jpg 1 1 1\nimage_7.jpg NA 1 NA\n./image_7.jpg 0 0 1\n"
    assert line_problems(write(content)) == [
        (4, "./image_7.jpg: attr1 is 0, but line 1 says 1"),
        (4, "./image_7.jpg: attr2 is 0, but line 3 says 1"),
    ]


def test_contradictions_name_the_first_line_that_said_otherwise(write: Write) -> None:
    path = write("a.jpg 1\na.jpg 1\na.jpg 0\n")
    assert line_problems(path) == [(3, "a.jpg: attr1 is 0, but line 1 says 1")]


def test_a_row_that_completes_and_contradicts_is_an_error(write: Write) -> None:
    path = write("image,a,b\nx.jpg,,0\nx.jpg,1,1\n")
    assert line_problems(path) == [(3, "x.jpg: b is 1, but line 2 says 0")]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 0, -1])), min_size=1, max_size=8))
def test_merging_against_sets_of_known_labels(write: Write, rows: list[tuple[str, int]]) -> None:
    path = write("".join(f"{image}.jpg {value}\n" for image, value in rows))
    known = {image: {value for name, value in rows if name == image} - {-1} for image, _ in rows}
    if any(len(values) > 1 for values in known.values()):
        assert all("but line" in what for _, what in line_problems(path))
    else:
        table = read_labels(path)
        assert table.y.tolist() == [[max(values, default=-1)] for values in known.values()]
        assert table.notes == (() if len(rows) == len(known) else (table.notes[0],))


# Refusing


def test_all_bad_lines_are_reported_at_once(write: Write) -> None:
    path = write("a.jpg 1 0\nb.jpg yes 0\nc.jpg 1\nd.jpg 1 0 1\n# fine\nb.jpg 1 maybe\na.jpg 0 0\ne.jpg\n")
    with pytest.raises(LabelError) as caught:
        read_labels(path)
    assert str(caught.value) == (
        f"{path}: 6 lines cannot be used; correct them and run again.\n"
        "  line 2: b.jpg: attr1 is 'yes'; expected 1, 0 or NA\n"
        "  line 3: c.jpg: labels found: 1, expected: 2\n"
        "  line 4: d.jpg: labels found: 3, expected: 2\n"
        "  line 6: b.jpg: attr2 is 'maybe'; expected 1, 0 or NA\n"
        "  line 7: a.jpg: attr1 is 0, but line 1 says 1\n"
        "  line 8: e.jpg: labels found: 0, expected: 2"
    )


def test_problems_are_in_file_order(write: Write) -> None:
    assert line_problems(write("a.jpg 1 2\nb.jpg 1 c.jpg 0 1\nan other line\n")) == [
        (1, "a.jpg: attr2 is '2'; expected 1, 0 or NA"),
        (2, "'b.jpg 1 c.jpg 0 1' holds two rows; put each on a line of its own"),
        (3, "an: attr1 is 'other'; expected 1, 0 or NA"),
        (3, "an: attr2 is 'line'; expected 1, 0 or NA"),
    ]


def test_every_nameless_attribute_is_reported(write: Write) -> None:
    assert line_problems(write("image,,b,\nx.jpg,1,1,1\n")) == [
        (1, "header: attribute 1 has no name"),
        (1, "header: attribute 3 has no name"),
    ]


GOOD = "\nx.jpg 1 0\ny.jpg 0 1\nz.jpg 0 1"
CSV = "image,a,b\n"


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("a.jpg 1 0.5" + GOOD, 1, "a.jpg: attr2 is '0.5'; expected 1, 0 or NA"),
        ("a.jpg 1 0,5" + GOOD, 1, "a.jpg: attr2 is '0,5'; expected 1, 0 or NA"),
        ("a.jpg 1 \x1b[2J" + GOOD, 1, r"a.jpg: attr2 is '\x1b[2J'; expected 1, 0 or NA"),
        ("a.jpg 1 " + "9" * 999 + GOOD, 1, f"a.jpg: attr2 is '{'9' * 100}...'; expected 1, 0 or NA"),
        ("a.jpg" + GOOD, 1, "a.jpg: labels found: 0, expected: 2"),
        ("my a.jpg 1" + GOOD, 1, "my a.jpg: labels found: 1, expected: 2"),
        ("x 1" + GOOD, 1, "x: labels found: 1, expected: 2"),
        ("my photo no" + GOOD, 1, "'my photo no' looks like a header; remove it and use --names"),
        ("# c\nimage a b" + GOOD, 2, "'image a b' looks like a header; remove it and use --names"),
        ("a.jpg 1 0b.jpg 0 1" + GOOD, 1, "'a.jpg 1 0b.jpg 0 1' holds two rows; put each on a line of its own"),
        ("a.jpg 1 b.jpg 0 1" + GOOD, 1, "'a.jpg 1 b.jpg 0 1' holds two rows; put each on a line of its own"),
        (CSV + "a.jpg,1,no\n", 2, "a.jpg: b is 'no'; expected 1, 0 or NA"),
        (CSV + "a.jpg,1\n", 2, "a.jpg: labels found: 1, expected: 2"),
        (CSV + "a.jpg,1,0,\n", 2, "a.jpg: labels found: 3, expected: 2"),
        (CSV + "a.jpg\n", 2, "a.jpg: labels found: 0, expected: 2"),
        (CSV + ",1,0\n", 2, "there is no file name in the first column"),
        (CSV + '"b.jpg\nc.jpg",1,0\n', 2, r"""'b.jpg\nc.jpg' goes over several lines; is a quote (") missing?"""),
        (CSV + '"a.jpg,1,0\n', 2, "the line cannot be split into fields (unexpected end of data); check its quotes"),
        ('image,"a\nx.jpg,1\n', 1, "the line cannot be split into fields (unexpected end of data); check its quotes"),
        ("image,a,b,a\nx.jpg,1,0,1\n", 1, "header: 'a' is there more than once"),
        ("\n# c\nimage,a,,c\nx.jpg,1,0,1\n", 3, "header: attribute 2 has no name"),
        ("image,\nx.jpg,1\n", 1, "header: attribute 1 has no name"),
        ('image,"a\nx.jpg,1\n"\ny.jpg,1\n', 1, 'the header goes over several lines; is a quote (") missing?'),
        ("a.jpg,1,0,NA\nb.jpg,1,0,1\n", 1, "'a.jpg,1,0,NA' is a row of labels; expected a header like image,attr1,..."),
        ("a.jpg;1;no\n", 1, "'a.jpg;1;no' is a row of labels; expected a header like image;attr1;..."),
        ("12345,1,0\n", 1, "'12345,1,0' is a row of labels; expected a header like image,attr1,..."),
    ],
)  # fmt: skip
def test_message_of_a_bad_line(write: Write, content: str, line: int, problem: str) -> None:
    path = write(content)
    assert line_problems(path) == [(line, problem)]
    if line == 1:
        with pytest.raises(LabelError, match="1 line cannot be used; correct it and run again") as caught:
            read_labels(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_bad_header_and_bad_rows_are_reported_together(write: Write) -> None:
    assert line_problems(write("image,a,a\nx.jpg,1,no\n")) == [
        (1, "header: 'a' is there more than once"),
        (2, "x.jpg: a is 'no'; expected 1, 0 or NA"),
    ]


def test_a_column_is_needed(write: Write) -> None:
    expected = [(1, "there are no columns of attributes; expected a header like image,attr1,...")]
    assert line_problems(write("image\na.jpg\n"), format="csv") == expected


NO_LABELS = "holds no labels; it is empty or only comments."
NO_LINE = "no line holds labels; expected lines like 'image_0.jpg 1 NA', or a CSV file with a header."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", NO_LABELS),
        (codecs.BOM_UTF8, NO_LABELS),
        (b"\r\n \t\r\n", NO_LABELS),
        (b"# a.jpg 1 0\n  # b.jpg 1 0\n", NO_LABELS),
        (b"a.jpg\nb.jpg\n", NO_LINE),
        (b"image,a,b\n\n# x.jpg,1,0\n", "there are no rows below the header."),
        (b"a.jpg 1\nb.jpg \0", "is not UTF-8 text (byte 0x00 at position 14); save the labels as UTF-8 text."),
        (b"caf\xe9.jpg 1\n", "is not UTF-8 text (byte 0xe9 at position 3); save the labels as UTF-8 text."),
        (
            codecs.BOM_UTF8 + b"a\xff.jpg 1\n",
            "is not UTF-8 text (byte 0xff at position 4); save the labels as UTF-8 text.",
        ),
        (
            codecs.BOM_UTF16_LE + b"a\0b",
            "is not UTF-16 text (byte 0x62 at position 4); save the labels as UTF-8 text.",
        ),
        (
            codecs.BOM_UTF16_BE + b"\0a\0\0",
            "is not UTF-16 text (byte 0x00 at position 4); save the labels as UTF-8 text.",
        ),
    ],
)
def test_message_of_a_bad_file(write: Write, content: bytes, problem: str) -> None:
    path = write(content)
    with pytest.raises(DataError) as caught:
        read_labels(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "absent.txt", os.strerror(errno.ENOENT)),
        (tmp_path, os.strerror(errno.EISDIR)),
        (tmp_path / "absent.txt" / "labels.txt", os.strerror(errno.ENOENT)),
        (tmp_path / ("x" * 300), os.strerror(errno.ENAMETOOLONG)),
        (Path("a\0b"), "embedded null byte"),
    ):
        with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read ({reason}); is --labels right?")):
            read_labels(path, format="csv" if path == tmp_path else "auto")


@pytest.mark.parametrize(
    ("content", "names", "counts"),
    [
        ("a.jpg 1 0\n", ["a"], "attributes in the file: 2, names given: 1"),
        ("a.jpg 1 0\n", [], "attributes in the file: 2, names given: 0"),
        ("image,a\nb.jpg,1\n", ["a", "b"], "attributes in the file: 1, names given: 2"),
    ],
)
def test_message_of_a_wrong_number_of_names(write: Write, content: str, names: list[str], counts: str) -> None:
    path = write(content)
    with pytest.raises(UsageError) as caught:
        read_labels(path, names=names)
    assert str(caught.value) == f"{path}: {counts}; give one name for each attribute."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a", "a"]}, "The given names cannot be used: 'a' is there more than once."),
        ({"names": ["a", " "]}, "The given names cannot be used: attribute 2 has no name."),
        ({"format": "json"}, "'json' is not a format of labels files; choose from auto, aimonk, csv, tsv, fashion."),
    ],
)
def test_message_of_a_wrong_call(write: Write, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_labels(write("a.jpg 1 0\n"), **options)
    assert str(caught.value) == message


MALFORMED = list(malformed_label_files(200))


def test_there_are_two_hundred_malformed_files_of_every_kind() -> None:
    assert len({content for _, content in MALFORMED}) > 150
    assert {kind for kind, _ in MALFORMED} == set(DAMAGES)
    again = list(malformed_label_files(200))
    assert again == MALFORMED


@pytest.mark.parametrize("content", [pytest.param(c, id=f"{n}-{kind}") for n, (kind, c) in enumerate(MALFORMED)])
def test_malformed_files_are_refused(write: Write, content: bytes) -> None:
    path = write(content)
    with pytest.raises(MultilabelError) as caught:
        read_labels(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) > len(f"{path}: ") + 20
    assert all(len(line) < 500 and line.isprintable() for line in message.split("\n"))


@pytest.mark.parametrize("seed", range(20))
def test_what_malformed_files_are_made_from_is_accepted(write: Write, seed: int) -> None:
    table = read_labels(write(good_label_file(random.Random(seed))))
    assert table.y.shape == (20, 3)


# Properties

SPELLINGS = {1: ["1", "1.0"], 0: ["0", "0.0"], -1: ["NA", "na", "NaN", "nan", "?", "-1", "-1.0"]}
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",  # these two codecs write the mark themselves
    "utf-16": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
}
WORDS = st.sampled_from(["a", "photo", "1", "0", "NA", "é漢", "it's", 'say"so"', "x,y", "p;q", "dir/b", ".hid", "(1)"])
SUFFIXES = st.sampled_from([".jpg", ".JPEG", ".png", ".webp", ".Gif", ".bmp", ".tif", ".tiff", ".jfif", ".avif"])
PICTURES = st.builds(
    lambda words, gap, suffix: gap.join(words) + suffix,
    st.lists(WORDS, min_size=1, max_size=3),
    st.sampled_from([" ", "  "]),
    SUFFIXES,
)
ATTRIBUTES = st.builds(
    lambda words, number: " ".join([*words, f"n{number}"]), st.lists(WORDS, max_size=2), st.integers(0, 99)
)


@st.composite
def tables(draw: st.DrawFn) -> LabelTable:
    images = draw(st.lists(PICTURES, min_size=1, max_size=6, unique_by=os.path.normpath))
    names = draw(st.lists(ATTRIBUTES, min_size=1, max_size=4, unique=True))
    cells = st.lists(st.sampled_from([1, 0, -1]), min_size=len(names), max_size=len(names))
    return LabelTable(tuple(images), np.array([draw(cells) for _ in images], np.int8), tuple(names))


def spell(draw: st.DrawFn, table: LabelTable, *, blank: bool) -> list[list[str]]:
    """Return the rows of a file with every cell in a random spelling."""
    rows = []
    for image, values in zip(table.images, table.y.tolist(), strict=True):
        tokens = [draw(st.sampled_from(SPELLINGS[v] + ["", " "] * (blank and v == -1))) for v in values]
        rows.append([image, *tokens])
    return rows


def dress(draw: st.DrawFn, lines: list[str]) -> bytes:
    """Return the file's bytes with random comments, blank lines, line ends, byte order mark and encoding."""
    extra = st.sampled_from(["", "  ", "# a comment", '#"x,1', "\t# a.jpg 1 0"])
    for _ in range(draw(st.integers(0, 3))):
        lines.insert(draw(st.integers(0, len(lines))), draw(extra))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join(lines) + draw(st.sampled_from(["", end]))
    encoding = draw(st.sampled_from(sorted(ENCODINGS)))
    return ENCODINGS[encoding] + text.encode(encoding)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.data(), tables())
def test_white_space_round_trip(write: Write, data: st.DataObject, table: LabelTable) -> None:
    gap = data.draw(st.sampled_from([" ", "\t", "   ", " \t"]))
    lines = [gap.join(row) for row in spell(data.draw, table, blank=False)]
    path = write(dress(data.draw, lines))
    for format in ("auto", "aimonk"):
        assert as_lists(read_labels(path, format=format, names=table.names)) == as_lists(table)
        unnamed = read_labels(path, format=format)
        assert unnamed.names == tuple(f"attr{k}" for k in range(1, len(table.names) + 1))
        assert unnamed.y.tolist() == table.y.tolist()


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.data(), tables(), st.sampled_from([",", ";", "\t"]))
def test_delimited_round_trip(write: Write, data: st.DataObject, table: LabelTable, delimiter: str) -> None:
    buffer = io.StringIO()
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerow([data.draw(st.sampled_from(["image", "", "file name"])), *table.names])
    writer.writerows(spell(data.draw, table, blank=True))
    path = write(dress(data.draw, buffer.getvalue().splitlines()))
    for format in ("auto", "tsv" if delimiter == "\t" else "csv"):
        assert as_lists(read_labels(path, format=format)) == as_lists(table)


PIECES = ["a.jpg", "b c.png", "image", "attr", "1", "0", "NA", "2", "ü", "#", "\ufeff", "\0", *' \t,;"\n\r']


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)),
    st.sampled_from(["auto", "aimonk", "csv", "tsv"]),
    st.sampled_from([None, ("x",), ("x", "y")]),
)
def test_arbitrary_content_is_a_table_or_a_clear_error(
    write: Write, content: str | bytes, format: str, names: tuple[str, ...] | None
) -> None:
    path = write(content)
    try:
        table = read_labels(path, format=format, names=names)
    except MultilabelError:
        return
    assert table.y.dtype == np.int8
    assert table.y.shape == (len(table.images), len(table.names))
    assert table.y.size > 0
    assert np.isin(table.y, [1, 0, -1]).all()
    assert all(table.images)
    assert all(table.names)


# Tags, chosen attributes, and parts

GARMENTS = """\
image,colour,dress,season,long sleeves
a.jpg,Navy  Blue,1,Fall,0
b.jpg,Red,0,NA,
c.jpg, Red ,NA,Summer,1
d.jpg,?,1,Summer,1
"""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_become_tags_and_the_others_attributes(write: Write, separator: str) -> None:
    table = read_labels(write(GARMENTS.replace(",", separator)), tags=("season", "colour"))
    assert as_lists(table) == (
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        [[1, 0], [0, -1], [-1, 1], [1, 1]],
        ["dress", "long sleeves"],
    )
    assert table.tags == (Tag("season", ("Fall", "Summer")), Tag("colour", ("Navy Blue", "Red")))
    assert table.tag_y.tolist() == [[0, 0], [-1, 1], [1, 1], [1, -1]]
    assert (table.y.dtype, table.tag_y.dtype) == (np.int8, np.int16)
    assert table.parts is None


@pytest.mark.parametrize(
    ("options", "names", "y"),
    [
        ({"attributes": ("long  sleeves", "dress")}, ("long sleeves", "dress"), [[0, 1], [-1, 0], [1, -1], [1, 1]]),
        ({"attributes": ["dress"], "names": ["Kleid"]}, ("Kleid",), [[1], [0], [-1], [1]]),
        ({"attributes": ["dress"], "tags": ["colour"]}, ("dress",), [[1], [0], [-1], [1]]),
        ({"attributes": (), "tags": ["colour"]}, (), [[], [], [], []]),
    ],
)
def test_attributes_are_the_chosen_columns(write: Write, options: dict, names: tuple[str, ...], y: list) -> None:
    table = read_labels(write(GARMENTS), **options)
    assert table.names == names
    assert table.y.tolist() == y
    assert [tag.name for tag in table.tags] == list(options.get("tags", ()))


def test_names_are_for_the_attributes_beside_tags(write: Write) -> None:
    table = read_labels(write(GARMENTS), tags=("colour", "season"), names=("x", "y"))
    assert table.names == ("x", "y")


def test_without_tags_there_are_none(write: Write) -> None:
    table = read_labels(write("a.jpg 1 0\n"))
    assert (table.tags, table.tag_y.shape, table.tag_y.dtype, table.parts) == ((), (1, 0), np.int16, None)


@pytest.mark.parametrize("spelling", ["", " ", "NA", "na", "NaN", "nan", "?", "-1", "N/A", "n/a", "null", "NULL"])
def test_spellings_of_an_unknown_class(write: Write, spelling: str) -> None:
    table = read_labels(write(f"image,colour\na.jpg,{spelling}\nb.jpg,x\nc.jpg,none\n"), tags=("colour",))
    assert table.tags[0].classes == ("none", "x")
    assert table.tag_y.tolist() == [[-1], [1], [0]]


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["2012", "900", "10.5", "NA"], ("10.5", "900", "2012")),
        (["2012", "900", "ten"], ("2012", "900", "ten")),
        (["b", "B", "a"], ("B", "a", "b")),
        (["x\u00a0 y", "x y", "z"], ("x y", "z")),
    ],
)
def test_the_order_of_classes(write: Write, values: list[str], classes: tuple[str, ...]) -> None:
    rows = "".join(f"{number}.jpg,{value}\n" for number, value in enumerate(values))
    assert read_labels(write("image,t\n" + rows), tags=("t",)).tags == (Tag("t", classes),)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "NA"])), min_size=1, max_size=8))
def test_merging_tags_against_sets_of_known_classes(write: Write, rows: list[tuple[str, str]]) -> None:
    ends = [("y", "x"), ("z", "y")]  # so that there are always two classes
    path = write("image,t\n" + "".join(f"{image}.jpg,{value}\n" for image, value in rows + ends))
    known = {image: {value for name, value in rows + ends if name == image} - {"NA"} for image, _ in rows + ends}
    if any(len(values) > 1 for values in known.values()):
        assert all("but line" in what for _, what in line_problems(path, tags=("t",)))
    else:
        table = read_labels(path, tags=("t",))
        assert table.images == tuple(f"{image}.jpg" for image in known)
        said = ["NA" if number == UNKNOWN else table.tags[0].classes[number] for number in table.tag_y[:, 0]]
        assert said == [max(values, default="NA") for values in known.values()]


def test_contradicting_classes_and_parts_name_both_lines(write: Write) -> None:
    path = write("image,t,a,part\na.jpg,x,1,train\nb.jpg,y,0,\na.jpg,NA,1,\na.jpg,y,1,TEST\n")
    assert line_problems(path, tags=("t",), split="part") == [
        (5, "a.jpg: t is 'y', but line 2 says 'x'"),
        (5, "a.jpg: part is 'test', but line 2 says 'training'"),
    ]


def test_bad_cells_beside_tags_say_how_to_choose_columns(write: Write) -> None:
    path = write("image,t,price\na.jpg,x,9.99\nb.jpg,y,1\n")
    plain = "a.jpg: price is '9.99'; expected 1, 0 or NA"
    assert line_problems(path, tags=("t",)) == [(2, plain)]
    assert line_problems(path, tags=("t",), attributes=("price",)) == [(2, plain)]
    assert line_problems(path, attributes=("price",)) == [(2, plain)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tags": ["color"]},
            "there is no column 'color'; did you mean 'colour'? There are colour, dress, season, long sleeves.",
        ),
        ({"attributes": ["hat"]}, "there is no column 'hat'; there are colour, dress, season, long sleeves."),
        ({"split": "image"}, "there is no column 'image'; there are colour, dress, season, long sleeves."),
        ({"tags": [""]}, "there is no column ''; there are colour, dress, season, long sleeves."),
        (
            {"attributes": []},
            "no column is an attribute or a tag; choose the columns with --tags; "
            "there are colour, dress, season, long sleeves.",
        ),
        (
            {"attributes": ["dress"], "names": ["a", "b"]},
            "attributes in the file: 1, names given: 2; give one name for each attribute.",
        ),
        ({"tags": ["colour"], "names": ["a"]}, "attributes in the file: 3, names given: 1; "
         "give one name for each attribute."),
    ],
)  # fmt: skip
def test_message_of_a_wrong_choice(write: Write, options: dict[str, object], message: str) -> None:
    path = write(GARMENTS)
    with pytest.raises(UsageError) as caught:
        read_labels(path, **options)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    "options",
    [
        {"tags": ["colour", "colour"]},
        {"attributes": ["colour", " colour"]},
        {"tags": ["colour"], "attributes": ["colour"]},
        {"tags": ["colour"], "split": "colour"},
    ],
)
def test_a_column_is_asked_for_once(write: Write, options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        read_labels(write(GARMENTS), **options)
    expected = "Column 'colour' is asked for more than once; it is an attribute, a tag or the split."
    assert str(caught.value) == expected


@pytest.mark.parametrize("options", [{"tags": ["attr1"]}, {"attributes": ["attr1"]}, {"split": "x"}])
def test_columns_of_a_file_without_header_cannot_be_chosen(write: Write, options: dict[str, object]) -> None:
    path = write("a.jpg 1 0\n")
    with pytest.raises(UsageError) as caught:
        read_labels(path, **options)
    assert str(caught.value) == f"{path}: has no header, so no columns can be chosen; add one, or do not choose."


@pytest.mark.parametrize(
    ("header", "options", "problems"),
    [
        ("image,t,t,a", {"tags": ["t"]}, ["'t' is there more than once"]),
        ("image,a,a,t", {"tags": ["t"]}, ["'a' is there more than once"]),
        ("image,a,,t", {"tags": ["t"]}, ["attribute 2 has no name"]),
        ("image,a,a,t", {"tags": ["t"], "names": ["x", "y"]}, []),
        ("image,a,a,t", {"tags": ["t"], "attributes": []}, []),
        ("image,a,a,t", {"tags": ["t"], "attributes": ["a"]}, ["'a' is there more than once"]),
    ],
)
def test_columns_that_are_read_have_names_of_their_own(
    write: Write, header: str, options: dict[str, object], problems: list[str]
) -> None:
    path = write(f"{header}\na.jpg,1,1,1\nb.jpg,0,0,0\n")
    if problems:
        assert line_problems(path, **options) == [(1, f"header: {problem}") for problem in problems]
    else:
        assert read_labels(path, **options).tags == (Tag("t", ("0", "1")),)


def test_a_class_on_several_lines_is_a_missing_quote(write: Write) -> None:
    path = write('image,t\na.jpg,"x\nb.jpg,y"\nc.jpg,z\n')
    what = r"""a.jpg: t is 'x\nb.jpg,y', which goes over several lines; is a quote (") missing?"""
    assert line_problems(path, tags=("t",)) == [(2, what)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["x", "x", "NA"], "has only the value 'x'; a tag needs at least 2 classes."),
        (["NA", ""], "has no known value; a tag needs at least 2 classes."),
        (
            [*(f"v{n}" for n in range(21)), *["v0"] * 20, "NA", "NA"],
            "has 21 different values in 41 rows; a tag needs few classes that repeat.",
        ),
        ([f"v{n}" for n in range(1100)], "has 1,100 different values in 1,100 rows; a tag needs few classes that "
         "repeat."),
        ([f"v{n % 32768}" for n in range(70000)], "has 32,768 different values in 70,000 rows; a tag needs few "
         "classes that repeat."),
    ],
)  # fmt: skip
def test_message_of_a_column_that_is_no_tag(write: Write, values: list[str], message: str) -> None:
    path = write("image,t\n" + "".join(f"{number}.jpg,{value}\n" for number, value in enumerate(values)))
    with pytest.raises(DataError) as caught:
        read_labels(path, tags=("t",))
    assert str(caught.value) == f"{path}: column 't' {message}"


@pytest.mark.parametrize("values", [[f"v{n}" for n in range(20)], [f"v{n % 21}" for n in range(42)]])
def test_many_classes_that_repeat_or_few_are_a_tag(write: Write, values: list[str]) -> None:
    path = write("image,t\n" + "".join(f"{number}.jpg,{value}\n" for number, value in enumerate(values)))
    assert len(read_labels(path, tags=("t",)).tags[0].classes) == len(set(values))


def test_the_split_column(write: Write) -> None:
    spelled = ["train", "Training", "VAL", "valid", "validation", "Test", "", "NA", "?"]
    parts = ["training"] * 2 + ["validation"] * 3 + ["test"] + [""] * 3
    path = write("image,part,a\n" + "".join(f"{n}.jpg,{part},1\n" for n, part in enumerate(spelled)))
    table = read_labels(path, split="part")
    assert table.parts == tuple(parts)
    assert table.names == ("a",)
    path.write_text(path.read_text() + "x.jpg,dev,0\n")
    what = "x.jpg: part is 'dev'; expected train, val, test or a blank"
    assert line_problems(path, split="part") == [(11, what)]


# Kaggle's fashion data

STYLES = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
SHIRT = "1,Men,Apparel,Topwear,Shirts,Blue,Fall,2011,Casual"
WATCH = "2,Women,Accessories,Watches,Watches,NA,Winter,2016,"


def test_styles(write: Write) -> None:
    path = write(f"{STYLES}\n{SHIRT},A shirt\n\n{WATCH.replace('2,', '2.jpg,', 1)},A watch\n")
    for format in ("auto", "fashion"):
        table = read_labels(path, format=format, tags=("gender", "year", "season"))
        assert table.images == ("1.jpg", "2.jpg")
        assert table.tags == (
            Tag("gender", ("Men", "Women")),
            Tag("year", ("2011", "2016")),
            Tag("season", ("Fall", "Winter")),
        )
        assert table.tag_y.tolist() == [[0, 0, 0], [1, 1, 1]]
        assert (table.names, table.y.shape, table.notes) == ((), (2, 0), ())
    as_csv = read_labels(path, format="csv", tags=("gender",), attributes=())
    assert as_csv.images == ("1", "2.jpg")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_styles_in_other_encodings(write: Write, encoding: str, end: str) -> None:
    path = write(end.join([STYLES, f"{SHIRT},Châle", f"{WATCH},x"]).encode(encoding))
    assert read_labels(path, tags=("gender",)).images == ("1.jpg", "2.jpg")


def test_attributes_and_a_split_of_styles(write: Write) -> None:
    path = write("id,articleType,new,part\n1,Shirts,1,train\n2,Belts,NA,\n")
    table = read_labels(path, attributes=("new",), split="part")
    assert as_lists(table) == (["1.jpg", "2.jpg"], [[1], [-1]], ["new"])
    assert (table.tags, table.parts) == ((), ("training", ""))


def test_unquoted_commas_are_repaired_and_counted(write: Write) -> None:
    lines = [f"{SHIRT},Plain, blue shirt", f'{WATCH},"Quoted, watch"', f'3{SHIRT[1:]},3.5" Short, "so" called,,']
    table = read_labels(write("\n".join([STYLES, *lines])), tags=("gender", "year"))
    assert table.images == ("1.jpg", "2.jpg", "3.jpg")
    assert table.tag_y.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert table.notes == ("Lines with unquoted commas in productDisplayName, repaired: 2.",)


TEXTS = st.text(st.sampled_from('ab ,"'), max_size=8)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("pq"), TEXTS), max_size=5))
def test_any_free_text_leaves_the_other_columns_alone(
    write: Write, place: int, rows: list[tuple[str, str, str]]
) -> None:
    rows = [*rows, ("x", "p", ""), ("y", "q", "")]
    lines = []
    for number, (first, second, text) in enumerate(rows):
        fields = [str(number), first, second]
        fields.insert(place, text)
        lines.append(",".join(fields))
    header = ["id", "gender", "season"]
    header.insert(place, "productDisplayName")
    table = read_labels(write("\n".join([",".join(header), *lines])), tags=("gender", "season"))
    assert table.images == tuple(f"{number}.jpg" for number in range(len(rows)))
    assert table.tag_y.tolist() == [["xy".index(first), "pq".index(second)] for first, second, _ in rows]


def test_all_bad_lines_of_styles_are_reported_at_once(write: Write) -> None:
    lines = ["1,Men,Apparel", f",{SHIRT[2:]},x", f"{SHIRT.replace('Blue', chr(34) + 'Navy')},x", f"{SHIRT},ok"]
    path = write("\n".join([STYLES, *lines, "1.jpg,Women,,,,,,,,"]))
    assert line_problems(path, tags=("gender",)) == [
        (2, "'1': fields found: 3, expected: 10"),
        (3, "there is no id in the first column"),
        (4, "the line cannot be split into fields (unexpected end of data); check its quotes"),
        (6, "1.jpg: gender is 'Women', but line 5 says 'Men'"),
    ]


def test_a_line_is_too_long_where_there_is_no_free_text(write: Write) -> None:
    path = write("id,masterCategory\n1,Apparel\n2,Home,Sweet\n")
    assert line_problems(path, tags=("masterCategory",)) == [(3, "'2': fields found: 3, expected: 2")]


@pytest.mark.parametrize("missing", [1, 2])
def test_missing_fields_are_not_made_up(write: Write, missing: int) -> None:
    path = write(f"{STYLES}\n{SHIRT},x\n{WATCH.rsplit(',', missing - 1)[0]}\n")
    assert line_problems(path, tags=("gender",)) == [(3, f"'2': fields found: {10 - missing}, expected: 10")]


def test_columns_of_styles_must_be_chosen(write: Write) -> None:
    path = write(f"{STYLES}\n{SHIRT},x\n")
    for options in ({}, {"split": "season"}, {"attributes": ()}):
        with pytest.raises(UsageError) as caught:
            read_labels(path, **options)
        assert str(caught.value) == (
            f"{path}: no column is an attribute or a tag; choose the columns with --tags; "
            f"there are {', '.join(STYLES.split(',')[1:])}."
        )


def test_styles_without_a_header_or_rows(write: Write) -> None:
    path = write(f"{SHIRT},x\n")
    what = f"'{SHIRT},x' is not a header like id,gender,masterCategory,subCategory,articleType,..."
    assert line_problems(path, format="fashion", tags=("gender",)) == [(1, what)]
    path = write(STYLES)
    with pytest.raises(DataError) as caught:
        read_labels(path, tags=("gender",))
    assert str(caught.value) == f"{path}: there are no rows below the header."


@pytest.fixture
def styles(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of JSON files; what is not `bytes` becomes their `data`."""

    def write_folder(**files: object) -> Path:
        folder = tmp_path / "styles"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps({"data": content}).encode()
            (folder / f"{name}.json").write_bytes(data)
        return folder

    return write_folder


def test_a_folder_of_json_files(styles: Callable[..., Path]) -> None:
    folder = styles(
        b={"gender": "Women", "year": 2012, "articleType": {"typeName": "Tops", "id": 3}, "brandName": "null"},
        a={"gender": " Men ", "year": "900", "articleType": {"typeName": None}, "brandName": "H  &  M"},
        c={"gender": None, "articleType": {"typeName": "Belts"}, "brandName": "Gap", "split": "val", "sold": 1},
    )
    (folder / "notes.txt").write_text("not a label")
    (folder / "._a.json").write_bytes(b"\0")
    for format in ("auto", "fashion"):
        table = read_labels(
            folder,
            format=format,
            tags=("gender", "year", "articleType", "brandName"),
            attributes=("sold",),
            names=("gone",),
            split="split",
        )
        assert table.images == ("a.jpg", "b.jpg", "c.jpg")
        assert [tag.classes for tag in table.tags] == [("Men", "Women"), ("900", "2012"), ("Belts", "Tops"),
                                                       ("Gap", "H & M")]  # fmt: skip
        assert table.tag_y.tolist() == [[0, 0, -1, 1], [1, 1, 1, -1], [-1, -1, 0, 0]]
        assert (table.names, table.y.tolist()) == (("gone",), [[-1], [-1], [1]])
        assert table.parts == ("", "", "validation")


def test_halves_of_characters_do_not_reach_the_table(styles: Callable[..., Path]) -> None:
    table = read_labels(styles(a={"x": "\ud83d"}, b={"x": "y"}), tags=("x",))
    assert table.tags[0].classes == ("y", "\ufffd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": ["gendr"]}, "there is no column 'gendr'; did you mean 'gender'? There are gender, year."),
        ({"tags": ["list"]}, "there is no column 'list'; there are gender, year."),
        ({}, "no column is an attribute or a tag; choose the columns with --tags; there are gender, year."),
        ({"split": "year"}, "no column is an attribute or a tag; choose the columns with --tags; there are gender, "
         "year."),
    ],
)  # fmt: skip
def test_message_of_a_wrong_choice_of_keys(
    styles: Callable[..., Path], options: dict[str, object], message: str
) -> None:
    folder = styles(a={"gender": "Men", "none": None, "object": {"id": 1}}, b={"year": {"typeName": "2012"}})
    with pytest.raises(UsageError) as caught:
        read_labels(folder, **options)
    assert str(caught.value) == f"{folder}: {message}"


def test_all_unusable_json_files_are_listed(styles: Callable[..., Path]) -> None:
    folder = styles(
        good={"gender": "Men"},
        broken=b"{",
        deep=b"[" * 100_000,
        latin=b'{"data": "caf\xe9"}',
        list=b"[1]",
        other=b'{"data": 1}',
        strange={"gender": ["Men"]},
    )
    (folder / "folder.json").mkdir()
    with pytest.raises(DataError) as caught:
        read_labels(folder, tags=("gender",))
    message, *lines = str(caught.value).split("\n")
    assert message == f"{folder}: 7 files cannot be used; correct or remove them."
    assert lines[0].startswith("  broken.json: is not JSON (Expecting property name")
    assert lines[1].startswith("  deep.json: is not JSON (maximum recursion depth exceeded")
    assert lines[2] == f"  folder.json: {os.strerror(errno.EISDIR)}"
    assert lines[3].startswith("  latin.json: is not JSON ('utf-8' codec can't decode byte 0xe9")
    assert lines[4:] == [
        "  list.json: has no object 'data'",
        "  other.json: has no object 'data'",
        "  strange.json: 'gender' is neither text, nor a number, nor an object with a typeName",
    ]


def test_twenty_of_many_unusable_json_files_are_shown(styles: Callable[..., Path]) -> None:
    folder = styles(**{f"f{number:02}": {"new": "?" if number % 2 else "yes"} for number in range(50)})
    with pytest.raises(DataError) as caught:
        read_labels(folder, attributes=("new",))
    message, *lines = str(caught.value).split("\n")
    assert message == f"{folder}: 25 files cannot be used; correct or remove them."
    assert lines[0] == "  f00.jpg: new is 'yes'; expected 1, 0 or NA"
    assert lines[20:] == ["  ... and 5 more"]


def test_a_folder_without_json_files(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path, tags=("gender",))
    assert str(caught.value) == f"{tmp_path}: is a folder without .json files; give it, or a file, that holds labels."


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([*PIECES, "id", "articleType", "part", "train"]), max_size=40).map("".join),
    st.sampled_from(["auto", "csv", "fashion"]),
    st.sampled_from([{"tags": ("attr",)}, {"tags": ("articleType",), "split": "part"}, {"attributes": ("attr",)}]),
    st.sampled_from(["", "id,articleType,attr,part\n1,x,1,\n2,y,0,test\n"]),
)
def test_arbitrary_content_with_chosen_columns_is_a_table_or_a_clear_error(
    write: Write, content: str, format: str, options: dict[str, object], start: str
) -> None:
    try:
        table = read_labels(write(start + content), format=format, **options)
    except MultilabelError:
        return
    assert table.y.shape == (len(table.images), len(table.names))
    assert table.tag_y.shape == (len(table.images), len(table.tags))
    for tag, numbers in zip(table.tags, table.tag_y.T, strict=True):
        assert set(numbers) - {UNKNOWN} == set(range(len(tag.classes)))


# The real files

AIMONK = "data/aimonk/labels.txt"


def test_aimonk_counts(shared: Path) -> None:
    table = read_labels(shared / AIMONK)
    positives, negatives = class_counts(table.y)
    assert table.y.shape == (703, 4)
    assert positives.tolist() == [560, 508, 348, 47]
    assert negatives.tolist() == [81, 121, 293, 588]
    assert (table.y == UNKNOWN).sum(axis=0).tolist() == [62, 74, 62, 68]
    assert table.notes == ()


@pytest.fixture
def fashion(shared: Path) -> Path:
    path = shared / "data/fashion/styles.csv"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not there")
    return path


TAGS = ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "year", "usage")


def test_real_styles_against_pandas(fashion: Path) -> None:
    table = read_labels(fashion, tags=TAGS)
    frame = pd.read_csv(fashion, dtype=str)  # also reads NA and blanks as absent
    assert table.images == tuple(frame["id"] + ".jpg")
    assert table.notes == ()
    for tag, numbers in zip(table.tags, table.tag_y.T, strict=True):
        assert tag.classes == tuple(sorted(frame[tag.name].dropna().unique()))
        said = pd.Series([None if number < 0 else tag.classes[number] for number in numbers])
        assert said.dropna().equals(frame[tag.name].dropna())


def test_real_product_names_are_no_tag(fashion: Path) -> None:
    different = pd.read_csv(fashion)["productDisplayName"].str.split().str.join(" ").nunique()
    with pytest.raises(DataError) as caught:
        read_labels(fashion, tags=("productDisplayName",))
    assert str(caught.value) == (
        f"{fashion}: column 'productDisplayName' has {different:,} different values in 6,000 rows; "
        "a tag needs few classes that repeat."
    )


def test_other_columns_are_asked_about_only_where_cells_were_wrong(tmp_path):
    asked = "Is one of these columns no attribute? Name columns of several classes with --tags"
    path = tmp_path / "labels.csv"
    texts = {
        "image,a,colour\nx.jpg,1,red\n": True,
        'image,a\nx.jpg,1\n"y.jpg,0\n': False,  # a quote is missing, whatever the columns are
    }
    for text, expected in texts.items():
        path.write_text(text)
        with pytest.raises(LabelError) as caught:
            read_labels(path)
        assert (asked in str(caught.value)) == expected
    path.write_text("image,colour\nx.jpg,red\nx.jpg,blue\n")  # there are no attributes
    with pytest.raises(LabelError) as caught:
        read_labels(path, tags=("colour",))
    assert asked not in str(caught.value)
