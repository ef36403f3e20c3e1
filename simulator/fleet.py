"""Where are all cars, and how do their positions get to the location service? In columns, the drivers due at each tick."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from hexhail.client import FixAckView, FixReport, FleetFixes
from hexhail.kernel.geo import Place
from hexhail.kernel.randomness import generator
from hexhail.kernel.units import MS_PER_S
from simulator.motion import Motion
from simulator.waiting import kept_open

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hexhail.client import DriverApp, FleetApp, SessionView
    from hexhail.kernel.units import Bools, Floats, Ints
    from simulator.motion import Positions
    from simulator.params import LiveParams
    from simulator.world import World

LANE_DEPTH = 8
"""So many ticks may wait for a slow stream."""


class Fleet:
    """The cars of a run, one row each.

    busy : bool[n], bound to a ride
    """

    def __init__(self, params: LiveParams, starts: Floats) -> None:
        """`starts` : float64[n, 2], lat and lng in degrees."""
        self.ids = params.driver_ids()
        if len(starts) != len(self.ids):
            raise ValueError(f"{len(starts)} starts for {len(self.ids)} drivers")
        self.motion = Motion(starts)
        self.busy: Bools = np.zeros(len(self.ids), dtype=np.bool_)
        self._sequence: Ints = np.zeros(len(self.ids), dtype=np.int64)

    def __len__(self) -> int:
        """How many cars?"""
        return len(self.ids)

    def sequences(self, drivers: Ints) -> Ints:
        """The next number of each of these drivers' fixes: int64[n]."""
        self._sequence[drivers] += 1
        return self._sequence[drivers]

    def positions(self, drivers: Ints, now_s: float) -> Positions:
        """Where are these drivers now?"""
        return self.motion.positions(drivers, now_s)

    def everyone(self, now_s: float) -> Floats:
        """Where is everyone? float64[n, 2], lat and lng in degrees."""
        return self.positions(np.arange(len(self)), now_s).places


class Lane(ABC):
    """One stream of fixes: the drivers due are put in, and leave with the positions that they have at that moment."""

    name: str

    def __init__(self, world: World) -> None:
        self._world = world
        self._due: asyncio.Queue[Ints | None] = asyncio.Queue(maxsize=LANE_DEPTH)
        self._closed = False

    def put(self, drivers: Ints) -> None:
        """These drivers are due. Where the stream takes nobody just now, the oldest wait in vain: they will be due again."""
        _put(self._due, drivers)

    def close(self) -> None:
        """Nobody is due any more: the stream ends once all is acknowledged."""
        self._closed = True
        _put(self._due, None)

    async def run(self) -> None:
        """Reports until closed; opens the stream again where it ends early."""
        await kept_open(self.name, self._once, lambda: not self._closed, self._world.ledger.reopened)

    async def _once(self) -> None:
        if self._closed:
            return
        due = self._due = asyncio.Queue(maxsize=LANE_DEPTH)  # what an earlier stream left is out of date
        try:
            async for answer in self._stream(due):
                self._told(answer)
        finally:
            _put(due, None)

    def _told(self, answer: SessionView | FixAckView) -> None:
        if isinstance(answer, FixAckView):
            self._world.ledger.fixes.told(answer)

    @abstractmethod
    def _stream(self, due: asyncio.Queue[Ints | None]) -> AsyncIterator[SessionView | FixAckView]: ...


def _put(due: asyncio.Queue[Ints | None], drivers: Ints | None) -> None:
    if due.full():
        due.get_nowait()
    due.put_nowait(drivers)


class FleetLane(Lane):
    """A gateway's stream of many drivers' fixes."""

    name = "StreamFleetFixes"

    def __init__(self, world: World, app: FleetApp) -> None:
        super().__init__(world)
        self._app = app

    def _stream(self, due: asyncio.Queue[Ints | None]) -> AsyncIterator[SessionView | FixAckView]:
        return self._app.stream_fleet_fixes(self._batches(due))

    async def _batches(self, due: asyncio.Queue[Ints | None]) -> AsyncIterator[FleetFixes]:
        fleet = self._world.fleet
        row_of = np.full(len(fleet), -1, dtype=np.int64)
        rows = 0
        while (drivers := await due.get()) is not None:
            new = drivers[row_of[drivers] < 0]
            row_of[new] = np.arange(rows, rows + len(new))
            rows += len(new)
            now_ms = self._world.clock.now_ms()
            at = fleet.positions(drivers, now_ms / MS_PER_S)
            self._world.ledger.fixes.sent += len(drivers)
            yield FleetFixes(
                new_driver_ids=tuple(fleet.ids[driver] for driver in new.tolist()),
                driver_index=row_of[drivers],
                sequence=fleet.sequences(drivers),
                device_time_ms=np.full(len(drivers), now_ms),
                lat=at.places[:, 0],
                lng=at.places[:, 1],
                heading_deg=np.where(at.speed_mps > 0, at.heading_deg, np.nan),
                speed_mps=at.speed_mps,
            )


