"""Where drivers are along their routes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel import geo
from routing.model import Route
from simulator.motion import Motion, position_at, positions_at

ANGLE = Route(
    np.array([[40.0, -74.0], [40.01, -74.0], [40.01, -73.99]]), np.array([0.0, 100.0, 150.0]), np.array([0.0, 1000.0, 1800.0])
)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    k = draw(st.integers(2, 6))
    steps = st.lists(st.one_of(st.just(0.0), st.floats(0.001, 500)), min_size=k - 1, max_size=k - 1)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    seconds = np.concatenate(([0.0], np.cumsum(draw(steps))))
    return Route(40 + rng.random((k, 2)) / 10 - (0, 114), seconds, seconds * 9)


@pytest.mark.parametrize(
    ("elapsed_s", "lat", "lng", "heading_deg", "speed_mps"),
    [
        (-5.0, 40.0, -74.0, 0.0, 0.0),
        (0.0, 40.0, -74.0, 0.0, 10.0),
        (50.0, 40.005, -74.0, 0.0, 10.0),
        (100.0, 40.01, -74.0, 90.0, 16.0),
        (125.0, 40.01, -73.995, 90.0, 16.0),
        (150.0, 40.01, -73.99, 90.0, 0.0),
        (999.0, 40.01, -73.99, 90.0, 0.0),
    ],
)
def test_a_driver_is_where_its_route_says(elapsed_s: float, lat: float, lng: float, heading_deg: float, speed_mps: float) -> None:
    assert position_at(ANGLE, elapsed_s) == pytest.approx((lat, lng, heading_deg, speed_mps), abs=0.01)


@given(st.lists(st.tuples(routes(), st.floats(-10, 3000)), max_size=8))
def test_a_fleet_moves_as_each_of_its_drivers(fleet: list[tuple[Route, float]]) -> None:
    at = positions_at([route for route, _ in fleet], np.array([elapsed_s for _, elapsed_s in fleet], dtype=float))

    for i, (route, elapsed_s) in enumerate(fleet):
        t = min(max(elapsed_s, 0.0), route.duration_s)
        if route.duration_s > 0 and (np.diff(route.cumulative_s) > 0).all():
            expected = [np.interp(t, route.cumulative_s, route.places[:, column]) for column in (0, 1)]
            np.testing.assert_allclose(at.places[i], expected, atol=1e-6)
        if elapsed_s >= route.duration_s:
            assert at.places[i].tolist() == pytest.approx(route.places[-1].tolist(), abs=1e-9)
            assert at.arrived[i]
            assert at.speed_mps[i] == 0
        assert np.isfinite(at.places[i]).all()
        assert 0 <= at.heading_deg[i] <= 360
        assert at.speed_mps[i] >= 0


def test_a_fleet_without_drivers_is_nowhere() -> None:
    assert positions_at([], np.empty(0)).places.shape == (0, 2)


def test_as_many_times_as_routes() -> None:
    with pytest.raises(ValueError, match="1 routes and 2 times"):
        positions_at([ANGLE], np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        positions_at([ANGLE], np.array([np.nan]))


def test_a_driver_stands_until_sent_and_after_it_arrived() -> None:
    motion = Motion(np.array([[40.5, -74.0], [40.6, -74.0]]))

    arrives_s = motion.follow(1, ANGLE, at_s=10.0)

    assert len(motion) == 2
    assert arrives_s == 160.0
    assert motion.place(0, 60.0) == geo.Place(40.5, -74.0)
    assert motion.place(1, 60.0).lat == pytest.approx(40.005)
    at = motion.positions(np.array([1, 0]), 200.0)
    assert at.places.tolist() == [[40.01, -73.99], [40.5, -74.0]]
    assert at.arrived.tolist() == [True, True]
    assert at.speed_mps.tolist() == [0.0, 0.0]


def test_a_cruising_driver_is_slower() -> None:
    motion = Motion(np.array([[40.0, -74.0]]))

    assert motion.follow(0, ANGLE, at_s=0.0, pace=0.5) == 300.0
    assert motion.place(0, 100.0).lat == pytest.approx(40.005)
    assert motion.positions(np.array([0]), 100.0).speed_mps[0] == pytest.approx(5.0)
    with pytest.raises(ValueError, match="pace"):
        motion.follow(0, ANGLE, at_s=0.0, pace=0.0)


def test_a_driver_told_to_stand_stays_where_it_was() -> None:
    motion = Motion(np.array([[40.0, -74.0]]))
    motion.follow(0, ANGLE, at_s=0.0)

    stopped = motion.stand(0, 50.0)

    assert stopped.lat == pytest.approx(40.005)
    assert motion.place(0, 500.0) == stopped


def test_starts_off_the_globe_are_refused() -> None:
    with pytest.raises(ValueError, match="starts"):
        Motion(np.array([[np.nan, 0.0]]))
