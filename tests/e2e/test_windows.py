"""A batched city: everybody who waits is served together, by one leader, and a leader that is not one any more does no harm."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.api.events.v1 import event_pb2
from hexhail.client import OfferState, RideState
from hexhail.kernel.geo import Place
from matching.assignment import Pairs, assign
from matching.postgres_leases import PostgresLeases
from tests.e2e.people import DROPOFF, MIDDLE, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.cities import City
    from hexhail.embedded import Stores
    from hexhail.kernel.ids import CityId
    from matching.batcher import Batcher
    from tests.e2e.world import World

WINDOW_S, LEASE_S = 2.0, 6.0
BLOCK_DEG = 0.0009
ONE_BY_ONE = [{"size": 1, "timeout_s": 10.0, "radius_m": 5_000.0}]

pytestmark = pytest.mark.usefixtures("postgres_dsn", "valkey")


def batched(**keys: Any) -> City:
    return gridport(matching={"dispatch": "batched", "offers": {"phases": ONE_BY_ONE}, **keys})


def at(blocks: float) -> Place:
    """So many blocks up the one street where all of this happens."""
    return Place(MIDDLE.lat + blocks * BLOCK_DEG, MIDDLE.lng)


def leader(world: World) -> Batcher:
    return world.matching.batchers[world.city.city_id]


def another(world: World, owner: str = "another") -> Batcher:
    """The same on another worker."""
    made = copy.copy(leader(world))
    made._leases = PostgresLeases(world.matching.store._pool, owner)
    made._leads = False
    return made


async def kill_leader(world: World) -> None:
    """Its loop ends, and it gives nothing back."""
    (loop,) = [task for task in asyncio.all_tasks() if task.get_name() == f"windows {world.city.city_id}"]
    loop.cancel()
    await asyncio.wait([loop])


async def riders(world: World, *blocks: float) -> list[Passenger]:
    made = [Passenger(world, world.rider(f"r{n}"), (at(block), DROPOFF)) for n, block in enumerate(blocks, 1)]
    for passenger in made:
        await passenger.request()
    return made


async def events(world: World, kind: str) -> list[event_pb2.Envelope]:
    rows = await world.matching.store._pool.fetch("SELECT envelope FROM matching.outbox WHERE kind = $1 ORDER BY position", kind)
    return [event_pb2.Envelope.FromString(row["envelope"]) for row in rows]


async def test_a_window_serves_all_together_better_than_each_for_itself(stores: Stores) -> None:
    """The first rider's nearest driver is the only one near the second: so another one comes, for both their sakes."""
    async with world_of(stores, batched()) as world, phones(world, [at(-4), at(1)]) as (far, near):
        await kill_leader(world)
        first, second = await riders(world, 0, 2)
        await world.matching.timekeeper.sweep()  # nobody is searched for by itself
        assert not far.live()
        assert not near.live()

        assert await leader(world).lead() == 2
        offers = await far.next_offer(), await near.next_offer()
        assert [offer.ride_id for offer in offers] == [first.ride_id, second.ride_id]

        for phone, offer in zip((far, near), offers, strict=True):
            await phone.app.accept(offer.offer_id)
        for passenger in (first, second):
            await passenger.until_state(RideState.ACCEPTED)


async def test_windows_come_by_themselves(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1)]) as (phone,):
        (passenger,) = await riders(world, 0)
        world.clock.advance(round(WINDOW_S * 1000))
        await phone.app.accept((await phone.next_offer()).offer_id)
        await passenger.until_state(RideState.ACCEPTED)


async def test_the_log_has_what_a_window_was_decided_by(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(-4), at(1)]):
        await kill_leader(world)
        first, second = await riders(world, 0, 2)
        assert await leader(world).lead() == 2

        (logged,) = await events(world, "WINDOW_ASSIGNED")
        window = logged.window_assigned
        assert (logged.aggregate_id, logged.version, window.window) == ("windows/gridport", 1, 1)
        assert (list(window.ride_ids), list(window.driver_ids)) == (sorted([first.ride_id, second.ride_id]), ["d1", "d2"])
        columns = (window.pair_ride_index, window.pair_driver_index, window.pair_cost_milli, window.waiting_cost_milli)
        ride, driver, cost, waiting = (np.array(column, dtype=np.int64) for column in columns)
        again = assign(Pairs(ride, driver, cost), waiting, len(window.driver_ids))
        assert again.cost_milli == window.total_cost_milli
        assert (again.driver[ride] == driver).tolist() == list(window.pair_chosen)
        assert logged.traffic_version == world.router.version

        told = {e.aggregate_id: e.candidates_ranked for e in await events(world, "CANDIDATES_RANKED")}
        why = told[first.ride_id]
        assert why.policy == "batched"
        assert dict(zip(why.driver_id, why.not_offered_reason, strict=True)) == {"d1": "", "d2": "OTHER_RIDE"}


