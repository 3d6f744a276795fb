"""Time and peak memory of features against the number of pictures: a line, and a constant.

    python tests/benchmarks/bench_growth.py [--counts 1000,10000,100000]

The pictures are those of data/, each copy with a comment of its own, so that all are different files. Every count runs
in a process of its own: reading, hashing, decoding, the embedded `cnn`, and the store.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_folds import write_pictures
from table import machine

_EXTRACT = """
import resource, sys, time
from multilabel.backbones import build_backbone
from multilabel.engine import Engine
from multilabel.features import FeatureStore, extract
folder, count = sys.argv[1], int(sys.argv[2])
engine = Engine(build_backbone("cnn", "embedded"))
with FeatureStore(f"{folder}/cache-{count}", engine) as store:
    started = time.perf_counter()
    found = extract(engine, [f"{folder}/images/{number}.jpg" for number in range(count)], store)
assert found.computed == count
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts", default="1000,10000,100000")
    counts = [int(count) for count in parser.parse_args().counts.split(",")]
    print(f"\n`cnn` at 80×60, float32; {machine()}, one run\n")
    print("| pictures | seconds | pictures/s | peak memory, MiB | ratio to the first |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "images", max(counts))
        first = None
        for count in counts:
            command = [sys.executable, "-c", _EXTRACT, folder, str(count)]
            seconds, memory = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split()[-2:])
            first = first or memory
            print(f"| {count:,} | {seconds:.1f} | {count / seconds:,.0f} | {memory:.0f} | {memory / first:.2f} |")


if __name__ == "__main__":
    main()
