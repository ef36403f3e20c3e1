"""How far off are travel times on rides that nothing was learned from? Beside those of a router with one constant factor."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from benchmarks.accounting import eta_faults
from benchmarks.figures import Target, percentile
from benchmarks.notebook import Notebook
from hexhail.kernel.units import MS_PER_S
from routing.city import router_for
from routing.knowledge import MemoryParams, beliefs_in
from routing.learning import fit_to_learn, hours_of, learn_rides
from routing.patches import patches_of
from routing.road import RoadParams, RoadRouter
from routing.tables import build_tables, load_tables
from routing.traffic import TrafficParams
from simulator.timed_rides import load_timed_rides

if TYPE_CHECKING:
    from datetime import time as time_of_day
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.cities import City
    from hexhail.kernel.units import Floats, Ints
    from routing.learning import TimedRides

CENSOR_RATIO: Final = 3.7
"""A ride is asked about only where so many times its free flow ends before the file does: nine of ten real rides take less, so
that hardly any is missing because it was long."""

_CALLS: Final = 200
_BATCH: Final = 50

TARGETS: Final = (
    Target("mdape", "median of the errors, relative to the real duration", "%", 22.0, 19.0, at_most=True),
    Target("bias", "mean of the signed errors", "%", 5.0, 5.0, at_most=True, either_way=True),
    Target("ape_p90", "nine of ten errors are at most this", "%"),
    Target("constant_mdape", "the same median, of free flow times the one factor that suits the rides learned from", "%"),
    Target("constant_bias", "its mean signed error", "%"),
    Target("constant_ape_p90", "nine of ten of its errors", "%"),
    Target("constant_factor", "that factor", "x"),
    Target("error_p50_s", "median of the errors", "s"),
    Target("error_p90_s", "nine of ten errors are at most this", "s"),
    Target("rides", "rides asked about"),
    Target("rides_learned", "rides learned from"),
    Target("learn_s", "learning, tables included", "s"),
    Target("query_us", "a travel time, asked for in batches of 50", "us"),
)


@dataclass(frozen=True, slots=True)
class EtaParams:
    """What is learned from, and what is asked about.

    learn_file, test_file : files of rides with durations; they may be the same
    learn_until, test_from, test_until : local times of day between which rides begin; None takes all of a file
    seen_until : local time at which the test file ends, so that long rides begun late are missing from it; None where none is
    """

    learn_file: Path
    test_file: Path
    learn_until: time_of_day | None
    test_from: time_of_day | None
    test_until: time_of_day | None
    seen_until: time_of_day | None
    repeats: int = 1

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 10

    def __post_init__(self) -> None:
        """Raises ValueError where rides learned from would be asked about."""
        if self.learn_file.resolve() != self.test_file.resolve():
            return
        if self.learn_until is None or self.test_from is None or self.test_from < self.learn_until:
            raise ValueError("rides learned from would be asked about: let test-from be no earlier than learn-until")


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What was asked, answered and true, one row a ride: seconds, float64[n] each."""

    predicted_s: Floats
    constant_s: Floats
    taken_s: Floats


async def run_eta(params: EtaParams, city: City, data_dir: Path, steps: Steps) -> tuple[Report, Predictions]:
    """The whole benchmark. Raises ValueError and OSError for files that cannot be used."""
    return await asyncio.to_thread(_run, params, city, data_dir, steps)


