"""How fast do fixes get into the index? Against a stream that discards them, and against the bare store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.columns_grpc import DISTINCT_BATCHES, ColumnLoad, ColumnRun, run_columns
from benchmarks.figures import Target
from benchmarks.hands import hand
from benchmarks.notebook import Notebook
from benchmarks.places import BOX, Drivers, manhattan_spread
from benchmarks.stage import CityPlan, discarding, stage
from benchmarks.store_baselines import run_geoadd
from benchmarks.streams_grpc import WARM_STREAMS, StreamLoad, StreamRun, run_idle_streams, run_streams
from hexhail.kernel.randomness import generator

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.figures import Report
    from benchmarks.hands import Hand
    from benchmarks.places import Spread
    from benchmarks.stage import Stage
    from benchmarks.view import Steps

TARGETS: Final = (
    Target("stream_vs_discard", "single drivers' streams / streams that are discarded", "x", 0.4, 0.8),
    Target("streams_per_s", "fixes of single drivers dealt with", "/s"),
    Target("streams_accepted_per_s", "of those taken in, not superseded", "/s"),
    Target("discard_per_s", "fixes discarded", "/s"),
    Target("columns_vs_geoadd", "columns / GEOADD to the sets of cells", "x", 0.2, 0.4),
    Target("columns_per_s", "fixes in columns taken in", "/s", 100_000),
    Target("geoadd_per_s", "GEOADD, pipelined", "/s"),
    Target("kb_per_stream", "memory of the service for an open stream", "kB"),
)

CITY_ID: Final = "bench"
IDLE_FROM, COLUMNS_FROM = 900_000, 100_000
"""Numbers of the first drivers, so that no part of the benchmark shares drivers with another."""
_WARM_S: Final = 0.4
"""This share of a repeat is run first, unmeasured."""
_PLACES: Final = 25
_NEAREST: Final = 10


@dataclass(frozen=True, slots=True)
class IngestParams:
    """What is measured, and how long.

    seconds : of sending, each repeat
    repeats : of each way and its baseline, in turn
    streams, connections : single drivers' streams, and the connections that they share
    drivers, fleet_streams, rows : drivers who report in columns, the streams that they share, and fixes of one batch
    idle_streams : streams opened to see what memory they take
    buckets, workers, index_resolution : of the city and its service
    """

    seconds: float = 4.0
    repeats: int = 3
    streams: int = 200
    connections: int = 8
    drivers: int = 40_000
    fleet_streams: int = 4
    rows: int = 2_500
    idle_streams: int = 2_000
    buckets: int = 1
    workers: int = 1
    index_resolution: int = 9
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for figures that cannot be meant."""
        if self.drivers < DISTINCT_BATCHES * self.rows * self.fleet_streams:
            raise ValueError(
                f"{self.drivers:,} drivers on {self.fleet_streams} streams of {self.rows:,} rows a batch meet themselves: "
                f"{DISTINCT_BATCHES * self.rows * self.fleet_streams:,} at least"
            )
        if self.drivers > IDLE_FROM - COLUMNS_FROM or self.streams > COLUMNS_FROM:
            raise ValueError("more drivers than there are numbers for")
        if min(self.repeats, self.streams, self.connections, self.idle_streams, self.buckets, self.workers, self.rows) < 1:
            raise ValueError("nothing to measure: a count is below 1")
        if not self.seconds > 0:
            raise ValueError("seconds must be above 0")

    @property
    def steps(self) -> int:
        """How many steps does a run show?"""
        return 2 + 2 * (2 + 2 * self.repeats)


async def run_ingest(params: IngestParams, folder: Path, data_dir: Path, steps: Steps) -> Report:
    """The whole benchmark, with its files in this folder. Raises StoreError, HandError, grpc's and the store's errors."""
    spread = manhattan_spread(data_dir)
    steps.begin(f"starting Valkey and the location service; drivers as in {spread.name}")
    plan = CityPlan(CITY_ID, BOX, params.index_resolution, params.buckets)
    async with stage(folder, [plan], params.workers) as running:
        with hand("load") as load:
            run = _Ingest(params, running, load, Notebook(), steps, spread)
            await run.memory()
            await run.streams()
            await run.columns()
    return run.notebook.report("ingest", TARGETS, params)


