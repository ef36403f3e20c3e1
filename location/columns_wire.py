"""The columns of a fleet's message, straight from its bytes into numpy.

A `FixColumns` is little more than eight packed arrays, each laid out in the message as numpy lays it out in memory. The generated
reader makes a Python number of every entry; this one takes each array as it stands, without copying. It reads what encoders write
(protobuf.dev/programming-guides/encoding: one field after another, packed scalars in one piece); anything else is left to the
generated reader, so that both always say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hexhail.api.location.v1 import location_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from hexhail.api.location.v1 import fix_pb2

_LENGTH_DELIMITED: Final = 2
_MESSAGE_OF_COLUMNS: Final = (pb.StreamFleetFixesRequest.COLUMNS_FIELD_NUMBER << 3) | _LENGTH_DELIMITED
_NEW_IDS: Final = 1
_LAYOUTS: Final[Mapping[int, tuple[str, np.dtype[Any]]]] = {
    2: ("driver_index", np.dtype("<u4")),
    3: ("sequence", np.dtype("<u4")),
    4: ("device_time_ms", np.dtype("<i8")),
    5: ("lat_e7", np.dtype("<i4")),
    6: ("lng_e7", np.dtype("<i4")),
    7: ("heading_cdeg", np.dtype("<u4")),
    8: ("speed_mmps", np.dtype("<u4")),
    9: ("accuracy_mm", np.dtype("<u4")),
}
"""Field number of FixColumns -> name and layout of an entry."""
_UNKNOWN: Final[tuple[str, np.dtype[Any]]] = ("", np.dtype("u1"))


@dataclass(frozen=True, slots=True)
class FleetColumns:
    """A batch as it came: one array a column, of whatever length; an absent column is empty."""

    new_driver_ids: Sequence[str]
    columns: Mapping[str, npt.NDArray[Any]]


class _OtherForm(Exception):
    """The bytes are not of the form that is read here; they may be good all the same."""


def read_fleet_message(message: bytes) -> pb.StreamFleetFixesRequest | FleetColumns:
    """A message of a fleet's stream: its columns, or, where it is another, the message. Raises DecodeError where it is none."""
    try:
        return _columns(message)
    except _OtherForm:
        whole: pb.StreamFleetFixesRequest = pb.StreamFleetFixesRequest.FromString(message)
        return _from_generated(whole.columns) if whole.WhichOneof("message") == "columns" else whole


def _columns(message: bytes) -> FleetColumns:
    tag, at = _varint(message, 0)
    length, at = _varint(message, at)
    if tag != _MESSAGE_OF_COLUMNS or at + length != len(message):
        raise _OtherForm
    new_ids: list[str] = []
    columns: dict[str, npt.NDArray[Any]] = {}
    while at < len(message):
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        number, end = tag >> 3, at + length
        if tag & 7 != _LENGTH_DELIMITED or end > len(message):
            raise _OtherForm
        if number == _NEW_IDS:
            new_ids.append(_text(message[at:end]))
        else:
            name, layout = _LAYOUTS.get(number, _UNKNOWN)
            if not name or name in columns or length % layout.itemsize:
                raise _OtherForm
            columns[name] = np.frombuffer(message, dtype=layout, count=length // layout.itemsize, offset=at)
        at = end
    for name, layout in _LAYOUTS.values():
        columns.setdefault(name, np.zeros(0, dtype=layout))
    return FleetColumns(new_ids, columns)


def _from_generated(columns: fix_pb2.FixColumns) -> FleetColumns:
    arrays = {name: np.array(getattr(columns, name), dtype=layout) for name, layout in _LAYOUTS.values()}
    return FleetColumns(columns.new_driver_ids, arrays)


def _text(coded: bytes) -> str:
    try:
        return coded.decode()
    except UnicodeDecodeError:
        raise _OtherForm from None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins here, and where the next thing begins."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(message):
            raise _OtherForm
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _OtherForm
