"""Rows gathered slab by slab, and features of the store that are too many for memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from multilabel import features, slabs
from multilabel.errors import DataError
from multilabel.features import FeatureStore
from multilabel.slabs import gather, rows_of_slab

ROWS = np.random.default_rng(1).permutation(3000)[:2500]


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3000, 5)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mode", [None, "r", "r+", "c"])
def test_rows_come_in_the_order_asked_for(x, dtype, mode, tmp_path):
    x = x.astype(dtype)
    source = x
    if mode is not None:
        x.tofile(tmp_path / "x")
        source = np.memmap(tmp_path / "x", dtype, mode, shape=x.shape)
    if mode in ("r+", "c"):
        x[7] = source[7] = 3  # what was written is not lost when pages are let go of
    gathered = gather(source, ROWS)
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, x[ROWS].astype(np.float32))
    np.testing.assert_array_equal(gather(source[:, 1:3], ROWS), x[ROWS, 1:3].astype(np.float32))
    gathered[:] = 0  # a copy
    np.testing.assert_array_equal(source, x)


def test_slabs_are_whole_batches(x, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 4 * 5 * 100)
    assert [rows_of_slab(5), rows_of_slab(5, 32), rows_of_slab(5, 101), rows_of_slab(10**6)] == [100, 96, 101, 1]
    parts = list(slabs.slabs(x, ROWS, 32))
    assert [len(slab) for _, slab in parts] == [96] * 26 + [4]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in parts]), x[ROWS])
    np.testing.assert_array_equal(np.concatenate([ROWS[part] for part, _ in parts]), ROWS)


@pytest.fixture
def store(x, tmp_path):
    engine = SimpleNamespace(name="made-up", dimension=5, fingerprint=lambda: "0" * 64)
    with FeatureStore(tmp_path / "cache", engine) as store:
        store.put([row.to_bytes(32, "big") for row in range(len(x))], x)
        yield store


def digests(rows):
    return [int(row).to_bytes(32, "big") for row in rows]


def test_features_that_are_too_many_for_memory_lie_in_a_file_without_a_name(store, x, monkeypatch):
    rows = np.concatenate([ROWS, ROWS[:600]])
    assert not isinstance(store.load(digests(rows)), np.memmap)
    monkeypatch.setattr(features, "IN_MEMORY", 4 * 5 * len(rows) - 1)
    loaded = store.load(digests(rows))
    assert isinstance(loaded, np.memmap)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, x[rows])
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


@pytest.mark.parametrize("limit", [0, 2**30])
def test_unknown_pictures_are_a_key_error_wherever_features_lie(store, limit, monkeypatch):
    monkeypatch.setattr(features, "IN_MEMORY", limit)
    with pytest.raises(KeyError) as caught:
        store.load(digests([3001, 0, *range(700), 3001, 3002]))
    assert caught.value.args == ("2 pictures have no stored feature",)


def test_a_full_disk_becomes_a_sentence(store, monkeypatch):
    class Full:
        def __init__(self, **_):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "IN_MEMORY", 0)
    monkeypatch.setattr(features, "TemporaryFile", Full)
    with pytest.raises(DataError) as error:
        store.load(digests(range(3000)))
    assert str(error.value) == (
        f"{store.path.parent}: cannot hold the features of this run for a while, 0.0 GiB (No space left on device); "
        "free some space, or choose another folder with --cache."
    )
