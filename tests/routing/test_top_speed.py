"""Nobody is nearer in time than the router's top speed allows: what a search by road time rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.kernel import geo
from routing.crow import CrowParams, CrowRouter
from routing.graph import RoadGraph, graph_of_edges
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables

if TYPE_CHECKING:
    from routing.model import Router

GRAPH = grid_graph(GridParams(40.5, -74.0, rows=9, columns=11, jitter=0.25, seed=3))
SLOWNESS = np.random.default_rng(7).uniform(0.3, 4.0, GRAPH.n_edges)


def on_roads(graph: RoadGraph, params: RoadParams) -> RoadRouter:
    return RoadRouter(graph, build_tables(graph), params)


ROUTERS: dict[str, Router] = {
    "crow": CrowRouter(CrowParams(1.3, tuple(10.0 + hour for hour in range(24)), "America/New_York")),
    "road": on_roads(GRAPH, RoadParams(time_factor=2.2, approach_speed_mps=4.0)),
    "road in traffic": on_roads(GRAPH.slowed(SLOWNESS), RoadParams()),
    "road with a quick approach": on_roads(GRAPH, RoadParams(time_factor=3.0, approach_speed_mps=30.0)),
}

points = st.tuples(st.floats(40.499, 40.509), st.floats(-74.001, -73.987))
columns = st.lists(points, min_size=1, max_size=8).map(np.array)


@pytest.mark.parametrize("name", list(ROUTERS))
@settings(deadline=None)
@given(origins=columns, destinations=columns, hour=st.integers(0, 23))
def test_no_pair_is_faster_than_the_top_speed(name: str, origins: np.ndarray, destinations: np.ndarray, hour: int) -> None:
    router = ROUTERS[name]
    straight_m = geo.distances_m(origins[:, :1], origins[:, 1:], destinations[:, 0], destinations[:, 1])
    times_s = router.times_s(origins, destinations, 1_357_000_000_000 + hour * 3_600_000).astype(np.float64)
    assert (straight_m <= times_s * router.top_speed_mps + 1e-6).all()


def test_a_graph_without_edges_brings_nobody_anywhere() -> None:
    none = np.array([], dtype=np.int32)
    alone = graph_of_edges(np.array([40.5]), np.array([-74.0]), tail=none, head=none, length_m=np.empty(0), time_s=np.empty(0))
    assert alone.top_speed_mps() == 0.0
