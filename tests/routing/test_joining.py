"""What holds for every router on roads, by tables and by a hierarchy alike."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from routing.bends import Bends, places_e7
from routing.graph import graph_of_edges
from routing.grid import GridParams, grid_graph
from routing.hierarchy import HierarchyRouter, build_hierarchy
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables
from tests.routing.streets import graphs, slowness_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph
    from routing.joining import JoinedRouter
    from routing.model import Floats32

PARAMS = RoadParams(time_factor=1.7, snap_limit_m=300.0, approach_speed_mps=4.0, terminal_s=30.0)
ON_JUNCTIONS = RoadParams(snap_limit_m=5_000.0)
KINDS = ("tables", "hierarchy")
SHORE = 40.5, -74.0

points = st.tuples(st.floats(40.497, 40.511), st.floats(-74.003, -73.985))
columns = st.lists(points, min_size=1, max_size=8).map(np.array)
each_kind = pytest.mark.parametrize("kind", KINDS)


def router_on(graph: RoadGraph, kind: str, params: RoadParams) -> JoinedRouter:
    """The same streets by another method."""
    if kind == "tables":
        return RoadRouter(graph, build_tables(graph), params)
    return HierarchyRouter(graph, build_hierarchy(graph), params)


@cache
def town(kind: str) -> JoinedRouter:
    return router_on(grid_graph(GridParams(*SHORE, rows=9, columns=11, jitter=0.25, seed=3)), kind, PARAMS)


def answers(router: JoinedRouter, origins: Floats, destinations: Floats) -> list[Floats32]:
    return [
        router.times_s(origins, destinations, 0),
        router.distances_m(origins, destinations),
        router.pair_times_s(origins, destinations, 0),
        router.pair_distances_m(origins, destinations),
    ]


@settings(deadline=None)
@given(graphs(twins=True), st.integers(0, 1000))
def test_between_junctions_a_hierarchy_takes_as_long_as_the_tables_say(graph: RoadGraph, seed: int) -> None:
    slowed, places = graph.slowed(slowness_of(graph, seed)), graph.places()

    by_tables, by_hierarchy = (router_on(slowed, kind, ON_JUNCTIONS).times_s(places, places, 0) for kind in KINDS)
    np.testing.assert_array_equal(by_hierarchy, by_tables)


@settings(deadline=None)
@given(columns, columns)
def test_both_kinds_answer_alike(origins: Floats, destinations: Floats) -> None:
    for by_tables, by_hierarchy in zip(*(answers(town(kind), origins[:1], destinations[:1]) for kind in KINDS), strict=True):
        np.testing.assert_allclose(by_hierarchy, by_tables, rtol=1e-5)
    by_tables, by_hierarchy = (town(kind).times_s(origins, destinations, 0) for kind in KINDS)
    np.testing.assert_array_equal(by_hierarchy, by_tables)


@settings(deadline=None)
@given(graphs(), st.integers(0, 1000))
def test_a_hierarchy_s_distances_and_routes_are_of_a_way_that_is_there_and_as_fast(graph: RoadGraph, seed: int) -> None:
    slowed, places = graph.slowed(slowness_of(graph, seed)), graph.places()
    router = router_on(slowed, "hierarchy", ON_JUNCTIONS)
    times_s, distances_m = router.times_s(places, places, 0), router.distances_m(places, places)

    assert (distances_m >= router_on(slowed, "tables", ON_JUNCTIONS).distances_m(places, places) - 1e-2).all()
    for start, end in np.argwhere(np.isfinite(times_s)).tolist():
        route = router.route(geo.Place(*places[start]), geo.Place(*places[end]), 0)
        assert route.duration_s == pytest.approx(float(times_s[start, end]), rel=1e-5)
        assert route.length_m == pytest.approx(float(distances_m[start, end]), rel=1e-5)
        assert route.places[[0, -1]].tolist() == places[[start, end]].tolist()


@each_kind
@settings(deadline=None, max_examples=20)
@given(graphs())
def test_where_no_way_leads_every_answer_says_so(kind: str, graph: RoadGraph) -> None:
    router, places = router_on(graph, kind, ON_JUNCTIONS), graph.places()
    times_s = router.times_s(places, places, 0)

    np.testing.assert_array_equal(np.isfinite(router.distances_m(places, places)), np.isfinite(times_s))
    for start, end in np.argwhere(np.isinf(times_s)).tolist():
        ends = places[[start]], places[[end]]
        assert [float(answer.item()) for answer in answers(router, *ends)] == [math.inf] * 4
        with pytest.raises(DomainError) as caught:
            router.route(geo.Place(*ends[0][0]), geo.Place(*ends[1][0]), 0)
        assert caught.value.reason is Reason.NO_ROUTE


@each_kind
@settings(deadline=None)
@given(columns, columns)
def test_a_place_meets_the_network_alike_as_origin_and_as_destination(kind: str, origins: Floats, others: Floats) -> None:
    router = town(kind)
    alone, together = router.snap(origins), router.snap(np.concatenate((others, origins)))

    np.testing.assert_array_equal(together.nodes[len(others) :], alone.nodes)
    np.testing.assert_array_equal(together.gap_m[len(others) :], alone.gap_m)
    reached = np.isfinite(router.times_s(origins, others, 0))
    np.testing.assert_array_equal(reached, router.covers(origins)[:, None] & router.covers(others))
    np.testing.assert_array_equal(np.isfinite(router.times_s(others, origins, 0)), reached.T)


@each_kind
@settings(deadline=None, max_examples=40)
@given(columns, columns, st.integers(0, 1000), st.floats(1.0, 3.0))
def test_slower_traffic_makes_no_trip_faster(kind: str, origins: Floats, destinations: Floats, seed: int, factor: float) -> None:
    slowness = slowness_of(town(kind).free_flow, seed)
    slower = np.where(np.random.default_rng(seed).random(len(slowness)) < 0.3, slowness * factor, slowness)

    before, after = (town(kind).with_slowness(each).times_s(origins, destinations, 0) for each in (slowness, slower))
    assert (after >= before).all()


@each_kind
def test_another_state_of_the_traffic_is_another_router_of_the_same_streets(kind: str) -> None:
    router = town(kind)
    doubled = router.with_slowness(np.full(router.graph.n_edges, 2.0))
    back = doubled.with_slowness(np.ones(router.graph.n_edges))
    from_scratch = router_on(router.graph.slowed(np.full(router.graph.n_edges, 2.0)), kind, PARAMS)
    places = router.graph.places()[::7]

    assert doubled.version == from_scratch.version != router.version == back.version
    assert doubled.free_flow is router.graph
    np.testing.assert_array_equal(doubled.times_s(places, places, 0), from_scratch.times_s(places, places, 0))
    np.testing.assert_array_equal(back.times_s(places, places, 0), router.times_s(places, places, 0))
    one_way = doubled.route(geo.Place(*places[0]), geo.Place(*places[5]), 0)
    assert one_way.duration_s == pytest.approx(float(doubled.times_s(places[:1], places[5:6], 0)[0, 0]), rel=1e-4)


@each_kind
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_unfit_traffic_is_refused(kind: str, bad: float) -> None:
    n_edges = town(kind).graph.n_edges

    for slowness in (np.full(n_edges, bad), np.ones(n_edges - 1)):
        with pytest.raises(ValueError, match="slowness"):
            town(kind).with_slowness(slowness)


@each_kind
@settings(deadline=None)
@given(columns)
def test_the_same_place_is_nothing_away(kind: str, places: Floats) -> None:
    router = town(kind)
    covered = places[router.covers(places)]

    for answer in answers(router, covered, covered):
        assert not np.diagonal(answer).any() if answer.ndim == 2 else not answer.any()
    for place in covered:
        route = router.route(geo.Place(*place), geo.Place(*place), 0)
        assert (route.duration_s, route.length_m, len(route.places)) == (0.0, 0.0, 2)


@each_kind
def test_empty_columns_give_empty_answers(kind: str) -> None:
    none, two = np.empty((0, 2)), np.array([SHORE, SHORE])

    assert [answer.shape for answer in answers(town(kind), none, none)] == [(0, 0), (0, 0), (0,), (0,)]
    for ask in (lambda a, b: town(kind).times_s(a, b, 0), town(kind).distances_m):
        assert ask(none, two).shape == (0, 2)
        assert ask(two, none).shape == (2, 0)


@each_kind
@pytest.mark.parametrize("bad", [[math.nan, -74.0], [40.5, math.inf], [95.0, -74.0]])
def test_coordinates_that_are_none_are_refused(kind: str, bad: list[float]) -> None:
    router, one, wrong = town(kind), np.array([SHORE]), np.array([bad])
    asks: tuple[Callable[[], object], ...] = (
        lambda: router.times_s(one, wrong, 0),
        lambda: router.distances_m(wrong, one),
        lambda: router.pair_times_s(one, wrong, 0),
        lambda: router.pair_distances_m(wrong, one),
        lambda: router.covers(wrong),
        lambda: router.route(geo.Place(*SHORE), geo.Place(*bad), 0),
    )

    for ask in asks:
        with pytest.raises(ValueError, match="coordinates"):
            ask()


@each_kind
def test_no_trip_is_faster_than_the_router_says_is_possible(kind: str) -> None:
    router = town(kind)
    places = router.graph.places()
    apart_m = geo.distances_m(places[:, None, 0], places[:, None, 1], places[:, 0], places[:, 1])

    assert (router.times_s(places, places, 0) >= apart_m / router.top_speed_mps).all()


@each_kind
def test_a_line_of_streets_is_as_long_as_its_parts(kind: str) -> None:
    """Three junctions in a row, there and back, by hand."""
    tail, head = np.array([0, 1, 1, 2], "i4"), np.array([1, 0, 2, 1], "i4")
    graph = graph_of_edges(
        np.full(3, 40.0),
        np.array([-74.0, -73.99, -73.98]),
        tail=tail,
        head=head,
        length_m=np.array([900.0, 950.0, 870.0, 880.0]),
        time_s=np.array([60.0, 61.5, 70.25, 75.0]),
    )
    router, places = router_on(graph, kind, RoadParams()), graph.places()

    assert router.times_s(places, places, 0).tolist() == [[0, 60, 130.25], [61.5, 0, 70.25], [136.5, 75, 0]]
    assert router.distances_m(places, places).tolist() == [[0, 900, 1770], [950, 0, 870], [1830, 880, 0]]
    assert router.route(geo.Place(*places[2]), geo.Place(*places[0]), 0).cumulative_s.tolist() == [0, 75, 136.5]


@each_kind
@settings(deadline=None, max_examples=15)
@given(graphs(), st.lists(st.integers(0, 3), min_size=40, max_size=40), st.integers(0, 1000))
def test_a_route_follows_the_bends_of_its_streets_and_takes_as_long(
    kind: str, graph: RoadGraph, bends_of: list[int], seed: int
) -> None:
    counts = np.array(bends_of[: graph.n_edges])
    points_e7 = places_e7(np.random.default_rng(seed).uniform((40.0, -74.0), (40.02, -73.98), (counts.sum(), 2)))
    first = np.concatenate(([0], np.cumsum(counts)))
    bent = replace(graph, bends=Bends(first, points_e7[:, 0], points_e7[:, 1]))
    straight_on, along, places = router_on(graph, kind, ON_JUNCTIONS), router_on(bent, kind, ON_JUNCTIONS), graph.places()

    assert along.version == straight_on.version
    for start, end in np.argwhere(np.isfinite(along.times_s(places, places, 0))).tolist():
        ends = geo.Place(*places[start]), geo.Place(*places[end])
        plain, route = straight_on.route(*ends, 0), along.route(*ends, 0)
        assert (route.duration_s, route.length_m) == pytest.approx((plain.duration_s, plain.length_m))
        edges = along.ways(np.array([start]), np.array([end]))[1]
        if start != end:
            passed = [bent.course(edge)[1:] for edge in edges.tolist()]
            np.testing.assert_allclose(route.places, np.concatenate((places[[start]], *passed)), atol=1e-9)


@each_kind
def test_time_passes_along_bends_as_the_way_does(kind: str) -> None:
    graph = replace(
        graph_of_edges(
            np.array([40.0, 40.0]),
            np.array([-74.0, -73.99]),
            tail=np.array([0, 1], "i4"),
            head=np.array([1, 0], "i4"),
            length_m=np.array([1000.0, 1000.0]),
            time_s=np.array([100.0, 200.0]),
        ),
        bends=Bends(np.array([0, 2, 2]), places_e7(np.full(2, 40.0)), places_e7(np.array([-73.9975, -73.9925]))),
    )
    there = router_on(graph, kind, RoadParams()).route(geo.Place(40.0, -74.0), geo.Place(40.0, -73.99), 0)

    np.testing.assert_allclose(there.cumulative_s, [0, 25, 75, 100], atol=1e-3)
    np.testing.assert_allclose(there.cumulative_m, [0, 250, 750, 1000], atol=1e-2)
