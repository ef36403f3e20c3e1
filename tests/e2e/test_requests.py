"""A request that comes again: the same body is told the same for a day, another body is refused."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1 import ride_pb2
from hexhail.client import OfferState, RideState
from hexhail.rpc.tokens import Role
from tests.e2e.people import DROPOFF, MIDDLE, NEAR, Passenger, phones, until
from tests.e2e.raw import METHODS, Raw, Refusal, bearer, raw_channels, rows
from tests.e2e.world import gridport, world_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from hexhail.embedded import Stores
    from tests.e2e.people import Phone
    from tests.e2e.world import World

CITY = "gridport"
RIDER, DRIVER, OPERATOR = (Role.RIDER, "r1"), (Role.DRIVER, "d1"), (Role.OPERATOR, "o1")
NAMED = {method.name: (wire, method) for wire, method in METHODS}
DAY_MS = 24 * 3600 * 1000


class Desk:
    """Somebody who sends the very same message as often as it likes."""

    def __init__(self, world: World, raw: Raw, phone: Phone) -> None:
        self.world = world
        self.raw = raw
        self.phone = phone

    async def send(self, name: str, request: Message, caller: tuple[Role, str]) -> Any:
        return await self.raw.call(*NAMED[name], request, bearer(caller))

    async def wish(self, request_id: str = "wish", rider_id: str = "r1", notes: str = "") -> pb.RequestRideRequest:
        """A ride that can be requested, with a quote of its own."""
        quote = await Passenger(self.world, self.world.rider(rider_id)).quote()
        stops = [ride_pb2.Stop(position=geo_pb2.LatLng(lat=p.lat, lng=p.lng)) for p in (MIDDLE, DROPOFF)]
        return pb.RequestRideRequest(
            request_id=request_id, city_id=CITY, product="economy", stops=stops, quote_token=quote.quote_token, notes=notes
        )


@asynccontextmanager
async def desk_of(stores: Stores) -> AsyncIterator[Desk]:
    async with world_of(stores, gridport()) as world, phones(world, [NEAR]) as (phone,), raw_channels(world) as raw:
        yield Desk(world, raw, phone)


async def test_a_ride_requested_twice_is_one_ride(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        wish = await desk.wish()
        first = await desk.send("RequestRide", wish, RIDER)
        assert first.ride.state == ride_pb2.RIDE_STATE_SEARCHING
        assert await desk.send("RequestRide", wish, RIDER) == first
        assert (await rows(postgres_dsn))["rides"] == 1


async def test_a_ride_requested_ten_times_at_once_is_one_ride(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """None of the ten is told that its rider is busy: the ride that keeps it busy is its own."""
    async with desk_of(stores) as desk:
        wish = await desk.wish()
        answers = await asyncio.gather(*(desk.send("RequestRide", wish, RIDER) for _ in range(10)))
        assert all(answer == answers[0] for answer in answers), answers
        assert isinstance(answers[0], pb.RequestRideResponse)
        assert (await rows(postgres_dsn))["rides"] == 1


async def test_the_same_name_for_something_else_is_refused(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        first = await desk.send("RequestRide", await desk.wish(), RIDER)
        await desk.phone.next_offer()
        before = await rows(postgres_dsn)
        others: dict[str, Message] = {
            "RequestRide": await desk.wish(notes="at the corner"),
            "CancelRide": pb.CancelRideRequest(request_id="wish", ride_id=first.ride.ride_id),
        }
        for name, other in others.items():
            refused = await desk.send(name, other, RIDER)
            assert isinstance(refused, Refusal)
            assert (refused.code, refused.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
        assert await rows(postgres_dsn) == before


async def test_names_are_each_callers_own(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        one = await desk.send("RequestRide", await desk.wish(), RIDER)
        other = await desk.send("RequestRide", await desk.wish(rider_id="r2"), (Role.RIDER, "r2"))
        assert one.ride.ride_id != other.ride.ride_id


async def test_a_refused_request_leaves_its_name_free(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    """What was refused changed nothing, so it may be tried again under the same name."""
    async with desk_of(stores) as desk:
        wish = await desk.wish()
        spoilt = pb.RequestRideRequest()
        spoilt.CopyFrom(wish)
        spoilt.quote_token = wish.quote_token[:-1]
        assert isinstance(await desk.send("RequestRide", spoilt, RIDER), Refusal)
        assert isinstance(await desk.send("RequestRide", wish, RIDER), pb.RequestRideResponse)


async def test_a_repeat_is_told_the_first_answer_though_the_ride_has_gone_on(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with desk_of(stores) as desk:
        wish = await desk.wish()
        requested = await desk.send("RequestRide", wish, RIDER)
        offer = await desk.phone.next_offer()
        accept = pb.AcceptOfferRequest(request_id="a", offer_id=offer.offer_id)
        again = pb.AcceptOfferRequest(request_id="b", offer_id=offer.offer_id)
        accepted = await desk.send("AcceptOffer", accept, DRIVER)
        assert await desk.send("AcceptOffer", again, DRIVER) == accepted  # the winner asks under another name: nothing changes
        arrival = pb.ReportArrivalRequest(request_id="c", ride_id=offer.ride_id)
        arrived = await desk.send("ReportArrival", arrival, DRIVER)
        assert arrived.ride.state == ride_pb2.RIDE_STATE_ARRIVED
        await desk.phone.app.start(offer.ride_id)

        assert await desk.send("RequestRide", wish, RIDER) == requested
        assert await desk.send("AcceptOffer", accept, DRIVER) == accepted
        assert await desk.send("AcceptOffer", again, DRIVER) == accepted
        assert await desk.send("ReportArrival", arrival, DRIVER) == arrived


async def test_a_winner_whose_phone_asks_many_times_at_once_wins_once(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        await desk.send("RequestRide", await desk.wish(), RIDER)
        offer = await desk.phone.next_offer()
        accept = pb.AcceptOfferRequest(request_id="a", offer_id=offer.offer_id)
        answers = await asyncio.gather(*(desk.send("AcceptOffer", accept, DRIVER) for _ in range(6)))
        assert all(answer == answers[0] for answer in answers), answers
        assert answers[0].ride.assignment.driver_id == "d1"


async def test_a_cancellation_is_repeated_without_harm(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        ride = (await desk.send("RequestRide", await desk.wish(), RIDER)).ride
        cancel = pb.CancelRideRequest(request_id="c", ride_id=ride.ride_id)
        answers = await asyncio.gather(*(desk.send("CancelRide", cancel, RIDER) for _ in range(4)))
        assert all(answer == answers[0] for answer in answers), answers
        assert answers[0].ride.state == ride_pb2.RIDE_STATE_CANCELLED_BY_RIDER


async def test_a_driver_who_goes_online_again_and_again_under_one_name_changes_once(
    stores: Stores, postgres_dsn: str, valkey: object
) -> None:
    async with desk_of(stores) as desk:
        upsert = pb.UpsertDriverRequest(request_id="u", city_id=CITY, driver_id="d7", capabilities=["xl"], rating_milli=4_900)
        made = await desk.send("UpsertDriver", upsert, OPERATOR)
        online = pb.GoOnlineRequest(request_id="on", city_id=CITY)
        before = await rows(postgres_dsn)
        answers = await asyncio.gather(*(desk.send("GoOnline", online, (Role.DRIVER, "d7")) for _ in range(5)))
        assert all(answer == answers[0] for answer in answers), answers
        assert answers[0].driver.version > made.driver.version
        assert (await rows(postgres_dsn))["outbox"] == before["outbox"] + 1
        await desk.send("GoOffline", pb.GoOfflineRequest(request_id="off", city_id=CITY), (Role.DRIVER, "d7"))
        assert await desk.send("GoOnline", online, (Role.DRIVER, "d7")) == answers[0]
        now = pb.GetDriverRequest(city_id=CITY, driver_id="d7")
        assert not (await desk.send("GetDriver", now, OPERATOR)).driver.online
        assert await desk.send("UpsertDriver", upsert, OPERATOR) == made


async def test_after_a_day_a_name_is_free_again(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        upsert = pb.UpsertDriverRequest(request_id="u", city_id=CITY, driver_id="d7", capabilities=["xl"], rating_milli=4_900)
        other = pb.UpsertDriverRequest(request_id="u", city_id=CITY, driver_id="d7", capabilities=["xl"], rating_milli=4_000)
        await desk.send("UpsertDriver", upsert, OPERATOR)
        desk.world.clock.advance(DAY_MS - 1)
        refused = await desk.send("UpsertDriver", other, OPERATOR)
        assert isinstance(refused, Refusal)
        assert refused.reason == "REQUEST_ID_REUSED"
        desk.world.clock.advance(1)
        assert (await desk.send("UpsertDriver", other, OPERATOR)).driver.rating_milli == 4_000


async def test_a_declined_offer_declined_again_under_its_name_is_fine(stores: Stores, postgres_dsn: str, valkey: object) -> None:
    async with desk_of(stores) as desk:
        rider = Passenger(desk.world, desk.world.rider())
        await rider.request()
        offer = await desk.phone.next_offer()
        decline = pb.DeclineOfferRequest(request_id="n", offer_id=offer.offer_id)
        for _ in range(3):
            assert await desk.send("DeclineOffer", decline, DRIVER) == pb.DeclineOfferResponse()
        await until(lambda: desk.phone.offers[offer.offer_id].state is OfferState.DECLINED, "not declined")
        assert (await rider.app.get_ride(rider.ride_id)).state is RideState.SEARCHING
