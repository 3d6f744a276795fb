from __future__ import annotations

import codecs
import csv
import errno
import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import DAMAGES, good_label_file, malformed_label_files

from multilabel.errors import DataError, LabelError, MultilabelError, UsageError
from multilabel.labels import UNKNOWN, LabelTable, class_counts, locate_images, pos_weight, read_labels

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


def test_unknown_is_minus_one() -> None:
    assert UNKNOWN == -1


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
            read_labels(path)


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
        ({"format": "json"}, "'json' is not a format of labels files; choose from auto, aimonk, csv, tsv."),
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


# The table


def test_take() -> None:
    table = LabelTable(("a", "b", "c"), np.array([[1], [0], [-1]], np.int8), ("x",), ("note",))
    for indices in ([2, 0], np.array([2, 0]), (2, 0)):
        taken = table.take(indices)
        assert as_lists(taken) == (["c", "a"], [[-1], [1]], ["x"])
        assert taken.notes == ("note",)
    assert table.take(np.array([True, False, True])).images == ("a", "c")
    assert table.take([]).y.shape == (0, 1)


def test_pos_weight_against_a_plain_loop() -> None:
    y = np.random.default_rng(0).choice([1, 0, -1], p=[0.2, 0.5, 0.3], size=(40, 5)).astype(np.int8)
    y[:, 3] = np.where(y[:, 3] == 1, -1, y[:, 3])  # no positives
    y[:, 4] = -1
    positives, negatives = class_counts(y)
    for column in range(5):
        ones = sum(1 for value in y[:, column] if value == 1)
        zeros = sum(1 for value in y[:, column] if value == 0)
        assert (positives[column], negatives[column]) == (ones, zeros)
        assert pos_weight(y)[column] == (zeros / ones if ones and zeros else 1.0)
    assert pos_weight(np.ones((3, 1), np.int8)).tolist() == [1.0]
    assert pos_weight(y).dtype == np.float64


# Locating


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labels folder with `images/` (a, b), two pictures beside the labels (b, c) and another folder (a, d)."""
    for name in ("images/a.jpg", "images/b.jpg", "b.jpg", "c.jpg", "other/a.jpg", "other/sub/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return tmp_path


def named(*images: str) -> LabelTable:
    return LabelTable(images, np.arange(len(images), dtype=np.int8)[:, None] % 2, ("x",), ("note",))


def test_pictures_beside_the_labels(folder: Path) -> None:
    table, absent = locate_images(named("./a.jpg", "b.jpg", "c.jpg", "z.jpg"), folder / "labels.txt", None)
    assert table.images == tuple(str(folder / name) for name in ("images/a.jpg", "images/b.jpg", "c.jpg"))
    assert table.y.tolist() == [[0], [1], [0]]
    assert table.notes == ("note",)
    assert absent == ("z.jpg",)


def test_relative_labels_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert locate_images(named("c.jpg"), "labels.txt", None)[0].images == (str(folder / "c.jpg"),)
    assert locate_images(named("a.jpg"), "labels.txt", Path("other"))[0].images == (str(folder / "other/a.jpg"),)


def test_a_given_folder_is_the_only_one(folder: Path) -> None:
    absolute = str(folder / "c.jpg")
    pictures = named("a.jpg", "sub/d.jpg", absolute, "b.jpg", str(folder / "z.jpg"))
    table, absent = locate_images(pictures, folder / "labels.txt", folder / "other")
    assert table.images == (str(folder / "other/a.jpg"), str(folder / "other/sub/d.jpg"), absolute)
    assert absent == ("b.jpg", str(folder / "z.jpg"))


def test_half_absent_is_accepted_and_more_is_not(folder: Path) -> None:
    labels = folder / "labels.txt"
    assert locate_images(named("a.jpg", "z.jpg"), labels, None)[1] == ("z.jpg",)
    with pytest.raises(DataError) as caught:
        locate_images(named("a.jpg", "y.jpg", "z.jpg"), labels, None)
    assert str(caught.value) == (
        f"{labels}: 2 of 3 pictures are not in {folder / 'images'} or {folder} (y.jpg, z.jpg); is --images right?"
    )
    with pytest.raises(DataError) as caught:
        locate_images(named(*(f"{n}.jpg" for n in range(9))), labels, folder / "other")
    assert str(caught.value) == (
        f"{labels}: 9 of 9 pictures are not in {folder / 'other'} "
        "(0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ...); is --images right?"
    )


def test_strict_names_every_absent_picture(folder: Path) -> None:
    present = [str(folder / name) for name in ("images/a.jpg", "b.jpg", "c.jpg", "other/a.jpg")]
    present += ["images/b.jpg", "sub/d.jpg"]
    absent = [f"{n}.jpg" for n in range(6)]
    labels = folder / "labels.txt"
    (folder / "sub").mkdir()
    (folder / "sub/d.jpg").touch()
    with pytest.raises(DataError) as caught:
        locate_images(named(*present, *absent), labels, None, strict=True)
    assert str(caught.value) == (
        f"{labels}: 6 of 12 pictures are not in {folder / 'images'} or {folder} "
        "(0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg); without --strict they are left out."
    )
    assert locate_images(named(*present), labels, None, strict=True)[1] == ()


def test_the_images_folder_must_be_one(folder: Path) -> None:
    for wrong in (folder / "absent", folder / "c.jpg"):
        with pytest.raises(DataError) as caught:
            locate_images(named("a.jpg"), folder / "labels.txt", wrong)
        assert str(caught.value) == f"{wrong}: is not a folder; give the folder of the pictures with --images."


def test_a_folder_is_not_a_picture(folder: Path) -> None:
    assert locate_images(named("a.jpg", "other"), folder / "labels.txt", None)[1] == ("other",)


def test_one_file_under_two_names(folder: Path) -> None:
    labels = folder / "labels.txt"
    with pytest.raises(DataError) as caught:
        locate_images(named("a.jpg", "images/a.jpg"), labels, None)
    assert str(caught.value) == f"{labels}: 'a.jpg' and 'images/a.jpg' are the same file; name it once."


# The real file, and the floor

AIMONK = "data/aimonk/labels.txt"


def test_aimonk_counts(shared: Path) -> None:
    table = read_labels(shared / AIMONK)
    positives, negatives = class_counts(table.y)
    assert table.y.shape == (703, 4)
    assert positives.tolist() == [560, 508, 348, 47]
    assert negatives.tolist() == [81, 121, 293, 588]
    assert (table.y == UNKNOWN).sum(axis=0).tolist() == [62, 74, 62, 68]
    assert table.notes == ()


def test_aimonk_pictures(shared: Path) -> None:
    table, absent = locate_images(read_labels(shared / AIMONK), shared / AIMONK, None)
    assert absent == ("image_489.jpg", "image_624.jpg", "image_875.jpg")
    assert len(table.images) == len(table.y) == 700


def test_importing_labels_is_light(root: Path) -> None:
    code = (
        "import sys, multilabel.labels; "
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'sklearn', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
