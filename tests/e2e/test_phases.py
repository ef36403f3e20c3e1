"""How offers move through the phases, on a clock that the test moves: nobody waits for real time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hexhail.client import OfferState, RiderApp, RideState, RideView, Role
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from tests.e2e.people import MIDDLE, PATIENCE_S, Passenger, phones, until
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from hexhail.embedded import Stores
    from tests.e2e.people import Phone
    from tests.e2e.world import World

PHASE_S = 5
NEAREST_FIRST = {"ranking": {"policy": "eta"}}


def row(count: int, step_deg: float = 0.0009) -> list[Place]:
    """Drivers on one street, each about a block farther away than the one before."""
    return [Place(MIDDLE.lat + step_deg * (n + 1), MIDDLE.lng) for n in range(count)]


async def offered(crowd: list[Phone]) -> list[str]:
    return [phone.app.driver_id for phone in crowd if phone.live()]


async def pass_time(world: World, seconds: float) -> None:
    """The clock goes on, and everything that is due by then is done."""
    world.clock.advance(round(seconds * 1000))
    await world.matching.timekeeper.sweep()


async def test_the_top_three_are_asked_then_the_next_three_then_the_ride_expires(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    """Given seven drivers who only look: three are asked for 5 s, the next three for 5 s, the last, and at 30 s it is over."""
    async with (
        world_of(stores, gridport(matching=NEAREST_FIRST)) as world,
        phones(world, row(7)) as crowd,
    ):
        rider = Passenger(world, world.rider())
        await rider.request()
        for expected in (["d1", "d2", "d3"], ["d4", "d5", "d6"], ["d7"]):
            await until(lambda e=expected: {p.app.driver_id for p in crowd if p.live()} == set(e), f"not {expected}")  # type: ignore[misc]
            for phone in crowd:
                await phone.report()
                for offer in phone.live():
                    await phone.app.ack(offer.offer_id)
            await pass_time(world, PHASE_S)
        for _ in range(8):
            await pass_time(world, 2)
        await rider.end_of_watch()
        assert rider.states()[-1] is RideState.EXPIRED
        await until(lambda: not any(phone.live() for phone in crowd), "an offer outlives its ride")
        assert {offer.state for phone in crowd for offer in phone.offers.values()} == {OfferState.EXPIRED}


async def test_when_all_decline_the_next_phase_begins_at_once(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with (
        world_of(stores, gridport(matching=NEAREST_FIRST)) as world,
        phones(world, row(4)) as crowd,
    ):
        await Passenger(world, world.rider()).request()
        for phone in crowd[:3]:
            await phone.app.decline((await phone.next_offer()).offer_id)
        offer = await crowd[3].next_offer()
        assert offer.phase == 2


async def test_a_wider_radius_finds_who_was_too_far_before(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    phases = [{"size": 3, "timeout_s": 5.0, "radius_m": 200.0}, {"size": 3, "timeout_s": 5.0, "radius_m": 2_000.0}]
    city = gridport(matching={"offers": {"phases": phases}})
    async with world_of(stores, city) as world, phones(world, [Place(MIDDLE.lat + 0.009, MIDDLE.lng)]) as (far,):
        await Passenger(world, world.rider()).request()
        assert (await far.next_offer()).phase == 2


async def test_an_offer_can_be_accepted_until_its_expiry_is_committed(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """No clocks are compared: an accept that reaches the database before the expiry wins, after it is refused."""
    city = gridport(matching={"offers": {"phases": [{"size": 1, "timeout_s": 5.0, "radius_m": 2_000.0}]}})
    async with world_of(stores, city) as world, phones(world, row(2)) as crowd:
        await Passenger(world, world.rider()).request()
        await until(lambda: any(phone.live() for phone in crowd), "no offer")
        late = next(phone for phone in crowd if phone.live())
        offer = late.live()[0]
        await late.report()
        await pass_time(world, PHASE_S)
        await until(lambda: offer.offer_id not in {o.offer_id for o in late.live()}, "the offer stays live")
        with pytest.raises(DomainError) as refused:
            await late.app.accept(offer.offer_id)
        assert refused.value.reason is Reason.OFFER_CLOSED


async def test_a_driver_without_a_phone_that_listens_is_not_asked(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with (
        world_of(stores, gridport(matching=NEAREST_FIRST)) as world,
        phones(world, row(1), prefix="deaf") as (deaf,),
    ):
        other = [Place(MIDDLE.lat - 0.0027, MIDDLE.lng)]
        async with phones(world, other, prefix="listening") as (listening,):
            await deaf.app.go_offline()
            await deaf.stream_ended.wait()
            await deaf.app.go_online()
            await Passenger(world, world.rider()).request()
            await listening.next_offer()
            assert not deaf.offers


async def test_who_gives_a_ride_back_is_not_asked_again_and_the_next_one_is(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with (
        world_of(
            stores,
            gridport(matching={**NEAREST_FIRST, "offers": {"phases": [{"size": 1, "timeout_s": 5.0, "radius_m": 2_000.0}]}}),
        ) as world,
        phones(world, row(2)) as (first, second),
    ):
        rider = Passenger(world, world.rider())
        await rider.request()
        offer = await first.next_offer()
        await first.app.accept(offer.offer_id)
        await first.app.cancel_assignment(offer.ride_id, "flat tyre")
        again = await second.next_offer()
        assert again.ride_id == offer.ride_id
        await until(lambda: not first.live(), "the offer given back is still live")
        await second.app.accept(again.offer_id)
        await until(lambda: rider.told[-1].assignment is not None and rider.told[-1].assignment.driver_id == "d2", "not d2")


async def test_whose_offer_was_withdrawn_is_asked_again_when_the_ride_comes_back(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with world_of(stores, gridport(matching=NEAREST_FIRST)) as world, phones(world, row(2)) as (first, second):
        await Passenger(world, world.rider()).request()
        offer = await first.next_offer()
        withdrawn = await second.next_offer()
        await first.app.accept(offer.offer_id)
        await until(lambda: not second.live(), "the offer is not withdrawn")
        await first.app.cancel_assignment(offer.ride_id, "flat tyre")
        again = await second.next_offer()
        assert again.offer_id != withdrawn.offer_id


async def test_who_gave_a_ride_back_sees_no_more_of_it(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with world_of(stores, gridport(matching=NEAREST_FIRST)) as world, phones(world, row(2)) as (first, _):
        await Passenger(world, world.rider()).request()
        offer = await first.next_offer()
        await first.app.accept(offer.offer_id)
        driver_id = first.app.driver_id
        eyes = RiderApp(world.channels, world.city.city_id, driver_id, world.token(Role.DRIVER, driver_id))
        seen: list[RideView] = []

        async def watch() -> None:
            async for view in eyes.watch_ride(offer.ride_id):
                assert isinstance(view, RideView)
                seen.append(view)

        watching = asyncio.create_task(watch())
        await until(lambda: seen, "nothing was seen")
        await first.app.cancel_assignment(offer.ride_id)
        with pytest.raises(DomainError) as ended:
            await asyncio.wait_for(watching, PATIENCE_S)
        assert ended.value.reason is Reason.NOT_YOURS
        assert all(view.assignment is not None and view.assignment.driver_id == driver_id for view in seen)
