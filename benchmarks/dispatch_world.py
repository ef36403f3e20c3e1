"""Streets, requests and drivers of a replay: who is free, who is near, and how long does the way take? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.ids import DriverId
from hexhail.kernel.units import MS_PER_S
from matching.candidates import DriverFacts
from matching.ranking import Candidates
from matching.records import Answer, Record, acceptance_milli, after, idle_s

if TYPE_CHECKING:
    from benchmarks.people import People
    from hexhail.kernel.units import Floats, Ints
    from matching.records import RecordParams
    from routing.model import Floats32


@dataclass(frozen=True, slots=True, eq=False)
class Streets:
    """Junctions, and the ways between them.

    places : float64[n, 2], lat and lng in degrees
    times_s, distances_m : float32[n, n]; row v holds the way from every junction to v, as `routing.tables.Tables`
    time_factor : how much longer than `times_s` a way takes
    """

    places: Floats
    times_s: Floats32
    distances_m: Floats32
    time_factor: float = 1.0

    def times_to_s(self, there: int, heres: Ints) -> Floats:
        """From each of these junctions to one: float64[n], seconds; inf where no way leads."""
        free_flow_s: Floats = self.times_s[there, heres].astype(np.float64)
        return free_flow_s * self.time_factor

    def time_ms(self, here: int, there: int) -> int:
        """From one junction to another. Raises OverflowError where no way leads."""
        return round(float(self.times_s[there, here]) * self.time_factor * MS_PER_S)

    def distance_m(self, here: int, there: int) -> float:
        """The length of that way."""
        return float(self.distances_m[there, here])


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Who wants a ride: one row each, by time.

    at_ms : int64[n], not falling
    pickups, dropoffs : int64[n], junctions with a way from one to the other
    """

    at_ms: Ints
    pickups: Ints
    dropoffs: Ints

    def __len__(self) -> int:
        """How many requests?"""
        return len(self.at_ms)


class Fleet:
    """All drivers, by number. Each is free at its junction, or on a ride.

    ids : of the drivers
    free : bool[n], not on a ride
    asked : bool[n], with a live offer
    at : int64[n], the junction; of one on a ride, where that ends
    free_since_ms : int64[n], since the last ride, or the beginning
    """

    def __init__(self, streets: Streets, starts: Ints, people: People, records: RecordParams) -> None:
        """`starts` : int64[n], junctions."""
        self.ids = tuple(DriverId(f"d{number:06d}") for number in range(len(starts)))
        self.at = starts.astype(np.int64)
        self.free = np.ones(len(starts), np.bool_)
        self.asked = np.zeros(len(starts), np.bool_)
        self.free_since_ms = np.zeros(len(starts), np.int64)
        self._streets = streets
        self._vectors = geo.vectors_m(streets.places[:, 0], streets.places[:, 1])
        self._where = self._vectors[self.at]
        self._rating_milli = people.ratings_milli(len(starts))
        self._record_params = records
        self._shown_milli = np.zeros(len(starts), np.int64)
        self._accepted_milli = np.zeros(len(starts), np.int64)

    def __len__(self) -> int:
        """How many drivers?"""
        return len(self.at)

    def near(self, junction: int, count: int, radius_m: float) -> tuple[Ints, bool]:
        """Who is free and nearest, as the crow flies, at most so many? (int64[n], nearest first; are there more within reach?)"""
        rows = np.flatnonzero(self.free)
        away = self._where[rows] - self._vectors[junction]
        squared = np.einsum("ij,ij->i", away, away)
        inside = np.flatnonzero(squared <= geo.chord_m(radius_m) ** 2)
        rows, squared = rows[inside], squared[inside]
        more = len(rows) > count
        if more:
            some = np.argpartition(squared, count)[:count]
            rows, squared = rows[some], squared[some]
        return rows[np.lexsort((rows, squared))], more

    def candidates(self, rows: Ints, junction: int, now_ms: int) -> Candidates:
        """These drivers, as they are considered for a pickup there. They stand, so that none has a heading."""
        places, pickup = self._streets.places[self.at[rows]], self._streets.places[junction]
        return Candidates(
            driver_ids=tuple(self.ids[row] for row in rows.tolist()),
            distance_m=geo.distances_m(places[:, 0], places[:, 1], pickup[0], pickup[1]),
            pickup_eta_s=self._streets.times_to_s(junction, self.at[rows]),
            rating_milli=self._rating_milli[rows],
            acceptance_milli=acceptance_milli(self._shown_milli[rows], self._accepted_milli[rows]),
            heading_deg=np.full(len(rows), np.nan),
            bearing_deg=geo.bearings_deg(places[:, 0], places[:, 1], pickup[0], pickup[1]),
            idle_s=self.idle_s(rows, now_ms),
        )

    def idle_s(self, rows: Ints, now_ms: int) -> Floats:
        """How long have these drivers been free? float64[n]."""
        return idle_s(self.free_since_ms[rows], self.free[rows], now_ms)

    def facts(self, rows: Ints) -> DriverFacts:
        """What stores would say of them: all are online, and have their app open."""
        yes = np.ones(len(rows), np.bool_)
        return DriverFacts(yes, yes, ~yes, ~self.free[rows], self.asked[rows], yes)

    def record(self, driver: int, answer: Answer) -> None:
        """What the driver made of an offer."""
        new = after(Record(int(self._shown_milli[driver]), int(self._accepted_milli[driver])), answer, self._record_params)
        self._shown_milli[driver], self._accepted_milli[driver] = new.shown_milli, new.accepted_milli

    def take(self, driver: int, ends_at: int) -> None:
        """The driver is on a ride that ends at this junction."""
        self.free[driver] = False
        self.at[driver] = ends_at
        self._where[driver] = self._vectors[ends_at]

    def release(self, driver: int, now_ms: int) -> None:
        """The driver is free again, where the ride ended."""
        self.free[driver] = True
        self.free_since_ms[driver] = now_ms
