"""Requests of the Open Inference Protocol: what is read, and what is refused with which words."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.frames import split_elements
from edgewright.runtime.server.protocol import Wanted, model_metadata, parse_request, render_response
from edgewright.runtime.server.settings import Limits

Document = dict[str, Any]
PIXELS = np.arange(768, dtype=np.uint8).reshape(1, 16, 16, 3)
TENSOR: Document = {"name": "pixels", "shape": [1, 16, 16, 3], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
BINARY: Document = {**TENSOR, "parameters": {"binary_data_size": 768}}
del BINARY["data"]
ENCODED: Document = {"name": "pixels", "shape": [2], "datatype": "BYTES", "data": ["YWJj", "ZGVm"]}


@pytest.fixture
def read(tiny_opened: Bundle) -> Callable[..., Wanted]:
    """`read(tensor, **others)`: a request with this input and these further fields, parsed."""

    def parse(tensor: Document, rest: bytes = b"", **others: Any) -> Wanted:
        text = json.dumps({"inputs": [tensor], **others}).encode()
        return parse_request(text + rest, str(len(text)) if rest else None, tiny_opened.manifest, Limits())

    return parse


def only_pixels(wanted: Wanted) -> npt.NDArray[np.uint8]:
    (picture,) = wanted.pictures
    assert isinstance(picture, np.ndarray)
    return picture


def test_pixels_as_numbers(read: Callable[..., Wanted]) -> None:
    np.testing.assert_array_equal(only_pixels(read(TENSOR)), PIXELS[0])


def test_pixels_as_nested_numbers(read: Callable[..., Wanted]) -> None:
    np.testing.assert_array_equal(only_pixels(read({**TENSOR, "data": PIXELS.tolist()})), PIXELS[0])


def test_pixels_as_bytes(read: Callable[..., Wanted]) -> None:
    np.testing.assert_array_equal(only_pixels(read(BINARY, PIXELS.tobytes())), PIXELS[0])


def test_pictures_as_base64(read: Callable[..., Wanted]) -> None:
    assert read(ENCODED).pictures == [b"abc", b"def"]


def test_pictures_as_a_column(read: Callable[..., Wanted]) -> None:
    data = [[base64.b64encode(text).decode()] for text in (b"abc", b"def")]
    assert read({**ENCODED, "shape": [2, 1], "data": data}).pictures == [b"abc", b"def"]


def test_timeout_is_in_microseconds(read: Callable[..., Wanted]) -> None:
    assert read(TENSOR, parameters={"timeout": 250_000}).timeout_s == 0.25


@pytest.mark.parametrize(
    ("parameters", "output", "binary"),
    [
        ({}, {}, False),
        ({"binary_data_output": True}, {}, True),
        ({}, {"binary_data": True}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
    ],
)
def test_output_s_own_wish_for_bytes_counts(
    read: Callable[..., Wanted], parameters: Document, output: Document, binary: bool
) -> None:
    outputs = [{"name": "logits", "parameters": output}]
    assert read(TENSOR, parameters=parameters, outputs=outputs).binary is binary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "image"}, "called 'image'. Expected 'pixels'"),
        ({"datatype": "FP32"}, "datatype: Input should be 'UINT8' or 'BYTES'"),
        ({"shape": [1, 3, 16, 16]}, r"Expected \[N, 16, 16, 3\]"),
        ({"shape": [0, 16, 16, 3]}, "0 pictures in one request. Expected 1 to 64"),
        ({"shape": [65, 16, 16, 3]}, "65 pictures"),
        ({"shape": [-1, 16, 16, 3]}, "-1 pictures"),
        ({"shape": [2, 16, 16, 3]}, "768 elements of data for a UINT8 tensor of 1,536"),
        ({"data": [256] * 768}, "whole numbers from 0 to 255"),
        ({"data": [-1] * 768}, "whole numbers from 0 to 255"),
        ({"data": [0.5] * 768}, "whole numbers from 0 to 255"),
        ({"data": [True] * 768}, "whole numbers from 0 to 255"),
        ({"data": ["0"] * 768}, "whole numbers from 0 to 255"),
        ({"data": None}, "either data or"),
        ({"parameters": {"binary_data_size": 768}}, "either data or"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared_memory_region: Extra inputs"),
        ({"surprise": 1}, "surprise: Extra inputs"),
    ],
)
def test_input_that_is_refused(read: Callable[..., Wanted], change: Document, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read({**TENSOR, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [3]}, "2 elements of data for 3 pictures"),
        ({"shape": [2, 2]}, r"Expected \[N\] or \[N, 1\]"),
        ({"data": ["YWJj", "*"]}, "expected as base64"),
        ({"data": ["YWJj", "é"]}, "expected as base64"),
        ({"data": ["YWJj", 1]}, "expected as base64"),
        ({"data": ["YWJj", None]}, "expected as base64"),
    ],
)
def test_pictures_that_are_refused(read: Callable[..., Wanted], change: Document, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read({**ENCODED, **change})


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"outputs": [{"name": "scores"}]}, "called 'scores'. Expected 'logits'"),
        ({"outputs": [{"name": "logits", "parameters": {"classification": 0}}]}, "classification"),
        ({"outputs": [{"name": "logits"}] * 2}, "at most 1 item"),
        ({"parameters": {"sequence_id": 4}}, "sequence_id: Extra inputs"),
        ({"parameters": {"timeout": 0}}, "timeout"),
        ({"id": "x" * 257}, "id"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [TENSOR, TENSOR]}, "inputs"),
    ],
)
def test_request_that_is_refused(read: Callable[..., Wanted], others: Document, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(TENSOR, **others)


def test_bytes_of_another_size_are_refused(read: Callable[..., Wanted]) -> None:
    with pytest.raises(ValueError, match="767 bytes follow the JSON"):
        read(BINARY, PIXELS.tobytes()[1:])
    with pytest.raises(ValueError, match="766 bytes for a UINT8 tensor of 768"):
        read({**BINARY, "parameters": {"binary_data_size": 766}}, PIXELS.tobytes()[2:])


def wanted(**changes: Any) -> Wanted:
    return Wanted(**{"id": None, "pictures": [], "timeout_s": None, "classification": None, "binary": False} | changes)


LOGITS = [np.array([0.5, 2.25, -1, 0], dtype=np.float32), np.array([3, 0, 0, 3], dtype=np.float32)]


def test_answer_in_json(tiny_opened: Bundle) -> None:
    text, length = render_response(tiny_opened.manifest, wanted(id="seven"), LOGITS)
    assert length is None
    assert json.loads(text) == {
        "model_name": "colours-0",
        "model_version": "1",
        "id": "seven",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [2, 4], "data": [0.5, 2.25, -1, 0, 3, 0, 0, 3]}],
    }


def test_answer_in_bytes(tiny_opened: Bundle) -> None:
    text, length = render_response(tiny_opened.manifest, wanted(binary=True), LOGITS)
    assert length is not None
    assert json.loads(text[:length])["outputs"][0]["parameters"] == {"binary_data_size": 32}
    np.testing.assert_array_equal(np.frombuffer(text[length:], "<f4").reshape(2, 4), np.stack(LOGITS))


def test_classification_in_json(tiny_opened: Bundle) -> None:
    text, _ = render_response(tiny_opened.manifest, wanted(classification=2), LOGITS)
    (output,) = json.loads(text)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["2.250000:1:green", "0.500000:0:red", "3.000000:0:red", "3.000000:3:très noir"]


def test_classification_in_bytes_with_more_than_there_are(tiny_opened: Bundle) -> None:
    text, length = render_response(tiny_opened.manifest, wanted(classification=9, binary=True), LOGITS[:1])
    assert json.loads(text[:length])["outputs"][0]["shape"] == [1, 4]
    assert split_elements(memoryview(text)[length:], 4)[0] == b"2.250000:1:green"


def test_metadata(tiny_opened: Bundle) -> None:
    assert model_metadata(tiny_opened.manifest, "somewhere") == {
        "name": "colours-0",
        "versions": ["1"],
        "platform": "somewhere",
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 16, 16, 3]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
    }
