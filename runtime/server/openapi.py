"""The OpenAPI document. Written out rather than derived: bodies here are binary frames, pictures and forms."""

from __future__ import annotations

from typing import Any

from edgewright.runtime.frames import HEADER_LENGTH
from edgewright.runtime.server.protocol import InferenceRequest
from edgewright.runtime.server.settings import Limits
from edgewright.version import __version__

__all__ = ["openapi_document"]

_WHY = {
    400: "The request is not what it should be; the message says what is.",
    401: "The bearer token is missing or wrong.",
    404: "No such model or version.",
    408: "The request did not arrive in time.",
    413: "The request is larger than allowed.",
    415: "The Content-Encoding is not known.",
    429: "Too many pictures wait. Try again.",
    431: "The request's head is larger than allowed.",
    500: "The engine failed.",
    503: "Not serving: being stopped, or the engine does not answer.",
    504: "No result before the deadline.",
}
_STRING = {"type": "string"}
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _STRING,
        "datatype": {"enum": ["UINT8", "BYTES", "FP32"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required or list(properties)}


def _array(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _responses(content: dict[str, Any], *errors: int) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status in errors:
        answers[str(status)] = {"description": _WHY[status], "content": _json(_ref("Error"))}
    return answers


def _parameter(name: str, place: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": text}


def openapi_document(limits: Limits, *, with_token: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the server. `with_token`: clients must show one."""
    guarded = (401,) if with_token else ()
    body_errors = (400, *guarded, 408, 413, 415, 431)
    model = _parameter("model", "path", {**_STRING, "minLength": 1}, "The bundle's name.")
    version = _parameter("version", "path", {"const": "1"}, "Always 1.")
    ready = _object({"ready": {"type": "boolean"}})
    model_ready = _object({"name": _STRING, "ready": {"type": "boolean"}})

    def get(summary: str, schema: dict[str, Any], *errors: int) -> dict[str, Any]:
        return {"get": {"summary": summary, "responses": _responses(_json(schema), *errors)}}

    def not_ready(path: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        path["get"]["responses"]["503"] = {"description": "Not ready.", "content": _json(schema)}
        return path

    infer = {
        "post": {
            "summary": "Infer",
            "description": "JSON, or JSON and binary tensors, as the Open Inference Protocol v2 has it.",
            "parameters": [
                _parameter(
                    HEADER_LENGTH,
                    "header",
                    {"type": "integer", "minimum": 1},
                    "Length of the JSON, if binary tensors follow it.",
                )
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": _ref("InferenceRequest")},
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                },
            },
            "responses": _responses(
                _json(_ref("InferenceResponse"))
                | {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
                *body_errors,
                *(404, 429, 500, 503, 504),
            ),
        }
    }
    paths: dict[str, Any] = {
        "/classify": {"post": _classify(body_errors)},
        "/v2": get("The server", _ref("Server"), *guarded),
        "/v2/health/live": get("Does it run?", _object({"live": {"type": "boolean"}})),
        "/v2/health/ready": not_ready(get("Does it take requests?", ready), ready),
        "/v2/models/{model}": get("A model", _ref("Model"), *guarded, 404),
        "/v2/models/{model}/versions/{version}": get("A version of it", _ref("Model"), *guarded, 404),
        "/v2/models/{model}/ready": not_ready(get("Is it ready?", model_ready, *guarded, 404), model_ready),
        "/v2/models/{model}/versions/{version}/ready": not_ready(
            get("Is the version ready?", model_ready, *guarded, 404), model_ready
        ),
        "/v2/models/{model}/infer": infer,
        "/v2/models/{model}/versions/{version}/infer": {"post": dict(infer["post"])},
        "/v2/repository/index": {"post": _index(body_errors)},
        "/v2/repository/models/{model}/load": {"post": _load(body_errors)},
        "/metrics": {
            "get": {
                "summary": "Metrics for Prometheus",
                "responses": _responses({"text/plain": {"schema": _STRING}}, *guarded),
            }
        },
    }
    for path, methods in paths.items():
        parameters = [entry for entry in (model, version) if f"{{{entry['name']}}}" in path]
        for operation in methods.values():
            operation["parameters"] = [*parameters, *operation.get("parameters", [])]
    request = InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = {**request.pop("$defs"), "InferenceRequest": request, **_SCHEMAS}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgewright",
            "version": __version__,
            "description": (
                f"Pictures to labels. At most {limits.max_body_mb} MiB, {limits.max_pictures} pictures and "
                f"{limits.max_pixels:,} pixels each in a request."
            ),
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if with_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path in ("/v2/health/live", "/v2/health/ready"):
            paths[path]["get"]["security"] = []
    return document


def _classify(body_errors: tuple[int, ...]) -> dict[str, Any]:
    picture = {"schema": {"type": "string", "format": "binary"}}
    form = _object({"file": _array({"type": "string", "format": "binary"})})
    return {
        "summary": "Label a picture",
        "description": "The picture as the body, or a form with one or several. Answers as `edgewright predict --json`.",
        "parameters": [
            _parameter("model", "query", _STRING, "The bundle's name, where several are served."),
            _parameter("top_k", "query", {"type": "integer", "minimum": 1, "maximum": 100_000}, "How many labels."),
        ],
        "requestBody": {
            "required": True,
            "content": {
                **dict.fromkeys(("image/jpeg", "image/png", "image/webp", "application/octet-stream"), picture),
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": _responses(_json(_ref("Predictions")), *body_errors, 404, 429, 500, 503, 504),
    }


def _index(body_errors: tuple[int, ...]) -> dict[str, Any]:
    entry = _object({"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING})
    return {
        "summary": "What is served",
        "requestBody": {"content": _json(_object({"ready": {"type": "boolean"}}, []))},
        "responses": _responses(_json(_array(entry)), *body_errors, 503),
    }


def _load(body_errors: tuple[int, ...]) -> dict[str, Any]:
    return {
        "summary": "Read a model's bundle again",
        "requestBody": {"content": _json(_object({"parameters": {"type": "object", "maxProperties": 0}}, []))},
        "responses": _responses(_json({"type": "object"}), *body_errors, 404, 503),
    }


_SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _STRING}),
    "Server": _object({"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}),
    "Model": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_TENSOR),
            "outputs": _array(_TENSOR),
        }
    ),
    "InferenceResponse": _object(
        {"model_name": _STRING, "model_version": _STRING, "id": _STRING, "outputs": _array(_TENSOR)},
        ["model_name", "outputs"],
    ),
    "Predictions": _object(
        {
            "model": _STRING,
            "predictions": _array(
                _object(
                    {
                        "file": {"type": ["string", "null"]},
                        "error": _STRING,
                        "label": _STRING,
                        "index": {"type": "integer"},
                        "score": {"type": "number"},
                        "known": {"type": "boolean"},
                        "top_k": _array(_object({"label": _STRING, "score": {"type": "number"}})),
                        "timings_ms": {"type": "object", "additionalProperties": {"type": "number"}},
                    },
                    ["file"],
                )
            ),
        }
    ),
}
