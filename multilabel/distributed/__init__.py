"""Features and predictions of any number of pictures, on one machine or many, in parts that are never lost.

A job (`job.py`) is a folder. Workers (`worker.py`) turn its shards into parts, with what computes features
(`embedding.py`) or predictions (`predicting.py`). An engine, `local.py` or `ray_data.py`, is one function that hands
shards to workers; another one takes one more such file, its name in `config.ENGINES` and a branch in `Cluster.run`.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..config import DEFAULT_BACKBONE, ENGINES, CnnShape
from ..errors import DataError, Interrupted, UsageError
from ..places import Folder, in_a_sentence, is_url
from . import job as jobs
from . import sources
from .job import Job, check_installed
from .worker import BATCH_SIZE, Done, Model, Start

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..inference import Model as Predictor

_TOLD_EVERY = 30.0  # seconds, where no bar is shown: in a log
_log = logging.getLogger("multilabel")


@dataclass(frozen=True)
class Cluster:
    """Where a job runs.

    Attributes:
        engine: `"local"`, this process, or `"ray"`, a Ray cluster.
        address: of a running Ray cluster, `host:port`, or `"auto"`, the one that this machine belongs to; default: one
            of this machine alone, which ends with the job.
        workers_per_node: workers of the smallest machine of a Ray cluster; default: as many as suit it.
        batch_size: pictures that go through the model at once.
        shard_size: pictures of a shard; default: those of the job that is there, or `job.SHARD_SIZE`.
        retry_errors: pictures that could not be read are tried again.
    """

    engine: str = "local"
    address: str | None = None
    workers_per_node: int | None = None
    batch_size: int = BATCH_SIZE
    shard_size: int | None = None
    retry_errors: bool = False

    def __post_init__(self) -> None:
        """Checks what belongs together."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine is {self.engine!r}; choose from {', '.join(ENGINES)}.")
        for name in ("address", "workers_per_node"):
            if self.engine != "ray" and getattr(self, name) is not None:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} belongs to --engine ray; add that, or leave it out.")
        if self.engine == "ray":
            from .ray_data import GROWTH

            os.environ.setdefault(*GROWTH)

    def run(self, start: Start, shards: Sequence[int]) -> Generator[Done, None, None]:
        """Hands shards to workers: the one place that knows which engines there are."""
        if shards and self.engine == "ray":
            from . import ray_data

            yield from ray_data.run(start, shards, self.address, self.workers_per_node)
        elif shards:
            from . import local

            yield from local.run(start, shards)


@dataclass(frozen=True)
class Summary:
    """What a run of a job did.

    Attributes:
        out: the job's folder.
        command: what made its rows.
        pictures: of the job.
        errors: how many of them could not be read.
        kept: how many had been done by earlier runs.
        seconds: time it took.
        nodes: by machine, how many pictures it did in this run.
        example: what is wrong with the first picture, if none could be read.
    """

    out: str
    command: str
    pictures: int
    errors: int
    kept: int
    seconds: float
    nodes: Mapping[str, int]
    example: str = ""

    def __str__(self) -> str:
        """A few lines for a person."""
        new = self.pictures - self.kept
        rows = f"{self.pictures:,} row{'' if self.pictures == 1 else 's'}"
        again = "; --retry-errors tries them again" if self.errors else ""
        lines = [f"{self.out}: {rows}, {self.errors:,} with an error{again}."]
        if self.errors == self.pictures:
            lines.append(f"No picture could be read{self.example}.")
        if self.kept:
            lines.append(f"{self.kept:,} were there already.")
        if new:
            lines.append(f"{new:,} in {self.seconds:.1f} s: {new / self.seconds:,.1f} pictures/s.")
        if len(self.nodes) > 1:
            shares = ", ".join(f"{node} {count / new:.0%}" for node, count in sorted(self.nodes.items()))
            lines.append(f"By machine: {shares}.")
        return "\n".join(lines)


