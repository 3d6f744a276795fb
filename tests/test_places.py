"""Files and URLs: where pictures come from and parts go to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from multilabel.distributed import sources
from multilabel.errors import DataError, ImageError, UsageError
from multilabel.images import read_image, read_pictures
from multilabel.places import Folder, MissingPackage, _filesystem, check_url, is_url, read_url, walk_url

URL = "memory://bucket"


@pytest.fixture
def bucket():
    """A file system that is no disk."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()


@pytest.fixture(params=["disk", "url"])
def folder(request, tmp_path, bucket):
    return Folder(str(tmp_path / "folder") if request.param == "disk" else f"{URL}/folder")


def make_picture(path: Path, colour=(200, 100, 50)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a.jpg", True),
        ("memory://a", True),
        ("a.jpg", False),
        ("/a/b.jpg", False),
        ("C:\\a.jpg", False),
        ("c://a.jpg", False),
        ("a:b//c", False),
    ],
)
def test_what_a_url_is(path, expected):
    assert is_url(path) is expected


def test_what_is_written_is_there(folder):
    folder.make()
    assert folder.names() == []
    folder.write("a", b"one")
    folder.write("a", b"two")
    with folder.writing("b") as new:
        new.write_bytes(b"three")
    assert sorted(folder.names()) == ["a", "b"]
    assert folder.read("a") == b"two"
    with folder.open("b") as file:
        file.seek(2)
        assert file.read() == b"ree"
    with pytest.raises(FileNotFoundError):
        folder.read("c")


def test_what_fails_is_not_there(folder):
    folder.make()
    folder.write("a", b"before")

    def write() -> None:
        with folder.writing("a") as new:
            new.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert folder.names() == ["a"]
    assert folder.read("a") == b"before"


