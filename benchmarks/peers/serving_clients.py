"""Clients of a server that labels pictures, in a process of their own: closed loop or at a given rate.

One JSON document comes in on stdin, one goes out on stdout, as :mod:`edgewright.benchmarks.peers.sides` says. `do` is

- "closed": `clients` connections, each of which sends the next picture as soon as the last one is answered, for `seconds`,
  and until `requests` have been sent, if that comes first;
- "open": pictures are sent at `rate` a second, whether or not earlier ones have been answered, for `seconds`.

Pictures go as they are in the body of a POST to `path`, or as the field `field` of a form. Connections are kept alive.
"""

from __future__ import annotations

import asyncio
import math
from itertools import count, cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from edgewright.benchmarks.peers.sides import Turns, work_in_turns

__all__ = ["load_server"]

_BOUNDARY = "edgewright-boundary"


class _Client:
    """A kept connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """The status of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split()[1])

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


def _requests(request: dict[str, Any]) -> list[bytes]:
    found = []
    for file in request["pictures"]:
        body, kind = Path(file).read_bytes(), "image/jpeg"
        if request.get("field"):
            kind = f"multipart/form-data; boundary={_BOUNDARY}"
            head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{request["field"]}"; filename="a.jpg"\r\n'
            body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + body + f"\r\n--{_BOUNDARY}--\r\n".encode()
        head = f"POST {request['path']} HTTP/1.1\r\nHost: {request['host']}\r\nContent-Type: {kind}\r\n"
        found.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


async def _closed(request: dict[str, Any]) -> list[tuple[int, float]]:
    bodies = cycle(_requests(request))
    end, most, numbers = perf_counter() + request["seconds"], request.get("requests", math.inf), count()
    answers: list[tuple[int, float]] = []

    async def client() -> None:
        connection = _Client(request["host"], request["port"])
        while perf_counter() < end and next(numbers) < most:
            started = perf_counter()
            status = await connection.ask(next(bodies))
            answers.append((status, 1e3 * (perf_counter() - started)))
        connection.close()

    await asyncio.gather(*(client() for _ in range(request["clients"])))
    return answers


async def _open(request: dict[str, Any]) -> list[tuple[int, float]]:
    bodies = cycle(_requests(request))
    idle: list[_Client] = []
    answers: list[tuple[int, float]] = []

    async def send(body: bytes, due: float) -> None:
        connection = idle.pop() if idle else _Client(request["host"], request["port"])
        status = await connection.ask(body)
        # Counted from when it should have been sent: a client that is late is no excuse for the server.
        answers.append((status, 1e3 * (perf_counter() - due)))
        idle.append(connection)

    started, sending = perf_counter(), []
    for number in range(int(request["rate"] * request["seconds"])):
        due = started + number / request["rate"]
        await asyncio.sleep(max(0.0, due - perf_counter()))
        sending.append(asyncio.create_task(send(next(bodies), due)))
    await asyncio.gather(*sending)
    for connection in idle:
        connection.close()
    return answers


def load_server(request: dict[str, Any], turns: Turns) -> dict[str, Any]:
    """Returns `seconds` that it took, and `answers`: status and milliseconds of each."""
    started = perf_counter()
    answers = asyncio.run((_closed if request["do"] == "closed" else _open)(request))
    return {"seconds": perf_counter() - started, "answers": answers}


if __name__ == "__main__":
    work_in_turns(load_server)
