"""Binary frames: what was joined is split again, and no bytes whatever do more than raise a ValueError."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgewright.runtime.bundle import Bundle
from edgewright.runtime.frames import join_elements, split_elements, split_frame, take_chunks
from edgewright.runtime.server.json_depth import require_shallow
from edgewright.runtime.server.protocol import parse_request
from edgewright.runtime.server.settings import Limits

LIMITS = Limits()


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_elements_round_trip(elements: list[bytes]) -> None:
    assert split_elements(memoryview(join_elements(elements)), len(elements)) == elements


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.integers(1, 8))
def test_elements_that_are_cut_off_or_followed_are_refused(elements: list[bytes], count: int) -> None:
    data = join_elements(elements)
    for wrong in (data[:-count], data + b"x" * count):
        with pytest.raises(ValueError, match="BYTES tensor"):
            split_elements(memoryview(wrong), len(elements))


@given(st.binary(max_size=200), st.integers(0, 10))
def test_any_bytes_are_elements_or_a_value_error(data: bytes, count: int) -> None:
    try:
        elements = split_elements(memoryview(data), count)
    except ValueError:
        return
    assert join_elements(elements) == data


@given(st.binary(max_size=30), st.one_of(st.none(), st.text(max_size=15), st.integers(-5, 40).map(str)))
@example(b"{}", "٢")
@example(b"{}", "9" * 5000)
def test_any_header_length_splits_or_is_refused(body: bytes, header_length: str | None) -> None:
    try:
        text, rest = split_frame(body, header_length)
    except ValueError:
        return
    assert text + bytes(rest) == body


@given(st.binary(max_size=40), st.lists(st.integers(0, 20), max_size=4))
def test_chunks_are_all_of_the_rest_or_refused(rest: bytes, sizes: list[int]) -> None:
    try:
        chunks = take_chunks(memoryview(rest), sizes)
    except ValueError:
        assert sum(sizes) != len(rest)
        return
    assert b"".join(chunks) == rest
    assert [len(chunk) for chunk in chunks] == sizes


# JSON's depth

NESTED = st.recursive(
    st.one_of(st.none(), st.text()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(NESTED, st.booleans())
@example(['\\"[[[[[[[['], True)
def test_depth_is_that_of_the_document(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    depth = depth_of(value)
    require_shallow(text, depth)
    if depth:
        with pytest.raises(ValueError, match="nested deeper"):
            require_shallow(text, depth - 1)


def test_very_deep_json_is_refused(tiny_opened: Bundle) -> None:
    for text in (b"[" * 100_000, b'{"a":' * 100_000, b'{"inputs":' + b"[" * 17):
        with pytest.raises(ValueError, match="nested deeper than 16"):
            parse_request(text, None, tiny_opened.manifest, LIMITS)


# Whole requests

JSON_VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["pixels", "x"]) | JSON_VALUE,
        "shape": st.lists(st.integers(-2, 70), max_size=5) | st.just([1, 16, 16, 3]) | JSON_VALUE,
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32"]) | JSON_VALUE,
    },
    optional={
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-5, 800) | JSON_VALUE}) | JSON_VALUE,
        "data": st.lists(JSON_VALUE, max_size=4) | st.just([0] * 768) | JSON_VALUE,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=2) | JSON_VALUE},
    optional={"id": JSON_VALUE, "outputs": JSON_VALUE, "parameters": JSON_VALUE},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_document=REQUEST, rest=st.binary(max_size=64), framed=st.booleans())
def test_any_request_is_read_or_a_value_error(
    tiny_opened: Bundle, request_document: object, rest: bytes, framed: bool
) -> None:
    text = json.dumps(request_document).encode()
    try:
        wanted = parse_request(text + rest, str(len(text)) if framed else None, tiny_opened.manifest, LIMITS)
    except ValueError:
        return
    assert 1 <= len(wanted.pictures) <= LIMITS.max_pictures
    for picture in wanted.pictures:
        assert isinstance(picture, bytes) or (picture.shape, picture.dtype) == ((16, 16, 3), np.uint8)
