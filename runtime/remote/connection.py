"""One kept connection: a deadline for a whole exchange, and a limit on what is read, whatever the other side sends.

`http.client` counts time per read and trusts a chunk's length; so both limits are held below it, at the socket.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import selectors
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.runtime.remote.settings import RemoteSettings

__all__ = ["Answer", "Connection", "OversizedError"]

_HEADERS_BYTES = 256 * 1024
"""For the head of an answer and the lengths of its chunks; ours have less than one KiB."""


class OversizedError(Exception):
    """More bytes than the exchange allows."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection to one server. For one thread at a time; after an exception it is of no more use but to be closed."""

    def __init__(self, settings: RemoteSettings, tls: ssl.SSLContext | None, deadline: float) -> None:
        """Connect, until `deadline` (of `time.monotonic`) or the settings' own limit.

        Raises:
            OSError: not to be had; ssl.SSLError among them.
        """
        host, port = settings.address
        plain = socket.create_connection((host, port), timeout=min(settings.connect_timeout_s, _left(deadline)))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._limited = _LimitedSocket(self._socket)
        self._http = http.client.HTTPConnection(host, port)
        self._http.default_port = 80 if tls is None else 443  # for the header Host
        # A connection that has ended is not replaced behind our back.
        self._http.auto_open = 0
        self._http.sock = self._limited

    @property
    def silent(self) -> bool:
        """Whether nothing has come since the last answer; else the other side has hung up, or speaks out of turn."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return not selector.select(0)

    @property
    def heard(self) -> bool:
        """Whether any byte of an answer to the last request has come."""
        return self._limited.received > 0

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, limit_bytes: int, deadline: float
    ) -> tuple[Answer, bool]:
        """Send a request and read its answer; also whether the connection can be used again.

        Raises:
            OversizedError: more than `limit_bytes` in the body, or far too much around it.
            TimeoutError: not done before `deadline`.
            OSError, http.client.HTTPException: the connection broke, or what came is no HTTP.
        """
        self._limited.allow(deadline, limit_bytes + _HEADERS_BYTES)
        # Who refuses a request before it is sent hangs up on the rest of it, and has said why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._http.request(method, path, body=body, headers=dict(headers))
        with self._http.getresponse() as response:
            announced = response.length
            if announced is not None and announced > limit_bytes:
                raise OversizedError
            content = response.read(limit_bytes + 1)
            if len(content) > limit_bytes:
                raise OversizedError
            if announced is not None and len(content) != announced:
                raise http.client.IncompleteRead(content, announced - len(content))
            answer = Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, content)
            return answer, not response.will_close

    def close(self) -> None:
        """Hang up."""
        self._http.close()
        self._socket.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _LimitedSocket:
    """As much of a socket as `http.client` uses, with a deadline and a number of bytes for each exchange."""

    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain
        self.received = 0
        self._deadline, self._limit = 0.0, 0

    def allow(self, deadline: float, limit_bytes: int) -> None:
        """Begin an exchange."""
        self._deadline, self._limit, self.received = deadline, limit_bytes, 0

    def sendall(self, data: bytes) -> None:
        """Send all; the timeout of a socket counts for the whole of this call."""
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """A stream to read an answer from."""
        assert mode == "rb"
        return io.BufferedReader(_LimitedReader(self, self._socket.makefile("rb", buffering=0)))

    def wait(self) -> None:
        """Let the next read take no longer than until the deadline."""
        self._socket.settimeout(_left(self._deadline))

    def count(self, size: int) -> None:
        """Count what was read."""
        self.received += size
        if self.received > self._limit:
            raise OversizedError

    def close(self) -> None:
        """Close, once the streams made of it are closed as well."""
        self._socket.close()


class _LimitedReader(io.RawIOBase):
    def __init__(self, limits: _LimitedSocket, raw: socket.SocketIO) -> None:
        self._limits, self._raw = limits, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        self._limits.wait()
        size = self._raw.readinto(buffer)
        self._limits.count(size or 0)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
