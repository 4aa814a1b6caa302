"""What one connection may do before a request even reaches the application: a small head, in time, and not too many of them.

uvicorn leaves these to a proxy in front. A device often has none.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgewright.runtime.server.settings import Limits

__all__ = ["protocol_class"]

_LINGER_S = 5.0
"""How long what a client still sends is read and thrown away after its answer; closing at once would take the answer away
from it (the system answers unread bytes with a reset)."""


class _LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; `limits` is set by :func:`protocol_class`."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._refused = False
        self._message_open = False
        self._in_head = True
        self._heads = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, f"More than {self.limits.max_connections} connections. Try again.", "Retry-After: 1\r\n")
        else:
            self._start_timer(self.limits.read_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        in_head, heads = self._in_head, self._heads
        super().data_received(data)
        if in_head and heads == self._heads:
            # The parser gathers a header without end, and says nothing of it until it ends.
            self._count(len(data))

    def on_message_begin(self) -> None:
        self._message_open = True
        super().on_message_begin()
        self._start_timer(self.limits.read_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > self.limits.max_headers:
            self._refuse(431, f"More than {self.limits.max_headers} headers.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_open = False
        self._in_head = True
        self._head_bytes = 0
        self._stop_timer()
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._message_open and not self.transport.is_closing():
            self._start_timer(_LINGER_S)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.max_header_kb * 1024:
            self._refuse(431, f"The request's line and headers are larger than {self.limits.max_header_kb} KiB.")

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        answered = self.cycle is not None and self.cycle.response_started
        if not self._message_open or answered:
            self.transport.close()
        else:
            self._refuse(408, f"The request did not arrive within {self.limits.read_timeout_s:g} s.")

    def _refuse(self, status: int, message: str, headers: str = "") -> None:
        """Answer without the application, and close."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        body = json.dumps({"error": message}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def protocol_class(limits: Limits) -> type[HttpToolsProtocol]:
    """Uvicorn's `http` for these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})
