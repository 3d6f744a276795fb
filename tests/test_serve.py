"""`multilabel serve` in a process of its own, with real models, as a user runs it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from serving import FORM, Running, form, picture, served

from multilabel.cli import main

pytestmark = pytest.mark.slow  # every server loads TensorFlow
NAMES = ["garment_000.jpg", "garment_001.jpg", "garment_002.jpg", "garment_003.jpg", "garment_004.jpg"]


def multilabel(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multilabel", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Path]:
    """A bundle for each precision."""
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for precision, backbone in (("float32", "cnn"), ("bfloat16", "mobilenet_v2")):
        made[precision] = folder / precision
        options = [
            "--backbone",
            backbone,
            "--folds",
            0,
            "--epochs",
            3,
            "--precision",
            precision,
            "--cache",
            folder / "c",
        ]
        options += ["--weights", "none", "--image-size", "96"] if backbone != "cnn" else []
        done = multilabel("fit", "--labels", root / "data" / "labels.txt", "--out", made[precision], *options)
        if "does not compute in it" in done.stderr:
            del made[precision]
            continue
        assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def server(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(models["float32"], tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_infer_single_requests_and_a_batch_say_the_same(
    models: dict[str, Path], root: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    if precision not in models:
        pytest.skip(f"this machine does not compute in {precision}")
    files = [(name, (root / "data" / "images" / name).read_bytes()) for name in NAMES * 4]
    paths = [str(root / "data" / "images" / name) for name in NAMES * 4]
    done = multilabel("infer", "--model", models[precision], "--format", "json", *paths)
    expected = [said["attributes"] for said in json.loads(done.stdout)]
    with served(models[precision], tmp_path / "log") as server:
        batch = server.ask("predict", form(*files))[1]["pictures"]
        single = [server.ask("predict", form(file))[1]["pictures"][0] for file in files]
        in_json = [{"name": name, "data": base64.b64encode(data).decode()} for name, data in files]
        body = json.dumps({"files": in_json}).encode()
        decoded = server.ask("predict", body, {"Content-Type": "application/json"})[1]["pictures"]
    for answers in (batch, single, decoded):
        for said, wanted in zip(answers, expected, strict=True):
            for name, values in wanted.items():
                assert said["attributes"][name]["probability"] == pytest.approx(values["probability"], abs=tolerance)
                assert said["attributes"][name]["threshold"] == values["threshold"]


def test_overlays_show_what_explain_shows(server: Running, root: Path) -> None:
    data = (root / "data" / "images" / NAMES[0]).read_bytes()
    known = [attribute["name"] for attribute in server.ask("model")[1]["attributes"]]
    status, said = server.ask(f"predict?explain={known[0]}", form(("a.jpg", data)))
    assert status == 200
    explanation = said["pictures"][0]["explanation"]
    assert (explanation["name"], explanation["exact"]) == (known[0], True)
    overlay = Image.open(io.BytesIO(base64.b64decode(explanation["overlay"].partition(",")[2])))
    assert (overlay.mode, overlay.size[::-1]) == ("RGBA", tuple(server.ask("model")[1]["image_size"]))
    red, blue = (np.asarray(overlay)[..., channel].astype(int) for channel in (0, 2))
    assert np.asarray(overlay)[..., 3].max() > 200
    assert (red != blue).any()
    many = server.ask(f"predict?explain={known[1]}", form(*[(str(number), data) for number in range(20)]))[1][
        "pictures"
    ]
    assert len({said["explanation"]["overlay"] for said in many}) == 1


def test_the_model_tells_its_scores_beside_chance(server: Running, models: dict[str, Path]) -> None:
    said = server.ask("model")[1]
    described = json.loads((models["float32"] / "multilabel.json").read_text())
    assert said["sha256"] == described["weights_sha256"]
    assert [known["threshold"] for known in said["attributes"]] == [item["value"] for item in described["thresholds"]]
    (part,) = said["scores"]
    assert {"value", "low", "high", "chance"} <= set(part["attributes"]["attr1"]["roc_auc"])
    assert said["explains"] is True


def test_term_under_load_answers_what_was_accepted(models: dict[str, Path], root: Path, tmp_path: Path) -> None:
    body = form(*[(name, (root / "data" / "images" / name).read_bytes()) for name in NAMES])
    with served(models["float32"], tmp_path / "log") as server:
        place = urlsplit(server.url)
        accepted = threading.Semaphore(0)

        def ask(_: int) -> int | str:
            connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
            try:
                connection.connect()
                connection.putrequest("POST", "/predict")
                for name, value in {**FORM, "Content-Length": str(len(body))}.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                accepted.release()
                return connection.getresponse().status
            except ConnectionRefusedError:
                return "refused"

        with ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(ask, number) for number in range(24)]
            for _ in range(24):
                accepted.acquire(timeout=30)
            code = server.stop()
            statuses = [answer.result(30) for answer in answers]
        assert set(statuses) <= {200, 503}, statuses
        assert 200 in statuses
        assert code == 0
        assert "Traceback" not in server.log.read_text()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=5)


def test_load_loses_nothing_and_memory_stays_flat(server: Running, root: Path) -> None:
    good = [form((name, (root / "data" / "images" / name).read_bytes())) for name in NAMES]
    broken = form(("b.jpg", b"\xff\xd8 broken"))

    def ask(seconds: float, seed: int) -> list[tuple[bool, int]]:
        rng, seen, until = np.random.default_rng(seed), [], time.monotonic() + seconds
        place = urlsplit(server.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=30)
        while time.monotonic() < until:
            is_broken = rng.random() < 0.05
            connection.request("POST", "/predict", broken if is_broken else good[rng.integers(len(good))], FORM)
            answer = connection.getresponse()
            answer.read()
            seen.append((is_broken, answer.status))
        return seen

    def load(seconds: float) -> list[tuple[bool, int]]:
        with ThreadPoolExecutor(16) as pool:
            return [one for seen in pool.map(lambda seed: ask(seconds, seed), range(16)) for one in seen]

    load(4)
    before = server.resident()
    seen = load(10)
    assert {status for is_broken, status in seen if not is_broken} <= {200, 503}
    assert {status for is_broken, status in seen if is_broken} <= {422, 503}
    assert len(seen) > 200
    assert server.resident() < before + 60


def test_a_slow_body_is_cut_off_and_others_are_answered_meanwhile(models: dict[str, Path], tmp_path: Path) -> None:
    with served(models["float32"], tmp_path / "log", "--timeout", 1) as server:
        place = urlsplit(server.url)
        with socket.create_connection((str(place.hostname), int(place.port or 0))) as slow:
            head = [
                "POST /predict HTTP/1.1",
                "Host: x",
                f"Content-Type: {FORM['Content-Type']}",
                "Content-Length: 9999",
            ]
            slow.sendall("\r\n".join([*head, "", "--frontier\r\n"]).encode())
            assert server.ask("predict", form(("a.png", picture())))[0] == 200
            slow.settimeout(10)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert server.ask("healthz")[0] == 200


def test_a_head_without_end_is_cut_off(server: Running) -> None:
    place, before = urlsplit(server.url), server.resident()
    for start in (b"GET /model HTTP/1.1\r\nX-Long: ", b"GET /"):
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=10) as endless:
            endless.sendall(start)
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                endless.sendall(b"a" * 100_000_000)
    assert server.resident() < before + 30
    assert server.ask("predict", form(("a.png", picture(size=(2000, 1500)))))[0] == 200


def test_it_stops_for_a_person(models: dict[str, Path], tmp_path: Path) -> None:
    with served(models["float32"], tmp_path / "log") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        assert server.log.read_text().endswith("Stopped; what was accepted is answered.\n")


def test_a_schema_test_finds_nothing(server: Running, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="needs schemathesis: pip install schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}openapi.json", "--seed", "0"]
    # What bytes are a picture no schema can say, so that what fits it may be refused.
    command += ["--max-examples", "60", "--exclude-checks", "positive_data_acceptance", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert server.ask("healthz")[0] == 200


def test_exports_are_served_without_tensorflow(models: dict[str, Path], root: Path, tmp_path: Path) -> None:
    for package in ("openvino", "onnxruntime"):
        pytest.importorskip(package, reason="the runtimes are not installed: pip install -e '.[test-exports]'")
    file = tmp_path / "m.xml"
    done = multilabel("export", "--model", models["float32"], "--format", "openvino", "--out", file)
    assert done.returncode == 0, done.stderr
    path = root / "data" / "images" / NAMES[0]
    expected = json.loads(multilabel("infer", "--model", file, "--format", "json", path).stdout)[0]["attributes"]
    with served(file, tmp_path / "log") as server:
        said = server.ask("predict", form((NAMES[0], path.read_bytes())))[1]["pictures"][0]["attributes"]
        for name, values in expected.items():
            assert said[name]["probability"] == pytest.approx(values["probability"], abs=1e-6)
        status, refusal = server.ask("predict?explain=attr1", form((NAMES[0], path.read_bytes())))
        assert (status, refusal["error"]) == (
            422,
            "This server explains nothing, as only a bundle in TensorFlow can; leave out explain.",
        )
        assert "libtensorflow" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import multilabel.server as server

    monkeypatch.setattr(server, "find_spec", lambda name: None if name in ("fastapi", "uvicorn") else name)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2
    assert result.output == (
        "Error: serve needs fastapi, uvicorn, not installed here; install with `pip install 'multilabel[serve]'`.\n"
    )


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--model", "none"], 1, "none is not a bundle (it does not exist); make one with `multilabel fit`."),
        (["--api-key-file", "none"], 1, "--api-key-file none cannot be read (No such file or directory); give"),
        (["--cors-origin", "foo"], 2, "--cors-origin foo: expected a scheme and a host, such as https://example.org."),
        (["--runtime", "litert"], 2, "Invalid value for '--runtime'"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_sentence(tmp_path: Path, options: list[str], code: int, sentence: str) -> None:
    done = multilabel("serve", "--port", 0, *options, cwd=tmp_path)
    assert (done.returncode, re.search("Traceback", done.stderr)) == (code, None)
    assert sentence in done.stderr
