"""Which cells must be read so that the k nearest drivers are certain, and who are they? Pure.

A search reads every driver within some reach of the place, out of those cells that come that near: cells of H3 rings around the
place's own, or, far out, all occupied cells but those that lie beyond. The answer is certain as far as nothing unread can be
nearer. Whatever lies outside k rings is separated from the place by ring k + 1, so it is no nearer than that ring. Nobody needs
to trust the guess of the first reach: a bad one costs a further round, never a driver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import from_e7
from location.freshness import fresh
from location.model import Availability, Cursor, IndexedDrivers, LeftOut, LeftOutReason, NearbyQuestion, Occupancy, taken

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Bools, Floats, Ints
    from location.model import Records

MARGIN_M: Final = 0.5
"""Taken off every bound, for the rounding of coordinates (1 cm) and of floating point."""

RING_STEPS: Final = (1, 4, 12, 30)
"""How many rings are looked at when: most searches end within the first, and looking at more takes longer."""

_HEXAGON_IN_CIRCLE: Final[float] = 3 * math.sqrt(3) / (2 * math.pi)
"""How much of the circle around a hexagon it fills."""

MOST_CORNERS: Final = 10
"""An H3 cell has five or six corners, and up to ten where it lies across an edge of the icosahedron."""

SPREAD: Final = 1.25
"""How much farther than where the drivers seem to be one reads, so that a second reading is rare."""


@dataclass(frozen=True, slots=True)
class NearbyParams:
    """How far and in what steps a city searches. Source: the radius is L3 of docs/sources.md; the rest our choice.

    radius_m : where the question names none
    max_rings : beyond this many rings, occupied cells are chosen one by one instead
    road_time_candidates : so many drivers are timed for one question by road time, or as many as it wants
    """

    radius_m: float = 5_000.0
    max_rings: int = 12
    road_time_candidates: int = 1_000

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 0 < self.radius_m <= 50_000:
            raise ValueError("radius_m must be above 0 and at most 50,000")
        if not 0 <= self.max_rings <= 30:
            raise ValueError("max_rings must be 0 to 30")
        if not 1 <= self.road_time_candidates <= 10_000:
            raise ValueError("road_time_candidates must be 1 to 10,000")


class Terms(Protocol):
    """Which drivers a question is about, wherever they are."""

    @property
    def capability_mask(self) -> int: ...
    @property
    def min_rating_milli(self) -> int: ...
    @property
    def excluded_driver_ids(self) -> frozenset[str]: ...
    @property
    def max_age_ms(self) -> int: ...


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


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A cell and the rings around it, each cell behind a plane that faces the middle.

    cells : int64[n], the rings from the inside out; the last ring only bounds the others
    within : how many cells the rings but the last hold
    normals, offsets_m : float64[n, 3], float64[n]: in metres from the Earth's middle, no point of a cell lies before its plane
    """

    cells: tuple[int, ...]
    within: int
    normals: npt.NDArray[np.float64]
    offsets_m: Floats

    def nearest_m(self, place: Place) -> Floats:
        """No point of each cell is nearer to the place than this: float64[n]. The straight line through the Earth is shorter than
        the way over it, so the bound holds for that; between neighbours the plane is their common edge, and the bound is sharp.
        """
        return self.offsets_m - self.normals @ geo.vector_m(place) - MARGIN_M


@lru_cache(maxsize=8_192)
def neighbourhood_of(cell: int, rings: int) -> Neighbourhood:
    """The cells within `rings` of a cell, and the ring behind them."""
    inner, outer = geo.disk(cell, rings), geo.ring(cell, rings + 1)
    cells = [cell, *(other for other in inner if other != cell), *outer]
    solids = np.array([_solid(each) for each in cells])
    normals = solids[:, 0] - solids[0, 0]
    normals[1:] /= np.linalg.norm(normals[1:], axis=1, keepdims=True)
    offsets_m = np.einsum("ncx,nx->nc", solids[:, 1:], normals).min(axis=1)
    return Neighbourhood(tuple(cells), len(inner), normals, offsets_m)