def test_folders_are_copied(folder, tmp_path):
    folder.make()
    for name in ("model/one", "model/below/two", "single"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for name in ("one", "below/two"):
        folder.put(tmp_path / "model" / name, f"copy/{name}")
    folder.put(tmp_path / "single", "alone")
    assert sorted(folder.names()) == ["alone", "copy"]
    with folder.on_disk("copy") as copy:
        assert (copy / "one").read_bytes() == b"model/one"
        assert (copy / "below" / "two").read_bytes() == b"model/below/two"
    with folder.on_disk("alone") as copy:
        assert copy.read_bytes() == b"single"


def test_what_killed_processes_left_is_swept(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("part", b"whole")
    (tmp_path / "below").mkdir()
    for name in (".new-01234567", "below/.new-01234567", ".other"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    (tmp_path / ".new-89abcdef").write_bytes(b"another process is writing to it")
    folder.sweep()
    assert sorted(os.listdir(tmp_path)) == [".new-89abcdef", ".other", "below", "part"]
    assert not os.listdir(tmp_path / "below")


def test_urls_that_cannot_be_used():
    with pytest.raises(UsageError, match=r"nonsense://a: such URLs cannot be used \(Protocol not known: nonsense"):
        check_url("nonsense://a")


def test_urls_whose_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UsageError, match=r"^abfs://a/b: such URLs need another package \(.*adlfs.*\)\.$"):
        check_url("abfs://a/b")
    with pytest.raises(MissingPackage):
        list(read_pictures(["abfs://a/b.jpg"], (4, 6)))


def test_urls_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError) as caught:
        check_url("s3://a/b")
    assert str(caught.value) == (
        "s3://a/b: URLs need another package; install it with `pip install 'multilabel[parquet]'`."
    )


def test_pictures_behind_urls(bucket, tmp_path):
    path = make_picture(tmp_path / "a.png")
    bucket.pipe_file("/bucket/a.png", Path(path).read_bytes())
    np.testing.assert_array_equal(read_image(f"{URL}/a.png", (4, 6)), read_image(path, (4, 6)))
    here, there = read_pictures([path, f"{URL}/a.png"], (4, 6))
    assert here.digest == there.digest
    with pytest.raises(ImageError, match=f"^{URL}/b.png: no such file$"):
        read_image(f"{URL}/b.png", (4, 6))
    assert read_url(f"{URL}/a.png") == Path(path).read_bytes()


def test_an_error_of_a_file_system_is_an_error_of_the_picture(bucket, monkeypatch):
    def refuse(self, path, **options):
        raise TimeoutError("too\nslow")

    monkeypatch.setattr(type(bucket), "cat_file", refuse)
    with pytest.raises(ImageError, match=r"^memory://a\.png: cannot be read: too slow$"):
        read_image("memory://a.png", (4, 6))


def test_names_that_fsspec_would_take_apart():
    """`::` chains file systems for it; here it is part of a name."""
    pytest.importorskip("s3fs", reason="pip install -e '.[test-cluster]'")
    assert _filesystem("s3://bucket/a::b.jpg")[1] == "bucket/a::b.jpg"


# --- lists --------------------------------------------------------------------------------------------------------


def test_folders_are_walked_in_order(tmp_path, bucket):
    names = ["b.jpg", "a/z.png", "a/b/c.webp", "a.jpg", "c/d.JPG"]
    others = ["notes.md", ".hidden.jpg", ".cache/e.jpg", "a/list.xml"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
        bucket.pipe_file(f"/bucket/{name}", b"")
    expected = ["a.jpg", "b.jpg", "a/z.png", "a/b/c.webp", "c/d.JPG"]
    assert list(sources.find([str(tmp_path)])) == [str(tmp_path / name) for name in expected]
    for url in (URL, f"{URL}/"):
        assert list(sources.find([url])) == [f"{URL}/{name}" for name in expected]
    assert sorted(walk_url(URL)) == sorted(f"{URL}/{name}" for name in [*names, "notes.md", "a/list.xml"])


LISTED = ["a.jpg", "b c,d.jpg", "/x/é.png", "s3://bucket/e.jpg"]


@pytest.mark.parametrize("where", ["disk", "url"])
@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "parquet"])
def test_lists_of_all_kinds(kind, where, tmp_path, bucket, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"list.{kind}"
    table = pd.DataFrame({"id": range(4), "path": LISTED, "image": "other"})
    if kind == "txt":
        path.write_text("\ufeff# a list\n" + "\r\n".join(LISTED) + "\n\n", encoding="utf-8")
    elif kind == "parquet":
        table.to_parquet(path, row_group_size=3)
    else:
        table.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    given = str(path)
    if where == "url":
        bucket.pipe_file(f"/bucket/{path.name}", path.read_bytes())
        given = f"{URL}/{path.name}"
    expected = [f"{tmp_path}/a.jpg", f"{tmp_path}/b c,d.jpg", "/x/é.png", "s3://bucket/e.jpg"]
    assert list(sources.find([given])) == expected
    if kind not in ("txt",):
        assert list(sources.find([given], "image")) == [f"{tmp_path}/other"] * 4


def test_pictures_are_taken_as_they_are(tmp_path, monkeypatch, bucket):
    monkeypatch.chdir(tmp_path)
    bucket.pipe_file("/bucket/a.jpg", b"")
    assert list(sources.find(["x.jpg", f"{URL}/a.jpg", "sub/../y.png"])) == [
        f"{tmp_path}/x.jpg",
        f"{URL}/a.jpg",
        f"{tmp_path}/y.png",
    ]


def test_our_own_rows_are_a_list(tmp_path):
    table = pd.DataFrame({"path": ["/a.jpg", "/b.jpg"], "error": [None, "no such file"]})
    table.to_parquet(tmp_path / "part-0000000.parquet")
    assert list(sources.find([str(tmp_path / "part-0000000.parquet")])) == ["/a.jpg", "/b.jpg"]


def complaint(path, column=None) -> str:
    with pytest.raises(DataError) as caught:
        list(sources.find([str(path)], column))
    return str(caught.value)


def test_lists_that_cannot_be_read(tmp_path, bucket):
    assert complaint(tmp_path / "absent.txt") == f"{tmp_path}/absent.txt: cannot be read (no such file)."
    assert complaint(f"{URL}/absent.csv") == f"{URL}/absent.csv: cannot be read (no such file)."
    empty = tmp_path / "empty"
    empty.mkdir()
    assert complaint(empty) == f"{empty}: no pictures were found there; is the path right?"
    (tmp_path / "empty.txt").write_text("\n\n")
    assert complaint(tmp_path / "empty.txt") == (
        f"{tmp_path}/empty.txt: no pictures were found there; is the path right?"
    )
    bucket.makedirs("/bucket/none")
    assert complaint(f"{URL}/none/") == f"{URL}/none/: no pictures were found there; is the path right?"
    (tmp_path / "no.parquet").write_bytes(b"nothing of the kind")
    assert complaint(tmp_path / "no.parquet").startswith(f"{tmp_path}/no.parquet: cannot be read (")
    (tmp_path / "empty.csv").write_bytes(b"")
    assert complaint(tmp_path / "empty.csv") == (
        f"{tmp_path}/empty.csv: is empty; expected a line with the names of its columns."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "path,label\na.jpg,1\nb,c.jpg,0\n",
            "line 3 has 3 fields, expected 2; what holds the separator belongs between double quotes.",
        ),
        (
            "label,path\n1\n",
            "line 2 has 1 fields, expected 2; what holds the separator belongs between double quotes.",
        ),
        ("label,path\n\n1,\n", "line 3 has no path; leave the line out."),
        ('path\na.jpg\n"b.jpg\nc.jpg\n', "line 4 cannot be read (unexpected end of data); check its quotes."),
        ('path\n"a"b.jpg\n', "line 2 cannot be read (',' expected after '\"'); check its quotes."),
    ],
)
def test_lines_that_are_no_rows(text, sentence, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    assert complaint(tmp_path / "list.csv") == f"{tmp_path}/list.csv: {sentence}"


def test_what_stands_beside_paths(tmp_path):
    """Blank lines, also before the header, and long cells."""
    (tmp_path / "list.csv").write_text(f'\n\npath,caption\n\n/a.jpg,"{"x" * 200_000}"\n/b.jpg,\n\n')
    assert list(sources.find([str(tmp_path / "list.csv")])) == ["/a.jpg", "/b.jpg"]


@pytest.mark.parametrize("absent", [None, ""])
def test_rows_without_a_path(absent, tmp_path):
    pd.DataFrame({"path": ["a.jpg", absent]}).to_parquet(tmp_path / "list.parquet")
    assert complaint(tmp_path / "list.parquet") == f"{tmp_path}/list.parquet: row 1 has no path; leave the row out."


def test_a_column_of_no_table(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(UsageError) as caught:
        list(sources.find([str(tmp_path / "list.txt"), "b.jpg"], "file"))
    assert str(caught.value) == (
        "--column file is for tables (.csv, .tsv, .parquet), and none was given; leave it out."
    )


def test_tables_without_the_column(tmp_path):
    pd.DataFrame({"id": [1], "url": ["a"]}).to_csv(tmp_path / "a.csv", index=False)
    assert complaint(tmp_path / "a.csv") == (
        f"{tmp_path}/a.csv: has no column path or image, but id, url; say with --column which holds the paths."
    )
    assert complaint(tmp_path / "a.csv", "file") == (
        f"{tmp_path}/a.csv: has no column file, but id, url; say with --column which holds the paths."
    )
    pd.DataFrame({"path": [1]}).to_parquet(tmp_path / "a.parquet")
    assert complaint(tmp_path / "a.parquet") == f"{tmp_path}/a.parquet: its column path holds int, expected paths."


def test_a_long_list_is_never_in_memory(tmp_path):
    """A million paths of 200 bytes; a child's memory grows by far less than they take."""
    with open(tmp_path / "list.txt", "w") as file:
        for number in range(1_000_000):
            file.write(f"/{'x' * 190}/{number:07}.jpg\n")
    code = (
        "import resource, sys\n"
        "from multilabel.distributed import job, sources\n"
        "from multilabel.places import Folder\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "begun = job.begin(sys.argv[2], 'embed', {}, sources.find([sys.argv[1]]), lambda folder: None)\n"
        "print(begun.manifest.pictures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "list.txt"), str(tmp_path / "out")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    pictures, kilobytes = map(int, done.stdout.split())
    assert pictures == 1_000_000
    assert kilobytes < 60_000
