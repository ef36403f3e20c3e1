"""An engine's answers as a router: on engines of four junctions, by hand, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from routing.engine import EngineRouter
from routing.engine_params import OsrmParams, ValhallaParams
from routing.engine_replies import EngineFault, Fault, Reply, Request
from routing.osrm import OsrmDialect
from routing.valhalla import ValhallaDialect
from tests.routing.engines import HALF_WAY, JUNCTIONS, LENGTHS_M, TIMES_S, FakeOsrm, FakeValhalla

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Floats
    from routing.model import Router

URL = "http://127.0.0.1:1"
AT = np.array(JUNCTIONS)
NOON_MS = 1_357_059_600_000
FAR = np.array([[40.60, -74.00]])
"""Eleven kilometres from the nearest junction."""

Engine = FakeOsrm | FakeValhalla
KINDS = pytest.mark.parametrize("kind", [FakeOsrm, FakeValhalla])


def router_of(engine: Engine, **params: Any) -> EngineRouter:
    def send(requests: Sequence[Request]) -> list[Reply]:
        return [engine.reply(request) for request in requests]

    if isinstance(engine, FakeOsrm):
        osrm = OsrmParams(URL, **params)
        return EngineRouter(OsrmDialect(osrm), send, osrm)
    valhalla = ValhallaParams(URL, **params)
    return EngineRouter(ValhallaDialect(valhalla, "America/New_York"), send, valhalla)


def matrix(table: tuple[tuple[float | None, ...], ...]) -> Floats:
    return np.array([[np.inf if cell is None else cell for cell in row] for row in table])


def north(place: Floats, metres: float) -> Floats:
    moved: Floats = place + np.array([metres / 111_195.08, 0.0])
    return moved


@KINDS
def test_between_junctions_it_is_as_far_as_the_engine_says(kind: type[Engine]) -> None:
    router: Router = router_of(kind())

    times_s = router.times_s(AT, AT, NOON_MS)
    assert times_s.dtype == np.float32
    np.testing.assert_allclose(times_s, matrix(TIMES_S), rtol=1e-6)
    np.testing.assert_allclose(router.distances_m(AT, AT), matrix(LENGTHS_M), rtol=1e-6)
    assert router.covers(AT).all()


@KINDS
def test_the_legs_to_and_from_the_network_are_walked(kind: type[Engine]) -> None:
    """100 m at 5 m/s to junction 0, 130 s on the road, 50 m from junction 1."""
    router = router_of(kind())
    origins, destinations = north(AT[:1], -100), north(AT[1:2], 50)

    assert router.times_s(origins, destinations, NOON_MS)[0, 0] == pytest.approx(20 + 130 + 10, rel=1e-4)
    assert router.distances_m(origins, destinations)[0, 0] == pytest.approx(100 + 1112 + 50, rel=1e-4)


@KINDS
def test_what_the_city_adds_is_added(kind: type[Engine]) -> None:
    router = router_of(kind(), time_factor=2.0, terminal_s=30.0, approach_speed_mps=2.0)
    origins, destinations = north(AT[:1], -100), AT[1:2]

    assert router.times_s(origins, destinations, NOON_MS)[0, 0] == pytest.approx(50 + 2 * 130 + 30, rel=1e-4)


@KINDS
def test_a_place_beyond_the_limit_is_off_the_network_and_never_moved(kind: type[Engine]) -> None:
    router = router_of(kind(), snap_limit_m=150.0)
    places = np.concatenate((north(AT[:1], 149), north(AT[:1], 151), FAR))

    np.testing.assert_array_equal(router.covers(places), [True, False, False])
    np.testing.assert_array_equal(np.isfinite(router.times_s(places, AT[1:2], NOON_MS)[:, 0]), [True, False, False])
    np.testing.assert_array_equal(np.isfinite(router.distances_m(AT[1:2], places)[0]), [True, False, False])
    for place in places[1:]:
        with pytest.raises(DomainError) as caught:
            router.route(Place(*AT[1]), Place(*place), NOON_MS)
        assert caught.value.reason is Reason.NO_ROUTE


@KINDS
def test_an_island_cannot_be_reached_and_hides_nobody_else(kind: type[Engine]) -> None:
    router = router_of(kind())

    with pytest.raises(DomainError) as caught:
        router.route(Place(*AT[0]), Place(*AT[3]), NOON_MS)
    assert caught.value.reason is Reason.NO_ROUTE
    assert np.isinf(router.times_s(AT[:2], AT[3:], NOON_MS)).all()
    assert router.times_s(AT[3:], AT[3:], NOON_MS)[0, 0] == 0


@KINDS
def test_the_same_place_is_nothing_away_and_near_places_are_walked(kind: type[Engine]) -> None:
    router = router_of(kind(), terminal_s=30.0)
    place = north(AT[:1], 120)
    beside = place + np.array([[0.0, 0.0005]])
    apart_m = geo.distance_m(Place(*place[0]), Place(*beside[0]))

    assert router.times_s(place, place, NOON_MS)[0, 0] == 0
    assert router.times_s(place, beside, NOON_MS)[0, 0] == pytest.approx(apart_m / 5 + 30, rel=1e-5)
    assert router.distances_m(place, beside)[0, 0] == pytest.approx(apart_m, rel=1e-5)
    assert router.route(Place(*place[0]), Place(*beside[0]), NOON_MS).duration_s == pytest.approx(apart_m / 5 + 30)
    standing = router.route(Place(*place[0]), Place(*place[0]), NOON_MS)
    assert (standing.duration_s, standing.length_m, len(standing.places)) == (0, 0, 2)


@KINDS
@pytest.mark.parametrize(("i", "j"), [(0, 1), (0, 2), (2, 1)])
def test_a_route_takes_as_long_as_its_time_and_runs_from_place_to_place(kind: type[Engine], i: int, j: int) -> None:
    router = router_of(kind(), terminal_s=30.0)
    origin, destination = north(AT[i], -80), north(AT[j], 60)
    route = router.route(Place(*origin), Place(*destination), NOON_MS)

    assert route.duration_s == pytest.approx(router.times_s(origin[None], destination[None], NOON_MS)[0, 0], rel=1e-5)
    assert route.length_m == pytest.approx(router.distances_m(origin[None], destination[None])[0, 0], rel=1e-5)
    np.testing.assert_array_equal(route.places[[0, -1]], [origin, destination])
    np.testing.assert_allclose(route.places[[1, -2]], [AT[i], AT[j]], atol=1e-6)


def test_the_steps_of_a_route_are_the_annotations_scaled_to_the_legs_duration() -> None:
    route = router_of(FakeOsrm()).route(Place(*JUNCTIONS[0]), Place(*JUNCTIONS[2]), NOON_MS)

    np.testing.assert_allclose(route.cumulative_s, [0, HALF_WAY * 300.5, 300.5], rtol=1e-9)
    np.testing.assert_allclose(route.cumulative_m, [0, HALF_WAY * 2800, 2800], rtol=1e-9)


@KINDS
def test_pairs_are_the_diagonal_of_their_matrix(kind: type[Engine]) -> None:
    rng = np.random.default_rng(7)
    origins, destinations = AT[rng.integers(0, 4, 70)], north(AT[rng.integers(0, 4, 70)], 20)
    router = router_of(kind())

    np.testing.assert_array_equal(
        router.pair_times_s(origins, destinations, NOON_MS), np.diagonal(router.times_s(origins, destinations, NOON_MS))
    )
    np.testing.assert_array_equal(
        router.pair_distances_m(origins, destinations), np.diagonal(router.distances_m(origins, destinations))
    )
    with pytest.raises(ValueError, match="are not pairs"):
        router.pair_times_s(origins, destinations[1:], NOON_MS)


@KINDS
def test_empty_columns_and_bad_coordinates_are_no_business_of_the_engine(kind: type[Engine]) -> None:
    engine = kind()
    router = router_of(engine)
    none = np.empty((0, 2))

    assert router.times_s(none, AT, NOON_MS).shape == (0, 4)
    assert router.times_s(AT, none, NOON_MS).shape == router.distances_m(AT, none).shape == (4, 0)
    assert router.pair_times_s(none, none, NOON_MS).shape == router.covers(none).shape == (0,)
    for bad in (np.array([[np.nan, 0.0]]), np.array([[91.0, 0.0]]), np.array([[1.0, 2.0, 3.0]])):
        with pytest.raises(ValueError, match="origins"):
            router.times_s(bad, AT, NOON_MS)
    assert engine.asked == []


place = st.tuples(st.integers(0, 3), st.floats(-400, 400)).map(lambda each: north(AT[each[0]], each[1]))
places = st.lists(place, min_size=1, max_size=12).map(np.array)


@KINDS
@settings(max_examples=30)
@given(places, places, st.integers(1, 30))
def test_blocks_of_any_size_give_the_same_matrix_as_one_request(
    kind: type[Engine], origins: np.ndarray, destinations: np.ndarray, limit: int
) -> None:
    side = max(limit % 8, 2)
    small_router = (
        router_of(FakeOsrm(max_table_size=side), max_table_size=side)
        if kind is FakeOsrm
        else router_of(FakeValhalla(max_pairs=limit), max_matrix_location_pairs=limit)
    )
    whole = router_of(kind())

    np.testing.assert_array_equal(
        small_router.times_s(origins, destinations, NOON_MS), whole.times_s(origins, destinations, NOON_MS)
    )
    np.testing.assert_array_equal(small_router.distances_m(origins, destinations), whole.distances_m(origins, destinations))


@KINDS
@settings(max_examples=30)
@given(places, places, st.sampled_from([0.5, 1.0, 3.0]))
def test_nobody_is_faster_than_the_top_speed(
    kind: type[Engine], origins: np.ndarray, destinations: np.ndarray, time_factor: float
) -> None:
    router = router_of(kind(), time_factor=time_factor, top_speed_mps=9.0)
    straight_m = geo.distances_m(origins[:, :1], origins[:, 1:], destinations[:, 0], destinations[:, 1])

    assert (router.times_s(origins, destinations, NOON_MS) >= straight_m / router.top_speed_mps * (1 - 1e-6)).all()


@KINDS
def test_what_was_asked_in_a_question_is_not_asked_again(kind: type[Engine]) -> None:
    engine = kind()
    router = router_of(engine)
    router.pair_times_s(AT[:2], AT[1:3], NOON_MS)
    router.covers(AT[:1])
    asked = len(engine.asked)
    router.pair_distances_m(AT[:2], AT[1:3])
    router.covers(AT[:1])

    assert len(engine.asked) == asked


def test_the_version_names_the_engines_data_once_it_is_known() -> None:
    engine = FakeOsrm(data_version="2017-11-17T21:43:02Z")
    router = router_of(engine)
    before = router.version
    router.times_s(AT, AT, NOON_MS)

    assert router.version.startswith(f"{before}-")
    engine.data_version = "2018-01-01T00:00:00Z"
    other = router_of(engine)
    other.covers(AT)
    assert other.version not in {before, router.version}


def test_data_that_change_in_the_middle_of_a_question_are_a_fault() -> None:
    engine = FakeOsrm(data_version="old")
    router = router_of(engine)
    router.times_s(AT, AT, NOON_MS)
    engine.data_version = "new"

    with pytest.raises(EngineFault) as caught:
        router.times_s(AT[:1], AT, NOON_MS)
    assert caught.value.fault is Fault.CHANGED


def test_a_place_without_a_segment_takes_no_other_with_it() -> None:
    router = router_of(FakeOsrm(no_segment=frozenset({3})))
    expected = matrix(TIMES_S)
    expected[3, 3] = np.inf

    np.testing.assert_allclose(router.times_s(AT, AT, NOON_MS), expected, rtol=1e-6)
    np.testing.assert_array_equal(router.covers(AT), [True, True, True, False])
    np.testing.assert_array_equal(router.covers(AT[3:]), [False])
    with pytest.raises(DomainError):
        router.route(Place(*AT[0]), Place(*AT[3]), NOON_MS)


@pytest.mark.parametrize("verbose_only", [False, True])
def test_an_engine_that_refuses_islands_is_asked_for_less(verbose_only: bool) -> None:
    router = router_of(FakeValhalla(refuses_islands=True, verbose_only=verbose_only))

    np.testing.assert_allclose(router.times_s(AT, AT, NOON_MS), matrix(TIMES_S), rtol=1e-6)


@pytest.mark.parametrize("engine", [FakeOsrm(max_table_size=1), FakeValhalla(max_pairs=1)])
def test_a_limit_that_the_city_does_not_know_of_is_a_refusal(engine: Engine) -> None:
    with pytest.raises(EngineFault) as caught:
        router_of(engine).times_s(AT, AT, NOON_MS)

    assert caught.value.fault is Fault.REFUSED


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 20))
@settings(max_examples=30)
def test_with_a_departure_no_request_has_more_origins_than_destinations(n: int, m: int, limit: int) -> None:
    engine = FakeValhalla(max_pairs=limit, refuses_islands=True)
    router = router_of(engine, max_matrix_location_pairs=limit, departure=True)
    origins, destinations = np.resize(AT, (n, 2)), np.resize(AT[::-1], (m, 2))

    times_s = router.times_s(origins, destinations, NOON_MS)
    np.testing.assert_array_equal(times_s, router_of(FakeValhalla()).times_s(origins, destinations, NOON_MS))
    asked = [question for target, question in engine.asked if target == "/sources_to_targets"]
    assert {question["date_time"]["value"] for question in asked} == {"2013-01-01T12:00"}
    assert all(len(question["sources"]) <= len(question["targets"]) for question in asked)
