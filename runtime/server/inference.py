"""The endpoints of the Open Inference Protocol v2, with its model repository extension."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgewright.runtime.errors import EdgewrightError
from edgewright.runtime.frames import HEADER_LENGTH
from edgewright.runtime.server.json_depth import require_shallow
from edgewright.runtime.server.models import Answer, ServedModel
from edgewright.runtime.server.protocol import VERSION, model_metadata, parse_request, render_response
from edgewright.runtime.server.refusals import Refusal
from edgewright.runtime.server.service import Service, json_response, refusal_of
from edgewright.version import __version__

__all__ = ["inference_routes", "repository_routes"]

_EXTENSIONS = ["binary_tensor_data", "classification", "model_repository"]
_QUICK = 64 * 1024
"""JSON up to this size is read in the event loop; a thread would cost more than the half millisecond it takes."""


class _Inference:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def server(self, request: Request) -> Response:
        return json_response({"name": "edgewright", "version": __version__, "extensions": _EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._service.ready()
        return json_response({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        model = self._model(request)
        return json_response(model_metadata(model.manifest, f"edgewright_{model.classifier.backend_name}"))

    async def model_ready(self, request: Request) -> Response:
        model = self._model(request)
        ready = model.ready() and not self._service.draining
        return json_response({"name": model.manifest.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request) -> Response:
        service = self._service
        model = self._model(request)
        name = model.manifest.name
        with service.accepted(model), service.body_share() as read:
            body = await read(request)
            header_length = request.headers.get(HEADER_LENGTH)
            arguments = (body, header_length, model.manifest, service.settings)
            quick = len(body) <= _QUICK or (header_length or "").isdigit()
            try:
                if quick:
                    wanted = parse_request(*arguments)
                else:
                    wanted = await asyncio.to_thread(parse_request, *arguments)
            except ValueError as error:
                raise Refusal(400, str(error)) from error
            model, outcomes, _ = await service.answers(request, name, wanted.pictures, wanted.timeout_s)
            logits = [_require(outcome).logits for outcome in outcomes]
        text, json_length = render_response(model.manifest, wanted, logits)
        if json_length is None:
            return Response(text, media_type="application/json")
        headers = {HEADER_LENGTH: str(json_length)}
        return Response(text, headers=headers, media_type="application/octet-stream")

    def _model(self, request: Request) -> ServedModel:
        version = request.path_params.get("version", VERSION)
        model = self._service.model(request.path_params["model"])
        if version != VERSION:
            raise Refusal(404, f"Model '{model.manifest.name}' has no version '{version[:20]}', only '{VERSION}'.")
        return model

    async def index(self, request: Request) -> Response:
        entries = []
        for model in self._service.repository.models:
            ready = model.ready()
            state = {
                "state": "READY" if ready else "UNAVAILABLE",
                "reason": "" if ready else "an engine does not answer",
            }
            entries.append({"name": model.manifest.name, "version": VERSION, **state})
        document = await self._document(request)
        return json_response([entry for entry in entries if not document.get("ready") or entry["state"] == "READY"])

    async def load(self, request: Request) -> Response:
        model = self._service.model(request.path_params["model"])
        if self._service.draining:
            raise Refusal(503, "The server is being stopped.", {"Retry-After": "1"})
        if (await self._document(request)).get("parameters"):
            raise Refusal(
                400, "Parameters are not supported: a model is loaded from the bundle that it was started with."
            )
        try:
            await self._service.repository.reload(model.manifest.name)
        except EdgewrightError as error:
            raise Refusal(400, f"Not loaded, the former one goes on: {error}") from error
        return json_response({})

    async def _document(self, request: Request) -> dict[str, Any]:
        """The JSON object in the body, which may be absent."""
        with self._service.body_share() as read:
            body = await read(request)
        if len(body) > self._service.settings.max_json_bytes:
            raise Refusal(413, f"The JSON is larger than {self._service.settings.max_json_mb} MiB.")
        try:
            require_shallow(body, self._service.settings.max_json_depth)
            document = json.loads(body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"The body is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise Refusal(400, "The body is not a JSON object.")
        return document


def _require(outcome: Answer | Exception) -> Answer:
    if isinstance(outcome, Exception):
        raise refusal_of(outcome)
    return outcome


def inference_routes(service: Service) -> list[Route]:
    """Health, metadata, inference."""
    on = _Inference(service)
    wrap = service.endpoint
    versioned = "/v2/models/{model}/versions/{version}"
    plain = "/v2/models/{model}"
    infer = wrap("infer", on.infer)
    model_ready = wrap("model_ready", on.model_ready)
    model = wrap("model", on.model)
    return [
        Route(f"{versioned}/infer", infer, methods=["POST"]),
        Route(f"{plain}/infer", infer, methods=["POST"]),
        Route("/v2", wrap("server", on.server), methods=["GET"]),
        Route("/v2/health/live", wrap("live", on.live, public=True), methods=["GET"]),
        Route("/v2/health/ready", wrap("ready", on.ready, public=True), methods=["GET"]),
        Route(f"{versioned}/ready", model_ready, methods=["GET"]),
        Route(f"{plain}/ready", model_ready, methods=["GET"]),
        Route(versioned, model, methods=["GET"]),
        Route(plain, model, methods=["GET"]),
    ]


def repository_routes(service: Service) -> list[Route]:
    """https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md."""
    on = _Inference(service)
    return [
        Route("/v2/repository/index", service.endpoint("repository_index", on.index), methods=["POST"]),
        Route("/v2/repository/models/{model}/load", service.endpoint("load", on.load), methods=["POST"]),
    ]
