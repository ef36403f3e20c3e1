"""How fast are the nearest drivers found? Against plain searches of the same store, and through gRPC while fixes flow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.accounting import baseline_faults, moving_faults
from benchmarks.columns_grpc import ColumnLoad, run_columns, run_flow
from benchmarks.figures import Target, percentile
from benchmarks.hands import hand
from benchmarks.notebook import Notebook
from benchmarks.places import BOX, SUBURB_BOX, WANDER_M, Drivers, even_spread, manhattan_spread
from benchmarks.questions_grpc import QuestionLoad, run_questions
from benchmarks.replay import Trial, baseline_answers, cells_read, record, server_times_us, time_questions
from benchmarks.stage import CityPlan, stage
from benchmarks.store_baselines import put_all_in_one_set
from hexhail.kernel import geo
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import E7
from location.keys import bucket_keys

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.columns_grpc import ColumnRun
    from benchmarks.figures import Report
    from benchmarks.hands import Hand
    from benchmarks.places import Spread
    from benchmarks.replay import Recorded
    from benchmarks.stage import Stage
    from benchmarks.view import Steps
    from hexhail.cities import City
    from hexhail.kernel.units import Floats

CITY_ID, SUBURB_ID = "bench", "bench_suburb"
SUBURB_FROM, SUBURB_DRIVERS = 900_000, 50
STREAMS: Final = 4
_ASKED_FOR_SHARE: Final = 0.99
"""A flow that falls behind what was asked for by more than this measures something else."""
AHEAD_S: Final = 0.5
"""So long do fixes flow before the first question."""
_LONGEST_WAIT_S: Final = 30.0
"""Fixes are made for so much more time than the questions take; they are sent until the last is answered."""
_ROWS: Final = 2_500
_FLOWING_ROWS: Final = 125
_SLACK_M: Final = 0.5
"""For the curvature that the flat map about a home leaves out, and for rounding."""


@dataclass(frozen=True, slots=True)
class NearbyParams:
    """What is measured, and how long.

    drivers : available, spread over the city
    questions : places asked about in each repeat, of the store alone
    count : drivers asked for
    seconds, questions_per_s, fixes_per_s : of asking through gRPC while fixes flow
    suburb_questions : places asked about in the sparse suburb
    buckets, workers, index_resolution : of the city and its service
    """

    repeats: int = 5
    drivers: int = 50_000
    questions: int = 400
    count: int = 10
    seconds: float = 20.0
    questions_per_s: float = 200.0
    fixes_per_s: float = 5_000.0
    suburb_questions: int = 100
    buckets: int = 1
    workers: int = 1
    index_resolution: int = 9
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if not self.count <= self.drivers <= SUBURB_FROM:
            raise ValueError(f"drivers must be {self.count} to {SUBURB_FROM:,}")
        if min(self.repeats, self.questions, self.count, self.suburb_questions, self.buckets, self.workers) < 1:
            raise ValueError("nothing to measure: a count is below 1")
        if not min(self.seconds, self.questions_per_s, self.fixes_per_s) > 0:
            raise ValueError("seconds and rates must be above 0")
        if self.asked < self.repeats:
            raise ValueError(f"{self.seconds:g} s at {self.questions_per_s:g} questions a second are fewer than the repeats")

    @property
    def asked(self) -> int:
        """How many questions go through gRPC?"""
        return int(self.seconds * self.questions_per_s)

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 6 + self.repeats

    @property
    def targets(self) -> tuple[Target, ...]:
        """The figures."""
        return (
            Target("ring_vs_doubling", "store: GEOSEARCH with the radius doubled / ours", "x", 1.0, 2.0),
            Target("ring_vs_geosearch", "store: one GEOSEARCH of the whole radius / ours", "x", 5.0, 20.0),
            Target("ring_us", "store: a question, there and back", "us"),
            Target("doubling_us", "the same with the radius doubled", "us"),
            Target("geosearch_us", "the same with one GEOSEARCH of the whole radius", "us"),
            Target("server_ring_vs_doubling", "the server's own time: radius doubled / ours", "x"),
            Target("server_ring_vs_geosearch", "the server's own time: whole radius / ours", "x"),
            Target("server_ring_us", "the server's own time for a question", "us"),
            Target("readings_per_question", "round trips to the store for a question"),
            Target("grpc_p50_ms", "gRPC: half of all answers within", "ms"),
            Target("grpc_p99_ms", "gRPC: 99 of 100 answers within", "ms", 10.0, 3.0, at_most=True),
            Target("fixes_per_s", "fixes taken in meanwhile", "/s", _ASKED_FOR_SHARE * self.fixes_per_s),
            Target("suburb_cells_read", f"cells read for a question, {SUBURB_DRIVERS} drivers in 400 km2"),
            Target("suburb_empty_cells_read", "of those empty", "", 0.0, 0.0, at_most=True),
        )


async def run_nearby(params: NearbyParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
    """The whole benchmark, with its files in this folder. Raises StoreError, HandError, grpc's and the store's errors."""
    spread = manhattan_spread(data_dir)
    steps.begin(f"starting Valkey and the location service; drivers as in {spread.name}")
    plans = [
        CityPlan(CITY_ID, BOX, params.index_resolution, params.buckets),
        CityPlan(SUBURB_ID, SUBURB_BOX, params.index_resolution, params.buckets),
    ]
    async with stage(folder, plans, params.workers) as running:
        with hand("load") as load, hand("asker") as asker:
            drivers = Drivers(spread.draw(params.drivers, generator(params.seed, "homes")), params.seed)
            run = _Nearby(params, running, load, asker, Notebook(), steps, spread, drivers)
            await run.store()
            await run.suburb()
            overall = await run.through_grpc()
    return run.notebook.report("nearby", params.targets, params, **overall)


@dataclass(frozen=True, slots=True)
class _Nearby:
    """One run."""

    params: NearbyParams
    stage: Stage
    load: Hand
    asker: Hand
    notebook: Notebook
    steps: Steps
    spread: Spread
    drivers: Drivers

    async def store(self) -> None:
        """What does a question cost the store, in each of three ways?"""
        params, city = self.params, self.stage.cities[0]
        self.steps.begin(f"{params.drivers:,} drivers come online")
        async with self.stage.calls(city) as calls:
            await calls.tell(self.drivers.ids)
            await self._report(city, self.drivers)
            places = self._places(params.questions, "store")
            self.steps.begin("the questions, and their answers")
            trial = await self._trial(city, places)
            await self.load.do(put_all_in_one_set, self.stage.redis_url, self.drivers, 0)
            doubled, whole = await self.load.do(baseline_answers, trial)
            expected_e7 = self.drivers.at_steps(np.zeros(len(self.drivers), dtype=np.int64))
            through_grpc = await calls.nearby([(float(lat), float(lng)) for lat, lng in places], params.count)
        where = [(float(lat), float(lng)) for lat, lng in places]
        self.notebook.check_answers("nearby", where, through_grpc, params.count, expected_e7, trial.radius_m)
        for (lat, lng), ours, *theirs, same in zip(where, trial.recorded, doubled, whole, through_grpc, strict=True):
            faults = [] if ours.found == same.driver_ids else ["the recorded answer is another than the service's"]
            for name, other in zip(("doubled radius", "one GEOSEARCH"), theirs, strict=True):
                involved = {*ours.found, *other}
                distance_m = {
                    each: float(geo.distances_m(lat, lng, expected_e7[each][0] / E7, expected_e7[each][1] / E7))
                    for each in involved
                }
                faults += baseline_faults(name, ours.found, other, distance_m)
            self.notebook.check("nearby answers against the baselines", faults)
        for repeat in range(1, params.repeats + 1):
            self.steps.begin(f"what a question costs the store, {repeat} of {params.repeats}")
            await self._report(city, self.drivers)  # so that nobody falls silent
            ring_s, doubling_s, geosearch_s = np.median(await self.load.do(time_questions, trial), axis=1).tolist()
            ring_us, doubling_us, geosearch_us = await self.load.do(server_times_us, trial)
            self.notebook.note(
                ring_vs_doubling=doubling_s / ring_s,
                ring_vs_geosearch=geosearch_s / ring_s,
                ring_us=1e6 * ring_s,
                doubling_us=1e6 * doubling_s,
                geosearch_us=1e6 * geosearch_s,
                server_ring_vs_doubling=doubling_us / ring_us,
                server_ring_vs_geosearch=geosearch_us / ring_us,
                server_ring_us=ring_us,
                readings_per_question=float(np.mean([len(each.rounds) for each in trial.recorded])),
            )

    async def suburb(self) -> None:
        """Does a question read only occupied cells where few drivers are far apart?"""
        params, city = self.params, self.stage.cities[1]
        self.steps.begin(f"{SUBURB_DRIVERS} drivers in a suburb")
        spread = even_spread(SUBURB_BOX, params.seed)
        drivers = Drivers(spread.draw(SUBURB_DRIVERS, generator(params.seed, "suburb")), params.seed, SUBURB_FROM)
        places = spread.draw(params.suburb_questions, generator(params.seed, "suburb places"))
        async with self.stage.calls(city) as calls:
            await calls.tell(drivers.ids)
            await self._report(city, drivers)
            trial = await self._trial(city, places)
            where = [(float(lat), float(lng)) for lat, lng in places]
            answers = await calls.nearby(where, params.count)
        expected_e7 = drivers.at_steps(np.zeros(len(drivers), dtype=np.int64))
        self.notebook.check_answers("suburb", where, answers, params.count, expected_e7, trial.radius_m)
        prefixes = tuple(bucket_keys(city.city_id, bucket).cell_prefix for bucket in range(city.buckets))
        read, empty = await self.load.do(cells_read, trial, prefixes)
        self.notebook.check("cells of the suburb read", [] if sum(read) else ["suburb: no cell was seen to be read"], sum(read))
        self.notebook.note(suburb_cells_read=float(np.mean(read)), suburb_empty_cells_read=float(empty))

    async def through_grpc(self) -> dict[str, float]:
        """How long does a caller wait while fixes flow? The figures over all questions."""
        params, city = self.params, self.stage.cities[0]
        self.steps.begin(f"{params.asked:,} questions through gRPC, {params.fixes_per_s:,.0f} fixes/s flowing")
        places = self._places(params.asked, "grpc")
        flow = ColumnLoad(
            self.stage.address,
            city.city_id,
            self.stage.fleet_token,
            self.drivers,
            STREAMS,
            min(_FLOWING_ROWS, max(1, params.drivers // STREAMS)),
            params.seconds + AHEAD_S + _LONGEST_WAIT_S,
            per_s=params.fixes_per_s,
        )
        await self._report(city, self.drivers)
        await self.load.start(run_flow, flow)
        await asyncio.sleep(AHEAD_S)
        questions = QuestionLoad(
            self.stage.address, city.city_id, self.stage.service_token, places, params.count, params.questions_per_s
        )
        asked = await self.asker.do(run_questions, questions)
        flowed: ColumnRun = await self.load.stop()
        self.steps.begin("are they where they said?")
        self.notebook.check_tally("flowing columns", flowed.tally)
        covered = flowed.began_s < asked.began_s and asked.ended_s < flowed.ended_s
        self.notebook.check(
            "fixes flowed throughout", [] if covered else ["gRPC: some questions were asked while no fixes flowed"]
        )
        async with self.stage.calls(city) as calls:
            await self.notebook.check_positions("flowing columns", calls, self.drivers.at_steps(flowed.last_steps))
        limit_ms = round(city.freshness_limit_s * 1000)
        homes = self.drivers.homes
        for (lat, lng), found in zip(places.tolist(), asked.answers, strict=True):
            home_m = geo.distances_m(lat, lng, homes[:, 0], homes[:, 1])
            faults = moving_faults("gRPC", found, params.count, limit_ms, home_m, WANDER_M + _SLACK_M)
            self.notebook.check("nearby answers while drivers move", faults)
        for part in np.array_split(asked.latency_ms, params.repeats):
            self.notebook.note(grpc_p50_ms=percentile(part, 50), grpc_p99_ms=percentile(part, 99))
        self.notebook.note(fixes_per_s=flowed.rate)
        return {"grpc_p50_ms": percentile(asked.latency_ms, 50), "grpc_p99_ms": percentile(asked.latency_ms, 99)}

    def _places(self, count: int, purpose: str) -> Floats:
        return self.spread.draw(count, generator(self.params.seed, "places", purpose))

    async def _report(self, city: City, drivers: Drivers) -> None:
        """Everyone reports once, at home's first step."""
        streams = min(STREAMS, len(drivers))
        load = ColumnLoad(self.stage.address, city.city_id, self.stage.fleet_token, drivers, streams, _ROWS, 0.0)
        run = await self.load.do(run_columns, load)
        self.notebook.check_tally("columns", run.tally)

    async def _trial(self, city: City, places: Floats) -> Trial:
        radius_m = self.stage.radius_m(city)
        recorded: tuple[Recorded, ...] = await record(self.stage, city, places, self.params.count, radius_m)
        return Trial(self.stage.redis_url, places, recorded, self.params.count, radius_m)
