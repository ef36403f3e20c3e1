"""A driver's app: offers, rides, and the positions that it reports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.client import wire
from hexhail.client.calling import Calling, mint_request_id
from hexhail.client.closing import until
from hexhail.client.surge import SurgeReading
from hexhail.client.views import OffersView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.client.channels import Channels
    from hexhail.client.views import DriverView, FixAckView, FixReport, RideView, SessionView


class DriverApp(SurgeReading):
    """One driver. Every call raises DomainError or RpcError."""

    def __init__(self, channels: Channels, city_id: str, driver_id: str, token: str, *, attempts: int = 4) -> None:
        """`attempts` : how often a call goes out at most while the service cannot answer, under one request_id."""
        self.city_id = city_id
        self.driver_id = driver_id
        self._calling = Calling(token, attempts=attempts)
        self._location = channels.location(driver_id)
        self._matching = channels.matching(driver_id)
        self._pricing = channels.pricing(driver_id)

    async def go_online(self) -> DriverView:
        """Ready for offers."""
        request = matching_pb.GoOnlineRequest(request_id=mint_request_id(), city_id=self.city_id)
        return wire.driver_view((await self._calling.ask(self._matching.GoOnline, request)).driver)

    async def go_offline(self) -> DriverView:
        """No more offers; ends this driver's `watch_offers`."""
        request = matching_pb.GoOfflineRequest(request_id=mint_request_id(), city_id=self.city_id)
        return wire.driver_view((await self._calling.ask(self._matching.GoOffline, request)).driver)

    async def watch_offers(self) -> AsyncIterator[OffersView]:
        """The live offers, then what changes. Ends when the driver goes offline, or earlier: watch again."""
        request = matching_pb.WatchOffersRequest(city_id=self.city_id)
        async for answer in self._calling.watch(self._matching.WatchOffers, request):
            yield OffersView(answer.snapshot, tuple(wire.offer_view(offer) for offer in answer.offers))

    async def ack(self, offer_id: str) -> None:
        """The offer is on the screen. Said beside the driver's thinking: an answer to the offer need not wait for this one's."""
        request = matching_pb.AckOfferRequest(request_id=mint_request_id(), offer_id=offer_id)
        await self._calling.ask(self._matching.AckOffer, request)

    async def accept(self, offer_id: str) -> RideView:
        """Takes the ride. Raises ALREADY_TAKEN where another driver has it."""
        request = matching_pb.AcceptOfferRequest(request_id=mint_request_id(), offer_id=offer_id)
        return wire.ride_view((await self._calling.ask(self._matching.AcceptOffer, request)).ride)

    async def decline(self, offer_id: str) -> None:
        """Does not want it."""
        request = matching_pb.DeclineOfferRequest(request_id=mint_request_id(), offer_id=offer_id)
        await self._calling.ask(self._matching.DeclineOffer, request)

    async def get_ride(self, ride_id: str) -> RideView:
        """The ride that this driver serves, as it is now."""
        answer = await self._calling.ask(self._matching.GetRide, matching_pb.GetRideRequest(ride_id=ride_id))
        return wire.ride_view(answer.ride)

    async def arrive(self, ride_id: str) -> RideView:
        """At the pickup."""
        request = matching_pb.ReportArrivalRequest(request_id=mint_request_id(), ride_id=ride_id)
        return wire.ride_view((await self._calling.ask(self._matching.ReportArrival, request)).ride)

    async def start(self, ride_id: str) -> RideView:
        """The rider is in the car."""
        request = matching_pb.StartRideRequest(request_id=mint_request_id(), ride_id=ride_id)
        return wire.ride_view((await self._calling.ask(self._matching.StartRide, request)).ride)

    async def complete(self, ride_id: str) -> RideView:
        """The rider is at the drop-off."""
        request = matching_pb.CompleteRideRequest(request_id=mint_request_id(), ride_id=ride_id)
        return wire.ride_view((await self._calling.ask(self._matching.CompleteRide, request)).ride)

    async def cancel_assignment(self, ride_id: str, reason: str = "") -> None:
        """Gives the ride back before it has begun: it is searched again."""
        request = matching_pb.CancelAssignmentRequest(request_id=mint_request_id(), ride_id=ride_id, reason=reason)
        await self._calling.ask(self._matching.CancelAssignment, request)

    async def stream_fixes(self, fixes: AsyncIterator[FixReport]) -> AsyncIterator[SessionView | FixAckView]:
        """Reports positions as they come; our side is closed where `fixes` ends, the stream ends when all is acknowledged.

        It ends early where the service asks for that: all that was taken from `fixes` is acknowledged then too. Open it again.
        """
        over = asyncio.Event()

        async def messages() -> AsyncIterator[location_pb.StreamFixesRequest]:
            yield location_pb.StreamFixesRequest(open_session=location_pb.OpenSession(city_id=self.city_id))
            async for report in until(over, fixes):
                yield location_pb.StreamFixesRequest(fix=wire.fix(report))

        try:
            async for answer in self._calling.exchange(self._location.StreamFixes, messages()):
                if answer.HasField("reconnect"):
                    over.set()
                else:
                    yield wire.fixes_answer(answer)
        finally:
            over.set()
