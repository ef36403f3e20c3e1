"""Where a fleet's drivers are while they follow their routes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from routing.model import Route, check_places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Where some drivers are: one row each.

    places : float64[n, 2], lat and lng in degrees
    heading_deg : float64[n], clockwise from north, 0 to 360; of the last leg where the driver has arrived
    speed_mps : float64[n], metres a second; 0 before the start and after the arrival
    arrived : bool[n], at the end of the route
    """

    places: Floats
    heading_deg: Floats
    speed_mps: Floats
    arrived: Bools


def position_at(route: Route, elapsed_s: float) -> tuple[float, float, float, float]:
    """Where is a driver who set out on a route this long ago? lat, lng, heading_deg, speed_mps."""
    at = positions_at([route], np.array([elapsed_s]))
    return float(at.places[0, 0]), float(at.places[0, 1]), float(at.heading_deg[0]), float(at.speed_mps[0])


def positions_at(routes: Sequence[Route], elapsed_s: Floats) -> Positions:
    """Where is each driver on its route, `elapsed_s` (float64[n], seconds) after it set out?

    Before the start at the origin, after the end at the destination. Raises ValueError where the numbers differ, or a time is
    not finite.
    """
    if len(routes) != len(elapsed_s):
        raise ValueError(f"{len(routes)} routes and {len(elapsed_s)} times")
    if not np.isfinite(elapsed_s).all():
        raise ValueError("elapsed_s holds times that are not finite")
    if not len(routes):
        return Positions(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_))
    places = np.concatenate([route.places for route in routes])
    at_s = np.concatenate([route.cumulative_s for route in routes])
    at_m = np.concatenate([route.cumulative_m for route in routes])
    sizes = np.array([len(route.places) for route in routes])
    last = np.cumsum(sizes) - 1
    first = last - sizes + 1
    duration_s = at_s[last]
    leg = _legs(at_s, first, last, np.clip(elapsed_s, 0.0, duration_s), sizes)
    leg_s, leg_m = at_s[leg + 1] - at_s[leg], at_m[leg + 1] - at_m[leg]
    arrived = elapsed_s >= duration_s
    share = np.divide(elapsed_s - at_s[leg], leg_s, out=np.ones(len(leg)), where=leg_s > 0)
    share = np.where(arrived, 1.0, np.clip(share, 0.0, 1.0))[:, None]
    here, there = places[leg], places[leg + 1]
    heading_deg = geo.bearings_deg(here[:, 0], here[:, 1], there[:, 0], there[:, 1])
    moving = ~arrived & (elapsed_s >= 0)
    speed_mps = np.divide(leg_m, leg_s, out=np.zeros(len(leg)), where=moving & (leg_s > 0))
    return Positions(here * (1 - share) + there * share, heading_deg, speed_mps, arrived)


def _legs(at_s: Floats, first: Ints, last: Ints, elapsed_s: Floats, sizes: Ints) -> Ints:
    """On which leg is each driver (the index of its first place)? One search for all: the routes' times are laid end to end."""
    shift_s = np.concatenate(([0.0], np.cumsum(at_s[last] + 1.0)[:-1]))
    found = np.searchsorted(at_s + np.repeat(shift_s, sizes), elapsed_s + shift_s, side="right") - 1
    return np.clip(found, first, last - 1)


class Motion:
    """The movement of a whole fleet: each driver stands, or follows a route from a moment on, at a pace.

    Times are seconds on the caller's clock. Not thread-safe.
    """

    def __init__(self, starts: Floats) -> None:
        """`starts` : float64[n_drivers, 2], lat and lng in degrees. Raises ValueError as `check_places`."""
        places = check_places("starts", starts)
        self._routes = [_standing(place) for place in places]
        self._begun_s = np.zeros(len(places))
        self._pace = np.ones(len(places))

    def __len__(self) -> int:
        """How many drivers?"""
        return len(self._routes)

    def follow(self, driver: int, route: Route, at_s: float, pace: float = 1.0) -> float:
        """The driver sets out on a route; when will it arrive? Seconds on the caller's clock.

        `pace` is how fast it goes relative to the route's own times (below 1 for cruising). Raises ValueError if it is not
        above 0.
        """
        if not (math.isfinite(pace) and pace > 0):
            raise ValueError(f"pace is {pace}, not above 0")
        self._routes[driver] = route
        self._begun_s[driver] = at_s
        self._pace[driver] = pace
        return at_s + route.duration_s / pace

    def stand(self, driver: int, at_s: float) -> geo.Place:
        """The driver stops where it is at this moment: where?"""
        place = self.place(driver, at_s)
        self._routes[driver] = _standing(np.array([place.lat, place.lng]))
        self._begun_s[driver] = at_s
        return place

    def place(self, driver: int, at_s: float) -> geo.Place:
        """Where is one driver?"""
        lat, lng = self.positions(np.array([driver]), at_s).places[0].tolist()
        return geo.Place(lat, lng)

    def positions(self, drivers: Ints, at_s: float) -> Positions:
        """Where are these drivers (int64[n], their indices) at this moment?"""
        pace = self._pace[drivers]
        at = positions_at([self._routes[driver] for driver in drivers.tolist()], (at_s - self._begun_s[drivers]) * pace)
        return Positions(at.places, at.heading_deg, at.speed_mps * pace, at.arrived)


def _standing(place: Floats) -> Route:
    return Route(np.array([place, place]), np.zeros(2), np.zeros(2))
