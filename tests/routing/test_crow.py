"""The router without a map."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import geo
from routing.crow import CrowParams, CrowRouter

ZONE = "America/New_York"
BY_HOUR = tuple(float(10 + hour) for hour in range(24))
ROUTER = CrowRouter(CrowParams(1.4, BY_HOUR, ZONE))

place = st.tuples(st.floats(-80, 80), st.floats(-180, 180))
columns = st.lists(place, min_size=1, max_size=6).map(np.array)


def at_ms(hour: int) -> int:
    return round(datetime(2013, 1, 1, hour, 30, tzinfo=ZoneInfo(ZONE)).timestamp() * 1000)


@given(columns, columns)
def test_symmetric_and_never_negative(origins: np.ndarray, destinations: np.ndarray) -> None:
    there = ROUTER.distances_m(origins, destinations)
    back = ROUTER.distances_m(destinations, origins)

    assert there.dtype == np.float32
    assert there.shape == (len(origins), len(destinations))
    assert (there >= 0).all()
    np.testing.assert_array_equal(there, back.T)


@given(columns)
def test_the_same_place_is_nothing_away(places: np.ndarray) -> None:
    assert (np.diagonal(ROUTER.times_s(places, places, at_ms(3))) == 0).all()


@given(columns, columns)
def test_a_route_takes_as_long_as_its_time(origins: np.ndarray, destinations: np.ndarray) -> None:
    route = ROUTER.route(geo.Place(*origins[0]), geo.Place(*destinations[0]), at_ms(9))

    assert route.duration_s == pytest.approx(float(ROUTER.times_s(origins, destinations, at_ms(9))[0, 0]), rel=1e-3)
    assert route.length_m == pytest.approx(float(ROUTER.distances_m(origins, destinations)[0, 0]), rel=1e-3)


def test_the_distance_is_the_great_circle_times_the_detour() -> None:
    a, b = np.array([[40.70, -74.00]]), np.array([[40.80, -73.95]])

    expected = 1.4 * geo.distance_m(geo.Place(40.70, -74.00), geo.Place(40.80, -73.95))
    assert ROUTER.distances_m(a, b)[0, 0] == pytest.approx(expected)
    assert ROUTER.pair_distances_m(a, b)[0] == pytest.approx(expected)


def test_the_speed_is_that_of_the_hour_in_the_city() -> None:
    a, b = np.array([[40.70, -74.00]]), np.array([[40.80, -73.95]])

    for hour in (0, 8, 23):
        expected = ROUTER.distances_m(a, b)[0, 0] / ((10 + hour) / 3.6)
        assert ROUTER.times_s(a, b, at_ms(hour))[0, 0] == pytest.approx(expected)
        assert ROUTER.pair_times_s(a, b, at_ms(hour))[0] == pytest.approx(expected)


def test_no_places_give_empty_answers() -> None:
    assert ROUTER.times_s(np.empty((0, 2)), np.array([[1.0, 2.0]]), 0).shape == (0, 1)
    assert ROUTER.pair_times_s(np.empty((0, 2)), np.empty((0, 2)), 0).shape == (0,)
    assert ROUTER.covers(np.empty((0, 2))).shape == (0,)


def test_coordinates_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="origins"):
        ROUTER.times_s(np.array([[np.nan, 0.0]]), np.array([[1.0, 2.0]]), 0)


def test_equal_versions_mean_equal_parameters() -> None:
    assert CrowRouter(CrowParams(1.4, BY_HOUR, ZONE)).version == ROUTER.version
    assert CrowRouter(CrowParams(1.4, BY_HOUR[::-1], ZONE)).version != ROUTER.version


@pytest.mark.parametrize(
    ("detour_factor", "speeds", "zone", "named"),
    [
        (0.9, BY_HOUR, ZONE, "detour_factor"),
        (float("nan"), BY_HOUR, ZONE, "detour_factor"),
        (1.3, BY_HOUR[:23], ZONE, "speed_kmh_by_hour"),
        (1.3, (0.0, *BY_HOUR[1:]), ZONE, "speed_kmh_by_hour"),
        (1.3, BY_HOUR, "Mars/Olympus", "time_zone"),
        (1.3, BY_HOUR, "", "time_zone"),
    ],
)
def test_unfit_parameters_are_refused_by_name(detour_factor: float, speeds: tuple[float, ...], zone: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        CrowParams(detour_factor, speeds, zone)