class SingleLane(Lane):
    """One driver's own stream. It reports as often as it is told to."""

    name = "StreamFixes"

    def __init__(self, world: World, app: DriverApp) -> None:
        super().__init__(world)
        self._app = app
        self._interval_s = world.params.report_interval_s
        self._reported_s = -math.inf

    def is_due(self, now_s: float, tick_s: float) -> bool:
        """Is the next report due, as near as ticks allow?"""
        return now_s - self._reported_s >= self._interval_s - tick_s / 2

    def report(self, driver: int, now_s: float) -> None:
        """The driver is due."""
        self._reported_s = now_s
        self.put(np.array([driver]))

    def _told(self, answer: SessionView | FixAckView) -> None:
        super()._told(answer)
        if answer.report_interval_ms:
            self._interval_s = answer.report_interval_ms / MS_PER_S

    def _stream(self, due: asyncio.Queue[Ints | None]) -> AsyncIterator[SessionView | FixAckView]:
        return self._app.stream_fixes(self._reports(due))

    async def _reports(self, due: asyncio.Queue[Ints | None]) -> AsyncIterator[FixReport]:
        fleet = self._world.fleet
        sequence = 0
        while (drivers := await due.get()) is not None:
            now_ms = self._world.clock.now_ms()
            at = fleet.positions(drivers, now_ms / MS_PER_S)
            sequence += 1
            self._world.ledger.fixes.sent += 1
            lat, lng = at.places[0].tolist()
            speed_mps = float(at.speed_mps[0])
            heading_deg = float(at.heading_deg[0]) if speed_mps > 0 else None
            yield FixReport(sequence, now_ms, Place(lat, lng), heading_deg, speed_mps)


class Reporter:
    """Who is due when: each driver once in every interval, all of them spread evenly over it.

    Those who report by themselves begin so, and then keep to what location tells them.
    """

    def __init__(self, world: World, fleet_apps: Sequence[FleetApp], driver_apps: Sequence[DriverApp]) -> None:
        """The first drivers report by themselves, through these apps; all others through the fleet's gateways."""
        params = world.params
        self._world = world
        self._gateways = [FleetLane(world, app) for app in fleet_apps]
        self._singles = [SingleLane(world, app) for app in driver_apps]
        self._slots = max(1, round(params.report_interval_s / params.report_tick_s))
        order = generator(params.seed, "report-slots").permutation(params.drivers)
        self._due = [np.sort(order[slot :: self._slots]) for slot in range(self._slots)]
        self._begun: set[int] = set()
        """Drivers that report by themselves and have had their first turn."""
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Everybody begins to report."""
        lanes = [self._world.begin(lane.run()) for lane in (*self._gateways, *self._singles)]
        self.tasks = [self._world.begin(self._tick()), *lanes]

    async def end(self) -> None:
        """Everybody reports no more; returns once all streams have ended."""
        if not self.tasks:
            return
        self.tasks[0].cancel()
        for lane in (*self._gateways, *self._singles):
            lane.close()
        await asyncio.wait(self.tasks)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        period_s = self._world.params.report_interval_s / self._slots
        begun_s, count = loop.time(), 0
        while True:
            self._send(count % self._slots)
            count += 1
            late_s = loop.time() - begun_s - count * period_s
            if late_s > self._world.params.report_interval_s:  # a stall of a whole interval: nobody reports twice at once
                begun_s += late_s
            await asyncio.sleep(max(0.0, -late_s))

    def _send(self, slot: int) -> None:
        due = self._due[slot]
        own, others = due[due < len(self._singles)], due[due >= len(self._singles)]
        self._begun.update(own.tolist())
        now_s, tick_s = asyncio.get_running_loop().time(), self._world.params.report_tick_s
        for driver in sorted(self._begun):
            if self._singles[driver].is_due(now_s, tick_s):
                self._singles[driver].report(driver, now_s)
        if len(others):
            self._gateways[slot % len(self._gateways)].put(others)
