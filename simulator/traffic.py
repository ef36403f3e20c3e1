"""How slow is it really? The traffic of the simulated city, which its services know from the fleet's fixes alone. Pure.

Two things make a trip longer or shorter than the city's routing says. Where and when one drives: a smooth random field over the
city that drifts, so that streets near each other are slow together, and some minutes later others are. And how one drives
(lights, double parking, the driver's own way), which nobody can foresee: a factor of its own for each drive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from routing.model import Route

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats

WAVES = 64
"""So many plane waves make up the field: enough for it to be as good as Gaussian."""
LONGEST_STEP_M = 250.0
"""A longer leg is driven in several steps, each at the slowness of its middle."""


@dataclass(frozen=True, slots=True)
class TrafficParams:
    """How slow it is in a simulated city, as multiples of the time that its routing says. Raises ValueError naming the field.

    As given, the middle 80 of 100 trips through Manhattan take 0.6 to 1.6 times the usual time. Real rides there take 1.35 to 3.7
    times free flow, 2.2 times in the middle: 0.61 to 1.68.

    usual : in the middle of all places, times and drives
    place_sigma : how much the logarithm of slowness differs from place to place and from time to time
    place_scale_m, drift_s : over such a way, or such a time, it becomes another
    drive_sigma : how much the logarithm differs from drive to drive
    most_sigmas : neither goes farther from its middle than so many times its sigma
    """

    usual: float = 1.0
    place_sigma: float = 0.4
    place_scale_m: float = 800.0
    drift_s: float = 900.0
    drive_sigma: float = 0.28
    most_sigmas: float = 2.5

    def __post_init__(self) -> None:
        for name in ("usual", "place_scale_m", "drift_s", "most_sigmas"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")
        for name in ("place_sigma", "drive_sigma"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}, not 0 to 1")


class Traffic:
    """The traffic of one run: the same seed gives the same.

    The field is a sum of plane waves whose lengths and frequencies are drawn so that places `place_scale_m` apart, or moments
    `drift_s` apart, have little in common. Source: Rahimi, Recht, Random Features for Large-Scale Kernel Machines, 2007.
    """

    def __init__(self, params: TrafficParams, seed: int, middle: geo.Place) -> None:
        """`middle` of the city: from there, east and north are measured."""
        self.params = params
        self._seed = seed
        self._plane = geo.Plane(middle)
        chance = generator(seed, "traffic")
        self._per_m = chance.normal(0.0, 1 / params.place_scale_m, (2, WAVES))
        self._per_s = chance.normal(0.0, 1 / params.drift_s, WAVES)
        self._phase = chance.uniform(0.0, math.tau, WAVES)

    def slowness(self, places: Floats, at_s: Floats) -> Floats:
        """How slow is it at these places (float64[n, 2], lat and lng in degrees) at these moments (float64[n], seconds on the
        city's clock)? float64[n], multiples of what routing says.
        """
        params = self.params
        east_m, north_m = self._plane.flatten(places[:, 0], places[:, 1])
        angles = np.column_stack((east_m, north_m)) @ self._per_m + np.multiply.outer(at_s, self._per_s) + self._phase
        field = np.cos(angles).sum(axis=1) * math.sqrt(2 / WAVES)
        most = params.most_sigmas
        slowness: Floats = params.usual * np.exp(params.place_sigma * np.clip(field, -most, most))
        return slowness

    def drive_factor(self, driver: int, drive: int) -> float:
        """By which factor does this drive of this driver take longer than the streets alone make it?"""
        params = self.params
        sigmas = generator(self._seed, "drive", driver, drive).normal()
        return math.exp(params.drive_sigma * min(max(sigmas, -params.most_sigmas), params.most_sigmas))

    def driven(self, route: Route, at_s: float, drive_factor: float) -> Route:
        """The same way, as long as this drive takes whoever sets out at this moment.

        Each leg is as slow as its middle is at the moment in which one gets there, as it turns out at the second reckoning.
        """
        places, leg_s, leg_m = _short_legs(route)
        middles = (places[:-1] + places[1:]) / 2
        reached_s = np.full(len(leg_s), at_s)
        for _ in range(2):
            driven_s = leg_s * self.slowness(middles, reached_s) * drive_factor
            reached_s = at_s + np.cumsum(driven_s) - driven_s / 2
        return Route(places, _from_zero(driven_s), _from_zero(leg_m))


def _short_legs(route: Route) -> tuple[Floats, Floats, Floats]:
    """The route's places with more between them where legs are long, and the seconds and metres of each leg between them."""
    leg_m = np.diff(route.cumulative_m)
    steps = np.maximum(1, np.ceil(leg_m / LONGEST_STEP_M)).astype(np.int64)
    share = np.concatenate([np.arange(count) / count for count in steps.tolist()])[:, None]
    begin, end = np.repeat(route.places[:-1], steps, axis=0), np.repeat(route.places[1:], steps, axis=0)
    places = np.concatenate((begin * (1 - share) + end * share, route.places[-1:]))
    return places, np.repeat(np.diff(route.cumulative_s) / steps, steps), np.repeat(leg_m / steps, steps)


def _from_zero(steps: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(steps)))
