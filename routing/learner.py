"""Learns a city's traffic from its fleet, and publishes it for all services of the machine."""

from __future__ import annotations

import asyncio
import fcntl
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import structlog

from hexhail.kernel.errors import DomainError
from hexhail.kernel.units import MS_PER_S
from routing.cache_files import PART
from routing.knowledge import MemoryParams, beliefs_in, nothing_known, observed
from routing.learning import hours_of
from routing.moves import Anchors, MoveParams, Sightings, Stretches, moved_on, plausible
from routing.patches import patches_of
from routing.published import router_in
from routing.road import RoadRouter
from routing.road_files import RoutingFileError
from routing.state_file import read_state, state_of, write_state
from routing.tables import drop_tables
from routing.traffic import Observations, TrafficParams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Floats, Ints
    from routing.joining import JoinedRouter
    from routing.knowledge import Knowledge

log = structlog.get_logger(__name__)

KEPT_TABLES: Final = 3
"""Tables of the newest states that stay in the folder: a service may be about to map the last but one."""

RETRY_S: Final = 1.0
REPEAT_S: Final = 900.0
"""What is known is said again after so long, though nobody drove: the hour may be another."""


@dataclass(frozen=True, slots=True)
class LearnerParams:
    """The `[routing.traffic]` section of a city's file. Source: our choice.

    publish_period_s : how often new traffic is published, where there is any; at most REPEAT_S
    fewest_stretches : with fewer, nothing is published yet
    """

    publish_period_s: float = 60.0
    fewest_stretches: int = 20
    traffic: TrafficParams = field(default_factory=TrafficParams)
    memory: MemoryParams = field(default_factory=MemoryParams)
    moves: MoveParams = field(default_factory=MoveParams)

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        if not 1 <= self.publish_period_s <= REPEAT_S:
            raise ValueError(f"publish_period_s must be 1 to {REPEAT_S:.0f}")
        if self.fewest_stretches < 1:
            raise ValueError("fewest_stretches must be 1 or more")


@dataclass(frozen=True, slots=True, eq=False)
class FleetNews:
    """What was heard of a city's drivers: columns of one length, and who is gone.

    snapshot : all drivers there are; who is not among them is gone
    driver_ids : n of them
    places : float64[n, 2], lat and lng in degrees
    at_ms, doing : int64[n], receipt in Unix milliseconds, availability
    """

    snapshot: bool
    driver_ids: list[str]
    places: Floats
    at_ms: Ints
    doing: Ints
    gone: list[str]


class Fleet(Protocol):
    """Whoever knows where a city's drivers are."""

    def watch(self) -> AsyncIterator[FleetNews]:
        """All drivers, then those that change. Raises PEER_UNAVAILABLE where it breaks off."""
        ...