def embed(
    backbone: Backbone,
    paths: Iterable[str],
    out: str,
    *,
    precision: str = "auto",
    column: str | None = None,
    cache: Path | None = None,
    cluster: Cluster = Cluster(),
    progress: bool = False,
) -> Summary:
    """Writes features of pictures: Parquet parts with `path`, `sha256`, `feature` (a list of float32) and `error`.

    A run that stopped is continued by the same call, with any engine; no finished part is made again.

    Args:
        backbone: computes them, frozen.
        paths: pictures, folders, lists (`.txt`) and tables (`.csv`, `.tsv`, `.parquet`) of paths; paths or URLs.
        out: the folder to write, a path or a URL. Every machine has to see it.
        precision: one of `config.PRECISIONS`, what the backbone computes in.
        column: of tables, which holds the paths; default: `path`, else `image`.
        cache: folder of the feature store; what it has is taken from it by the engine `local`. `None`: the user's.
        cluster: where it runs.
        progress: show a bar on stderr, where a person watches.

    Raises:
        MultilabelError: for anything that stops it; finished parts are kept. Pictures that cannot be read are rows.
    """
    from ..backbones import resolve_precision
    from ..features import default_cache, stored
    from . import embedding

    check_installed(cluster.engine, out)
    if cache is not None and cluster.engine != "local":
        raise UsageError("--cache: the feature store is used by --engine local alone; leave it out.")
    engine = embedding.settled(backbone, resolve_precision(precision))
    job = _begin(
        embedding.COMMAND, embedding.description(engine), paths, out, column, cluster, partial(embedding.put, engine)
    )
    if cluster.engine != "local":
        return _run(job, embedding.load, cluster, progress)
    with stored(cache or default_cache(), engine) as store:
        here = embedding.Embedding(engine, store)
        return _run(job, lambda _: here, cluster, progress)


def infer(
    path: Path,
    model: Predictor,
    paths: Iterable[str],
    out: str,
    *,
    runtime: str | None = None,
    min_confidence: float = 0.0,
    column: str | None = None,
    cluster: Cluster = Cluster(),
    progress: bool = False,
) -> Summary:
    """Writes predictions of pictures: Parquet parts with `path`, `sha256`, the columns of CSV and `error`.

    Args:
        path: the bundle, or an export of one.
        model: it, loaded, with the thresholds that are wanted.
        paths: as `embed`.
        out: as `embed`.
        runtime: what the model was loaded with.
        min_confidence: a tag whose best class has a lower probability is undecided.
        column: as `embed`.
        cluster: where it runs.
        progress: show a bar on stderr, where a person watches.

    Raises:
        MultilabelError: for anything that stops it; finished parts are kept. Pictures that cannot be read are rows.
    """
    from .. import runtimes
    from . import predicting

    check_installed(cluster.engine, out)
    said = predicting.description(path, model, runtime, min_confidence)
    job = _begin(predicting.COMMAND, said, paths, out, column, cluster, partial(predicting.put, path, said))
    if cluster.engine != "local":
        return _run(job, predicting.load, cluster, progress, gpu=runtimes.needs_tensorflow(path, runtime))
    here = predicting.Predicting(model, min_confidence)
    return _run(job, lambda _: here, cluster, progress)


def backbone_for(
    name: str | None = None,
    weights: str | None = None,
    image_size: tuple[int, int] | None = None,
    model: Path | None = None,
    precision: str = "auto",
) -> tuple[Backbone, str]:
    """The backbone that `embed` computes with, and what in.

    Args:
        name: an architecture of `keras.applications`, or `cnn`; default: `config.DEFAULT_BACKBONE`.
        weights: `"imagenet"`, `"embedded"`, `"none"` or a file; default: `"imagenet"`, for `cnn` `"embedded"`.
        image_size: (height, width) in pixels; default: the backbone's own.
        model: a bundle whose backbone it is instead.
        precision: one of `config.PRECISIONS`; `"auto"` is that of the bundle, if there is one.

    Raises:
        MultilabelError: there is no such backbone, or its weights cannot be had.
    """
    from .. import backbones, bundle

    if model is not None:
        if name or weights:
            raise UsageError(f"--model {model} has its own backbone; leave out --backbone and --weights.")
        recorded = bundle.load(model)
        backbone = recorded.backbone if image_size is None else bundle.load_backbone(model, image_size)
        return backbone, recorded.engine.precision if precision == "auto" else precision
    if weights is not None and os.path.isdir(weights):
        raise UsageError(f"--weights {weights} is a folder; give a bundle with --model.")
    name = backbones.resolve_name(name or DEFAULT_BACKBONE)
    weights = weights or (backbones.EMBEDDED if name == backbones.CNN else backbones.IMAGENET)
    if weights == backbones.NO_WEIGHTS:
        import keras

        keras.utils.set_random_seed(0)  # the same in each run, so that a job can be continued
    backbone = backbones.build_backbone(name, weights, image_size, cnn=CnnShape())  # as `fit` builds it
    backbones.freeze(backbone)
    if not backbone.pretrained:
        _log.warning("The backbone has random weights: good for trying things out, and for nothing else.")
    return backbone, precision


