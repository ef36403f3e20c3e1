"""Columns of numbers as protobuf packs them, straight out of numpy: arrays that lie in a message as they lie in memory.

Filling a repeated field makes a Python number of every entry; reading back bytes that are the field already copies them at once.
Source: protobuf.dev/programming-guides/encoding, packed repeated fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy.typing as npt

FIXED32: Final = "<u4"
FIXED64: Final = "<u8"
SFIXED32: Final = "<i4"
SFIXED64: Final = "<i8"
DOUBLE: Final = "<f8"
SMALL_ENUM: Final = "u1"
"""An enum whose numbers are below 128 takes a byte an entry."""

_LENGTH_DELIMITED: Final = 2


def packed(field_number: int, values: npt.NDArray[Any], layout: str) -> bytes:
    """A packed field, tag and length before it; no bytes where there are no values, as encoders have it."""
    if not len(values):
        return b""
    body = values.astype(layout).tobytes()
    return _varint(field_number << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)