async def test_a_decline_frees_the_ride_into_the_next_window(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1), at(3)]) as (near, far):
        await kill_leader(world)
        (passenger,) = await riders(world, 0)
        assert await leader(world).lead() == 1
        await near.app.decline((await near.next_offer()).offer_id)
        await until(lambda: passenger.states()[-1:] == [RideState.SEARCHING], "not free again")
        await world.matching.timekeeper.sweep()
        assert not far.live()

        assert await leader(world).lead() == 1
        offer = await far.next_offer()
        assert (offer.ride_id, offer.phase) == (passenger.ride_id, 2)
        assert not near.live()


async def test_an_offer_left_to_expire_frees_the_ride_into_the_next_window(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1), at(3)]) as (near, far):
        await kill_leader(world)
        (passenger,) = await riders(world, 0)
        assert await leader(world).lead() == 1
        await near.app.ack((await near.next_offer()).offer_id)
        for phone in (near, far):
            await phone.report()
        world.clock.advance(10_000)
        await world.matching.timekeeper.sweep()
        await until(lambda: not near.live(), "the offer outlives its time")
        assert await leader(world).lead() == 1
        assert (await far.next_offer()).ride_id == passenger.ride_id


async def test_a_ride_without_a_driver_waits_and_then_expires_as_ever(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(0.5)]) as (only,):
        await kill_leader(world)
        first, second = await riders(world, 0, 2)
        assert await leader(world).lead() == 1
        assert (await only.next_offer()).ride_id == first.ride_id
        (why,) = [e for e in await events(world, "CANDIDATES_RANKED") if e.aggregate_id == second.ride_id]
        assert list(why.candidates_ranked.not_offered_reason) == ["OTHER_RIDE"]

        waiting = await world.matching.store.ride(second.ride_id)
        assert await leader(world).lead() == 0
        assert (await world.matching.store.ride(second.ride_id)).version == waiting.version  # told again only every 10 s

        await world.matching.timekeeper.sweep()
        world.clock.advance(30_000)
        await world.matching.timekeeper.sweep()
        await second.until_state(RideState.EXPIRED)


async def test_two_leaders_at_once_do_no_harm(stores: Stores) -> None:
    """Each would offer every ride: a claim or PostgreSQL lets one offer through for a ride, and one for a driver."""
    async with world_of(stores, batched()) as world, phones(world, [at(n) for n in range(6)]) as crowd:
        await kill_leader(world)
        passengers = await riders(world, 0.4, 1.4, 2.4, 3.4)
        made = await asyncio.gather(leader(world).window(), another(world).window(), another(world).window())

        assert sum(made) + await leader(world).window() == 4  # whom two wishes for one driver left out, the next window has
        await until(lambda: sum(len(phone.live()) for phone in crowd) == 4, "not every ride is offered")
        offered = [offer for phone in crowd for offer in phone.offers.values()]
        assert {offer.ride_id for offer in offered} == {passenger.ride_id for passenger in passengers}
        assert len(offered) == 4
        assert all(offer.state is OfferState.LIVE for offer in offered)
        assert max(len(phone.offers) for phone in crowd) == 1


async def test_a_stale_leader_does_no_harm_even_without_claims(stores: Stores) -> None:
    class Everyones:
        """Claims that nobody is refused."""

        async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
            return [True] * len(driver_ids)

        async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
            return

        async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
            return True

        async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
            return

    async with (
        world_of(stores, batched(), wrap_claims=lambda _: Everyones()) as world,
        phones(world, [at(n) for n in range(4)]) as crowd,
    ):
        await kill_leader(world)
        await riders(world, 0.4, 1.4, 2.4)
        made = await asyncio.gather(leader(world).window(), another(world).window())

        assert sum(made) + await leader(world).window() == 3
        await until(lambda: sum(len(phone.live()) for phone in crowd) == 3, "not every ride is offered")
        assert max(len(phone.offers) for phone in crowd) == 1


async def test_when_the_leader_dies_another_leads_within_its_lease(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1)]) as (phone,):
        assert await leader(world).lead() == 0
        await kill_leader(world)
        other = another(world)
        (passenger,) = await riders(world, 0)
        assert await other.lead() == 0

        world.clock.advance(round(LEASE_S * 1000))
        assert await other.lead() == 1
        assert (await phone.next_offer()).ride_id == passenger.ride_id


async def test_a_leader_that_stops_lets_another_lead_at_once(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1)]):
        assert await leader(world).lead() == 0
        await kill_leader(world)
        await riders(world, 0)
        await leader(world).close()
        assert await another(world).lead() == 1


async def test_products_share_a_window_and_not_their_drivers(stores: Stores) -> None:
    async with world_of(stores, batched()) as world, phones(world, [at(1), at(5)]) as (near, far):
        await world.operator().upsert_driver(far.app.driver_id, ["economy", "xl"], 4_500)
        await kill_leader(world)
        (plain,) = await riders(world, 4)
        large = Passenger(world, world.rider("r9"), (at(0), DROPOFF))
        (quote,) = await large.app.quotes(large.stops, ["xl"])
        await large.request(quote)

        await leader(world).lead()
        assert (await far.next_offer()).ride_id == large.ride_id
        assert (await near.next_offer()).ride_id == plain.ride_id
