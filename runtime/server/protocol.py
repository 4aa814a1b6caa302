"""Inference requests and responses of the Open Inference Protocol v2, JSON and binary.

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with Triton's
extensions for binary tensors and classification. A model has one input and one output. The input is given as

- UINT8, shape [N, height, width, 3]: pixels prepared as the bundle says, or
- BYTES, shape [N] or [N, 1]: encoded pictures; in JSON, where bytes cannot be written, as base64.

The output is FP32 [N, classes], the logits; with the parameter `classification: k` it is BYTES [N, k], each element
`logit:index:label`, best first.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.runtime.frames import join_elements, split_elements, split_frame, take_chunks
from edgewright.runtime.manifest import Manifest
from edgewright.runtime.scores import top_scores
from edgewright.runtime.server.json_depth import require_shallow
from edgewright.runtime.server.models import Picture
from edgewright.runtime.server.settings import Limits

__all__ = ["VERSION", "InferenceRequest", "Wanted", "model_metadata", "parse_request", "render_response"]

VERSION = "1"
"""The only version of each model: a bundle has none, and takes another's place when it is loaded."""

_MOST_AXES = 8


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _InputParameters(_Strict):
    binary_data_size: int | None = Field(None, ge=0)


class _Input(_Strict):
    name: str
    shape: list[int] = Field(max_length=_MOST_AXES)
    datatype: Literal["UINT8", "BYTES"]
    parameters: _InputParameters = _InputParameters()
    data: list[Any] | None = None


class _OutputParameters(_Strict):
    binary_data: bool | None = None
    classification: int | None = Field(None, ge=1)


class _Output(_Strict):
    name: str
    parameters: _OutputParameters = _OutputParameters()


class _Parameters(_Strict):
    binary_data_output: bool = False
    timeout: int | None = Field(None, ge=1, description="Microseconds, as in Triton.")


class InferenceRequest(_Strict):
    """The JSON of a request. KServe's client repeats the model's name in it."""

    id: str | None = Field(None, max_length=256)
    model_name: str | None = None
    model_version: str | None = None
    parameters: _Parameters = _Parameters()
    inputs: list[_Input] = Field(min_length=1, max_length=1)
    outputs: list[_Output] | None = Field(None, max_length=1)


@dataclass(frozen=True)
class Wanted:
    """What a request holds, and how it is to be answered."""

    id: str | None
    pictures: list[Picture]
    timeout_s: float | None
    classification: int | None
    binary: bool
    """Whether the output is to follow the JSON as bytes."""


def model_metadata(manifest: Manifest, platform: str) -> dict[str, Any]:
    """What `GET /v2/models/NAME` answers."""
    return {
        "name": manifest.name,
        "versions": [VERSION],
        "platform": platform,
        "inputs": [{"name": manifest.input.name, "datatype": "UINT8", "shape": list(manifest.input.shape)}],
        "outputs": [{"name": manifest.output.name, "datatype": "FP32", "shape": list(manifest.output.shape)}],
    }


def parse_request(body: bytes, header_length: str | None, manifest: Manifest, limits: Limits) -> Wanted:
    """Read a request for the model that `manifest` describes.

    Raises:
        ValueError: it is not one; the message is for the client.
    """
    try:
        text, rest = split_frame(body, header_length)
    except ValueError as error:
        raise ValueError(f"{error} A picture alone goes to /classify.") from error
    if len(text) > limits.max_json_bytes:
        raise ValueError(f"The JSON is larger than {limits.max_json_mb} MiB. Send tensors as binary data.")
    require_shallow(text, limits.max_json_depth)
    try:
        request = InferenceRequest.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(_first(error)) from error
    if request.model_name not in (None, manifest.name) or request.model_version not in (None, VERSION):
        raise ValueError(
            f"model_name or model_version is not '{manifest.name}' or '{VERSION}', as in the request's path."
        )
    given = request.inputs[0]
    if given.name != manifest.input.name:
        raise ValueError(f"The input is called '{given.name[:100]}'. Expected '{manifest.input.name}'.")
    size = given.parameters.binary_data_size
    if (size is None) == (given.data is None):
        raise ValueError("An input has either data or the parameter binary_data_size, and not both.")
    (chunk,) = take_chunks(rest, [size or 0])
    output = request.outputs[0] if request.outputs else _Output(name=manifest.output.name)
    if output.name != manifest.output.name:
        raise ValueError(f"The output is called '{output.name[:100]}'. Expected '{manifest.output.name}'.")
    pictures: list[Picture]
    if given.datatype == "BYTES":
        count = _count_pictures(given, limits)
        pictures = list(_decode_base64(given, count) if size is None else split_elements(chunk, count))
    else:
        pictures = list(_pixels(given, None if size is None else chunk, manifest, limits))
    asked = output.parameters.binary_data
    timeout = request.parameters.timeout
    return Wanted(
        id=request.id,
        pictures=pictures,
        timeout_s=None if timeout is None else timeout / 1e6,
        classification=output.parameters.classification,
        binary=request.parameters.binary_data_output if asked is None else asked,
    )


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where + ': ' if where else ''}{found['msg']}."


