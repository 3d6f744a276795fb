"""The API around a model of NumPy: what is asked, what is answered, what is refused and how."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import struct
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from broken_pictures import broken_pictures
from PIL import Image
from serving import BOUNDARY, FORM, MeanModel, form, picture
from starlette.testclient import TestClient

from multilabel.errors import DataError, UsageError
from multilabel.inference import predict, record_of
from multilabel.server import listen, read_key, url_of
from multilabel.server.app import create_app
from multilabel.server.limits import Limits
from multilabel.server.service import Service
from multilabel.server.watch import Numbers

ABOUT = {"run_name": "means", "attributes": []}
KEY = "0123456789abcdef"
JSON = {"Content-Type": "application/json"}


def application(model: Any = None, limits: Limits | None = None, *, explains: bool = False, **options: Any) -> Any:
    numbers = Numbers(lambda: service.batcher.taken)
    service = Service(model or MeanModel(), limits or Limits(), explains=explains, on_batch=numbers.batches.observe)
    app = create_app(service, numbers, ABOUT, **options)
    app.state.service = service
    return app


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(application()) as client:
        yield client


def refused(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert said["request_id"] == answer.headers["x-request-id"]
    return str(said["error"])


def in_json(*files: tuple[str, bytes]) -> bytes:
    pictures = [{"name": name, "data": base64.b64encode(data).decode()} for name, data in files]
    return json.dumps({"files": pictures}).encode()


# What is answered


def test_a_form_is_answered_as_infer_would(client: TestClient, tmp_path: Path) -> None:
    files = [(f"{red}.png", picture((red, 90, 10))) for red in (0, 90, 200, 255)]
    for name, data in files:
        (tmp_path / name).write_bytes(data)
    answer = client.post("/predict", content=form(*files), headers=FORM)
    assert answer.status_code == 200
    model = MeanModel()
    expected = [record_of(said, model) for said in predict(model, [str(tmp_path / name) for name, _ in files])]
    for record, (name, _) in zip(expected, files, strict=True):
        record["image"] = name
    assert answer.json() == {"pictures": expected}
    assert answer.json()["pictures"][2]["present"] == ["red", "green"]
    assert answer.json()["pictures"][0]["tags"]["tone"]["class"] == "dark"


def test_json_is_answered_as_a_form(client: TestClient) -> None:
    files = [("a.png", picture()), ("", picture((1, 2, 3)))]
    in_form = client.post("/predict", content=form(*files), headers=FORM).json()
    assert client.post("/predict", content=in_json(*files), headers=JSON).json() == in_form
    lines = json.loads(in_json(*files))
    lines["files"][0]["data"] = "\n".join(lines["files"][0]["data"][start : start + 20] for start in range(0, 2000, 20))
    assert client.post("/predict", json=lines).json() == in_form


def test_a_broken_picture_does_not_fail_its_neighbours(client: TestClient) -> None:
    answer = client.post("/predict", content=form(("a.png", picture()), ("b.png", b"x"), ("c.png", b"")), headers=FORM)
    assert answer.status_code == 200
    good, broken, empty = answer.json()["pictures"]
    assert good["error"] is None
    assert broken == {
        "image": "b.png",
        "error": "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)",
        "present": None,
        "attributes": None,
        "tags": None,
    }
    assert empty["error"] == "the file is empty"


def test_nothing_but_broken_pictures_is_refused_unless_tolerated(client: TestClient) -> None:
    one, two = form(("b.png", b"x")), form(("b.png", b"x"), ("c.png", b""))
    reason = "not a picture that can be read (expected JPEG, PNG, WebP, GIF, BMP or TIFF)"
    assert refused(client.post("/predict", content=one, headers=FORM), 422) == f"The picture cannot be read: {reason}."
    answer = client.post("/predict", content=two, headers=FORM)
    assert refused(answer, 422) == f"None of the 2 pictures can be read; the first: {reason}."
    assert [said["error"] for said in answer.json()["pictures"]] == [reason, "the file is empty"]
    tolerated = client.post("/predict?tolerant=true", content=two, headers=FORM)
    assert (tolerated.status_code, tolerated.json()["pictures"]) == (200, answer.json()["pictures"])


@pytest.mark.parametrize(
    "name", ["фото.png", "a b.png", "../../etc/passwd", '<img src=x onerror="alert(1)">.png', "a\\b"]
)
def test_names_are_given_back_as_they_came(client: TestClient, name: str) -> None:
    answer = client.post("/predict", content=in_json((name, picture())), headers=JSON)
    assert answer.json()["pictures"][0]["image"] == name


def test_a_whole_batch_says_what_single_pictures_do(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    files = [(f"{i}.png", picture(tuple(rng.integers(0, 256, 3).tolist()))) for i in range(32)]
    batch = client.post("/predict", content=form(*files), headers=FORM).json()["pictures"]
    single = [client.post("/predict", content=form(file), headers=FORM).json()["pictures"][0] for file in files]
    assert batch == single


def test_health_model_and_page(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/model").json() == ABOUT
    for path, kind in {
        "/": "text/html",
        "/page.css": "text/css",
        "/page.js": "text/javascript",
        "/docs": "text/html",
    }.items():
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert not re.search(r"(src|href)=[\"']?(https?:)?//", answer.text)


def test_every_answer_has_an_id_and_lets_a_browser_load_nothing_else(client: TestClient) -> None:
    for path in ("/", "/page.js", "/model", "/nowhere", "/docs"):
        headers = client.get(path).headers
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    assert "unsafe" not in client.get("/").headers["content-security-policy"]
    assert client.get("/model", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/model", headers={"X-Request-ID": "no good\x7f"}).headers["x-request-id"] != "no good\x7f"


def test_numbers_for_prometheus() -> None:
    with TestClient(application()) as client:
        client.post("/predict", content=form(("a.png", picture()), ("b.png", b"x")), headers=FORM)
        client.post("/predict", content=b"", headers=FORM)
        client.get("/some/path")
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'multilabel_requests_total{path="/predict",status="200"} 1.0',
        'multilabel_requests_total{path="/predict",status="422"} 1.0',
        'multilabel_requests_total{path="other",status="404"} 1.0',
        'multilabel_pictures_total{outcome="predicted"} 1.0',
        'multilabel_pictures_total{outcome="unreadable"} 1.0',
        'multilabel_request_seconds_count{path="/predict"} 2.0',
        "multilabel_pictures_waiting 0.0",
    ):
        assert line in lines
    batches = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("multilabel_batch_size_")}
    assert batches["multilabel_batch_size_sum"] == 63 + 1  # those of the warm-up, and one


def test_the_log_tells_of_requests_and_nothing_of_pictures(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "multilabel.requests"):
        client.post("/predict?explain=secret-name", content=form(("secret.png", picture())), headers=FORM)
        client.post("/predict", content=form(("secret.png", picture())), headers=FORM)
        client.get("/secret")
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 422),
        ("POST", "/predict", 200),
        ("GET", "other", 404),
    ]
    assert (lines[1]["pictures"], lines[1]["unreadable"]) == (1, 0)
    assert "secret" not in caplog.text


def test_the_document_describes_the_answers(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/predict", "/model", "/healthz", "/readyz", "/metrics"}
    asked = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(asked) == {"multipart/form-data", "application/json"}
    assert "securitySchemes" not in document["components"]  # there is no key
    example = asked["application/json"]["example"]
    assert client.post("/predict", json=example).json()["pictures"][0]["error"] is None


# What is refused


@pytest.mark.parametrize(
    ("body", "headers", "status", "sentence"),
    [
        (b"x", {}, 415, "The content type is not said; send pictures as multipart/form-data or application/json."),
        (
            b"x",
            {"Content-Type": "image/png"},
            415,
            "The content type is image/png; send pictures as multipart/form-data or application/json.",
        ),
        (form(), FORM, 422, "There is no picture in the field files; add one or more files."),
        (b"", FORM, 422, "The form ends too soon; send it whole."),
        (form(("a.png", b"x"))[:-4], FORM, 422, "The form ends too soon; send it whole."),
        (
            form(("a.png", b"x"), field="file"),
            FORM,
            422,
            "The form has a field 'file'; send files alone, in the field files.",
        ),
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--{BOUNDARY}--\r\n'.encode(),
            FORM,
            422,
            "A part of the form is no file; send files alone, in the field files.",
        ),
        (
            b"x",
            {"Content-Type": "multipart/form-data"},
            422,
            "The form cannot be read (Missing boundary in multipart); is it multipart/form-data?",
        ),
        (
            b"nothing of the kind",
            FORM,
            422,
            "The form cannot be read (Invalid multipart data); is it multipart/form-data?",
        ),
        (
            b'{"files": []}',
            JSON,
            422,
            "The JSON cannot be used: files: List should have at least 1 item after validation, not 0.",
        ),
        (b"{}", JSON, 422, "The JSON cannot be used: files: Field required."),
        (
            b'{"files": [{"data": "?"}]}',
            JSON,
            422,
            "The JSON cannot be used: files.0.data: is not base64; send that alone, without `data:`.",
        ),
        (
            b'{"files": [{"data": "", "more": 1}]}',
            JSON,
            422,
            "The JSON cannot be used: files.0.more: Extra inputs are not permitted.",
        ),
        (in_json(*[("", b"x")] * 33), JSON, 413, "The request has more than 32 files; send them in several requests."),
        (form(*[("", b"x")] * 33), FORM, 413, "The request has more than 32 files; send them in several requests."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(
    client: TestClient, body: bytes, headers: dict[str, str], status: int, sentence: str
) -> None:
    assert refused(client.post("/predict", content=body, headers=headers), status) == sentence


def test_json_that_is_none(client: TestClient) -> None:
    sentence = refused(client.post("/predict", content=b"{", headers=JSON), 422)
    assert sentence.startswith("The JSON cannot be used: the body: Invalid JSON")


def test_names_are_utf8_whatever_the_client_says(client: TestClient) -> None:
    for charset in ("undefined", "unicode_escape", "utf-7"):
        headers = {"Content-Type": f"{FORM['Content-Type']}; charset={charset}"}
        sentence = refused(client.post("/predict", content=form(("a.png", picture())), headers=headers), 422)
        assert sentence == "The form names a charset; leave it out, names are in UTF-8."
    odd = form(("a.png", picture())).replace(b"a.png", b"\xff\xed\xa0\x80.png")
    assert client.post("/predict", content=odd, headers=FORM).status_code == 200


def test_json_of_many_small_parts_is_refused_before_it_is_parsed(client: TestClient) -> None:
    for part in (b'{"data":""},', b"[0],", b'{"x":{"x":{"x":[]}}},'):
        started = time.perf_counter()
        answer = client.post("/predict", content=b'{"files":[' + part * 2_000_000 + b"0]}", headers=JSON)
        assert refused(answer, 413) == "The request has more than 32 files; send them in several requests."
        assert time.perf_counter() - started < 3


def test_paths_and_methods_that_are_not_there(client: TestClient) -> None:
    assert refused(client.get("/nowhere"), 404) == "There is nothing at this path; see /docs."
    assert refused(client.get("/predict"), 405) == "This path takes another method; see /docs."
    sentence = refused(client.post("/predict?tolerant=perhaps", content=form(("a", b"")), headers=FORM), 422)
    assert sentence.startswith("The request cannot be used: query.tolerant: ")


def test_explanations_that_cannot_be_had() -> None:
    for explains, sentence in (
        (False, "This server explains nothing, as only a bundle in TensorFlow can; leave out explain."),
        (True, "There is nothing called 'blue' to explain; the model knows red, green, tone."),
    ):
        with TestClient(application(explains=explains)) as client:
            answer = client.post("/predict?explain=blue", content=form(("a.png", picture())), headers=FORM)
            assert refused(answer, 422) == sentence


def test_too_much_of_something() -> None:
    limits = Limits(file_bytes=1000, files=3, body_bytes=3000, pixels=500)
    with TestClient(application(limits=limits)) as client:

        def ask(*files: tuple[str, bytes]) -> httpx.Response:
            return client.post("/predict", content=form(*files), headers=FORM)

        small = ("a.png", picture())
        too_many_bytes = ask(small, ("b.png", bytes(1500))).json()["pictures"][1]["error"]
        assert too_many_bytes == "the file has 0.0015 MB, the limit is 0.001; save it smaller"
        too_many_pixels = ask(small, ("b.png", picture(size=(40, 40)))).json()["pictures"][1]["error"]
        assert too_many_pixels == (
            "the picture has 0.0 megapixels, the limit is 0.0 (a decompression bomb?); save it smaller"
        )
        large = "The request has more than 0.003 MB; send fewer pictures, or smaller ones."
        assert refused(ask(("b.png", bytes(4000))), 413) == large

        def unannounced() -> Iterator[bytes]:
            yield from (form(("b.png", bytes(4000)))[start : start + 500] for start in range(0, 4500, 500))

        assert refused(client.post("/predict", content=unannounced(), headers=FORM), 413) == large
        assert ask(small).status_code == 200


def test_a_key_guards_questions_but_not_the_page_or_health() -> None:
    with TestClient(application(key=KEY)) as client:
        body = form(("a.png", picture()))
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": "ключ".encode()}, {"Authorization": f"Basic {KEY}"}):
            sentence = "The key is missing or wrong; send it in the header X-API-Key."
            assert refused(client.post("/predict", content=body, headers={**FORM, **headers}), 401) == sentence
            assert refused(client.get("/model", headers=headers), 401) == sentence
            assert refused(client.get("/metrics", headers=headers), 401) == sentence
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {KEY}"}):
            assert client.post("/predict", content=body, headers={**FORM, **headers}).status_code == 200
            assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/openapi.json").json()["components"]["securitySchemes"]
        for path in ("/", "/healthz", "/readyz", "/docs"):
            assert client.get(path).status_code == 200


def test_other_sites_may_ask_only_if_they_are_named() -> None:
    asked = {"Origin": "https://there.example", "Access-Control-Request-Method": "POST"}
    with TestClient(application(origins=["https://there.example"])) as client:
        assert client.options("/predict", headers=asked).headers["access-control-allow-origin"] == asked["Origin"]
        assert client.options("/predict", headers={**asked, "Origin": "https://x.example"}).status_code == 400
    with TestClient(application()) as client:
        assert "access-control-allow-origin" not in client.options("/predict", headers=asked).headers


@dataclass(frozen=True)
class SlowModel(MeanModel):
    """Takes its time, once it is warm."""

    seconds: float = 0.3

    def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        if pixels.any():
            time.sleep(self.seconds)
        return super().probabilities(pixels)


def test_a_full_house_tells_to_come_again_and_loses_nobody() -> None:
    with TestClient(application(SlowModel(), Limits(waiting=4, files=2))) as client:
        body = form(("a.png", picture()), ("b.png", picture()))
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.post, "/predict", content=body, headers=FORM) for _ in range(8)]
            answers = [answer.result() for answer in asked]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 2
        turned_away = answers[statuses.index(503)]
        assert turned_away.headers["retry-after"] == "1"
        assert refused(turned_away, 503) == "The server has more to do than can wait; ask again in a second."
        assert client.post("/predict", content=body, headers=FORM).status_code == 200


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    with TestClient(application(SlowModel(seconds=1.5), Limits(seconds=0.2))) as client:
        assert client.post("/predict", content=form(("a.png", picture())), headers=FORM).status_code == 503


def test_a_body_that_takes_too_long_and_bodies_that_are_too_much_together() -> None:
    body = form(("a.png", picture()))

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:50]
        await asyncio.sleep(0.6)
        yield body[50:]

    async def ask(limits: Limits, count: int) -> list[httpx.Response]:
        app = application(limits=limits)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                asked = [client.post("/predict", content=slowly(), headers=FORM) for _ in range(count)]
                return list(await asyncio.gather(*asked))

    (late,) = asyncio.run(ask(Limits(seconds=0.2), 1))
    assert refused(late, 408) == "The request took longer than 0.2 seconds to arrive; send less."
    answers = asyncio.run(ask(Limits(held_bytes=2 * len(body) + 100, body_bytes=2 * len(body)), 5))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 503, 503, 503]


def test_a_model_that_fails_is_a_sentence_and_its_reason_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass(frozen=True)
    class Failing(MeanModel):
        def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            if pixels.any():
                raise RuntimeError("out of order")
            return super().probabilities(pixels)

    with TestClient(application(Failing())) as client, caplog.at_level(logging.INFO, "multilabel.requests"):
        answer = client.post("/predict", content=form(("a.png", picture())), headers=FORM)
        assert refused(answer, 500) == "The server failed; its log says more under this request_id."
        assert json.loads(caplog.records[-1].message)["error"] == "RuntimeError: out of order"
        assert client.post("/predict", content=form(("a.png", picture((0, 0, 0)))), headers=FORM).status_code == 200


def test_a_model_that_never_gets_warm_is_not_ready() -> None:
    class Never(MeanModel):
        def probabilities(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            raise RuntimeError("cold")

    with TestClient(application(Never())) as client:
        time.sleep(0.2)
        assert refused(client.get("/readyz"), 503) == "The model fails; the server's log says how."
        assert client.get("/healthz").status_code == 200


# What is hostile


def test_no_picture_is_written_to_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file is made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 4_000_000
    answer = client.post("/predict", content=form(("a.png", file.getvalue())), headers=FORM)
    assert answer.status_code == 200


@pytest.mark.parametrize(("name", "data"), list(broken_pictures(40)))
def test_every_broken_picture_is_refused(client: TestClient, name: str, data: bytes) -> None:
    refused(client.post("/predict", content=form((name, data)), headers=FORM), 422)


def huge(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says that it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def test_bombs_are_refused_by_their_header(client: TestClient) -> None:
    for data in (huge(30_000, 30_000), huge(30_000, 30_000, bytes(20_000_000)), huge(8_000, 8_000, bytes(1000))):
        started = time.perf_counter()
        sentence = refused(client.post("/predict", content=form(("a.png", data)), headers=FORM), 422)
        assert "megapixels, the limit is 50.0 (a decompression bomb?); save it smaller" in sentence
        assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "head",
    [b"%PDF-1.7\n", b"PK\x03\x04", b"<html><script>alert(1)</script>", b"#!/bin/sh\n", b"MZ", b"GIF89a/*", b"BM"],
)
def test_a_picture_behind_something_else_is_no_picture(client: TestClient, head: bytes) -> None:
    refused(client.post("/predict", content=form(("a.png", head + picture())), headers=FORM), 422)


def test_a_thousand_malformed_bodies(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    statuses = set()
    for number in range(1000):
        whole, headers = [(form(("a.png", picture())), FORM), (in_json(("a.png", picture())), JSON)][number % 2]
        body = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            start = int(rng.integers(0, len(body)))
            kind = rng.integers(3)
            if kind == 0:
                body[start] = rng.integers(256)
            elif kind == 1:
                del body[start : start + int(rng.integers(1, 60))]
            else:
                body[start:start] = rng.bytes(int(rng.integers(1, 60)))
            if not body:
                break
        answer = client.post("/predict", content=bytes(body), headers=headers)
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 413, 415, 422), (number, answer.text, bytes(body)[:200])
        assert answer.json()
    assert 422 in statuses
    assert client.post("/predict", content=form(("a.png", picture())), headers=FORM).status_code == 200


# Before it starts


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url_of(first) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UsageError) as caught:
            listen("127.0.0.1", port)
    assert str(caught.value) == (
        f"--host 127.0.0.1 --port {port} cannot be listened on (Address already in use); choose others."
    )


def test_a_host_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"^--host no\.such\.host\.invalid --port 0 cannot be listened on \("):
        listen("no.such.host.invalid", 0)


def test_keys_are_read_and_weak_ones_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(file) == KEY
    for text in ("", "short", "two words of sixteen letters", f"{KEY}\n{KEY}"):
        file.write_text(text)
        with pytest.raises(DataError, match="expected one line of 16 or more letters and digits"):
            read_key(file)
    with pytest.raises(DataError) as caught:
        read_key(tmp_path / "none")
    assert str(caught.value) == (
        f"--api-key-file {tmp_path / 'none'} cannot be read (No such file or directory); "
        "give a file with one line, the key."
    )


def test_thresholds_are_those_of_the_model_that_is_served() -> None:
    stricter = replace(MeanModel(), thresholds=(MeanModel().thresholds[0],) * 2)
    with TestClient(application(stricter)) as client:
        said = client.post("/predict", content=form(("a.png", picture((200, 100, 0)))), headers=FORM).json()
    assert said["pictures"][0]["present"] == ["red"]
