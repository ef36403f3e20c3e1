"""Who counts as being there: by the time the server heard of them, and by what matching says; whatever is lost meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from hexhail.client import RideState
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.channel import PeerToken, peer_channel
from matching.location_grpc import GrpcLocation
from tests.e2e.people import MIDDLE, NEAR, Passenger, Phone, phones, until
from tests.e2e.world import TOKEN_KEY, gridport, world_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from hexhail.embedded import Stores
    from tests.e2e.world import World

SILENCE_MS = 30_000


async def nearby(world: World) -> tuple[str, ...]:
    """Who is found near the middle, as matching finds them."""
    async with peer_channel(world.addresses.location) as channel:
        location = GrpcLocation(channel, PeerToken(TOKEN_KEY, "matching"))
        return (await location.nearby(world.city.city_id, MIDDLE, 10, 5_000.0, ["economy"], "")).driver_ids


async def test_a_driver_silent_for_thirty_seconds_is_not_there(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        world.clock.advance(SILENCE_MS - 1)
        assert await nearby(world) == ("d1",)
        world.clock.advance(2)
        assert await nearby(world) == ()
        await phone.report()
        assert await nearby(world) == ("d1",)


async def test_an_erased_driver_is_forgotten_until_it_reports_and_is_told_again(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        assert await nearby(world) == ("d1",)
        assert await world.operator().erase_driver("d1")
        assert await nearby(world) == ()
        assert not await world.operator().erase_driver("d1")
        await until(lambda: _found(world, phone), "told again with the next reconcile")


async def _found(world: World, phone: Phone) -> bool:
    world.clock.advance(4_000)
    await phone.report()
    return await nearby(world) == ("d1",)


@pytest.mark.parametrize("clock_error_ms", [-40_000, 40_000])
async def test_a_phone_whose_clock_is_wrong_is_there_all_the_same(
    stores: Stores, postgres_dsn: str, valkey: object, clock_error_ms: int
) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        await phone.report(clock_error_ms=clock_error_ms)
        world.clock.advance(SILENCE_MS - 1)
        assert await nearby(world) == ("d1",)
        world.clock.advance(2)
        assert await nearby(world) == ()


async def test_availability_comes_back_after_valkey_is_wiped(stores: Stores, postgres_dsn: str, valkey: Redis) -> None:
    """Given one driver on a ride and one free, when Valkey loses everything: the free one is found again, the other never."""
    async with world_of(stores, gridport()) as world, phones(world, [NEAR, MIDDLE]) as crowd:
        rider = Passenger(world, world.rider())
        await rider.request()
        busy = crowd[0]
        offer = await busy.next_offer()
        await busy.app.accept(offer.offer_id)
        await until(lambda: rider.states()[-1] is RideState.ACCEPTED, "not accepted")

        await valkey.flushall()
        for phone in crowd:
            await phone.report()
        assert await nearby(world) == ()  # nobody is known to be available, and nobody is guessed to be
        await world.matching.teller.check_epochs()
        for phone in crowd:
            await phone.report()
        assert await nearby(world) == ("d2",)

        second = Passenger(world, world.rider("r2"))
        world.clock.advance(5_000)  # sessions are told again
        await until(lambda: second_requested(second), "no quote")
        await crowd[1].next_offer()
        assert not busy.live()


async def second_requested(rider: Passenger) -> bool:
    """Asks for a ride, as soon as prices are known again."""
    try:
        await rider.request()
    except DomainError as error:
        if error.reason is not Reason.SURGE_UNKNOWN:
            raise
        return False
    return True


async def test_an_empty_database_beside_an_old_valkey_is_believed(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Versions of drivers grow with real time too: what an earlier database told location does not outlive it."""
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        for _ in range(3):
            await phone.app.go_offline()
            await phone.app.go_online()
        await phone.app.go_offline()
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("DROP SCHEMA matching CASCADE")
    await connection.close()
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]):
        assert await nearby(world) == ("d1",)


async def test_who_went_offline_as_the_process_died_is_told_by_the_next_one(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]):
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("UPDATE matching.drivers SET online = false, version = version + 1")
        await connection.close()
        assert await nearby(world) == ("d1",)
    async with world_of(stores, gridport()) as world:
        phone = Phone(world, world.driver("d1"), NEAR)
        await phone.report()
        assert await nearby(world) == ()