def _require_count(count: int, limits: Limits) -> int:
    if not 1 <= count <= limits.max_pictures:
        raise ValueError(f"{count:,} pictures in one request. Expected 1 to {limits.max_pictures}.")
    return count


def _count_pictures(given: _Input, limits: Limits) -> int:
    if len(given.shape) not in (1, 2) or given.shape[1:] not in ([], [1]):
        raise ValueError(f"Encoded pictures have shape {given.shape}. Expected [N] or [N, 1].")
    return _require_count(given.shape[0], limits)


def _decode_base64(given: _Input, count: int) -> list[bytes]:
    data = given.data or []
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    if len(values) != count:
        raise ValueError(f"{len(values)} elements of data for {count} pictures.")
    try:
        # Anything but text is refused by the function itself, with a TypeError.
        return [base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError("BYTES in JSON are expected as base64; or send them as binary data.") from error


def _pixels(given: _Input, chunk: memoryview | None, manifest: Manifest, limits: Limits) -> npt.NDArray[np.uint8]:
    expected = manifest.input.shape[1:]
    if len(given.shape) != 4 or tuple(given.shape[1:]) != expected:
        raise ValueError(f"Pixels have shape {given.shape}. Expected [N, {', '.join(map(str, expected))}].")
    count = _require_count(given.shape[0], limits)
    size = count * int(np.prod(expected))
    if chunk is not None:
        if len(chunk) != size:
            raise ValueError(f"{len(chunk):,} bytes for a UINT8 tensor of {size:,}.")
        return np.frombuffer(chunk, dtype=np.uint8).reshape(count, *expected)
    values = _flat(given.data or [])
    if len(values) != size:
        raise ValueError(f"{len(values):,} elements of data for a UINT8 tensor of {size:,}.")
    try:
        data = bytes(values) if set(map(type, values)) == {int} else None
    except ValueError:
        data = None
    if data is None:
        raise ValueError("UINT8 data are expected as whole numbers from 0 to 255.")
    return np.frombuffer(data, dtype=np.uint8).reshape(count, *expected)


def _flat(values: list[Any]) -> list[Any]:
    """Data may be nested like the tensor, or flat. (numpy would take strings, and pad them all to the longest.)"""
    while values and all(isinstance(value, list) for value in values):
        values = [element for value in values for element in value]
    return values


def render_response(
    manifest: Manifest, wanted: Wanted, logits: Sequence[npt.NDArray[np.float32]]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if bytes follow."""
    output: dict[str, Any] = {"name": manifest.output.name}
    if wanted.classification is None:
        table = np.stack(logits)
        output |= {"datatype": "FP32", "shape": list(table.shape)}
        payload = table.astype("<f4").tobytes() if wanted.binary else b""
        values: list[Any] = [] if wanted.binary else table.ravel().tolist()
    else:
        count = min(wanted.classification, len(manifest.labels))
        texts = [text for row in logits for text in _classification(row, count, manifest.labels)]
        output |= {"datatype": "BYTES", "shape": [len(logits), count]}
        payload = join_elements(text.encode() for text in texts) if wanted.binary else b""
        values = [] if wanted.binary else texts
    output |= {"parameters": {"binary_data_size": len(payload)}} if wanted.binary else {"data": values}
    document: dict[str, Any] = {"model_name": manifest.name, "model_version": VERSION, "outputs": [output]}
    if wanted.id is not None:
        document["id"] = wanted.id
    text = json.dumps(document, allow_nan=False).encode()
    return (text + payload, len(text)) if wanted.binary else (text, None)


def _classification(row: npt.NDArray[np.float32], count: int, labels: Sequence[str]) -> list[str]:
    return [f"{row[index]:f}:{index}:{labels[index]}" for index, _ in top_scores(row, count)]
