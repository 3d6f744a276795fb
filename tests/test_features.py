"""The feature store, and `extract`, which fills it: nothing lost, nothing computed twice, nothing mixed up."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import io
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from multilabel import features
from multilabel.augment import Augmentation
from multilabel.backbones import build_backbone
from multilabel.engine import Engine
from multilabel.errors import DataError, Interrupted
from multilabel.features import BATCH_SIZE, ONE_VIEW, FeatureStore, Views, check, default_cache, extract
from multilabel.images import content_digest, read_image

SIZE = (8, 12)


class Pooling:
    """Stands for an engine whose feature is the picture's mean colour."""

    name, dimension, precision = "cnn", 3, "float32"

    def __init__(self, image_size=SIZE):
        self.image_size = image_size

    def fingerprint(self):
        return hashlib.sha256(repr(self.image_size).encode()).hexdigest()

    def __call__(self, pixels):
        return pixels.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def mean_colours(paths, size=SIZE):
    return np.array([read_image(path, size).astype(np.float64).mean(axis=(0, 1)) for path in paths])


def digest_of(path):
    return content_digest(Path(path).read_bytes())


def make_pictures(folder, count, size=(16, 24), seed=0, prefix="picture"):
    """PNGs of noise, no two alike; the list of their paths."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}{index:04}.png" for index in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, compress_level=1)
    return [str(path) for path in paths]


def keys(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(32) for _ in range(count)]


def values(count, dimension=3, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


def rows_in(store):
    """What lies in the file, read by SQLite alone."""
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT digest, feature FROM features"))


def watched(store, monkeypatch):
    """The digests of each batch that is put from now on."""
    batches = []
    put = store.put

    def logged(digests, rows):
        batches.append(list(digests))
        put(digests, rows)

    monkeypatch.setattr(store, "put", logged)
    return batches


@pytest.fixture(scope="module")
def engine():
    return Pooling()


@pytest.fixture
def store(tmp_path, engine):
    with FeatureStore(tmp_path / "cache", engine) as opened:
        yield opened


# --- the store


def test_what_is_put_comes_back_in_the_order_asked_for(store):
    digests, rows = keys(5), values(5)
    store.put(digests[:2], rows[:2])
    store.put(digests[2:], rows[2:])
    order = [3, 0, 3, 4, 1, 0]
    loaded = store.load([digests[index] for index in order])
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, rows[order])
    assert store.load([]).shape == (0, 3)


def test_missing(store):
    digests = keys(4)
    assert store.missing(digests) == set(digests)
    store.put(digests[1:3], values(2))
    assert store.missing([*digests, *digests]) == {digests[0], digests[3]}
    assert store.missing([]) == set()


def test_more_digests_than_sqlite_takes_in_one_statement(store):
    store._connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)  # what it takes on older systems
    digests, rows = keys(1501), values(1501)
    store.put(digests[:1500], rows[:1500])
    assert store.missing(digests) == {digests[1500]}
    np.testing.assert_array_equal(store.load(digests[1499::-1]), rows[1499::-1])


def test_unknown_pictures_are_a_key_error(store):
    digests = keys(3)
    store.put(digests[:1], values(1))
    with pytest.raises(KeyError) as caught:
        store.load([digests[1], digests[0], digests[2], digests[1]])
    assert caught.value.args == ("2 pictures have no stored feature",)


def test_a_feature_that_is_there_stays(store):
    digests = keys(1)
    store.put(digests, values(1, seed=0))
    store.put(digests, values(1, seed=1))
    np.testing.assert_array_equal(store.load(digests), values(1, seed=0))
    assert len(rows_in(store)) == 1


def test_features_of_other_types_are_stored_as_float32(store):
    digests = keys(2)
    store.put(digests, np.array([[1, 2, 3], [1e-3, 1 / 3, 1e30]], np.float64))
    store.put(keys(1, seed=1), [[7, 8, 9]])
    np.testing.assert_array_equal(store.load(digests), np.array([[1, 2, 3], [1e-3, 1 / 3, 1e30]], np.float32))
    np.testing.assert_array_equal(store.load(keys(1, seed=1)), [[7, 8, 9]])


@pytest.mark.parametrize(("digests", "rows"), [(3, 2), (2, 3)])
def test_a_batch_that_does_not_fit_is_not_stored_at_all(digests, rows, store):
    with pytest.raises(ValueError, match="zip"):
        store.put(keys(digests), values(rows))
    assert rows_in(store) == {}
    store.put(keys(1), values(1))  # and the store can be used as before
    assert len(rows_in(store)) == 1


def test_a_store_is_there_when_it_is_opened_again(tmp_path, engine):
    with FeatureStore(tmp_path, engine) as store:
        store.put(keys(3), values(3))
    with FeatureStore(str(tmp_path), Pooling()) as again:
        np.testing.assert_array_equal(again.load(keys(3)), values(3))
    assert [path.name for path in tmp_path.iterdir()] == [f"cnn-{engine.fingerprint()[:24]}.sqlite"]


digests_strategy = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=12, unique=True)
numbers = st.floats(width=32)  # with infinities and NaN: what was put must come back, whatever it is


@given(st.data(), digests_strategy)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_store_is_a_dictionary(engine, data, digests):
    expected: dict[bytes, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, FeatureStore(folder, engine) as store:
        for _ in range(data.draw(st.integers(0, 4))):
            chosen = data.draw(st.lists(st.sampled_from(digests), max_size=6))
            rows = [data.draw(st.tuples(numbers, numbers, numbers)) for _ in chosen]
            rows = np.array(rows, np.float32).reshape(-1, 3)
            store.put(chosen, rows)
            for digest, row in zip(chosen, rows, strict=True):
                expected.setdefault(digest, row)  # the first one stays
        assert store.missing(digests) == set(digests) - set(expected)
        asked = data.draw(st.lists(st.sampled_from(sorted(expected)), max_size=8)) if expected else []
        loaded = store.load(asked)
        assert loaded.tobytes() == b"".join(expected[digest].tobytes() for digest in asked)
        unknown = sorted(set(digests) - set(expected))
        if unknown:
            with pytest.raises(KeyError):
                store.load([*asked, unknown[0]])


# --- what belongs to a store


def test_another_size_weight_network_or_precision_has_another_store(tmp_path):
    def stored_in(backbone, precision="float32"):
        with FeatureStore(tmp_path, Engine(backbone, precision)) as store:
            return store.path

    keras.utils.set_random_seed(0)
    first = build_backbone("cnn", "none", (32, 32))
    other_weights = build_backbone("cnn", "none", (32, 32))
    other_size = build_backbone("cnn", "none", (32, 64))
    same_weights = build_backbone("cnn", "none", (32, 32))
    for equal in (other_size, same_weights):
        equal.model.set_weights(first.model.get_weights())
    paths = [stored_in(backbone) for backbone in (first, other_weights, other_size)]
    paths += [stored_in(first, precision) for precision in ("bfloat16", "float16")]
    assert len(set(paths)) == 5
    assert stored_in(same_weights) == paths[0]
    assert stored_in(dataclasses.replace(first, name="vgg16")).name.startswith("vgg16-")


@pytest.mark.skipif(sys.platform != "linux", reason="caches lie elsewhere on other systems")
def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "multilabel"


# --- stores that cannot be used


UNUSABLE = (
    "{path}: the feature store cannot be used ({reason}); free or make writable its folder, "
    "choose another with --cache, or, if it is damaged, delete the file and run again."
)


@pytest.mark.parametrize(("folder", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_a_file_in_place_of_the_folder(folder, reason, tmp_path, engine):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path / folder, engine)
    assert str(caught.value) == (
        f"{tmp_path / folder}: the cache folder cannot be made ({reason}); choose another with --cache."
    )


def test_a_folder_that_may_not_be_made(tmp_path, engine, monkeypatch):
    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path / "cache", engine)
    assert str(caught.value) == (
        f"{tmp_path / 'cache'}: the cache folder cannot be made (Permission denied); choose another with --cache."
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_written(tmp_path, engine):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DataError) as caught:
            FeatureStore(tmp_path, engine)
    finally:
        tmp_path.chmod(0o700)
    path = tmp_path / f"cnn-{engine.fingerprint()[:24]}.sqlite"
    assert str(caught.value) == UNUSABLE.format(path=path, reason="unable to open database file")


def test_a_folder_in_place_of_the_file(tmp_path, engine):
    path = tmp_path / f"cnn-{engine.fingerprint()[:24]}.sqlite"
    path.mkdir()
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path, engine)
    assert str(caught.value) == UNUSABLE.format(path=path, reason="unable to open database file")


def test_a_file_that_is_no_store(tmp_path, engine):
    path = tmp_path / f"cnn-{engine.fingerprint()[:24]}.sqlite"
    path.write_bytes(np.random.default_rng(0).bytes(10_000))
    with pytest.raises(DataError) as caught:
        FeatureStore(tmp_path, engine)
    assert str(caught.value) == UNUSABLE.format(path=path, reason="file is not a database")


def test_a_store_that_was_damaged(tmp_path, engine):
    with FeatureStore(tmp_path, engine) as store:
        store.put(keys(300), values(300))
    damaged = bytearray(store.path.read_bytes())
    damaged[2048:] = b"\xff" * (len(damaged) - 2048)
    store.path.write_bytes(damaged)
    with pytest.raises(DataError) as caught, FeatureStore(tmp_path, engine) as again:
        again.load(keys(300))
    assert str(caught.value) == UNUSABLE.format(path=store.path, reason="database disk image is malformed")


def test_a_store_of_something_else(tmp_path, engine):
    path = tmp_path / f"cnn-{engine.fingerprint()[:24]}.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE features (name TEXT)")
    with FeatureStore(tmp_path, engine) as store, pytest.raises(DataError) as caught:
        store.missing(keys(1))
    assert str(caught.value) == UNUSABLE.format(path=path, reason="no such column: digest")


def test_a_store_that_another_process_keeps_locked(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(features, "_WAIT", 0.05)
    with FeatureStore(tmp_path, engine) as store, closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for use in (lambda: store.missing(keys(1)), lambda: store.put(keys(1), values(1))):
            with pytest.raises(DataError) as caught:
                use()
            assert str(caught.value) == UNUSABLE.format(path=store.path, reason="database is locked")
        other.rollback()
        store.put(keys(1), values(1))
        assert store.missing(keys(1)) == set()


def test_a_full_disk_keeps_what_was_stored(store):
    store.put(keys(10), values(10))
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(DataError) as caught:
        store.put(keys(1000, seed=1), values(1000))
    assert str(caught.value) == UNUSABLE.format(path=store.path, reason="database or disk is full")
    assert set(rows_in(store)) == set(keys(10))
    store._connection.execute("PRAGMA max_page_count = 100000")  # room again
    store.put(keys(1000, seed=1), values(1000))
    assert len(rows_in(store)) == 1010


def test_a_store_that_may_only_be_read(tmp_path, engine, monkeypatch):
    with FeatureStore(tmp_path, engine) as store:
        store.put(keys(2), values(2))
    connect = sqlite3.connect
    monkeypatch.setattr(
        features.sqlite3, "connect", lambda path, **options: connect(f"file:{path}?mode=ro", uri=True, **options)
    )
    with FeatureStore(tmp_path, engine) as again:
        np.testing.assert_array_equal(again.load(keys(2)), values(2))
        with pytest.raises(DataError) as caught:
            again.put(keys(1, seed=1), values(1))
    assert str(caught.value) == UNUSABLE.format(path=store.path, reason="attempt to write a readonly database")


# --- extraction


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_features_of_pictures_are_those_of_the_engine(precision, tmp_path):
    keras.utils.set_random_seed(0)
    cnn = build_backbone("cnn", "none", (32, 32))
    engine = Engine(cnn, precision)
    paths = make_pictures(tmp_path / "pictures", 2 * BATCH_SIZE + 5, (40, 50))
    with FeatureStore(tmp_path / "cache", engine) as store:
        first = extract(engine, paths, store)
        computed = store.load(first.digests)
        assert extract(engine, paths, store).computed == 0
        np.testing.assert_array_equal(store.load(first.digests), computed)
    assert (first.computed, first.errors) == (len(paths), [])
    assert first.digests == [digest_of(path) for path in paths]
    pixels = np.stack([read_image(path, (32, 32)) for path in paths])
    np.testing.assert_array_equal(computed, engine(pixels))
    plain = cnn.model.predict(pixels, batch_size=7, verbose=0)
    np.testing.assert_allclose(computed, plain, rtol=0, atol=(1e-5 if precision == "float32" else 0.02) * plain.max())


def test_only_what_is_new_is_computed(tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 70)
    assert extract(engine, paths, store).computed == 70
    batches = watched(store, monkeypatch)

    more = make_pictures(tmp_path / "pictures", 5, seed=1, prefix="another")
    mixed = [more[0], *paths[:40], *more[1:4], *paths[40:], more[4]]
    found = extract(engine, mixed, store)
    assert found.computed == 5
    assert batches == [[digest_of(path) for path in more]]
    np.testing.assert_allclose(store.load(found.digests), mean_colours(mixed), rtol=1e-5)


def test_a_changed_picture_is_computed_again(tmp_path, engine, store):
    paths = make_pictures(tmp_path / "pictures", 3)
    before = extract(engine, paths, store)
    Image.new("RGB", (5, 5), (10, 200, 90)).save(paths[1])
    found = extract(engine, paths, store)
    assert found.computed == 1
    assert [a == b for a, b in zip(found.digests, before.digests, strict=True)] == [True, False, True]
    np.testing.assert_allclose(store.load(found.digests)[1], [10, 200, 90])


def test_a_renamed_or_copied_picture_is_not(tmp_path, engine, store):
    paths = make_pictures(tmp_path / "pictures", 3)
    before = extract(engine, paths, store)
    shutil.move(paths[0], tmp_path / "moved.png")
    shutil.copy(paths[1], tmp_path / "copy.jpg")  # under a name that lies
    os.utime(paths[2], (1, 1))
    found = extract(engine, [str(tmp_path / "moved.png"), str(tmp_path / "copy.jpg"), *paths[1:]], store)
    assert found.computed == 0
    assert found.digests == [before.digests[0], before.digests[1], *before.digests[1:]]


def test_copies_are_computed_once_wherever_they_stand(tmp_path, engine, store, monkeypatch):
    """Copies within a batch, in the next, within what is read ahead, and beyond it."""
    paths = make_pictures(tmp_path / "pictures", 130)
    copies = [str(tmp_path / f"copy{index}.png") for index in range(4)]
    for copy in copies:
        shutil.copy(paths[0], copy)
    order = [paths[0], copies[0], *paths[1:40], copies[1], *paths[40:100], copies[2], *paths[100:], copies[3], paths[7]]
    batches = watched(store, monkeypatch)
    found = extract(engine, order, store)
    put = [digest for batch in batches for digest in batch]
    assert found.computed == len(put) == len(set(put)) == 130
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 2]
    np.testing.assert_allclose(store.load(found.digests), mean_colours(order), rtol=1e-5)


def test_broken_pictures_are_reported_and_the_others_computed(tmp_path, engine, store):
    paths = make_pictures(tmp_path / "pictures", 4)
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:200])
    Path(paths[2]).write_bytes(b"")
    paths += [str(tmp_path / "nothing.png"), str(tmp_path)]
    for computed in (2, 0):
        found = extract(engine, paths, store)
        assert found.computed == computed
        assert [digest is None for digest in found.digests] == [False, True, True, False, True, True]
        assert [error.path for error in found.errors] == [paths[1], paths[2], paths[4], paths[5]]
        assert [error.reason for error in found.errors][1:] == [
            "the file is empty",
            "no such file",
            "a folder, not a file",
        ]
        assert found.errors[0].reason.startswith("truncated or damaged: ")
    np.testing.assert_allclose(store.load([found.digests[0], found.digests[3]]), mean_colours([paths[0], paths[3]]))
    assert len(rows_in(store)) == 2


def test_nothing_to_do(engine, store, capfd):
    found = extract(engine, [], store)
    assert (found.digests, found.errors, found.computed) == ([], [], 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_of_other_sizes(batch_size, tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 7)
    batches = watched(store, monkeypatch)
    found = extract(engine, paths, store, batch_size=batch_size)
    assert [len(batch) for batch in batches] == {1: [1] * 7, 3: [3, 3, 1], 7: [7], 100: [7]}[batch_size]
    np.testing.assert_allclose(store.load(found.digests), mean_colours(paths), rtol=1e-5)


def test_progress_is_shown_only_where_a_person_watches(tmp_path, engine, store, capsys, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 3)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    extract(engine, paths[:1], store, progress=True)
    check(paths, SIZE, progress=True)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    extract(engine, paths[:2], store)
    check(paths, SIZE)
    assert sys.stderr.getvalue() == ""
    extract(engine, paths, store, progress=True)
    check(paths, SIZE, progress=True)
    assert "features: 100%" in sys.stderr.getvalue()
    assert "pictures: 100%" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()


def test_check_finds_what_extract_finds_and_computes_nothing(tmp_path, engine, store):
    paths = make_pictures(tmp_path / "pictures", 4)
    Path(paths[2]).write_bytes(b"no picture")
    paths.append(str(tmp_path / "nothing.png"))
    checked, found = check(paths, SIZE), extract(engine, paths, store)
    assert checked.computed == 0
    assert checked.digests == found.digests
    assert [str(error) for error in checked.errors] == [str(error) for error in found.errors]
    assert len(checked.errors) == 2


# --- several views


def light(count):
    return Views(count, Augmentation("light", SIZE))


def strong(count):
    return Views(count, Augmentation("strong", SIZE))


def test_the_keys_of_views_are_stable():
    """Written down, since a store is for years: whoever changes a key must know that all views are computed anew."""
    digest = hashlib.sha256(b"a picture").digest()
    assert ONE_VIEW.keys(digest) == light(1).keys(digest) == [digest]
    assert [key.hex()[:16] for key in light(3).keys(digest)] == [
        "92b2fa5802895831",
        "42b8a0dc3681afbf",
        "80553915c6d89a9f",
    ]
    assert light(5).keys(digest)[:3] == light(3).keys(digest)  # more views are more keys, not others


def test_no_two_views_share_a_key():
    pictures = keys(20)
    found = [key for digest in pictures for views in (light(4), strong(4)) for key in views.keys(digest)[1:]]
    assert len({*found, *pictures}) == 20 * 6 + 20


def test_a_view_is_the_augmented_picture():
    digest, pixels = keys(1)[0], np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    names = strong(4).keys(digest)
    made = dict(strong(4).pixels(digest, pixels, names))
    assert list(made) == names
    np.testing.assert_array_equal(made[names[0]], pixels)
    for name in names[1:]:
        seed = int.from_bytes(name[:4], "big") // 2
        np.testing.assert_array_equal(made[name], Augmentation("strong", SIZE)(pixels[None], seed)[0])
    assert len({view.tobytes() for view in made.values()}) == 4
    assert list(dict(strong(4).pixels(digest, pixels, {names[2]}))) == [names[2]]


def test_views_depend_neither_on_order_nor_on_batches(tmp_path, engine):
    paths = make_pictures(tmp_path / "pictures", 10)
    rows = []
    for name, order, batch_size in (("a", paths, 32), ("b", paths[::-1], 3), ("c", [paths[4], *paths], 7)):
        with FeatureStore(tmp_path / name, engine) as store:
            assert extract(engine, order, store, views=light(3), batch_size=batch_size).computed == 30
            rows.append({key: np.frombuffer(blob, np.float32) for key, blob in rows_in(store).items()})
    assert set(rows[0]) == {key for path in paths for key in light(3).keys(digest_of(path))}
    for other in rows[1:]:
        assert set(other) == set(rows[0])
        for key, row in other.items():
            np.testing.assert_allclose(row, rows[0][key], rtol=1e-6)


def test_views_that_are_there_are_not_computed_again(tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 70)
    assert extract(engine, paths, store).computed == 70
    batches = watched(store, monkeypatch)
    for views, computed in ((light(3), 140), (light(3), 0), (light(2), 0), (light(4), 70), (strong(2), 70)):
        batches.clear()
        found = extract(engine, paths, store, views=views)
        assert found.computed == sum(map(len, batches)) == computed
        assert all(len(batch) <= BATCH_SIZE for batch in batches)
    assert len(rows_in(store)) == 70 * 5
    np.testing.assert_allclose(store.load(found.digests), mean_colours(paths), rtol=1e-5)


def test_copies_have_the_same_views(tmp_path, engine, store):
    paths = make_pictures(tmp_path / "pictures", 100)
    copies = [str(tmp_path / f"copy{index}.png") for index in range(3)]
    for copy in copies:
        shutil.copy(paths[0], copy)
    order = [paths[0], copies[0], *paths[1:50], copies[1], *paths[50:], copies[2]]
    assert extract(engine, order, store, views=light(3)).computed == 300
    assert len(rows_in(store)) == 300


def test_the_stored_features_of_views_are_those_of_their_pixels(tmp_path, engine, store):
    path = make_pictures(tmp_path / "pictures", 1)[0]
    (digest,) = extract(engine, [path], store, views=strong(3)).digests
    views = dict(strong(3).pixels(digest, read_image(path, SIZE), strong(3).keys(digest)))
    expected = [pixels.astype(float).mean(axis=(0, 1)) for pixels in views.values()]
    np.testing.assert_allclose(store.load(list(views)), expected, rtol=1e-5)


def test_ctrl_c_among_views_keeps_what_is_done(tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 30)
    put, done = store.put, []

    def interrupted(digests, rows):
        if done:
            raise KeyboardInterrupt
        done.append(len(digests))
        put(digests, rows)

    monkeypatch.setattr(store, "put", interrupted)
    with pytest.raises(Interrupted) as caught:
        extract(engine, paths, store, views=light(3))
    assert str(caught.value) == "Stopped; the 32 features computed so far are kept, and the next run continues."
    monkeypatch.undo()
    assert extract(engine, paths, store, views=light(3)).computed == 58  # 32 are ten pictures and two views
    assert len(rows_in(store)) == 90


# --- interruptions


def test_ctrl_c_keeps_the_batches_that_are_done(tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 100)
    put, done = store.put, []

    def interrupted(digests, rows):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(digests))
        put(digests, rows)

    monkeypatch.setattr(store, "put", interrupted)
    with pytest.raises(Interrupted) as caught:
        extract(engine, paths, store)
    assert str(caught.value) == ("Stopped; the 64 features computed so far are kept, and the next run continues.")
    assert set(rows_in(store)) == {digest_of(path) for path in paths[:64]}
    monkeypatch.undo()
    assert extract(engine, paths, store).computed == 36


def test_ctrl_c_within_a_write_leaves_no_half_batch(store):
    class Pressed(list):
        def __iter__(self):
            yield from self[:5]
            raise KeyboardInterrupt

    store.put(keys(3, seed=1), values(3))
    with pytest.raises(KeyboardInterrupt):
        store.put(Pressed(keys(10)), values(10))
    assert set(rows_in(store)) == set(keys(3, seed=1))
    store.put(keys(10), values(10))
    assert len(rows_in(store)) == 13


def test_an_error_after_some_batches_loses_no_more_than_one(tmp_path, engine, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 100)
    put, done = store.put, []

    def failing(digests, rows):
        if len(done) == 1:
            raise RuntimeError("power cut")
        done.append(len(digests))
        put(digests, rows)

    monkeypatch.setattr(store, "put", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        extract(engine, paths, store)
    monkeypatch.undo()
    assert len(rows_in(store)) == BATCH_SIZE
    assert extract(engine, paths, store).computed == 100 - BATCH_SIZE


# The same engine in a process of its own; prints how many features it computed.
PROCESS = f"""
import hashlib, os, signal, sys
import numpy as np
from multilabel.features import FeatureStore, extract
from multilabel.images import find_pictures

