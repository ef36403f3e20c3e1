"""What is due? PostgreSQL holds every deadline; local timers are prompt, and a sweep twice a second forgets nobody.

Whoever acts on a ride has leased it. A worker that dies with it in its hands delays it by the lease and a sweep at the most: less
than 2 s. A living one that needs longer keeps its lease.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.units import MS_PER_S
from hexhail.rpc.background import end
from matching.lateness import Lateness
from matching.model import OPEN, DeadlinePassed, RiderFoundBusy, RideState
from matching.offers import search_is_over
from matching.pickup_times import PickupTimes
from matching.store import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.changer import Changer
    from matching.model import Ride
    from matching.offers import OfferParams
    from matching.searcher import Searcher
    from matching.store import Rides

log = structlog.get_logger(__name__)

LEASE_MS = 1_000
SWEEP_PERIOD_S = 0.5
_SWEEPS_AT_ONCE = 4
"""One that waits for a peer which does not answer holds up no other ride."""
_TIMER_HORIZON_MS = 60_000
_BATCH = 64


class Timekeeper:
    """Acts on rides whose deadline has come, exactly one worker at a time."""

    def __init__(
        self, rides: Rides, changer: Changer, searcher: Searcher, clock: Clock, params: Mapping[CityId, OfferParams]
    ) -> None:
        self._rides = rides
        self._changer = changer
        self._searcher = searcher
        self._clock = clock
        self._params = params
        self._pickup_times = PickupTimes()
        self.lateness = Lateness()
        self._timers: set[asyncio.Task[None]] = set()
        self._sleeping: dict[str, asyncio.Task[None]] = {}
        """Those that may still be cancelled: one that acts has claims in its hands."""
        self._in_hand: dict[tuple[str, int], Ride] = {}
        """By id and version."""
        self._sweeps: set[asyncio.Task[int]] = set()
        changer.lease = self.lease
        changer.on_change = self.notice

    def lease(self, ride: Ride) -> int:
        """Until when is a ride ours that is committed now? A search that is due at once need not be leased afterwards; else 0."""
        now_ms = self._clock.now_ms()
        due = ride.next_deadline_ms is not None and ride.next_deadline_ms <= now_ms
        return now_ms + LEASE_MS if due and ride.state is RideState.SEARCHING else 0

    def notice(self, ride: Ride, leased: bool) -> None:
        """What a change of a ride means here: another deadline, and now and then a pickup to learn from."""
        self._pickup_times.see(ride)
        self.set_timer(ride, leased=leased)

    def set_timer(self, ride: Ride, *, leased: bool = False) -> None:
        """Wakes up at the ride's deadline, unless it is so far away that the sweep will do. One that is leased is due."""
        sleeping = self._sleeping.pop(ride.ride_id, None)
        if sleeping is not None:
            sleeping.cancel()
        if ride.next_deadline_ms is None:
            return
        wait_ms = ride.next_deadline_ms - self._clock.now_ms()
        if wait_ms > _TIMER_HORIZON_MS:
            return
        work = self._act_now(ride) if leased else self._ring(ride.ride_id, wait_ms)
        timer = asyncio.create_task(work, name=f"timer {ride.ride_id}")
        if not leased:
            self._sleeping[ride.ride_id] = timer
        self._timers.add(timer)
        timer.add_done_callback(self._forget)

    async def sweep(self) -> int:
        """Acts on all rides that are overdue and that nobody has in hand; how many?"""
        count = 0
        while True:
            due = await self._rides.lease_due(self._clock.now_ms(), LEASE_MS, _BATCH)
            await asyncio.gather(*(self._act(ride) for ride in due))
            count += len(due)
            if len(due) < _BATCH:
                return count

    async def run(self) -> None:
        """Sweeps twice a second, for ever."""
        try:
            while True:
                if len(self._sweeps) < _SWEEPS_AT_ONCE:
                    sweep = asyncio.create_task(self.sweep(), name="sweep")
                    self._sweeps.add(sweep)
                    sweep.add_done_callback(self._swept)
                await self._clock.sleep(SWEEP_PERIOD_S)
                await self._keep_leases()
        finally:
            await end(self._sweeps)

    async def close(self) -> None:
        """Stops the local timers: other workers, or the next start, go on from PostgreSQL."""
        await end(self._timers)

    async def _keep_leases(self) -> None:
        """What takes longer than a lease is nobody else's yet."""
        if not self._in_hand:
            return
        try:
            await self._rides.keep_leased(list(self._in_hand.values()), self._clock.now_ms() + LEASE_MS)
        except (DomainError, Conflict) as error:
            log.warning("leases not kept: others may act on the same rides", error=str(error))

    async def _act_now(self, ride: Ride) -> None:
        structlog.contextvars.unbind_contextvars("caller")  # whoever changed the ride is not who acts now
        await self._act(ride)

    async def _ring(self, ride_id: str, wait_ms: int) -> None:
        if wait_ms > 0:
            await self._clock.sleep(wait_ms / MS_PER_S)
        if self._sleeping.get(ride_id) is asyncio.current_task():
            del self._sleeping[ride_id]
        structlog.contextvars.unbind_contextvars("caller")  # whoever set the timer is not who acts now
        try:
            for ride in await self._rides.lease_due(self._clock.now_ms(), LEASE_MS, 1, ride_id):
                await self._act(ride)
        except DomainError as error:
            log.warning("timer left to the sweep", reason=error.reason, ride_id=ride_id)

    async def _act(self, ride: Ride) -> None:
        if (ride.ride_id, ride.version) in self._in_hand:
            return  # its lease ran out while it is still being searched here
        self._in_hand[ride.ride_id, ride.version] = ride
        if ride.state in OPEN and ride.next_deadline_ms is not None:
            self.lateness.see(ride.next_deadline_ms, self._clock.now_ms())
        try:
            params = self._params[ride.city_id]
            if ride.state is RideState.SEARCHING and not search_is_over(ride, self._clock.now_ms(), params):
                if not params.in_windows:  # else the next window has it; such a deadline is from before the city was batched
                    await self._searcher.search(ride)
            elif ride.state is RideState.SCHEDULED:
                await self._begin_search(ride)
            else:
                await self._changer.change(self._changer.ride(ride.ride_id), DeadlinePassed(), "system")
        except DomainError as error:
            log.warning("deadline not served yet", ride_id=ride.ride_id, reason=error.reason, concerned=error.metadata)
        except Exception:
            log.exception("deadline failed", ride_id=ride.ride_id)
            raise
        finally:
            del self._in_hand[ride.ride_id, ride.version]

    async def _begin_search(self, ride: Ride) -> None:
        """A scheduled ride's deadline: the fence, which lets a rider have one active ride, may refuse it the search."""
        expected_s = self._pickup_times.expected_s(ride.city_id, self._clock.now_ms())
        try:
            await self._changer.change(self._changer.ride(ride.ride_id), DeadlinePassed(expected_s), "system")
        except DomainError as refusal:
            if refusal.reason is not Reason.RIDER_BUSY:
                raise
            await self._changer.change(self._changer.ride(ride.ride_id), RiderFoundBusy(), "system")

    def _swept(self, done: asyncio.Task[int]) -> None:
        self._sweeps.discard(done)
        if done.cancelled() or (error := done.exception()) is None:
            return
        if isinstance(error, DomainError):
            log.warning("sweep postponed", reason=error.reason)
        else:
            log.error("sweep failed", exc_info=error)

    def _forget(self, done: asyncio.Task[None]) -> None:
        self._timers.discard(done)
        if not done.cancelled() and done.exception() is not None:
            log.error("timer failed", timer=done.get_name(), exc_info=done.exception())
