"""Who wins when many want the same: exactly one, whatever becomes of the locks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from hexhail.cli.outbox import logged_assignments
from hexhail.client import RideState
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from matching import postgres_statements
from simulator.witness import Witness, double_assignments
from tests.e2e.people import MIDDLE, PATIENCE_S, Passenger, Phone, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from hexhail.client import RideView
    from hexhail.embedded import Stores
    from hexhail.kernel.ids import CityId
    from matching.store import Change, Claims, Driver
    from tests.e2e.world import World

CROWD = 50
CITY = gridport(matching={"offers": {"phases": [{"size": CROWD, "timeout_s": 5.0, "radius_m": 5000.0}]}})


def around(count: int) -> list[Place]:
    """Places near the middle, no two the same."""
    return [Place(MIDDLE.lat + 0.0002 * (n // 10), MIDDLE.lng + 0.0002 * (n % 10)) for n in range(count)]


class VanishingClaims:
    """Claims of which each is deleted right after it is set. Holds all who accept until they have decided alike."""

    def __init__(self, claims: Claims, crowd: int) -> None:
        self._claims = claims
        self._crowd = crowd
        self.decided = 0
        self._all_decided = asyncio.Event()

    async def claim_ride(self, city_id: CityId, ride_id: str, owner: str, ttl_ms: int) -> bool:
        while not await self._claims.claim_ride(city_id, ride_id, owner, ttl_ms):
            pass  # a rival's claim, about to be deleted
        await self._claims.release_ride(city_id, ride_id, owner)
        self.decided += 1
        if self.decided == self._crowd:
            self._all_decided.set()
        await self._all_decided.wait()
        return True

    async def release_ride(self, city_id: CityId, ride_id: str, owner: str) -> None:
        await self._claims.release_ride(city_id, ride_id, owner)

    async def claim_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str, ttl_ms: int) -> list[bool]:
        return await self._claims.claim_drivers(city_id, driver_ids, owner, ttl_ms)

    async def release_drivers(self, city_id: CityId, driver_ids: Sequence[str], owner: str) -> None:
        await self._claims.release_drivers(city_id, driver_ids, owner)


async def accept(phone: Phone) -> RideView | Reason:
    """The ride, or why not."""
    offer = await phone.next_offer()
    try:
        return await phone.app.accept(offer.offer_id)
    except DomainError as refusal:
        return refusal.reason


async def all_accept(world: World, crowd: Sequence[Phone], rider: Passenger) -> list[RideView | Reason]:
    """A ride is requested, offered to the whole crowd, and accepted by everybody at once."""
    await rider.request()
    for phone in crowd:
        await phone.next_offer()
    return await asyncio.gather(*(accept(phone) for phone in crowd))


async def active_assignments(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM matching.assignments WHERE released_at_ms IS NULL")
        return count
    finally:
        await connection.close()


async def test_of_fifty_drivers_who_accept_one_ride_exactly_one_wins(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, CITY) as world, phones(world, around(CROWD)) as crowd:
        rider = Passenger(world, world.rider())
        answers = await all_accept(world, crowd, rider)
        winners = [answer for answer in answers if not isinstance(answer, Reason)]
        assert len(winners) == 1
        assert answers.count(Reason.ALREADY_TAKEN) == CROWD - 1
        told = await rider.until_state(RideState.ACCEPTED)
        assert told.assignment == winners[0].assignment
        assert await active_assignments(postgres_dsn) == 1


async def test_the_fence_rejects_forty_nine_commits_when_every_claim_vanishes(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    """The locks are only for speed: all fifty commits reach PostgreSQL, and it lets one through."""
    async with (
        world_of(stores, CITY, wrap_claims=lambda claims: VanishingClaims(claims, CROWD)) as world,
        phones(world, around(CROWD)) as crowd,
    ):
        rider = Passenger(world, world.rider())
        rejected_before = world.matching.store.counts.rejected_commits
        answers = await all_accept(world, crowd, rider)
        assert len([answer for answer in answers if not isinstance(answer, Reason)]) == 1
        assert answers.count(Reason.ALREADY_TAKEN) == CROWD - 1
        assert world.matching.store.counts.rejected_commits - rejected_before == CROWD - 1
        assert await active_assignments(postgres_dsn) == 1


async def test_without_the_fence_the_witness_sees_double_assignments(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The witness is worth something only if it sees the fault that the fence prevents: by the clients, and by the log."""
    unconditional = postgres_statements.UPDATE_RIDE.replace("AND version = $2", "AND $2::bigint IS NOT NULL")
    assert unconditional != postgres_statements.UPDATE_RIDE
    monkeypatch.setattr(postgres_statements, "UPDATE_RIDE", unconditional)
    crowd_size = 5
    vanishing: list[VanishingClaims] = []

    def without_locks(claims: Claims) -> Claims:
        vanishing.append(VanishingClaims(claims, crowd_size))
        return vanishing[0]

    async with world_of(stores, CITY, wrap_claims=without_locks) as world, phones(world, around(crowd_size)) as crowd:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute("DROP INDEX matching.assignments_one_active_per_ride")
        await connection.execute("DROP INDEX matching.assignments_one_active_per_slot")
        await connection.close()
        rider, witness = Passenger(world, world.rider()), Witness()
        await rider.request()
        accepting = []
        for number, phone in enumerate(crowd, 1):  # each decides at an instant of its own, none has committed yet
            await phone.next_offer()
            accepting.append(asyncio.create_task(accept(phone)))
            await until(lambda n=number: vanishing[0].decided == n, f"{number} have not decided")  # type: ignore[misc]
            world.clock.advance(1)
        answers = await asyncio.gather(*accepting)
        for phone, answer in zip(crowd, answers, strict=True):
            assert not isinstance(answer, Reason)
            witness.accepted(answer, phone.app.driver_id)
        assert double_assignments(witness.intervals()) == crowd_size - 1
        assert double_assignments(await logged_assignments(postgres_dsn, world.city.city_id)) == crowd_size - 1


