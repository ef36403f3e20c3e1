"""Ways read off the tables: whole, fastest, and the same as one by one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from routing.grid import GridParams, grid_graph
from routing.hierarchy import HierarchyRouter, build_hierarchy
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables
from routing.ways import fastest_ways
from tests.routing.streets import graphs

if TYPE_CHECKING:
    from routing.graph import RoadGraph


@settings(deadline=None)
@given(graphs())
def test_a_way_leads_from_start_to_end_in_the_time_of_the_tables(graph: RoadGraph) -> None:
    tables = build_tables(graph)
    starts, ends = (each.ravel() for each in np.meshgrid(np.arange(graph.n_nodes), np.arange(graph.n_nodes)))

    first, edges = fastest_ways(graph, tables, starts, ends)

    tail = graph.tail()
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        way = edges[first[row] : first[row + 1]]
        if start == end or not np.isfinite(tables.times_s[end, start]):
            assert not len(way)
            continue
        assert [start, *graph.head[way].tolist()] == [*tail[way].tolist(), end]
        assert graph.time_s[way].sum() == pytest.approx(float(tables.times_s[end, start]), abs=1e-3)
        assert graph.length_m[way].sum() == pytest.approx(float(tables.distances_m[end, start]), abs=0.1)


def test_all_at_once_and_one_by_one_are_the_same() -> None:
    graph = grid_graph(GridParams(40.5, -74.0, rows=8, columns=9, jitter=0.2, seed=5))
    router = RoadRouter(graph, build_tables(graph), RoadParams())
    rng = np.random.default_rng(1)
    starts, ends = rng.integers(0, graph.n_nodes, (2, 60))

    together, alone = router.ways(starts, ends), super(RoadRouter, router).ways(starts, ends)

    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_hierarchy_tells_ways_too() -> None:
    graph = grid_graph(GridParams(40.5, -74.0, rows=6, columns=6, jitter=0.2, seed=5))
    router = HierarchyRouter(graph, build_hierarchy(graph), RoadParams())
    starts, ends = np.array([0, 7, 7]), np.array([35, 7, 20])

    first, edges = router.ways(starts, ends)

    tables = build_tables(graph)
    times_s = [graph.time_s[edges[a:b]].sum() for a, b in itertools.pairwise(first)]
    np.testing.assert_allclose(times_s, tables.times_s[ends, starts], atol=1e-3)


def test_no_pairs_have_no_ways() -> None:
    graph = grid_graph(GridParams(40.5, -74.0, rows=3, columns=3))
    none = np.zeros(0, dtype=np.int64)
    first, edges = fastest_ways(graph, build_tables(graph), none, none)
    assert first.tolist() == [0]
    assert not len(edges)
