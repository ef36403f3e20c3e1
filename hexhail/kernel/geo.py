"""Places and cells: the only code that measures distances or knows H3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h3.api.numpy_int as h3
import numpy as np
from h3ronpy import cells_resolution, cells_valid, change_resolution
from h3ronpy.vector import coordinates_to_cells

if TYPE_CHECKING:
    from hexhail.kernel.units import Cells, Floats, Ints

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the Earth. Source: IUGG (2 a + b) / 3 of WGS84, which H3 uses as well."""

_FEW = 100
"""Points so few that finding their cells one by one is faster than handing them over together."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point, degrees WGS84."""

    lat: float
    lng: float

    def is_valid(self) -> bool:
        """Finite and on the globe?"""
        return math.isfinite(self.lat) and math.isfinite(self.lng) and abs(self.lat) <= 90 and abs(self.lng) <= 180


def distances_m(lat_a: Floats | float, lng_a: Floats | float, lat_b: Floats | float, lng_b: Floats | float) -> Floats:
    """How far apart are these points, along great circles?

    The arguments broadcast: float64[n], float64[m, 1] and scalars mix as in numpy. Degrees in, metres out.
    Source: the haversine formula, exact on the sphere of EARTH_RADIUS_M and stable for small distances.
    """
    phi_a, phi_b = np.radians(lat_a), np.radians(lat_b)
    half_dphi = (phi_b - phi_a) / 2
    half_dlambda = np.radians(np.subtract(lng_b, lng_a)) / 2
    chord = np.sin(half_dphi) ** 2 + np.cos(phi_a) * np.cos(phi_b) * np.sin(half_dlambda) ** 2
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(chord, 1.0))), dtype=np.float64)


def distance_m(a: Place, b: Place) -> float:
    """How far apart are two points, along the great circle, metres?"""
    return float(distances_m(a.lat, a.lng, b.lat, b.lng))


def vector_m(place: Place) -> Floats:
    """Where is a point, seen from the Earth's middle? float64[3], metres; lines between such points run through the Earth."""
    phi, lam = math.radians(place.lat), math.radians(place.lng)
    flat = math.cos(phi)
    return EARTH_RADIUS_M * np.array([flat * math.cos(lam), flat * math.sin(lam), math.sin(phi)])


def vectors_m(lat: Floats, lng: Floats) -> Floats:
    """The same for many points: float64[n], float64[n] -> float64[n, 3]."""
    phi, lam = np.radians(lat), np.radians(lng)
    flat = np.cos(phi)
    return EARTH_RADIUS_M * np.stack([flat * np.cos(lam), flat * np.sin(lam), np.sin(phi)], axis=1)


def chord_m(arc_m: float) -> float:
    """How far apart are points through the Earth that are so far apart over it?"""
    return 2 * EARTH_RADIUS_M * math.sin(min(arc_m / EARTH_RADIUS_M, math.pi) / 2)


def arcs_m(chords_m: Floats) -> Floats:
    """How far apart are points over the Earth that are so far apart through it? float64[...] -> float64[...]."""
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.minimum(chords_m / (2 * EARTH_RADIUS_M), 1.0)), dtype=np.float64)


def bearings_deg(lat_a: Floats | float, lng_a: Floats | float, lat_b: Floats | float, lng_b: Floats | float) -> Floats:
    """In which direction does one leave `a` for `b`? Degrees clockwise from north, 0 to 360. Broadcasts."""
    phi_a, phi_b = np.radians(lat_a), np.radians(lat_b)
    dlambda = np.radians(np.subtract(lng_b, lng_a))
    east = np.sin(dlambda) * np.cos(phi_b)
    north = np.cos(phi_a) * np.sin(phi_b) - np.sin(phi_a) * np.cos(phi_b) * np.cos(dlambda)
    return np.asarray(np.degrees(np.arctan2(east, north)) % 360.0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Plane:
    """A flat map around a place: metres east and north of it.

    Straight lines in degrees stay straight. Lengths east to west are off by tan(latitude) x the way north in radians: 0.4 % at
    30 km north of a middle at 40 degrees.
    Source: the equirectangular projection.
    """

    middle: Place

    def flatten(self, lat: Floats, lng: Floats) -> tuple[Floats, Floats]:
        """Degrees to metres east and north: float64[n], float64[n] -> float64[n], float64[n]."""
        east, north = self._m_per_degree()
        return (lng - self.middle.lng) * east, (lat - self.middle.lat) * north

    def unflatten(self, east_m: Floats, north_m: Floats) -> tuple[Floats, Floats]:
        """Metres east and north to latitude and longitude: float64[n], float64[n] -> float64[n], float64[n]."""
        east, north = self._m_per_degree()
        return self.middle.lat + north_m / north, self.middle.lng + east_m / east

    def _m_per_degree(self) -> tuple[float, float]:
        m_per_degree = math.radians(EARTH_RADIUS_M)
        return m_per_degree * math.cos(math.radians(self.middle.lat)), m_per_degree


def cells_of(lat: Floats, lng: Floats, resolution: int) -> Cells:
    """In which H3 cell does each point lie? float64[n], float64[n] -> uint64[n]."""
    if len(lat) < _FEW:
        cells = (h3.latlng_to_cell(a, b, resolution) for a, b in zip(lat.tolist(), lng.tolist(), strict=True))
        return np.fromiter(cells, np.uint64, len(lat))
    return np.asarray(coordinates_to_cells(np.ascontiguousarray(lat), np.ascontiguousarray(lng), resolution), dtype=np.uint64)


def cell_of(place: Place, resolution: int) -> int:
    """In which H3 cell does a point lie?"""
    return int(h3.latlng_to_cell(place.lat, place.lng, resolution))


def parents_of(cells: Cells, resolution: int) -> Cells:
    """In which coarser cell does each cell lie? uint64[n] -> uint64[n]."""
    return np.asarray(change_resolution(np.ascontiguousarray(cells), resolution), dtype=np.uint64)


def resolutions_of(cells: Cells) -> Ints:
    """The H3 resolution of each cell: uint64[n] -> int64[n]; -1 where a number is not a cell."""
    are_cells = np.asarray(cells_valid(np.ascontiguousarray(cells), booleanarray=True), dtype=np.bool_)
    resolutions = np.full(len(cells), -1, dtype=np.int64)
    resolutions[are_cells] = np.asarray(cells_resolution(cells[are_cells]))
    return resolutions


def cell_resolution(cell: int) -> int | None:
    """The H3 resolution of a cell; None where the number is not a cell."""
    return int(h3.get_resolution(cell)) if 0 < cell < 2**63 and h3.is_valid_cell(cell) else None


def ring(cell: int, k: int) -> list[int]:
    """The cells at grid distance `k`, in the order of their numbers."""
    return sorted(int(c) for c in h3.grid_ring(cell, k))


def disk(cell: int, k: int) -> list[int]:
    """The cells at grid distance at most `k`, in the order of their numbers."""
    return sorted(int(c) for c in h3.grid_disk(cell, k))


def centre_of(cell: int) -> Place:
    """The middle of a cell."""
    lat, lng = h3.cell_to_latlng(cell)
    return Place(float(lat), float(lng))


def boundary_of(cell: int) -> list[Place]:
    """The corners of a cell, counter-clockwise."""
    return [Place(float(lat), float(lng)) for lat, lng in h3.cell_to_boundary(cell)]


def circumradius_m(cell: int) -> float:
    """How far is a cell's farthest corner from its middle, metres?"""
    middle = centre_of(cell)
    return max(distance_m(middle, corner) for corner in boundary_of(cell))
