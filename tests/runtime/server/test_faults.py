"""What goes wrong in a server's life: engines that fail, hang or are slow, clients that leave, signals, new bundles."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import Server, running, uniform, until

Faulty = Callable[..., contextlib.AbstractContextManager[Server]]
Reseal = Callable[..., None]
SLOW, HANGS, FAILS = (uniform(value) for value in (253, 254, 255))
ONE = ("--workers", "1")
RUNNING = 'edgewright_running_requests{model="colours-0"}'
WAITING = 'edgewright_waiting_pictures{model="colours-0"}'


class Asking:
    """Requests in threads of their own, and what became of them."""

    def __init__(self, server: Server) -> None:
        self.found: list[httpx.Response | Exception] = []
        self._server = server
        self._threads: list[threading.Thread] = []

    def ask(self, picture: bytes, times: int = 1) -> None:
        for _ in range(times):
            thread = threading.Thread(target=self._ask, args=(picture,))
            thread.start()
            self._threads.append(thread)

    def _ask(self, picture: bytes) -> None:
        try:
            with self._server.client() as client:
                self.found.append(client.post("/classify", content=picture))
        except httpx.HTTPError as error:
            self.found.append(error)

    def statuses(self) -> list[int | str]:
        for thread in self._threads:
            thread.join(30)
        return sorted(
            (one.status_code if isinstance(one, httpx.Response) else repr(one) for one in self.found), key=str
        )


def post(server: Server, picture: bytes) -> httpx.Response:
    with server.client() as client:
        return client.post("/classify", content=picture)


def ready(server: Server) -> bool:
    with server.client() as client:
        found = client.get("/v2/health/ready")
    assert found.status_code == (200 if found.json()["ready"] else 503)
    return bool(found.json()["ready"])


# Engines


def test_engine_that_fails_is_a_500_and_the_server_lives(faulty: Faulty, red: bytes) -> None:
    with faulty() as server:
        for _ in range(3):
            found = post(server, FAILS)
            assert found.status_code == 500
            assert found.json() == {"error": "The server failed: ZeroDivisionError."}
        assert post(server, red).json()["predictions"][0]["label"] == "red"
        assert ready(server)
        assert "the engine broke" in server.log.read_text()


def test_one_picture_that_breaks_the_engine_leaves_the_others_theirs(faulty: Faulty, red: bytes) -> None:
    with faulty(*ONE, "--max-batch", "4", "--max-delay-ms", "100") as server, server.client() as client:
        files = [("file", ("a", red)), ("file", ("b", FAILS)), ("file", ("c", red))]
        first, second, third = client.post("/classify", files=files).json()["predictions"]
    assert (first["label"], third["label"]) == ("red", "red")
    assert second == {"file": "b", "error": "The server failed: ZeroDivisionError."}


def test_engine_that_hangs_is_answered_at_the_deadline_and_not_ready(faulty: Faulty, red: bytes) -> None:
    with faulty(*ONE, "--deadline-ms", "400", "--drain-s", "1") as server:
        found = post(server, HANGS)
        assert (found.status_code, found.json()) == (504, {"error": "No result within 0.4 s."})
        until(lambda: not ready(server))
        refused = post(server, red)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "does not answer" in refused.json()["error"]
        with server.client() as client:
            assert client.get("/v2/health/live").json() == {"live": True}
            assert client.get("/v2/models/colours-0/ready").status_code == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_one_hung_engine_of_two_leaves_the_other_serving(faulty: Faulty, red: bytes) -> None:
    with faulty("--workers", "2", "--deadline-ms", "400") as server:
        assert post(server, HANGS).status_code == 504
        until(lambda: not ready(server))
        assert [post(server, red).status_code for _ in range(5)] == [200] * 5


def test_request_s_own_timeout_is_kept(faulty: Faulty) -> None:
    with faulty(*ONE) as server, server.client() as client:
        pixels = {"name": "pixels", "shape": [1, 16, 16, 3], "datatype": "UINT8", "data": [253] * 768}
        found = client.post("/v2/models/colours-0/infer", json={"inputs": [pixels], "parameters": {"timeout": 50_000}})
    assert (found.status_code, found.json()) == (504, {"error": "No result within 0.05 s."})


# The queue


def test_full_queue_refuses_with_retry_after(faulty: Faulty, red: bytes) -> None:
    with faulty(*ONE, "--queue", "2") as server:
        asking = Asking(server)
        asking.ask(SLOW)
        until(lambda: server.metric(RUNNING) == 1 and server.metric(WAITING) == 0)
        asking.ask(SLOW, times=2)
        until(lambda: server.metric(WAITING) == 2)
        refused = post(server, red)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "2 pictures wait already" in refused.json()["error"]
        assert asking.statuses() == [200, 200, 200]
        assert post(server, red).status_code == 200


def test_refused_request_s_body_is_not_read_first(faulty: Faulty) -> None:
    with faulty(*ONE, "--queue", "1") as server:
        asking = Asking(server)
        asking.ask(SLOW)
        until(lambda: server.metric(RUNNING) == 1 and server.metric(WAITING) == 0)
        asking.ask(SLOW)
        until(lambda: server.metric(WAITING) == 1)
        with socket.create_connection(server.address, timeout=10) as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")
        assert asking.statuses() == [200, 200]


def test_client_that_leaves_is_dropped_from_the_queue(faulty: Faulty) -> None:
    with faulty(*ONE) as server:
        asking = Asking(server)
        asking.ask(SLOW)
        until(lambda: server.metric(RUNNING) == 1 and server.metric(WAITING) == 0)
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(SLOW)}\r\n\r\n".encode()
        leaving = [socket.create_connection(server.address, timeout=10) for _ in range(3)]
        for connection in leaving:
            connection.sendall(head + SLOW)
        until(lambda: server.metric(WAITING) == 3)
        for connection in leaving:
            connection.close()
        until(lambda: server.metric(WAITING) == 0)
        assert asking.statuses() == [200]
        until(lambda: server.metric('edgewright_requests_total{endpoint="classify",status="499"}') == 3)
        assert server.metric('edgewright_pictures_total{model="colours-0"}') == 1


# Signals


def test_sigterm_under_load_answers_all_that_was_accepted(faulty: Faulty, red: bytes) -> None:
    with faulty(*ONE, "--queue", "50") as server:
        asking = Asking(server)
        asking.ask(SLOW, times=5)
        until(lambda: server.metric(RUNNING) == 5)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.log.read_text())
        refused = post(server, red)
        assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        assert "being stopped" in refused.json()["error"]
        assert not ready(server)
        assert asking.statuses() == [200] * 5
        assert server.process.wait(10) == 0
        with pytest.raises(OSError):
            socket.create_connection(server.address, timeout=5)


def test_sigterm_waits_for_a_body_that_is_on_its_way(faulty: Faulty, red: bytes) -> None:
    with faulty() as server, socket.create_connection(server.address, timeout=20) as connection:
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(red)}\r\n\r\n".encode()
        connection.sendall(head + red[:50])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.log.read_text())
        connection.sendall(red[50:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(10) == 0


def exchange_once(server: Server, picture: bytes) -> bytes:
    """One request on a connection of its own; all bytes of the answer, none if the connection was not taken."""
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(picture)}\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection(server.address, timeout=20) as connection:
            connection.sendall(head.encode() + picture)
            while chunk := connection.recv(65536):
                answer += chunk
    except ConnectionError:
        # The system had taken the connection for the server, which had not seen it yet; or nobody listened any more.
        pass
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.2, 0.37, 0.8])
def test_no_answer_is_cut_off_however_a_busy_server_is_stopped(tiny_bundle: Path, red: bytes, pause_s: float) -> None:
    with running(tiny_bundle, "--queue", "100") as server:
        answers: list[bytes] = []

        def ask() -> None:
            while server.process.poll() is None:
                answers.append(exchange_once(server, red))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(pause_s)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        for thread in threads:
            thread.join(20)
    told = [answer for answer in answers if answer]
    assert {answer[9:12] for answer in told} <= {b"200", b"503"}
    assert all(answer.endswith(b"}") for answer in told)
    assert any(answer.startswith(b"HTTP/1.1 200") for answer in told)


def test_drain_that_takes_too_long_ends_it(faulty: Faulty) -> None:
    with faulty(*ONE, "--drain-s", "0.3") as server:
        asking = Asking(server)
        asking.ask(HANGS)
        until(lambda: server.metric(RUNNING) == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 1
        asking.statuses()
        assert "1 requests were accepted and not finished" in server.log.read_text()


def test_second_signal_ends_it_at_once(faulty: Faulty) -> None:
    with faulty(*ONE) as server:
        asking = Asking(server)
        asking.ask(HANGS)
        until(lambda: server.metric(RUNNING) == 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.log.read_text())
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 1
        asking.statuses()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the processes from /proc")
def test_no_process_is_left_behind(tiny_bundle: Path) -> None:
    with running(tiny_bundle) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        assert not children.exists() or children.read_text() == ""
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


# Start


def refused(*arguments: str | Path, **environment: str) -> str:
    """What a server that cannot start says."""
    command = [sys.executable, "-m", "edgewright", "serve", *map(str, arguments)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ) | environment
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("edgewright: ")
    assert found.stderr.count("\n") == 1
    return found.stderr


def test_port_in_use_is_one_message(server: Server, tiny_bundle: Path) -> None:
    message = refused(tiny_bundle, "--port", str(server.address[1]))
    assert f"port {server.address[1]}: Address already in use" in message


def test_two_bundles_of_one_name_are_refused(tiny_bundle: Path, tiny_copy: Path) -> None:
    assert "are both called 'colours-0'" in refused(tiny_bundle, tiny_copy, "--port", "0")


def test_name_with_a_slash_is_refused(tiny_copy: Path, reseal: Reseal) -> None:
    reseal(tiny_copy, lambda document: document.update(name="a/b"))
    assert "is called 'a/b'" in refused(tiny_copy, "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "--port"),
        (("--host", "256.1.1.1"), "no address to listen at"),
        (("--queue", "0"), "--queue"),
        (("--token-file", "nowhere"), "Cannot read the token"),
        (("--artefact", "model.int4"), "No artefact 'model.int4'"),
    ],
)
def test_wrong_option_is_one_message(tiny_bundle: Path, arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(tiny_bundle, *(arguments if "--port" in arguments else (*arguments, "--port", "0")))


def test_empty_token_is_refused(tiny_bundle: Path) -> None:
    assert "is empty or no single word" in refused(tiny_bundle, "--port", "0", EDGEWRIGHT_TOKEN="")


def test_bundle_that_computes_something_else_is_refused(tiny_copy: Path, reseal: Reseal) -> None:
    def change(document: dict[str, Any]) -> None:
        document["golden"][0]["logits"] = [9.0, 0.0, 0.0, 0.0]

    reseal(tiny_copy, change)
    command = [sys.executable, "-m", "edgewright", "serve", str(tiny_copy), "--port", "0"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "differ by" in found.stderr


# Another bundle takes its place


def exchange(served: Path, new: Path) -> None:
    """Put another bundle where one is, in two renames as export does."""
    fresh, old = served.with_name("fresh"), served.with_name("old")
    shutil.copytree(new, fresh)
    served.rename(old)
    fresh.rename(served)
    shutil.rmtree(old)


@pytest.fixture
def renamed(other_bundle: Path, tmp_path: Path, reseal: Reseal) -> Path:
    """The other bundle's weights under the tiny one's name."""
    folder = tmp_path / "renamed"
    shutil.copytree(other_bundle, folder)
    reseal(folder, lambda document: document.update(name="colours-0"))
    return folder


def logits(server: Server) -> list[float]:
    with server.client() as client:
        pixels = {"name": "pixels", "shape": [1, 16, 16, 3], "datatype": "UINT8", "data": [90] * 768}
        found = client.post("/v2/models/colours-0/infer", json={"inputs": [pixels]})
        return list(found.json()["outputs"][0]["data"])


def test_reload_takes_the_new_bundle_and_drops_no_request(tiny_copy: Path, renamed: Path, red: bytes) -> None:
    with running(tiny_copy, "--queue", "100") as server:
        before = logits(server)
        stop = threading.Event()
        statuses: list[int] = []

        def ask() -> None:
            with server.client() as client:
                while not stop.is_set():
                    statuses.append(client.post("/classify", content=red).status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        exchange(tiny_copy, renamed)
        with server.client() as client:
            found = client.post("/v2/repository/models/colours-0/load")
        stop.set()
        for thread in threads:
            thread.join(30)
        assert (found.status_code, found.json()) == (200, {})
        assert logits(server) != before
        assert set(statuses) == {200}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_requests_in_flight_finish_on_the_old_one(tiny_copy: Path) -> None:
    script = Path(__file__).with_name("faulty_server.py")
    with running(tiny_copy, "--artefact", "model.fp32", *ONE, script=script) as server:
        asking = Asking(server)
        asking.ask(SLOW, times=3)
        until(lambda: server.metric(RUNNING) == 3)
        with server.client() as client:
            assert client.post("/v2/repository/models/colours-0/load").status_code == 200
        assert asking.statuses() == [200] * 3


def test_broken_bundle_leaves_the_old_one_serving(tiny_copy: Path, other_bundle: Path, red: bytes) -> None:
    with running(tiny_copy) as server, server.client() as client:
        before = logits(server)
        label_file = tiny_copy / "labels.txt"
        good = label_file.read_bytes()
        label_file.write_bytes(good.replace(b"red", b"RED"))
        found = client.post("/v2/repository/models/colours-0/load")
        assert found.status_code == 400
        assert "the former one goes on" in found.json()["error"]
        assert "was altered" in found.json()["error"]
        exchange(tiny_copy, other_bundle)
        found = client.post("/v2/repository/models/colours-0/load")
        assert "is called 'colours-1' now" in found.json()["error"]
        assert logits(server) == before
        assert client.post("/v2/repository/models/unknown/load").status_code == 404


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_reads_every_bundle_again(tiny_copy: Path, renamed: Path) -> None:
    with running(tiny_copy) as server:
        before = logits(server)
        exchange(tiny_copy, renamed)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "'colours-0' was read again" in server.log.read_text())
        assert logits(server) != before
        shutil.rmtree(tiny_copy)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "'colours-0' is served as before" in server.log.read_text())
        assert ready(server)
