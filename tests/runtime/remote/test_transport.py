"""HTTP to a server that is down, slow, busy, broken or hostile: an answer, or one message in time."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.remote.settings import RemoteSettings
from edgewright.runtime.remote.transport import Transport

Serve = Callable[..., Any]
PATH = "/v2/models/colours-0"
LIMIT = 10_000
PATIENCE_S = 10


def ask(url: str, **settings: Any) -> Any:
    """One question to a server."""
    with closing(Transport(RemoteSettings(url, **settings))) as transport:
        return transport.ask("GET", PATH, limit_bytes=LIMIT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raw(data: bytes) -> Callable[[Any], bool]:
    """A server that sends this in place of an answer, and hangs up."""

    def send(handler: Any) -> bool:
        handler.wfile.write(data)
        return True

    return send


def endless(head: bytes, more: bytes) -> Callable[[Any], bool]:
    """A server that never stops."""

    def send(handler: Any) -> bool:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(more)

    return send


# Down


def test_nobody_listening_is_said() -> None:
    port = free_port()
    with pytest.raises(BackendError, match=rf"No server listens at http://127\.0\.0\.1:{port}\. Start it"):
        ask(f"http://127.0.0.1:{port}")


def test_server_that_starts_late_is_found(serve: Serve) -> None:
    port = free_port()
    timer = threading.Timer(0.15, serve, kwargs={"port": port})
    timer.start()
    assert ask(f"http://127.0.0.1:{port}").status == 200
    timer.join()


def test_unknown_host_is_said() -> None:
    with pytest.raises(BackendError, match=r"No host is called 'no-such-host\.invalid'"):
        ask("http://no-such-host.invalid:8000")


# Slow


def test_silent_server_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        with pytest.raises(BackendError, match=r"did not answer in time: .* 0\.3 s in all"):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
        assert time.monotonic() - start < PATIENCE_S


@pytest.mark.parametrize("part", ["head", "body"])
def test_dribbling_server_costs_no_more_than_the_timeout(
    serve: Serve, dribble: Callable[[bytes, float], Any], part: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n"
    data = head + b"X: y\r\n" * 2000 if part == "head" else head + b"\r\n" + b"x" * 5000
    server = serve(instead=dribble(data, 0.02))
    start = time.monotonic()
    with pytest.raises(BackendError, match="did not answer in time"):
        ask(server.url, timeout_s=0.5)
    assert time.monotonic() - start < PATIENCE_S


def test_connection_after_a_timeout_is_a_new_one(serve: Serve) -> None:
    server = serve()
    hung = threading.Event()

    def hang(reply: Any, path: str) -> Any:
        hung.wait(PATIENCE_S)
        return replace(reply, body=b"late")

    with closing(Transport(RemoteSettings(server.url, timeout_s=0.3))) as transport:
        server.tamper = hang
        with pytest.raises(BackendError, match="in time"):
            transport.ask("GET", PATH, limit_bytes=LIMIT)
        server.tamper = lambda reply, path: reply
        hung.set()
        assert transport.ask("GET", PATH, limit_bytes=LIMIT).body != b"late"


# Broken


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "broke the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "broke off in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf", "broke off in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf", "broke off|does not answer in HTTP"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "does not answer in HTTP"),
        (b"\x16\x03\x01" * 100, "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "does not answer in HTTP"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_broken_answer_is_said(serve: Serve, data: bytes, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        ask(serve(instead=raw(data)).url, timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 1000 + b"\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["to the end", "announced", "negative", "chunks", "negative chunk", "long chunk lines", "continue"],
)
def test_endless_answer_is_cut_off(serve: Serve, head: bytes, more: bytes) -> None:
    with pytest.raises(BackendError, match=r"with more than 10,000 bytes|does not answer in HTTP"):
        ask(serve(instead=endless(head, more)).url, timeout_s=PATIENCE_S)


# Again, where that is safe


def test_kept_connection_that_the_server_closed_is_replaced(serve: Serve) -> None:
    server = serve()
    with closing(Transport(RemoteSettings(server.url))) as transport:
        for _ in range(3):
            # Not announced: the client believes that the connection stays.
            server.instead = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert transport.ask("GET", PATH, limit_bytes=LIMIT).body == b"ok"
            time.sleep(0.05)
    assert len(set(server.connections)) == 3


def test_kept_connection_that_closes_without_an_answer_is_tried_once_more(serve: Serve) -> None:
    server = serve()
    with closing(Transport(RemoteSettings(server.url))) as transport:
        transport.ask("GET", PATH, limit_bytes=LIMIT)
        server.instead = raw(b"")
        with pytest.raises(BackendError, match="broke the connection"):
            transport.ask("GET", PATH, limit_bytes=LIMIT)
    assert len(server.requests) == 3


def test_answer_that_breaks_off_is_not_asked_for_again(serve: Serve) -> None:
    server = serve()
    with closing(Transport(RemoteSettings(server.url))) as transport:
        transport.ask("GET", PATH, limit_bytes=LIMIT)
        server.instead = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        with pytest.raises(BackendError, match="broke off"):
            transport.ask("GET", PATH, limit_bytes=LIMIT)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("when", ["0", "date"])
def test_busy_server_is_asked_again_when_it_says(serve: Serve, status: int, when: str) -> None:
    server = serve()
    value = formatdate(time.time(), usegmt=True) if when == "date" else when

    def busy_twice(reply: Any, path: str) -> Any:
        return replace(reply, status=status, headers={"Retry-After": value}) if len(server.requests) < 3 else reply

    server.tamper = busy_twice
    assert ask(server.url).status == 200
    assert len(server.requests) == 3


@pytest.mark.parametrize("value", ["", "3600", "soon", "9" * 400, "-1", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_busy_server_that_names_no_time_in_reach_is_not_asked_again(serve: Serve, value: str) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, status=503, headers={"Retry-After": value}))
    assert ask(server.url, timeout_s=5).status == 503
    assert len(server.requests) == 1


def test_busy_server_is_not_asked_for_ever(serve: Serve) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, status=429, headers={"Retry-After": "0"}))
    assert ask(server.url).status == 429
    assert len(server.requests) == 4


def test_closing_ends_the_wait_for_another_try(serve: Serve) -> None:
    server = serve(tamper=lambda reply, path: replace(reply, status=503, headers={"Retry-After": "8"}))
    transport = Transport(RemoteSettings(server.url))
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        waiting = pool.submit(transport.ask, "GET", PATH, limit_bytes=LIMIT)
        while not server.requests:
            time.sleep(0.01)
        transport.interrupt()
        assert waiting.result(PATIENCE_S).status == 503
        assert time.monotonic() - start < 7
    transport.close()


# Connections


def test_refusal_that_comes_before_the_request_is_sent_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")

        refused = pool.submit(refuse)
        with closing(Transport(RemoteSettings(f"http://127.0.0.1:{listener.getsockname()[1]}"))) as transport:
            answer = transport.ask("POST", PATH, limit_bytes=LIMIT, body=bytes(50_000_000))
        assert (answer.status, answer.body) == (413, b"big")
        refused.result(PATIENCE_S)


def test_redirect_is_not_followed(serve: Serve) -> None:
    target = serve()
    server = serve(
        token="t", tamper=lambda reply, path: replace(reply, status=302, headers={"Location": target.url + path})
    )
    assert ask(server.url, token="t").status == 302
    assert target.requests == []


def test_proxies_of_the_environment_are_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert ask(serve().url).status == 200


def test_each_thread_has_its_own_connection_and_all_are_closed(serve: Serve) -> None:
    server = serve()
    barrier = threading.Barrier(4)

    def meet(reply: Any, path: str) -> Any:
        barrier.wait(PATIENCE_S)
        return reply

    server.tamper = meet
    transport = Transport(RemoteSettings(server.url))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            answers = [pool.submit(transport.ask, "GET", PATH, limit_bytes=LIMIT) for _ in range(4)]
            assert [answer.result(PATIENCE_S).status for answer in answers] == [200] * 4
    assert len(set(server.connections)) == 4
    transport.close()
    gc.collect()  # a socket that was left open would warn, and warnings are errors


# https


def test_certificate_is_checked(serve: Serve, certificate: Path) -> None:
    server = serve(tls=True)
    with pytest.raises(BackendError, match=r"certificate of https://127.* is not trusted: self-signed.*ca_file"):
        ask(server.url)
    assert server.requests == []
    assert ask(server.url, ca_file=certificate).status == 200


def test_certificate_of_another_host_is_refused(serve: Serve, certificate: Path) -> None:
    server = serve(tls=True, host="127.0.0.2")
    with pytest.raises(BackendError, match=r"is not trusted: .*(mismatch|not valid)"):
        ask(server.url, ca_file=certificate)


def test_https_keeps_its_connection(serve: Serve, certificate: Path) -> None:
    server = serve(tls=True)
    with closing(Transport(RemoteSettings(server.url, ca_file=certificate))) as transport:
        for _ in range(4):
            assert transport.ask("GET", PATH, limit_bytes=LIMIT).status == 200
    assert len(set(server.connections)) <= 2  # a session ticket that comes late looks like one word too many


def test_http_where_https_was_expected_is_said(serve: Serve) -> None:
    with pytest.raises(BackendError, match=r"does not speak TLS as expected|broke the connection"):
        ask(serve().url.replace("http:", "https:"), timeout_s=5)


def test_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for file in ("empty.pem", "missing.pem"):
        with pytest.raises(UsageError, match=f"{file}' holds no certificates"):
            Transport(RemoteSettings("https://127.0.0.1", ca_file=tmp_path / file))
