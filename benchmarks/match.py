"""How fast does a ride come to its driver, and how many rides a second are carried through, from price to drop-off?

First the latency at a stated rate, then the highest rate sustained, step by step. Drivers report their positions all the while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.columns_grpc import ColumnLoad, run_flow
from benchmarks.dispatch_stage import dispatch_stage
from benchmarks.drivers_grpc import DriverLoad, run_drivers
from benchmarks.figures import Target, percentile
from benchmarks.hands import hand
from benchmarks.notebook import Notebook
from benchmarks.places import BOX, Drivers, manhattan_spread
from benchmarks.ride_accounting import assignment_faults, completed_per_s, latencies, lost_rides, served_share
from benchmarks.riders_grpc import RiderLoad, reachable, run_riders
from hexhail.embedded.errors import StoreError
from hexhail.kernel.randomness import generator

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.calls_grpc import LocationCalls
    from benchmarks.columns_grpc import ColumnRun
    from benchmarks.dispatch_stage import DispatchStage
    from benchmarks.drivers_grpc import DriverRun
    from benchmarks.figures import Report
    from benchmarks.hands import Hand
    from benchmarks.places import Spread
    from benchmarks.ride_accounting import RiderSeen
    from benchmarks.view import Steps
    from hexhail.kernel.units import Floats

STREAMS: Final = 4
"""Of the gateway that reports for all drivers."""
CONNECTIONS: Final = 8
"""Of the drivers' phones, and as many of the riders'."""
_ROWS: Final = 250
_KNOWN_S: Final = 90.0
"""So long may it take until location knows everyone who is online."""
_SEARCH_S: Final = 30.0
"""A ride that finds nobody expires after so long."""
_PLACES: Final = 400
_SPARE_S: Final = 60.0
_CORES: Final = 2


@dataclass(frozen=True, slots=True)
class MatchParams:
    """What is measured, and how long.

    rate, seconds : rides a second while latency is measured, and how long; the first `warm_s` of it are not measured
    first_rate, last_rate, growth, step_s : the rates tried for the highest one, each `growth` times the one before, so long each
    drivers : who report, each every `report_s`
    online : those of them who are online and hold a stream for offers
    workers : processes of matching
    think_s : from an offer to its acceptance, in the mean
    ride_s : from the acceptance to the drop-off
    late_s, share : a rate is sustained where this share of all rides due is completed no later than this after it could have
        been: after the longest thinking and the ride itself
    """

    rate: float = 50.0
    seconds: float = 20.0
    warm_s: float = 5.0
    first_rate: float = 60.0
    last_rate: float = 175.0
    growth: float = 1.2
    step_s: float = 20.0
    drivers: int = 20_000
    online: int = 20_000
    report_s: float = 4.0
    think_s: float = 1.0
    ride_s: float = 10.0
    late_s: float = 2.0
    share: float = 0.99
    index_resolution: int = 9
    workers: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not 1 <= self.online <= self.drivers <= 900_000:
            raise ValueError("online must be 1 to drivers, and drivers at most 900,000")
        if not min(self.rate, self.seconds, self.first_rate, self.step_s, self.report_s, self.think_s, self.ride_s) > 0:
            raise ValueError("rates and times must be above 0")
        if not (self.growth > 1 and self.late_s > 0 and 0 < self.share <= 1 and self.warm_s >= 0):
            raise ValueError("growth must be above 1, late_s above 0, share above 0 and at most 1, warm_s not negative")

    @property
    def rates(self) -> tuple[float, ...]:
        """Rates to try, in order; none where the first is above the last."""
        tried = []
        rate = self.first_rate
        while rate <= self.last_rate * (1 + 1e-9):
            tried.append(rate)
            rate *= self.growth
        return tuple(tried)

    @property
    def steps(self) -> int:
        """How many steps does a run show at most?"""
        return 5 + len(self.rates)

    @property
    def within_s(self) -> float:
        """How long after it is due is a ride that is served completed, at the latest?"""
        return 1.5 * self.think_s + self.ride_s + self.late_s

    @property
    def patience_s(self) -> float:
        """How long does a rider look at its ride?"""
        return _SEARCH_S + 1.5 * self.think_s + self.ride_s + 4 * self.late_s + 10.0

    @property
    def longest_s(self) -> float:
        """How long can all phases take together?"""
        phases = [self.warm_s + self.seconds, *(self.step_s for _ in self.rates)]
        return sum(phases) + len(phases) * (self.ride_s + 4.0) + self.patience_s + _SPARE_S

    @property
    def targets(self) -> tuple[Target, ...]:
        """The figures."""
        at = f"at {self.rate:g} rides/s"
        return (
            Target("rides_per_s", "rides completed a second, highest rate sustained", "/s", 60.0, 173.0),
            Target("rides_per_s_per_core", f"the same for each of {_CORES} cores", "/s"),
            Target("first_offer_p99_ms", f"{at}: call for a ride to first offer at a driver, 99 of 100", "ms", 250.0, 50.0, True),
            Target("first_offer_p50_ms", "the same, half", "ms"),
            Target("match_p99_ms", f"{at}: call for a ride to rider told of the driver, less thinking, 99 of 100", "ms"),
            Target("match_p50_ms", "the same, half", "ms"),
            Target("double_assignments", "drivers in two rides, rides in two cars", "", 0.0, 0.0, True),
            Target("lost", "acknowledged and not kept, or not final in the end", "", 0.0, 0.0, True),
            Target("failed_share", f"{at}: rides not served in time", ""),
            Target("load_late_p99_ms", f"{at}: how late the load itself was, 99 of 100", "ms"),
            *(
                Target(f"{name}_ms_per_ride", f"{at}: processor time of {name} for a ride", "ms")
                for name in ("matching", "postgres", "location", "pricing", "valkey", "load")
            ),
            Target("cores_busy", f"{at}: cores kept busy by all of it"),
            Target("open_streams_s", f"{self.online:,} streams for offers: opened within", "s"),
            Target("open_streams_mb", "memory that the service grew by meanwhile", "MB"),
        )


@dataclass(frozen=True, slots=True)
class _Phase:
    """What came of one rate."""

    rate: float
    rides: list[RiderSeen]
    share: float
    completed_per_s: float
    used_s: dict[str, float]
    took_s: float


async def run_match(params: MatchParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
    """The whole benchmark, with its files in this folder. Raises StoreError, HandError, grpc's and the store's errors."""
    spread = manhattan_spread(data_dir)
    drivers = Drivers(spread.draw(params.drivers, generator(params.seed, "homes")), params.seed)
    online = np.zeros(params.drivers, dtype=np.bool_)
    online[generator(params.seed, "online").permutation(params.drivers)[: params.online]] = True
    steps.begin(f"starting the stores and three services; drivers as in {spread.name}")
    async with dispatch_stage(folder, data_dir, drivers.ids, online.tolist(), params.index_resolution, params.workers) as stage:
        with hand("fixes") as fixes, hand("drivers") as phones, hand("riders") as riders:
            run = _Match(params, stage, drivers, spread, fixes, phones, riders, Notebook(), steps)
            return await run.report([each for each, on in zip(drivers.ids, online.tolist(), strict=True) if on])


@dataclass(slots=True)
class _Match:
    """One run."""

    params: MatchParams
    stage: DispatchStage
    drivers: Drivers
    spread: Spread
    fixes: Hand
    phones: Hand
    riders: Hand
    notebook: Notebook
    steps: Steps
    places: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    """Where rides begin and end: float64[n, 2], lat and lng in degrees."""
    came: int = 0

    async def report(self, online: list[str]) -> Report:
        """Everything in its order."""
        params = self.params
        self.steps.begin(f"{params.drivers:,} drivers report every {params.report_s:g} s; travel times by {self.stage.roads}")
        await self.fixes.start(run_flow, self._flow())
        await self._until_known(len(online))
        await self._find_places()
        self.steps.begin(f"{len(online):,} of them open their streams for offers")
        before_mb = self.stage.resident_mb("matching")
        await self.phones.start(run_drivers, self._phones(online))
        self.notebook.note(open_streams_mb=self.stage.resident_mb("matching") - before_mb)
        self.steps.begin(f"latency at {params.rate:g} rides/s")
        phases = [await self._phase(params.rate, params.warm_s + params.seconds)]
        best: _Phase | None = None
        for rate in params.rates:
            self.steps.begin(f"{rate:.0f} rides/s")
            phase = await self._phase(rate, params.step_s)
            phases.append(phase)
            if phase.share < params.share:
                break
            best = phase
        driven: DriverRun = await self.phones.stop()
        flowed: ColumnRun = await self.fixes.stop()
        self.notebook.check_tally("fixes", flowed.tally, frozenset({"SUPERSEDED"}))
        self.notebook.note(open_streams_s=driven.opened_s)
        await self._check([ride for phase in phases for ride in phase.rides], driven)
        self._note_latency(phases[0], driven)
        rides_per_s = best.completed_per_s if best is not None else 0.0
        self.notebook.note(rides_per_s=rides_per_s, rides_per_s_per_core=rides_per_s / _CORES)
        return self.notebook.report("match", params.targets, params)

    async def _phase(self, rate: float, seconds: float) -> _Phase:
        """Riders come evenly at this rate, for so long, and are served to their end."""
        params, count = self.params, max(1, round(rate * seconds))
        chance = generator(params.seed, "rides", self.came)
        load = RiderLoad(
            self.stage.addresses["matching"],
            self.stage.addresses["pricing"],
            self.stage.city.city_id,
            self.stage.token_key,
            CONNECTIONS,
            self.came,
            np.arange(count) / rate,
            *self._ends(count, chance),
            params.patience_s,
        )
        self.came += count
        used = self.stage.processor_s(self._hands)
        began_s = time.perf_counter()
        rides = await self.riders.do(run_riders, load)
        took_s = time.perf_counter() - began_s
        used_s = {name: value - used[name] for name, value in self.stage.processor_s(self._hands).items()}
        share = served_share(rides, params.within_s)
        return _Phase(rate, rides, share, completed_per_s(rides, params.within_s, seconds), used_s, took_s)

    @property
    def _hands(self) -> tuple[Hand, ...]:
        return self.fixes, self.phones, self.riders

    def _note_latency(self, phase: _Phase, driven: DriverRun) -> None:
        params = self.params
        warm = round(params.warm_s * params.rate)
        measured = phase.rides[warm:]
        drives = {drive.ride_id: drive for drive in driven.drives}
        took = latencies(measured, driven.first_offers, drives, 1000 * params.patience_s)
        count = len(phase.rides)
        self.notebook.note(
            first_offer_p50_ms=percentile(took.first_offer_ms, 50),
            first_offer_p99_ms=percentile(took.first_offer_ms, 99),
            match_p50_ms=percentile(took.match_ms, 50),
            match_p99_ms=percentile(took.match_ms, 99),
            load_late_p99_ms=percentile(took.late_ms, 99),
            failed_share=1 - served_share(measured, params.within_s),
            cores_busy=sum(phase.used_s.values()) / phase.took_s,
            **{f"{name}_ms_per_ride": 1000 * used_s / count for name, used_s in phase.used_s.items()},
        )

    async def _check(self, rides: list[RiderSeen], driven: DriverRun) -> None:
        """Does everything that was told stand in PostgreSQL, and is everything there that was told?"""
        self.steps.begin("is what was told what is kept?")
        kept = await self.stage.kept()
        doubles = assignment_faults(driven.drives, kept.assignments)
        lost = lost_rides(rides, driven.drives, kept.rides, kept.events)
        self.notebook.note(double_assignments=doubles, lost=len(lost))
        self.notebook.check("assignments", [f"{doubles} double assignments"] if doubles else [], len(driven.drives))
        self.notebook.check("rides against PostgreSQL", lost, len(rides))
        self.notebook.check("offers answered", driven.given_up, driven.offers)
        outcome = Counter(ride.failed or "ended" for ride in rides)
        self.notebook.checked.update({f"rides: {what}": count for what, count in outcome.items()})
        self.notebook.checked.update({f"refused: {what}": count for what, count in driven.refusals.items()})
        self.notebook.checked.update({f"drivers' calls: {what}": count for what, count in driven.errors.items()})
        untracked = sum(1 for ride in rides if "COMPLETED" in ride.told and not ride.tracks)
        self.notebook.checked["positions told to riders"] = sum(ride.tracks for ride in rides)
        self.notebook.checked["rides that nobody was told a position of"] = untracked

    def _ends(self, count: int, chance: np.random.Generator) -> tuple[Floats, Floats]:
        """Where so many rides begin and end: two different places each."""
        from_row = chance.integers(len(self.places), size=count)
        to_row = (from_row + chance.integers(1, len(self.places), size=count)) % len(self.places)
        return self.places[from_row], self.places[to_row]

    async def _find_places(self) -> None:
        """Places near where drivers are, that streets lead to and from. Raises StoreError where there are none."""
        south, west, north, east = BOX
        drawn = np.clip(self.spread.draw(_PLACES, generator(self.params.seed, "places")), (south, west), (north, east))
        city = self.stage.city.city_id
        pricing = self.stage.addresses["pricing"]
        self.places = await self.riders.do(reachable, pricing, city, self.stage.token_key, drawn)
        if len(self.places) < 2:
            raise StoreError("pricing knows no way between any places of the benchmark's city")

    def _flow(self) -> ColumnLoad:
        params = self.params
        return ColumnLoad(
            self.stage.addresses["location"],
            self.stage.city.city_id,
            self.stage.fleet_token,
            self.drivers,
            STREAMS,
            max(1, min(_ROWS, params.drivers // (4 * STREAMS))),
            params.longest_s,
            per_s=params.drivers / params.report_s,
        )

    def _phones(self, online: list[str]) -> DriverLoad:
        params = self.params
        return DriverLoad(
            self.stage.addresses["matching"],
            self.stage.city.city_id,
            self.stage.token_key,
            online,
            CONNECTIONS,
            params.think_s,
            params.ride_s,
            params.seed,
        )

    async def _until_known(self, online: int) -> None:
        """Returns once location counts everyone who is online. Raises StoreError where it does not."""
        deadline_s = time.perf_counter() + _KNOWN_S
        async with self.stage.calls() as calls:
            while True:
                why_not = await self._why_not_known(calls, online)
                if why_not is None:
                    return
                if time.perf_counter() > deadline_s:
                    raise StoreError(f"not ready for a load within {_KNOWN_S:g} s: {why_not}")
                await asyncio.sleep(0.5)

    async def _why_not_known(self, calls: LocationCalls, online: int) -> str | None:
        try:
            known = await calls.supply()
        except ValueError as error:
            return str(error)
        return None if known == online else f"{known:,} of {online:,} drivers are known to be available"
