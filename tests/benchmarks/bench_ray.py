"""Jobs on Ray: rate against workers, what Ray costs beside this process alone, and where its scheduler ends.

    python tests/benchmarks/bench_ray.py [--backbone resnet50] [--pictures 1536] [--rounds 3] [--only scaling|scheduler]

Scaling: JPEGs of 800×762, a backbone with random weights (they do not change the work), each worker pinned to a core of
its own; the rate is that while all of them work, so without starting up.
Scheduler: 32 workers on this machine whose model sleeps; beside them plain Ray Data whose function sleeps as long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from bench_serve import picture
from PIL import Image
from table import interleaved, machine, markdown

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from multilabel.distributed import backbone_for, embedding, job, local, ray_data
from multilabel.distributed.worker import Done, Start

SHARD = 64
WORKERS = 32
CORES = (64, 1024)
PRICE = 0.03  # dollars of a core-hour; assumed


class Pinned:
    """Loads a model on cores that no other worker has taken."""

    def __init__(self, cores: int, taken: str) -> None:
        self.cores, self.taken = cores, taken

    def __call__(self, begun: job.Job):
        mine: set[int] = set()
        for core in sorted(os.sched_getaffinity(0)):
            try:
                os.close(os.open(f"{self.taken}/{core}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            mine.add(core)
            if len(mine) == self.cores:
                break
        os.sched_setaffinity(0, mine)
        return embedding.load(begun)


def steady(results: Iterable[Done], workers: int, per_shard: int) -> float:
    """Pictures a second while all workers work: from their second shards until the first may have nothing left."""
    seen: list[float] = []
    for done in results:
        assert done.failure is None, done.failure
        seen.append(time.perf_counter())
    first, last = 2 * workers - 1, len(seen) - workers
    return (last - first) * per_shard / (seen[last] - seen[first])


@contextmanager
def cluster(nodes: Sequence[int]):
    """A Ray cluster of nodes with so many processors each, beside a head that computes nothing."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for cpus in nodes:
            made.add_node(num_cpus=cpus)
        made.wait_for_nodes()
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