SIZE = {SIZE}
{inspect.getsource(Pooling)}
engine = Pooling()
folder, cache, deadly = sys.argv[1], sys.argv[2], int(sys.argv[3])
put, done = FeatureStore.put, []

class Killing(list):
    def __iter__(self):
        yield from self[:10]
        os.kill(os.getpid(), signal.SIGKILL)

def watched(store, digests, rows):
    done.append(digests)
    put(store, Killing(digests) if len(done) == deadly else digests, rows)

FeatureStore.put = watched
with FeatureStore(cache, engine) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    print(extract(engine, find_pictures(folder), store).computed)
"""


def start(root, folder, cache, deadly=0):
    command = [sys.executable, "-c", PROCESS, str(folder), str(cache), str(deadly)]
    return subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def test_two_processes_fill_one_store_at_once(tmp_path, root, engine):
    paths = make_pictures(tmp_path / "pictures", 400)
    processes = [start(root, tmp_path / "pictures", tmp_path / "cache") for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # both are loaded: now
        process.stdin.write("\n")
        process.stdin.flush()
    computed = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(computed) >= 400
    with FeatureStore(tmp_path / "cache", engine) as store:
        assert set(rows_in(store)) == {digest_of(path) for path in paths}
        found = extract(engine, paths, store)
        assert found.computed == 0
        np.testing.assert_allclose(store.load(found.digests), mean_colours(paths), rtol=1e-5)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_killed_within_a_write_loses_that_batch_alone(tmp_path, root, engine):
    paths = make_pictures(tmp_path / "pictures", 100)
    process = start(root, tmp_path / "pictures", tmp_path / "cache", deadly=3)
    assert process.communicate("\n", timeout=60)[0] == "ready\n"
    assert process.returncode == -9
    with FeatureStore(tmp_path / "cache", engine) as store:
        assert set(rows_in(store)) == {digest_of(path) for path in paths[: 2 * BATCH_SIZE]}
        found = extract(engine, paths, store)
        assert found.computed == 100 - 2 * BATCH_SIZE
        np.testing.assert_allclose(store.load(found.digests), mean_colours(paths), rtol=1e-5)


# --- memory


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    """A bound that no timing of the threads exceeds: a peak of few pictures is another one in each run."""
    size, count = (48, 48), 1500
    paths = make_pictures(tmp_path / "pictures", count, size)
    picture = size[0] * size[1] * 3
    # Decoded pictures and the bytes of others, two chunks of 64 each; a batch that fills and two in hand.
    alive = (4 * 64 + 3 * BATCH_SIZE) * picture
    engine = Pooling(size)
    with FeatureStore(tmp_path / "cache", engine) as store:
        tracemalloc.start()
        try:
            assert extract(engine, paths, store).computed == count
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak > 64 * picture  # it does see the pixels
    assert peak < 1.5 * alive < 0.4 * count * picture


# --- nothing waits


def test_a_batch_is_written_while_the_next_is_computed(tmp_path, store, monkeypatch):
    paths = make_pictures(tmp_path / "pictures", 5 * BATCH_SIZE)
    begun = [threading.Event() for _ in range(5)]
    calls = iter(begun)
    put, written = store.put, []

    class Watched(Pooling):
        def __call__(self, pixels):
            next(calls).set()
            return super().__call__(pixels)

    def waiting(digests, rows):
        following = len(written) + 1
        assert following == 5 or begun[following].wait(10)  # the next batch is being computed by now
        written.append(len(digests))
        put(digests, rows)

    monkeypatch.setattr(store, "put", waiting)
    assert extract(Watched(), paths, store).computed == 5 * BATCH_SIZE
    assert written == [BATCH_SIZE] * 5


def test_copies_of_a_picture_in_hand_are_not_computed_again(tmp_path, store):
    """The original is neither stored nor missing while it is computed."""
    paths = make_pictures(tmp_path / "pictures", 4 * BATCH_SIZE)
    found = extract(Pooling(), [path for path in paths for _ in range(3)] + paths, store)
    assert found.computed == 4 * BATCH_SIZE
    np.testing.assert_allclose(store.load(found.digests[-len(paths) :]), mean_colours(paths), rtol=1e-5)


def test_an_error_of_the_engine_ends_it(tmp_path, store):
    class Broken(Pooling):
        def __call__(self, pixels):
            raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        extract(Broken(), make_pictures(tmp_path / "pictures", 3 * BATCH_SIZE), store)
    assert rows_in(store) == {}
