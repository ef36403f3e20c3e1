"""Which fixes are believed, which of them is the newest, and which positions still count? Pure, on whole columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from location.model import PENDING, DropReason, Outcomes, Records

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Ints

MAX_ACCURACY_M: Final = 10_000.0
MAX_SPEED_MPS: Final = 100.0
MAX_HEADING_DEG: Final = 360.0
METRES_PER_DEGREE: Final = 111_195.0


@dataclass(frozen=True, slots=True)
class BeliefParams:
    """How much a city believes of what phones say. Source: our choice.

    max_accuracy_m : fixes with a wider circle of 68 % confidence are dropped
    city_margin_m : how far beyond the service area's bounding box a driver may be and still be followed
    max_network_delay_ms : at most this much is taken off the time of receipt, for fixes that were long on their way; 0 takes
        the receipt as it is, and the phone's clock then plays no part at all
    """

    max_accuracy_m: float = 200.0
    city_margin_m: float = 20_000.0
    max_network_delay_ms: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 0 < self.max_accuracy_m <= MAX_ACCURACY_M:
            raise ValueError(f"max_accuracy_m must be above 0 and at most {MAX_ACCURACY_M:.0f}")
        if not 0 <= self.city_margin_m <= 1_000_000:
            raise ValueError("city_margin_m must be 0 to 1,000,000")
        if not 0 <= self.max_network_delay_ms <= 10_000:
            raise ValueError("max_network_delay_ms must be 0 to 10,000")


@dataclass(frozen=True, slots=True)
class Box:
    """The latitudes and longitudes in which fixes of a city are believed, degrees."""

    south: float
    west: float
    north: float
    east: float

    def widened(self, margin_m: float) -> Box:
        """The box with a margin on every side."""
        dlat = margin_m / METRES_PER_DEGREE
        shrink = math.cos(math.radians(min(89.0, max(abs(self.south), abs(self.north)) + dlat)))
        dlng = dlat / shrink
        return Box(self.south - dlat, self.west - dlng, self.north + dlat, self.east + dlng)


def judge(fixes: Records, box: Box, params: BeliefParams) -> Outcomes:
    """Which fixes are believed for themselves, and why are the others not?

    fixes : FIX[n]; optional figures are NaN where absent
    Returns int8[n]: PENDING where believed, else the DropReason. Each row is judged alone, so order never matters.
    Source: our choice of reasons; ranges as fix.proto states them.
    """
    outcomes = np.full(len(fixes), PENDING, dtype=np.int8)
    lat, lng, accuracy = fixes["lat"], fixes["lng"], fixes["accuracy_m"]
    inside = (lat >= box.south) & (lat <= box.north) & (lng >= box.west) & (lng <= box.east)
    outcomes[~inside] = DropReason.OUTSIDE_CITY
    outcomes[accuracy > params.max_accuracy_m] = DropReason.INACCURATE
    possible = (np.abs(lat) <= 90) & (np.abs(lng) <= 180)
    for column, limit in (("heading_deg", MAX_HEADING_DEG), ("speed_mps", MAX_SPEED_MPS), ("accuracy_m", MAX_ACCURACY_M)):
        values = fixes[column]
        possible &= np.isnan(values) | ((values >= 0) & (values <= limit))
    outcomes[~possible] = DropReason.OUT_OF_RANGE
    return outcomes


def supersede(driver_rows: Ints, fixes: Records) -> Outcomes:
    """Of several fixes of one driver, which is the newest by session and sequence?

    driver_rows : int64[n], equal for fixes of one driver
    fixes : FIX[n], in the order of their arrival
    Returns int8[n]: PENDING for each driver's newest; NOT_NEWER for its repeats, SUPERSEDED for the rest. Of equals the later
    row counts.
    """
    outcomes = np.full(len(fixes), PENDING, dtype=np.int8)
    if len(fixes) < 2:
        return outcomes
    session, sequence = fixes["session"], fixes["sequence"]
    order = np.lexsort((sequence, session, driver_rows))
    ordered = driver_rows[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    newest = order[last][np.cumsum(last) - last]
    older = order[~last]
    same = (session[newest] == session[order]) & (sequence[newest] == sequence[order])
    outcomes[older] = np.where(same[~last], DropReason.NOT_NEWER, DropReason.SUPERSEDED)
    return outcomes


def received_at_ms(arrived_at_ms: int, device_time_ms: Ints, params: BeliefParams) -> Ints:
    """When does each fix count as received?

    device_time_ms : int64[n], the phone's clock, believed only as far as a delay of max_network_delay_ms
    Returns int64[n]: the arrival less the bounded delay, never later than the arrival.
    """
    # clipping before subtracting keeps a clock ages away from overflowing
    earliest = arrived_at_ms - params.max_network_delay_ms
    return np.clip(device_time_ms, earliest, arrived_at_ms)


def fresh(received_ms: Ints, now_ms: int, limit_ms: int) -> Bools:
    """Which positions still count: received less than `limit_ms` ago?

    received_ms : int64[n]
    A receipt as far in the future is none of this clock's (a store that outlived a demo of another night) and counts as silent.
    """
    return np.asarray(np.abs(now_ms - received_ms) < limit_ms, dtype=np.bool_)
