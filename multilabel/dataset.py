"""What a run of `fit` works on: the labels and the pictures that can be used, their features, and the parts."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .augment import Augmentation
from .config import FOLDS, FitConfig
from .engine import Engine, FoldingError
from .errors import DataError, UsageError
from .features import Extraction, FeatureStore, Views, check, default_cache, extract
from .formats import read_labels
from .heads import check_loss_weights
from .labels import UNKNOWN, LabelTable, locate_images, pool_rare
from .splits import assign_parts, fixed_parts, read_parts, shared_groups, split_parts
from .training import Pictures

if TYPE_CHECKING:
    from .distributed.embedded import Embedded

_KNOWN_PER_FOLD = 2  # known labels that an attribute or tag needs for each fold, on average
_NAMED = 20  # so many pictures that are left out are named in the terminal
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Labels:
    """The labels whose picture files are there, and what became of the others.

    Attributes:
        table: with absolute paths.
        names: the same pictures as the labels file calls them.
        absent: names of the pictures without a file.
        rare: by tag, the classes that were pooled or dropped, and how many labels each had.
    """

    table: LabelTable
    names: list[str]
    absent: list[str]
    rare: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Dataset:
    """The pictures that can be used, row by row, and those left out.

    Attributes:
        table: the labels of the n pictures.
        names: the pictures as the labels file calls them.
        digests: SHA-256 of each picture's bytes.
        skipped: names of the pictures left out, and why.
        features: `(n, dimension)`, or `(n, views, dimension)`; `None` without a phase in which the backbone is frozen.
        precision: what the features were computed in.
        pictures: the pictures themselves.
        computed: how many features were computed, not read from the store.
        seconds: time it took.
    """

    table: LabelTable
    names: list[str]
    digests: list[bytes]
    skipped: list[tuple[str, str]]
    features: np.ndarray | None
    precision: str
    pictures: Pictures
    computed: int
    seconds: float

    @property
    def stored_features(self) -> np.ndarray:
        """`features`, which must be there."""
        if self.features is None:
            raise ValueError("The backbone trains from the start: there are no features.")
        return self.features

    @property
    def cells(self) -> np.ndarray:
        """The labels of all attributes and tags, `(n, attributes + tags)`."""
        return np.concatenate([self.table.y, self.table.tag_y], axis=1)

    @property
    def first_views(self) -> np.ndarray:
        """The features of the unchanged pictures, `(n, dimension)`."""
        return self.stored_features[:, 0] if self.stored_features.ndim == 3 else self.stored_features


def read_table(config: FitConfig, embedded: Embedded | None = None) -> Labels:
    """Reads the labels, finds the picture files, or their features, and deals with rare classes; says what it found.

    Raises:
        UsageError: the columns asked for are not there.
        DataError: the labels cannot be used.
    """
    column = config.split if config.split and not Path(config.split).is_file() else None
    if column and Path(column).suffix in (".txt", ".csv", ".tsv"):
        raise UsageError(f"--split {column}: there is no such file; give a file of names, or a column of the labels.")
    named = read_labels(
        config.labels,
        format=config.format,
        names=config.names,
        tags=config.tags,
        attributes=config.attributes,
        split=column,
    )
    check_loss_weights(named, config.loss_weights)
    if not named.names:
        config.check_without_attributes()
    if config.split and column is None:
        named = replace(named, parts=_parts_of_file(config.split, named.images))
    if embedded is None:
        table, absent = locate_images(named, config.labels, config.images, strict=config.strict)
    else:
        table, absent = embedded.locate(named, config.labels, strict=config.strict)
    table, rare = pool_rare(
        table,
        min_count=config.min_count,
        min_share=config.min_share,
        rare=config.rare,
        pool_name=config.pool_name,
    )
    for note in named.notes:
        _log.info(note)
    _describe_labels(config, table)
    _describe_rare(config, rare)
    _warn_left_out("the file is absent" if embedded is None else "it is not in --features", absent)
    unlabelled = [name for name, column in zip(table.names, table.y.T, strict=True) if (column == UNKNOWN).all()]
    if unlabelled:
        raise DataError(
            f"{config.labels}: no picture has a known label for {', '.join(unlabelled)}; label some, or leave it out."
        )
    gone = set(absent)
    return Labels(table, [name for name in named.images if name not in gone], list(absent), rare)


def _parts_of_file(path: str, images: Sequence[str]) -> tuple[str, ...]:
    """The part of each picture as a file of names says; names may leave out the `.jpg`."""
    parts = read_parts(path)
    found = tuple(parts.get(name) or parts.get(name.removesuffix(Path(name).suffix)) or "" for name in images)
    if not any(found):
        raise DataError(f"--split {path}: none of its {len(parts)} names is a picture of the labels file.")
    if elsewhere := len(parts) - sum(map(bool, found)):
        _log.info(f"--split {path}: {counted(elsewhere, 'name')} of {len(parts):,} not in the labels file.")
    return found


def _describe_labels(config: FitConfig, table: LabelTable) -> None:
    known = int((table.y != UNKNOWN).sum() + (table.tag_y != UNKNOWN).sum())
    cells = table.y.size + table.tag_y.size
    columns = [
        counted(len(columns), noun) for columns, noun in ((table.names, "attribute"), (table.tags, "tag")) if columns
    ]
    _log.info(
        f"{config.labels}: {counted(len(table.images), 'picture')}, {' and '.join(columns)}, "
        f"{known:,} of {cells:,} labels known ({known / cells:.0%})."
    )


def _describe_rare(config: FitConfig, rare: Mapping[str, Mapping[str, int]]) -> None:
    done = f"pooled as {config.pool_name!r}" if config.rare == "pool" else "left out as unknown"
    for tag, classes in rare.items():
        listed = ", ".join(f"{name} {count}" for name, count in list(classes.items())[:_NAMED])
        more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
        rare_classes = f"{len(classes)} rare class{'' if len(classes) == 1 else 'es'}"
        _log.info(f"{tag}: {rare_classes}, {counted(sum(classes.values()), 'label')}, {done}: {listed}{more}.")


def read_dataset(
    config: FitConfig, labels: Labels, engine: Engine, progress: bool, embedded: Embedded | None = None
) -> Dataset:
    """Reads every picture; for a phase with a frozen backbone, once for all as its features."""
    started = time.perf_counter()
    table, features = labels.table, None
    if config.train_backbone:
        extraction = check(table.images, engine.image_size, progress=progress)
        rows, digests = _readable(table, extraction)
    else:
        try:
            extraction, rows, digests, features = _stored(config, table, engine, progress, embedded)
        except FoldingError:
            engine = engine.reliable
            extraction, rows, digests, features = _stored(config, table, engine, progress)
    seconds = time.perf_counter() - started
    if not config.train_backbone:
        stored = len(set(digests)) * config.views - extraction.computed
        copies = len(digests) - len(set(digests))
        same = f", {copies:,} identical to others" if copies else ""
        _log.info(f"Features: {extraction.computed:,} computed, {stored:,} stored already{same} ({seconds:.1f} s).")
    broken = [name for name, digest in zip(labels.names, extraction.digests, strict=True) if digest is None]
    reasons = [error.reason for error in extraction.errors]
    _warn_left_out("it cannot be read", [f"{name} ({why})" for name, why in zip(broken, reasons, strict=True)])
    skipped = [(name, "no such file") for name in labels.absent] + list(zip(broken, reasons, strict=True))
    table = table.take(rows)
    names = [labels.names[row] for row in rows]
    if table.parts is not None:
        nowhere = [name for name, part in zip(names, table.parts, strict=True) if not part]
        _warn_left_out("--split gives it no part", nowhere)
        skipped += [(name, "no part in --split") for name in nowhere]
    pictures = Pictures(table.images, engine.image_size)
    return Dataset(table, names, digests, skipped, features, engine.precision, pictures, extraction.computed, seconds)


def _stored(
    config: FitConfig, table: LabelTable, engine: Engine, progress: bool, embedded: Embedded | None = None
) -> tuple[Extraction, list[int], list[bytes], np.ndarray]:
    """What was read, the rows and digests of the pictures that can be, and the features of these from the store."""
    views = Views(config.views, Augmentation(config.augment, engine.image_size) if config.views > 1 else None)
    with FeatureStore(config.cache or default_cache(), engine) as store:
        if embedded is None:
            extraction = extract(engine, table.images, store, views=views, progress=progress)
        else:
            extraction = embedded.extract(table.images, store)
        rows, digests = _readable(table, extraction)
        features = store.load([key for digest in digests for key in views.keys(digest)])
    if views.count > 1:
        features = features.reshape(len(digests), views.count, -1)
    return extraction, rows, digests, features


def _warn_left_out(why: str, names: Sequence[str]) -> None:
    if not names:
        return
    more = f" and {len(names) - _NAMED:,} more, which skipped.csv in the bundle lists" if len(names) > _NAMED else ""
    _log.warning(f"Left out, because {why} ({counted(len(names), 'picture')}): {', '.join(names[:_NAMED])}{more}.")


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 picture`, `2,000 pictures`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _readable(table: LabelTable, extraction: Extraction) -> tuple[list[int], list[bytes]]:
    pairs = [(row, digest) for row, digest in enumerate(extraction.digests) if digest is not None]
    if not pairs:
        raise DataError(f"none of the {len(table.images)} pictures can be read; the first: {extraction.errors[0]}")
    return [row for row, _ in pairs], [digest for _, digest in pairs]


def fold_count(config: FitConfig, data: Dataset) -> int:
    """How many folds the pictures are dealt into; 0 for a single split.

    Raises:
        UsageError: folds were asked for, or permutations, which need them, and `split` fixes a validation part.
        DataError: permutations were asked for, and there are too few labels for folds.
    """
    if config.trains_backbone or config.folds == 0:
        return 0
    if "validation" in (data.table.parts or ()):
        if asked := [f"--{name}" for name in ("folds", "permutations") if getattr(config, name)]:
            raise UsageError(f"--split fixes the validation part, too; leave out {', '.join(asked)}.")
        return 0
    if config.folds:
        return config.folds
    rows = _training_and_test(data)[0]
    enough = _KNOWN_PER_FOLD * FOLDS / (1 - config.test_share)
    known = np.count_nonzero(data.cells[rows] != UNKNOWN, axis=0)
    names = [*data.table.names, *(tag.name for tag in data.table.tags)]
    few = [name for name, count in zip(names, known.tolist(), strict=True) if count < enough]
    if few or len({data.digests[row] for row in rows.tolist()}) < enough:
        what = f"labels of {', '.join(few)}" if few else "pictures"
        if config.permutations:
            raise DataError(
                f"There are too few {what} for {FOLDS} folds, which --permutations needs; leave it out, "
                "or choose fewer --folds."
            )
        _log.info(f"There are too few {what} for {FOLDS} folds: one validation part instead.")
        return 0
    return FOLDS


def split_dataset(config: FitConfig, data: Dataset, folds: int = 0) -> dict[str, np.ndarray]:
    """The rows of the parts `"training"`, `"validation"` (empty with folds) and `"test"`, which may be empty.

    Raises:
        DataError: a part would be empty.
    """
    if folds:
        training, validation, test = _parts_of_folds(config, data, folds)
    elif data.table.parts is None:
        training, validation, test = split_parts(
            data.cells, config.val_share, config.test_share, groups=data.digests, seed=config.seed
        )
    else:
        training, validation, test = fixed_parts(
            data.table.parts, data.cells, config.val_share, groups=data.digests, seed=config.seed
        )
    if data.table.parts is not None and (shared := shared_groups((training, validation, test), data.digests)):
        _log.warning(
            f"--split puts copies of the same picture into different parts ({counted(shared, 'picture')}): "
            "the scores are flattering."
        )
    validated = f"{folds} folds" if folds else f"validation part: {len(validation):,}"
    tested = f"; test part: {len(test):,}" if len(test) else ""
    _log.info(f"Training part: {counted(len(training), 'picture')}; {validated}{tested}.")
    return {"training": training, "validation": validation, "test": test}


def _parts_of_folds(config: FitConfig, data: Dataset, folds: int) -> tuple[np.ndarray, ...]:
    """Training, validation and test part, of which the second is empty."""
    training, test = _training_and_test(data)
    if config.test_share:
        shares = (1 - config.test_share, config.test_share)
        parts = assign_parts(data.cells, shares, groups=data.digests, seed=config.seed)
        training, test = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
    different = len({data.digests[row] for row in training.tolist()})
    if different < folds:
        raise DataError(f"{counted(different, 'different picture')} cannot fill {folds} folds; choose fewer --folds.")
    return training, np.empty(0, np.intp), test


def _training_and_test(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The rows that `split` gives these parts; without it all are for training."""
    parts = data.table.parts
    if parts is None:
        return np.arange(len(data.names)), np.empty(0, np.intp)
    training, test = (np.flatnonzero([part == name for part in parts]) for name in ("training", "test"))
    return training, test


def labels_digest(data: Dataset) -> str:
    """A hexadecimal SHA-256 of the pictures' names and all their labels."""
    cells = (data.names, data.table.y.tolist(), [asdict(tag) for tag in data.table.tags], data.table.tag_y.tolist())
    return hashlib.sha256(repr(cells).encode("utf-8", "replace")).hexdigest()
