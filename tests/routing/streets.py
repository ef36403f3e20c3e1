"""Small streets of every kind, and an independent search on them."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from routing.graph import RoadGraph, graph_of_edges

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats


@st.composite
def graphs(draw: st.DrawFn, *, twins: bool = False) -> RoadGraph:
    """Any small graph, hanging together or not, with edges as fast as others; with twins of edges where wanted."""
    n = draw(st.integers(2, 12))
    end = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(end, end), min_size=1, max_size=40, unique=not twins))
    edges = [(a, b) for a, b in pairs if a != b] or [(0, 1)]
    costs = draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=len(edges), max_size=len(edges)).map(np.array)
    )
    ends = np.array(edges, dtype=np.int32)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return graph_of_edges(
        40 + rng.random(n) / 50,
        -74 + rng.random(n) / 50,
        tail=ends[:, 0],
        head=ends[:, 1],
        length_m=costs[:, 0],
        time_s=costs[:, 1],
    )


def searched(graph: RoadGraph, start: int) -> list[tuple[float, float]]:
    """Fastest seconds to each node, and the fewest metres among ways as fast: Dijkstra with a heap."""
    best = [(math.inf, math.inf)] * graph.n_nodes
    heap = [(0.0, 0.0, start)]
    while heap:
        seconds, metres, node = heapq.heappop(heap)
        if (seconds, metres) >= best[node]:
            continue
        best[node] = (seconds, metres)
        for edge in range(graph.first_edge[node], graph.first_edge[node + 1]):
            heapq.heappush(heap, (seconds + graph.time_s[edge], metres + graph.length_m[edge], int(graph.head[edge])))
    return best


def slowness_of(graph: RoadGraph, seed: int, most: float = 3.0) -> Floats:
    """A state of the traffic: float64[n_edges], 0.5 to `most`."""
    return np.random.default_rng(seed).uniform(0.5, most, graph.n_edges)
