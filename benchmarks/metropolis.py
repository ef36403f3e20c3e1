"""A large town made from a seed: centres, suburbs and a river, streets that meet at odd angles. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import Delaunay

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from routing.components import largest_component
from routing.graph import graph_of_edges

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats, Ints
    from routing.graph import RoadGraph

MIDDLE: Final = geo.Place(40.7, -74.0)
JUNCTIONS_PER_KM2: Final = 100.0
CENTRES: Final = 12
SUBURBAN_SHARE: Final = 0.25
"""Of the junctions: those spread evenly, the others crowd about the centres."""
KEPT_STREETS: Final = 0.52
"""Of the lines between neighbouring junctions: about 2.8 streets end at one, as on maps of towns."""
BRIDGES: Final = 0.02
"""Of the lines across the river."""
ONE_WAY_SHARE: Final = 0.25
SPEEDS_KMH: Final = (25.0, 30.0, 40.0, 60.0)
SPEED_SHARES: Final = (0.4, 0.35, 0.15, 0.1)
LONGEST_STREET_M: Final = 1_500.0


@dataclass(frozen=True, slots=True)
class _River:
    """It winds from west to east, through the middle of a square of this side."""

    side_m: float
    half_width_m: float = 250.0

    def north_of_it_m(self, flat_m: Floats) -> Floats:
        """How far north of its middle line is each point? float64[n, 2] -> float64[n]."""
        return flat_m[:, 1] - (self.side_m / 2 + self.side_m / 15 * np.sin(flat_m[:, 0] * 12 / self.side_m))


def metropolis(nodes: int, seed: int) -> RoadGraph:
    """A town of about so many junctions, all of which reach each other. Equal arguments give equal towns."""
    rng = generator(seed, "metropolis")
    side_m = 1_000.0 * (nodes / JUNCTIONS_PER_KM2) ** 0.5
    river = _River(side_m)
    flat_m = _junctions(round(nodes * 1.13), side_m, rng)
    flat_m = flat_m[np.abs(river.north_of_it_m(flat_m)) > river.half_width_m]
    tail, head = _streets(flat_m, river.north_of_it_m(flat_m) > 0, rng)
    two_way = rng.random(len(tail)) >= ONE_WAY_SHARE
    speed_mps = rng.choice(SPEEDS_KMH, len(tail), p=SPEED_SHARES) / 3.6
    tail, head = np.concatenate((tail, head[two_way])), np.concatenate((head, tail[two_way]))
    lat, lng = geo.Plane(MIDDLE).unflatten(*(flat_m - side_m / 2).T)
    length_m = geo.distances_m(lat[tail], lng[tail], lat[head], lng[head])
    time_s = length_m / np.concatenate((speed_mps, speed_mps[two_way]))
    tails, heads = tail.astype(np.int32), head.astype(np.int32)
    return largest_component(graph_of_edges(lat, lng, tail=tails, head=heads, length_m=length_m, time_s=time_s))


def _junctions(count: int, side_m: float, rng: np.random.Generator) -> Floats:
    centres_m = rng.uniform(0.15, 0.85, (CENTRES, 2)) * side_m
    spread_m = rng.uniform(0.04, 0.18, CENTRES) * side_m
    centre = rng.integers(0, CENTRES, count)
    crowded_m = centres_m[centre] + rng.normal(size=(count, 2)) * spread_m[centre, None]
    even_m = rng.uniform(0, side_m, (count, 2))
    suburban = rng.random(count) < SUBURBAN_SHARE
    inside = (crowded_m >= 0).all(axis=1) & (crowded_m <= side_m).all(axis=1)
    return np.where((suburban | ~inside)[:, None], even_m, crowded_m)


def _streets(flat_m: Floats, is_north: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
    corners = np.asarray(Delaunay(flat_m).simplices, dtype=np.int64)
    lines = np.unique(np.sort(np.concatenate((corners[:, :2], corners[:, 1:], corners[:, ::2])), axis=1), axis=0)
    tail, head = lines.T
    long_m = np.hypot(*(flat_m[tail] - flat_m[head]).T)
    draw = rng.random(len(lines))
    bridge = is_north[tail] != is_north[head]
    kept = np.where(bridge, draw < BRIDGES, (draw < KEPT_STREETS) & (long_m < LONGEST_STREET_M))
    return tail[kept], head[kept]
