"""What every request goes through, whatever its endpoint: who asks, whether there is room, the engine, the answer."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from edgewright.runtime.errors import BackendError, ImageError
from edgewright.runtime.server.batcher import AbandonedError, DeadlineError, NotServingError, QueueFullError
from edgewright.runtime.server.body import BodyBudget, ClientGoneError, decompress, read_body
from edgewright.runtime.server.metrics import Metrics
from edgewright.runtime.server.models import Answer, Picture, ServedModel
from edgewright.runtime.server.refusals import Refusal
from edgewright.runtime.server.repository import Repository
from edgewright.runtime.server.settings import ServeSettings

__all__ = ["Handler", "Service", "json_response", "refusal_of"]

Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"

_RETRY = {"Retry-After": "1"}
_GONE = 499
"""nginx's status for a client that did not wait; nobody reads it but the metrics."""

_log = logging.getLogger("edgewright.server")


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON, and nothing in it that JSON does not have."""
    body = json.dumps(document, allow_nan=False).encode()
    return Response(body, status, headers, media_type="application/json")


class Service:
    """The server's state. Belongs to the event loop's thread."""

    def __init__(self, repository: Repository, settings: ServeSettings, metrics: Metrics, token: str | None) -> None:
        self.repository = repository
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self._budget = BodyBudget(settings.max_buffered_bytes)
        self._authorization = None if token is None else f"Bearer {token}".encode()
        self._accepted = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def has_token(self) -> bool:
        """Whether clients must show a token."""
        return self._authorization is not None

    def endpoint(self, name: str, handler: Handler, *, public: bool = False) -> Handler:
        """`handler` with the token checked (unless `public`), refusals turned into answers, and all of it counted."""

        async def answer(request: Request) -> Response:
            start = perf_counter()
            try:
                if not public:
                    self._authorize(request)
                response = await handler(request)
            except Refusal as refusal:
                response = json_response({"error": refusal.message}, refusal.status, refusal.headers)
            except ClientGoneError:
                response = Response(status_code=_GONE)
            except Exception as error:
                _log.exception("%s failed", name)
                response = json_response({"error": f"The server failed: {type(error).__name__}."}, 500)
            if self.draining:
                response.headers["Connection"] = "close"
            self.metrics.request(name, response.status_code, perf_counter() - start)
            return response

        return answer

    def _authorize(self, request: Request) -> None:
        if self._authorization is None:
            return
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            raise Refusal(401, "A bearer token is required: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})

    def model(self, name: str) -> ServedModel:
        """The model called `name`.

        Raises:
            Refusal: 404, there is none.
        """
        model = self.repository.get(name)
        if model is None:
            names = ", ".join(f"'{model.manifest.name}'" for model in self.repository.models)
            raise Refusal(404, f"No model '{name[:200]}'. Served here: {names}.")
        return model

    def ready(self) -> bool:
        """Whether requests are welcome: not being stopped, and every engine answers."""
        return not self.draining and self.repository.ready()

    @contextmanager
    def accepted(self, model: ServedModel) -> Iterator[None]:
        """Accept a request, before anything of its body is read; the server does not end before the block does.

        Raises:
            Refusal: 503 the server is being stopped or the engine does not answer, 429 too many wait.
        """
        if self.draining:
            raise Refusal(503, "The server is being stopped.", _RETRY)
        with _refusing():
            model.batcher.check()
        self._accepted += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._accepted -= 1
            if not self._accepted:
                self._idle.set()

    @contextmanager
    def body_share(self) -> Iterator[Callable[[Request], Awaitable[bytes]]]:
        """Yield a function that reads a request's body; its memory counts until the block ends."""
        with self._budget.share() as share:

            async def read(request: Request) -> bytes:
                data = await read_body(request, self.settings, share)
                encoding = request.headers.get("content-encoding", "identity")
                if encoding.lower() == "identity":
                    return data
                plain = await asyncio.to_thread(decompress, data, encoding, self.settings)
                share.take(len(plain))
                return plain

            yield read

    async def answers(
        self, request: Request, name: str, pictures: Sequence[Picture], timeout_s: float | None = None
    ) -> tuple[ServedModel, list[Answer | Exception], float]:
        """Pictures through the model called `name`: each one's answer or what was wrong with it, and the wait in s.

        The model is looked up again, as another may have taken its place while the request arrived.

        Raises:
            Refusal: no room (429), not serving (503), too late (504).
            ClientGoneError: the client closed the connection; what was still in the queue is dropped.
        """
        model = self.model(name)
        with _refusing():
            ticket = model.batcher.submit(pictures, timeout_s)
        # All of the body was read: the next thing to come is the end of the connection.
        gone = asyncio.ensure_future(request.receive())
        gone.add_done_callback(lambda _: model.batcher.cancel(ticket))
        try:
            with _refusing():
                outcomes = await asyncio.wrap_future(ticket.future)
        finally:
            gone.cancel()
        good = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        prepared_ms = max((answer.decode_ms + answer.preprocess_ms for answer in good), default=0.0)
        waited_s = max(0.0, ticket.waited_s - prepared_ms / 1e3)
        self.metrics.answers(name, good, waited_s)
        return model, outcomes, waited_s

    async def drain(self, timeout_s: float) -> int:
        """Accept nothing more, wait for what was accepted; how many requests are still unanswered in the end."""
        self.draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except asyncio.TimeoutError:
            return self._accepted
        return 0


@contextmanager
def _refusing() -> Iterator[None]:
    """The batcher's exceptions as statuses."""
    try:
        yield
    except QueueFullError as error:
        raise Refusal(429, str(error), _RETRY) from error
    except NotServingError as error:
        raise Refusal(503, str(error), _RETRY) from error
    except DeadlineError as error:
        raise Refusal(504, str(error)) from error
    except AbandonedError as error:
        raise ClientGoneError from error


def refusal_of(error: Exception) -> Refusal:
    """What the client is told about a picture that has no answer."""
    if isinstance(error, ImageError):
        return Refusal(400, str(error))
    if isinstance(error, BackendError):
        _log.error("%s", error)
        return Refusal(500, str(error))
    _log.error("a picture could not be computed", exc_info=error)
    return Refusal(500, f"The server failed: {type(error).__name__}.")
