"""`POST /classify`: a picture as the body, or a form with one or several, answered as `edgewright predict --json` does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgewright.runtime.rows import prediction_row, timings_row
from edgewright.runtime.server.models import Answer, ServedModel
from edgewright.runtime.server.refusals import Refusal
from edgewright.runtime.server.service import Service, json_response, refusal_of

__all__ = ["classify_routes"]

_MOST_FIELDS = 8
_MOST_LABELS = 100_000


class _Classify:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def classify(self, request: Request) -> Response:
        service = self._service
        model, top_k = self._chosen(request), _top_k(request)
        with service.accepted(model), service.body_share() as read:
            body = await read(request)
            uploads = await _uploads(request, body, service.settings.max_pictures)
            pictures = [data for _, data in uploads]
            model, outcomes, waited_s = await service.answers(request, model.manifest.name, pictures)
        predictions = []
        refusals = []
        for (file, _), outcome in zip(uploads, outcomes, strict=True):
            if isinstance(outcome, Exception):
                refusals.append(refusal_of(outcome))
                predictions.append({"file": file, "error": refusals[-1].message})
            else:
                predictions.append(_prediction(model, file, outcome, top_k, waited_s))
        if len(refusals) == len(predictions):
            raise refusals[0]
        return json_response({"model": model.manifest.name, "predictions": predictions})

    def _chosen(self, request: Request) -> ServedModel:
        name = request.query_params.get("model")
        if name is not None:
            return self._service.model(name)
        models = self._service.repository.models
        if len(models) > 1:
            names = ", ".join(f"'{model.manifest.name}'" for model in models)
            raise Refusal(400, f"Several models are served: {names}. Choose one with ?model=NAME.")
        return models[0]


def _top_k(request: Request) -> int:
    text = request.query_params.get("top_k", "5")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _MOST_LABELS):
        raise Refusal(400, f"top_k is {text[:40]!r}. Expected a number from 1 to {_MOST_LABELS}.")
    return int(text)


async def _uploads(request: Request, body: bytes, most: int) -> list[tuple[str | None, bytes]]:
    """Names and bytes of the pictures."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [(None, body)]

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=most, max_fields=_MOST_FIELDS)
    parser.spool_max_size = len(body) + 1  # it is all in memory already, and need not go to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:  # KeyError: no boundary
        raise Refusal(400, f"The form cannot be read: {getattr(error, 'message', error)}.") from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise Refusal(400, "The form holds no file. Expected at least one part with a filename.")
        return [(file.filename, await file.read()) for file in files]
    finally:
        await form.close()


def _prediction(model: ServedModel, file: str | None, answer: Answer, top_k: int, waited_s: float) -> dict[str, Any]:
    """An entry of the document that `edgewright predict --json` prints, and how long the picture waited."""
    found = model.classifier.prediction(
        answer.logits,
        top_k,
        decode_ms=answer.decode_ms,
        preprocess_ms=answer.preprocess_ms,
        inference_ms=answer.inference_ms,
    )
    timings = {"queue": waited_s * 1e3} | timings_row(found.timings)
    return {"file": file} | prediction_row(found) | {"timings_ms": timings}


def classify_routes(service: Service) -> list[Route]:
    """The route of plain uploads."""
    return [Route("/classify", service.endpoint("classify", _Classify(service).classify), methods=["POST"])]
