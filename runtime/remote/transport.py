"""HTTP to one server, from several threads: connections that are kept, tries that are safe to repeat, errors in words.

Python's own `http.client` is enough for this, and costs a device neither a package nor the time to import one.
Redirects are not followed, so that a token goes to no one else, and proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.remote.connection import Answer, Connection, OversizedError
from edgewright.runtime.remote.settings import RemoteSettings
from edgewright.version import __version__

__all__ = ["Transport"]

_TRIES = 4
_BUSY = (429, 503)
_FIRST_PAUSE_S = 0.1
_SHORTEST_PAUSE_S = 0.05


class Transport:
    """A server. As many connections are kept as threads have asked at once.

    What is sent again: a request that found no listener; one on a kept connection that turned out to be closed before a
    byte came back (an inference changes nothing, so that a second one does no harm); one that the server answered with
    429 or 503 and a `Retry-After` that ends before the deadline.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._tls = _tls_context(settings) if settings.secure else None
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closing = threading.Event()
        self._headers = {"User-Agent": f"edgewright/{__version__}"}
        if settings.token is not None:
            self._headers["Authorization"] = f"Bearer {settings.token}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        limit_bytes: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """The server's answer, whatever its status.

        Raises:
            BackendError: there was none: nobody listens, not in time, not in HTTP, too large, or certificates that are not
                trusted.
        """
        deadline = time.monotonic() + self._settings.timeout_s
        sent = {**self._headers, **(headers or {})}
        for attempt in range(1, _TRIES + 1):
            last = attempt == _TRIES
            try:
                answer = self._exchange(method, path, sent, body, limit_bytes, deadline)
            except ConnectionRefusedError as error:
                if last or not self._pause(_FIRST_PAUSE_S * 2 ** (attempt - 1), deadline):
                    raise BackendError(self._explain(error)) from error
                continue
            except OversizedError as error:
                raise BackendError(
                    f"{self._settings.origin} answered {path} with more than {limit_bytes:,} bytes, which no right answer "
                    "has. Check that the address is that of an inference server."
                ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk's length, a header
                raise BackendError(self._explain(error)) from error
            if answer.status in _BUSY and not last:
                wait = _retry_after(answer.headers.get("retry-after", ""))
                if wait is not None and self._pause(max(wait, _SHORTEST_PAUSE_S), deadline):
                    continue
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, limit_bytes: int, deadline: float
    ) -> Answer:
        kept = self._take()
        if kept is not None:
            try:
                return self._on(kept, method, path, headers, body, limit_bytes, deadline)
            except (ConnectionError, ssl.SSLEOFError):
                if kept.heard:
                    raise
        fresh = Connection(self._settings, self._tls, deadline)
        return self._on(fresh, method, path, headers, body, limit_bytes, deadline)

    def _on(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        limit_bytes: int,
        deadline: float,
    ) -> Answer:
        try:
            answer, reusable = connection.exchange(method, path, headers, body, limit_bytes, deadline)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if reusable and not self._closing.is_set():
                self._idle.append(connection)
                return answer
        connection.close()
        return answer

    def _take(self) -> Connection | None:
        """A kept connection on which nothing has happened meanwhile."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.silent:
                return connection
            connection.close()

    def _pause(self, seconds: float, deadline: float) -> bool:
        """Wait before another try, if it can still be in time and nobody closes meanwhile."""
        return time.monotonic() + seconds < deadline and not self._closing.wait(seconds)

    def _explain(self, error: Exception) -> str:
        origin = self._settings.origin
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"The certificate of {origin} is not trusted: {error.verify_message}. "
                "If it is signed by an authority of your own, name its file in RemoteSettings(ca_file=…)."
            )
        if isinstance(error, ssl.SSLError):
            return f"{origin} does not speak TLS as expected: {error.reason or error}. Is it a http:// address?"
        if isinstance(error, socket.gaierror):
            return f"No host is called '{self._settings.address[0]}' ({error.strerror}). Check the address."
        if isinstance(error, TimeoutError):
            return (
                f"{origin} did not answer in time: {self._settings.connect_timeout_s:g} s for a connection, "
                f"{self._settings.timeout_s:g} s in all. The server hangs or is overloaded, or the time is too short."
            )
        if isinstance(error, ConnectionRefusedError):
            return f"No server listens at {origin}. Start it, or check the address."
        if isinstance(error, http.client.IncompleteRead):
            return f"{origin} broke off in the middle of its answer."
        if isinstance(error, ConnectionError):  # before HTTPException: a connection closed without an answer is both
            return f"{origin} broke the connection ({error or type(error).__name__})."
        if isinstance(error, (http.client.HTTPException, ValueError)):
            return f"{origin} does not answer in HTTP ({type(error).__name__}). Check the address."
        return f"{origin} cannot be reached: {error}."

    def interrupt(self) -> None:
        """Let nobody wait for another try."""
        self._closing.set()

    def close(self) -> None:
        """Hang up; connections in use are closed when their answer has come."""
        self._closing.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _tls_context(settings: RemoteSettings) -> ssl.SSLContext:
    """Certificates and host names are checked, always."""
    try:
        return ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"'{settings.ca_file}' holds no certificates in PEM format: {error}.") from error


def _retry_after(text: str) -> float | None:
    """Seconds to wait, RFC 9110, section 10.2.3: a number or a date; None if it says neither."""
    if text.strip().isdecimal():
        return float(text) if len(text) < 10 else None
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
