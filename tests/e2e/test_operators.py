"""What operators may do, end to end: rides ended and reassigned, drivers suspended, a city's figures; and who wins a race."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from hexhail.api.events.v1 import event_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.client import OfferState, RideState, Role
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from tests.e2e.people import MIDDLE, NEAR, PATIENCE_S, Passenger, phones, until
from tests.e2e.test_presence import nearby
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from hexhail.embedded import Stores
    from tests.e2e.people import Phone
    from tests.e2e.world import World

ONE_AT_A_TIME = {"ranking": {"policy": "eta"}, "offers": {"phases": [{"size": 1, "timeout_s": 5.0, "radius_m": 2_000.0}]}}
TWO = [NEAR, Place(MIDDLE.lat + 0.003, MIDDLE.lng)]
ROUNDS = [Place(MIDDLE.lat + 0.0005 * n, MIDDLE.lng) for n in range(6)]


async def outcome(call: Awaitable[Any]) -> Any:
    """What the call gives, or the reason why not."""
    try:
        return await call
    except DomainError as refusal:
        return refusal.reason


async def accepted(rider: Passenger, phone: Phone) -> str:
    """The id of a ride that the phone's driver has accepted."""
    await rider.request()
    await phone.app.accept((await phone.next_offer()).offer_id)
    await rider.until_state(RideState.ACCEPTED)
    return rider.ride_id


async def events(dsn: str, aggregate_id: str) -> list[event_pb2.Envelope]:
    """What the event log says of a ride or a driver, in order."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT envelope FROM matching.outbox WHERE aggregate_id = $1 ORDER BY version, index", aggregate_id
        )
    finally:
        await connection.close()
    return [event_pb2.Envelope.FromString(row["envelope"]) for row in rows]


async def assigned(dsn: str) -> set[tuple[str, str]]:
    """Drivers bound to rides, as PostgreSQL holds them."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT driver_id, ride_id FROM matching.assignments WHERE released_at_ms IS NULL")
    finally:
        await connection.close()
    return {(row["driver_id"], row["ride_id"]) for row in rows}


async def next_phase(world: World, crowd: Sequence[Phone]) -> None:
    """A phase's time passes, and what is due then is done."""
    for phone in crowd:
        await phone.report()
    world.clock.advance(5_000)
    await world.matching.timekeeper.sweep()


