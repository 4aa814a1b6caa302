"""Tensors as bytes: the binary tensor data extension of the Open Inference Protocol.

A request or response is JSON, followed by the tensors' bytes, one after the other in the order of the JSON; the header
`Inference-Header-Content-Length` tells how long the JSON is, each tensor's parameter `binary_data_size` how long its
bytes are. Elements of BYTES have their length before them, 4 bytes, little-endian. See
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

__all__ = ["HEADER_LENGTH", "join_elements", "split_elements", "split_frame", "take_chunks"]

HEADER_LENGTH = "Inference-Header-Content-Length"

_LENGTH = struct.Struct("<I")


def split_frame(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON and the binary rest of a body; without the header, all is JSON.

    Raises:
        ValueError: the header is no number, or longer than the body.
    """
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) <= 12):
        raise ValueError(f"{HEADER_LENGTH} is {header_length[:40]!r}. Expected a number of bytes.")
    length = int(header_length)
    if not 0 < length <= len(body):
        raise ValueError(
            f"{HEADER_LENGTH} is {length:,}; the body, uncompressed, has {len(body):,} bytes. Expected the length of the JSON "
            "at its beginning."
        )
    return body[:length], memoryview(body)[length:]


def take_chunks(rest: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cut the binary rest into the tensors' parts.

    Raises:
        ValueError: the sizes do not add up to what is there.
    """
    if sum(sizes) != len(rest):
        raise ValueError(
            f"{len(rest):,} bytes follow the JSON; the tensors' binary_data_size add up to {sum(sizes):,}. Expected the same."
        )
    chunks = []
    start = 0
    for size in sizes:
        chunks.append(rest[start : start + size])
        start += size
    return chunks


def split_elements(data: memoryview, count: int) -> list[bytes]:
    """The `count` elements of a BYTES tensor.

    Raises:
        ValueError: there are fewer or more, or one is cut off.
    """
    elements = []
    position = 0
    for number in range(count):
        start = position + _LENGTH.size
        if start > len(data):
            raise ValueError(f"A BYTES tensor of {count} elements ends before element {number}.")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise ValueError(
                f"Element {number} of a BYTES tensor says that it has {length:,} bytes; {len(data) - start:,} are left."
            )
        elements.append(bytes(data[start:position]))
    if position != len(data):
        raise ValueError(f"{len(data) - position:,} bytes follow the {count} elements of a BYTES tensor.")
    return elements


def join_elements(elements: Iterable[bytes]) -> bytes:
    """A BYTES tensor as bytes."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
