"""Where do places meet a road network? Nearest junctions within a limit, and who is so near that one goes straight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from hexhail.kernel import geo

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats, Ints
    from routing.graph import RoadGraph

BLOCK = 256
FEW = 4_096
"""Pairs that are faster looked at than left out."""
PROJECTION_SLACK = 1.05
"""How much shorter than the great circle a projected distance may be, in a network of some 100 km."""


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

    def parted(self, at: int) -> tuple[Snapped, Snapped]:
        """The first `at` of them, and the others."""
        first, second = (
            Snapped(self.places[part], self.nodes[part], self.gap_m[part], self.flat_m[part])
            for part in (slice(None, at), slice(at, None))
        )
        return first, second


class Junctions:
    """The junctions of a road graph, to be found by place. They stay where they are whatever the traffic."""

    def __init__(self, graph: RoadGraph) -> None:
        self._lat, self._lng = graph.lat, graph.lng
        self._plane = geo.Plane(geo.Place(float(graph.lat.mean()), float(graph.lng.mean())))
        self._tree = cKDTree(self._flatten(graph.places()))

    def snap(self, places: Floats, limit_m: float) -> Snapped:
        """Which junction is the nearest to each place, if one is within the limit? float64[n, 2] on the globe."""
        flat_m = self._flatten(places)
        if not len(places):
            return Snapped(places, np.empty(0, dtype=np.int64), np.empty(0), flat_m)
        _, nearest = self._tree.query(flat_m)
        nodes = np.asarray(nearest, dtype=np.int64)
        gap_m = geo.distances_m(places[:, 0], places[:, 1], self._lat[nodes], self._lng[nodes])
        near = gap_m <= limit_m
        return Snapped(places, np.where(near, nodes, 0), np.where(near, gap_m, np.inf), flat_m)

    def _flatten(self, places: Floats) -> Floats:
        return np.column_stack(self._plane.flatten(places[:, 0], places[:, 1]))


def straight_pairs(starts: Snapped, ends: Snapped) -> tuple[Ints, Ints, Floats]:
    """Which pairs are no farther apart than from their junctions? End int64[k], start int64[k], metres apart float64[k].

    Only pairs that are about as near along the longer way of the network are looked at.
    """
    covered = np.flatnonzero(np.isfinite(ends.gap_m))
    is_covered = np.isfinite(starts.gap_m)
    if not len(covered) or not is_covered.any():
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    if len(ends.nodes) * len(is_covered) <= FEW:
        return _straight_among_all(starts, ends)
    axis = int(np.argmax(np.ptp(ends.flat_m[covered], axis=0)))
    order = covered[np.argsort(ends.flat_m[covered, axis])]
    along_m, reach_m = ends.flat_m[order, axis], (starts.gap_m + ends.gap_m[order].max()) * PROJECTION_SLACK + 1.0
    low = np.searchsorted(along_m, starts.flat_m[:, axis] - reach_m)
    counts = is_covered * (np.searchsorted(along_m, starts.flat_m[:, axis] + reach_m, side="right") - low)
    found = [
        _straight_among(starts, ends, order, np.arange(begin, min(begin + BLOCK, len(low))), low, counts)
        for begin in range(0, len(low), BLOCK)
    ]
    rows, columns, apart_m = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, columns, apart_m


def _straight_among_all(starts: Snapped, ends: Snapped) -> tuple[Ints, Ints, Floats]:
    gaps_m = ends.gap_m[:, None] + starts.gap_m
    east_m, north_m = (np.abs(ends.flat_m[:, axis, None] - starts.flat_m[:, axis]) for axis in (0, 1))
    near = (np.maximum(east_m, north_m) <= gaps_m * PROJECTION_SLACK + 1.0) & np.isfinite(gaps_m)
    return _straight(starts, ends, *near.nonzero())


def _straight_among(
    starts: Snapped, ends: Snapped, order: Ints, block: Ints, low: Ints, counts: Ints
) -> tuple[Ints, Ints, Floats]:
    """Among the pairs of a block of starts, each with `counts` ends from `low` on, in this order."""
    number = counts[block]
    columns = np.repeat(block, number)
    before = np.cumsum(number) - number
    rows = order[np.arange(len(columns)) + np.repeat(low[block] - before, number)]
    away_m = np.abs(starts.flat_m[columns] - ends.flat_m[rows]).max(axis=1)
    near = away_m <= (starts.gap_m[columns] + ends.gap_m[rows]) * PROJECTION_SLACK + 1.0
    return _straight(starts, ends, rows[near], columns[near])


def _straight(starts: Snapped, ends: Snapped, rows: Ints, columns: Ints) -> tuple[Ints, Ints, Floats]:
    """Those of these pairs that go straight."""
    if not len(rows):
        return rows, columns, np.empty(0)
    apart_m = _between_m(starts.places[columns], ends.places[rows])
    straight = apart_m <= starts.gap_m[columns] + ends.gap_m[rows]
    return rows[straight], columns[straight], apart_m[straight]


def straight_m(starts: Snapped, ends: Snapped) -> Floats:
    """How far from the i-th start to the i-th end, where they are no farther apart than from their junctions?

    float64[n], metres; inf for those that follow the roads.
    """
    between_m = _between_m(starts.places, ends.places)
    gaps_m = starts.gap_m + ends.gap_m
    return np.where(np.isfinite(gaps_m) & (between_m <= gaps_m), between_m, np.inf)


def _between_m(places: Floats, others: Floats) -> Floats:
    return geo.distances_m(places[:, 0], places[:, 1], others[:, 0], others[:, 1])
