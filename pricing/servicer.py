"""PricingService on the wire: check, call, reply."""

# ruff: noqa: ARG002, N802 - names and arguments are gRPC's

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceServicer
from hexhail.rpc.interceptor import principal
from hexhail.rpc.tokens import EVERYONE, Role
from pricing import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import grpc

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from pricing.board import Board
    from pricing.model import Surge
    from pricing.quoter import QuotedCity, Quoter

    Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME: Final = "hexhail.api.pricing.v1.PricingService"

ACCESS: Final[Mapping[str, frozenset[Role]]] = {
    "GetQuotes": frozenset({Role.RIDER}),
    "GetSurge": EVERYONE,
    "WatchSurge": EVERYONE,
    "WatchEarnings": frozenset({Role.DRIVER, Role.OPERATOR}),
    "VerifyQuote": frozenset({Role.SERVICE}),
    "SetSurgeOverride": frozenset({Role.OPERATOR}),
    "ListSurgeOverrides": frozenset({Role.OPERATOR}),
    "SetSurgeEnabled": frozenset({Role.OPERATOR}),
    "PublishSignal": frozenset({Role.OPERATOR, Role.SERVICE}),
    "ExplainSurge": frozenset({Role.OPERATOR}),
    "GetQuote": frozenset({Role.RIDER, Role.OPERATOR}),
}


class PricingServicer(PricingServiceServicer):
    """The methods that are built; the interceptor answers for the others."""

    def __init__(
        self, cities: Cities, *, quoted: Mapping[CityId, QuotedCity], quoter: Quoter, board: Board, clock: Clock
    ) -> None:
        self._cities = cities
        self._quoted = quoted
        self._quoter = quoter
        self._board = board
        self._clock = clock

    async def GetQuotes(self, request: pb.GetQuotesRequest, context: Context) -> pb.GetQuotesResponse:
        """Prices for a rider."""
        asked = wire.quotes_asked(self._cities, request)
        quoted = self._quoted[asked.city.city_id]
        return wire.quotes_message(await self._quoter.quotes(quoted, principal().subject, asked.stops, asked.products))

    async def GetSurge(self, request: pb.GetSurgeRequest, context: Context) -> pb.GetSurgeResponse:
        """The multipliers in force."""
        asked = wire.surge_asked(self._cities, request)
        surge = self._board.current(asked.city.city_id, self._clock.now_ms())
        return wire.surge_message(asked.city, surge, asked.cells)

    async def WatchSurge(self, request: pb.WatchSurgeRequest, context: Context) -> AsyncIterator[pb.WatchSurgeResponse]:
        """The multipliers as they change, from the first that are known; a slow reader skips to the newest."""
        asked = wire.surge_asked(self._cities, request)
        sent: Surge | None = None
        while True:
            surge = await self._board.other_than(asked.city.city_id, sent)
            yield wire.watch_message(asked.city, surge, asked.cells, sent)
            sent = surge

    async def VerifyQuote(self, request: pb.VerifyQuoteRequest, context: Context) -> pb.VerifyQuoteResponse:
        """Whether a quote holds."""
        asked = wire.verification_asked(self._cities, request)
        quote = self._quoter.verify(asked.city, asked.token, rider_id=asked.rider_id, product=asked.product, stops=asked.stops)
        return pb.VerifyQuoteResponse(quote=wire.quote_message(quote))
