"""A fleet's columns, read straight from the bytes: whatever the bytes, what the generated reader would say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from location.columns_wire import FleetColumns, read_fleet_message

if TYPE_CHECKING:
    from collections.abc import Mapping

unsigned = st.lists(st.integers(0, 2**32 - 1), max_size=5)
signed = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)
columns = st.fixed_dictionaries(
    {
        "new_driver_ids": st.lists(st.text(max_size=5), max_size=3),
        **dict.fromkeys(("driver_index", "sequence", "heading_cdeg", "speed_mmps", "accuracy_mm"), unsigned),
        **dict.fromkeys(("lat_e7", "lng_e7"), signed),
        "device_time_ms": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    }
)


def same(read: FleetColumns, said: Mapping[str, Any]) -> bool:
    ids_alike = list(read.new_driver_ids) == list(said["new_driver_ids"])
    return ids_alike and all(column.tolist() == list(said[name]) for name, column in read.columns.items())


def generated(message: bytes) -> pb.StreamFleetFixesRequest | None:
    try:
        return pb.StreamFleetFixesRequest.FromString(message)
    except DecodeError:
        return None


def check(message: bytes) -> None:
    whole = generated(message)
    if whole is None:
        with pytest.raises(DecodeError):
            read_fleet_message(message)
        return
    read = read_fleet_message(message)
    if whole.WhichOneof("message") == "columns":
        assert isinstance(read, FleetColumns)
        assert same(read, {field.name: getattr(whole.columns, field.name) for field in whole.columns.DESCRIPTOR.fields})
    else:
        assert read == whole


@given(columns)
def test_columns_come_as_they_were_said(said: dict[str, Any]) -> None:
    message = pb.StreamFleetFixesRequest(columns=fix_pb2.FixColumns(**said)).SerializeToString()
    read = read_fleet_message(message)
    assert isinstance(read, FleetColumns)
    assert same(read, said)


@given(columns, columns)
def test_columns_in_two_pieces_are_joined_as_protobuf_joins_them(one: dict[str, Any], other: dict[str, Any]) -> None:
    pieces = [pb.StreamFleetFixesRequest(columns=fix_pb2.FixColumns(**said)).SerializeToString() for said in (one, other)]
    check(b"".join(pieces))


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x12\x02\x0a\xff")
@example(b"\x12\x04\x12\x03abc")
@example(b"\x12\x03\x0a\x01\xff")
@example(b"\x12\x05\x15\x01\x00\x00\x00")
def test_garbage_is_judged_alike(message: bytes) -> None:
    check(message)


@given(columns, st.data())
def test_broken_messages_are_judged_alike(said: dict[str, Any], data: st.DataObject) -> None:
    message = bytearray(pb.StreamFleetFixesRequest(columns=fix_pb2.FixColumns(**said)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    check(bytes(message))
    check(bytes(message[:cut]))


def test_no_number_is_copied_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole batches take the short way."""
    monkeypatch.setattr("location.columns_wire.pb.StreamFleetFixesRequest", None)
    count = 10_000
    figures = {name: range(count) for name in ("driver_index", "sequence", "device_time_ms", "lat_e7", "lng_e7")}
    inner = fix_pb2.FixColumns(new_driver_ids=[f"acme.d{row}" for row in range(count)], **figures).SerializeToString()
    read = read_fleet_message(bytes([0x12]) + varint(len(inner)) + inner)
    assert isinstance(read, FleetColumns)
    assert np.array_equal(read.columns["lat_e7"], np.arange(count))


def varint(value: int) -> bytes:
    coded = bytearray()
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*coded, value])
