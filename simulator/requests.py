"""Real requests from files of taxi rides, with every row that is left out counted by its reason."""

from __future__ import annotations

import gzip
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, time
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import MS_PER_S, Bools, Floats, Ints

if TYPE_CHECKING:
    from pathlib import Path

    from routing.model import Router

MIN_TRIP_M = 50.0
GZIP_MAGIC = b"\x1f\x8b"
S_PER_MINUTE = 60
FIRST_YEAR, LAST_YEAR = 1970, 2100


class Dropped(StrEnum):
    """Why a row of a requests file is not served."""

    MALFORMED = "malformed"
    ZERO_COORDINATES = "zero_coordinates"
    OUT_OF_RANGE = "out_of_range"
    ZERO_TRIP = "zero_trip"
    OFF_NETWORK = "off_network"
    OUTSIDE_AREA = "outside_area"


class RequestsFileError(ValueError):
    """A requests file cannot be used: which one, and what is wrong with it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


@dataclass(frozen=True, slots=True, eq=False)
class RideRequests:
    """Who wants a ride, from where to where, and when: one row each, by time.

    at_s : float64[n], seconds since the demo's start, not falling
    pickup, dropoff : float64[n, 2], lat and lng in degrees
    passengers : int64[n], 1 or more
    start_ms : the demo's start as Unix time, milliseconds; None where the requests belong to no date

    Raises ValueError naming the field.
    """

    at_s: Floats
    pickup: Floats
    dropoff: Floats
    passengers: Ints
    start_ms: int | None = None

    def __post_init__(self) -> None:
        n = len(self.at_s)
        for name, shape in (("at_s", (n,)), ("pickup", (n, 2)), ("dropoff", (n, 2)), ("passengers", (n,))):
            column = getattr(self, name)
            if column.shape != shape:
                raise ValueError(f"{name} has shape {column.shape}, not {shape}")
            if not np.isfinite(column).all():
                raise ValueError(f"{name} holds values that are not finite")
        if (np.diff(self.at_s) < 0).any():
            raise ValueError("at_s falls")
        if (self.passengers < 1).any():
            raise ValueError("passengers holds a number below 1")

    def __len__(self) -> int:
        """How many requests?"""
        return len(self.at_s)


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a file becomes requests: from a local time on, for some minutes. Raises ValueError naming the field.

    start_local : time of day, on the day of the file's first ride
    minutes : how long; None takes the rest of the file
    sample : the share of requests kept, above 0, at most 1; a smaller sample is part of a larger one of the same seed
    """

    start_local: time = time(0, 20)
    minutes: float | None = None
    sample: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.start_local.tzinfo is not None:
            raise ValueError("start_local names a time zone: it is the city's own time of day")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"minutes is {self.minutes}, not above 0")
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample is {self.sample}, not above 0 and at most 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, below 0")


class RideRow(NamedTuple):
    """One well-formed row: whether the ride begins or ends, when (local time, no zone), its ends, its passengers.

    ride_id : joins the row of the beginning and that of the end; empty where the file has none
    taken_s : how long the ride took, where the row of its beginning says so; else nan
    """

    begins: bool
    at_local: datetime
    pickup: tuple[float, float]
    dropoff: tuple[float, float]
    passengers: int
    ride_id: str = ""
    taken_s: float = math.nan


def load_taxi_requests(
    path: Path,
    window: Window,
    time_zone: str,
    router: Router,
    in_area: Callable[[Floats], Bools] | None = None,
) -> tuple[RideRequests, dict[str, int]]:
    """Which requests does a file of taxi rides hold in this window, and how many rows are left out, by reason?

    Rows stamped on the full minute are spread within it by seed. Rows outside the window are not left out: they are not
    asked for. `malformed` counts the whole file (such a row may have no time), the other reasons the window:
    `zero_coordinates`, `out_of_range` (not on the globe), `zero_trip` (ends less than 50 m apart), `off_network` (an end
    that the router does not cover), `outside_area` (an end for which `in_area`, bool[n] of float64[n, 2], is false).

    Raises RequestsFileError for a file that is not there, cannot be read, or is something else.
    Source: the row formats are those of the folders' READMEs (New York taxi events; the Manhattan request list).
    """
    dropped: Counter[str] = Counter()
    rows = [row for row in ride_rows(path, dropped) if row.begins]
    zone = ZoneInfo(time_zone)
    start_s = _start(path, rows, window.start_local, zone).timestamp()
    at_s = _spread_s(rows, zone, start_s, window.seed)
    inside = (at_s >= 0) & (at_s < (math.inf if window.minutes is None else window.minutes * S_PER_MINUTE))
    kept = np.flatnonzero(inside)
    at_s = at_s[kept]
    pickup = np.array([rows[i].pickup for i in kept], dtype=np.float64).reshape(-1, 2)
    dropoff = np.array([rows[i].dropoff for i in kept], dtype=np.float64).reshape(-1, 2)
    good = np.ones(len(kept), dtype=np.bool_)
    for reason, check in _checks(router, in_area):
        bad = np.flatnonzero(good)
        bad = bad[~check(pickup[bad], dropoff[bad])]
        good[bad] = False
        if len(bad):
            dropped[reason] += len(bad)
    chosen = generator(window.seed, "requests-sample").random(len(rows))[kept] < window.sample
    order = np.flatnonzero(good & chosen)
    order = order[np.argsort(at_s[order], kind="stable")]
    passengers = np.array([rows[i].passengers for i in kept[order]], dtype=np.int64)
    requests = RideRequests(at_s[order], pickup[order], dropoff[order], passengers, round(start_s * MS_PER_S))
    return requests, {str(reason): count for reason, count in sorted(dropped.items())}


