"""Rides for later, through the services: they wait beside other rides, and are searched in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from hexhail.client import RideState
from hexhail.kernel.errors import DomainError, Reason
from tests.e2e.people import MIDDLE, NEAR, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from hexhail.embedded import Stores

MIN_MS = 60_000
NEAREST_FIRST = {"ranking": {"policy": "eta"}}


async def kinds(postgres_dsn: str, ride_id: str) -> list[str]:
    """What the event log says of a ride, in order, searches left out."""
    connection = await asyncpg.connect(postgres_dsn)
    try:
        rows = await connection.fetch(
            "SELECT kind, version FROM matching.outbox WHERE aggregate_id = $1 ORDER BY version, index", ride_id
        )
    finally:
        await connection.close()
    assert sorted({row["version"] for row in rows}) == list(range(1, rows[-1]["version"] + 1)), "a version without an event"
    return [row["kind"] for row in rows if row["kind"] != "CANDIDATES_RANKED"]


async def test_a_ride_for_later_waits_beside_another_and_begins_when_its_rider_is_free(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    """The fence lets a rider have one active ride: the one for later tries again each minute."""
    async with world_of(stores, gridport(matching=NEAREST_FIRST)) as world, phones(world, [NEAR]) as (driver,):
        now, later = Passenger(world, world.rider()), Passenger(world, world.rider())
        await now.request()
        offer = await driver.next_offer()
        await driver.app.accept(offer.offer_id)
        ride = await later.request(pickup_at_ms=world.clock.now_ms() + 16 * MIN_MS)
        assert (ride.state, ride.pickup_at_ms) == (RideState.SCHEDULED, world.clock.now_ms() + 16 * MIN_MS)
        await driver.app.arrive(offer.ride_id)
        await driver.app.start(offer.ride_id)

        await until(lambda: later.told[-1].version >= 2, "not looked at first")
        world.clock.advance(MIN_MS)  # 15 minutes ahead: a pickup of ten is allowed for, and a margin of five
        await world.matching.timekeeper.sweep()
        busy = await until(lambda: later.told[-1].version >= 3 and later.told[-1], "the deadline is forgotten")
        assert busy.state is RideState.SCHEDULED

        await driver.app.complete(offer.ride_id)
        await driver.report()
        world.clock.advance(MIN_MS)
        await driver.report()
        await world.matching.timekeeper.sweep()
        again = await driver.next_offer_of(ride.ride_id)
        taken = await driver.app.accept(again.offer_id)
        assert taken.ride_id == ride.ride_id
        told = await kinds(postgres_dsn, ride.ride_id)
        assert told[0] == "RIDE_REQUESTED"
        assert told[-3:] == ["SEARCH_BEGAN", "OFFERS_MADE", "ASSIGNMENT_BEGAN"]
        assert set(told[1:-3]) == {"SEARCH_POSTPONED"}


async def test_a_ride_for_later_can_be_cancelled_and_a_quote_must_be_valid_when_it_is_wanted(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport()) as world:
        rider = Passenger(world, world.rider(), (MIDDLE, NEAR))
        quote = await rider.quote()
        tomorrow_ms = world.clock.now_ms() + 24 * 60 * MIN_MS
        ride = await rider.request(quote, pickup_at_ms=tomorrow_ms)
        with pytest.raises(DomainError) as used:
            await rider.app.request_ride(quote, rider.stops, pickup_at_ms=tomorrow_ms)
        assert used.value.reason is Reason.QUOTE_USED
        assert (await rider.app.cancel(ride.ride_id)).state is RideState.CANCELLED_BY_RIDER
        await rider.end_of_watch()
        stale = await rider.quote()
        world.clock.advance(60 * MIN_MS)
        with pytest.raises(DomainError) as expired:
            await rider.app.request_ride(stale, rider.stops, pickup_at_ms=tomorrow_ms)
        assert expired.value.reason is Reason.QUOTE_EXPIRED
