"""Columns that come out of numpy are, byte for byte, the message that generated code writes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hexhail.api.location.v1 import driver_position_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from location.batch import BatchAnswer
from location.mirror_wire import batch_response, fill_columns
from location.model import RECORD
from location.packed_wire import FIXED32, packed

U4, U2 = st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)
I4, I8 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(st.tuples(st.text(max_size=70), I4, I4, U2, U4, I8, st.integers(0, 3), U2, U4), max_size=300)


@given(ROWS)
def test_drivers_are_the_columns_that_generated_code_writes(
    rows: list[tuple[str, int, int, int, int, int, int, int, int]],
) -> None:
    columns = list(zip(*rows, strict=True)) or [()] * 9
    records = np.zeros(len(rows), dtype=RECORD)
    names = ("lat_e7", "lng_e7", "heading_cdeg", "speed_mmps", "received_at_ms")
    for name, column in zip(names, columns[1:6], strict=True):
        records["position"][name] = column
    for name, column in zip(("availability", "rating_milli", "capability_mask"), columns[6:], strict=True):
        records["state"][name] = column
    driver_ids = np.empty(len(rows), dtype=object)
    driver_ids[:] = [row[0].encode() for row in rows]
    filled = driver_position_pb2.DriverColumns()
    fill_columns(filled, driver_ids, records)
    plain = driver_position_pb2.DriverColumns(
        driver_id=columns[0],
        **dict(zip((*names, "availability", "rating_milli", "capability_mask"), columns[1:], strict=True)),
    )
    assert filled.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=200), st.lists(st.floats(0, 50_000), max_size=50))
def test_a_batch_is_the_message_that_generated_code_writes(numbers: list[int], radii_m: list[float]) -> None:
    column = np.array(numbers, dtype=np.int64)
    answer = BatchAnswer(
        driver_ids=np.empty(0, object),
        records=np.zeros(0, RECORD),
        start=column,
        driver_index=column[::2],
        distance_mm=column[::3],
        searched_radius_m=np.array(radii_m),
        complete=True,
        as_of_ms=17,
    )
    plain = pb.FindNearbyDriversBatchResponse(
        drivers=driver_position_pb2.DriverColumns(),
        candidate_start=numbers,
        candidate_driver_index=numbers[::2],
        candidate_distance_mm=numbers[::3],
        complete=True,
        searched_radius_m=radii_m,
        as_of_ms=17,
    )
    assert batch_response(answer) == plain


def test_a_column_of_nobody_is_no_field() -> None:
    assert packed(3, np.zeros(0), FIXED32) == b""
    assert packed(3, np.ones(2), FIXED32) == bytes([3 << 3 | 2, 8, 1, 0, 0, 0, 1, 0, 0, 0])
