"""The frame of an answer: what the protocol allows is read, all else is an error with a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.runtime.backends import TensorSpec
from edgewright.runtime.errors import BackendError
from edgewright.runtime.remote.protocol import (
    answer_limit,
    decode_answer,
    decode_error,
    decode_metadata,
    encode_request,
)

LOGITS = (TensorSpec("logits", "float32", (None, 3)),)
VALUES = np.array([[1.5, -2.0, 3e-40], [np.inf, 0.0, -0.0]], np.float32)


def frame(output: dict[str, Any], data: bytes = b"") -> tuple[bytes, str | None]:
    head = json.dumps({"model_name": "m", "outputs": [{"name": "logits", "datatype": "FP32", **output}]}).encode()
    return head + data, str(len(head)) if data else None


def refusal(decode: Callable[[], object]) -> str:
    """What is said of an answer that cannot be read; nothing if it can."""
    try:
        decode()
    except BackendError as error:
        return str(error)
    return ""


BINARY = frame({"shape": [2, 3], "parameters": {"binary_data_size": 24}}, VALUES.tobytes())


def test_request_is_json_and_bytes() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)[:, ::-1]
    headers, body = encode_request({"pixels": pixels}, LOGITS, "7")
    size = int(headers["Inference-Header-Content-Length"])
    assert json.loads(body[:size]) == {
        "id": "7",
        "inputs": [
            {"name": "pixels", "shape": [1, 2, 2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 12}}
        ],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    assert body[size:] == pixels.tobytes()


def test_binary_answer_is_read_bit_by_bit() -> None:
    (found,), _ = decode_answer(*BINARY, LOGITS, "the server")
    assert found.tobytes() == VALUES.tobytes()
    found[0] = 0  # it belongs to the caller


@pytest.mark.parametrize("data", [[1.5, -2, 3, 4, 5, 6], [[1.5, -2, 3], [4, 5, 6]]], ids=["flat", "nested"])
def test_json_answer_is_read(data: list[Any]) -> None:
    (found,), _ = decode_answer(*frame({"shape": [2, 3], "data": data}), LOGITS, "the server")
    np.testing.assert_array_equal(found, np.array([[1.5, -2, 3], [4, 5, 6]], np.float32))


def test_limit_leaves_room_for_the_longest_right_answer() -> None:
    wide = (TensorSpec("logits", "float32", (None, 1000)),)
    data = [float(np.float32(value)) for value in np.random.default_rng(0).normal(size=16 * 1000) * 1e-30]
    document = {
        "model_name": "m",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [16, 1000], "data": data}],
    }
    assert len(json.dumps(document, indent=1)) < answer_limit(wide, 16)


@pytest.mark.parametrize("length", ["", "x", "-1", "0", "1e3", "99999", "9" * 5000, "٣"])
def test_length_of_the_header_that_cannot_be_is_refused(length: str) -> None:
    with pytest.raises(BackendError, match="Inference-Header-Content-Length is"):
        decode_answer(BINARY[0], length, LOGITS, "the server")


@pytest.mark.parametrize("shape", [[1] * 70, [2**40, 3], [-2, -3], [6, 1.5], "23", [10**5000]])
def test_shape_that_cannot_be_is_refused(shape: Any) -> None:
    text = json.dumps({"outputs": [{"name": "logits", "datatype": "FP32", "shape": "SHAPE", "data": [1] * 6}]})
    digits = "[1" + "0" * 5000 + "]" if shape == [10**5000] else json.dumps(shape)
    with pytest.raises(BackendError):
        decode_answer(text.replace('"SHAPE"', digits).encode(), None, LOGITS, "the server")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=12), st.integers(0, 200).map(str)))
def test_any_bytes_are_an_answer_or_an_error(body: bytes, length: str | None) -> None:
    assert refusal(lambda: decode_answer(body, length, LOGITS, "the server")).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_answer_is_an_answer_or_an_error(data: st.DataObject) -> None:
    body = bytearray(BINARY[0])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert refusal(lambda: decode_answer(bytes(body), BINARY[1], LOGITS, "the server")).isprintable()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_any_document_is_an_answer_or_an_error(shape: Any, parameters: Any, data: Any) -> None:
    body = json.dumps(
        {"outputs": [{"name": "logits", "datatype": "FP32", "shape": shape, "parameters": parameters, "data": data}]}
    ).encode()
    assert refusal(lambda: decode_answer(body, None, LOGITS, "the server")).isprintable()
    assert refusal(lambda: decode_metadata(body, "the server")).isprintable()


@given(st.binary(max_size=2000))
def test_any_refusal_can_be_shown(body: bytes) -> None:
    text = decode_error(body)
    assert text.isprintable()
    assert len(text) <= 300
