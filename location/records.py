"""How are fixes and states packed for the store? Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import from_e7, to_e7
from location.model import POSITION, STATE, UNKNOWN_U2, UNKNOWN_U4, DriverState, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Floats, Ints


def pack_positions(fixes: Records, index_resolution: int) -> Records:
    """The store's records of these believed fixes: FIX[n] -> POSITION[n].

    A cell is that of the rounded coordinates, so that a record lies in the cell it names.
    """
    records = np.zeros(len(fixes), dtype=POSITION)
    for column in ("session", "sequence", "received_at_ms", "device_time_ms"):
        records[column] = fixes[column]
    records["lat_e7"], records["lng_e7"] = to_e7(fixes["lat"]), to_e7(fixes["lng"])
    records["cell"] = geo.cells_of(from_e7(records["lat_e7"]), from_e7(records["lng_e7"]), index_resolution)
    records["speed_mmps"] = _scaled(fixes["speed_mps"], 1000, UNKNOWN_U4)
    records["accuracy_mm"] = _scaled(fixes["accuracy_m"], 1000, UNKNOWN_U4)
    records["heading_cdeg"] = _scaled(fixes["heading_deg"], 100, UNKNOWN_U2)
    return records


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
