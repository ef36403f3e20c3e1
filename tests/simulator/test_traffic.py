"""The traffic that services must find out about: seeded, bounded, smooth, and as uneven as real rides say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.kernel.geo import Place, Plane
from routing.model import Route
from simulator.traffic import LONGEST_STEP_M, Traffic, TrafficParams

MIDDLE = Place(40.76, -73.97)
PARAMS = TrafficParams()
NIGHT_S = 1_357_017_600.0
STEADY = replace(PARAMS, place_sigma=0.0, drive_sigma=0.0)

offsets_m = st.tuples(st.floats(-9_000, 9_000), st.floats(-9_000, 9_000))
seeds = st.integers(0, 2**32)
moments_s = st.floats(0, 7_200).map(lambda s: NIGHT_S + s)


def at(*offsets: tuple[float, float]) -> np.ndarray:
    """Places so many metres east and north of the middle."""
    east, north = np.array(offsets).T
    return np.column_stack(Plane(MIDDLE).unflatten(east, north))


def slowness(traffic: Traffic, offset: tuple[float, float], at_s: float) -> float:
    return float(traffic.slowness(at(offset), np.array([at_s]))[0])


def route(*legs: tuple[float, float]) -> Route:
    """Eastwards, legs of so many seconds and metres."""
    seconds, metres = np.cumsum(np.array([(0.0, 0.0), *legs]), axis=0).T
    return Route(at(*((m, 0.0) for m in metres.tolist())), seconds, metres)


@given(seeds, offsets_m, moments_s)
def test_the_same_seed_gives_the_same_streets_and_another_seed_others(seed: int, offset: tuple[float, float], s: float) -> None:
    here = slowness(Traffic(PARAMS, seed, MIDDLE), offset, s)
    assert slowness(Traffic(PARAMS, seed, MIDDLE), offset, s) == here
    assert slowness(Traffic(PARAMS, seed + 1, MIDDLE), offset, s) != here


@given(seeds, offsets_m, moments_s, st.integers(0, 5_000), st.integers(0, 50))
def test_nothing_is_slower_or_faster_than_its_bounds(
    seed: int, offset: tuple[float, float], s: float, driver: int, drive: int
) -> None:
    traffic = Traffic(replace(PARAMS, usual=2.2), seed, MIDDLE)
    most = np.exp(PARAMS.place_sigma * PARAMS.most_sigmas)
    assert 2.2 / most <= slowness(traffic, offset, s) <= 2.2 * most
    most = np.exp(PARAMS.drive_sigma * PARAMS.most_sigmas)
    assert 1 / most <= traffic.drive_factor(driver, drive) <= most


@given(seeds, offsets_m, moments_s, st.floats(0, 6.28), st.floats(0, 20), st.floats(-10, 10))
def test_streets_next_to_each_other_and_moments_after_each_other_are_nearly_as_slow(
    seed: int, offset: tuple[float, float], s: float, towards: float, metres: float, later_s: float
) -> None:
    """20 m or 10 s make 8 % at most, where a typical difference between places far apart is 1.5 times."""
    traffic = Traffic(PARAMS, seed, MIDDLE)
    near = (offset[0] + metres * np.cos(towards), offset[1] + metres * np.sin(towards))
    assert abs(np.log(slowness(traffic, near, s + later_s) / slowness(traffic, offset, s))) <= 0.08


def test_it_differs_as_much_as_it_is_told_to_and_drifts() -> None:
    east, north = np.meshgrid(np.linspace(-9_000, 9_000, 40), np.linspace(-9_000, 9_000, 40))
    places = at(*zip(east.ravel().tolist(), north.ravel().tolist(), strict=True))
    traffic = Traffic(PARAMS, 1, MIDDLE)
    now, soon, later = (
        np.log(traffic.slowness(places, np.full(len(places), NIGHT_S + s))) for s in (0.0, 60.0, 4 * PARAMS.drift_s)
    )
    assert now.std() == pytest.approx(PARAMS.place_sigma, rel=0.15)
    assert abs(now.mean()) < PARAMS.place_sigma / 2
    assert np.corrcoef(now, soon)[0, 1] > 0.95
    assert abs(np.corrcoef(now, later)[0, 1]) < 0.3


def test_the_factors_of_drives_are_each_their_own_and_in_the_middle_as_usual() -> None:
    traffic = Traffic(PARAMS, 1, MIDDLE)
    factors = np.log([traffic.drive_factor(driver, drive) for driver in range(100) for drive in range(10)])
    assert len(set(factors.tolist())) > 950
    assert np.median(factors) == pytest.approx(0.0, abs=0.03)
    assert factors.std() == pytest.approx(PARAMS.drive_sigma, rel=0.1)


def test_trips_are_as_far_from_the_usual_time_as_real_rides_are() -> None:
    """Manhattan's rides: 1.35, 2.2, 3.7 times free flow at p10, p50, p90; that is 0.61, 1, 1.68 of the usual time."""
    trip = route(*[(25.0, 80.0)] * 35)
    took = [
        Traffic(PARAMS, seed, MIDDLE).driven(trip, NIGHT_S, Traffic(PARAMS, seed, MIDDLE).drive_factor(seed, 1)).duration_s
        for seed in range(400)
    ]
    assert np.percentile(took, [10, 50, 90]) / trip.duration_s == pytest.approx([0.61, 1.0, 1.68], rel=0.1)


legs = st.lists(st.tuples(st.floats(0.1, 200), st.floats(0.1, 2_000)), min_size=1, max_size=12)


@given(legs, seeds, moments_s, st.floats(0.5, 2.0))
def test_a_drive_keeps_to_its_way_and_to_the_bounds_of_its_streets(
    parts: list[tuple[float, float]], seed: int, s: float, factor: float
) -> None:
    planned = route(*parts)
    driven = Traffic(PARAMS, seed, MIDDLE).driven(planned, s, factor)
    assert driven.length_m == pytest.approx(planned.length_m)
    np.testing.assert_allclose(driven.places[[0, -1]], planned.places[[0, -1]], rtol=0, atol=1e-12)
    assert np.diff(driven.cumulative_m).max() <= LONGEST_STEP_M + 1e-6
    most = np.exp(PARAMS.place_sigma * PARAMS.most_sigmas)
    assert factor / most <= driven.duration_s / planned.duration_s <= factor * most


@given(legs)
def test_where_nothing_differs_a_drive_takes_what_routing_says(parts: list[tuple[float, float]]) -> None:
    planned = route(*parts)
    assert Traffic(STEADY, 1, MIDDLE).driven(planned, NIGHT_S, 1.0).duration_s == pytest.approx(planned.duration_s)


def test_to_stay_where_one_is_takes_no_time() -> None:
    place = at((0.0, 0.0), (0.0, 0.0))
    assert Traffic(PARAMS, 1, MIDDLE).driven(Route(place, np.zeros(2), np.zeros(2)), NIGHT_S, 1.0).duration_s == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("usual", 0.0), ("place_scale_m", -1.0), ("drift_s", float("nan")), ("place_sigma", 1.1), ("drive_sigma", -0.1)],
)
def test_unfit_figures_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PARAMS, **{field: value})
