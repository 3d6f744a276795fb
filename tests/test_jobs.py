"""Jobs, their shards and parts, whatever runs them: no Ray and no TensorFlow here."""

from __future__ import annotations

import hashlib
import math
import os
import random
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from broken_pictures import broken_pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from multilabel import distributed, images, processors
from multilabel.distributed import Cluster, job, local, ray_data
from multilabel.distributed.worker import Done, Start
from multilabel.errors import DataError, Interrupted, UsageError
from multilabel.places import Folder

SIZE = (8, 10)


class MeanColour:
    """A model whose columns NumPy and Pillow can check."""

    image_size = SIZE
    fields = [pa.field("mean", pa.list_(pa.float32(), 3)), pa.field("dark_present", pa.bool_())]  # noqa: RUF012

    def __init__(self, stored: dict[bytes, list[float]] | None = None):
        self.known = stored or {}
        self.seen = 0

    def __call__(self, pixels):
        self.seen += len(pixels)
        return self.columns(pixels.mean((1, 2)))

    def columns(self, means):
        means = np.asarray(means, np.float32)
        return [
            pa.FixedSizeListArray.from_arrays(pa.array(means.ravel()), type=self.fields[0].type),
            pa.array(means.mean(1) < 128),
        ]

    def stored(self, digests):
        known = [digest for digest in digests if digest in self.known]
        return known, self.columns([self.known[digest] for digest in known]) if known else []


def make_pictures(folder: Path, count: int, seed: int = 0) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        path = folder / f"{number:04}.png"
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def begin(out, paths, model=None, shard_size=4, command="embed"):
    def put_model(folder: Folder) -> None:
        folder.write("model.bin", b"weights")

    return job.begin(str(out), command, model or {"name": "mean"}, iter(paths), put_model, shard_size)


def run(begun, model=None, engine=None, **settings):
    """What the commands do with a job that has begun."""
    here = model or MeanColour()
    cluster = Cluster(**settings)
    if engine is not None:
        object.__setattr__(cluster, "run", engine)
    return distributed._run(begun, lambda _: here, cluster, False)


def rows(out) -> list[dict]:
    return pyarrow.dataset.dataset(str(out), format="parquet").to_table().to_pylist()


def mean_colour(path):
    return np.asarray(Image.open(path)).mean((0, 1))


def parts(out):
    return sorted(path.name for path in Path(out).glob("part-*"))


