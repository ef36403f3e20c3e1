"""Distances, directions and cells, against known ones and by what must hold of them."""

from __future__ import annotations

import h3.api.numpy_int as h3
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hexhail.kernel import geo
from hexhail.kernel.geo import EARTH_RADIUS_M, Place, distance_m

HALF_AROUND_M = np.pi * EARTH_RADIUS_M
LONDON, PARIS = Place(51.5007, -0.1246), Place(48.8584, 2.2945)
NEW_YORK, SYDNEY = Place(40.6892, -74.0445), Place(-33.8568, 151.2153)

PLACES = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180))
CITIES = st.builds(Place, st.floats(-60, 60), st.floats(-179, 179))


@pytest.mark.parametrize(
    ("a", "b", "expected_m"),
    [
        (LONDON, PARIS, 340_500),
        (NEW_YORK, SYDNEY, 15_990_000),
        (Place(0, 0), Place(0, 180), HALF_AROUND_M),
        (Place(90, 0), Place(-90, 77), HALF_AROUND_M),
        (Place(0, 179.5), Place(0, -179.5), HALF_AROUND_M / 180),
        (Place(40, -74), Place(41, -74), HALF_AROUND_M / 180),
    ],
)
def test_known_distances(a: Place, b: Place, expected_m: float) -> None:
    assert distance_m(a, b) == pytest.approx(expected_m, rel=2e-3)


@given(PLACES, PLACES)
def test_a_way_there_is_as_long_as_the_way_back_and_never_more_than_half_around(a: Place, b: Place) -> None:
    assert distance_m(a, b) == pytest.approx(distance_m(b, a), abs=1e-6)
    assert 0 <= distance_m(a, b) <= HALF_AROUND_M + 1e-6


@given(PLACES)
def test_from_a_place_to_itself_it_is_no_way(a: Place) -> None:
    assert distance_m(a, a) == 0


@given(PLACES, PLACES, PLACES)
def test_a_detour_is_never_shorter(a: Place, b: Place, c: Place) -> None:
    assert distance_m(a, c) <= distance_m(a, b) + distance_m(b, c) + 1.0


def test_columns_are_measured_as_their_rows() -> None:
    lat, lng = np.array([p.lat for p in (LONDON, NEW_YORK)]), np.array([p.lng for p in (LONDON, NEW_YORK)])
    assert geo.distances_m(lat, lng, PARIS.lat, PARIS.lng).tolist() == [distance_m(p, PARIS) for p in (LONDON, NEW_YORK)]
    assert geo.distances_m(lat[:, None], lng[:, None], lat, lng).shape == (2, 2)


@pytest.mark.parametrize(("north", "east", "expected_deg"), [(1, 0, 0), (0, 1, 90), (-1, 0, 180), (0, -1, 270), (1, 1, 45)])
def test_directions_go_clockwise_from_north(north: int, east: int, expected_deg: float) -> None:
    assert float(geo.bearings_deg(0.0, 0.0, north * 0.001, east * 0.001)) == pytest.approx(expected_deg, abs=0.01)


@given(PLACES, PLACES)
def test_a_direction_is_one_of_the_circle(a: Place, b: Place) -> None:
    assert 0 <= float(geo.bearings_deg(a.lat, a.lng, b.lat, b.lng)) <= 360


@pytest.mark.parametrize(("lat", "lng"), [(np.nan, 0), (0, np.nan), (np.inf, 0), (90.1, 0), (0, -180.1)])
def test_what_is_no_place(lat: float, lng: float) -> None:
    assert not Place(lat, lng).is_valid()
    assert Place(90, -180).is_valid()


