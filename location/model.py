"""What location knows of a driver: the value types and the packed layouts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import DriverId
    from hexhail.kernel.units import Cells, Ints

Records = npt.NDArray[np.void]
"""Rows of one of the layouts below: columns by name, one block of memory."""


def blocks(records: Records) -> Records:
    """The rows as blocks of memory, which numpy copies in one go; rows of columns it copies column by column, far more slowly."""
    return records.view(f"V{records.dtype.itemsize}")


def taken(records: Records, rows: Ints) -> Records:
    """A copy of these rows."""
    return blocks(records)[rows].view(records.dtype)


Outcomes = npt.NDArray[np.int8]
"""What became of each fix: ACCEPTED, PENDING or the number of a DropReason."""

MAX_EXACT: Final = 2**53 - 1
"""The largest integer that a double holds exactly with all below it: sequences, sessions and versions pass through Lua."""


class DropReason(IntEnum):
    """Why a fix was not taken into the index. Mirrors `FixDropReason` in proto/hexhail/api/location/v1/fix.proto."""

    OUT_OF_RANGE = 1
    NOT_NEWER = 2
    INACCURATE = 3
    IMPOSSIBLE_SPEED = 4
    TOO_FREQUENT = 5
    SUPERSEDED = 6
    NOT_A_MEMBER = 7
    OUTSIDE_CITY = 8


ACCEPTED: Final = 0
PENDING: Final = -1


class Availability(IntEnum):
    """Whether a driver can be given a ride, as matching alone decides. The scripts know AVAILABLE as 2."""

    OFFLINE = 1
    AVAILABLE = 2
    ON_RIDE = 3


FIX: Final = np.dtype(
    [
        ("session", "<i8"),
        ("sequence", "<i8"),
        ("device_time_ms", "<i8"),
        ("received_at_ms", "<i8"),
        ("lat", "<f8"),
        ("lng", "<f8"),
        ("heading_deg", "<f8"),
        ("speed_mps", "<f8"),
        ("accuracy_m", "<f8"),
    ]
)
"""A fix as it came in, degrees, metres and seconds; NaN where the phone said nothing, infinite where it said nonsense."""

TRACK: Final = np.dtype(
    [
        ("believed", FIX),
        ("suspect", FIX),
        ("suspect_fixes", "<i8"),
        ("clock_offset_ms", "<i8"),
        ("clock_measured_at_ms", "<i8"),
        ("late_fixes", "<i8"),
        ("next_due_at_ms", "<i8"),
        ("anchor_lat", "<f8"),
        ("anchor_lng", "<f8"),
        ("anchor_since_ms", "<i8"),
    ]
)
"""What is remembered of one driver's movement. A record of zeros knows nothing; no coordinates are read where nothing is known.

believed : the last believed fix, as it arrived: `received_at_ms` is its arrival; session and sequence 0 where there is none
suspect : the last fix too far away to be believed; `suspect_fixes` counts those in a row that agree with each other, 0 is none
clock_offset_ms : arrival less device time of the quickest fix, which arrived at `clock_measured_at_ms`: 0 while unmeasured
late_fixes : believed ones in a row that seem to have been on their way for longer than any is
next_due_at_ms : when the next fix would be due if all had come evenly, at the shortest interval
anchor_lat, anchor_lng, anchor_since_ms : where the driver has been standing about, and since when
"""

POSITION: Final = np.dtype(
    [
        ("cell", "<u8"),
        ("session", "<i8"),
        ("sequence", "<i8"),
        ("received_at_ms", "<i8"),
        ("device_time_ms", "<i8"),
        ("lat_e7", "<i4"),
        ("lng_e7", "<i4"),
        ("speed_mmps", "<u4"),
        ("accuracy_mm", "<u4"),
        ("heading_cdeg", "<u2"),
    ]
)
"""A driver's last fix as the store keeps it. The scripts in `lua/` read the first 48 bytes by offset: keep them in step."""

