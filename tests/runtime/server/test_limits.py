"""What strangers send: too much, too slow, too deep, compressed without end, or no HTTP at all."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from .conftest import Server, running, uniform

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def small(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with narrow limits."""
    config = tmp_path_factory.mktemp("config") / "serve.yaml"
    limits = {
        "max_body_mb": 1,
        "max_pixels": 10_000,
        "max_pictures": 3,
        "max_headers": 20,
        "max_header_kb": 4,
        "max_connections": 8,
        "max_buffered_mb": 2,
        "read_timeout_s": 1.0,
    }
    config.write_text(json.dumps(limits))
    with running(tiny_bundle, "--config", config) as found:
        yield found


def talk(server: Server, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 20.0) -> bytes:
    """Send the pieces and read until the server closes or has nothing more to say."""
    with socket.create_connection(server.address, timeout=timeout_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def whole_answer(connection: socket.socket) -> bytes:
    """One answer; its head and its body may come apart."""
    received = b""
    while not received.endswith(b"}"):
        chunk = connection.recv(65536)
        assert chunk, received
        received += chunk
    return received


def drip(connection: socket.socket, until: float) -> None:
    """A byte now and then."""
    while time.monotonic() < until:
        connection.sendall(b"x")
        time.sleep(0.05)


def error_of(answer: bytes, status: int) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    return str(json.loads(body)["error"])


def post(path: str, length: int, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *headers, "", ""]
    return "\r\n".join(lines).encode()


def still_serves(server: Server) -> bool:
    with server.client() as client:
        return client.get("/v2/health/ready").json() == {"ready": True}


# The body


@pytest.mark.parametrize("path", ["/classify", "/v2/models/colours-0/infer"])
def test_body_that_says_it_is_too_large_is_refused_unread(small: Server, path: str) -> None:
    with socket.create_connection(small.address, timeout=20) as connection:
        connection.sendall(post(path, 2 * MIB))
        answer = whole_answer(connection)
    assert "larger than 1 MiB" in error_of(answer, 413)


@pytest.mark.parametrize("length", ["9" * 30, "-1", "1e3"])
def test_length_that_is_no_length_is_refused(small: Server, length: str) -> None:
    answer = talk(small, f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))


def test_body_in_chunks_that_is_too_large_is_refused(small: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    with small.client() as client:
        assert client.post("/classify", content=chunks()).status_code == 413
    assert still_serves(small)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bomb_is_refused(small: Server, encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(300)) + packer.flush()
    assert len(bomb) < MIB
    with small.client() as client:
        found = client.post("/classify", content=bomb, headers={"Content-Encoding": encoding})
    assert (found.status_code, found.json()["error"]) == (413, "The request is larger than 1 MiB.")


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-4], "gzip", 400),
        (gzip.compress(b"x", mtime=0) + b"more", "gzip", 400),
        (b"x", "br", 415),
        (b"x", "gzip, gzip", 415),
    ],
)
def test_damaged_or_unknown_encoding_is_refused(small: Server, content: bytes, encoding: str, status: int) -> None:
    with small.client() as client:
        found = client.post("/classify", content=content, headers={"Content-Encoding": encoding})
    assert (found.status_code, list(found.json())) == (status, ["error"])


def test_compressed_picture_is_read(small: Server, red: bytes) -> None:
    with small.client() as client:
        found = client.post("/classify", content=gzip.compress(red, mtime=0), headers={"Content-Encoding": "gzip"})
    assert found.json()["predictions"][0]["label"] == "red"


def test_bodies_together_are_bounded(small: Server) -> None:
    for _ in range(5):
        held = []
        try:
            for _ in range(3):
                connection = socket.create_connection(small.address, timeout=20)
                held.append(connection)
                connection.sendall(post("/classify", MIB) + b"x" * (MIB - 1))
            answer = whole_answer(held[2])
        finally:
            for connection in held:
                connection.close()
        # On a machine that stood still for a second, the first two had been given up before the third came.
        if not answer.startswith(b"HTTP/1.1 408"):
            break
    assert "as many bytes of requests as it may" in error_of(answer, 503)
    assert b"retry-after: 1" in answer.lower()


# Pictures and JSON


def test_picture_with_too_many_pixels_is_refused(small: Server) -> None:
    stream = io.BytesIO()
    Image.new("L", (5000, 5000)).save(stream, "PNG")
    with small.client() as client:
        found = client.post("/classify", content=stream.getvalue())
    assert found.status_code == 400
    assert "the limit is 10,000" in found.json()["error"]


def test_too_many_pictures_are_refused(small: Server, red: bytes) -> None:
    tensor = {"name": "pixels", "shape": [4], "datatype": "BYTES", "data": ["YQ=="] * 4}
    with small.client() as client:
        found = client.post("/v2/models/colours-0/infer", json={"inputs": [tensor]})
        form = client.post("/classify", files=[("file", (f"{number}", red)) for number in range(4)])
    assert (found.status_code, form.status_code) == (400, 400)
    assert "4 pictures in one request. Expected 1 to 3" in found.json()["error"]
    assert "Too many files" in form.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/colours-0/infer", "/v2/repository/index"])