async def test_phones_that_show_an_offer_at_once_are_in_nobodys_way(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Changes of one ride come one after the other, by what this worker remembers of it: none is lost, none is tried in vain."""
    async with world_of(stores, CITY) as world, phones(world, around(12)) as crowd:
        await Passenger(world, world.rider()).request()
        offers = [await phone.next_offer() for phone in crowd]
        rejected_before = world.matching.store.counts.rejected_commits
        await asyncio.gather(*(phone.app.ack(offer.offer_id) for phone, offer in zip(crowd, offers, strict=True)))
        ride = await world.matching.store.ride(offers[0].ride_id)
        assert all(offer.shown_at_ms for offer in ride.offers)
        assert world.matching.store.counts.rejected_commits == rejected_before


async def test_the_event_log_tells_of_every_assignment(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, CITY) as world, phones(world, around(3)) as crowd:
        rider = Passenger(world, world.rider())
        answers = await all_accept(world, crowd, rider)
        (won,) = [answer for answer in answers if not isinstance(answer, Reason)]
        (open_one,) = await logged_assignments(postgres_dsn, world.city.city_id)
        assert won.assignment is not None
        assert (open_one.ride_id, open_one.driver_id, open_one.end_ms) == (won.ride_id, won.assignment.driver_id, None)
        world.clock.advance(1_000)
        await rider.app.cancel(won.ride_id)
        (closed,) = await logged_assignments(postgres_dsn, world.city.city_id)
        assert closed.end_ms == world.clock.now_ms()


async def test_a_winner_who_repeats_is_told_the_same(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, CITY) as world, phones(world, around(1)) as (phone,):
        await Passenger(world, world.rider()).request()
        offer = await phone.next_offer()
        first = await phone.app.accept(offer.offer_id)
        assert await phone.app.accept(offer.offer_id) == first


async def test_cancel_and_accept_at_once_have_one_outcome_for_both(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Either the driver was too late, or had the ride for a moment; never do the two believe different things."""
    async with world_of(stores, CITY) as world, phones(world, around(1)) as (phone,):
        for number in range(8):
            rider = Passenger(world, world.rider(f"r{number}"))
            await rider.request()
            offer = await phone.next_offer()
            taken, cancelled = await asyncio.gather(accept(phone), rider.app.cancel(rider.ride_id))
            assert cancelled.state is RideState.CANCELLED_BY_RIDER
            if isinstance(taken, Reason):
                assert taken is Reason.OFFER_CLOSED
            await rider.end_of_watch()
            assert rider.told[-1].state is RideState.CANCELLED_BY_RIDER
            assert (await world.operator().get_driver(phone.app.driver_id)).ride_id == ""
            await until(lambda o=offer.offer_id: o not in {x.offer_id for x in phone.live()}, "the offer stays live")  # type: ignore[misc]
            await world.matching.teller.check_epochs()


async def test_what_is_committed_is_told_even_if_the_caller_has_gone(
    stores: Stores, postgres_dsn: str, valkey: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a driver's phone that breaks off between the commit and the telling, the rider hears of the driver all the same."""
    async with world_of(stores, CITY) as world, phones(world, around(1)) as (phone,):
        rider = Passenger(world, world.rider())
        await rider.request()
        offer = await phone.next_offer()
        commit, committed, gone = world.matching.store.commit, asyncio.Event(), asyncio.Event()

        async def slow_commit(change: Change) -> list[Driver]:
            touched = await commit(change)
            committed.set()
            await gone.wait()
            return touched

        monkeypatch.setattr(world.matching.store, "commit", slow_commit)
        accepting = asyncio.create_task(phone.app.accept(offer.offer_id))
        await asyncio.wait_for(committed.wait(), PATIENCE_S)
        accepting.cancel()
        await asyncio.wait({accepting})
        gone.set()
        told = await rider.until_state(RideState.ACCEPTED)
        assert told.assignment is not None
        assert told.assignment.driver_id == phone.app.driver_id
