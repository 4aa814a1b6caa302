"""The application: routes, and JSON for what no route takes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from edgewright.runtime.server.classify import classify_routes
from edgewright.runtime.server.inference import inference_routes, repository_routes
from edgewright.runtime.server.metrics import CONTENT_TYPE
from edgewright.runtime.server.openapi import openapi_document
from edgewright.runtime.server.page import render_page
from edgewright.runtime.server.service import Service, json_response

__all__ = ["make_app"]

_PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src blob:"
)


def make_app(service: Service) -> Starlette:
    """The ASGI application of a service.

    Starlette alone, without FastAPI: bodies are read by hand here, since they are refused before they are read, so what
    FastAPI adds (dependencies, models from JSON) would cost each request its time and give nothing.
    """
    document = openapi_document(service.settings, with_token=service.has_token)
    page = render_page(document)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    async def openapi(request: Request) -> Response:
        return json_response(document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = {
            404: f"Nothing is at '{request.url.path[:200]}'. See /openapi.json.",
            405: f"{request.method[:20]} is not allowed at '{request.url.path[:200]}'. See /openapi.json.",
        }.get(error.status_code, error.detail)
        return json_response({"error": text}, error.status_code, dict(error.headers or {}))

    routes = [
        *classify_routes(service),
        *inference_routes(service),
        *repository_routes(service),
        Route("/metrics", service.endpoint("metrics", metrics), methods=["GET"]),
        Route("/openapi.json", service.endpoint("openapi", openapi, public=True), methods=["GET"]),
        Route("/", service.endpoint("page", docs, public=True), methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: unknown})
    # `/v2/` is not `/v2`: a redirect would hide a client's mistake, and cost it a second request each time.
    app.router.redirect_slashes = False
    return app
