"""Phased offers or batched windows: who comes to the rider sooner? One hour of real requests, replayed with the live policies."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.dispatch_batched import Batched
from benchmarks.dispatch_figures import Interval, dispatch_faults, interval, means, measured, pickup_of_both_s
from benchmarks.dispatch_phased import Phased
from benchmarks.dispatch_replay import Replay
from benchmarks.dispatch_world import Demand, Fleet, Streets
from benchmarks.figures import Target
from benchmarks.notebook import Notebook
from benchmarks.people import People
from hexhail.cities import policy_of
from hexhail.kernel.units import MS_PER_S
from matching.params import BatchParams, Dispatch, MatchingParams
from routing.city import router_for
from routing.road import RoadRouter
from routing.tables import load_tables
from simulator.params import SimulatorParams
from simulator.requests import S_PER_MINUTE, Window, load_taxi_requests
from simulator.starts import load_ride_ends, starts_near

if TYPE_CHECKING:
    from datetime import time as time_of_day
    from pathlib import Path

    from benchmarks.dispatch_replay import Dispatcher, Outcome
    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.cities import City
    from hexhail.kernel.units import Bools, Floats

BATCHED: Final = "batched"
PHASED: Final = "eta"
"""The ranking of phased offers that is hardest to beat in pickup time: its figures are those called `phased`."""
CLASSIC: Final = "classic"
SINGLE: Final = "single"
"""Phased by `eta` with one driver asked at a time, as in batches: beside it, batches owe nothing to asking fewer drivers."""

NEAR: Final = "near"
"""Phased by `eta` from no farther than the first phase: beside it, batches owe nothing to sending nobody across the town."""

TARGETS: Final = (
    Target(
        "batched_vs_phased", "mean pickup time, batched / phased by eta, with the middle number of drivers", "x", 1.0, 0.9, True
    ),
    Target("worst_batched_vs_phased", "the same with the number of drivers that suits batches least", "x", 1.0, 0.9, True),
    Target("phased_pickup_s", "mean pickup time, phased by eta", "s"),
    Target("batched_pickup_s", "mean pickup time, batched", "s"),
    Target("classic_pickup_s", "mean pickup time, phased by classic", "s"),
    Target("single_pickup_s", "mean pickup time, phased by eta with one driver asked at a time", "s"),
    Target("near_pickup_s", "mean pickup time, phased by eta from no farther than the first phase", "s"),
    Target("phased_wait_s", "from request to arrival, phased by eta", "s"),
    Target("batched_wait_s", "from request to arrival, batched", "s"),
    Target("phased_served", "share of the requests served, phased by eta"),
    Target("batched_served", "share of the requests served, batched"),
    Target("both_vs_phased", "mean pickup time of rides that both served, batched / phased by eta", "x"),
    Target("requests", "requests replayed"),
)


@dataclass(frozen=True, slots=True)
class DispatchParams:
    """What is replayed, and how it is dispatched. Raises ValueError naming the field.

    start : local time of day at which requests begin
    sample : the share of the requests that is replayed
    drivers : how many there are, one comparison for each number
    repeats : seeds: other starts and other answers of the drivers
    batch : how batches are made; None: as the city has it
    contenders : BATCHED, SINGLE, NEAR, and rankings of phased offers; those named above must be among them
    """

    start: time_of_day
    minutes: float = 60.0
    sample: float = 0.1
    drivers: tuple[int, ...] = (450, 600, 900)
    repeats: int = 3
    seed: int = 1
    batch: BatchParams | None = None
    contenders: tuple[str, ...] = (BATCHED, PHASED, CLASSIC, SINGLE, NEAR)

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample is {self.sample}, not above 0 and at most 1")
        if not self.drivers or min(self.drivers) < 1:
            raise ValueError("drivers: give one number or more, each 1 or more")
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}, below 1")
        missing = {BATCHED, PHASED, CLASSIC, SINGLE, NEAR} - set(self.contenders)
        if missing:
            raise ValueError(f"contenders: {', '.join(sorted(missing))} must be among them")

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 1 + len(self.drivers) * self.repeats


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What all runs have in common.

    ends : float64[n, 2], where rides ended before: near such places drivers start
    """

    streets: Streets
    demand: Demand
    router: RoadRouter
    ends: Floats
    matching: MatchingParams


