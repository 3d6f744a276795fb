"""The engine of many machines: Ray Data hands shards to workers, and to others where a machine is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from math import floor
from typing import Any

import numpy as np

from .. import processors
from ..errors import DataError, MultilabelError, UsageError
from ..streams import silent_stderr
from .worker import Done, Start

_MOST_PROCESSORS = 8  # that one worker makes good use of
_MOST_BLOCKS = 4096  # into which Ray Data is handed the shards
_RETRIES = 20  # of a shard whose worker was lost: machines come and go, but a shard that kills workers would not end

# TensorFlow would take all memory of a GPU, in the command itself, too, beside a worker of the same machine.
GROWTH = ("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@dataclass(frozen=True)
class Plan:
    """Workers of a cluster.

    Attributes:
        workers: how many.
        cpus: of each, as Ray counts them.
        gpus: of each.
    """

    workers: int
    cpus: float
    gpus: int

    @property
    def threads(self) -> int:
        """Of each."""
        return max(1, round(self.cpus))


def plan(nodes: Sequence[tuple[float, float]], workers_per_node: int | None = None, *, gpu: bool = True) -> Plan:
    """How many workers, of how many processors.

    One for each GPU, if there are any and the model uses them, and none on machines without. Otherwise each has up to 8
    processors, and one slot of a machine with more than two stays free, for Ray and for whatever else runs there. That
    is so on the smallest machine (of less than a quarter of the largest one's processors is none); all workers are
    alike, and others have as many as there is room for.

    Args:
        nodes: CPUs and GPUs of each machine, as Ray counts them.
        workers_per_node: of the smallest machine, exactly; larger ones have more. Default: as many as suit it.
        gpu: whether the model uses GPUs.

    Raises:
        DataError: no machine has a processor.
        UsageError: a number of workers was given, and each GPU has one, or there are fewer processors.
    """
    useful = [(int(cpus), int(gpus) if gpu else 0) for cpus, gpus in nodes if cpus >= 1]
    if not useful:
        raise DataError("No machine of the Ray cluster has a processor to compute on.")
    if with_gpus := [node for node in useful if node[1]]:
        if workers_per_node:
            raise UsageError("--workers-per-node: each GPU of the cluster has one worker; leave it out.")
        whole = max(1, min((cpus - 1) // gpus for cpus, gpus in with_gpus))
        return Plan(sum(min(cpus // whole, gpus) for cpus, gpus in with_gpus), whole, 1)
    largest = max(useful)[0]
    smallest = min(cpus for cpus, _ in useful if 4 * cpus >= largest)
    usable = smallest - 1 if smallest > 2 and not workers_per_node else smallest
    each = workers_per_node or -(-usable // _MOST_PROCESSORS)
    if each > usable:
        raise UsageError(f"--workers-per-node {each}: the smallest machine has {usable} processors; ask for fewer.")
    share = floor(usable / each * 10_000) / 10_000  # Ray counts in these
    return Plan(sum(int(cpus / share) for cpus, _ in useful), share, 0)


def run(
    start: Start, shards: Sequence[int], address: str | None = None, workers_per_node: int | None = None
) -> Generator[Done, None, None]:
    """Does shards, in any order.

    Args:
        start: makes a worker.
        shards: which.
        address: of a running cluster, `host:port`, or `"auto"`, the one that this machine belongs to; default: one of
            this machine alone, which ends with the job.
        workers_per_node: of the smallest machine; default: as `plan`.

    Yields:
        What became of each.

    Raises:
        MultilabelError: Ray is not installed, or there is no such cluster.
    """
    with _quiet(), _cluster(address) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        found = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
        planned = plan(found, workers_per_node, gpu=start.gpu)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        # Blocks of shards lie in the driver's memory, so that nothing but the workers needs a slot of the cluster.
        numbers = ray.data.from_items(list(shards), override_num_blocks=min(len(shards), _MOST_BLOCKS))
        done = numbers.map_batches(
            _Actor,
            fn_constructor_args=(start, planned.threads),
            batch_size=1,
            num_cpus=planned.cpus,
            num_gpus=planned.gpus,
            max_task_retries=_RETRIES,
            compute=ray.data.ActorPoolStrategy(size=min(planned.workers, len(shards)), max_tasks_in_flight_per_actor=2),
        )
        with _sentences():
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
                for said in batch["done"]:
                    yield Done(**json.loads(said))


@contextmanager
def _sentences() -> Iterator[None]:
    """What Ray gives up on: a shard that kills its workers, a head that is lost, a machine without multilabel."""
    try:
        yield
    except MultilabelError:
        raise
    except Exception as error:
        last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
        reason = f"{type(error).__name__}: {last[0][:200] if last else ''}"
        raise DataError(f"Ray gave up ({reason}); what is finished is kept, and the same command continues.") from error


class _Actor:
    """A worker on a machine of the cluster. Whatever it raised would be tried again for ever, so it is said instead."""

    def __init__(self, start: Start, threads: int) -> None:
        import ray

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault(*GROWTH)
        processors.use(threads)
        self._node = f"{ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:6]})"
        self._worker, self._failure = None, ""
        try:
            self._worker = start()
        except MultilabelError as error:
            self._failure = str(error)
        except Exception as error:
            self._failure = f"a worker cannot start ({type(error).__name__}: {error})."

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        done = [self._done(int(shard)) for shard in batch["item"]]
        return {"done": np.array([json.dumps(asdict(one)) for one in done], object)}

    def _done(self, shard: int) -> Done:
        done = Done(shard, failure=self._failure) if self._worker is None else self._worker(shard)
        return replace(done, node=self._node, failure=done.failure and f"{self._node}: {done.failure}")


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; a connection that was there before stays."""
    option = f"--address {address}" if address else f"RAY_ADDRESS {os.environ.get('RAY_ADDRESS')}"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise UsageError(f"{option}: run the command on the cluster, or with `ray job submit`, without that.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address != "local":  # otherwise Ray tries for a quarter of an hour
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
        os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "10")
    import ray
    import ray.data

    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    except Exception as error:  # Ray raises nearly anything
        where = "Ray cannot be started" if address == "local" else f"{option}: no Ray cluster answers"
        raise DataError(
            f"{where} ({' '.join(str(error).split())[:200]}); start one with `ray start --head`."
        ) from error
    try:
        yield ray
    finally:
        with suppress(Exception):
            ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray tells of lost machines on both streams, and on the file descriptor itself; its own files have all of that."""
    with silent_stderr(), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
