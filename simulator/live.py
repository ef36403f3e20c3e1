"""A live run: a city's riders and drivers as clients of its services, from the first driver online to the last one home."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hexhail.client import Channels, DriverApp, FleetApp, OperatorApp, RiderApp, Role, RpcError
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.errors import DomainError
from hexhail.kernel.geo import Place
from hexhail.kernel.randomness import generator
from simulator.driver import Driver
from simulator.fleet import Fleet, Reporter
from simulator.progress import Gathering
from simulator.rider import Rider
from simulator.summary import rides_now, summary_of
from simulator.traffic import Traffic
from simulator.waiting import happens
from simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from hexhail.client import Addresses
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.units import Floats
    from routing.model import Router
    from simulator.params import LiveParams
    from simulator.progress import Progress
    from simulator.requests import RideRequests
    from simulator.summary import Summary
    from simulator.witness import Interval

XL_SHARE = 0.15
"""Of the drivers: so many have the large car as well."""
XL_PASSENGERS = 5
"""From so many passengers on, a rider asks for the large car."""

DRIVER_ATTEMPTS = 12
"""A driver with a rider in the car does not give up while a service restarts: about ten seconds."""


class LiveRun:
    """One run, step by step; `run_live` takes all of them."""

    def __init__(
        self,
        params: LiveParams,
        requests: RideRequests,
        starts: Floats,
        router: Router,
        addresses: Addresses,
        tokens: Callable[[Role, str], str],
        *,
        clock: Clock | None = None,
    ) -> None:
        """`starts` : float64[n_drivers, 2], lat and lng in degrees. The clock is the services' own (its offset, that is)."""
        channels = Channels(addresses, per_service=params.channels_per_service)
        traffic = Traffic(params.traffic, params.seed, Place(*starts.mean(axis=0).tolist())) if params.traffic else None
        self.world = World(params, channels, clock or SystemClock(), router, Fleet(params, starts), tokens, traffic)
        self._requests = requests
        self._operator = OperatorApp(channels, params.city, "simulator", tokens(Role.OPERATOR, "simulator"))
        self._apps = [
            DriverApp(channels, params.city, driver_id, tokens(Role.DRIVER, driver_id), attempts=DRIVER_ATTEMPTS)
            for driver_id in params.driver_ids()
        ]
        self.drivers = [Driver(self.world, index, app) for index, app in enumerate(self._apps)]
        fleet_token = tokens(Role.FLEET, params.fleet)
        gateways = [
            FleetApp(channels, params.city, params.fleet, fleet_token, gateway) for gateway in range(params.fleet_streams)
        ]
        self._reporter = Reporter(self.world, gateways, self._apps[: params.single_stream_drivers])
        self.gathering = Gathering(self.world)
        self.phase = "drivers register"
        self.ended_s = 0.0
        self._riders: set[Rider] = set()
        self._working: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Every driver is registered, reports, and waits for offers; sooner over where `closing` is set meanwhile.

        Raises DomainError or RpcError where drivers cannot be registered.
        """
        registered = await asyncio.gather(*(self._register(i) for i in range(len(self.drivers))), return_exceptions=True)
        for error in registered:
            if error is not None:
                raise error
        if self.world.closing.is_set():
            return
        self.phase = "drivers come online"
        self._reporter.begin()
        self._working = [self.world.begin(driver.work()) for driver in self.drivers]
        ready = asyncio.gather(*(driver.ready.wait() for driver in self.drivers))
        closing = asyncio.ensure_future(self.world.closing.wait())
        try:
            await self._unless_failed(asyncio.ensure_future(_first_of(ready, closing)))
        finally:
            ready.cancel()
            closing.cancel()

    async def open_unless(self, stop: asyncio.Event) -> None:
        """The same, given up as soon as `stop` is set: calls under way end by themselves."""
        opening, stopping = asyncio.ensure_future(self.open()), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                self.world.closing.set()
            await opening
        finally:
            stopping.cancel()

    async def serve(self, stop: asyncio.Event) -> None:
        """Riders make their requests, until the time is over or until told to stop."""
        self.phase = "open"
        self.gathering.begun_s = self.world.now_s()
        making = self.world.begin(self._make_requests())
        self.world.begin(self._read_surge())
        minutes = self.world.params.minutes
        over = asyncio.ensure_future(happens(stop, minutes * 60.0) if minutes is not None else stop.wait())
        try:
            await self._unless_failed(over)
        finally:
            self.ended_s = self.world.now_s()
            making.cancel()

    async def close(self) -> int:
        """Winds down in order, so that every stream ends by itself. How many tasks had to be cut off?

        Rides that have not begun are cancelled by their riders, the others completed by their drivers; then drivers go offline,
        which ends their sessions, and the fixes' streams are closed on our side and read to their end.
        """
        world = self.world
        self.phase = "closing: rides end"
        world.closing.set()
        for rider in self._riders:
            rider.close()
        for driver in self.drivers:
            driver.close()
        try:
            async with asyncio.timeout(world.params.wind_down_s):
                lasting = {*self._working, *self._reporter.tasks}
                while busy := world.tasks - lasting:
                    await asyncio.wait(busy)
                self.phase = "closing: drivers go home"
                await asyncio.gather(*(driver.go_home() for driver in self.drivers))
                await self._reporter.end()
                while world.tasks:
                    await asyncio.wait(set(world.tasks))
        except TimeoutError:
            pass  # what is left is cut off, and counted, just below
        left = set(world.tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        return len(left)

    async def _register(self, index: int) -> None:
        params = self.world.params
        chance = generator(params.seed, "driver-card", index)
        capabilities = ("economy", "xl") if chance.random() < XL_SHARE else ("economy",)
        rating_milli = round(chance.uniform(*params.rating_milli))
        async with self.world.doors:
            if not self.world.closing.is_set():
                await self._operator.upsert_driver(self._apps[index].driver_id, capabilities, rating_milli)

    async def _make_requests(self) -> None:
        world, requests = self.world, self._requests
        begun_s = asyncio.get_running_loop().time()
        for number in range(len(requests)):
            wait_s = begun_s + float(requests.at_s[number]) - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            world.begin(self._ride(self._rider(number)))

    async def _ride(self, rider: Rider) -> None:
        self._riders.add(rider)
        try:
            await rider.ride()
        finally:
            self._riders.discard(rider)

    def _rider(self, number: int) -> Rider:
        world, requests = self.world, self._requests
        rider_id = f"r{number + 1:06d}"
        app = RiderApp(world.channels, world.params.city, rider_id, world.tokens(Role.RIDER, rider_id))
        stops = (Place(*requests.pickup[number].tolist()), Place(*requests.dropoff[number].tolist()))
        product = "xl" if requests.passengers[number] >= XL_PASSENGERS else "economy"
        return Rider(world, number, app, stops, product)

    async def _read_surge(self) -> None:
        # Read, not watched: a watcher can leave WatchSurge only by cancelling it, which would count as an error.
        world = self.world
        begun_s = world.now_s()
        while not world.closing.is_set():
            with contextlib.suppress(DomainError, RpcError):  # counted where all calls are; the next reading may succeed
                world.ledger.surge.told(await self._operator.surge(world.params.city), world.now_s() - begun_s)
            await happens(world.closing, world.params.surge_poll_s)

    async def _unless_failed(self, work: asyncio.Future[Any]) -> None:
        """Waits for the work; raises the first defect of any person instead."""
        failing = asyncio.ensure_future(self.world.failed.wait())
        try:
            await asyncio.wait((work, failing), return_when=asyncio.FIRST_COMPLETED)
            if self.world.failure is not None:
                raise self.world.failure
            await work
        finally:
            failing.cancel()
            work.cancel()


async def run_live(
    params: LiveParams,
    requests: RideRequests,
    starts: Floats,
    router: Router,
    addresses: Addresses,
    tokens: Callable[[Role, str], str],
    *,
    stop: asyncio.Event,
    clock: Clock | None = None,
    progress: Progress | None = None,
    rows_dropped: Mapping[str, int] | None = None,
) -> tuple[Summary, list[Interval]]:
    """Lets a city live for a while: what came of it, and who was bound to which ride from when to when?

    Ends after `params.minutes`, or when `stop` is set. `tokens` mints a bearer token for a role and a subject. Raises
    DomainError or RpcError where the services cannot be reached.
    """
    run = LiveRun(params, requests, starts, router, addresses, tokens, clock=clock)
    showing = asyncio.ensure_future(_show(run, progress)) if progress is not None else None
    try:
        await run.open_unless(stop)
        if not stop.is_set():
            await run.serve(stop)
        rides = rides_now(run.world.ledger)
    finally:
        cut_off = await run.close()
        if showing is not None:
            showing.cancel()
            await asyncio.wait((showing,))
        await run.world.channels.close()
    for defect in (run.world.failure, showing.exception() if showing is not None and not showing.cancelled() else None):
        if defect is not None:
            raise defect
    begun_s = run.gathering.begun_s
    summary = summary_of(
        rides,
        run.world.ledger,
        run.world.channels.counts,
        params,
        cut_off=cut_off,
        seconds=0.0 if begun_s is None else run.ended_s - begun_s,
        rows_dropped=rows_dropped or {},
    )
    return summary, run.world.ledger.witness.intervals()


async def _first_of(*work: asyncio.Future[Any]) -> None:
    await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)


async def _show(run: LiveRun, progress: Progress) -> None:
    while True:
        progress.update(run.gathering.state(run.phase))
        await asyncio.sleep(progress.period_s)
