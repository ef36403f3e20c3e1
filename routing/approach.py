"""From a place to an engine's network and back: the straight legs that an engine does not count.

The same rules as on our own road graphs (`joining`): legs at approach speed; whoever is no farther from the destination than the
legs are long goes straight; a place beyond the limit is off the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from routing.model import Floats32, Route

if TYPE_CHECKING:
    from hexhail.kernel.units import Bools, Floats
    from routing.engine_params import EngineParams
    from routing.engine_replies import Way


@dataclass(frozen=True, slots=True, eq=False)
class Legs:
    """Pairs of places, and how far each end lies from the network; float64 of shapes that broadcast to that of the pairs.

    straight_m : between the places
    origin_gap_m, destination_gap_m : inf where the engine knows no road near by
    """

    straight_m: Floats
    origin_gap_m: Floats
    destination_gap_m: Floats

    def known_m(self, limit_m: float) -> Floats:
        """Both legs together, metres; inf where an end is off the network."""
        near = (self.origin_gap_m <= limit_m) & (self.destination_gap_m <= limit_m)
        return np.where(near, self.origin_gap_m + self.destination_gap_m, np.inf)


def matrix_legs(origins: Floats, destinations: Floats, origin_gap_m: Floats, destination_gap_m: Floats) -> Legs:
    """Of each origin with each destination: float64[n, 2], float64[m, 2], float64[n], float64[m]."""
    straight_m = geo.distances_m(origins[:, :1], origins[:, 1:], destinations[:, 0], destinations[:, 1])
    return Legs(straight_m, origin_gap_m[:, None], destination_gap_m[None, :])


def pair_legs(origins: Floats, destinations: Floats, origin_gap_m: Floats, destination_gap_m: Floats) -> Legs:
    """Of the i-th origin with the i-th destination: float64[n, 2] twice, float64[n] twice."""
    straight_m = geo.distances_m(origins[:, 0], origins[:, 1], destinations[:, 0], destinations[:, 1])
    return Legs(straight_m, origin_gap_m, destination_gap_m)


def whole_times_s(times_s: Floats, legs: Legs, params: EngineParams) -> Floats32:
    """How long from place to place? `times_s` are the engine's; inf where it has no way, or an end is off the network.

    Never faster than top speed: engines round to tenths of a second, or to whole ones.
    """
    legs_m = legs.known_m(params.snap_limit_m)
    by_road_s = times_s * params.time_factor + legs_m / params.approach_speed_mps + params.terminal_s
    straight_s = legs.straight_m / params.approach_speed_mps + np.where(legs.straight_m > 0, params.terminal_s, 0.0)
    whole_s = np.where(_goes_straight(legs, legs_m), straight_s, by_road_s)
    return np.maximum(whole_s, legs.straight_m / top_speed_mps(params)).astype(np.float32)


def whole_distances_m(distances_m: Floats, legs: Legs, params: EngineParams) -> Floats32:
    """How far from place to place? The same for metres."""
    legs_m = legs.known_m(params.snap_limit_m)
    return np.where(_goes_straight(legs, legs_m), legs.straight_m, distances_m + legs_m).astype(np.float32)


def whole_route(ends: Floats, way: Way, gap_m: Floats, params: EngineParams) -> Route:
    """The way from place to place, float64[2, 2]. Raises DomainError NO_ROUTE where an end is off the network."""
    legs = pair_legs(ends[:1], ends[1:], gap_m[:1], gap_m[1:])
    legs_m = legs.known_m(params.snap_limit_m)
    if not np.isfinite(legs_m).all():
        raise DomainError(Reason.NO_ROUTE, "a place is off the road network", snap_limit_m=params.snap_limit_m)
    if _goes_straight(legs, legs_m).all():
        places, steps_m = ends, legs.straight_m
        steps_s = steps_m / params.approach_speed_mps
    else:
        places = np.concatenate((ends[:1], way.places, ends[1:]))
        steps_m = np.concatenate((gap_m[:1], way.lengths_m, gap_m[1:]))
        approach_s = gap_m / params.approach_speed_mps
        steps_s = np.concatenate((approach_s[:1], way.times_s * params.time_factor, approach_s[1:]))
    if steps_m.any():
        steps_s[0] += params.terminal_s / 2
        steps_s[-1] += params.terminal_s / 2
    kept = (steps_s > 0) | (steps_m > 0)
    kept[-1] |= not kept.any()
    cumulative_s, cumulative_m = (np.concatenate(([0.0], np.cumsum(steps[kept]))) for steps in (steps_s, steps_m))
    return Route(places[np.concatenate(([True], kept))], cumulative_s, cumulative_m)


def top_speed_mps(params: EngineParams) -> float:
    """No two places are nearer in time than by this speed."""
    return max(params.top_speed_mps / params.time_factor, params.approach_speed_mps)


def _goes_straight(legs: Legs, legs_m: Floats) -> Bools:
    return np.isfinite(legs_m) & (legs.straight_m <= legs_m)