STATE: Final = np.dtype([("driver_version", "<i8"), ("capability_mask", "<u4"), ("rating_milli", "<u2"), ("availability", "u1")])
"""What matching told of a driver, as the store keeps it. The scripts read version and availability by offset."""

RECORD: Final = np.dtype([("position", POSITION), ("state", STATE)])
"""All that the store keeps of a driver. A part of which nothing is known is zeros: its session or its availability then is 0, as
no real one is."""

UNKNOWN_U2: Final = 0xFFFF
UNKNOWN_U4: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class DriverState:
    """What matching tells of a driver; the newest version holds."""

    driver_id: DriverId
    driver_version: int
    availability: Availability
    capability_mask: int
    rating_milli: int


@dataclass(frozen=True, slots=True)
class StateEpoch:
    """Under which name the present states are held (none: nobody asked since the store was empty), and are they all there?"""

    epoch: str
    complete: bool


@dataclass(frozen=True, slots=True)
class IndexedDrivers:
    """Drivers as read from the store, in any order: `records` of layout RECORD, row by row."""

    driver_ids: Sequence[bytes]
    records: Records

    @property
    def positions(self) -> Records:
        """POSITION[n]."""
        return self.records["position"]

    @property
    def states(self) -> Records:
        """STATE[n]."""
        return self.records["state"]

    def first(self, count: int) -> IndexedDrivers:
        """The first rows."""
        return IndexedDrivers(self.driver_ids[:count], self.records[:count])


@dataclass(frozen=True, slots=True)
class Changes:
    """Drivers of one bucket that changed, oldest change first, and how it is with each now: zeros for whom nothing is known.

    mark : from where the next reading goes on
    whole : nobody else has changed
    """

    drivers: IndexedDrivers
    mark: str
    whole: bool
    epoch: StateEpoch


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many drivers the index holds in each occupied cell.

    cells : uint64[n]
    counts : int64[n]
    """

    cells: Cells
    counts: Ints


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the fixes that were handed in together."""

    accepted: int
    drops: Mapping[DropReason, int]


def tally(outcomes: Outcomes) -> Ingested:
    """How many fixes came to each end? int8[n], none pending."""
    numbers, counts = np.unique(outcomes, return_counts=True)
    return summed(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))


def summed(by_outcome: Mapping[int, int]) -> Ingested:
    """The same, of counts by outcome."""
    drops = {DropReason(number): count for number, count in by_outcome.items() if number != ACCEPTED}
    return Ingested(by_outcome.get(ACCEPTED, 0), drops)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Behind which driver, in the order of distance and id, does an answer go on?"""

    distance_mm: int
    driver_id: str


@dataclass(frozen=True, slots=True)
class NearbyQuestion:
    """Who is near this place?"""

    place: Place
    max_drivers: int
    radius_m: float
    capability_mask: int
    min_rating_milli: int
    excluded_driver_ids: frozenset[str]
    max_age_ms: int
    after: Cursor | None = None
    max_left_out: int = 0


class LeftOutReason(IntEnum):
    """Why is a driver within the radius no answer? Numbered as in location_service.proto."""

    STALE = 1
    WRONG_CLASS = 2
    RATED_TOO_LOW = 3
    EXCLUDED = 4


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A driver who was looked at and is no answer."""

    driver_id: str
    reason: LeftOutReason
    distance_mm: int


@dataclass(frozen=True, slots=True)
class NearbyAnswer:
    """The nearest drivers, nearest first, ties by id.

    distance_mm : int64[n]
    searched_radius_m : nobody nearer than this was left out
    next : where the next page goes on; None where nobody is left within the radius
    """

    drivers: IndexedDrivers
    distance_mm: Ints
    complete: bool
    searched_radius_m: float
    next: Cursor | None
    as_of_ms: int
    left_out: tuple[LeftOut, ...] = ()
