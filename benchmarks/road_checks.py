"""What should a router on roads answer? Found anew, by a heap and by looking at every junction. Pure."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S
from routing.graph import MM_PER_M

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph
    from routing.joining import RoadParams
    from routing.model import Floats32, Route

TOLERANCE: Final = 2e-5
"""Of a time or a length, for float32."""


class Roads:
    """A graph, searched backwards from destinations."""

    def __init__(self, graph: RoadGraph, params: RoadParams) -> None:
        self._graph = graph
        self._params = params
        order = np.argsort(graph.head, kind="stable")
        first = np.searchsorted(graph.head[order], np.arange(graph.n_nodes + 1))
        self._first = first.tolist()
        self._tail = graph.tail()[order].tolist()
        self._time_ms = np.rint(graph.time_s[order] * MS_PER_S).astype(np.int64).tolist()
        self._length_mm = np.rint(graph.length_m[order] * MM_PER_M).astype(np.int64).tolist()

    def trips(self, origins: Floats, destination: Floats) -> tuple[Floats, Floats]:
        """From each origin (float64[n, 2]) to one destination (float64[2]): float64[n] seconds and metres, inf where none."""
        starts = [self._nearest(place) for place in origins]
        end, end_gap_m = self._nearest(destination)
        wanted = {start for start, gap_m in starts if math.isfinite(gap_m)}
        found = self._search(end, wanted) if math.isfinite(end_gap_m) else {}
        answers = []
        for place, (start, gap_m) in zip(origins, starts, strict=True):
            gaps_m = gap_m + end_gap_m
            straight_m = float(geo.distances_m(place[0], place[1], destination[0], destination[1]))
            if not math.isfinite(gaps_m):
                answers.append((math.inf, math.inf))
            elif straight_m <= gaps_m:
                terminal_s = self._params.terminal_s if straight_m else 0.0
                answers.append((straight_m / self._params.approach_speed_mps + terminal_s, straight_m))
            else:
                time_ms, length_mm = found.get(start, (math.inf, math.inf))
                road_s = time_ms / MS_PER_S * self._params.time_factor
                legs_s = gaps_m / self._params.approach_speed_mps + self._params.terminal_s
                answers.append((road_s + legs_s, length_mm / MM_PER_M + gaps_m))
        times_s, lengths_m = np.array(answers).reshape(-1, 2).T
        return times_s, lengths_m

    def _nearest(self, place: Floats) -> tuple[int, float]:
        gap_m = geo.distances_m(place[0], place[1], self._graph.lat, self._graph.lng)
        node = int(np.argmin(gap_m))
        return node, float(gap_m[node]) if gap_m[node] <= self._params.snap_limit_m else math.inf

    def _search(self, end: int, wanted: set[int]) -> dict[int, tuple[float, float]]:
        """Milliseconds, and the fewest millimetres of ways as fast, from each junction until all that are wanted are found."""
        settled: dict[int, tuple[float, float]] = {}
        waiting = set(wanted)
        heap: list[tuple[int, int, int]] = [(0, 0, end)]
        while heap and waiting:
            time_ms, length_mm, node = heapq.heappop(heap)
            if node in settled:
                continue
            settled[node] = time_ms, length_mm
            waiting.discard(node)
            for edge in range(self._first[node], self._first[node + 1]):
                heapq.heappush(heap, (time_ms + self._time_ms[edge], length_mm + self._length_mm[edge], self._tail[edge]))
        return settled


def trip_faults(what: str, found: Floats | Floats32, expected: Floats) -> list[str]:
    """Are these times, or lengths, those that were to be found? One sentence about all that are not."""
    if found.shape != expected.shape:
        return [f"{what}: {found.shape} answers to {expected.shape} questions"]
    right = np.isclose(found, expected, rtol=TOLERANCE, atol=1e-2) | (np.isinf(found) & np.isinf(expected))
    if right.all():
        return []
    worst = int(np.argmax(~right))
    return [f"{what}: {int((~right).sum()):,} of {right.size:,} are wrong, {found.flat[worst]} instead of {expected.flat[worst]}"]


def route_faults(what: str, routes: Sequence[Route], times_s: Floats, lengths_m: Floats) -> list[str]:
    """Does each route take as long as was to be found, and is it no shorter than the shortest that is as fast?"""
    faults = trip_faults(f"{what}: durations", np.array([route.duration_s for route in routes]), times_s)
    short_m = [float(expected - route.length_m) for route, expected in zip(routes, lengths_m, strict=True)]
    if max(short_m, default=0.0) > 0.1:
        faults.append(f"{what}: a route is {max(short_m):.1f} m shorter than any as fast")
    return faults
