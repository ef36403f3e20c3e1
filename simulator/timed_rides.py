"""How long did real rides take? Files of rides whose ends are known, as columns to learn travel times from."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from hexhail.kernel.units import MS_PER_S
from routing.learning import TimedRides
from simulator.requests import RequestsFileError, ride_rows

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


def load_timed_rides(path: Path, time_zone: str) -> tuple[TimedRides, dict[str, int]]:
    """The rides of a file, in the order of their beginnings, and how many rows were left out, by reason.

    The formats are those of `simulator.requests`: events of taxis, where a ride's end is a row of its own, or a list with a
    column `duration_s`. A ride whose end is not in the file, or no later than its beginning, has no duration (nan). Left out:
    `malformed` rows, `zero_coordinates`, `out_of_range` (not on the globe), `repeated` (a ride that begins twice: the first row
    counts), `ends_only`.

    Raises RequestsFileError for a file that is not there, cannot be read, is something else, or has no ride whose end is known.
    """
    dropped: Counter[str] = Counter()
    zone = ZoneInfo(time_zone)
    begun: list[tuple[int, float, float, float, float, float]] = []
    row_of: dict[str, int] = {}
    ended_ms: dict[str, int] = {}
    for row in ride_rows(path, dropped):
        at_ms = _at_ms(row.at_local, zone)
        if not row.begins:
            ended_ms[row.ride_id] = at_ms
        elif 0.0 in row.pickup or 0.0 in row.dropoff:
            dropped["zero_coordinates"] += 1
        elif not all(abs(lat) <= 90 and abs(lng) <= 180 for lat, lng in (row.pickup, row.dropoff)):
            dropped["out_of_range"] += 1
        elif row.ride_id and row.ride_id in row_of:
            dropped["repeated"] += 1
        else:
            if row.ride_id:
                row_of[row.ride_id] = len(begun)
            begun.append((at_ms, *row.pickup, *row.dropoff, row.taken_s))
    table = np.array(begun, dtype=np.float64).reshape(-1, 6)
    at_ms_column = np.array([ride[0] for ride in begun], dtype=np.int64)
    for ride_id, end_ms in ended_ms.items():
        if ride_id in row_of:
            table[row_of[ride_id], 5] = (end_ms - at_ms_column[row_of[ride_id]]) / MS_PER_S
        else:
            dropped["ends_only"] += 1
    table[~(table[:, 5] > 0), 5] = np.nan
    if not np.isfinite(table[:, 5]).any():
        raise RequestsFileError(path, "tells of no ride how long it took: ends as rows of their own, or a column duration_s")
    order = np.argsort(at_ms_column, kind="stable")
    rides = TimedRides(table[:, 1:3], table[:, 3:5], at_ms_column, table[:, 5]).rows(order)
    return rides, {reason: count for reason, count in sorted(dropped.items()) if count}


def _at_ms(at_local: datetime, zone: ZoneInfo) -> int:
    return round(at_local.replace(tzinfo=zone).timestamp() * MS_PER_S)
