"""The router on roads: its table against an independent search, its answers against each other, its edges."""

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
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables
from tests.routing.streets import graphs, searched, slowness_of

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph

GRID = GridParams(40.5, -74.0, rows=9, columns=11, jitter=0.25, seed=3)
EVEN = replace(GRID, jitter=0.0)
PARAMS = RoadParams(time_factor=2.2, snap_limit_m=300.0, approach_speed_mps=4.0, terminal_s=15.0)
WITHIN = (40.499, 40.509), (-74.001, -73.987)


@cache
def grid_router() -> RoadRouter:
    graph = grid_graph(GRID)
    return RoadRouter(graph, build_tables(graph), PARAMS)


points = st.tuples(st.floats(*WITHIN[0]), st.floats(*WITHIN[1]))
columns = st.lists(points, min_size=1, max_size=8).map(np.array)


@settings(deadline=None)
@given(graphs())
def test_the_tables_are_what_an_independent_search_finds(graph: RoadGraph) -> None:
    tables = build_tables(graph)

    for start in range(graph.n_nodes):
        found = np.array(searched(graph, start))
        np.testing.assert_allclose(tables.times_s[:, start], found[:, 0], rtol=1e-6)
        np.testing.assert_allclose(tables.distances_m[:, start], found[:, 1], rtol=1e-6)


def test_the_tables_of_a_jittered_grid_are_what_an_independent_search_finds() -> None:
    graph = grid_graph(GRID)
    tables = build_tables(graph)

    for start in (0, 17, 50, graph.n_nodes - 1):
        found = np.array(searched(graph, start))
        np.testing.assert_allclose(tables.times_s[:, start], found[:, 0], rtol=1e-6)
        np.testing.assert_allclose(tables.distances_m[:, start], found[:, 1], rtol=1e-6)


@settings(deadline=None)
@given(graphs())
def test_between_junctions_no_way_round_is_faster(graph: RoadGraph) -> None:
    to = build_tables(graph).times_s.astype(np.float64)

    by_way_of = to[:, :, None] + to[None, :, :]
    assert (to[:, None, :] <= by_way_of + 1e-3).all()