def _begin(
    command: str,
    model: Mapping[str, Any],
    paths: Iterable[str],
    out: str,
    column: str | None,
    cluster: Cluster,
    put_model: Callable[[Folder], None],
) -> Job:
    out = out.removeprefix("file://")
    out = out if is_url(out) else os.path.abspath(out)  # which other machines take it for, too
    job = jobs.begin(out, command, model, sources.find(paths, column), put_model, cluster.shard_size)
    pictures, shards = job.manifest.pictures, job.manifest.shards
    plural = ["" if count == 1 else "s" for count in (pictures, shards)]
    _log.info(f"{out}: {pictures:,} picture{plural[0]} in {shards:,} shard{plural[1]}.")
    return job


def _run(job: Job, load: Callable[[Job], Model], cluster: Cluster, progress: bool, *, gpu: bool = True) -> Summary:
    """Does the shards that are not finished."""
    start, manifest = Start(job, load, cluster.batch_size, cluster.retry_errors, gpu), job.manifest
    finished = job.finished()
    again = {shard: errors for shard, errors in finished.items() if errors and cluster.retry_errors}
    kept = sum(map(manifest.rows, finished)) - sum(again.values())
    errors, nodes = sum(finished.values()) - sum(again.values()), Counter[str]()
    began = time.perf_counter()
    todo = [shard for shard in range(manifest.shards) if shard not in finished or shard in again]
    # An engine may silence stderr. disable=None: no bar where nobody watches (a file, a pipe)
    form: dict[str, Any] = {"desc": manifest.command, "unit": "picture", "disable": None if progress else True}
    try:
        told = time.perf_counter()
        with (
            open(os.dup(2), "w") as terminal,
            tqdm(total=manifest.pictures, initial=kept, file=terminal, **form) as bar,
            closing(cluster.run(start, todo)) as results,
        ):
            for done in results:
                if done.failure is not None:
                    raise DataError(done.failure)
                errors += done.errors
                new = again.get(done.shard, done.pictures)
                nodes[done.node] += new
                bar.update(new)
                if progress and bar.disable and time.perf_counter() - told > _TOLD_EVERY:
                    told = time.perf_counter()
                    there = kept + nodes.total()
                    rate = nodes.total() / (told - began)
                    remaining = tqdm.format_interval((manifest.pictures - there) / rate)
                    print(f"{there:,} rows, {rate:,.1f} pictures/s, {remaining} left", file=terminal, flush=True)
    except KeyboardInterrupt:
        there = kept + nodes.total()
        raise Interrupted(
            f"Stopped; {there:,} of {manifest.pictures:,} rows are in {job.out}, and the same command continues."
        ) from None
    _check_complete(job)
    seconds, example = time.perf_counter() - began, _example(job) if errors == manifest.pictures else ""
    return Summary(job.out, manifest.command, manifest.pictures, errors, kept, seconds, dict(nodes), example)


def _example(job: Job) -> str:
    table = job.table(0)
    return "" if table is None else f" ({table['path'][0]}: {table['error'][0]})"


def _check_complete(job: Job) -> None:
    with in_a_sentence(job.out):
        names = set(job.parts.names())
    missing = [shard for shard in range(job.manifest.shards) if jobs.part_name(shard) not in names]
    if missing:
        raise DataError(
            f"{job.out}: {len(missing):,} parts were written, and are not there; it has to be one folder that every "
            "machine of the job sees, or a URL."
        )
    job.parts.sweep()
