"""A city made ready for the live simulator: its roads, its riders' requests, its drivers' starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hexhail.cities import CityError, load_city, policy_of
from routing.city import router_of
from routing.joining import JoinedRouter
from simulator.gridport import default_shock, grid_requests
from simulator.params import SimulatorParams
from simulator.requests import RideRequests, Window, load_taxi_requests
from simulator.starts import load_ride_ends, starts_near, starts_on_streets

if TYPE_CHECKING:
    from pathlib import Path

    from hexhail.cities import City
    from hexhail.kernel.settings import Settings
    from hexhail.kernel.units import Bools, Floats
    from routing.model import Router
    from simulator.traffic import TrafficParams

DATA_PROBE = "manhattan/manhattan_network.json"
_SYNTHETIC_MINUTES = 60.0
"""How much demand is made for a run without an end."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks of a run; None where the city's file decides."""

    city_id: str
    requests_file: Path | None
    start: str | None
    minutes: float | None
    drivers: int | None
    sample: float
    seed: int


@dataclass(frozen=True, slots=True)
class Town:
    """All that a live run needs of a city."""

    city: City
    router: Router
    requests: RideRequests
    starts: Floats
    minutes: float | None
    rows_dropped: dict[str, int]
    traffic: TrafficParams | None


def default_city(settings: Settings) -> str:
    """Real requests where the data folder is found, the synthetic city elsewhere."""
    return "manhattan" if (settings.data / DATA_PROBE).is_file() else "gridport"


def town_of(wish: Wish, settings: Settings) -> Town:
    """Raises CityError, ValueError and OSError, each of one line that names what was wrong."""
    city = load_city(wish.city_id, settings)
    params = policy_of(city, "simulator", SimulatorParams)
    if wish.start is not None:
        params = replace(params, start=wish.start)
    router = router_of(city, settings)
    minutes = params.minutes if wish.minutes is None else wish.minutes
    drivers = wish.drivers or params.drivers
    if params.source == "synthetic" and wish.requests_file is None:
        return _synthetic(city, router, params, minutes, drivers, wish)
    path = wish.requests_file or settings.data / params.requests_file
    window = Window(params.start_local(), minutes, wish.sample, wish.seed)

    def in_area(places: Floats) -> Bools:
        return city.covers(places[:, 0], places[:, 1])

    requests, dropped = load_taxi_requests(path, window, city.time_zone, router, in_area)
    ends = load_ride_ends(path, params.start_local())
    inside = ends[in_area(ends)]
    if not len(inside):
        raise CityError(f"{path}: no ride of it ended inside {city.name}")
    return Town(city, router, requests, starts_near(inside, drivers, wish.seed, router), minutes, dropped, params.traffic)


def _synthetic(city: City, router: Router, params: SimulatorParams, minutes: float | None, drivers: int, wish: Wish) -> Town:
    if not isinstance(router, JoinedRouter):
        raise CityError(f"{city.city_id}: synthetic requests need streets: [routing] kind grid or road")
    demand = params.demand(minutes or _SYNTHETIC_MINUTES, wish.sample, wish.seed)
    shock = params.shock or default_shock(router.graph)
    requests = grid_requests(router.graph, demand, shock if shock.begins_s < demand.minutes * 60 else None)
    return Town(city, router, requests, starts_on_streets(router.graph, drivers, wish.seed), minutes, {}, params.traffic)