@dataclass(frozen=True, slots=True)
class _Ingest:
    """One run."""

    params: IngestParams
    stage: Stage
    hand: Hand
    notebook: Notebook
    steps: Steps
    spread: Spread

    def _drivers(self, count: int, first: int) -> Drivers:
        chance = generator(self.params.seed, "homes", first)
        return Drivers(self.spread.draw(count, chance), self.params.seed, first)

    async def memory(self) -> None:
        """What does an open stream cost? First of all, while the service has no memory to spare from earlier work."""
        params = self.params
        self.steps.begin(f"{params.idle_streams:,} idle streams")
        drivers = self._drivers(params.idle_streams + WARM_STREAMS, IDLE_FROM)
        connections = max(params.connections, params.idle_streams // 100)
        load = StreamLoad(self.stage.address, CITY_ID, self.stage.token_key, drivers, connections, params.seconds)
        run = await self.hand.do(run_idle_streams, load, self.stage.service_pid)
        self.notebook.check_tally("idle streams", run.tally)
        self.notebook.note(kb_per_stream=run.kb_per_stream)

    async def streams(self) -> None:
        """Single drivers' streams and the server that discards, in turn."""
        params, stage_ = self.params, self.stage
        drivers = self._drivers(params.streams, 0)
        async with discarding(stage_.folder) as discard_address, stage_.calls(stage_.cities[0]) as calls:
            await calls.tell(drivers.ids)

            async def once(discards: bool, seconds: float) -> StreamRun:
                address = discard_address if discards else stage_.address
                load = StreamLoad(address, CITY_ID, stage_.token_key, drivers, params.connections, seconds, discards=discards)
                run = await self.hand.do(run_streams, load)
                self.notebook.check_tally(
                    "discarded streams" if discards else "streams",
                    run.tally,
                    frozenset() if discards else frozenset({"SUPERSEDED"}),
                )
                return run

            self.steps.begin("warming up streams")
            await once(True, _WARM_S * params.seconds)
            await once(False, _WARM_S * params.seconds)
            for repeat in range(1, params.repeats + 1):
                self.steps.begin(f"streams that are discarded, {repeat} of {params.repeats}")
                discarded = await once(True, params.seconds)
                self.steps.begin(f"single drivers' streams, {repeat} of {params.repeats}")
                ours = await once(False, params.seconds)
                self.notebook.note(
                    stream_vs_discard=ours.rate / discarded.rate,
                    streams_per_s=ours.rate,
                    streams_accepted_per_s=ours.accepted_rate,
                    discard_per_s=discarded.rate,
                )
            self.steps.begin("are they where they said?")
            await self._check(drivers, ours, "streams")
            await calls.tell(drivers.ids, version=2, available=False)

    async def columns(self) -> None:
        """Columns and the bare store, in turn."""
        params, stage_ = self.params, self.stage
        drivers = self._drivers(params.drivers, COLUMNS_FROM)
        async with stage_.calls(stage_.cities[0]) as calls:
            self.steps.begin("warming up columns")
            await calls.tell(drivers.ids)

            async def once(seconds: float) -> ColumnRun:
                load = ColumnLoad(
                    stage_.address, CITY_ID, stage_.fleet_token, drivers, params.fleet_streams, params.rows, seconds
                )
                run = await self.hand.do(run_columns, load)
                self.notebook.check_tally("columns", run.tally)
                return run

            async def bare(seconds: float) -> float:
                run = await self.hand.do(run_geoadd, stage_.redis_url, drivers, params.index_resolution, seconds)
                unanswered = [] if run.sent == run.answered else [f"GEOADD: {run.sent:,} sent, {run.answered:,} answered"]
                self.notebook.check("commands sent and answered", unanswered, run.sent)
                return run.rate

            await bare(_WARM_S * params.seconds)
            await once(_WARM_S * params.seconds)
            for repeat in range(1, params.repeats + 1):
                self.steps.begin(f"GEOADD, {repeat} of {params.repeats}")
                geoadd_per_s = await bare(params.seconds)
                self.steps.begin(f"columns, {repeat} of {params.repeats}")
                ours = await once(params.seconds)
                self.notebook.note(columns_vs_geoadd=ours.rate / geoadd_per_s, columns_per_s=ours.rate, geoadd_per_s=geoadd_per_s)
            self.steps.begin("are they where they said?")
            await self._check(drivers, ours, "columns")
            counted = await calls.supply()
            uncounted = [] if counted == len(drivers) else [f"supply: {counted:,} drivers counted of {len(drivers):,}"]
            self.notebook.check("drivers counted", uncounted, len(drivers))

    async def _check(self, drivers: Drivers, run: StreamRun | ColumnRun, what: str) -> None:
        """Is everyone where the last fix said, and found there?"""
        city = self.stage.cities[0]
        expected_e7 = drivers.at_steps(run.last_steps)
        chance = generator(self.params.seed, "places", what)
        places = [(float(lat), float(lng)) for lat, lng in self.spread.draw(_PLACES, chance)]
        async with self.stage.calls(city) as calls:
            await self.notebook.check_positions(what, calls, expected_e7)
            answers = await calls.nearby(places, _NEAREST)
        self.notebook.check_answers(what, places, answers, _NEAREST, expected_e7, self.stage.radius_m(city))
