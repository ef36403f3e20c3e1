"""What the store alone can do: GEOADD writes positions, GEOSEARCH finds the nearest; all packed before the clock starts."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.line import Line, packed
from hexhail.kernel import geo
from hexhail.kernel.units import E7

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.places import Drivers
    from hexhail.stores.line import Call

PIPELINE: Final = 1_000
"""Commands sent together; the next thousand are on their way while the replies to the last are read."""
STEPS: Final = 5
"""Steps of all drivers, written round and round."""
FIRST_RADIUS_M: Final = 250.0
ONE_SET: Final = "bench:all"
_CELL_PREFIX: Final = "bench:cell:"
_DIGITS: Final = 7


@dataclass(frozen=True, slots=True)
class GeoaddRun:
    """What came of it."""

    sent: int
    answered: int
    rate: float


def run_geoadd(redis_url: str, drivers: Drivers, index_resolution: int, seconds: float) -> GeoaddRun:
    """One GEOADD for each fix, to the GEO set of its cell, pipelined, for a time. Raises hiredis.ReplyError, OSError."""
    pipelines = list(_pipelines(drivers, index_resolution))
    sent = answered = 0
    with Line(redis_url) as line:
        began_s = time.perf_counter()
        under_way = 0
        for commands, count in itertools.cycle(pipelines):
            line.send(commands)
            sent += count
            answered += len(line.replies(under_way))
            under_way = count
            if time.perf_counter() - began_s >= seconds:
                break
        answered += len(line.replies(under_way))
        return GeoaddRun(sent, answered, answered / (time.perf_counter() - began_s))


def _pipelines(drivers: Drivers, index_resolution: int) -> Iterator[tuple[bytes, int]]:
    calls: list[Call] = []
    for step in range(STEPS):
        lat, lng = (column / E7 for column in drivers.at(step))
        cells = geo.cells_of(lat, lng, index_resolution).tolist()
        for driver_id, a, b, cell in zip(drivers.ids, lat.tolist(), lng.tolist(), cells, strict=True):
            calls.append(("GEOADD", f"{_CELL_PREFIX}{cell:x}", round(b, _DIGITS), round(a, _DIGITS), driver_id))
    for start in range(0, len(calls), PIPELINE):
        some = calls[start : start + PIPELINE]
        yield packed(some), len(some)


def put_all_in_one_set(redis_url: str, drivers: Drivers, step: int) -> int:
    """One GEO set of all drivers where they are at this step; how many does it hold?"""
    lat_e7, lng_e7 = drivers.at(step)
    rows = zip(drivers.ids, (lat_e7 / E7).tolist(), (lng_e7 / E7).tolist(), strict=True)
    calls: list[Call] = [("GEOADD", ONE_SET, round(lng, _DIGITS), round(lat, _DIGITS), driver_id) for driver_id, lat, lng in rows]
    with Line(redis_url) as line:
        for start in range(0, len(calls), PIPELINE):
            line.ask(*calls[start : start + PIPELINE])
        (size,) = line.ask(("ZCARD", ONE_SET))
        return int(size)


def search(lat: float, lng: float, radius_m: float, count: int) -> Call:
    """The nearest of the one set within a radius."""
    return ("GEOSEARCH", ONE_SET, "FROMLONLAT", lng, lat, "BYRADIUS", radius_m, "m", "ASC", "COUNT", count, "WITHDIST")


def doubling_radii_m(most_m: float) -> list[float]:
    """250 m, 500 m, ... up to the radius that is searched at most."""
    radii_m = [FIRST_RADIUS_M]
    while radii_m[-1] < most_m:
        radii_m.append(min(2 * radii_m[-1], most_m))
    return radii_m
