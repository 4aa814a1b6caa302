"""A model on a server: another edgewright, Triton, OpenVINO Model Server, or whatever speaks the Open Inference Protocol v2."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from edgewright.runtime.backends.base import EngineClock, Execution, LoadRequest, TensorSpec, check_feeds, run_in_parts
from edgewright.runtime.backends.devices import Device, no_such_device
from edgewright.runtime.backends.lifetime import Lifetime
from edgewright.runtime.console import warn
from edgewright.runtime.errors import BackendError, UsageError
from edgewright.runtime.frames import HEADER_LENGTH
from edgewright.runtime.remote.connection import Answer
from edgewright.runtime.remote.protocol import (
    ModelMetadata,
    answer_limit,
    decode_answer,
    decode_error,
    decode_metadata,
    encode_request,
    plain_text,
)
from edgewright.runtime.remote.transport import Transport

__all__ = ["RemoteBackend", "why_not_on"]

_METADATA_BYTES = 1024 * 1024


def why_not_on(device: Device, precision: str) -> str:
    """Why no device can be asked for: the server has its own."""
    return no_such_device(str(device), "remote", ())


class RemoteBackend:
    """A client of one model. Requests are as many at once as threads call `run`; the server queues them.

    The name of the request is that of the model on the server unless the settings tell another. Of versions, this client
    keeps to the one that is told, or else to the one that it has met first: another one may be another model.
    """

    def __init__(self, request: LoadRequest) -> None:
        settings = request.settings.remote
        if settings is None:
            raise UsageError("The backend 'remote' needs a server: load(…, remote='http://host:8000'), or --url.")
        if settings.exposes_token:
            warn(f"the token is sent to {settings.origin} without encryption; use https, or a tunnel")
        self._name = request.name
        self._path = settings.path(request.name)
        self._version = settings.version
        # A proxy in front may stand for several servers, so messages name the model too.
        self._origin = f"{settings.origin}{self._path}"
        self._numbers = itertools.count(1)
        self._lifetime = Lifetime(request.name)
        self._transport = Transport(settings)
        try:
            metadata = self._metadata()
            self._batch = _fixed_batch(metadata, self._origin)
        except BaseException:
            self._transport.close()
            raise
        self.inputs, self.outputs = (
            tuple(TensorSpec(spec.name, spec.dtype, (None, *spec.shape[1:])) for spec in specs)
            for specs in ([one.spec() for one in metadata.inputs], [one.spec() for one in metadata.outputs])
        )
        platform = plain_text(metadata.platform) or "unknown platform"
        self.execution = Execution("remote", f"{platform} at {self._origin}", None, None)

    def _metadata(self) -> ModelMetadata:
        answer = self._transport.ask("GET", self._path, limit_bytes=_METADATA_BYTES)
        self._require_success(answer)
        metadata = decode_metadata(answer.body, self._origin)
        if self._version is not None and metadata.versions and self._version not in metadata.versions:
            raise BackendError(
                f"{self._origin} has the versions {plain_text(', '.join(metadata.versions))}, not {self._version}. Name one of these."
            )
        if self._version is None and len(metadata.versions) == 1:
            self._version = metadata.versions[0]
        return metadata

    def _require_success(self, answer: Answer) -> None:
        """Nothing but 200 and an unencoded body is an answer.

        Raises:
            BackendError: what the status means, and what the server says.
        """
        if answer.status == 200:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise BackendError(f"{self._origin} compressed its answer, which was not asked for.")
            return
        said = decode_error(answer.body)
        advice = {
            400: "It refused the request.",
            401: "It wants a token: set EDGEWRIGHT_TOKEN, or RemoteSettings(token=…).",
            403: "The token does not allow this.",
            404: "It has no such model. Name it in the address: http://host:8000/v2/models/NAME.",
            413: "The request is too large for it. Send fewer pictures at once.",
            429: "It is busy. Try later, or with a longer timeout_s.",
            503: "It is busy or not ready. Try later, or with a longer timeout_s.",
        }.get(
            answer.status, "Redirects are not followed; give the final address." if 300 <= answer.status < 400 else ""
        )
        text = f"{self._origin} answered with status {answer.status}"
        raise BackendError(" ".join(part for part in (f"{text}: {said}." if said else f"{text}.", advice) if part))

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], clock: EngineClock | None = None
    ) -> Sequence[npt.NDArray[Any]]:
        """See :class:`~edgewright.runtime.backends.base.Backend`. Takes at most `timeout_s` for each request."""
        with self._lifetime:
            check_feeds(feeds, self.inputs, self._name)
            return run_in_parts(self._infer, feeds, self._batch)

    def _infer(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        batch = len(next(iter(feeds.values())))
        number = str(next(self._numbers))
        headers, body = encode_request(feeds, self.outputs, number)
        limit = answer_limit(self.outputs, batch)
        answer = self._transport.ask("POST", f"{self._path}/infer", limit_bytes=limit, headers=headers, body=body)
        self._require_success(answer)
        arrays, document = decode_answer(
            answer.body, answer.headers.get(HEADER_LENGTH.lower()), self.outputs, self._origin
        )
        if document.id not in (None, "", number):
            raise BackendError(f"{self._origin} answered another request than the one it was sent.")
        if document.model_version:
            if self._version is None:
                self._version = document.model_version
            elif document.model_version != self._version:
                raise BackendError(
                    f"{self._origin} answered with version '{plain_text(document.model_version)}'; expected '{self._version}', "
                    "which was checked. Load it again, or name a version in the address: …/versions/V."
                )
        for array, spec in zip(arrays, self.outputs, strict=True):
            if (
                array.dtype.name != spec.dtype
                or array.ndim != len(spec.shape)
                or len(array) != batch
                or any(axis not in (None, found) for axis, found in zip(spec.shape, array.shape, strict=True))
            ):
                raise BackendError(
                    f"{self._origin} answered with {array.dtype} {list(array.shape)} for '{spec.name}'; its metadata promised "
                    f"{spec.dtype} {[batch, *spec.shape[1:]]}."
                )
        return arrays

    def close(self) -> None:
        """See :class:`~edgewright.runtime.backends.base.Backend`. Waits no longer than the time a request may take."""
        self._transport.interrupt()
        self._lifetime.end()
        self._transport.close()


def _fixed_batch(metadata: ModelMetadata, origin: str) -> int | None:
    """1 if the server takes one picture at a time, None if it takes any number.

    Raises:
        BackendError: a model without a batch axis, or for another batch.
    """
    sizes = {tensor.shape[0] if tensor.shape else 0 for tensor in (*metadata.inputs, *metadata.outputs)}
    if not metadata.inputs or not metadata.outputs or sizes not in ({-1}, {1}):
        shapes = plain_text(
            ", ".join(f"{each.name} {list(each.shape)}" for each in (*metadata.inputs, *metadata.outputs))
        )
        raise BackendError(
            f"{origin} has the tensors {shapes}. Expected a first axis of -1, or 1, for the pictures of a batch."
        )
    return None if sizes == {-1} else 1
