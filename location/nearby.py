"""Which cells must be read so that the k nearest drivers are certain, and who are they? Pure.

A search reads every driver within some reach of the place: either whole H3 rings around its cell, or, far out, all occupied
cells but those that lie beyond. The answer is certain as far as nothing unread can be nearer. Whatever lies outside k rings is
separated from the place by ring k + 1, so it is no nearer than that ring; and a point of a cell is no nearer than the cell's
centre less its circumradius. Nobody needs to trust the guess of the first reach: a bad one costs a further round, never a driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import from_e7
from location.freshness import fresh
from location.model import Availability, Cursor, IndexedDrivers, NearbyQuestion, Occupancy

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Floats, Ints

MARGIN_M: Final = 0.5
"""Taken off every bound, for the rounding of coordinates (1 cm) and of floating point."""


@dataclass(frozen=True, slots=True)
class NearbyParams:
    """How far and in what steps a city searches. Source: the radius is L3 of docs/sources.md; the rest our choice.

    radius_m : where the question names none
    max_rings : beyond this many rings, occupied cells are chosen one by one instead
    """

    radius_m: float = 5_000.0
    max_rings: int = 12

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 0 < self.radius_m <= 50_000:
            raise ValueError("radius_m must be above 0 and at most 50,000")
        if not 0 <= self.max_rings <= 30:
            raise ValueError("max_rings must be 0 to 30")


@dataclass(frozen=True, slots=True)
class Reading:
    """What to read next: these cells, or all occupied ones but these; nobody nearer than `certain_m` is then unread."""

    cells: tuple[int, ...]
    all_but: bool
    certain_m: float


@dataclass(frozen=True, slots=True)
class CellShapes:
    """Where cells are and how far they extend.

    lat, lng : float64[n], centres, degrees
    circumradius_m : float64[n]
    """

    lat: Floats
    lng: Floats
    circumradius_m: Floats

    def nearest_m(self, place: Place) -> Floats:
        """No point of each cell is nearer to the place than this: float64[n]."""
        return geo.distances_m(place.lat, place.lng, self.lat, self.lng) - self.circumradius_m - MARGIN_M


@lru_cache(maxsize=65_536)
def _shape(cell: int) -> tuple[float, float, float]:
    centre = geo.centre_of(cell)
    return centre.lat, centre.lng, geo.circumradius_m(cell)


def shapes_of(cells: list[int]) -> CellShapes:
    """Where these cells are and how far they extend."""
    rows = np.array([_shape(cell) for cell in cells], dtype=np.float64).reshape(-1, 3)
    return CellShapes(rows[:, 0], rows[:, 1], rows[:, 2])


@lru_cache(maxsize=16_384)
def _ring_shapes(cell: int, rings: int) -> CellShapes:
    return shapes_of(geo.ring(cell, rings))


@lru_cache(maxsize=4_096)
def _disk(cell: int, rings: int) -> tuple[int, ...]:
    return tuple(geo.disk(cell, rings))


def ring_certain_m(place: Place, cell: int, rings: int) -> float:
    """How far is the answer certain once all cells within `rings` of the place's cell are read?"""
    return float(_ring_shapes(cell, rings + 1).nearest_m(place).min())


class Surroundings:
    """The occupied cells as known a moment ago: good for guesses, and for telling which cells lie beyond a reach."""

    def __init__(self, occupancy: Occupancy) -> None:
        self.cells: list[int] = occupancy.cells.tolist()
        self._counts = occupancy.counts
        self._shapes = shapes_of(self.cells)

    def guess_reach_m(self, place: Place, wanted: int, beyond_m: float) -> float:
        """Within what distance of the place do `wanted` drivers behind `beyond_m` seem to be? Infinite where there are fewer."""
        if not self.cells:
            return np.inf
        centre_m = geo.distances_m(place.lat, place.lng, self._shapes.lat, self._shapes.lng)
        order = np.argsort(centre_m)
        counted = np.cumsum(np.where(centre_m[order] >= beyond_m, self._counts[order], 0))
        row = int(np.searchsorted(counted, wanted))
        return float(centre_m[order[row]]) if row < len(order) else np.inf

    def cells_beyond(self, place: Place, reach_m: float) -> tuple[int, ...]:
        """The cells of which no point lies within the reach."""
        beyond = self._shapes.nearest_m(place) > reach_m
        return tuple(self.cells[row] for row in np.flatnonzero(beyond))


