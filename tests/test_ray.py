"""Jobs on Ray clusters whose machines are lost; each test is a cluster of several nodes on this machine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from multilabel.cli import main

pytestmark = pytest.mark.slow

SAME = 1e-6


@pytest.fixture(scope="module", autouse=True)
def quiet_ray() -> None:
    pytest.importorskip("ray", reason="pip install -e '.[test-cluster]'")
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")  # nothing is written to the home folder


class Nodes:
    """A cluster whose head computes nothing, and nodes of one processor each, which can be killed and replaced."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(count)]
        self.cluster.wait_for_nodes()
        self.address = self.cluster.address

    def kill(self, number: int) -> None:
        """SIGKILL to all processes of a node, workers included, and a new one in its place."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self.cluster.add_node(num_cpus=1)

    def close(self) -> None:
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes(3)
    yield nodes
    nodes.close()


def started(*arguments: object) -> subprocess.Popen[str]:
    """A command, as a user types it."""
    command = [sys.executable, "-m", "multilabel", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def here(*arguments: object) -> str:
    """The same, in this process, which has loaded TensorFlow."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def finished(process: subprocess.Popen[str], seconds: float = 560) -> str:
    output, said = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return output


def parts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(out.glob("part-*"))}


def assert_same(one: Path, two: Path) -> None:
    """The same rows in the same order, row for row."""
    a, b = pd.read_parquet(one), pd.read_parquet(two)
    assert a.columns.to_list() == b.columns.to_list()
    for column in a:
        if a[column].dtype == "float32":
            np.testing.assert_allclose(a[column], b[column], rtol=0, atol=SAME)
        elif column == "feature":
            known = a["error"].isna()
            ours, theirs = (np.stack(frame["feature"][known].to_list()) for frame in (a, b))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=SAME * np.abs(theirs).max())
        else:
            pd.testing.assert_series_equal(a[column], b[column])


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    arguments = ["--backbone", "cnn", "--names", "long_sleeves,stripes,buttons,heart", "--out", out]
    here("fit", "--labels", root / "data" / "labels.txt", *arguments)
    return out


