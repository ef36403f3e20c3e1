"""Valkey is killed while drivers report, and an empty one takes its place: the index is whole again by itself, and nothing false
is said meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hexhail.client import FixAckView, FixReport, RideState
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.rpc.channel import PeerToken, peer_channel
from matching.location_grpc import GrpcLocation
from tests.e2e.people import DROPOFF, MIDDLE, Passenger, phones, until
from tests.e2e.world import TOKEN_KEY, gridport, world_of
from tests.stores.nodes import mortal_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.embedded import Stores
    from tests.e2e.people import Phone
    from tests.e2e.world import World

REPORT_MS = 4_000
RECONCILE_MS = 1_000
PLACES = [Place(40.5 + 0.0004 * number, -74.0) for number in range(8)]


class Streaming:
    """A phone that holds one stream of fixes open, and reports whenever it is told to."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.acked = 0
        self._due = asyncio.Semaphore(0)
        self._task = asyncio.create_task(self._stream())

    @property
    def is_open(self) -> bool:
        return not self._task.done()

    def report(self) -> None:
        self._due.release()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _stream(self) -> None:
        async for answer in self.phone.app.stream_fixes(self._fixes()):
            if isinstance(answer, FixAckView):
                self.acked = answer.up_to_sequence

    async def _fixes(self) -> AsyncIterator[FixReport]:
        for sequence in itertools.count(1):
            await self._due.acquire()
            yield FixReport(sequence, self.phone.world.clock.now_ms(), self.phone.place)


@asynccontextmanager
async def streams(crowd: list[Phone]) -> AsyncIterator[list[Streaming]]:
    made = [Streaming(phone) for phone in crowd]
    try:
        yield made
    finally:
        await asyncio.gather(*(stream.end() for stream in made))


async def found(world: World) -> tuple[set[str], bool] | None:
    """Who is found near the middle, and is that all? None where location does not answer."""
    async with peer_channel(world.addresses.location) as channel:
        try:
            near = await GrpcLocation(channel, PeerToken(TOKEN_KEY, "matching")).nearby(
                world.city.city_id, MIDDLE, 100, 5_000.0, [], ""
            )
        except DomainError as error:
            if error.reason is Reason.STORE_UNAVAILABLE:
                return None
            raise
        return set(near.driver_ids), near.complete


async def test_a_killed_store_comes_back_empty_and_the_index_becomes_whole(stores: Stores, postgres_dsn: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hx", dir="/tmp") as folder:
        async with (
            mortal_valkey(Path(folder)) as store,
            world_of(replace(stores, redis_url=store.url), gridport()) as world,
            phones(world, PLACES) as crowd,
            streams(crowd) as reporting,
        ):
            rider = Passenger(world, world.rider())
            await rider.request()
            await until(lambda: any(phone.live() for phone in crowd), "nobody was offered the ride")
            busy = next(phone for phone in crowd if phone.live())
            await busy.app.accept(busy.live()[0].offer_id)
            await rider.until_state(RideState.ACCEPTED)
            free = {phone.app.driver_id for phone in crowd} - {busy.app.driver_id}
            await until(lambda: _equals(world, free), "the free ones are found before anything happens")

            await store.kill()
            for _ in range(5):
                world.clock.advance(REPORT_MS)
                for stream in reporting:
                    stream.report()
                assert await found(world) is None, "an outage is an error, never an empty city"
            assert all(stream.is_open for stream in reporting)

            await store.start()
            for _ in range((REPORT_MS + RECONCILE_MS) // 250):
                world.clock.advance(250)
                await asyncio.sleep(0.01)
                answer = await found(world)
                assert answer is None or answer[0] <= free, "nobody on a ride is offered meanwhile"
            for stream in reporting:
                stream.report()
            await until(lambda: _equals(world, free), "whole again, by itself")
            assert all(stream.is_open for stream in reporting)
            await until(lambda: all(stream.acked >= 5 for stream in reporting), "every fix was dealt with")

            await busy.app.arrive(rider.ride_id)
            await busy.app.start(rider.ride_id)
            await busy.report(DROPOFF)
            await busy.app.complete(rider.ride_id)
            assert (await world.rider().get_ride(rider.ride_id)).state is RideState.COMPLETED


async def _equals(world: World, expected: set[str]) -> bool:
    return await found(world) == (expected, True)
