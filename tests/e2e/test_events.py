"""What happens in a city can be followed: every version of a ride is in the stream, whole, in order, and says how much it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hexhail.cli.events import lines
from hexhail.client import RideState
from hexhail.stores.valkey import connect
from tests.e2e.people import NEAR, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from hexhail.embedded import Stores
    from tests.e2e.world import World

POLL_MS = 1_000


async def followed(world: World, redis_url: str, ride_id: str) -> list[dict[str, Any]]:
    """The ride's events, once its last is among them."""
    redis = connect(redis_url)
    found: list[dict[str, Any]] = []

    async def is_over() -> bool:
        world.clock.advance(POLL_MS)
        found[:] = [line async for line in lines(redis, world.city.city_id, "0", follow=False)]
        return any(line.get("kind") == "RIDE_COMPLETED" for line in found)

    try:
        await until(is_over, "the end of the ride is not told")
    finally:
        await redis.aclose()
    return [line for line in found if line.get("aggregate_id") == ride_id]


async def test_a_ride_can_be_followed_from_its_events(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        ride = await rider.request()
        offer = await phone.next_offer()
        await phone.app.ack(offer.offer_id)
        await phone.app.accept(offer.offer_id)
        await phone.app.arrive(ride.ride_id)
        await phone.app.start(ride.ride_id)
        await phone.app.complete(ride.ride_id)
        last = await rider.until_state(RideState.COMPLETED)
        events = await followed(world, stores.redis_url, ride.ride_id)
    seen = [(int(event["version"]), int(event.get("index", 0))) for event in events]
    assert seen == sorted(set(seen)), "in order, and no repeats while nothing went wrong"
    assert sorted({version for version, _ in seen}) == list(range(1, last.version + 1))
    for event in events:
        of_version = [index for version, index in seen if version == int(event["version"])]
        assert of_version == list(range(event["version_events"]))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "RIDE_REQUESTED"
    assert [kind for kind in kinds if kind in {"ASSIGNMENT_BEGAN", "DRIVER_ARRIVED", "RIDE_STARTED", "RIDE_COMPLETED"}] == [
        "ASSIGNMENT_BEGAN",
        "DRIVER_ARRIVED",
        "RIDE_STARTED",
        "RIDE_COMPLETED",
    ]
