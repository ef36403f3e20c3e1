"""Travel times on a road network small enough for an all-pairs table."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S, Bools, Floats, Ints
from routing.graph import MM_PER_M, RoadGraph
from routing.model import Floats32, Route, check_pairs, check_places

if TYPE_CHECKING:
    from hexhail.kernel.geo import Place
    from routing.tables import Tables

BLOCK = 64
ROUNDING_SLACK = 1.000_1
"""How much faster than its edges a way may seem to be, in float32."""
PROJECTION_SLACK = 1.05
"""How much shorter than the great circle a projected distance may be, in a network of some 100 km."""


@dataclass(frozen=True, slots=True)
class RoadParams:
    """How the network is used. Raises ValueError naming the field.

    time_factor : how much longer than free flow a way takes (Manhattan's real rides: a median of 2.2)
    snap_limit_m : a place farther than this from every junction is off the network
    approach_speed_mps : how fast one covers the straight line between a place and its junction
    terminal_s : what every trip takes besides, for setting out and pulling up; half of it at either end
    """

    time_factor: float = 1.0
    snap_limit_m: float = 300.0
    approach_speed_mps: float = 5.0
    terminal_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time_factor", "snap_limit_m", "approach_speed_mps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")
        if not (math.isfinite(self.terminal_s) and self.terminal_s >= 0):
            raise ValueError(f"terminal_s is {self.terminal_s}, not 0 or more")


@dataclass(frozen=True, slots=True, eq=False)
class Snapped:
    """Where places meet the network.

    places : float64[n, 2], as given
    nodes : int64[n], the nearest junction; 0 where off the network
    gap_m : float64[n], straight to that junction, metres; inf where off the network
    flat_m : float64[n, 2], east and north of the network's middle, metres
    """

    places: Floats
    nodes: Ints
    gap_m: Floats
    flat_m: Floats


class RoadRouter:
    """A `Router` on a road graph and its tables.

    A place is joined to its nearest junction by a straight leg at approach speed. Where two places are no farther apart than
    these legs are long together (the same block, the same junction), one goes straight: leaving the streets is then never
    longer than it is anyway, and never slower.

    Raises ValueError where the tables are another graph's size.
    """

    def __init__(self, graph: RoadGraph, tables: Tables, params: RoadParams) -> None:
        if len(tables.times_s) != graph.n_nodes:
            raise ValueError(f"the tables are for {len(tables.times_s)} nodes, the graph has {graph.n_nodes}")
        self.graph = graph
        self.params = params
        self._tables = tables
        self._plane = geo.Plane(geo.Place(float(graph.lat.mean()), float(graph.lng.mean())))
        self._tree = cKDTree(self._flatten(graph.places()))
        self._ways = _ways_out(graph)
        state = hashlib.blake2b(f"{graph.digest()} {params}".encode(), digest_size=6)
        self.version = f"road-{state.hexdigest()}"
        self._top_speed_mps = ROUNDING_SLACK * max(graph.top_speed_mps() / params.time_factor, params.approach_speed_mps)

    @property
    def top_speed_mps(self) -> float:
        """The fastest edge's, or that of the approach: a way is at most as fast as its fastest part."""
        return self._top_speed_mps

    def covers(self, places: Floats) -> Bools:
        """Which of these places are near enough to a junction? bool[n]."""
        return np.isfinite(self.snap(places).gap_m)

    def snap(self, places: Floats) -> Snapped:
        """Where do these places meet the network? Raises ValueError for coordinates that are not on the globe."""
        return self._snap(check_places("places", places))

    def times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:  # noqa: ARG002
        """How long from each origin to each destination? float32[n, m], seconds, laid out by columns."""
        starts, ends = self._snap(check_places("origins", origins)), self._snap(check_places("destinations", destinations))
        times = _gather(self._tables.times_s, starts.nodes, ends.nodes)
        times *= np.float32(self.params.time_factor)
        times += (starts.gap_m / self.params.approach_speed_mps).astype(np.float32)
        times += (ends.gap_m / self.params.approach_speed_mps + self.params.terminal_s).astype(np.float32)[:, None]
        rows, columns, straight_m = _straight(starts, ends)
        times[rows, columns] = self._straight_s(straight_m)
        return times.T

    def distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from each origin to each destination? float32[n, m], metres, laid out by columns."""
        starts, ends = self._snap(check_places("origins", origins)), self._snap(check_places("destinations", destinations))
        distances = _gather(self._tables.distances_m, starts.nodes, ends.nodes)
        distances += starts.gap_m.astype(np.float32)
        distances += ends.gap_m.astype(np.float32)[:, None]
        rows, columns, straight_m = _straight(starts, ends)
        distances[rows, columns] = straight_m
        return distances.T

    def pair_times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:  # noqa: ARG002
        """How long from the i-th origin to the i-th destination? float32[n], seconds."""
        starts, ends = self._snap_pairs(origins, destinations)
        on_roads_s = self._tables.times_s[ends.nodes, starts.nodes] * self.params.time_factor
        by_road_s = on_roads_s + (starts.gap_m + ends.gap_m) / self.params.approach_speed_mps + self.params.terminal_s
        straight_m = _pair_straight_m(starts, ends)
        return np.where(np.isfinite(straight_m), self._straight_s(straight_m), by_road_s).astype(np.float32)

    def pair_distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from the i-th origin to the i-th destination? float32[n], metres."""
        starts, ends = self._snap_pairs(origins, destinations)
        straight_m = _pair_straight_m(starts, ends)
        by_road_m = self._tables.distances_m[ends.nodes, starts.nodes] + starts.gap_m + ends.gap_m
        return np.where(np.isfinite(straight_m), straight_m, by_road_m).astype(np.float32)

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:  # noqa: ARG002
        """By which way does one travel? Raises DomainError NO_ROUTE for an end off the network, or where no way leads."""
        ends = self.snap(np.array([[origin.lat, origin.lng], [destination.lat, destination.lng]]))
        start_gap_m, end_gap_m = ends.gap_m.tolist()
        if not math.isfinite(start_gap_m + end_gap_m):
            raise DomainError(Reason.NO_ROUTE, "a place is off the road network", snap_limit_m=self.params.snap_limit_m)
        straight_m = geo.distance_m(origin, destination)
        if straight_m <= start_gap_m + end_gap_m:
            return self._joined(ends.places, np.zeros(1), np.array([straight_m]), np.array([straight_m]))
        start, end = ends.nodes.tolist()
        nodes, time_s, length_m = self._fastest(start, end)
        places = np.concatenate((ends.places[:1], self.graph.places()[nodes], ends.places[1:]))
        road_s = np.concatenate(([0.0], time_s, [0.0]))
        gap_m = np.concatenate(([start_gap_m], np.zeros(len(time_s)), [end_gap_m]))
        return self._joined(places, road_s, gap_m, np.concatenate(([0.0], length_m, [0.0])) + gap_m)

    def _straight_s(self, straight_m: Floats) -> Floats:
        """How long do those trips take that go straight? No time at all where one is there already."""
        return straight_m / self.params.approach_speed_mps + np.where(straight_m > 0, self.params.terminal_s, 0.0)

    def _joined(self, places: Floats, road_s: Floats, gap_m: Floats, length_m: Floats) -> Route:
        steps_s = road_s * self.params.time_factor + gap_m / self.params.approach_speed_mps
        if length_m.any():
            steps_s[[0, -1]] += self.params.terminal_s / 2 if len(steps_s) > 1 else self.params.terminal_s
        moving = steps_s > 0
        if not moving.any():
            moving[-1] = True
        kept = np.concatenate(([True], moving))
        steps_s, steps_m = steps_s[moving], length_m[moving]
        return Route(places[kept], np.concatenate(([0.0], np.cumsum(steps_s))), np.concatenate(([0.0], np.cumsum(steps_m))))

    def _fastest(self, start: int, end: int) -> tuple[list[int], list[float], list[float]]:
        """The nodes of the fastest way, and seconds and metres of its edges: at each node, the neighbour that the table
        names. Whole milliseconds: the time left falls by one at least, so the way ends.
        """
        left_s, left_m = self._tables.times_s[end], self._tables.distances_m[end]
        if not math.isfinite(left_s.item(start)):
            raise DomainError(Reason.NO_ROUTE)
        nodes = [start]
        times: list[float] = []
        lengths: list[float] = []
        while nodes[-1] != end:
            _, _, node, time_s, length_m = min(
                (round((time_s + left_s.item(v)) * MS_PER_S), round((length_m + left_m.item(v)) * MM_PER_M), v, time_s, length_m)
                for v, time_s, length_m in self._ways[nodes[-1]]
                if math.isfinite(left_s.item(v))
            )
            nodes.append(node)
            times.append(time_s)
            lengths.append(length_m)
        return nodes, times, lengths

    def _flatten(self, places: Floats) -> Floats:
        return np.column_stack(self._plane.flatten(places[:, 0], places[:, 1]))

    def _snap_pairs(self, origins: Floats, destinations: Floats) -> tuple[Snapped, Snapped]:
        froms, tos = check_pairs(origins, destinations)
        return self._snap(froms), self._snap(tos)

    def _snap(self, places: Floats) -> Snapped:
        flat_m = self._flatten(places)
        if not len(places):
            return Snapped(places, np.empty(0, dtype=np.int64), np.empty(0), flat_m)
        _, nearest = self._tree.query(flat_m)
        nodes = np.asarray(nearest, dtype=np.int64)
        gap_m = geo.distances_m(places[:, 0], places[:, 1], self.graph.lat[nodes], self.graph.lng[nodes])
        near = gap_m <= self.params.snap_limit_m
        return Snapped(places, np.where(near, nodes, 0), np.where(near, gap_m, np.inf), flat_m)


def _ways_out(graph: RoadGraph) -> list[list[tuple[int, float, float]]]:
    edges = list(zip(graph.head.tolist(), graph.time_s.tolist(), graph.length_m.tolist(), strict=True))
    first = graph.first_edge.tolist()
    return [edges[first[node] : first[node + 1]] for node in range(graph.n_nodes)]


def _gather(table: Floats32, starts: Ints, ends: Ints) -> Floats32:
    """float32[n_ends, n_starts]: one row at a time, which stays in the cache; 5 times as fast as a fancy index."""
    gathered = np.empty((len(ends), len(starts)), dtype=np.float32)
    for row, end in zip(gathered, ends.tolist(), strict=True):
        table[end].take(starts, out=row, mode="clip")
    return gathered


def _straight(starts: Snapped, ends: Snapped) -> tuple[Ints, Ints, Floats]:
    """Which pairs go straight: end int64[k], start int64[k], and how far float64[k], metres?"""
    start_x, start_y = starts.flat_m.T.astype(np.float32)
    end_x, end_y = ends.flat_m.T.astype(np.float32)
    start_reach = np.where(np.isfinite(starts.gap_m), starts.gap_m * PROJECTION_SLACK + 1.0, -np.inf).astype(np.float32)
    end_reach = np.where(np.isfinite(ends.gap_m), ends.gap_m * PROJECTION_SLACK, -np.inf).astype(np.float32)
    rows: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    columns: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    for begin in range(0, len(end_x), BLOCK):
        block = slice(begin, begin + BLOCK)
        reach = end_reach[block, None] + start_reach
        east, north = end_x[block, None] - start_x, end_y[block, None] - start_y
        row, column = np.nonzero((np.abs(east) <= reach) & (np.abs(north) <= reach))
        rows.append(row + begin)
        columns.append(column)
    row, column = np.concatenate(rows), np.concatenate(columns)
    straight_m = _between_m(starts.places[column], ends.places[row])
    straight = straight_m <= starts.gap_m[column] + ends.gap_m[row]
    return row[straight], column[straight], straight_m[straight]


def _pair_straight_m(starts: Snapped, ends: Snapped) -> Floats:
    """How far do those pairs go that go straight? float64[n], metres; inf for those that follow the roads."""
    straight_m = _between_m(starts.places, ends.places)
    gaps_m = starts.gap_m + ends.gap_m
    return np.where(np.isfinite(gaps_m) & (straight_m <= gaps_m), straight_m, np.inf)


def _between_m(places: Floats, others: Floats) -> Floats:
    return geo.distances_m(places[:, 0], places[:, 1], others[:, 0], others[:, 1])