@dataclass(frozen=True, slots=True, eq=False)
class Supply:
    """What came of one number of drivers.

    runs : by contender, the figures of each seed (`dispatch_figures.measured`)
    both : mean pickup times, batched and phased, of the rides that both served, of each seed
    """

    drivers: int
    runs: dict[str, list[dict[str, float]]]
    both: list[tuple[float, float]]

    def ratios(self) -> list[float]:
        """Mean pickup time, batched / phased, of each seed."""
        return [ours["pickup_s"] / theirs["pickup_s"] for ours, theirs in zip(self.runs[BATCHED], self.runs[PHASED], strict=True)]

    def difference_s(self, other: str) -> Interval:
        """By how much later does the driver come in batches, the same people meeting both? Negative where it is sooner."""
        ours, theirs = self.runs[BATCHED], self.runs[other]
        return interval([one["pickup_s"] - two["pickup_s"] for one, two in zip(ours, theirs, strict=True)])

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "drivers": self.drivers,
            **{name: means(runs) for name, runs in self.runs.items()},
            "batched_minus": {name: asdict(self.difference_s(name)) for name in self.runs if name != BATCHED},
            "batched_vs_phased": asdict(interval(self.ratios())),
            "both_served": {"batched_pickup_s": _mean_of(self.both, 0), "phased_pickup_s": _mean_of(self.both, 1)},
        }


async def run_dispatch(
    params: DispatchParams, city: City, data_dir: Path, cache_dir: Path | None, steps: Steps
) -> tuple[Report, list[Supply]]:
    """The whole benchmark. Raises ValueError and OSError for files that cannot be used."""
    return await asyncio.to_thread(_run, params, city, data_dir, cache_dir, steps)


def _run(params: DispatchParams, city: City, data_dir: Path, cache_dir: Path | None, steps: Steps) -> tuple[Report, list[Supply]]:
    steps.begin("reading the roads and the requests")
    stage, rows_dropped = stage_of(params, city, data_dir, cache_dir)
    notebook, supplies = Notebook(), []
    for drivers in params.drivers:
        supply = Supply(drivers, {name: [] for name in params.contenders}, [])
        for seed in range(params.seed, params.seed + params.repeats):
            steps.begin(f"{len(stage.demand):,} requests, {drivers:,} drivers, seed {seed}")
            outcomes = {name: replayed(stage, params, name, drivers, seed) for name in params.contenders}
            for name, outcome in outcomes.items():
                supply.runs[name].append(measured(outcome, round(params.minutes * S_PER_MINUTE * MS_PER_S)))
                faults = dispatch_faults(f"{name}, {drivers:,} drivers, seed {seed}", outcome)
                notebook.check("requests accounted for", faults, len(stage.demand))
            supply.both.append(pickup_of_both_s(outcomes[BATCHED], outcomes[PHASED]))
        supplies.append(supply)
    _note(notebook, params, supplies, len(stage.demand))
    worst = max(float(np.median(supply.ratios())) for supply in supplies)
    report = notebook.report("dispatch", TARGETS, params, worst_batched_vs_phased=worst)
    details = {"supplies": [supply.as_json() for supply in supplies], "rows_dropped": rows_dropped}
    shown = {"start": str(params.start), "batch": asdict(params.batch or stage.matching.batch)}
    return replace(report, parameters={**report.parameters, **shown}, details=details), supplies


