"""Open Inference Protocol v2 over HTTP, the client's side: metadata, requests and answers with binary tensors.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, and for binary tensors
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md: a JSON document whose
length is in a header, and behind it the tensors' bytes, little-endian, in C order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgewright.runtime.backends.base import TensorSpec
from edgewright.runtime.errors import BackendError
from edgewright.runtime.frames import HEADER_LENGTH, split_frame, take_chunks

__all__ = [
    "ModelMetadata",
    "answer_limit",
    "decode_answer",
    "decode_error",
    "decode_metadata",
    "encode_request",
    "plain_text",
]

_DATATYPES = {"UINT8": "uint8", "INT8": "int8", "FP16": "float16", "FP32": "float32", "FP64": "float64"}
_NAMES = {numpy: name for name, numpy in _DATATYPES.items()}
_JSON_BYTES = 64 * 1024
_JSON_BYTES_PER_VALUE = 40
"""A float in JSON, with its comma and any white space that a server's printer adds."""
_LONGEST_ERROR = 300


class _Lenient(BaseModel):
    """What a server says. Fields that are not known are passed over: each server adds some of its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Document = TypeVar("Document", bound=_Lenient)


Name = Annotated[str, Field(max_length=200)]
Axes = Field(max_length=8)
_LARGEST_AXIS = 2**31 - 1


class _MetadataTensor(_Lenient):
    name: Name
    datatype: Name
    shape: tuple[Annotated[int, Field(ge=-1, le=_LARGEST_AXIS)], ...] = Axes

    def spec(self) -> TensorSpec:
        shape = tuple(None if axis == -1 else axis for axis in self.shape)
        return TensorSpec(self.name, _DATATYPES.get(self.datatype, self.datatype), shape)


class ModelMetadata(_Lenient):
    """A server's description of a model."""

    name: Name
    versions: tuple[Name, ...] = ()
    platform: str = ""
    inputs: tuple[_MetadataTensor, ...] = Field(max_length=64)
    outputs: tuple[_MetadataTensor, ...] = Field(max_length=64)


class _AnswerParameters(_Lenient):
    binary_data_size: int | None = Field(None, ge=0)


class _AnswerTensor(_Lenient):
    name: Name
    datatype: Name
    shape: tuple[Annotated[int, Field(ge=0, le=_LARGEST_AXIS)], ...] = Axes
    parameters: _AnswerParameters = _AnswerParameters()
    data: Any = None


class _AnswerDocument(_Lenient):
    model_name: str | None = None
    model_version: str | None = None
    id: str | None = None
    outputs: tuple[_AnswerTensor, ...] = Field(max_length=64)


def encode_request(
    feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[TensorSpec], request_id: str
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request for `outputs`; all tensors are binary, and are asked for as such."""
    arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    document = json.dumps(
        {
            "id": request_id,
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": _NAMES[array.dtype.name],
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in arrays.items()
            ],
            "outputs": [{"name": spec.name, "parameters": {"binary_data": True}} for spec in outputs],
        },
        separators=(",", ":"),
    ).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(document))}
    return headers, b"".join(
        [document, *(array.astype(array.dtype.newbyteorder("<"), copy=False).data for array in arrays.values())]
    )


def answer_limit(outputs: Sequence[TensorSpec], batch: int) -> int:
    """Largest body, in bytes, of a right answer: these outputs in JSON, which is longer than binary."""
    values = sum(_count(spec, batch) for spec in outputs)
    return _JSON_BYTES + _JSON_BYTES_PER_VALUE * values


def _count(spec: TensorSpec, batch: int) -> int:
    return int(np.prod([batch, *(axis or 1 for axis in spec.shape[1:])], dtype=np.int64))


def decode_metadata(body: bytes, origin: str) -> ModelMetadata:
    """Read a model's metadata.

    Raises:
        BackendError: not the document that the protocol describes.
    """
    return _validated(ModelMetadata, body, origin)


def decode_answer(
    body: bytes, header_length: str | None, outputs: Sequence[TensorSpec], origin: str
) -> tuple[list[npt.NDArray[Any]], _AnswerDocument]:
    """Output tensors in the order of `outputs`, binary or in JSON, and the document that describes them.

    Only what the answer says of itself is checked here: names, types, and that there are as many values as its shapes say.

    Raises:
        BackendError: it is not what the protocol describes, or lies about itself.
    """
    try:
        text, rest = split_frame(body, header_length)
        document = _validated(_AnswerDocument, text, origin)
        chunks = take_chunks(rest, [tensor.parameters.binary_data_size or 0 for tensor in document.outputs])
    except ValueError as error:
        raise BackendError(f"The answer of {origin} is damaged: {error}") from error
    found: dict[str, npt.NDArray[Any]] = {}
    for tensor, chunk in zip(document.outputs, chunks, strict=True):
        where = f"{origin} answered with an output '{plain_text(tensor.name)}'"
        dtype = _DATATYPES.get(tensor.datatype)
        if dtype is None or tensor.name in found:
            raise BackendError(f"{where} of {plain_text(tensor.datatype)} {list(tensor.shape)}, or twice.")
        stored = np.dtype(dtype).newbyteorder("<")
        if tensor.parameters.binary_data_size is None:
            flat = _from_json(tensor.data, dtype, where)
        elif len(chunk) % stored.itemsize:
            raise BackendError(f"{where} of {len(chunk)} bytes, which are no whole number of {tensor.datatype}.")
        else:
            flat = np.frombuffer(chunk, stored)
        if flat.size != math.prod(tensor.shape):
            raise BackendError(f"{where} of shape {list(tensor.shape)} with {flat.size} values.")
        # A copy: the arrays belong to the caller, who may write to them.
        found[tensor.name] = flat.reshape(tensor.shape).astype(dtype)
    missing = [spec.name for spec in outputs if spec.name not in found]
    if missing:
        raise BackendError(
            f"{origin} answered without the output '{missing[0]}'. It gave: {plain_text(', '.join(found))}."
        )
    return [found[spec.name] for spec in outputs], document


def _from_json(data: Any, dtype: str, where: str) -> npt.NDArray[Any]:
    """Values from JSON, flat or nested; the protocol allows both."""
    try:
        values = np.asarray(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # lists of different lengths, too deep
        raise BackendError(f"{where} whose data are no array.") from error
    if not isinstance(data, list) or values.dtype.kind not in "iuf":
        raise BackendError(f"{where} without data, or with data that are no numbers.")
    with np.errstate(all="ignore"):  # what becomes infinite here is refused by whoever wants finite numbers
        return values.reshape(-1).astype(dtype)


def decode_error(body: bytes) -> str:
    """What a server says of its refusal: `{"error": …}`, or its bare text; shortened, without control characters."""
    try:
        document = json.loads(body)
        text = document["error"] if isinstance(document, dict) else ""
    except (ValueError, KeyError, RecursionError):
        text = body.decode("utf-8", "replace")
    return plain_text(str(text))


def plain_text(text: str) -> str:
    """Text from a stranger, fit for a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text[:_LONGEST_ERROR])
    return " ".join(shown.split())


def _validated(model: type[Document], body: bytes, origin: str) -> Document:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BackendError(
            f"{origin} does not speak the Open Inference Protocol v2: {plain_text(where)}: {first['msg']}. Check the address."
        ) from error