@pytest.fixture(scope="module")
def fashion(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 6,000 real pictures, and three that cannot be read."""
    folder = tmp_path_factory.mktemp("fashion")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    found = sorted(str(path) for path in (shared / "data" / "fashion" / "images").iterdir())
    listed = [*found[:1000], str(folder / "broken.jpg"), *found[1000:4000], str(folder / "absent.jpg"), *found[4000:]]
    (folder / "list.txt").write_text("\n".join([*listed, str(folder)]))
    return folder / "list.txt"


@pytest.fixture(scope="module")
def predicted(model: Path, fashion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one machine predicts."""
    out = tmp_path_factory.mktemp("predicted") / "local"
    said = here("infer", fashion, "--model", model, "--format", "parquet", "--output", out)
    assert f"{out}: 6,003 rows, 3 with an error;" in said
    return out


def infer(fashion: Path, model: Path, out: Path, nodes: Nodes, *more: object) -> subprocess.Popen[str]:
    arguments = ["infer", fashion, "--model", model, "--output", out, "--engine", "ray", "--address", nodes.address]
    return started(*arguments, *more)


def test_three_nodes_write_what_one_machine_writes(nodes, model, fashion, predicted, tmp_path):
    said = finished(infer(fashion, model, tmp_path / "out", nodes))
    assert_same(tmp_path / "out", predicted)
    assert "6,003 rows, 3 with an error;" in said
    shares = [int(share) for share in re.findall(r"\) (\d+)%", said.splitlines()[-1])]
    assert len(shares) == 3
    assert 98 <= sum(shares) <= 102
    assert not list((tmp_path / "out").glob(".*"))


def test_ten_nodes_are_killed(nodes, model, fashion, predicted, tmp_path):
    """At random moments, each with the shard that it has in hand; and in the end nothing is lost or doubled."""
    chance, out = random.Random(0), tmp_path / "out"
    process = infer(fashion, model, out, nodes, "--shard-size", "40")
    reader = threading.Thread(target=lambda: setattr(process, "said", process.communicate()))
    reader.start()
    kills: list[int] = []
    while len(kills) < 10 and process.poll() is None:
        before = len(parts(out))
        # New workers take seconds to begin; then a moment amid their work.
        while process.poll() is None and len(parts(out)) < before + 4:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if process.poll() is None:
            kills.append(len(parts(out)))
            nodes.kill(chance.randrange(3))
    reader.join()
    output, said = process.said  # type: ignore[attr-defined]
    assert process.returncode == 0, said
    assert len(kills) == 10
    print(f"\nnodes were killed when so many of 151 parts were there: {kills}")
    assert_same(out, predicted)
    assert "6,003 rows, 3 with an error;" in output
    assert "Traceback" not in said
    assert len(parts(out)) == 151
    assert all(path.name.startswith(".new-") for path in out.glob(".*"))  # a later run sweeps them


def test_the_driver_is_killed(nodes, model, fashion, predicted, tmp_path):
    """Then the same command, and then, for the rest, the same command without Ray."""
    out = tmp_path / "out"
    process = infer(fashion, model, out, nodes, "--shard-size", "40")
    while len(parts(out)) < 30:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(3)  # Ray ends the workers of a driver that is gone
    kept = parts(out)
    assert 30 <= len(kept) < 151
    said = here("infer", fashion, "--model", model, "--format", "parquet", "--output", out)
    assert {name: time for name, time in parts(out).items() if name in kept} == kept
    assert f"{sum(40 if name != 'part-0000150.parquet' else 3 for name in kept):,} were there already." in said
    assert_same(out, predicted)


def test_what_stops_a_job_is_one_sentence(nodes, model, fashion, tmp_path):
    out = tmp_path / "out"
    process = infer(fashion, model, out, nodes, "--shard-size", "40")
    while len(parts(out)) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    out.rename(tmp_path / "lost")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    (sentence,) = [line for line in said.splitlines() if line.startswith("Error")]
    assert re.fullmatch(
        rf"Error: [\d.]+ \(\w+\): {out}/_job/manifest\.json cannot be read \(no such file\); it has to be in a folder "
        r"that every machine of the job sees, or a URL\.",
        sentence,
    )
    assert "Traceback" not in said
    assert not out.exists()


def test_ctrl_c(nodes, model, fashion, tmp_path):
    out = tmp_path / "out"
    process = infer(fashion, model, out, nodes, "--shard-size", "40")
    while len(parts(out)) < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert re.fullmatch(rf"Stopped; [\d,]+ of 6,003 rows are in {out}, and the same command continues\.", last)
    assert "Traceback" not in said


def test_a_cluster_of_this_machine_embeds(root, tmp_path):
    """Without --address; and heads train on what comes back."""
    arguments = ["embed", root / "data" / "images", "--backbone", "cnn", "--shard-size", "50", "--out"]
    finished(started(*arguments, tmp_path / "ray", "--engine", "ray", "--workers-per-node", "2"))
    here(*arguments, tmp_path / "local", "--cache", tmp_path / "none")
    assert_same(tmp_path / "ray", tmp_path / "local")
    fit = ["fit", "--labels", root / "data" / "labels.txt", "--cache", tmp_path / "cache", "--out", tmp_path / "model"]
    here(*fit, "--features", tmp_path / "ray")
    assert json.loads((tmp_path / "model" / "multilabel.json").read_text())["provenance"]["pictures"]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", r"--address 127\.0\.0\.1:1: no Ray cluster answers \(.*\); start one with .*\."),
        ("ray://10.0.0.1:1", r"--address ray://10\.0\.0\.1:1: run the command on the cluster, or with .*"),
    ],
)
def test_a_cluster_that_is_not_there(address, sentence, root, tmp_path):
    arguments = ["embed", root / "data" / "images", "--backbone", "cnn", "--out", tmp_path / "out"]
    process = started(*arguments, "--engine", "ray", "--address", address)
    _, said = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert re.fullmatch(f"Error: {sentence}", said.splitlines()[-1])


def test_an_object_store(root, tmp_path, monkeypatch):
    """Pictures from and parts to `s3://`, on an S3 server of this machine."""
    server = pytest.importorskip("moto.server", reason="pip install -e '.[test-cluster]'")
    s3fs = pytest.importorskip("s3fs", reason="pip install -e '.[test-cluster]'")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    serving = server.ThreadedMotoServer("127.0.0.1", 0)
    serving.start()
    host, port = serving.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    try:
        store = s3fs.S3FileSystem(skip_instance_cache=True)
        store.mkdir("bucket")
        store.put(str(root / "data" / "images"), "bucket/photos", recursive=True)
        arguments = ["--backbone", "cnn", "--shard-size", "100"]
        run = ["embed", "s3://bucket/photos/", *arguments, "--out", "s3://bucket/features"]
        assert "397 rows, 1 with an error;" in finished(started(*run, "--engine", "ray"))
        assert "397 were there already." in here(*run)
        here("embed", root / "data" / "images", *arguments, "--out", tmp_path / "local")
        store.get("bucket/features", str(tmp_path / "features"), recursive=True)
        there, local = pd.read_parquet(tmp_path / "features"), pd.read_parquet(tmp_path / "local")
        assert there["path"].to_list() == [f"s3://bucket/photos/{Path(path).name}" for path in local["path"]]
        known = local["error"].isna()
        np.testing.assert_allclose(
            np.stack(there["feature"][known].to_list()), np.stack(local["feature"][known].to_list()), atol=SAME
        )
        fit = ["fit", "--labels", root / "data" / "labels.txt", "--features", "s3://bucket/features", "--epochs", "2"]
        here(*fit, "--cache", tmp_path / "cache", "--out", tmp_path / "model")
    finally:
        serving.stop()