@lru_cache(maxsize=65_536)
def _solid(cell: int) -> npt.NDArray[np.float64]:
    """A cell's centre and its corners, seen from the Earth's middle: float64[1 + MOST_CORNERS, 3], the last corner repeated."""
    places = [geo.centre_of(cell), *geo.boundary_of(cell)]
    places += places[-1:] * (1 + MOST_CORNERS - len(places))
    return geo.vectors_m(np.array([place.lat for place in places]), np.array([place.lng for place in places]))


class Surroundings:
    """The occupied cells as known a moment ago: good for guesses, and for telling which cells lie beyond a reach."""

    def __init__(self, occupancy: Occupancy) -> None:
        self.cells: list[int] = occupancy.cells.tolist()
        self._counts = occupancy.counts
        self._shapes = shapes_of(self.cells)
        self._count_of: list[int] = occupancy.counts.tolist()
        self._radius_of: list[float] = self._shapes.circumradius_m.tolist()
        self._centres_m = geo.vectors_m(self._shapes.lat, self._shapes.lng)

    def guess_reach_m(self, place: Place, wanted: int, beyond_m: float) -> float:
        """Within what distance of the place do `wanted` drivers behind `beyond_m` seem to be? Infinite where there are fewer.

        Where the nearest three cells hold enough, drivers are taken to be spread evenly over them; else they are taken to be in
        the middle of their cells.
        """
        if not self.cells:
            return np.inf
        nearness = self._centres_m @ geo.vector_m(place)
        centre_m = np.sqrt(np.maximum(0.0, 2 * (geo.EARTH_RADIUS_M**2 - nearness)))
        if beyond_m == 0 and len(self.cells) > 3:
            nearest = np.argpartition(centre_m, 3)[:3].tolist()
            count = sum(self._count_of[row] for row in nearest)
            if count >= wanted:
                outside_m: float = max(0.0, min(float(centre_m[row]) - self._radius_of[row] for row in nearest))
                area_m2 = sum(self._radius_of[row] ** 2 for row in nearest) * _HEXAGON_IN_CIRCLE
                return outside_m + math.sqrt(wanted / count * area_m2)
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

    Of as many rings as suffice, the cells that come so near; where that is more than `params.max_rings`, every occupied cell but
    those beyond the reach: a cell that became occupied a moment ago is then read too, since only cells known to lie beyond are
    left out.
    """
    cell = geo.cell_of(place, index_resolution)
    for rings in (min(step, params.max_rings) for step in RING_STEPS):
        around = neighbourhood_of(cell, rings)
        nearest_m = around.nearest_m(place)
        if nearest_m[around.within :].min() >= reach_m:
            near = np.flatnonzero(nearest_m[: around.within] <= reach_m)
            return Reading(tuple(around.cells[row] for row in near.tolist()), all_but=False, certain_m=reach_m)
        if rings == params.max_rings:
            break
    return Reading(surroundings.cells_beyond(place, reach_m), all_but=True, certain_m=reach_m)


def are_eligible(records: Records, terms: Terms, now_ms: int) -> Bools:
    """Who is fresh, available, able and good enough? RECORD[n] -> bool[n]."""
    states, mask = records["state"], terms.capability_mask
    eligible = fresh(records["position"]["received_at_ms"], now_ms, terms.max_age_ms)
    eligible &= states["availability"] == Availability.AVAILABLE
    eligible &= (states["capability_mask"] & np.uint32(mask)) == mask
    eligible &= states["rating_milli"] >= terms.min_rating_milli
    return eligible


def not_excluded(rows: list[int], driver_ids: Sequence[bytes], terms: Terms) -> list[int]:
    """Those of the rows whose drivers the question does not exclude."""
    excluded = {driver_id.encode() for driver_id in terms.excluded_driver_ids}
    return [row for row in rows if driver_ids[row] not in excluded] if excluded else rows


def select(drivers: IndexedDrivers, question: NearbyQuestion, now_ms: int) -> tuple[IndexedDrivers, Ints]:
    """Who of the drivers read answers the question: fresh, available, able, good enough, not excluded, within the radius, behind
    the cursor?

    Returns at most `max_drivers` + 1 of them (one more tells whether a next page exists), nearest first, ties by id, and
    int64[n], their distances in mm. The order of the rows that were read never matters.
    """
    lat, lng = from_e7(drivers.positions["lat_e7"]), from_e7(drivers.positions["lng_e7"])
    metres = geo.distances_m(question.place.lat, question.place.lng, lat, lng)
    distance_mm = np.rint(metres * 1000).astype(np.int64)
    fits = are_eligible(drivers.records, question, now_ms)
    fits &= distance_mm <= round(question.radius_m * 1000)
    if question.after is not None:
        fits &= distance_mm >= question.after.distance_mm
    names = drivers.driver_ids
    rows = not_excluded(np.flatnonzero(fits).tolist(), names, question)
    if question.after is not None:
        last = (question.after.distance_mm, question.after.driver_id.encode())
        rows = [row for row in rows if (int(distance_mm[row]), names[row]) > last]
    chosen = np.array(rows, dtype=np.int64)
    wanted = question.max_drivers + 1
    if len(chosen) > wanted:
        near = distance_mm[chosen]
        chosen = chosen[near <= np.partition(near, wanted - 1)[wanted - 1]]
    order = sorted(chosen.tolist(), key=lambda row: (int(distance_mm[row]), names[row]))[:wanted]
    return IndexedDrivers([names[row] for row in order], taken(drivers.records, np.array(order, dtype=np.int64))), distance_mm[
        order
    ]


def left_out(drivers: IndexedDrivers, question: NearbyQuestion, within_mm: int, now_ms: int) -> tuple[LeftOut, ...]:
    """Who of the available drivers read is no answer although this near, and why? At most `max_left_out`, nearest first.

    Of several reasons the one that stands first in LeftOutReason.
    """
    if not question.max_left_out:
        return ()
    lat, lng = from_e7(drivers.positions["lat_e7"]), from_e7(drivers.positions["lng_e7"])
    distance_mm = np.rint(geo.distances_m(question.place.lat, question.place.lng, lat, lng) * 1000).astype(np.int64)
    states, mask = drivers.states, question.capability_mask
    excluded = {driver_id.encode() for driver_id in question.excluded_driver_ids}
    reasons = np.select(
        [
            ~fresh(drivers.positions["received_at_ms"], now_ms, question.max_age_ms),
            (states["capability_mask"] & np.uint32(mask)) != mask,
            states["rating_milli"] < question.min_rating_milli,
            np.array([driver_id in excluded for driver_id in drivers.driver_ids], np.bool_),
        ],
        list(LeftOutReason),
        0,
    )
    near = (reasons > 0) & (distance_mm <= within_mm) & (states["availability"] == Availability.AVAILABLE)
    rows = sorted(np.flatnonzero(near).tolist(), key=lambda row: (int(distance_mm[row]), drivers.driver_ids[row]))
    return tuple(
        LeftOut(drivers.driver_ids[row].decode(), LeftOutReason(int(reasons[row])), int(distance_mm[row]))
        for row in rows[: question.max_left_out]
    )


def next_reach_m(question: NearbyQuestion, reading: Reading, distance_mm: Ints, guess_m: float) -> float | None:
    """How far must the next reading be certain? None where this one settles the answer.

    distance_mm : int64[n] of those selected so far
    guess_m : where the drivers still missing seem to be
    """
    if reading.certain_m >= question.radius_m:
        return None
    wanted = question.max_drivers + 1
    if len(distance_mm) < wanted:
        return min(question.radius_m, max(2 * reading.certain_m, SPREAD * guess_m))
    last_m = (int(distance_mm[wanted - 1]) + 1) / 1000
    return None if last_m <= reading.certain_m else min(question.radius_m, last_m)


def cursor_behind(drivers: IndexedDrivers, distance_mm: Ints) -> Cursor:
    """Where the page after these drivers goes on."""
    return Cursor(int(distance_mm[-1]), drivers.driver_ids[-1].decode())
