"""The feature store: a frozen backbone is evaluated once per picture, and never again.

One SQLite file holds the features of one backbone in one precision (its name, size, preprocessing and every weight make
the file's name), keyed by the SHA-256 of the picture's bytes. SQLite gives what matters here: a batch is there whole or
not at all after a kill at any moment, and several processes can use the file at once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import platformdirs
from tqdm import tqdm

from .augment import Augmentation
from .engine import Engine
from .errors import DataError, ImageError, Interrupted
from .images import read_pictures

BATCH_SIZE = 32
_QUERY = 500  # SQLite takes at least 999 values in one statement
IN_MEMORY = 2**30  # bytes of features that are loaded into memory; more go to a file
_WAIT = 60.0  # seconds that one process waits for another's write


def default_cache() -> Path:
    """The user's cache folder for features."""
    return Path(platformdirs.user_cache_dir("multilabel"))


def store_file(folder: str | os.PathLike[str], engine: Engine) -> Path:
    """Where the features of an engine are kept in a cache folder; all that determines them is in its name."""
    return Path(folder) / f"{engine.name}-{engine.fingerprint()[:24]}.sqlite"


@contextmanager
def stored(folder: str | os.PathLike[str], engine: Engine) -> Iterator[FeatureStore | None]:
    """The store of an engine, if there is one."""
    if not store_file(folder, engine).is_file():
        yield None
        return
    with FeatureStore(folder, engine) as store:
        yield store


class FeatureStore:
    """Features of one backbone on disk; safe under `kill -9` and under several processes.

    Args:
        folder: where stores are kept; made if absent.
        engine: what computes the features.

    Raises:
        DataError: if the folder or the file cannot be used.
    """

    def __init__(self, folder: str | os.PathLike[str], engine: Engine) -> None:
        self.path = store_file(folder, engine)
        self.dimension = engine.dimension
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.path.parent}: the cache folder cannot be made ({error.strerror}); choose another with --cache."
            ) from error
        with self._sentences():
            self._connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS features (digest BLOB PRIMARY KEY, feature BLOB NOT NULL)"
            )

    def close(self) -> None:
        """Closes the file; what was put is already on disk."""
        self._connection.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def missing(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of the pictures' digests whose features are not here."""
        return set(digests) - {digest for digest, _ in self._rows(digests, "NULL")}

    def put(self, digests: Sequence[bytes], features: np.ndarray) -> None:
        """Stores features `(n, dimension)` of n pictures, all or none."""
        rows = zip(digests, (row.tobytes() for row in np.asarray(features, np.float32)), strict=True)
        with self._sentences():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise

    def load(self, digests: Sequence[bytes]) -> np.ndarray:
        """Features `(n, dimension)` float32 in the order of `digests`.

        They lie in memory; where that would take more than `IN_MEMORY`, in a read-only file in the cache folder, mapped
        into memory. It has no name (on Windows, the system deletes it), so it is gone when the array is, or the
        process, however that ends.

        Raises:
            KeyError: if one is not in the store.
            DataError: if the store cannot be read, or the file not be written.
        """
        shape = (len(digests), self.dimension)
        if 4 * len(digests) * self.dimension <= IN_MEMORY:
            features = np.empty(shape, np.float32)
            for number, block in enumerate(self._blocks(digests)):
                features[number * _QUERY : (number + 1) * _QUERY] = block
            return features
        try:
            with TemporaryFile(dir=self.path.parent) as file:
                for block in self._blocks(digests):
                    file.write(block.data)
                file.flush()
                return np.memmap(file, np.float32, "r", shape=shape)
        except OSError as error:
            size = 4 * len(digests) * self.dimension / 2**30
            raise DataError(
                f"{self.path.parent}: cannot hold the features of this run for a while, {size:.1f} GiB "
                f"({error.strerror}); free some space, or choose another folder with --cache."
            ) from error

    def _blocks(self, digests: Sequence[bytes]) -> Iterator[np.ndarray]:
        """The features in order, some at a time."""
        missing: set[bytes] = set()
        for start in range(0, len(digests), _QUERY):
            rows: dict[bytes, list[int]] = {}
            part = digests[start : start + _QUERY]
            for index, digest in enumerate(part):
                rows.setdefault(digest, []).append(index)
            block = np.empty((len(part), self.dimension), np.float32)
            for digest, blob in self._rows(list(rows), "feature"):
                block[rows.pop(digest)] = np.frombuffer(blob, np.float32)
            missing.update(rows)
            yield block
        if missing:
            raise KeyError(f"{len(missing)} pictures have no stored feature")

    def _rows(self, digests: Sequence[bytes], column: str) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(digests), _QUERY):
            part = digests[start : start + _QUERY]
            marks = ",".join("?" * len(part))
            with self._sentences():
                yield from self._connection.execute(
                    f"SELECT digest, {column} FROM features WHERE digest IN ({marks})", part
                )

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(
                f"{self.path}: the feature store cannot be used ({error}); free or make writable its folder, "
                "choose another with --cache, or, if it is damaged, delete the file and run again."
            ) from error