async def test_an_ended_ride_is_over_for_both_and_its_driver_is_free(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        ride_id = await accepted(rider, phone)
        await phone.app.arrive(ride_id)
        await phone.app.start(ride_id)
        ended = await world.operator().end_ride(ride_id, "the car broke down")
        assert ended.state is RideState.ENDED_BY_OPERATOR
        await rider.end_of_watch()
        assert rider.states()[-1] is RideState.ENDED_BY_OPERATOR
        assert await world.operator().end_ride(ride_id, "again") == ended
        assert await assigned(postgres_dsn) == set()
        assert (await world.operator().get_driver("d1")).free_since_ms == world.clock.now_ms()
        *_, released, over = await events(postgres_dsn, ride_id)
        assert released.assignment_ended.reason == event_pb2.ASSIGNMENT_END_REASON_ENDED_BY_OPERATOR
        assert (over.ride_ended.reason, over.actor) == ("the car broke down", "operator/o1")


async def test_a_reassigned_ride_goes_to_another_driver_and_never_back(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, TWO) as (first, second):
        rider = Passenger(world, world.rider())
        ride_id = await accepted(rider, first)
        await first.app.arrive(ride_id)
        back = await world.operator().reassign_ride(ride_id, "wrong street")
        assert (back.state, back.assignment) == (RideState.SEARCHING, None)
        await second.app.accept((await second.next_offer()).offer_id)
        await until(lambda: rider.told[-1].assignment is not None and rider.told[-1].assignment.driver_id == "d2", "not d2")
        assert await outcome(first.app.start(ride_id)) is Reason.NOT_YOURS
        await world.operator().reassign_ride(ride_id)
        world.clock.advance(2_000)
        await world.matching.timekeeper.sweep()
        assert (len(first.offers), len(second.offers)) == (1, 1)
        # It took the ride: that it was taken away again is not held against it.
        assert (await world.operator().get_driver("d1")).acceptance_milli == 1_000 * 10 // 11
        reasons = [e.assignment_ended.reason for e in await events(postgres_dsn, ride_id) if e.HasField("assignment_ended")]
        assert reasons == [event_pb2.ASSIGNMENT_END_REASON_REASSIGNED] * 2


async def test_a_suspended_driver_loses_its_offer_unharmed_and_gets_none_until_it_is_lifted(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, TWO) as (first, second):
        await Passenger(world, world.rider()).request()
        offer = await first.next_offer()
        await first.app.ack(offer.offer_id)
        suspended = await world.operator().suspend_driver("d1", "papers")
        assert (suspended.suspended, suspended.online, suspended.free_since_ms) == (True, True, 0)
        await asyncio.wait_for(first.stream_ended.wait(), PATIENCE_S)
        assert (await second.next_offer()).ride_id == offer.ride_id  # the next one is asked at once
        assert await nearby(world) == ("d2",)
        assert await outcome(first.app.accept(offer.offer_id)) is Reason.OFFER_CLOSED
        assert await outcome(first.app.go_online()) is Reason.DRIVER_SUSPENDED
        assert await outcome(first.watch()) is Reason.DRIVER_SUSPENDED
        assert (await world.operator().get_driver("d1")).acceptance_milli == 900

        lifted = await world.operator().lift_suspension("d1", "papers came")
        assert (lifted.suspended, lifted.free_since_ms) == (False, world.clock.now_ms())
        assert set(await nearby(world)) == {"d1", "d2"}
        told = [e.driver_suspended for e in await events(postgres_dsn, "d1") if e.HasField("driver_suspended")]
        assert [(t.suspended, t.reason) for t in told] == [(True, "papers"), (False, "papers came")]
        gone = [e.offer_withdrawn.offer_id for e in await events(postgres_dsn, offer.ride_id) if e.HasField("offer_withdrawn")]
        assert gone == [offer.offer_id]


async def test_a_ride_goes_on_with_a_driver_who_is_suspended_meanwhile(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,):
        rider = Passenger(world, world.rider())
        ride_id = await accepted(rider, phone)
        assert (await world.operator().suspend_driver("d1")).ride_id == ride_id
        await phone.app.arrive(ride_id)
        await phone.app.start(ride_id)
        assert (await phone.app.complete(ride_id)).state is RideState.COMPLETED
        await rider.end_of_watch()
        assert await nearby(world) == ()


async def test_the_same_request_is_answered_the_same_and_done_once(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Given a suspension that was lifted since: its repeat tells what it told then, and suspends nobody."""
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]):
        stub, token = world.channels.matching("o1"), (("authorization", f"Bearer {world.token(Role.OPERATOR, 'o1')}"),)
        request = pb.SuspendDriverRequest(request_id="once", city_id=world.city.city_id, driver_id="d1", suspended=True)
        first = await stub.SuspendDriver(request, metadata=token)
        await world.operator().lift_suspension("d1")
        assert await stub.SuspendDriver(request, metadata=token) == first
        assert not (await world.operator().get_driver("d1")).suspended


async def test_figures_of_a_city_are_those_of_what_is_not_over(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, [*TWO, MIDDLE]) as crowd:
        await Passenger(world, world.rider()).request()
        asked = await until(lambda: next((phone for phone in crowd if phone.live()), None), "no offer")
        await asked.app.accept(asked.live()[0].offer_id)
        others = [phone.app for phone in crowd if phone is not asked]
        await world.operator().suspend_driver(others[0].driver_id)
        await others[1].go_offline()
        await Passenger(world, world.rider("r2")).request()
        over = Passenger(world, world.rider("r3"))
        await over.request()
        await over.app.cancel(over.ride_id)
        world.clock.advance(1_600)
        stats = await world.operator().stats()
        assert (stats.drivers_online, stats.drivers_available) == (2, 0)
        assert stats.rides == {RideState.ACCEPTED: 1, RideState.SEARCHING: 1}
        assert (stats.waited_mean_s, stats.waited_max_s, stats.as_of_ms) == (2, 2, world.clock.now_ms())


async def test_an_offer_that_was_never_shown_may_come_once_more_and_counts_for_nothing(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    """Given one driver, whose phone shows nothing: asked twice in a search, and then left alone; its record is as it was."""
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, [NEAR]) as (phone,):
        await Passenger(world, world.rider()).request()
        for count in (1, 2):
            await until(lambda n=count: len(phone.offers) == n and phone.live(), f"offer {count} does not come")  # type: ignore[misc]
            await next_phase(world, [phone])
        await until(lambda: not phone.live(), "the last offer stays")
        await next_phase(world, [phone])
        assert len(phone.offers) == 2
        assert (await world.operator().get_driver("d1")).acceptance_milli == 900


async def test_an_offer_that_was_shown_and_left_counts_and_does_not_come_again(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, [NEAR]) as (phone,):
        await Passenger(world, world.rider()).request()
        offer = await phone.next_offer()
        assert min(offer.direction_deg, offer.trip_distance_m, offer.remaining_ms, offer.fare_minor, offer.pickup_eta_s) > 0
        await phone.app.ack(offer.offer_id)
        await next_phase(world, [phone])
        await until(lambda: not phone.live(), "the offer stays")
        await next_phase(world, [phone])
        assert [o.state for o in phone.offers.values()] == [OfferState.EXPIRED]
        assert (await world.operator().get_driver("d1")).acceptance_milli == 1_000 * 9 // 11


async def many(world: World, crowd: Sequence[Phone], *, drive: bool = False) -> list[tuple[Passenger, Phone]]:
    """As many rides as there are drivers, each offered to one of them, or accepted and at the pickup."""
    pairs = []
    for n in range(len(crowd)):
        rider = Passenger(world, world.rider(f"r{n}"))
        ride_id = (await rider.request()).ride_id

        def asked(ride_id: str = ride_id) -> Phone | None:
            return next((phone for phone in crowd if any(offer.ride_id == ride_id for offer in phone.live())), None)

        phone = await until(asked, "no offer")
        if drive:
            await phone.app.accept(phone.live()[0].offer_id)
            await phone.app.arrive(ride_id)
        pairs.append((rider, phone))
    return pairs


async def test_suspend_against_accept(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Either the driver has the ride and goes on with it, or it is told why not and is bound to none."""
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, ROUNDS) as crowd:
        for rider, phone in await many(world, crowd):
            offer = phone.live()[0]
            answer, suspended = await asyncio.gather(
                outcome(phone.app.accept(offer.offer_id)), world.operator().suspend_driver(phone.app.driver_id)
            )
            assert suspended.suspended
            has_it = (phone.app.driver_id, rider.ride_id) in await assigned(postgres_dsn)
            assert has_it is not isinstance(answer, Reason)
            assert has_it or answer in (Reason.DRIVER_SUSPENDED, Reason.OFFER_CLOSED, Reason.ALREADY_TAKEN)
            await world.operator().end_ride(rider.ride_id)
        assert await assigned(postgres_dsn) == set()


async def test_end_against_accept(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """The ride ends whoever was first: either the driver never had it, or rider and operator know that it did."""
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, ROUNDS) as crowd:
        for rider, phone in await many(world, crowd):
            offer = phone.live()[0]
            answer, ended = await asyncio.gather(
                outcome(phone.app.accept(offer.offer_id)), world.operator().end_ride(rider.ride_id)
            )
            await rider.end_of_watch()
            assert rider.told[-1] == ended
            assert ended.state is RideState.ENDED_BY_OPERATOR
            had_it = ended.assignment is not None and ended.assignment.driver_id == phone.app.driver_id
            assert had_it is (answer is not Reason.OFFER_CLOSED)
        assert await assigned(postgres_dsn) == set()


async def test_end_against_complete(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """One of the two final states, the same for the rider, the driver and the operator."""
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, ROUNDS) as crowd:
        for rider, phone in await many(world, crowd, drive=True):
            await phone.app.start(rider.ride_id)
            done, ended = await asyncio.gather(
                outcome(phone.app.complete(rider.ride_id)), outcome(world.operator().end_ride(rider.ride_id))
            )
            assert [done, ended].count(Reason.ILLEGAL_TRANSITION) == 1
            await rider.end_of_watch()
            assert rider.told[-1] == (ended if done is Reason.ILLEGAL_TRANSITION else done)
        assert await assigned(postgres_dsn) == set()


async def test_reassign_against_start(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """Either the rider is in the car and stays there, or the driver has no ride any more."""
    async with world_of(stores, gridport(matching=ONE_AT_A_TIME)) as world, phones(world, ROUNDS) as crowd:
        for rider, phone in await many(world, crowd, drive=True):
            started, taken = await asyncio.gather(
                outcome(phone.app.start(rider.ride_id)), outcome(world.operator().reassign_ride(rider.ride_id))
            )
            drives = not isinstance(started, Reason)
            assert drives is (taken is Reason.ILLEGAL_TRANSITION)
            assert drives or started in (Reason.ILLEGAL_TRANSITION, Reason.NOT_YOURS)
            assert ((phone.app.driver_id, rider.ride_id) in await assigned(postgres_dsn)) is drives