@settings(deadline=None)
@given(columns, columns, st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(origins: Floats, destinations: Floats, seed: int) -> None:
    router = grid_router()
    rng = np.random.default_rng(seed)
    rows, cols = rng.permutation(len(origins)), rng.permutation(len(destinations))

    times = router.times_s(origins, destinations, 0)
    np.testing.assert_array_equal(router.times_s(origins[rows], destinations[cols], 0), times[rows][:, cols])


@settings(deadline=None)
@given(columns, columns)
def test_pairs_answer_as_the_matrix_does(origins: Floats, destinations: Floats) -> None:
    router, n = grid_router(), min(len(origins), len(destinations))
    froms, tos = origins[:n], destinations[:n]

    for matrix, pairs in (
        (router.times_s(froms, tos, 0), router.pair_times_s(froms, tos, 0)),
        (router.distances_m(froms, tos), router.pair_distances_m(froms, tos)),
    ):
        assert matrix.dtype == pairs.dtype == np.float32
        assert (pairs >= 0).all()
        np.testing.assert_allclose(np.diagonal(matrix), pairs, rtol=1e-5)


@settings(deadline=None)
@given(points, points)
def test_a_route_is_as_long_as_its_time_and_distance(origin: tuple[float, float], destination: tuple[float, float]) -> None:
    router = grid_router()
    route = router.route(geo.Place(*origin), geo.Place(*destination), 0)
    ends = np.array([origin]), np.array([destination])

    assert route.places[0].tolist() == list(origin)
    assert route.duration_s == pytest.approx(float(router.times_s(*ends, 0)[0, 0]), rel=1e-3, abs=1e-6)
    assert route.length_m == pytest.approx(float(router.distances_m(*ends)[0, 0]), rel=1e-3, abs=1e-6)
    assert geo.distance_m(geo.Place(*route.places[-1]), geo.Place(*destination)) < 1e-3
    steps_m = geo.distances_m(route.places[:-1, 0], route.places[:-1, 1], route.places[1:, 0], route.places[1:, 1])
    np.testing.assert_allclose(np.diff(route.cumulative_m), steps_m, atol=2e-3)


@settings(deadline=None)
@given(graphs())
def test_a_route_among_ties_keeps_to_the_tables(graph: RoadGraph) -> None:
    tables = build_tables(graph)
    router = RoadRouter(graph, tables, RoadParams(snap_limit_m=5000.0))

    for start in range(graph.n_nodes):
        end = (start + 1) % graph.n_nodes
        origin, destination = (geo.Place(graph.lat[node], graph.lng[node]) for node in (start, end))
        if math.isfinite(tables.times_s[end, start]):
            route = router.route(origin, destination, 0)
            assert route.duration_s == pytest.approx(float(tables.times_s[end, start]), rel=1e-3)
            assert route.length_m == pytest.approx(float(tables.distances_m[end, start]), rel=1e-3)
        else:
            with pytest.raises(DomainError) as caught:
                router.route(origin, destination, 0)
            assert caught.value.reason is Reason.NO_ROUTE


def test_a_ride_within_one_block_is_short() -> None:
    router, nodes = grid_router(), grid_graph(GRID).places()
    tail, head = nodes[[12]], nodes[[13]]
    before, after = tail * 0.51 + head * 0.49, tail * 0.49 + head * 0.51

    for origin, destination in ((before, after), (after, before)):
        assert 0 < router.distances_m(origin, destination)[0, 0] < 5
        assert 0 < router.times_s(origin, destination, 0)[0, 0] - PARAMS.terminal_s < 2


def test_the_way_to_the_network_counts_at_approach_speed() -> None:
    graph = grid_graph(EVEN)
    router = RoadRouter(graph, build_tables(graph), PARAMS)
    corner = np.array([[graph.lat[0], graph.lng[0]]])
    outside, far = corner - (0.002, 0.0), graph.places()[-1:]

    gap_m = geo.distances_m(corner[0, 0], corner[0, 1], outside[0, 0], outside[0, 1])
    assert router.times_s(outside, far, 0)[0, 0] == pytest.approx(float(router.times_s(corner, far, 0)[0, 0] + gap_m / 4.0))
    assert router.distances_m(outside, far)[0, 0] == pytest.approx(float(router.distances_m(corner, far)[0, 0] + gap_m))


def test_a_place_off_the_network_is_infinitely_far_in_both_directions() -> None:
    router = grid_router()
    sea, shore = np.array([[40.48, -74.0]]), np.array([[40.502, -73.995]])

    assert router.covers(np.concatenate((sea, shore))).tolist() == [False, True]
    for ends in ((sea, shore), (shore, sea), (sea, sea)):
        for answer in (
            router.times_s(*ends, 0),
            router.distances_m(*ends),
            router.pair_times_s(*ends, 0),
            router.pair_distances_m(*ends),
        ):
            assert np.isinf(answer).all()
        with pytest.raises(DomainError) as caught:
            router.route(geo.Place(*ends[0][0]), geo.Place(*ends[1][0]), 0)
        assert caught.value.reason is Reason.NO_ROUTE


@pytest.mark.parametrize("limit_m", [10.0, 200.0, 1000.0])
def test_the_snap_limit_is_where_a_place_is_lost(limit_m: float) -> None:
    graph = grid_graph(EVEN)
    router = RoadRouter(graph, build_tables(graph), replace(PARAMS, snap_limit_m=limit_m))
    south_m = np.array([limit_m - 1, limit_m + 1])
    places = np.column_stack((graph.lat[0] - np.degrees(south_m / geo.EARTH_RADIUS_M), np.full(2, graph.lng[0])))

    assert router.covers(places).tolist() == [True, False]


@settings(deadline=None)
@given(graphs(), st.integers(0, 1000), st.data())
def test_slower_traffic_makes_no_way_faster(graph: RoadGraph, seed: int, data: st.DataObject) -> None:
    slowness = slowness_of(graph, seed)
    slower = slowness.copy()
    slower[data.draw(st.lists(st.integers(0, graph.n_edges - 1)))] *= data.draw(st.floats(1.0, 4.0))

    before, after = (build_tables(graph.slowed(each)).times_s for each in (slowness, slower))
    assert (after >= before).all()


def test_the_version_names_roads_and_parameters() -> None:
    router, graph = grid_router(), grid_graph(GRID)
    tables = build_tables(graph)

    assert RoadRouter(graph, tables, PARAMS).version == router.version
    assert RoadRouter(graph, tables, replace(PARAMS, time_factor=2.0)).version != router.version
    assert RoadRouter(replace(graph, time_s=graph.time_s * 2), tables, PARAMS).version != router.version


def test_tables_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="tables"):
        RoadRouter(grid_graph(GRID), build_tables(grid_graph(replace(GRID, rows=3))), PARAMS)


@pytest.mark.parametrize("field", ["time_factor", "snap_limit_m", "approach_speed_mps"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_unfit_parameters_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PARAMS, **{field: value})
