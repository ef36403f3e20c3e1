"""How are fixes and states packed for the store? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import from_e7, to_e7
from location.model import FIX, POSITION, STATE, UNKNOWN_U2, UNKNOWN_U4, DriverState, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Cells, Floats, Ints

_STR8: Final = 0xD9
_FIXSTR: Final = 0xA0
_ARRAY16: Final = b"\xdc"
_MSGPACK_POSITION: Final = np.dtype([("head", "u1", (2,)), ("position", POSITION)])
_DIGITS: Final = 16
_MSGPACK_DIGITS: Final = np.dtype([("head", "u1"), ("digits", "u1", (_DIGITS,))])


def pack_positions(fixes: Records, received_at_ms: Ints, index_resolution: int) -> Records:
    """The store's records of these believed fixes: FIX[n], int64[n] -> POSITION[n].

    A cell is that of the rounded coordinates, so that a record lies in the cell it names.
    """
    records = np.zeros(len(fixes), dtype=POSITION)
    for column in ("session", "sequence", "device_time_ms"):
        records[column] = fixes[column]
    records["received_at_ms"] = received_at_ms
    records["lat_e7"], records["lng_e7"] = to_e7(fixes["lat"]), to_e7(fixes["lng"])
    records["cell"] = geo.cells_of(from_e7(records["lat_e7"]), from_e7(records["lng_e7"]), index_resolution)
    records["speed_mmps"] = _scaled(fixes["speed_mps"], 1000, UNKNOWN_U4)
    records["accuracy_mm"] = _scaled(fixes["accuracy_m"], 1000, UNKNOWN_U4)
    records["heading_cdeg"] = _scaled(fixes["heading_deg"], 100, UNKNOWN_U2)
    return records


def unpack_positions(records: Records) -> Records:
    """The fixes that these records keep: POSITION[n] -> FIX[n]."""
    fixes = np.zeros(len(records), dtype=FIX)
    for column in ("session", "sequence", "received_at_ms", "device_time_ms"):
        fixes[column] = records[column]
    fixes["lat"], fixes["lng"] = from_e7(records["lat_e7"]), from_e7(records["lng_e7"])
    fixes["speed_mps"] = np.where(records["speed_mmps"] == UNKNOWN_U4, np.nan, records["speed_mmps"] / 1000)
    fixes["accuracy_m"] = np.where(records["accuracy_mm"] == UNKNOWN_U4, np.nan, records["accuracy_mm"] / 1000)
    fixes["heading_deg"] = np.where(records["heading_cdeg"] == UNKNOWN_U2, np.nan, records["heading_cdeg"] / 100)
    return fixes


def _scaled(values: Floats, factor: int, unknown: int) -> Ints:
    return np.where(np.isnan(values), unknown, np.rint(values * factor)).astype(np.int64)


def pack_states(states: Sequence[DriverState]) -> Records:
    """The store's records of these states: STATE[n]."""
    rows = [(s.driver_version, s.capability_mask, s.rating_milli, s.availability) for s in states]
    return np.array(rows, dtype=STATE)


def rows_of(records: Records) -> list[bytes]:
    """Each record's bytes."""
    block, size = records.tobytes(), records.dtype.itemsize
    return [block[start : start + size] for start in range(0, len(block), size)]


def msgpack_name(name: str) -> bytes:
    """A driver's id as an element of a msgpack array."""
    coded = name.encode()
    return bytes((_FIXSTR | len(coded), *coded)) if len(coded) < 32 else bytes((_STR8, len(coded), *coded))


def msgpack_array(count: int, elements: bytes) -> bytes:
    """The msgpack array of these packed elements; scripts unpack it in one call."""
    return _ARRAY16 + count.to_bytes(2, "big") + elements


def msgpack_positions(positions: Records) -> Records:
    """Each position as an element of a msgpack array: POSITION[n] -> rows whose bytes are the elements."""
    rows = np.empty(len(positions), dtype=_MSGPACK_POSITION)
    rows["head"] = (_STR8, POSITION.itemsize)
    rows["position"] = positions
    return rows


def msgpack_digits(numbers: Cells) -> Records:
    """Each number below 10^16 as 16 digits, as an element of a msgpack array: uint64[n] -> rows whose bytes are the elements."""
    rows = np.empty(len(numbers), dtype=_MSGPACK_DIGITS)
    rows["head"] = _FIXSTR | _DIGITS
    high, low = np.divmod(numbers, np.uint64(10**8))
    for start, half in ((0, high.astype(np.uint32)), (8, low.astype(np.uint32))):
        rest = half
        for place in range(start + 7, start - 1, -1):
            rest, digit = np.divmod(rest, np.uint32(10))
            rows["digits"][:, place] = digit + 48
    return rows