@dataclass(frozen=True)
class Views:
    """Which views of a picture have features: the picture itself, and augmented ones.

    A view depends on nothing but the picture's bytes, its number and the kind of augmentation, so that it is the same
    in every run.

    Attributes:
        count: the picture itself included.
        augment: makes the other ones.
    """

    count: int = 1
    augment: Augmentation | None = None

    def keys(self, digest: bytes) -> list[bytes]:
        """What the views' features are stored under, the picture itself first."""
        return [digest, *(key for key, _ in self._augmented(digest))]

    def pixels(
        self, digest: bytes, pixels: np.ndarray, wanted: Collection[bytes]
    ) -> Iterator[tuple[bytes, np.ndarray]]:
        """Key and pixels of each view whose key is wanted, made from the pixels of the picture."""
        if digest in wanted:
            yield digest, pixels
        for key, augment in self._augmented(digest):
            if key in wanted:
                yield key, augment(pixels[None], int.from_bytes(key[:4], "big") // 2)[0]

    def _augmented(self, digest: bytes) -> Iterator[tuple[bytes, Augmentation]]:
        if self.augment is None:
            return
        for view in range(1, self.count):
            yield hashlib.sha256(digest + f"{self.augment.describe()} {view}".encode()).digest(), self.augment


ONE_VIEW = Views()


@dataclass(frozen=True)
class Extraction:
    """What `extract` found.

    Attributes:
        digests: per path, the SHA-256 of the picture, or `None` where it cannot be read.
        errors: the pictures that cannot be read.
        computed: how many features were computed now; the others were stored already.
    """

    digests: list[bytes | None]
    errors: list[ImageError]
    computed: int


def extract(
    engine: Engine,
    paths: Sequence[str],
    store: FeatureStore,
    *,
    views: Views = ONE_VIEW,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> Extraction:
    """Puts the feature of every picture, or of every view of it, into the store, computing only what is not there.

    The engine computes in a thread of its own and never waits, neither for pictures, which are decoded ahead in other
    threads, nor for the store, which writes one batch while the next is computed. Memory does not grow with the number
    of pictures, but for their digests. After a crash at most the two batches in hand are computed again.

    Raises:
        Interrupted: on Ctrl-C, saying how much is kept.
        DataError: if the store cannot be used.
    """
    digests: list[bytes | None] = []
    errors: list[ImageError] = []
    missing: set[bytes] = set()  # keys without a feature, of the pictures that have been looked at
    pending: dict[bytes, np.ndarray] = {}
    in_hand: deque[tuple[list[bytes], Future[np.ndarray]]] = deque()
    computed = 0

    def compute() -> None:
        in_hand.append((list(pending), thread.submit(engine, np.stack(list(pending.values())))))
        missing.difference_update(pending)
        pending.clear()
        if len(in_hand) == 2:
            keep()

    def keep() -> None:
        nonlocal computed
        keys, features = in_hand[0]
        store.put(keys, features.result())
        in_hand.popleft()
        computed += len(keys)

    def wanted(chunk: Sequence[bytes]) -> set[bytes]:
        missing.update(store.missing([key for digest in chunk for key in views.keys(digest)]))
        missing.difference_update(*(keys for keys, _ in in_hand))
        return {digest for digest in chunk if not missing.isdisjoint(views.keys(digest))}

    # disable=None: no bar where nobody watches (a file, a pipe)
    bar = tqdm(total=len(paths), desc="features", unit="picture", disable=None if progress else True)
    thread = ThreadPoolExecutor(1, "engine")
    try:
        with bar:
            for picture in read_pictures(paths, engine.image_size, wanted=wanted, chunk=batch_size):
                digests.append(None if picture.error else picture.digest)
                if picture.error is not None:
                    errors.append(picture.error)
                elif picture.pixels is not None and picture.digest is not None:
                    for key, pixels in views.pixels(picture.digest, picture.pixels, missing):
                        pending[key] = pixels
                        if len(pending) == batch_size:
                            compute()
                bar.update()
            if pending:
                compute()
            if in_hand:
                keep()
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped; the {computed} features computed so far are kept, and the next run continues."
        ) from None
    finally:
        thread.shutdown(cancel_futures=True)
    return Extraction(digests, errors, computed)


def check(paths: Sequence[str], image_size: tuple[int, int], *, progress: bool = False) -> Extraction:
    """Reads every picture and keeps nothing but its digest: what `extract` does, for want of a frozen backbone."""
    bar = tqdm(read_pictures(paths, image_size), "pictures", len(paths), disable=None if progress else True)
    seen = [(None if picture.error else picture.digest, picture.error) for picture in bar]
    return Extraction([digest for digest, _ in seen], [error for _, error in seen if error is not None], 0)
