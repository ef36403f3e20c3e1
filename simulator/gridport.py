"""Demand for a city made from a seed: steady short trips, and a shock in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from simulator.requests import RideRequests
from simulator.starts import on_streets

if TYPE_CHECKING:
    from hexhail.kernel.units import Floats
    from routing.graph import RoadGraph

DRAWS = 64
"""How many places on the streets are tried for each trip's end."""


@dataclass(frozen=True, slots=True)
class ShockParams:
    """A crowd leaves one place: requests near it, on top of the steady ones. Raises ValueError naming the field."""

    centre_lat: float
    centre_lng: float
    begins_s: float = 25.0
    ends_s: float = 55.0
    radius_m: float = 250.0
    rate_per_s: float = 4.0

    def __post_init__(self) -> None:
        if not geo.Place(self.centre_lat, self.centre_lng).is_valid():
            raise ValueError("centre_lat, centre_lng is not on the globe")
        if not 0 <= self.begins_s <= self.ends_s < math.inf:
            raise ValueError(f"begins_s {self.begins_s} to ends_s {self.ends_s} is not a span of time")
        for name in ("radius_m", "rate_per_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}, below 0")


@dataclass(frozen=True, slots=True)
class DemandParams:
    """The steady demand. Raises ValueError naming the field.

    rate_per_s : requests a second in the whole city
    minutes : how long
    trip_min_m, trip_max_m : how far apart a trip's ends are, along the great circle
    sample : the share of requests kept, above 0, at most 1
    """

    rate_per_s: float = 1.0
    minutes: float = 2.0
    trip_min_m: float = 400.0
    trip_max_m: float = 1200.0
    sample: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("rate_per_s", "minutes", "trip_min_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}, below 0")
        if not self.trip_min_m < self.trip_max_m < math.inf:
            raise ValueError(f"trip_max_m is {self.trip_max_m}, not above trip_min_m")
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample is {self.sample}, not above 0 and at most 1")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, below 0")


def default_shock(graph: RoadGraph) -> ShockParams:
    """The shock of the demo: around the junction nearest to the city's middle, from 25 s to 55 s."""
    lat, lng = float(graph.lat.mean()), float(graph.lng.mean())
    middle = int(np.argmin(geo.distances_m(lat, lng, graph.lat, graph.lng)))
    return ShockParams(float(graph.lat[middle]), float(graph.lng[middle]))


def grid_requests(graph: RoadGraph, demand: DemandParams, shock: ShockParams | None) -> RideRequests:
    """Who wants a ride in the synthetic city? Poisson arrivals; equal arguments give equal requests.

    Pickups lie on the streets, evenly by length; those of the shock within its radius. A destination is a place on the
    streets between `trip_min_m` and `trip_max_m` away; where the city is too small for that, the nearest to it that was drawn.

    Raises ValueError for a shock with no street within its radius.
    """
    steady = generator(demand.seed, "grid-demand")
    end_s = demand.minutes * 60.0
    at_s = _arrivals_s(steady, 0.0, end_s, demand.rate_per_s)
    pickup = on_streets(graph, len(at_s), steady)
    if shock is not None:
        sudden = generator(demand.seed, "grid-shock")
        crowd_s = _arrivals_s(sudden, min(shock.begins_s, end_s), min(shock.ends_s, end_s), shock.rate_per_s)
        at_s = np.concatenate((at_s, crowd_s))
        pickup = np.concatenate((pickup, _near(graph, shock, len(crowd_s), sudden)))
    rest = generator(demand.seed, "grid-trips")
    dropoff = _trip_ends(graph, pickup, demand, rest)
    passengers = rest.choice([1, 2, 3, 4], size=len(at_s), p=[0.7, 0.2, 0.06, 0.04]).astype(np.int64)
    order = np.argsort(at_s, kind="stable")
    order = order[rest.random(len(at_s))[order] < demand.sample]
    return RideRequests(at_s[order], pickup[order], dropoff[order], passengers[order])


def _arrivals_s(rng: np.random.Generator, begins_s: float, ends_s: float, rate_per_s: float) -> Floats:
    count = rng.poisson(rate_per_s * (ends_s - begins_s))
    return np.sort(rng.uniform(begins_s, ends_s, count))


def _near(graph: RoadGraph, shock: ShockParams, count: int, rng: np.random.Generator) -> Floats:
    drawn = on_streets(graph, 20_000, rng)
    near = drawn[geo.distances_m(shock.centre_lat, shock.centre_lng, drawn[:, 0], drawn[:, 1]) <= shock.radius_m]
    if not len(near):
        raise ValueError(f"no street lies within radius_m {shock.radius_m} of the shock's centre")
    return near[rng.integers(0, len(near), count)]


def _trip_ends(graph: RoadGraph, pickup: Floats, demand: DemandParams, rng: np.random.Generator) -> Floats:
    n = len(pickup)
    drawn = on_streets(graph, n * DRAWS, rng).reshape(n, DRAWS, 2)
    apart_m = geo.distances_m(pickup[:, :1], pickup[:, 1:], drawn[:, :, 0], drawn[:, :, 1])
    beside_m = np.maximum(demand.trip_min_m - apart_m, 0.0) + np.maximum(apart_m - demand.trip_max_m, 0.0)
    return np.asarray(drawn[np.arange(n), np.argmin(beside_m, axis=1)], dtype=np.float64)
