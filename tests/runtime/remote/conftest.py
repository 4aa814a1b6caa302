"""A small server of the Open Inference Protocol v2 on a real socket, with the tiny model behind it; it can misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import onnxruntime as ort
import pytest

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.network import TOKEN_VARIABLE

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Self-signed for localhost and 127.0.0.1, made with `openssl req -x509 -newkey ec -days 36500`; protects nothing."""

Json = dict[str, Any]


@dataclass
class Reply:
    """What the server is about to send."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class OipServer:
    """Answers for one model. `tamper` changes a reply before it is sent; `instead` takes the whole connection over."""

    session: ort.InferenceSession
    name: str = "colours-0"
    versions: tuple[str, ...] = ("1",)
    platform: str = "onnxruntime_onnx"
    batch: int = -1
    layout: str = "NHWC"
    binary: bool = True
    token: str | None = None
    tamper: Callable[[Reply, str], Reply] = lambda reply, path: reply
    instead: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda handler: False
    url: str = ""
    requests: list[str] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        if self.token is not None and headers.get("Authorization") != f"Bearer {self.token}":
            return refuse(401, "wrong token")
        place, _, action = path.removeprefix("/v2/models/").partition("/")
        version = None
        if action.startswith("versions/"):
            version, _, action = action.removeprefix("versions/").partition("/")
        if unquote(place) != self.name or version not in (None, *self.versions):
            return refuse(404, f"unknown model '{place}'")
        if method == "GET" and action == "":
            return answer(self.metadata())
        if method == "POST" and action == "infer":
            return self.infer(headers, body, version)
        return refuse(404, "no such path")

    def metadata(self) -> Json:
        shape = [self.batch, 16, 16, 3] if self.layout == "NHWC" else [self.batch, 3, 16, 16]
        return {
            "name": self.name,
            "versions": list(self.versions),
            "platform": self.platform,
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": shape}],
            "outputs": [{"name": "logits", "datatype": "FP32", "shape": [self.batch, 4]}],
        }

    def infer(self, headers: Any, body: bytes, version: str | None) -> Reply:
        length = int(headers["Inference-Header-Content-Length"])
        document = json.loads(body[:length])
        (tensor,) = document["inputs"]
        assert (tensor["name"], tensor["datatype"]) == ("pixels", "UINT8")
        assert tensor["parameters"]["binary_data_size"] == len(body) - length
        pixels = np.frombuffer(body, np.uint8, offset=length).reshape(tensor["shape"])
        if self.batch == 1 and len(pixels) != 1:
            return refuse(400, f"unexpected shape {tensor['shape']}")
        if self.layout == "NCHW":
            pixels = pixels.transpose(0, 2, 3, 1)
        (logits,) = self.session.run(["logits"], {"pixels": np.ascontiguousarray(pixels)})
        output: Json = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
        found = {"model_name": self.name, "model_version": version or self.versions[-1], "id": document["id"]}
        (wanted,) = document["outputs"]
        if not (self.binary and wanted["parameters"]["binary_data"]):
            return answer({**found, "outputs": [{**output, "data": logits.reshape(-1).tolist()}]})
        data = logits.astype("<f4").tobytes()
        head = json.dumps({**found, "outputs": [{**output, "parameters": {"binary_data_size": len(data)}}]}).encode()
        return Reply(200, head + data, {"Inference-Header-Content-Length": str(len(head))})


def answer(document: Json) -> Reply:
    return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


def refuse(status: int, text: str) -> Reply:
    return Reply(status, json.dumps({"error": text}).encode(), {"Content-Type": "application/json"})


def make_handler(server: OipServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            # A client that hangs up is none of our concern.
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with server.lock:
                server.requests.append(f"{self.command} {self.path}")
                server.connections.append(self.client_address)
                server.running += 1
                server.most_at_once = max(server.most_at_once, server.running)
            try:
                if server.instead(self):
                    self.close_connection = True
                    return
                reply = server.tamper(server.reply(self.command, self.path, self.headers, body), self.path)
            finally:
                with server.lock:
                    server.running -= 1
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = serve  # noqa: N815 - http.server's names

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that failed, a client that went away: what the client says of it is what is tested."""


Serve = Callable[..., OipServer]


@pytest.fixture
def serve(tiny_opened: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve(batch=1, token="secret")`: a running server; `serve(tls=True)` speaks https."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    model, _ = tiny_opened.artefact_bytes(tiny_opened.manifest.artefact("model.fp32"))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with contextlib.ExitStack() as stack:

        def start(*, tls: bool = False, host: str = "127.0.0.1", port: int = 0, **options: Any) -> OipServer:
            server = OipServer(session, **options)
            listener = _Listener((host, port), make_handler(server))
            if tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
            server.url = f"{'https' if tls else 'http'}://{host}:{listener.server_address[1]}"
            thread = threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
            thread.start()

            def stop() -> None:
                listener.shutdown()
                listener.server_close()
                thread.join()

            stack.callback(stop)
            return server

        yield start


@pytest.fixture(scope="session")
def certificate() -> Path:
    """What a client has to trust to speak with `serve(tls=True)`."""
    return CERTIFICATE


@pytest.fixture(scope="session")
def dribble() -> Callable[[bytes, float], Callable[[http.server.BaseHTTPRequestHandler], bool]]:
    """`dribble(b"HTTP/1.1 200 OK…", 0.05)`: a server that sends this, a byte at a time with pauses, and hangs up."""

    def make(data: bytes, pause_s: float) -> Callable[[http.server.BaseHTTPRequestHandler], bool]:
        def send(handler: http.server.BaseHTTPRequestHandler) -> bool:
            for position in range(len(data)):
                handler.wfile.write(data[position : position + 1])
                handler.wfile.flush()
                time.sleep(pause_s)
            return True

        return send

    return make
