"""What do drivers' positions say of the traffic? From junction to junction, how long did each need? Pure.

A position on its own says nothing of the streets, and two in a row little: between them lie a few metres and a traffic light. So
a driver is anchored where it passes a junction, and the next junction that it passes far enough away makes a stretch of what it
drove: waiting at lights included, standing about not. Source: our choice (docs/decisions/0018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from hexhail.kernel import geo
from hexhail.kernel.units import MS_PER_S

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.graph import RoadGraph

NOWHERE: Final = -1

Column = TypeVar("Column", npt.NDArray[np.int64], npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class MoveParams:
    """What makes a stretch. Source: our choice.

    near_m : a driver so near to a junction passes it
    stretch_m : so far apart are the ends of a stretch at least, as the crow flies
    longest_s : a stretch that takes longer is none
    standing_s, standing_m : a driver that has not moved so far for so long stands, reporting or not; what it drove before counts
        no more
    """

    near_m: float = 20.0
    stretch_m: float = 250.0
    longest_s: float = 300.0
    standing_s: float = 60.0
    standing_m: float = 10.0

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        for name in ("near_m", "stretch_m", "longest_s", "standing_s", "standing_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """Where drivers were seen: one row a driver, each driver at most once.

    drivers : int64[n], their numbers, 0 and up
    places : float64[n, 2], lat and lng in degrees
    at_ms : int64[n], when, Unix milliseconds
    doing : int64[n], what they were doing (their availability): who begins something else has perhaps stood meanwhile
    nodes, gap_m : int64[n], float64[n], the nearest junction, and how far it is; inf where none is near
    """

    drivers: Ints
    places: Floats
    at_ms: Ints
    doing: Ints
    nodes: Ints
    gap_m: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """What is remembered of each driver, by its number.

    node, at_ms : int64[m], the junction it passed and when; NOWHERE where none counts
    doing : int64[m], what it was doing when last seen
    place, moved_at_ms : float64[m, 2], int64[m], where it was when it had last moved, and when that was seen
    """

    node: Ints
    at_ms: Ints
    doing: Ints
    place: Floats
    moved_at_ms: Ints

    @classmethod
    def none(cls) -> Anchors:
        """Nobody was seen."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(empty, empty, empty, np.zeros((0, 2)), empty)

    def grown(self, drivers: int) -> Anchors:
        """The same, with room for so many."""
        more = drivers - len(self.node)
        if more <= 0:
            return self
        zeros = np.zeros(more, dtype=np.int64)
        return Anchors(
            np.concatenate((self.node, np.full(more, NOWHERE))),
            np.concatenate((self.at_ms, zeros)),
            np.concatenate((self.doing, zeros)),
            np.concatenate((self.place, np.zeros((more, 2)))),
            np.concatenate((self.moved_at_ms, zeros)),
        )

    def without(self, drivers: Ints) -> Anchors:
        """The same where nothing is remembered of these drivers (int64[k])."""
        zeros = np.zeros(len(drivers), dtype=np.int64)
        return Anchors(
            _put(self.node, drivers, np.full(len(drivers), NOWHERE)),
            _put(self.at_ms, drivers, zeros),
            _put(self.doing, drivers, zeros),
            _put(self.place, drivers, np.zeros((len(drivers), 2))),
            _put(self.moved_at_ms, drivers, zeros),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """What was driven: from node to node, int64[k] each, in so many seconds, float64[k]."""

    starts: Ints
    ends: Ints
    taken_s: Floats

    def __len__(self) -> int:
        """How many?"""
        return len(self.starts)


def moved_on(anchors: Anchors, seen: Sightings, graph: RoadGraph, params: MoveParams) -> tuple[Anchors, Stretches]:
    """The anchors after these sightings, and the stretches that they complete. A sighting older than the last changes nothing."""
    anchors = anchors.grown(int(seen.drivers.max(initial=NOWHERE)) + 1)
    rows = np.flatnonzero(seen.at_ms > anchors.moved_at_ms[seen.drivers])
    who, at_ms, nodes = seen.drivers[rows], seen.at_ms[rows], seen.nodes[rows]
    node, since_ms = anchors.node[who], anchors.at_ms[who]
    before, here = anchors.place[who], seen.places[rows]
    still = geo.distances_m(before[:, 0], before[:, 1], here[:, 0], here[:, 1]) < params.standing_m
    stood = at_ms - anchors.moved_at_ms[who] > params.standing_s * MS_PER_S
    stands = still & stood
    lost = stood | (at_ms - since_ms > params.longest_s * MS_PER_S) | (anchors.doing[who] != seen.doing[rows])
    anchored = (node != NOWHERE) & ~lost
    passing = (seen.gap_m[rows] <= params.near_m) & ~stands
    complete = anchored & passing & (_apart_m(graph, node, nodes) >= params.stretch_m)
    # the first sighting near a junction counts at both ends of a stretch, so that neither is nearer than the other
    again = passing & (complete | ~anchored)
    stretches = Stretches(node[complete], nodes[complete], (at_ms - since_ms)[complete] / MS_PER_S)
    return Anchors(
        _put(anchors.node, who, np.where(again, nodes, np.where(anchored, node, NOWHERE))),
        _put(anchors.at_ms, who, np.where(again, at_ms, since_ms)),
        _put(anchors.doing, who, seen.doing[rows]),
        _put(anchors.place, who, np.where(still[:, None], before, here)),
        _put(anchors.moved_at_ms, who, np.where(still, anchors.moved_at_ms[who], at_ms)),
    ), stretches


def plausible(taken_s: Floats, free_s: Floats, least_slowness: float, most_slowness: float) -> Bools:
    """Which stretches can have been driven by the fastest way, of free flow `free_s` (float64[k])? bool[k].

    One that took much less was no drive; one that took much more went round, or stood.
    """
    slowness = taken_s / np.maximum(free_s, 1.0)
    return np.asarray((free_s > 0) & (slowness >= least_slowness / 2) & (slowness <= most_slowness), dtype=np.bool_)


def _apart_m(graph: RoadGraph, nodes: Ints, others: Ints) -> Floats:
    return geo.distances_m(graph.lat[nodes], graph.lng[nodes], graph.lat[others], graph.lng[others])


def _put(column: Column, rows: Ints, values: npt.NDArray[np.generic]) -> Column:
    changed = column.copy()
    changed[rows] = values
    return changed