# --- rows ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 23), shard_size=st.integers(1, 9), batch_size=st.integers(1, 5))
def test_every_picture_has_one_row_in_order(count, shard_size, batch_size, tmp_path):
    paths = make_pictures(tmp_path / "pictures", 23)[:count]
    out = tmp_path / f"out-{count}-{shard_size}-{batch_size}"
    shutil.rmtree(out, ignore_errors=True)
    summary = run(begin(out, paths, shard_size=shard_size), batch_size=batch_size)
    found = rows(out)
    assert [row["path"] for row in found] == paths
    np.testing.assert_allclose([row["mean"] for row in found], [mean_colour(path) for path in paths], rtol=1e-5)
    assert [row["dark_present"] for row in found] == [bool(mean_colour(path).mean() < 128) for path in paths]
    assert [row["sha256"] for row in found] == [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    assert all(row["error"] is None for row in found)
    assert (summary.pictures, summary.errors, summary.kept) == (count, 0, 0)
    assert len(parts(out)) == -(-count // shard_size)


def test_the_columns_have_names_and_types(tmp_path):
    run(begin(tmp_path / "out", make_pictures(tmp_path, 3)))
    schema = pq.read_schema(tmp_path / "out" / "part-0000000.parquet")
    assert schema.names == ["path", "sha256", "mean", "dark_present", "error"]
    assert [str(field.type) for field in schema] == [
        "string",
        "string",
        "fixed_size_list<element: float>[3]",
        "bool",
        "string",
    ]


def test_what_cannot_be_read_is_a_row_with_an_error(tmp_path):
    good = make_pictures(tmp_path / "good", 5)
    broken = []
    for name, data in broken_pictures(30):
        (tmp_path / name).write_bytes(data)
        broken.append(str(tmp_path / name))
    absent, folder = str(tmp_path / "absent.png"), str(tmp_path / "good")
    paths = [good[0], *broken[:20], absent, good[1], folder, *broken[20:], *good[2:]]
    summary = run(begin(tmp_path / "out", paths, shard_size=6))
    found = {row["path"]: row for row in rows(tmp_path / "out")}
    assert list(found) == paths
    for path in good:
        assert found[path]["error"] is None
        assert found[path]["mean"] is not None
    for path in [*broken, absent, folder]:
        assert found[path]["error"]
        assert found[path]["mean"] is None
        assert found[path]["dark_present"] is None
    assert found[absent] == {
        "path": absent,
        "sha256": None,
        "mean": None,
        "dark_present": None,
        "error": "no such file",
    }
    assert found[folder]["error"] == "a folder, not a file"
    assert summary.errors == 32
    assert str(summary).startswith(
        f"{tmp_path / 'out'}: 37 rows, 32 with an error; --retry-errors tries them again.\n37 in "
    )


def test_a_shard_of_nothing_but_errors(tmp_path):
    summary = run(begin(tmp_path / "out", [str(tmp_path / f"{number}.png") for number in range(9)]))
    assert summary.errors == 9
    assert f"\nNo picture could be read ({tmp_path}/0.png: no such file).\n" in str(summary)
    assert [row["mean"] for row in rows(tmp_path / "out")] == [None] * 9


def test_copies_are_computed_once_in_a_shard(tmp_path):
    one, two = make_pictures(tmp_path, 2)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = str(tmp_path / "broken.png")
    model = MeanColour()
    paths = [one, two, one, broken] * 60
    run(begin(tmp_path / "out", paths, shard_size=1000), model, batch_size=3)
    assert model.seen == 2
    found = rows(tmp_path / "out")
    assert [row["path"] for row in found] == paths
    for row in found:
        if row["path"] == broken:
            assert row["error"].startswith("not a picture")
        else:
            np.testing.assert_allclose(row["mean"], mean_colour(row["path"]), rtol=1e-5)


def test_what_is_stored_is_not_computed(tmp_path):
    paths = make_pictures(tmp_path, 6)
    digests = [hashlib.sha256(Path(path).read_bytes()).digest() for path in paths]
    model = MeanColour({digests[1]: [1.0, 2.0, 3.0], digests[4]: [4.0, 5.0, 6.0]})
    run(begin(tmp_path / "out", paths, shard_size=100), model)
    found = [row["mean"] for row in rows(tmp_path / "out")]
    assert (found[1], found[4]) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    np.testing.assert_allclose(found[0], mean_colour(paths[0]), rtol=1e-5)
    assert model.seen == 4


def test_no_more_pictures_than_two_batches_are_in_memory(tmp_path, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 12)
    decode, seen, counts = images.decode, [], []
    monkeypatch.setattr(images, "decode", lambda data, *rest: seen.append(data) or decode(data, *rest))

    class Counting(MeanColour):
        def __call__(self, pixels):
            counts.append(len(seen))
            return super().__call__(pixels)

    run(begin(tmp_path / "out", paths, shard_size=12), Counting(), batch_size=2)
    assert all(count <= 2 * (batch + 2) for batch, count in enumerate(counts))
    assert len(counts) == 6


def test_names_that_are_no_utf8(tmp_path):
    (path,) = make_pictures(tmp_path, 1)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(path, odd)
    run(begin(tmp_path / "out", [path, odd]))
    (_, row) = rows(tmp_path / "out")
    assert row["path"] == f"{tmp_path}/caf\\udce9.png"
    assert row["mean"] is not None


# --- stopping, and going on ---------------------------------------------------------------------------------------


def test_a_rerun_does_only_what_is_not_there(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 22)
    run(begin(tmp_path / "whole", paths))
    run(begin(tmp_path / "out", paths))
    for shard in (0, 3, 5):
        (tmp_path / "out" / job.part_name(shard)).unlink()
    before = {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in parts(tmp_path / "out")}
    model = MeanColour()
    summary = run(begin(tmp_path / "out", paths), model)
    assert model.seen == 4 + 4 + 2
    assert summary.kept == 12
    assert summary.pictures == 22
    assert all(os.stat(tmp_path / "out" / name).st_mtime_ns == time for name, time in before.items())
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")


def test_a_worker_leaves_a_part_that_is_there(tmp_path):
    """As where a machine is lost between writing it and saying so."""
    paths = [*make_pictures(tmp_path / "pictures", 5), str(tmp_path / "absent.png")]
    begun = begin(tmp_path / "out", paths)
    run(begun)
    model = MeanColour()
    worker = Start(begun, lambda _: model)()
    assert worker(1) == Done(1, 2, 1)
    assert model.seen == 0


def test_nothing_is_left_to_do(tmp_path):
    paths = [*make_pictures(tmp_path / "pictures", 9), str(tmp_path / "absent.png")]
    run(begin(tmp_path / "out", paths))
    model = MeanColour()
    summary = run(begin(tmp_path / "out", paths), model)
    assert model.seen == 0
    assert str(summary) == (
        f"{tmp_path / 'out'}: 10 rows, 1 with an error; --retry-errors tries them again.\n10 were there already."
    )


class Crash(BaseException):
    """What a kill is to the code that it hits."""


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_killed_workers_and_any_order_change_nothing(seed, tmp_path):
    """An engine that loses workers at random moments, does shards twice and in any order, and is then run again."""
    chance = random.Random(seed)
    paths = make_pictures(tmp_path / "pictures", 30)
    if not (tmp_path / "whole").exists():
        run(begin(tmp_path / "whole", paths, shard_size=3))
    out = tmp_path / f"out-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    write = Folder.write

    def dying(folder, name, data):
        if chance.random() < 0.15:
            begun = Path(folder.join(f".new-{chance.random()}"))
            begun.write_bytes(data[: len(data) // 2])
            os.utime(begun, (0, 0))  # long ago: what is young may be another's
            raise Crash
        write(folder, name, data)

    def engine(start, shards):
        worker = start()
        waiting = [*shards, *chance.sample(shards, len(shards) // 2)]
        chance.shuffle(waiting)
        reported = set()
        while waiting:
            shard = waiting.pop()
            try:
                done = worker(shard)
            except Crash:
                waiting.insert(chance.randrange(len(waiting) + 1), shard)
                if chance.random() < 0.3:  # the driver is killed, too
                    raise
                continue
            if shard not in reported:
                reported.add(shard)
                yield replace(done, node="somewhere")

    with pytest.MonkeyPatch.context() as patch:
        begun = begin(out, paths, shard_size=3)
        patch.setattr(Folder, "write", dying)
        for _ in range(100):
            try:
                summary = run(begin(out, paths, shard_size=3), engine=engine)
                break
            except Crash:
                continue
    assert rows(out) == rows(tmp_path / "whole")
    assert summary.kept + sum(summary.nodes.values()) == 30
    assert not list(out.glob(".*"))
    assert begun.manifest.shards == 10


def test_another_engine_takes_a_few_lines(tmp_path):
    """Eight threads, each with a worker of its own; this is all that an engine is."""
    paths = make_pictures(tmp_path / "pictures", 40)

    def engine(start, shards):
        own = threading.local()

        def do(shard: int) -> Done:
            own.worker = getattr(own, "worker", None) or start()
            return replace(own.worker(shard), node=threading.current_thread().name)

        with ThreadPoolExecutor(8, "thread") as pool:
            yield from pool.map(do, shards)

    summary = run(begin(tmp_path / "threads", paths, shard_size=2), engine=engine)
    run(begin(tmp_path / "local", paths, shard_size=2))
    assert rows(tmp_path / "threads") == rows(tmp_path / "local")
    assert "By machine: thread_0 " in str(summary)
    assert sum(summary.nodes.values()) == 40


def test_engines_are_one_function_in_a_short_file():
    for engine in (local, ray_data):
        assert callable(engine.run)
        lines = Path(engine.__file__).read_text().splitlines()
        assert len(lines) < 200
        assert not any("import job" in line or ".job import" in line for line in lines)  # shards are numbers to them


def test_a_log_says_how_far_it_is(tmp_path, monkeypatch, capfd):
    """Where nobody watches a bar, a line now and then."""
    monkeypatch.setattr(distributed, "_TOLD_EVERY", 0.0)
    paths = make_pictures(tmp_path / "pictures", 12)
    distributed._run(begin(tmp_path / "out", paths), lambda _: MeanColour(), Cluster(), True)
    lines = capfd.readouterr().err.splitlines()
    for line, count in zip(lines, (4, 8, 12), strict=True):
        assert re.fullmatch(rf"{count} rows, [\d.,]+ pictures/s, 00:00 left", line)


def test_ctrl_c_says_what_is_kept(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 12)

    def engine(start, shards):
        worker = start()
        yield worker(shards[0])
        yield worker(shards[1])
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        run(begin(tmp_path / "out", paths), engine=engine)
    assert str(caught.value) == f"Stopped; 8 of 12 rows are in {tmp_path / 'out'}, and the same command continues."
    assert run(begin(tmp_path / "out", paths)).kept == 8


@pytest.mark.parametrize("damage", [b"", b"PAR1 no more", None])
def test_a_damaged_part_is_made_anew(damage, tmp_path, caplog):
    paths = make_pictures(tmp_path / "pictures", 12)
    run(begin(tmp_path / "out", paths))
    whole = rows(tmp_path / "out")
    part = tmp_path / "out" / job.part_name(1)
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2] if damage is None else damage)
    summary = run(begin(tmp_path / "out", paths))
    assert summary.kept == 8
    assert caplog.text.count(f"{part} is damaged, and counts as absent.") == 1
    assert rows(tmp_path / "out") == whole


def test_a_part_of_another_length_is_made_anew(tmp_path, caplog):
    paths = make_pictures(tmp_path / "pictures", 10)
    run(begin(tmp_path / "out", paths))
    part = tmp_path / "out" / job.part_name(0)
    pq.write_table(pq.read_table(part).slice(1), part)
    assert run(begin(tmp_path / "out", paths)).kept == 6
    assert f"{part} is damaged, and counts as absent." in caplog.text


# --- what stops a job ---------------------------------------------------------------------------------------------


def test_a_full_disk(tmp_path, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 12)
    begun = begin(tmp_path / "out", paths)
    write, left = Path.write_bytes, [1]

    def full(path, data):
        if ".new-" in path.name and not left:
            write(path, data[:100])
            raise OSError(28, "No space left on device")
        left.pop()
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DataError) as caught:
            run(begun)
    part = tmp_path / "out" / job.part_name(1)
    assert str(caught.value) == (
        f"{part} cannot be written (No space left on device); mend that, and run the same command again: "
        "what is finished is kept."
    )
    assert parts(tmp_path / "out") == [job.part_name(0)]
    assert not list((tmp_path / "out").glob(".*"))
    assert run(begin(tmp_path / "out", paths)).kept == 4


def test_a_full_disk_for_real(tmp_path):
    """A file system of 64 kB; where none can be mounted, the test above stands alone."""
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k none {small} 2>/dev/null"):
        pytest.skip("no file system can be mounted here")
    try:
        paths = make_pictures(tmp_path / "pictures", 40)
        begun = begin(small / "out", paths, shard_size=4)
        with open(small / "ballast", "wb") as file:
            file.write(bytes(os.statvfs(small).f_bavail * os.statvfs(small).f_bsize - 3 * 4096))
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
            run(begun)
        assert 0 < len(parts(small / "out")) < 10
        (small / "ballast").unlink()
        run(begin(small / "out", paths, shard_size=4))
        assert [row["path"] for row in rows(small / "out")] == paths
    finally:
        os.system(f"umount --lazy {small}")  # a traceback may hold files of it


def test_a_folder_that_is_lost_meanwhile(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 12)
    out = tmp_path / "out"
    begun = begin(out, paths)

    def engine(start, shards):
        worker = start()
        yield worker(shards[0])
        out.rename(tmp_path / "lost")
        yield worker(shards[1])

    with pytest.raises(DataError) as caught:
        run(begun, engine=engine)
    sentence = (
        f"{out}/_job/manifest.json cannot be read (no such file); it has to be in a folder that "
        "every machine of the job sees, or a URL."
    )
    assert str(caught.value) == sentence
    assert not out.exists()
    (tmp_path / "lost").rename(out)
    assert run(begin(out, paths)).kept == 4


def test_a_folder_that_is_lost_while_a_part_is_written(tmp_path, monkeypatch):
    """The sentence is that of a lost folder, and not of a part, whatever the moment."""
    paths = make_pictures(tmp_path / "pictures", 12)
    out = tmp_path / "out"
    begun = begin(out, paths)
    write = Path.write_bytes

    def lost(path, data):
        write(path, data)
        out.rename(tmp_path / "lost")

    monkeypatch.setattr(Path, "write_bytes", lost)
    with pytest.raises(DataError) as caught:
        run(begun)
    assert str(caught.value) == (
        f"{out}/_job/manifest.json cannot be read (no such file); it has to be in a folder that "
        "every machine of the job sees, or a URL."
    )
    assert not out.exists()
    assert not parts(tmp_path / "lost")


def test_an_empty_folder_in_its_place_is_not_written_to(tmp_path):
    """As a mount point is, whose file system went away."""
    paths = make_pictures(tmp_path / "pictures", 12)
    out = tmp_path / "out"
    begun = begin(out, paths)

    def engine(start, shards):
        worker = start()
        yield worker(shards[0])
        out.rename(tmp_path / "lost")
        out.mkdir()
        yield worker(shards[1])

    with pytest.raises(DataError, match=r"manifest\.json cannot be read \(no such file\)"):
        run(begun, engine=engine)
    assert not list(out.iterdir())


def test_another_job_in_its_place_is_not_written_to(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 12)
    out = tmp_path / "out"
    begun = begin(out, paths)
    shutil.rmtree(out)
    begin(out, paths[:5])
    with pytest.raises(DataError) as caught:
        run(begun)
    assert str(caught.value) == f"{out} is no longer the folder of this job; nothing more is written to it."
    assert not parts(out)


def test_parts_that_are_written_elsewhere_are_missed(tmp_path):
    """As if a machine had a folder of its own at the same place."""
    paths = make_pictures(tmp_path / "pictures", 12)

    def engine(start, shards):
        for shard in shards:
            yield Done(shard, 4, 0, None, "elsewhere")

    with pytest.raises(DataError) as caught:
        run(begin(tmp_path / "out", paths), engine=engine)
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: 3 parts were written, and are not there; it has to be one folder that every "
        "machine of the job sees, or a URL."
    )


def test_what_goes_wrong_with_a_model_is_a_sentence(tmp_path):
    class Failing(MeanColour):
        def __call__(self, pixels):
            raise RuntimeError("out of\nmemory")

    with pytest.raises(DataError) as caught:
        run(begin(tmp_path / "out", make_pictures(tmp_path, 5)), Failing())
    assert str(caught.value) == (f"{tmp_path / 'out'}: its shard 0 cannot be computed (RuntimeError: out of memory).")


def test_a_worker_of_another_version(tmp_path):
    begun = begin(tmp_path / "out", make_pictures(tmp_path, 2))
    with pytest.raises(DataError, match=r"multilabel .* is installed there, 9\.9 here; install the same\."):
        Start(begun, lambda _: MeanColour(), version="9.9")()


# --- whose job it is ----------------------------------------------------------------------------------------------


def refused(out, *arguments, **settings) -> str:
    with pytest.raises((UsageError, DataError)) as caught:
        begin(out, *arguments, **settings)
    return str(caught.value)


def test_another_job_is_refused(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 9)
    out = tmp_path / "out"
    model = {"name": "mean", "fingerprint": "a" * 64, "thresholds": {"dark": 0.5}}
    run(begin(out, paths, model))
    before = rows(out)
    assert refused(out, paths, {**model, "fingerprint": "b" * 64}) == (
        f"{out} was begun with another model or other settings (fingerprint aaaaaaaaaaaaaaaa..., "
        "now bbbbbbbbbbbbbbbb...); choose another folder."
    )
    assert refused(out, paths, {**model, "thresholds": {"dark": 0.25}}) == (
        f"{out} was begun with another model or other settings (thresholds dark 0.5, now 0.25); choose another folder."
    )
    assert refused(out, paths[:-1], model) == f"{out} was begun with other pictures (9, now 8); choose another folder."
    assert refused(out, paths[::-1], model) == f"{out} was begun with other pictures (9, now 9); choose another folder."
    assert refused(out, paths, model, 5) == f"{out} was begun with --shard-size 4; give that, or none."
    assert refused(out, paths, model, command="infer") == (
        f"{out} was begun by `multilabel embed`; choose another folder."
    )
    assert rows(out) == before
    assert begin(out, paths, model, None).manifest.shard_size == 4


def test_the_same_model_of_other_names(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 2)
    model = {"sha256": "0", "name": "one", "export": "one.onnx", "backbone": {"weights": "one.h5"}}
    first = begin(tmp_path / "out", paths, model)
    model = {"sha256": "0", "name": "two", "export": "two.onnx", "backbone": {"weights": "two.h5"}}
    assert begin(tmp_path / "out", paths, model) == first
    assert refused(tmp_path / "out", paths, {**model, "sha256": "1"}).startswith(
        f"{tmp_path / 'out'} was begun with another model or other settings (sha256 0, now 1; name one, now two; "
    )


def test_something_else_in_the_folder(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_bytes(b"")
    assert refused(out, paths) == f"{out} holds something else (thesis.doc); choose another folder."
    assert sorted(path.name for path in out.iterdir()) == ["thesis.doc"]


def test_a_file_in_place_of_the_folder(tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"")
    paths = make_pictures(tmp_path / "pictures", 2)
    assert refused(out, paths) == f"{out}: cannot be used (Not a directory); choose another folder."


def test_no_pictures(tmp_path):
    assert refused(tmp_path / "out", []) == "There are no pictures."
    run(begin(tmp_path / "out", make_pictures(tmp_path, 2)))  # what was begun for none is in nobody's way


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"schema": 1}', b'{"schema": 1, "colour": 3}'])
def test_a_damaged_manifest(manifest, tmp_path):
    paths = make_pictures(tmp_path / "pictures", 2)
    out = tmp_path / "out"
    begin(out, paths)
    (out / "_job" / "manifest.json").write_bytes(manifest)
    sentence = refused(out, paths)
    assert sentence.startswith(f"{out}/_job/manifest.json is damaged (")
    assert sentence.endswith("); choose another folder.")


def test_a_newer_manifest(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 2)
    begin(tmp_path / "out", paths)
    (tmp_path / "out" / "_job" / "manifest.json").write_bytes(b'{"schema": 2}')
    assert refused(tmp_path / "out", paths) == (
        f"{tmp_path / 'out'} was begun by a newer multilabel; update with `pip install -U multilabel`."
    )


def test_killed_while_it_begins(tmp_path):
    """Without a manifest nothing has begun; what was written before it is written again."""
    paths = make_pictures(tmp_path / "pictures", 9)
    begin(tmp_path / "out", paths[:3])
    (tmp_path / "out" / "_job" / "manifest.json").unlink()
    run(begin(tmp_path / "out", paths))
    assert [row["path"] for row in rows(tmp_path / "out")] == paths


def test_two_jobs_that_begin_at_once(tmp_path):
    """The folder is the first one's, and the other is refused, though it had found the folder empty."""
    one, two = (make_pictures(tmp_path / name, 8, seed) for seed, name in enumerate(("one", "two")))
    out = tmp_path / "out"

    def listed():
        yield from two[:5]
        run(begin(out, one))  # the other command begins and ends meanwhile
        yield from two[5:]

    assert refused(out, listed()) == f"{out} was begun with other pictures (8, now 8); choose another folder."
    assert run(begin(out, one)).kept == 8
    assert [row["path"] for row in rows(out)] == one

    def listed_with_another_model():
        yield from one[:5]
        begin(tmp_path / "other", one, {"colour": 1})
        yield from one[5:]

    assert refused(tmp_path / "other", listed_with_another_model(), {"colour": 2}) == (
        f"{tmp_path / 'other'} was begun with another model or other settings (colour 1, now 2); choose another "
        "folder, or delete this one, which has no rows yet."
    )


@pytest.mark.parametrize("where", ["disk", "url", "no links"])
def test_the_same_job_begun_at_once(where, tmp_path, monkeypatch):
    """Both do it; the shards are cut as the first has cut them."""
    paths = make_pictures(tmp_path / "pictures", 8)
    out = "memory://at-once" if where == "url" else str(tmp_path / "out")
    if where == "no links":

        def refuse(*names):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    first = None

    def listed():
        nonlocal first
        yield from paths[:5]
        first = begin(out, paths, shard_size=2)
        yield from paths[5:]

    second = begin(out, listed(), shard_size=None)
    assert second == first
    assert run(second).errors == 0
    assert run(begin(out, paths, shard_size=None)).kept == 8
    names = sorted(Folder(out).names())
    assert names == ["_job", *(f"part-{shard:07}.parquet" for shard in range(4))]


def test_a_list_that_is_not_whole(tmp_path):
    """No part is written with fewer rows than its shard has pictures."""
    paths = make_pictures(tmp_path / "pictures", 8)
    begun = begin(tmp_path / "out", paths, shard_size=4)
    (listed,) = (tmp_path / "out" / "_job").glob("inputs-*")
    table = pq.read_table(listed)
    pq.write_table(table, listed, row_group_size=2)
    with pytest.raises(DataError) as caught:
        run(begun)
    assert str(caught.value) == f"{begun.out}: its list of pictures is damaged; choose another folder."
    assert parts(tmp_path / "out") == []


def test_two_runs_of_a_job_at_once(tmp_path, monkeypatch):
    """One ends while the other is writing a part, which nobody sweeps away."""
    paths = make_pictures(tmp_path / "pictures", 9)
    first, second = begin(tmp_path / "out", paths), begin(tmp_path / "out", paths)
    write_bytes = Path.write_bytes

    def slow(path, data):
        write_bytes(path, data)
        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        run(second)

    monkeypatch.setattr(Path, "write_bytes", slow)
    assert run(first).errors == 0
    run(begin(tmp_path / "whole", paths))
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob(".*"))


def test_what_cannot_be_listed_begins_nothing(tmp_path):
    def listed():
        yield from make_pictures(tmp_path / "pictures", 2)
        raise DataError("pictures/c: there is no such file or folder.")

    assert refused(tmp_path / "out", listed()) == "pictures/c: there is no such file or folder."
    assert not (tmp_path / "out").exists()

    def listed_for_long():
        yield from make_pictures(tmp_path / "pictures", 9)
        raise DataError("pictures/c: there is no such file or folder.")

    assert refused(tmp_path / "out", listed_for_long()) == "pictures/c: there is no such file or folder."
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["_job"]


# --- engines and plans --------------------------------------------------------------------------------------------


def test_options_of_another_engine():
    for name, value in {"address": "auto", "workers_per_node": 2}.items():
        with pytest.raises(UsageError) as caught:
            Cluster(**{name: value})
        option = "--" + name.replace("_", "-")
        assert str(caught.value) == f"{option} belongs to --engine ray; add that, or leave it out."
    with pytest.raises(UsageError, match=r"--engine is 'spark'; choose from local, ray\."):
        Cluster("spark")


@pytest.mark.parametrize(
    ("nodes", "per_node", "expected"),
    [
        ([(1, 0)], None, (1, 1, 0)),
        ([(2, 0)], None, (1, 2, 0)),
        ([(1, 0), (1, 0), (0, 0)], None, (2, 1, 0)),
        ([(4, 0)], None, (1, 3, 0)),  # one slot stays free
        ([(8, 0), (8, 0)], None, (2, 7, 0)),
        ([(16, 0)], None, (2, 7.5, 0)),
        ([(64, 0)], None, (8, 7.875, 0)),
        ([(28, 0), (8, 0)], None, (5, 7, 0)),  # of the smaller machine's size
        ([(64, 0), (16, 0)], None, (10, 7.5, 0)),
        ([(64, 0), (8, 0), (1, 0)], None, (9, 7.875, 0)),  # those that are far smaller settle nothing
        ([(8, 0)], 2, (2, 4, 0)),
        ([(8, 0)], 3, (3, 2.6666, 0)),
        ([(8, 0)], 4, (4, 2, 0)),
        ([(16, 0), (8, 0)], 4, (12, 2, 0)),
        ([(17, 0), (5, 0)], 4, (17, 1.25, 0)),
        ([(8, 0)], 8, (8, 1, 0)),
        ([(2, 0)], 2, (2, 1, 0)),
        ([(16, 1), (16, 1), (4, 0)], None, (2, 15, 1)),  # GPUs alone
        ([(48, 4)], None, (4, 11, 1)),
        ([(16, 2), (8, 1)], None, (3, 7, 1)),
        ([(64, 1), (16, 8)], None, (9, 1, 1)),
        ([(8, 8)], None, (8, 1, 1)),
    ],
)
def test_a_plan_suits_the_machines(nodes, per_node, expected):
    planned = ray_data.plan(nodes, per_node)
    assert (planned.workers, planned.cpus, planned.gpus) == expected


@given(nodes=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 8)), min_size=1, max_size=6))
def test_a_plan_fits_into_the_machines(nodes):
    if not any(cpus for cpus, _ in nodes):
        with pytest.raises(DataError, match="No machine of the Ray cluster has a processor to compute on"):
            ray_data.plan(nodes)
        return
    planned = ray_data.plan(nodes)
    room = sum(min(cpus // planned.cpus, gpus // planned.gpus if planned.gpus else cpus) for cpus, gpus in nodes)
    assert 1 <= planned.workers <= room
    if len(nodes) == 1 and nodes[0][0] > 2 and not planned.gpus:
        assert planned.workers * planned.cpus <= nodes[0][0] - 1  # one slot stays free
    with_gpus = [node for node in nodes if min(node)]
    assert planned.gpus == (1 if with_gpus else 0)
    assert not with_gpus or planned.workers == sum(map(min, with_gpus))  # a GPU without a processor stays idle
    assert planned.cpus >= 1


@given(smallest=st.integers(1, 130), more=st.lists(st.floats(1, 3), max_size=4), each=st.integers(1, 140))
def test_a_plan_has_as_many_workers_as_were_asked_for(smallest, more, each):
    sizes = [smallest, *(int(smallest * times) for times in more)]
    nodes = [(cpus, 0) for cpus in sizes]
    if each > smallest:
        with pytest.raises(UsageError) as caught:
            ray_data.plan(nodes, each)
        sentence = f"--workers-per-node {each}: the smallest machine has {smallest} processors; ask for fewer."
        assert str(caught.value) == sentence
        return
    planned = ray_data.plan(nodes, each)
    room = [math.floor(cpus / planned.cpus) for cpus in sizes]  # that Ray has
    assert room[0] == each
    assert planned.workers == sum(room)
    assert planned.threads == round(planned.cpus) >= 1


def test_a_plan_without_gpus():
    assert ray_data.plan([(96, 1), (48, 0)], gpu=False) == ray_data.plan([(96, 0), (48, 0)])
    with pytest.raises(UsageError, match="--workers-per-node: each GPU of the cluster has one worker; leave it out"):
        ray_data.plan([(16, 1)], 3)


def test_what_ray_gives_up_on_is_a_sentence():
    with pytest.raises(DataError) as caught, ray_data._sentences():
        raise RuntimeError("Traceback of many lines\n\nThe actor died.\n")
    assert str(caught.value) == (
        "Ray gave up (RuntimeError: The actor died.); what is finished is kept, and the same command continues."
    )


def test_errors_are_tried_again_when_asked(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 9)
    hidden = Path(paths[5]).rename(tmp_path / "hidden.png")
    run(begin(tmp_path / "out", paths))
    assert [row["path"] for row in rows(tmp_path / "out") if row["error"]] == [paths[5]]
    hidden.rename(paths[5])
    assert run(begin(tmp_path / "out", paths)).errors == 1
    model = MeanColour()
    summary = run(begin(tmp_path / "out", paths), model, retry_errors=True)
    assert (summary.errors, summary.kept, model.seen) == (0, 8, 1)
    assert str(summary).splitlines()[1:] == ["8 were there already.", str(summary).splitlines()[2]]
    assert str(summary).splitlines()[2].startswith("1 in ")
    run(begin(tmp_path / "at once", paths))
    assert rows(tmp_path / "out") == rows(tmp_path / "at once")


def test_what_is_tried_again_costs_no_row(tmp_path):
    """The share with the pictures is not mounted while errors are tried again."""
    paths = make_pictures(tmp_path / "pictures", 9)
    Path(paths[5]).unlink()
    run(begin(tmp_path / "out", paths))
    before = rows(tmp_path / "out")
    shutil.rmtree(tmp_path / "pictures")
    summary = run(begin(tmp_path / "out", paths), retry_errors=True)
    assert (summary.errors, rows(tmp_path / "out")) == (1, before)


class NoAnswer(Exception):
    """What filesystems have of their own."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file"), None),
        (pa.ArrowInvalid("no Parquet"), None),
        (OSError("Couldn't deserialize thrift"), None),  # as pyarrow says it
        (OSError(5, "Input/output error"), "Input/output error"),
        (PermissionError("AccessDenied"), "AccessDenied"),
        (NoAnswer("connection closed"), "connection closed"),
        (MemoryError("4 GB"), "4 GB"),
    ],
)
def test_a_part_that_vanishes_before_it_is_tried_again(error, reason, tmp_path, monkeypatch):
    paths = [*make_pictures(tmp_path / "pictures", 3), str(tmp_path / "absent.png")]
    run(begin(tmp_path / "out", paths))
    before = rows(tmp_path / "out")
    begun = begin(tmp_path / "out", paths)
    worker = Start(begun, lambda _: MeanColour(), retry_errors=True)()

    def refuse(part):
        raise error

    monkeypatch.setattr(pq.ParquetFile, "read", refuse)
    done = worker(0)
    if reason is None:
        assert done == Done(0, 4, 1)
    else:
        assert done.failure == f"{begun.out}/part-0000000.parquet cannot be read ({reason})."
    monkeypatch.undo()
    assert rows(tmp_path / "out") == before


def test_a_part_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    """A disk that does not answer says nothing of the part."""
    paths = make_pictures(tmp_path / "pictures", 9)
    run(begin(tmp_path / "out", paths))
    begun = begin(tmp_path / "out", paths)
    before = parts(tmp_path / "out"), rows(tmp_path / "out")

    def refuse(folder, name):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", refuse)
        with pytest.raises(DataError, match=r"part-0000000\.parquet cannot be read \(Input/output error\)\."):
            run(begun)
    assert (parts(tmp_path / "out"), rows(tmp_path / "out")) == before


def test_processors_are_those_that_were_given(monkeypatch):
    monkeypatch.setattr(processors, "_limit", None)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "")
    assert processors.processors() == os.cpu_count()
    processors.use(3)
    assert (processors.processors(), processors.limit()) == (3, 3)
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == os.environ["TF_NUM_INTEROP_THREADS"] == "3"
