"""A rider's app: prices, a ride, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.api.pricing.v1 import pricing_service_pb2 as pricing_pb
from hexhail.client import wire
from hexhail.client.calling import Calling, mint_request_id
from hexhail.client.surge import SurgeReading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hexhail.client.channels import Channels
    from hexhail.client.views import QuoteView, RideView, TrackingView
    from hexhail.kernel.geo import Place


class RiderApp(SurgeReading):
    """One rider. Every call raises DomainError or RpcError."""

    def __init__(self, channels: Channels, city_id: str, rider_id: str, token: str, *, attempts: int = 4) -> None:
        """`attempts` : how often a call goes out at most while the service cannot answer, under one request_id."""
        self.city_id = city_id
        self.rider_id = rider_id
        self._calling = Calling(token, attempts=attempts)
        self._matching = channels.matching(rider_id)
        self._pricing = channels.pricing(rider_id)

    async def quotes(self, stops: Sequence[Place], products: Sequence[str] = ()) -> tuple[QuoteView, ...]:
        """What would a ride cost, for each of these products (all, where none is named)?"""
        request = pricing_pb.GetQuotesRequest(
            city_id=self.city_id, stops=[wire.position(place) for place in stops], products=products
        )
        answer = await self._calling.ask(self._pricing.GetQuotes, request)
        return tuple(wire.quote_view(quote) for quote in answer.quotes)

    async def request_ride(self, quote: QuoteView, stops: Sequence[Place], notes: str = "", pickup_at_ms: int = 0) -> RideView:
        """The ride that this quote buys: wanted now, or at `pickup_at_ms`."""
        request = matching_pb.RequestRideRequest(
            request_id=mint_request_id(),
            city_id=self.city_id,
            product=quote.product,
            stops=wire.stops(stops),
            quote_token=quote.quote_token,
            notes=notes,
            pickup_at_ms=pickup_at_ms,
        )
        answer = await self._calling.ask(self._matching.RequestRide, request)
        return wire.ride_view(answer.ride)

    async def get_ride(self, ride_id: str) -> RideView:
        """A ride as it is now."""
        answer = await self._calling.ask(self._matching.GetRide, matching_pb.GetRideRequest(ride_id=ride_id))
        return wire.ride_view(answer.ride)

    async def cancel(self, ride_id: str) -> RideView:
        """Gives a ride up before it has begun."""
        request = matching_pb.CancelRideRequest(request_id=mint_request_id(), ride_id=ride_id)
        answer = await self._calling.ask(self._matching.CancelRide, request)
        return wire.ride_view(answer.ride)

    async def watch_ride(self, ride_id: str, after_version: int = 0) -> AsyncIterator[RideView | TrackingView]:
        """A ride's states, and its driver's positions between them. Ends when the ride is final, or earlier: watch again."""
        request = matching_pb.WatchRideRequest(ride_id=ride_id, after_version=after_version)
        async for answer in self._calling.watch(self._matching.WatchRide, request):
            if answer.WhichOneof("message") == "ride":
                yield wire.ride_view(answer.ride)
            else:
                yield wire.tracking_view(answer.tracking)
