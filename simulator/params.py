"""How do the simulated people of a live run behave, and how many are they? Every figure is echoed in the summary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import time

from simulator.gridport import DemandParams, ShockParams
from simulator.traffic import TrafficParams  # noqa: TC001 - the city's file is read by these types

Range = tuple[float, float]

MIN_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class LiveParams:
    """One live run. Raises ValueError naming the field.

    minutes : how long requests are made; None until told to stop
    drivers : how many there are; their ids are `<fleet>.d00001` and so on
    sample : the share of the requests that is served; taken where they are loaded, named here for the summary
    report_interval_s : each driver reports once in this time; one on a stream of its own as often as location then says
    single_stream_drivers : so many report on a stream of their own, all others through the fleet's streams
    fleet_streams : streams of the fleet's gateways
    report_tick_s : the drivers due are sent together once in this time
    think_s : how long a driver looks at an offer, from to
    decline_share : of the offers that a driver answers
    rider_patience_s : how long a rider searches before it gives up, from to; never below 30 s
    boarding_s : from arriving to starting, from to
    rating_milli : of drivers, from to
    surge_poll_s : how often the multipliers are read
    channels_per_service : connections that all apps share
    concurrency : calls at once while drivers come and go
    wind_down_s : after this time whatever has not ended is cut off, and counted
    traffic : of the simulated streets, which the services do not know; None where driving takes what their routing says
    """

    city: str
    seed: int = 1
    minutes: float | None = 3.0
    drivers: int = 2500
    sample: float = 1.0
    fleet: str = "fleet"
    report_interval_s: float = 4.0
    single_stream_drivers: int = 100
    fleet_streams: int = 4
    report_tick_s: float = 0.1
    think_s: Range = (0.5, 3.0)
    decline_share: float = 0.10
    rider_patience_s: Range = (30.0, 60.0)
    boarding_s: Range = (2.0, 5.0)
    rating_milli: Range = (4200.0, 5000.0)
    surge_poll_s: float = 1.0
    channels_per_service: int = 8
    concurrency: int = 64
    wind_down_s: float = 60.0
    traffic: TrafficParams | None = None

    def __post_init__(self) -> None:
        _check_shares(self)
        for name in ("seed", "single_stream_drivers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, below 0")
        for name in ("drivers", "fleet_streams", "channels_per_service", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, below 1")
        for name in ("minutes", "report_interval_s", "report_tick_s", "surge_poll_s", "wind_down_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not above 0")
        _check_ranges(self)
        if self.report_tick_s > self.report_interval_s:
            raise ValueError("report_tick_s is longer than report_interval_s")

    def driver_ids(self) -> list[str]:
        """The drivers of the run."""
        return [f"{self.fleet}.d{number:05d}" for number in range(1, self.drivers + 1)]


def _check_shares(params: LiveParams) -> None:
    if not 0 < params.sample <= 1:
        raise ValueError(f"sample is {params.sample}, not above 0 and at most 1")
    if not 0 <= params.decline_share <= 1:
        raise ValueError(f"decline_share is {params.decline_share}, not 0 to 1")


def _check_ranges(params: LiveParams) -> None:
    for name in ("think_s", "rider_patience_s", "boarding_s", "rating_milli"):
        low, high = getattr(params, name)
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"{name} is {low} to {high}, not a range")
    if params.rider_patience_s[0] < MIN_PATIENCE_S:
        raise ValueError(f"rider_patience_s begins at {params.rider_patience_s[0]}: riders wait at least 30 s")


@dataclass(frozen=True, slots=True)
class SimulatorParams:
    """What a city's `[simulator]` section says: where its requests come from, and the defaults of a run.

    source : "rides" replays a file of real rides, "synthetic" makes requests from a seed
    requests_file : below HEXHAIL_DATA, for "rides"
    start : local time of day at which a replay begins, HH:MM
    minutes : of a run that is not told; None goes on until stopped
    rate_per_s, trip_min_m, trip_max_m : the steady demand of "synthetic"
    shock : of "synthetic"; absent means the default one in the city's middle
    traffic : of the simulated streets; absent means that driving takes what the city's routing says
    """

    source: str = "synthetic"
    requests_file: str = ""
    start: str = "00:20"
    drivers: int = 120
    minutes: float | None = None
    rate_per_s: float = 1.0
    trip_min_m: float = 400.0
    trip_max_m: float = 1200.0
    shock: ShockParams | None = None
    traffic: TrafficParams | None = None

    def __post_init__(self) -> None:
        if self.source not in {"rides", "synthetic"}:
            raise ValueError(f"source is {self.source!r}, not rides or synthetic")
        if self.source == "rides" and not self.requests_file:
            raise ValueError("requests_file is missing")
        if self.drivers < 1:
            raise ValueError(f"drivers is {self.drivers}, below 1")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"minutes is {self.minutes}, not above 0")
        self.start_local()
        self.demand(1.0, 1.0, 0)

    def start_local(self) -> time:
        """When a replay begins, in the city's own time of day. Raises ValueError."""
        try:
            return time.fromisoformat(self.start)
        except ValueError:
            raise ValueError(f"start is {self.start!r}, not a time of day such as 00:20") from None

    def demand(self, minutes: float, sample: float, seed: int) -> DemandParams:
        """The steady demand of a synthetic run. Raises ValueError."""
        return DemandParams(
            rate_per_s=self.rate_per_s,
            minutes=minutes,
            trip_min_m=self.trip_min_m,
            trip_max_m=self.trip_max_m,
            sample=sample,
            seed=seed,
        )