def scaling(backbone: str, pictures: int, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(pictures):
            paths.append(f"{folder}/{number:05}.jpg")
            Path(paths[-1]).write_bytes(picture((800, 762), number % 50) + str(number).encode())  # no copies
        built, _ = backbone_for(backbone, "none")
        from multilabel.backbones import resolve_precision

        engine = embedding.settled(built, resolve_precision("auto"))
        count = 0

        def begun() -> job.Job:
            nonlocal count
            count += 1
            out = f"{folder}/out{count}"
            model = embedding.description(engine)
            return job.begin(out, "embed", model, iter(paths), lambda at: embedding.put(engine, at), SHARD)

        def ray_of(nodes: Sequence[int]) -> float:
            taken = tempfile.mkdtemp(dir=folder)
            one = begun()
            with cluster(nodes) as address:
                start = Start(one, Pinned(nodes[0], taken))
                return steady(ray_data.run(start, range(one.manifest.shards), address), len(nodes), SHARD)

        def local_of(cores: int) -> float:
            """In a child, which has only these cores."""
            command = [sys.executable, __file__, "--local", begun().out, str(cores)]
            return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

        ways = {
            "this process, 1 core": lambda: local_of(1),
            "Ray, 1 worker of 1 core": lambda: ray_of([1]),
            "Ray, 2 workers of 1 core": lambda: ray_of([1, 1]),
            "this process, 2 cores": lambda: local_of(2),
            "Ray, 1 worker of 2 cores": lambda: ray_of([2]),
        }
        values = interleaved(ways, rounds)
    table = markdown(f"{backbone}, {pictures:,} JPEGs", "pictures/s", values, "Ray, 1 worker of 1 core")
    rate = median(values["Ray, 2 workers of 1 core"]) / 2
    return f"{table}\n\n{arithmetic(rate, built.dimension)}"


def arithmetic(rate: float, dimension: int) -> str:
    """What many pictures take at a rate per core; assumed: that it stays so, and a price."""
    lines = [
        f"| pictures, at {rate:.1f}/s a core | core-hours | on {CORES[0]:,} cores | on {CORES[1]:,} cores | features "
        f"| cost at {PRICE:g} a core-hour |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for pictures in (10**6, 10**7, 10**9):
        hours = pictures / rate / 3600
        lines.append(
            f"| {pictures:,} | {hours:,.0f} | {hours / CORES[0]:,.1f} h | {hours / CORES[1]:,.2f} h "
            f"| {pictures * dimension * 4 / 1e9:,.0f} GB | {hours * PRICE:,.2f} |"
        )
    return "\n".join(lines)


def local_rate(out: str, cores: int) -> float:
    """The rate of this process alone, on so many cores."""
    from multilabel import processors

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    processors.use(cores)
    one = job.read(out)
    return steady(local.run(Start(one, embedding.load), range(one.manifest.shards)), 1, SHARD)


class Sleeping:
    """A model that takes a time and no processor."""

    image_size = (8, 8)

    def __init__(self, seconds: float) -> None:
        import pyarrow as pa

        self.seconds, self.fields = seconds, [pa.field("slept", pa.float32())]

    def __call__(self, pixels: np.ndarray) -> list:
        import pyarrow as pa

        time.sleep(self.seconds)
        return [pa.array(np.full(len(pixels), self.seconds, np.float32))]

    def stored(self, digests: Sequence[bytes]) -> tuple[list, list]:
        return [], []


def scheduler(rounds: int) -> str:
    """Shards a second of 32 workers, for shards of several lengths, beside Ray Data alone."""
    lines = [
        f"| shard takes | {WORKERS} workers could do | Ray Data alone | ours | ours / alone |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder, cluster([8] * (WORKERS // 8)) as address:
        Image.new("RGB", (8, 8)).save(f"{folder}/picture.png")
        count = 0

        def ours(seconds: float, shards: int) -> float:
            nonlocal count
            count += 1
            paths = [f"{folder}/picture.png"] * shards
            one = job.begin(f"{folder}/out{count}", "embed", {}, iter(paths), lambda at: None, 1)
            start = Start(one, lambda _: Sleeping(seconds))
            return steady(ray_data.run(start, range(shards), address, 8), WORKERS, 1)

        def alone(seconds: float, shards: int) -> float:
            return steady(bare(seconds, shards, address), WORKERS, 1)

        for seconds in (4.0, 1.0, 0.25):
            shards = min(1200, round(20 / seconds) * WORKERS)
            ways = {"alone": partial(alone, seconds, shards), "ours": partial(ours, seconds, shards)}
            plain, own = (median(rates) for rates in interleaved(ways, rounds).values())
            ideal = WORKERS / seconds
            lines.append(f"| {seconds:g} s | {ideal:.0f}/s | {plain:.1f}/s | {own:.1f}/s | {own / plain:.2f} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def bare(seconds: float, shards: int, address: str) -> Iterable[Done]:
    """Ray Data with a function that sleeps, as its manual has it; nothing of ours."""
    with ray_data._quiet(), ray_data._cluster(address) as ray:
        ray.data.DataContext.get_current().enable_progress_bars = False

        class Sleep:
            def __call__(self, batch):
                time.sleep(seconds)
                return batch

        numbers = ray.data.from_items(list(range(shards)), override_num_blocks=shards)
        pool = ray.data.ActorPoolStrategy(size=WORKERS, max_tasks_in_flight_per_actor=2)
        slept = numbers.map_batches(Sleep, batch_size=1, num_cpus=1, compute=pool)
        for batch in slept.iter_batches(batch_size=None, prefetch_batches=0):
            for shard in batch["item"]:
                yield Done(int(shard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--pictures", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["scaling", "scheduler"])
    parser.add_argument("--local", nargs=2, metavar=("OUT", "CORES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.local:
        print(local_rate(options.local[0], int(options.local[1])))
        return
    try:
        import ray  # noqa: F401
    except ImportError:
        print("Ray is not installed: pip install -e '.[test-cluster]'")
        return
    print(machine())
    if options.only != "scheduler":
        print("\n" + scaling(options.backbone, options.pictures, options.rounds), flush=True)
    if options.only != "scaling":
        print("\n" + scheduler(options.rounds))


if __name__ == "__main__":
    main()
