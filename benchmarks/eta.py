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
from routing.published import router_in
from routing.road import RoadRouter
from routing.state_file import state_of
from routing.tables import load_tables
from routing.traffic import TrafficParams
from simulator.timed_rides import load_timed_rides

if TYPE_CHECKING:
    from datetime import time as time_of_day
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.view import Steps
    from hexhail.cities import City
    from hexhail.kernel.units import Floats, Ints
    from routing.joining import JoinedRouter
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


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    """What the rides that teach have taught.

    ours : the router of the traffic that they tell of
    factor : their median time, relative to free flow
    last_ms : when the last of them began
    """

    ours: JoinedRouter
    factor: float
    rides: int
    last_ms: int
    learn_s: float


async def run_eta(params: EtaParams, city: City, data_dir: Path, steps: Steps) -> tuple[Report, Predictions]:
    """The whole benchmark. Raises ValueError and OSError for files that cannot be used."""
    return await asyncio.to_thread(_run, params, city, data_dir, steps)


def _run(params: EtaParams, city: City, data_dir: Path, steps: Steps) -> tuple[Report, Predictions]:
    steps.begin("reading the roads and the rides")
    free, time_factor = _free_flow(city, data_dir)
    lessons, _ = load_timed_rides(params.learn_file, city.time_zone)
    lessons = lessons.rows(_between(lessons, city.time_zone, None, params.learn_until))
    tests, _ = load_timed_rides(params.test_file, city.time_zone)
    asked = _asked(tests, free, city.time_zone, params)
    hour = int(np.bincount(hours_of(asked.at_ms, city.time_zone)).argmax())
    lesson = _learned(lessons, free, TrafficParams(usual_slowness=time_factor), city.time_zone, hour, steps)
    steps.begin(f"{len(asked):,} rides")
    predictions = _predicted(lesson, free, asked)
    steps.begin("how long a question takes")
    notebook = Notebook()
    _judge(notebook, predictions)
    notebook.note(
        constant_factor=lesson.factor,
        rides=len(asked),
        rides_learned=lesson.rides,
        learn_s=lesson.learn_s,
        query_us=_query_us(lesson.ours, asked),
    )
    last_lesson_ms = lesson.last_ms if params.learn_file.resolve() == params.test_file.resolve() else None
    faults = eta_faults(predictions.predicted_s, asked.taken_s, asked.at_ms, last_lesson_ms)
    notebook.check("rides asked about", faults, len(asked))
    report = notebook.report("eta", TARGETS, params)
    shown = {name: value if isinstance(value, int) or value is None else str(value) for name, value in report.parameters.items()}
    return replace(report, parameters=shown), predictions


def _free_flow(city: City, data_dir: Path) -> tuple[RoadRouter, float]:
    """The city's streets as if nobody else drove there, and the factor that the city itself goes by."""
    base = router_for(city.policies["routing"], city.time_zone, data_dir, None)
    if not isinstance(base, RoadRouter):
        raise ValueError(f"{city.city_id} has no road network small enough for tables: nothing to learn on")  # noqa: TRY004
    tables = load_tables(base.graph, None)
    return RoadRouter(base.graph, tables, replace(base.params, time_factor=1.0, terminal_s=0.0)), base.params.time_factor


def _learned(lessons: TimedRides, free: RoadRouter, traffic: TrafficParams, time_zone: str, hour: int, steps: Steps) -> _Lesson:
    """What do these rides teach of the traffic in this hour of the day?"""
    began_s = time.perf_counter()
    good, _ = fit_to_learn(free, lessons)
    taught = lessons.rows(good)
    patches = patches_of(free.graph)
    knowledge = learn_rides(free, patches, taught, time_zone, traffic, MemoryParams(), steps.begin)
    beliefs = beliefs_in(knowledge, hour, patches, traffic)
    steps.begin("the tables of what was learned")
    ours = router_in(free, state_of(free, patches, knowledge, beliefs, 1))
    learn_s = time.perf_counter() - began_s
    free_s = free.pair_times_s(taught.origins, taught.destinations, 0).astype(np.float64)
    factor = float(np.median(taught.taken_s / np.maximum(free_s, 1.0)))
    return _Lesson(ours, factor, len(taught), int(taught.at_ms.max()), learn_s)


def _predicted(lesson: _Lesson, free: RoadRouter, asked: TimedRides) -> Predictions:
    """How long are these rides said to take? Of each, nothing but its ends is looked at."""
    learned_s, free_s = (
        router.pair_times_s(asked.origins, asked.destinations, 0).astype(np.float64) for router in (lesson.ours, free)
    )
    return Predictions(learned_s, lesson.factor * free_s, asked.taken_s)


def _judge(notebook: Notebook, predictions: Predictions) -> None:
    """How far off are they?"""
    taken_s = predictions.taken_s
    off, constant_off = (each / taken_s - 1.0 for each in (predictions.predicted_s, predictions.constant_s))
    notebook.note(
        mdape=100 * percentile(np.abs(off), 50),
        bias=100 * float(off.mean()),
        ape_p90=100 * percentile(np.abs(off), 90),
        constant_mdape=100 * percentile(np.abs(constant_off), 50),
        constant_bias=100 * float(constant_off.mean()),
        constant_ape_p90=100 * percentile(np.abs(constant_off), 90),
        error_p50_s=percentile(np.abs(off) * taken_s, 50),
        error_p90_s=percentile(np.abs(off) * taken_s, 90),
    )


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


def _query_us(router: JoinedRouter, rides: TimedRides) -> float:
    rows = np.arange(len(rides))
    took_s = []
    for call in range(_CALLS):
        some = np.take(rows, np.arange(call * _BATCH, (call + 1) * _BATCH), mode="wrap")
        origins, destinations = rides.origins[some], rides.destinations[some]
        began_s = time.perf_counter()
        router.pair_times_s(origins, destinations, 0)
        took_s.append(time.perf_counter() - began_s)
    return 1e6 * percentile(np.array(took_s), 50) / _BATCH
