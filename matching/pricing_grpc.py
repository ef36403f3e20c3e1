"""Pricing, asked over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from hexhail.kernel.ids import QuoteId
from hexhail.rpc.channel import PeerToken, peer_errors
from matching.model import QuoteFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from hexhail.kernel.geo import Place
    from hexhail.kernel.ids import CityId

_DEADLINE_S = 2.0


class GrpcPricing:
    """The pricing service."""

    def __init__(self, channel: grpc.aio.Channel, token: PeerToken) -> None:
        self._stub = PricingServiceStub(channel)
        self._token = token

    async def verify_quote(
        self, city_id: CityId, quote_token: bytes, rider_id: str, product: str, places: Sequence[Place]
    ) -> QuoteFacts:
        """What the quote promised. Raises QUOTE_ALTERED, QUOTE_EXPIRED, NOT_YOURS, PEER_UNAVAILABLE."""
        request = pb.VerifyQuoteRequest(
            city_id=city_id,
            quote_token=quote_token,
            rider_id=rider_id,
            product=product,
            stops=[geo_pb2.LatLng(lat=place.lat, lng=place.lng) for place in places],
        )
        async with peer_errors("pricing"):
            reply = await self._stub.VerifyQuote(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        quote = reply.quote
        return QuoteFacts(
            quote_id=QuoteId(quote.quote_id),
            fare_minor=quote.fare.amount_minor,
            currency_code=quote.fare.currency_code,
            multiplier_milli=quote.receipt.multiplier_milli,
            surge_version=quote.receipt.surge.surge_version,
            distance_m=quote.distance_m,
            duration_s=quote.duration_s,
            travel_times_version=quote.receipt.travel_times_version,
        )
