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

FEW = 4_096
"""Pairs that are faster looked at than left out."""
PAIRS_AT_ONCE = 16_000_000
"""Pairs that are looked at in one go, though all of them were near: so that memory stays bounded."""
GAPS_M = np.array([25.0, 50.0, 100.0])
PROJECTION_SLACK = 1.05
"""How much shorter than the great circle a projected distance may be, in a network of some 100 km."""
SLACK_M = 1.0


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

    Only pairs that are about as near on a plane are looked at.
    """
    starting, ending = np.flatnonzero(np.isfinite(starts.gap_m)), np.flatnonzero(np.isfinite(ends.gap_m))
    if not len(starting) or not len(ending):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    if len(ends.nodes) * len(starts.nodes) <= FEW:
        return _straight_among_all(starts, ends)
    step = max(PAIRS_AT_ONCE // len(starting), 1)
    from_where = _by_gap(starts, starting)
    found = [
        _straight_among(starts, some_starts, ends, some_ends)
        for begin in range(0, len(ending), step)
        for some_ends in _by_gap(ends, ending[begin : begin + step])
        for some_starts in from_where
    ]
    rows, columns, apart_m = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, columns, apart_m


@dataclass(frozen=True, slots=True, eq=False)
class _Near:
    """Places that are about as far from their junctions, to be found by where they are."""

    rows: Ints
    tree: cKDTree
    gap_m: float


def _by_gap(snapped: Snapped, rows: Ints) -> list[_Near]:
    """These places, those within each of `GAPS_M` by themselves: else a few far from all junctions would have all look as far."""
    tier = np.searchsorted(GAPS_M, snapped.gap_m[rows])
    parts = [rows[tier == each] for each in range(len(GAPS_M) + 1)]
    return [_Near(part, cKDTree(snapped.flat_m[part]), float(snapped.gap_m[part].max())) for part in parts if len(part)]


def _straight_among(starts: Snapped, some_starts: _Near, ends: Snapped, some_ends: _Near) -> tuple[Ints, Ints, Floats]:
    reach_m = (some_starts.gap_m + some_ends.gap_m) * PROJECTION_SLACK + SLACK_M
    near = some_ends.tree.sparse_distance_matrix(some_starts.tree, reach_m, output_type="ndarray")
    rows, columns = some_ends.rows[near["i"]], some_starts.rows[near["j"]]
    maybe = near["v"] <= _projected_m(ends.gap_m[rows] + starts.gap_m[columns])
    return _straight(starts, ends, rows[maybe], columns[maybe])


def _straight_among_all(starts: Snapped, ends: Snapped) -> tuple[Ints, Ints, Floats]:
    gaps_m = ends.gap_m[:, None] + starts.gap_m
    east_m, north_m = (np.abs(ends.flat_m[:, axis, None] - starts.flat_m[:, axis]) for axis in (0, 1))
    near = (np.maximum(east_m, north_m) <= _projected_m(gaps_m)) & np.isfinite(gaps_m)
    return _straight(starts, ends, *near.nonzero())


def _projected_m(distance_m: Floats) -> Floats:
    """How far apart can places be in the projection that are no farther apart than this on the globe?"""
    return distance_m * PROJECTION_SLACK + SLACK_M


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