def ride_rows(path: Path, dropped: Counter[str]) -> Iterator[RideRow]:
    """The well-formed rows of a requests file, in its order; the others are counted as `malformed`.

    Raises RequestsFileError for a file that is not there, cannot be read, or holds no well-formed row.
    """
    parse: _Parse | None = None
    found = 0
    for line in _lines(path):
        if parse is None:
            header = _header_format(line)
            parse = header or _event_row
            if header is not None:
                continue
        try:
            row = parse(line.split(","))
        except ValueError:
            dropped[Dropped.MALFORMED] += 1
            continue
        found += 1
        yield row
    if not found:
        raise RequestsFileError(path, "holds no row of a known format: is it a file of taxi rides?")


_Parse = Callable[[list[str]], RideRow]


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise RequestsFileError(path, "is not there")
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        if path.suffix == ".gz" and not packed:
            raise RequestsFileError(path, "is named .gz and is not compressed by gzip")
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            for line in raw:
                text = line.decode("utf-8", "replace").strip()
                if text:
                    yield text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RequestsFileError(path, f"is damaged ({error})") from error
    except OSError as error:
        raise RequestsFileError(path, f"cannot be read ({error.strerror or error})") from error


def _event_row(columns: list[str]) -> RideRow:
    """rideId, START|END, eventTime, startTime, startLon, startLat, endLon, endLat, passengers, taxiId, driverId."""
    if len(columns) != 11 or columns[1] not in {"START", "END"}:
        raise ValueError("not a ride event")
    start_lng, start_lat, end_lng, end_lat = (_coordinate(text) for text in columns[4:8])
    return RideRow(
        columns[1] == "START",
        _local(columns[2]),
        (start_lat, start_lng),
        (end_lat, end_lng),
        _passengers(columns[8]),
        columns[0],
    )


@dataclass(frozen=True, slots=True)
class _ListedRow:
    """Parses rows below a header: all of them begin a ride, and may say how long it took (`duration_s`)."""

    width: int
    at: dict[str, int] = field(default_factory=dict)

    def __call__(self, columns: list[str]) -> RideRow:
        if len(columns) != self.width:
            raise ValueError("another number of columns than the header")
        names = ("o_lat", "o_lon", "d_lat", "d_lon")
        o_lat, o_lng, d_lat, d_lng = (_coordinate(columns[self.at[name]]) for name in names)
        passengers = _passengers(columns[self.at["passengers"]])
        taken_s = _coordinate(columns[self.at["duration_s"]]) if "duration_s" in self.at else math.nan
        at_local = _local(columns[self.at["departure_time"]])
        return RideRow(True, at_local, (o_lat, o_lng), (d_lat, d_lng), passengers, taken_s=taken_s)


def _header_format(line: str) -> _ListedRow | None:
    names = [name.strip() for name in line.removeprefix("\ufeff").split(",")]
    wanted = {"o_lat", "o_lon", "d_lat", "d_lon", "departure_time", "passengers"}
    return _ListedRow(len(names), {name: i for i, name in enumerate(names)}) if wanted <= set(names) else None


def _coordinate(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _local(text: str) -> datetime:
    at_local = datetime.fromisoformat(text)
    if at_local.tzinfo is not None:
        raise ValueError("times are local, without a zone")
    if not FIRST_YEAR <= at_local.year <= LAST_YEAR:
        raise ValueError("no such year")
    return at_local


def _passengers(text: str) -> int:
    passengers = int(text)
    if not 1 <= passengers <= 100:
        raise ValueError("no such number of passengers")
    return passengers


def _start(path: Path, rows: list[RideRow], start_local: time, zone: ZoneInfo) -> datetime:
    if not rows:
        raise RequestsFileError(path, "holds no ride that begins")
    return datetime.combine(rows[0].at_local.date(), start_local, zone)


def _spread_s(rows: list[RideRow], zone: ZoneInfo, start_s: float, seed: int) -> Floats:
    at_s = np.array([row.at_local.replace(tzinfo=zone).timestamp() for row in rows]) - start_s
    on_the_minute = np.array([row.at_local.second == 0 and row.at_local.microsecond == 0 for row in rows])
    within_s = generator(seed, "requests-minute").uniform(0.0, S_PER_MINUTE, len(rows))
    return at_s + np.where(on_the_minute, within_s, 0.0)


_Check = Callable[[Floats, Floats], Bools]


def _checks(router: Router, in_area: Callable[[Floats], Bools] | None) -> list[tuple[Dropped, _Check]]:
    checks: list[tuple[Dropped, _Check]] = [
        (Dropped.ZERO_COORDINATES, lambda a, b: (a != 0).all(axis=1) & (b != 0).all(axis=1)),
        (Dropped.OUT_OF_RANGE, lambda a, b: _on_globe(a) & _on_globe(b)),
        (Dropped.ZERO_TRIP, lambda a, b: geo.distances_m(a[:, 0], a[:, 1], b[:, 0], b[:, 1]) >= MIN_TRIP_M),
        (Dropped.OFF_NETWORK, lambda a, b: router.covers(a) & router.covers(b)),
    ]
    if in_area is not None:
        checks.append((Dropped.OUTSIDE_AREA, lambda a, b: in_area(a) & in_area(b)))
    return checks


def _on_globe(places: Floats) -> Bools:
    return np.asarray((np.abs(places) <= (90.0, 180.0)).all(axis=1), dtype=np.bool_)