def _note(notebook: Notebook, params: DispatchParams, supplies: list[Supply], requests: int) -> None:
    """The figures of the middle number of drivers, and the ratio of all."""
    middle = supplies[len(supplies) // 2]
    for each in range(params.repeats):
        phased, batched = middle.runs[PHASED][each], middle.runs[BATCHED][each]
        notebook.note(
            batched_vs_phased=middle.ratios()[each],
            both_vs_phased=middle.both[each][0] / middle.both[each][1],
            requests=requests,
            **{f"phased_{key}": phased[key] for key in ("pickup_s", "wait_s", "served")},
            **{f"batched_{key}": batched[key] for key in ("pickup_s", "wait_s", "served")},
            **{f"{name}_pickup_s": middle.runs[name][each]["pickup_s"] for name in (CLASSIC, SINGLE, NEAR)},
        )
    for supply in supplies:
        for ratio in supply.ratios():
            notebook.note(worst_batched_vs_phased=ratio)


def stage_of(params: DispatchParams, city: City, data_dir: Path, cache_dir: Path | None) -> tuple[Stage, dict[str, int]]:
    """A city's streets and its hour of requests, and how many rows of these were left out, by reason.

    Raises ValueError where the city has no road network with tables or no real requests, and what its files give rise to.
    """
    router = router_for(city.policies["routing"], city.time_zone, data_dir, cache_dir)
    simulated = policy_of(city, "simulator", SimulatorParams)
    if not isinstance(router, RoadRouter) or simulated.source != "rides":
        raise ValueError(f"{city.city_id} has no real requests, or no road network small enough for tables: nothing to replay")

    def in_area(places: Floats) -> Bools:
        return city.covers(places[:, 0], places[:, 1])

    path = data_dir / simulated.requests_file
    window = Window(params.start, params.minutes, params.sample, params.seed)
    requests, dropped = load_taxi_requests(path, window, city.time_zone, router, in_area)
    ends = load_ride_ends(path, params.start)
    tables = load_tables(router.graph, cache_dir)
    streets = Streets(router.graph.places(), tables.times_s, tables.distances_m, router.params.time_factor)
    at_ms = np.rint(requests.at_s * MS_PER_S).astype(np.int64)
    demand = Demand(at_ms, router.snap(requests.pickup).nodes, router.snap(requests.dropoff).nodes)
    if not len(demand):
        raise ValueError(f"{path}: no request within these {params.minutes:g} minutes")
    return Stage(streets, demand, router, ends[in_area(ends)], policy_of(city, "matching", MatchingParams)), dropped


def replayed(stage: Stage, params: DispatchParams, contender: str, drivers: int, seed: int) -> Outcome:
    """One run. Drivers of one seed start in the same places and answer alike, whoever dispatches them."""
    people = People(seed)
    starts = stage.router.snap(starts_near(stage.ends, drivers, seed, stage.router)).nodes
    matching, dispatcher = _dispatching(stage.matching, params, contender)
    fleet = Fleet(stage.streets, starts, people, matching.records)
    return Replay(stage.streets, stage.demand, fleet, people, matching.lifecycle, dispatcher).run()


def _dispatching(city: MatchingParams, params: DispatchParams, contender: str) -> tuple[MatchingParams, Dispatcher]:
    """The city's own times and radii, with another ranking, or with batches."""
    if contender == BATCHED:
        batch = params.batch or city.batch
        return replace(city, dispatch=Dispatch.BATCHED, batch=batch), Batched(batch)
    phases = city.offers.phases
    if contender == SINGLE:
        phases = tuple(replace(phase, size=1) for phase in phases)
    if contender == NEAR:
        phases = phases[:1]
    policy = PHASED if contender in {SINGLE, NEAR} else contender
    offers, ranking = replace(city.offers, phases=phases), replace(city.ranking, policy=policy)
    phased = replace(city, dispatch=Dispatch.PHASED, offers=offers, ranking=ranking)
    return phased, Phased(phased)


def _mean_of(pairs: list[tuple[float, float]], column: int) -> float:
    return float(np.mean([pair[column] for pair in pairs]))
