"""What does a rider do? Asks for a price, requests the ride, watches it, and gives up when nobody comes for too long."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from hexhail.client import RideState, RideView, RpcError
from hexhail.kernel.errors import DomainError
from hexhail.kernel.randomness import generator
from simulator.ledger import Outcome, RideRecord
from simulator.waiting import happens, kept_open

if TYPE_CHECKING:
    from hexhail.client import QuoteView, RiderApp
    from hexhail.kernel.geo import Place
    from simulator.world import World


class Rider:
    """One request and its rider."""

    def __init__(self, world: World, number: int, app: RiderApp, stops: tuple[Place, Place], product: str) -> None:
        self._world = world
        self._number = number
        self._app = app
        self._stops = stops
        self._product = product
        self._ride: RideView | None = None
        self._patient = asyncio.Event()
        """Set once there is nothing to be impatient about: a driver was named, the ride is final, or the run is over."""

    async def ride(self) -> None:
        """From the wish to the end of the ride."""
        world = self._world
        world.ledger.due += 1
        try:
            quotes = await self._app.quotes(self._stops, [self._product])
        except (DomainError, RpcError) as error:
            world.ledger.not_quoted[_why(error)] += 1
            return
        if world.closing.is_set():
            world.ledger.not_quoted["RUN_OVER"] += 1
            return
        record = RideRecord(self._app.rider_id, self._stops[0], time.perf_counter())
        world.ledger.rides.append(record)
        if await self._request(record, quotes[0]):
            await self._through(record)

    def close(self) -> None:
        """The run is over: a ride that has not begun is cancelled."""
        self._patient.set()

    async def _request(self, record: RideRecord, quote: QuoteView) -> bool:
        try:
            self._ride = await self._app.request_ride(quote, self._stops)
        except (DomainError, RpcError) as error:
            record.failed = _why(error)
            return False
        record.state = self._ride.state
        return True

    async def _through(self, record: RideRecord) -> None:
        watching = self._world.begin(self._watch(record))
        if self._world.closing.is_set():
            self._patient.set()
        chance = generator(self._world.params.seed, "rider", self._number)
        await happens(self._patient, chance.uniform(*self._world.params.rider_patience_s))
        if record.outcome is Outcome.OPEN and not self._world.closing.is_set():
            await self._cancel()
        await self._until_over(watching)

    async def _until_over(self, watching: asyncio.Task[None]) -> None:
        """Waits for the ride's end; where the run is over first, gives it up as long as it has not begun."""
        over = asyncio.ensure_future(self._world.closing.wait())
        try:
            await asyncio.wait((watching, over), return_when=asyncio.FIRST_COMPLETED)
            if not watching.done() and self._ride is not None and self._ride.state is not RideState.IN_PROGRESS:
                await self._cancel()
            await asyncio.wait((watching,))
        finally:
            over.cancel()

    async def _cancel(self) -> None:
        if self._ride is None:
            return
        try:
            async with self._world.doors:
                await self._app.cancel(self._ride.ride_id)
        except (DomainError, RpcError):
            pass  # it has begun, or is over: the watch says which; counted where all calls are

    async def _watch(self, record: RideRecord) -> None:
        try:
            await kept_open("WatchRide", lambda: self._look(record), self._goes_on, self._world.ledger.reopened)
        except (DomainError, RpcError):
            self._world.ledger.reopened["WatchRide given up"] += 1
        finally:
            self._patient.set()

    def _goes_on(self) -> bool:
        return self._ride is not None and not self._ride.state.is_final

    async def _look(self, record: RideRecord) -> None:
        if self._ride is None:
            return
        # The first watch begins with the ride as it is: a change since the request's answer is not missed.
        async for view in self._app.watch_ride(self._ride.ride_id):
            if isinstance(view, RideView):
                self._told(view, record)

    def _told(self, ride: RideView, record: RideRecord) -> None:
        world = self._world
        if self._ride is None or ride.version < self._ride.version:
            return
        named_before = record.named_s is not None
        self._ride = ride
        record.told(ride, time.perf_counter())
        world.ledger.witness.told(ride)
        if record.named_s is not None and not named_before:
            waited_s = record.named_s - record.sent_s
            driver_id = ride.assignment.driver_id if ride.assignment is not None else ""
            world.tell(f"{driver_id} drives {record.rider_id}, found in {waited_s:.1f} s")
        if record.outcome is not Outcome.OPEN:
            self._patient.set()
        if ride.state is RideState.COMPLETED:
            world.tell(f"{record.rider_id} is there: {ride.fare_minor / 100:.2f} {ride.currency_code}")
        elif ride.state.is_final:
            world.tell(f"{record.rider_id}: {ride.state.replace('_', ' ').lower()}")


def _why(error: DomainError | RpcError) -> str:
    return str(error.reason) if isinstance(error, DomainError) else error.code
