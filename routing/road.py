"""Travel times on a road network small enough for an all-pairs table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import numpy as np

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S
from routing.graph import MM_PER_M
from routing.joining import JoinedRouter, RoadParams
from routing.snapping import Snapped, straight_pairs
from routing.soonest import Soonest, soonest_by_table, whole_ms, with_straight
from routing.tables import load_tables
from routing.ways import fastest_ways

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from hexhail.kernel.units import Floats, Ints
    from routing.graph import RoadGraph
    from routing.model import Floats32
    from routing.tables import Tables

BLOCK = 64

__all__ = ["RoadParams", "RoadRouter", "Snapped"]


class RoadRouter(JoinedRouter):
    """A `Router` on a road graph and its tables.

    Raises ValueError where the tables are another graph's size.
    """

    def __init__(
        self,
        graph: RoadGraph,
        tables: Tables,
        params: RoadParams,
        tables_dir: Path | None = None,
        sibling: RoadRouter | None = None,
    ) -> None:
        """`tables_dir` is where the tables of other states of the traffic are kept; None: they are computed anew."""
        if len(tables.times_s) != graph.n_nodes:
            raise ValueError(f"the tables are for {len(tables.times_s)} nodes, the graph has {graph.n_nodes}")
        super().__init__("road", graph, params, sibling)
        self.tables_dir = tables_dir
        self._tables = tables
        self._ways = _ways_out(graph)

    def with_slowness(self, slowness: npt.NDArray[np.floating], params: RoadParams | None = None) -> Self:
        """The router of another state of the traffic. Seconds of work, unless its tables are in the folder already."""
        slowed = self.free_flow.slowed(slowness)
        return type(self)(slowed, load_tables(slowed, self.tables_dir), params or self.params, self.tables_dir, self)

    def ways(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """The edges of the fastest way of each pair of junctions, all pairs at once."""
        return fastest_ways(self.graph, self._tables, starts, ends)

    def soonest(self, origins: Floats, destinations: Floats, count: int, limit_s: float) -> Soonest:
        """From which origins is each destination reached soonest? From the tables, without looking at all pairs."""
        starts, ends = self._snap_ends(origins, destinations)
        speed_mps, terminal_s = self.params.approach_speed_mps, self.params.terminal_s
        start_s, end_s = starts.gap_m / speed_mps, ends.gap_m / speed_mps + terminal_s
        found = soonest_by_table(self._tables.times_s, starts, ends, start_s, end_s, self.params.time_factor, count, limit_s)
        rows, columns, straight = straight_pairs(starts, ends)
        time_s = self._straight_s(straight)
        near = time_s <= limit_s
        return with_straight(found, Soonest(rows[near], columns[near], whole_ms(time_s[near])), count)

    def _road_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        return _gather(self._tables.times_s, starts, ends)

    def _road_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        return _gather(self._tables.distances_m, starts, ends)

    def _paired_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        return self._tables.times_s[ends, starts]

    def _paired_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        return self._tables.distances_m[ends, starts]

    def _way(self, start: int, end: int) -> list[int]:
        """At each node, the edge to the neighbour that the table names. Whole milliseconds: the time left falls by one at
        least, so the way ends.
        """
        left_s, left_m = self._tables.times_s[end], self._tables.distances_m[end]
        if not math.isfinite(left_s.item(start)):
            raise DomainError(Reason.NO_ROUTE)
        edges: list[int] = []
        node = start
        while node != end:
            _, _, node, edge = min(
                (round((time_s + left_s.item(v)) * MS_PER_S), round((length_m + left_m.item(v)) * MM_PER_M), v, edge)
                for edge, v, time_s, length_m in self._ways[node]
                if math.isfinite(left_s.item(v))
            )
            edges.append(edge)
        return edges


def _ways_out(graph: RoadGraph) -> list[list[tuple[int, int, float, float]]]:
    """By node, the edges that leave it: number, head, seconds, metres."""
    columns = (range(graph.n_edges), graph.head.tolist(), graph.time_s.tolist(), graph.length_m.tolist())
    edges = list(zip(*columns, strict=True))
    first = graph.first_edge.tolist()
    return [edges[first[node] : first[node + 1]] for node in range(graph.n_nodes)]


def _gather(table: Floats32, starts: Ints, ends: Ints) -> Floats32:
    """float32[n_ends, n_starts]: some rows at a time, which stay in the cache; 5 times as fast as a fancy index."""
    gathered = np.empty((len(ends), len(starts)), dtype=np.float32)
    for begin in range(0, len(ends), BLOCK):
        rows = slice(begin, begin + BLOCK)
        np.take(table[ends[rows]], starts, axis=1, out=gathered[rows], mode="clip")
    return gathered