@pytest.mark.parametrize("text", [b"[" * 500_000, b'{"a":' * 100_000, b"{", b"\xff", b"[]", b"NaN", b""])
def test_json_that_is_none_or_too_deep_is_refused(small: Server, path: str, text: bytes) -> None:
    if path.endswith("index") and not text:
        return
    with small.client() as client:
        found = client.post(path, content=text)
    assert (found.status_code, list(found.json())) == (400, ["error"])


# The head, and time


def test_picture_larger_than_a_head_may_be_is_read_again_and_again(small: Server) -> None:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(stream, "PNG")
    with small.client() as client:
        assert [client.post("/classify", content=stream.getvalue()).status_code for _ in range(5)] == [200] * 5


def test_too_many_headers_are_refused(small: Server) -> None:
    answer = talk(small, b"GET /v2 HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100)) + b"\r\n")
    assert error_of(answer, 431) == "More than 20 headers."


@pytest.mark.parametrize("head", [b"GET /" + b"v" * 100_000, b"GET /v2 HTTP/1.1\r\nX: " + b"y" * 100_000])
def test_head_that_is_too_large_is_refused(small: Server, head: bytes) -> None:
    assert "larger than 4 KiB" in error_of(talk(small, head), 431)


def test_head_that_never_ends_is_refused(small: Server) -> None:
    answer = talk(small, b"GET /v2 HTTP/1.1\r\n", *[b"X-%d: y\r\n" % number for number in range(6)], pause_s=0.1)
    assert error_of(answer, 408) == "The request did not arrive within 1 s."


def test_connection_that_says_nothing_is_closed(small: Server) -> None:
    assert talk(small) == b""


def test_body_that_comes_too_slowly_is_refused_and_holds_no_place(small: Server, red: bytes) -> None:
    slow = [socket.create_connection(small.address, timeout=20) for _ in range(5)]
    try:
        for connection in slow:
            connection.sendall(post("/classify", 1000) + b"x")
        with small.client() as client:
            assert client.post("/classify", content=red).status_code == 200
        answers = [whole_answer(connection) for connection in slow]
    finally:
        for connection in slow:
            connection.close()
    assert {error_of(answer, 408) for answer in answers} == {"The request did not arrive within 1 s."}


def test_client_that_goes_on_sending_after_its_answer_is_cut_off(small: Server) -> None:
    start = time.monotonic()
    with socket.create_connection(small.address, timeout=20) as connection:
        connection.sendall(post("/classify", 100 * MIB))
        assert b"413" in connection.recv(65536)
        with pytest.raises(OSError):
            drip(connection, until=start + 18)
    assert time.monotonic() < start + 15


def test_too_many_connections_are_refused(small: Server) -> None:
    time.sleep(0.2)  # those of the test before have just been closed
    held = [socket.create_connection(small.address, timeout=20) for _ in range(8)]
    try:
        time.sleep(0.2)
        assert "More than 8 connections" in error_of(talk(small), 503)
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.2)
    assert still_serves(small)


@pytest.mark.parametrize(
    "text", [b"\x00" * 100, b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 1000 + b"x"]
)
def test_what_is_no_http_is_refused(small: Server, text: bytes) -> None:
    answer = talk(small, text)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert still_serves(small)


def test_several_requests_at_once_on_a_connection_are_answered_in_order(small: Server) -> None:
    ask = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/models/unknown HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = talk(small, ask + b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [answer.find(words) > 0 for words in (b'"live"', b"No model", b'"extensions"')] == [True] * 3
    assert answer.find(b'"live"') < answer.find(b"No model") < answer.find(b'"extensions"')


# Pictures that are damaged


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes exchanged, cut out or repeated."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 12))):
        at = int(rng.integers(0, len(changed)))
        match rng.integers(0, 4):
            case 0:
                changed[at] = int(rng.integers(0, 256))
            case 1:
                del changed[at : at + int(rng.integers(1, 60))]
            case 2:
                changed[at:at] = changed[at : at + int(rng.integers(1, 60))]
            case _:
                changed[at : at + 4] = rng.bytes(4)
        if not changed:
            return b"x"
    return bytes(changed)


def encoded_pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    forms: list[tuple[str, dict[str, Any]]] = [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
    ]
    files = []
    for form, options in forms:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        files.append(stream.getvalue())
    return files


def test_damaged_pictures_get_a_label_or_an_error(server: Server) -> None:
    rng = np.random.default_rng(1)
    statuses: list[int] = []
    originals = encoded_pictures()
    pictures = [mutated(rng, original) for _ in range(60) for original in originals]

    def send(share: list[bytes]) -> None:
        with server.client() as client:
            for picture in share:
                found = client.post("/classify?model=colours-0", content=picture)
                while found.status_code == 429:
                    found = client.post("/classify?model=colours-0", content=picture)
                document = found.json()
                assert "error" in document or document["predictions"][0]["label"]
                statuses.append(found.status_code)

    threads = [threading.Thread(target=send, args=(pictures[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(statuses) == len(pictures)
    assert set(statuses) == {200, 400}
    assert httpx.get(f"{server.url}/v2/health/ready", trust_env=False).json() == {"ready": True}
    assert server.log.read_text().count("Traceback") == 0


def test_picture_of_one_grey_is_no_fault(server: Server) -> None:
    with server.client() as client:
        assert client.post("/classify?model=colours-0", content=uniform(255)).status_code == 200
