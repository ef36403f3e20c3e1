"""No timer dies with a process: what is due is in PostgreSQL, and some worker acts on it soon, exactly one at a time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import connect
from matching.changer import Changer
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.model import RideState
from matching.notices import Notices
from matching.postgres_store import PostgresStore
from matching.redis_claims import RedisClaims
from matching.teller import Teller
from matching.timekeeper import LEASE_MS, SWEEP_PERIOD_S, Timekeeper
from tests.e2e.people import until
from tests.matching.rides import NOW_MS
from tests.matching.test_store import CITY, PARAMS, Bench
from tests.matching.test_teller import FakeLocation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from hexhail.stores.valkey import Valkey
    from matching.model import Ride

GOES_ON_MS = 2_000
SWEEP_MS = round(SWEEP_PERIOD_S * 1000)


@dataclass
class FakeSearcher:
    """A search that takes as long as it is told to."""

    searched: list[str] = field(default_factory=list)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)

    async def search(self, ride: Ride) -> None:
        self.searched.append(ride.ride_id)
        if ride.ride_id in self.slow:
            await self.slow[ride.ride_id].wait()


@dataclass
class Desk:
    bench: Bench
    clock: ManualClock
    searcher: FakeSearcher
    keeper: Timekeeper

    async def elsewhere(self) -> list[str]:
        """What another worker would get to act upon now; it dies with it."""
        return [ride.ride_id for ride in await self.bench.store.lease_due(self.clock.now_ms(), LEASE_MS, 10)]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            for slow in self.searcher.slow.values():
                slow.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self.keeper.close()


@pytest.fixture
async def desk(empty_pool: asyncpg.Pool[asyncpg.Record], asked: Valkey, valkey_url: str) -> AsyncIterator[Desk]:
    cities, clock, redis = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS), connect(valkey_url)
    store, location, searcher = (
        PostgresStore(empty_pool, cities, encode_ride_events, encode_driver_event),
        FakeLocation(),
        FakeSearcher(),
    )
    teller = Teller(location, store, cities, clock)
    changer = Changer(
        store, RedisClaims(asked, cities, clock), Notices(redis, asked, cities, clock, "w1"), teller, clock, {CITY: PARAMS}
    )
    searching: Any = searcher
    keeper = Timekeeper(store, changer, searching, clock, {CITY: PARAMS})
    try:
        yield Desk(Bench(empty_pool, store), clock, searcher, keeper)
    finally:
        await changer.close()
        await redis.aclose()


async def test_a_ride_whose_worker_dies_with_it_in_its_hands_goes_on_within_two_seconds(desk: Desk) -> None:
    """Given a worker that has leased the ride at its very deadline, and is killed before it could do anything."""
    await desk.bench.driver("d1")
    ride = await desk.bench.offer(await desk.bench.request(), "d1")
    assert ride.next_deadline_ms is not None
    desk.clock.advance(ride.next_deadline_ms - NOW_MS)
    assert await desk.elsewhere() == [ride.ride_id]
    assert await desk.keeper.sweep() == 0
    while (await desk.bench.store.ride(ride.ride_id)).state is RideState.OFFERED:
        desk.clock.advance(SWEEP_MS)
        await desk.keeper.sweep()
    assert desk.clock.now_ms() - ride.next_deadline_ms <= GOES_ON_MS - SWEEP_MS, "however its sweeps lie to the deadline"


async def test_a_worker_that_needs_longer_than_its_lease_keeps_the_ride(desk: Desk) -> None:
    ride = await desk.bench.request()
    desk.searcher.slow[ride.ride_id] = asyncio.Event()
    async with desk.at_work():
        await until(lambda: desk.searcher.searched, "not searched")
        for _ in range(4 * LEASE_MS // SWEEP_MS):
            before = await desk.bench.pool.fetchval("SELECT leased_until_ms FROM matching.rides")
            await until(lambda: desk.clock.sleepers, "the keeper does not wait for its next look")
            desk.clock.advance(SWEEP_MS)

            async def kept(before: int = before) -> bool:
                return bool(await desk.bench.pool.fetchval("SELECT leased_until_ms > $1 FROM matching.rides", before))

            await until(kept, "lease not kept")
            assert await desk.elsewhere() == []
        assert desk.searcher.searched == [ride.ride_id]


async def test_a_lease_that_is_kept_for_longer_says_nothing_of_a_ride_that_has_changed(desk: Desk) -> None:
    await desk.bench.driver("d1")
    before = await desk.bench.request()
    assert await desk.elsewhere() == [before.ride_id]
    ride = await desk.bench.offer(before, "d1")
    await desk.bench.store.keep_leased([before], NOW_MS + 60_000)
    desk.clock.advance((ride.next_deadline_ms or 0) - NOW_MS)
    assert await desk.elsewhere() == [ride.ride_id]


async def test_a_ride_that_waits_for_a_silent_peer_holds_up_no_other(desk: Desk) -> None:
    stuck = await desk.bench.request(1)
    desk.searcher.slow[stuck.ride_id] = asyncio.Event()
    async with desk.at_work():
        await until(lambda: desk.searcher.searched == [stuck.ride_id], "not searched")
        desk.bench.now_ms = NOW_MS + 1
        other = await desk.bench.request(2)

        def goes_on() -> bool:
            desk.clock.advance(SWEEP_MS)
            return other.ride_id in desk.searcher.searched

        await until(goes_on, "held up")
        assert desk.searcher.searched.count(stuck.ride_id) == 1
