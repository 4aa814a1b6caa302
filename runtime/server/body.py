"""The body of a request: read, decompressed, and never more than allowed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from edgewright.runtime.server.refusals import Refusal
from edgewright.runtime.server.settings import Limits

__all__ = ["BodyBudget", "ClientGoneError", "decompress", "read_body"]

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""HTTP's `deflate` is zlib's format: https://www.rfc-editor.org/rfc/rfc9110#section-8.4.1.2."""


class ClientGoneError(Exception):
    """The connection was closed before the request had arrived."""


class BodyBudget:
    """Memory for the bodies of all requests in the server together. Used in the event loop's thread only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    @contextmanager
    def share(self) -> Iterator[_Share]:
        """A request's part; given back at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self._used -= share.taken

    def take(self, count: int) -> None:
        """Use `count` bytes more.

        Raises:
            Refusal: 503, there is no room; it is a matter of other requests.
        """
        if self._used + count > self._limit:
            raise Refusal(503, "The server holds as many bytes of requests as it may. Try again.", {"Retry-After": "1"})
        self._used += count


class _Share:
    def __init__(self, budget: BodyBudget) -> None:
        self.taken = 0
        self._budget = budget

    def take(self, count: int) -> None:
        self._budget.take(count)
        self.taken += count


async def read_body(request: Request, limits: Limits, share: _Share) -> bytes:
    """Everything that the client sends, as it was sent.

    How long that may take is the connection's concern, see :mod:`edgewright.runtime.server.connection`.

    Raises:
        Refusal: 413, it is too large; as soon as that is known.
        ClientGoneError: it did not all come.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared[:20]) > limits.max_body_bytes:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if chunk := message.get("body", b""):
            size += len(chunk)
            if size > limits.max_body_bytes:
                raise _too_large(limits)
            share.take(len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limits: Limits) -> Refusal:
    return Refusal(413, f"The request is larger than {limits.max_body_mb} MiB.")


def decompress(data: bytes, encoding: str, limits: Limits) -> bytes:
    """Undo a Content-Encoding, never making more than a body may have.

    Raises:
        Refusal: 415 another encoding, 413 it would be too large, 400 it is damaged.
    """
    bits = _WINDOW_BITS.get(encoding.strip().lower())
    if bits is None:
        raise Refusal(415, f"Content-Encoding is '{encoding[:40]}'. Expected gzip, deflate or none.")
    expander = zlib.decompressobj(bits)
    try:
        plain = expander.decompress(data, limits.max_body_bytes + 1)
    except zlib.error as error:
        raise Refusal(400, f"The body is no {encoding}: {error}.") from error
    if len(plain) > limits.max_body_bytes:
        raise _too_large(limits)
    if not expander.eof or expander.unused_data:
        raise Refusal(400, f"The body is not one complete {encoding} stream.")
    return plain
