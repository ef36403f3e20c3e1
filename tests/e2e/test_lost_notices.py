"""Who watches hears the last of it, though the worker that changed it died before it could say so, or the watcher was away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hexhail.client import OfferState, RideState, RideView
from matching.model import DriverArrived, OfferDeclined, RiderCancelled
from matching.offers import OfferParams, decide
from matching.store import Change, Conflict
from tests.e2e.people import NEAR, PATIENCE_S, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from hexhail.embedded import Stores
    from matching.model import Event
    from tests.e2e.world import World

REMINDER_MS, TRACKING_MS = 2_000, 3_000


async def silently(world: World, ride_id: str, event: Event) -> int:
    """What a worker commits that is killed before it can tell anybody; the version."""
    store = world.matching.store
    while True:
        ride = await store.ride(ride_id)
        decision = decide(ride, event, world.clock.now_ms(), OfferParams())
        try:
            await store.commit(Change(ride, decision, "somebody"))
        except Conflict:
            continue  # the world's own worker was first
        return decision.ride.version


async def told(world: World, ride_id: str, after_version: int) -> list[RideView]:
    """What a watcher is told of a ride that is over."""
    async with asyncio.timeout(PATIENCE_S):
        seen: list[Any] = [view async for view in world.rider().watch_ride(ride_id, after_version)]
    return [view for view in seen if isinstance(view, RideView)]


async def test_a_phone_hears_of_its_offers_though_no_notice_comes(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        await rider.request()
        offer = await phone.next_offer()
        await silently(world, rider.ride_id, OfferDeclined(offer.offer_id))
        world.clock.advance(REMINDER_MS)
        await until(lambda: phone.offers[offer.offer_id].state is OfferState.DECLINED, "the phone still shows the offer")


async def test_a_rider_hears_of_the_ride_though_no_notice_comes(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        await rider.request()
        await phone.app.accept((await phone.next_offer()).offer_id)
        await rider.until_state(RideState.ACCEPTED)
        version = await silently(world, rider.ride_id, DriverArrived("d1"))
        world.clock.advance(TRACKING_MS)
        assert (await rider.until_state(RideState.ARRIVED)).version == version


async def test_a_watcher_who_comes_back_is_told_what_came_after_and_always_the_last(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport()) as world:
        rider = Passenger(world, world.rider())
        first = await rider.request()
        last = await silently(world, rider.ride_id, RiderCancelled())
        for after_version in (0, first.version, last - 1):
            assert [view.version for view in await told(world, rider.ride_id, after_version)] == [last]
        assert await told(world, rider.ride_id, last) == [], "what was seen is not said again, and the stream ends"


async def test_one_who_knows_of_more_than_there_is_is_told_what_is(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Given a database that came back without its last transactions."""
    async with world_of(stores, gridport()) as world:
        rider = Passenger(world, world.rider())
        await rider.request()
        last = await silently(world, rider.ride_id, RiderCancelled())
        (view,) = await told(world, rider.ride_id, last + 5)
        assert (view.version, view.state) == (last, RideState.CANCELLED_BY_RIDER)