def _run(params: EtaParams, city: City, data_dir: Path, steps: Steps) -> tuple[Report, Predictions]:
    notebook = Notebook()
    steps.begin("reading the roads and the rides")
    base = router_for(city.policies["routing"], city.time_zone, data_dir, None)
    if not isinstance(base, RoadRouter):
        raise ValueError(f"{city.city_id} has no road network small enough for tables: nothing to learn on")  # noqa: TRY004
    graph, own = base.graph, base.params
    free = RoadRouter(graph, load_tables(graph, None), replace(own, time_factor=1.0, terminal_s=0.0))
    learn_rides_all, _ = load_timed_rides(params.learn_file, city.time_zone)
    test_rides_all, _ = load_timed_rides(params.test_file, city.time_zone)
    lessons = learn_rides_all.rows(_between(learn_rides_all, city.time_zone, None, params.learn_until))
    asked = _asked(test_rides_all, free, city.time_zone, params)
    began_s = time.perf_counter()
    starts, ends = free.snap(lessons.origins), free.snap(lessons.destinations)
    lesson_free_s = free.pair_times_s(lessons.origins, lessons.destinations, 0).astype(np.float64)
    good, _ = fit_to_learn(lessons, starts, ends, lesson_free_s)
    taught = lessons.rows(good)
    starts, ends = free.snap(taught.origins), free.snap(taught.destinations)
    patches = patches_of(graph)
    traffic = TrafficParams(usual_slowness=own.time_factor)
    knowledge = learn_rides(graph, patches, taught, starts, ends, city.time_zone, traffic, MemoryParams(), steps.begin)
    hour = int(np.bincount(hours_of(asked.at_ms, city.time_zone)).argmax())
    beliefs = beliefs_in(knowledge, hour, patches, traffic)
    present = graph.slowed(beliefs.slowness[patches.of_edge])
    steps.begin("the tables of what was learned")
    ours = RoadRouter(
        present,
        build_tables(present),
        RoadParams(1.0, own.snap_limit_m, 1 / beliefs.leg_s_per_m, beliefs.terminal_s),
    )
    learn_s = time.perf_counter() - began_s
    steps.begin(f"{len(asked):,} rides")
    predicted_s = ours.pair_times_s(asked.origins, asked.destinations, 0).astype(np.float64)
    factor = float(np.median(taught.taken_s / np.maximum(lesson_free_s[good], 1.0)))
    constant_s = factor * free.pair_times_s(asked.origins, asked.destinations, 0).astype(np.float64)
    steps.begin("how long a question takes")
    query_us = _query_us(ours, asked)
    last_lesson_ms = int(taught.at_ms.max()) if params.learn_file.resolve() == params.test_file.resolve() else None
    notebook.check("rides asked about", eta_faults(predicted_s, asked.taken_s, asked.at_ms, last_lesson_ms), len(asked))
    off, constant_off = (each / asked.taken_s - 1.0 for each in (predicted_s, constant_s))
    notebook.note(
        mdape=100 * percentile(np.abs(off), 50),
        bias=100 * float(off.mean()),
        ape_p90=100 * percentile(np.abs(off), 90),
        constant_mdape=100 * percentile(np.abs(constant_off), 50),
        constant_bias=100 * float(constant_off.mean()),
        constant_ape_p90=100 * percentile(np.abs(constant_off), 90),
        constant_factor=factor,
        error_p50_s=percentile(np.abs(predicted_s - asked.taken_s), 50),
        error_p90_s=percentile(np.abs(predicted_s - asked.taken_s), 90),
        rides=len(asked),
        rides_learned=len(taught),
        learn_s=learn_s,
        query_us=query_us,
    )
    report = notebook.report("eta", TARGETS, params)
    shown = {name: value if isinstance(value, int) or value is None else str(value) for name, value in report.parameters.items()}
    return replace(report, parameters=shown), Predictions(predicted_s, constant_s, asked.taken_s)


def _asked(rides: TimedRides, free: RoadRouter, time_zone: str, params: EtaParams) -> TimedRides:
    """The rides to ask about. Whether one is among them depends on its ends and its beginning alone, and on its having ended."""
    window = rides.rows(_between(rides, time_zone, params.test_from, params.test_until))
    free_s = free.pair_times_s(window.origins, window.destinations, 0)
    fits = np.isfinite(free_s)
    if params.seen_until is not None:
        seen_until_ms = _moment_ms(rides, time_zone, params.seen_until)
        fits &= window.at_ms + MS_PER_S * CENSOR_RATIO * free_s < seen_until_ms
    chosen = window.rows(np.flatnonzero(fits & np.isfinite(window.taken_s)))
    if not len(chosen):
        raise ValueError(f"{params.test_file}: no ride between these times has both ends on the network, and a known duration")
    return chosen


def _between(rides: TimedRides, time_zone: str, begin: time_of_day | None, end: time_of_day | None) -> Ints:
    inside = np.ones(len(rides), dtype=np.bool_)
    if begin is not None:
        inside &= rides.at_ms >= _moment_ms(rides, time_zone, begin)
    if end is not None:
        inside &= rides.at_ms < _moment_ms(rides, time_zone, end)
    return np.flatnonzero(inside)


def _moment_ms(rides: TimedRides, time_zone: str, local: time_of_day) -> int:
    """This time of the day of the file's first ride."""
    zone = ZoneInfo(time_zone)
    day = datetime.fromtimestamp(int(rides.at_ms[0]) / MS_PER_S, zone).date()
    return round(datetime.combine(day, local, zone).timestamp() * MS_PER_S)


def _query_us(router: RoadRouter, rides: TimedRides) -> float:
    rows = np.arange(len(rides))
    took_s = []
    for call in range(_CALLS):
        some = np.take(rows, np.arange(call * _BATCH, (call + 1) * _BATCH), mode="wrap")
        origins, destinations = rides.origins[some], rides.destinations[some]
        began_s = time.perf_counter()
        router.pair_times_s(origins, destinations, 0)
        took_s.append(time.perf_counter() - began_s)
    return 1e6 * percentile(np.array(took_s), 50) / _BATCH