@given(CITIES, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_on_a_flat_map_lengths_are_right_to_its_stated_error_and_the_way_back_is_exact(
    middle: Place, dlat: float, dlng: float
) -> None:
    plane = geo.Plane(middle)
    lat, lng = np.array([middle.lat + dlat]), np.array([middle.lng + dlng])
    east_m, north_m = plane.flatten(lat, lng)
    error = abs(np.tan(np.radians(middle.lat))) * abs(np.radians(dlat)) + np.radians(0.2) ** 2
    assert np.hypot(east_m, north_m)[0] == pytest.approx(distance_m(middle, Place(lat[0], lng[0])), rel=error, abs=1e-3)
    back_lat, back_lng = plane.unflatten(east_m, north_m)
    assert (back_lat[0], back_lng[0]) == pytest.approx((lat[0], lng[0]), abs=1e-9)


@given(CITIES, st.integers(0, 4))
def test_a_disk_is_its_rings_and_no_cell_is_in_two(place: Place, k: int) -> None:
    cell = geo.cell_of(place, 8)
    rings = [geo.ring(cell, n) for n in range(k + 1)]
    assert [len(ring) for ring in rings] == [1, *(6 * n for n in range(1, k + 1))][: k + 1]
    assert sorted(c for ring in rings for c in ring) == geo.disk(cell, k)
    assert all(ring == sorted(ring) for ring in rings)


@given(CITIES, st.integers(5, 12))
def test_a_place_lies_in_its_cell_and_in_its_cells_parent(place: Place, resolution: int) -> None:
    cell = geo.cell_of(place, resolution)
    assert geo.cell_resolution(cell) == resolution
    assert distance_m(place, geo.centre_of(cell)) <= geo.circumradius_m(cell) * 1.001
    column = geo.cells_of(np.array([place.lat]), np.array([place.lng]), resolution)
    assert column.tolist() == [cell]
    assert geo.parents_of(column, resolution - 2).tolist()[0] in geo.disk(geo.cell_of(place, resolution - 2), 1)


def test_the_parents_of_no_cells_are_none() -> None:
    assert len(geo.parents_of(np.zeros(0, np.uint64), 5)) == 0


@given(st.integers(-(2**70), 2**70))
def test_a_number_that_is_no_cell_is_told_from_one(number: int) -> None:
    assume(number >> 52 != 0x8A)
    resolution = geo.cell_resolution(number)
    assert resolution is None or 0 <= resolution <= 15


NUMBERS = st.one_of(st.integers(0, 2**64 - 1), PLACES.map(lambda place: geo.cell_of(place, 7)), st.sampled_from([0, 2**63]))


@given(st.lists(st.tuples(NUMBERS, st.integers(-1, 63)), max_size=20))
def test_columns_of_cells_are_judged_as_each_is(numbers: list[tuple[int, int]]) -> None:
    altered = [number if bit < 0 else number ^ (1 << bit) for number, bit in numbers]
    resolutions = geo.resolutions_of(np.array(altered, dtype=np.uint64))
    assert resolutions.tolist() == [-1 if (known := geo.cell_resolution(number)) is None else known for number in altered]


@given(st.lists(PLACES, max_size=10), st.integers(0, 7))
def test_columns_have_their_parents(places: list[Place], resolution: int) -> None:
    cells = np.array([geo.cell_of(place, 7) for place in places], dtype=np.uint64)
    assert geo.parents_of(cells, resolution).tolist() == [h3.cell_to_parent(cell, resolution) for cell in cells.tolist()]


@given(PLACES, PLACES)
def test_a_way_through_the_earth_tells_the_way_over_it(a: Place, b: Place) -> None:
    columns = geo.vectors_m(np.array([a.lat, b.lat]), np.array([a.lng, b.lng]))
    assert columns == pytest.approx(np.array([geo.vector_m(a), geo.vector_m(b)]), abs=1e-6)
    through_m = float(np.linalg.norm(columns[0] - columns[1]))
    assert geo.chord_m(distance_m(a, b)) == pytest.approx(through_m, abs=1e-3)
    assume(distance_m(a, b) < HALF_AROUND_M - 10_000)  # near the antipodes the way over it hardly changes the way through it
    assert float(geo.arcs_m(np.array(through_m))) == pytest.approx(distance_m(a, b), abs=1e-3)
