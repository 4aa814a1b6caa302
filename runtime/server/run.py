"""From bundles to a listening server, and from a signal to its end.

```
SIGTERM, SIGINT   no longer ready; new requests get 503; accepted ones are finished; exit status 0
… once more       the end, at once: exit status 1
SIGHUP            every bundle is read again; one that cannot be used leaves the old one serving
```
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from edgewright.runtime.console import notice, warn
from edgewright.runtime.errors import EdgewrightError, UsageError
from edgewright.runtime.server.app import make_app
from edgewright.runtime.server.connection import protocol_class
from edgewright.runtime.server.metrics import Metrics
from edgewright.runtime.server.repository import Repository
from edgewright.runtime.server.service import Service
from edgewright.runtime.server.settings import ServeSettings

__all__ = ["bind", "serve"]

_KEEP_ALIVE_S = 75
"""nginx's default; longer than what clients and balancers keep a connection for."""

_LAST_BYTES_S = 5
"""For answers that are computed, and that their clients take slowly."""

_ENDING = (signal.SIGTERM, signal.SIGINT)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; who connects waits until requests are taken.

    Raises:
        UsageError: the address is in use, not ours, or no address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"'{host}' is no address to listen at: {error.strerror or error}.") from error
    try:
        if os.name == "posix":
            # A server that has just ended leaves connections behind that the system still remembers.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two servers that start at the same time could both bind, not both listen.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Cannot listen at {host} port {port}: {error.strerror or error}. Choose another --port, or end what is there."
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn with our own way to end: it closes the door only after what was accepted is done."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        self._service = service
        self._drain: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once requests are taken and signals have their new meaning."""
        await super().startup(sockets)
        self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals while the loop runs, and give them back afterwards."""
        loop = asyncio.get_running_loop()

        def later(function: Callable[[], None]) -> Callable[[int, FrameType | None], object]:
            return lambda _number, _frame: loop.call_soon_threadsafe(function)

        handlers = {number: later(self._end) for number in _ENDING}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = later(self._reload_all)
        former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        if self._drain is None:
            notice("stopping: what was accepted is finished first; once more to stop at once")
            self._drain = asyncio.ensure_future(self._drain_and_exit())
        else:
            _leave("stopped at once; requests may be unanswered")

    async def _drain_and_exit(self) -> None:
        if lost := await self._service.drain(self._service.settings.drain_s):
            _leave(f"{lost} requests were accepted and not finished within --drain-s")
        self.should_exit = True

    def _reload_all(self) -> None:
        task = asyncio.ensure_future(self._reload_each())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_each(self) -> None:
        for model in self._service.repository.models:
            name = model.manifest.name
            try:
                await self._service.repository.reload(name)
                notice(f"'{name}' was read again")
            except EdgewrightError as error:
                warn(f"'{name}' is served as before: {error}")


def serve(
    bundles: Sequence[Path],
    settings: ServeSettings,
    token: str | None,
    on_start: Callable[[str, Repository], None],
) -> None:
    """Serve until a signal ends it.

    Args:
        bundles: At least one.
        settings: See :class:`~edgewright.runtime.server.settings.ServeSettings`.
        token: What clients must show, if anything.
        on_start: Told the URL and the models when requests are taken.

    Raises:
        EdgewrightError: a bundle cannot be served, or the address is not to be had.
        SystemExit: status 1, requests were accepted and not answered.
    """
    listener = bind(settings.host, settings.port)
    with listener:
        metrics = Metrics()
        repository = Repository(bundles, settings, metrics.batch)
        metrics.watch(repository)
        service = Service(repository, settings, metrics, token)
        config = uvicorn.Config(
            make_app(service),
            http=protocol_class(settings),
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="error",
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_LAST_BYTES_S,
        )
        url = _url(listener)
        server = _Server(config, service, lambda: on_start(url, repository))
        server.run(sockets=[listener])
    if not repository.close(_LAST_BYTES_S if repository.ready() else 0):
        # An engine hangs; the interpreter would wait for it, or pull the memory away under it.
        _leave("an engine does not end", 0)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(message: str, status: int = 1) -> None:
    """End the process now, whatever its threads do."""
    warn(message)
    sys.stdout.flush()
    os._exit(status)
