"""Travel times between places, from those between junctions: what every router on a road graph has in common."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from routing.bends import E7, ragged
from routing.model import Floats32, Route, check_pairs, check_places
from routing.snapping import Junctions, Snapped, straight_m, straight_pairs

if TYPE_CHECKING:
    import numpy.typing as npt

    from hexhail.kernel.geo import Place
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.graph import RoadGraph

ROUNDING_SLACK = 1.000_1
"""How much faster than its edges a way may seem to be, in float32."""


LEAST_STEP_M = 1e-6
"""Points that fall together share out their edge's time evenly."""


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


class JoinedRouter(ABC):
    """A `Router` on a road graph in one state of its traffic. How long and how far from junction to junction, a subclass says.

    A place is joined to its nearest junction by a straight leg at approach speed. Where two places are no farther apart than
    these legs are long together (the same block, the same junction), one goes straight: leaving the streets is then never
    longer than it is anyway, and never slower.

    graph : the streets, with the times of this state
    free_flow : the same streets, as fast as they are when nobody else drives there
    version : of streets, traffic and parameters
    """

    def __init__(self, kind: str, graph: RoadGraph, params: RoadParams, sibling: JoinedRouter | None = None) -> None:
        """`kind` begins the version. A sibling is a router on the same streets in another state, whose finds are shared."""
        self.graph = graph
        self.free_flow: RoadGraph = graph if sibling is None else sibling.free_flow
        self.params = params
        self._junctions: Junctions = Junctions(graph) if sibling is None else sibling._junctions
        state = hashlib.blake2b(f"{graph.digest()} {params}".encode(), digest_size=6)
        self.version = f"{kind}-{state.hexdigest()}"
        self._top_speed_mps = ROUNDING_SLACK * max(graph.top_speed_mps() / params.time_factor, params.approach_speed_mps)

    @abstractmethod
    def with_slowness(self, slowness: npt.NDArray[np.floating], params: RoadParams | None = None) -> Self:
        """The router of another state of the traffic: driving takes `slowness` (float[n_edges], finite, above 0) times as long
        as in free flow, whatever this router's own state; and with other parameters, where any are given. Raises ValueError for
        unfit slowness.
        """

    @abstractmethod
    def _road_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        """From each junction to each: float32[n_ends, n_starts], seconds, inf where no way leads; the caller's to write to."""

    @abstractmethod
    def _road_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        """The same in metres along the fastest way."""

    @abstractmethod
    def _paired_times_s(self, starts: Ints, ends: Ints) -> Floats32:
        """From the i-th junction to the i-th: float32[n], seconds, inf where no way leads; the caller's to write to."""

    @abstractmethod
    def _paired_distances_m(self, starts: Ints, ends: Ints) -> Floats32:
        """The same in metres along the fastest way."""

    def ways(self, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """The edges of the fastest way of each pair of junctions: (first int64[n + 1], edges int64[m]), way i from `first[i]` to
        `first[i + 1]`. None from a junction to itself, and none where no way leads.
        """
        found = [self._way_or_none(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        first = np.concatenate(([0], np.cumsum([len(way) for way in found], dtype=np.int64)))
        return first, np.array([edge for way in found for edge in way], dtype=np.int64)

    def _way_or_none(self, start: int, end: int) -> list[int]:
        try:
            return [] if start == end else self._way(start, end)
        except DomainError as error:
            if error.reason is not Reason.NO_ROUTE:
                raise
            return []

    @abstractmethod
    def _way(self, start: int, end: int) -> list[int]:
        """The edges of the fastest way from a junction to another. Raises DomainError NO_ROUTE."""

    @property
    def top_speed_mps(self) -> float:
        """The fastest edge's, or that of the approach: a way is at most as fast as its fastest part."""
        return self._top_speed_mps

    def covers(self, places: Floats) -> Bools:
        """Which of these places are near enough to a junction? bool[n]."""
        return np.isfinite(self.snap(places).gap_m)

    def snap(self, places: Floats) -> Snapped:
        """Where do these places meet the network? Raises ValueError for coordinates that are not on the globe."""
        return self._junctions.snap(check_places("places", places), self.params.snap_limit_m)

    def times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:  # noqa: ARG002
        """How long from each origin to each destination? float32[n, m], seconds, laid out by columns."""
        starts, ends = self._snap_ends(check_places("origins", origins), check_places("destinations", destinations))
        times = self._road_times_s(starts.nodes, ends.nodes)
        times *= np.float32(self.params.time_factor)
        times += (starts.gap_m / self.params.approach_speed_mps).astype(np.float32)
        times += (ends.gap_m / self.params.approach_speed_mps + self.params.terminal_s).astype(np.float32)[:, None]
        rows, columns, straight = straight_pairs(starts, ends)
        times[rows, columns] = self._straight_s(straight)
        return times.T

    def distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from each origin to each destination? float32[n, m], metres, laid out by columns."""
        starts, ends = self._snap_ends(check_places("origins", origins), check_places("destinations", destinations))
        distances = self._road_distances_m(starts.nodes, ends.nodes)
        distances += starts.gap_m.astype(np.float32)
        distances += ends.gap_m.astype(np.float32)[:, None]
        rows, columns, straight = straight_pairs(starts, ends)
        distances[rows, columns] = straight
        return distances.T

    def pair_times_s(self, origins: Floats, destinations: Floats, depart_ms: int) -> Floats32:  # noqa: ARG002
        """How long from the i-th origin to the i-th destination? float32[n], seconds."""
        starts, ends = self._snap_ends(*check_pairs(origins, destinations))
        on_roads_s = self._paired_times_s(starts.nodes, ends.nodes) * self.params.time_factor
        by_road_s = on_roads_s + (starts.gap_m + ends.gap_m) / self.params.approach_speed_mps + self.params.terminal_s
        straight = straight_m(starts, ends)
        return np.where(np.isfinite(straight), self._straight_s(straight), by_road_s).astype(np.float32)

    def pair_distances_m(self, origins: Floats, destinations: Floats) -> Floats32:
        """How far from the i-th origin to the i-th destination? float32[n], metres."""
        starts, ends = self._snap_ends(*check_pairs(origins, destinations))
        by_road_m = self._paired_distances_m(starts.nodes, ends.nodes) + starts.gap_m + ends.gap_m
        straight = straight_m(starts, ends)
        return np.where(np.isfinite(straight), straight, by_road_m).astype(np.float32)

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:  # noqa: ARG002
        """By which way does one travel? Raises DomainError NO_ROUTE for an end off the network, or where no way leads."""
        ends = self.snap(np.array([[origin.lat, origin.lng], [destination.lat, destination.lng]]))
        start_gap_m, end_gap_m = ends.gap_m.tolist()
        if not math.isfinite(start_gap_m + end_gap_m):
            raise DomainError(Reason.NO_ROUTE, "a place is off the road network", snap_limit_m=self.params.snap_limit_m)
        straight = geo.distance_m(origin, destination)
        if straight <= start_gap_m + end_gap_m:
            return self._joined(ends.places, np.zeros(1), np.array([straight]), np.array([straight]))
        start, end = ends.nodes.tolist()
        on_roads, time_s, length_m = self._course(start, np.array(self._way(start, end), dtype=np.int64))
        places = np.concatenate((ends.places[:1], on_roads, ends.places[1:]))
        road_s = np.concatenate(([0.0], time_s, [0.0]))
        gap_m = np.concatenate(([start_gap_m], np.zeros(len(time_s)), [end_gap_m]))
        return self._joined(places, road_s, gap_m, np.concatenate(([0.0], length_m, [0.0])) + gap_m)

    def _course(self, start: int, edges: Ints) -> tuple[Floats, Floats, Floats]:
        """Along which points do these edges run from a junction? float64[k + 1, 2], with float64[k] seconds and metres between.

        An edge's time and length are shared out along its bends, as far as one point is from the next.
        """
        graph = self.graph
        if graph.bends is None:
            nodes = np.concatenate(([start], graph.head[edges]))
            return np.column_stack((graph.lat[nodes], graph.lng[nodes])), graph.time_s[edges], graph.length_m[edges]
        first, inner = ragged(graph.bends.first[edges], graph.bends.first[edges + 1])
        ends_at = first[1:] + np.arange(len(edges)) + 1
        places = np.empty((len(inner) + len(edges) + 1, 2))
        is_junction = np.zeros(len(places), dtype=np.bool_)
        is_junction[0] = is_junction[ends_at] = True
        nodes = np.concatenate(([start], graph.head[edges]))
        places[is_junction] = np.column_stack((graph.lat[nodes], graph.lng[nodes]))
        places[~is_junction] = np.column_stack((graph.bends.lat_e7[inner], graph.bends.lng_e7[inner])) / E7
        step_m = geo.distances_m(places[:-1, 0], places[:-1, 1], places[1:, 0], places[1:, 1]) + LEAST_STEP_M
        of_edge = np.repeat(np.arange(len(edges)), np.diff(first) + 1)
        share = step_m / np.bincount(of_edge, step_m, len(edges))[of_edge]
        return places, graph.time_s[edges][of_edge] * share, graph.length_m[edges][of_edge] * share

    def _snap_ends(self, origins: Floats, destinations: Floats) -> tuple[Snapped, Snapped]:
        together = self._junctions.snap(np.concatenate((origins, destinations)), self.params.snap_limit_m)
        return together.parted(len(origins))

    def _straight_s(self, straight: Floats) -> Floats:
        """How long do those trips take that go straight? No time at all where one is there already."""
        return straight / self.params.approach_speed_mps + np.where(straight > 0, self.params.terminal_s, 0.0)

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