def plan_reading(
    place: Place, index_resolution: int, reach_m: float, surroundings: Surroundings, params: NearbyParams
) -> Reading:
    """What must be read so that the answer is certain as far as `reach_m`?

    The fewest rings that suffice; where they are more than `params.max_rings`, every occupied cell but those beyond the reach:
    a cell that became occupied a moment ago is then read too, since only cells known to lie beyond are left out.
    """
    cell = geo.cell_of(place, index_resolution)
    spacing_m = 2 * _shape(cell)[2]
    if reach_m <= (params.max_rings + 1) * spacing_m:
        rings = min(max(0, int(reach_m / spacing_m)), params.max_rings)
        while rings <= params.max_rings:
            certain_m = ring_certain_m(place, cell, rings)
            if certain_m >= reach_m:
                return Reading(_disk(cell, rings), all_but=False, certain_m=certain_m)
            rings += 1
    return Reading(surroundings.cells_beyond(place, reach_m), all_but=True, certain_m=reach_m)


def select(drivers: IndexedDrivers, question: NearbyQuestion, now_ms: int) -> tuple[IndexedDrivers, Ints]:
    """Who of the drivers read answers the question: fresh, available, able, good enough, not excluded, within the radius, behind
    the cursor?

    Returns at most `max_drivers` + 1 of them (one more tells whether a next page exists), nearest first, ties by id, and
    int64[n], their distances in mm. The order of the rows that were read never matters.
    """
    positions, states = drivers.positions, drivers.states
    metres = geo.distances_m(question.place.lat, question.place.lng, from_e7(positions["lat_e7"]), from_e7(positions["lng_e7"]))
    distance_mm = np.rint(metres * 1000).astype(np.int64)
    mask = question.capability_mask
    fits = fresh(positions["received_at_ms"], now_ms, question.max_age_ms)
    fits &= states["availability"] == Availability.AVAILABLE
    fits &= (states["capability_mask"] & np.uint32(mask)) == mask
    fits &= states["rating_milli"] >= question.min_rating_milli
    fits &= distance_mm <= round(question.radius_m * 1000)
    if question.after is not None:
        fits &= distance_mm >= question.after.distance_mm
    names = drivers.driver_ids
    rows = np.flatnonzero(fits).tolist()
    if question.excluded_driver_ids:
        excluded = {driver_id.encode() for driver_id in question.excluded_driver_ids}
        rows = [row for row in rows if names[row] not in excluded]
    if question.after is not None:
        last = (question.after.distance_mm, question.after.driver_id.encode())
        rows = [row for row in rows if (int(distance_mm[row]), names[row]) > last]
    chosen = np.array(rows, dtype=np.int64)
    wanted = question.max_drivers + 1
    if len(chosen) > wanted:
        near = distance_mm[chosen]
        chosen = chosen[near <= np.partition(near, wanted - 1)[wanted - 1]]
    order = sorted(chosen.tolist(), key=lambda row: (int(distance_mm[row]), names[row]))[:wanted]
    return IndexedDrivers([names[row] for row in order], positions[order], states[order]), distance_mm[order]


def next_reach_m(question: NearbyQuestion, reading: Reading, distance_mm: Ints, guess_m: float) -> float | None:
    """How far must the next reading be certain? None where this one settles the answer.

    distance_mm : int64[n] of those selected so far
    guess_m : where the drivers still missing seem to be
    """
    if reading.certain_m >= question.radius_m:
        return None
    wanted = question.max_drivers + 1
    if len(distance_mm) < wanted:
        return min(question.radius_m, max(2 * reading.certain_m, guess_m))
    last_m = (int(distance_mm[wanted - 1]) + 1) / 1000
    return None if last_m <= reading.certain_m else min(question.radius_m, last_m)


def cursor_behind(drivers: IndexedDrivers, distance_mm: Ints) -> Cursor:
    """Where the page after these drivers goes on."""
    return Cursor(int(distance_mm[-1]), drivers.driver_ids[-1].decode())
