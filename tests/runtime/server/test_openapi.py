"""The OpenAPI document against the running server: schemathesis makes up requests, valid and not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from edgewright.runtime.server.openapi import openapi_document
from edgewright.runtime.server.settings import ServeSettings

from .conftest import Server, running

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
"""All but those that think a request good or bad by its schema alone, which cannot say that bytes are a picture, and those
of users and tokens."""


@pytest.fixture(scope="module")
def document_server(tiny_bundle: Path) -> Iterator[Server]:
    """A server for one model."""
    with running(tiny_bundle) as found:
        yield found


DOCUMENT = openapi_document(ServeSettings(), with_token=False)
schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_server_keeps_to_its_document(case: Any, document_server: Server) -> None:
    # A made-up name is a 404 and nothing more; most requests are for the model that is there.
    if len(str(case.path_parameters.get("model", ""))) % 4:
        case.path_parameters["model"] = "colours-0"
    case.call_and_validate(base_url=document_server.url, checks=CHECKS)


def test_server_gives_the_document_and_has_its_paths(document_server: Server) -> None:
    with document_server.client() as client:
        assert client.get("/openapi.json").json() == DOCUMENT
        for path in DOCUMENT["paths"]:
            real = path.replace("{model}", "colours-0").replace("{version}", "1")
            assert client.request("PATCH", real).status_code == 405
