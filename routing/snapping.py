"""Where do places meet a road network? Nearest junctions within a limit, and who is so near that one goes straight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from hexhail.kernel import geo

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats, Ints
    from routing.graph import RoadGraph

BLOCK = 64
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
    """Which pairs are no farther apart than from their junctions? End int64[k], start int64[k], metres apart float64[k]."""
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


def straight_m(starts: Snapped, ends: Snapped) -> Floats:
    """How far from the i-th start to the i-th end, where they are no farther apart than from their junctions?

    float64[n], metres; inf for those that follow the roads.
    """
    between_m = _between_m(starts.places, ends.places)
    gaps_m = starts.gap_m + ends.gap_m
    return np.where(np.isfinite(gaps_m) & (between_m <= gaps_m), between_m, np.inf)


def _between_m(places: Floats, others: Floats) -> Floats:
    return geo.distances_m(places[:, 0], places[:, 1], others[:, 0], others[:, 1])