class Learner:
    """The learner of one city.

    What it remembers of drivers are the last junctions and places of each, for as long as they are heard of, and in memory alone.
    """

    def __init__(self, base: JoinedRouter, path: Path, time_zone: str, params: LearnerParams, clock: Clock) -> None:
        """`path` is where it publishes. Goes on from what is there, where that is of these streets."""
        self._base = base
        self._path = path
        self._time_zone = time_zone
        self._params = params
        self._clock = clock
        self._patches = patches_of(base.free_flow)
        self._number = 0
        self._published_at_ms = 0
        self._knowledge: Knowledge = nothing_known(
            self._patches,
            clock.now_ms(),
            terminal_s=base.params.terminal_s,
            leg_s_per_m=1.0 / base.params.approach_speed_mps,
        )
        self._present = base
        self._numbers: dict[str, int] = {}
        self._unused: list[int] = []
        self._anchors = Anchors.none()
        self._stretches: list[Stretches] = []
        self.learned_from = 0
        """Stretches, so far."""

    async def run(self, fleet: Fleet) -> None:
        """Learns and publishes, for ever; where another learner of this city runs on this machine, waits until it ends."""
        with self._alone() as alone:
            while not alone():
                await self._clock.sleep(RETRY_S)
            self._resume()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(fleet))
                while True:
                    try:
                        await self.publish()
                    except (OSError, ValueError) as error:
                        log.warning("traffic cannot be published", problem=str(error))
                    await self._clock.sleep(self._params.publish_period_s)

    def hear(self, news: FleetNews) -> None:
        """Takes in where drivers are."""
        if news.snapshot:
            self._forget(sorted(set(self._numbers) - set(news.driver_ids)))
        self._forget(news.gone)
        if not news.driver_ids:
            return
        snapped = self._base.snap(news.places)
        drivers = np.array([self._number_of(driver_id) for driver_id in news.driver_ids], dtype=np.int64)
        seen = Sightings(drivers, news.places, news.at_ms, news.doing, snapped.nodes, snapped.gap_m)
        self._anchors, stretches = moved_on(self._anchors, seen, self._base.free_flow, self._params.moves)
        if len(stretches):
            self._stretches.append(stretches)

    async def publish(self) -> bool:
        """Learns from what was driven since the last time, and publishes.

        False where there is nothing new to say: too little was driven, and what is usual was said not long ago. Raises OSError
        where the folder cannot be written, ValueError where no router can be made of what is thought: what was learned is kept.
        """
        heard, now_ms = self._stretches[:], self._clock.now_ms()
        enough = sum(len(each) for each in heard) >= self._params.fewest_stretches
        due = abs(now_ms - self._published_at_ms) >= REPEAT_S * MS_PER_S and not self._knowledge.is_none
        if not (enough or due):
            return False
        del self._stretches[: len(heard)]  # more may have come meanwhile, from the thread that hears
        count = await asyncio.to_thread(self._learn, heard, now_ms)
        self.learned_from += count
        log.info("traffic learned", stretches=count, number=self._number, version=self._present.version)
        return True

    def _learn(self, heard: list[Stretches], now_ms: int) -> int:
        hour = int(hours_of(np.array([now_ms]), self._time_zone)[0])
        seen = self._observations(heard)
        params = self._params
        self._knowledge = observed(self._knowledge, seen, hour, now_ms, self._patches, params.traffic, params.memory)
        beliefs = beliefs_in(self._knowledge, hour, self._patches, params.traffic)
        state = state_of(self._base, self._patches, self._knowledge, beliefs, self._number + 1)
        try:
            router = router_in(self._base, state)  # its tables are there before anybody hears of it
            write_state(self._path, state)
            self._present, self._number, self._published_at_ms = router, state.number, now_ms
        finally:
            self._clear_tables()
        return len(seen)

    def _observations(self, heard: list[Stretches]) -> Observations:
        none = Stretches(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        every = [none, *heard]
        starts, ends = (np.concatenate([getattr(each, name) for each in every]) for name in ("starts", "ends"))
        taken_s = np.concatenate([each.taken_s for each in every])
        driving = self._patches.of_ways(*self._present.ways(starts, ends))
        free_s = np.asarray(driving.sum(axis=1), dtype=np.float64)
        good = np.flatnonzero(plausible(taken_s, free_s, self._params.traffic.min_slowness, self._params.traffic.max_slowness))
        return Observations(driving[good], np.zeros(len(good)), taken_s[good], np.zeros(len(good), dtype=np.bool_))

    async def _listen(self, fleet: Fleet) -> None:
        while True:
            try:
                async for news in fleet.watch():
                    await asyncio.to_thread(self.hear, news)  # 0.1 s for 50,000 drivers
            except DomainError as error:
                log.warning("no news of the fleet", reason=error.reason)
            await self._clock.sleep(RETRY_S)

    def _resume(self) -> None:
        for left in self._path.parent.glob(f"{self._path.stem}*{PART}"):
            left.unlink(missing_ok=True)  # by a learner that was killed while it wrote
        try:
            state = read_state(self._path, self._base.free_flow, len(self._patches))
        except FileNotFoundError:
            return
        except RoutingFileError as error:
            log.warning("traffic is learned anew", problem=str(error))
            return
        self._number, self._knowledge = state.number, state.knowledge

    def _number_of(self, driver_id: str) -> int:
        number = self._numbers.get(driver_id)
        if number is None:
            number = self._unused.pop() if self._unused else len(self._numbers)
            self._numbers[driver_id] = number
        return number

    def _forget(self, driver_ids: list[str]) -> None:
        gone = [self._numbers.pop(driver_id) for driver_id in driver_ids if driver_id in self._numbers]
        if gone:
            self._unused += gone
            self._anchors = self._anchors.without(np.array(gone, dtype=np.int64))

    def _clear_tables(self) -> None:
        """Those of states gone by, and of one that could not be published."""
        base = self._base
        if isinstance(base, RoadRouter) and base.tables_dir is not None:
            drop_tables((base.free_flow, self._present.graph), base.tables_dir, KEPT_TABLES - 1)

    @contextmanager
    def _alone(self) -> Iterator[Callable[[], bool]]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".learner").open("w") as lock:

            def taken() -> bool:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            yield taken
