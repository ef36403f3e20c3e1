"""Services that answer from a script, behind the real server shell: errors, tokens and drain are the real ones."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hexhail.api.common.v1 import money_pb2
from hexhail.api.location.v1 import fix_pb2, location_service_pb2, location_service_pb2_grpc
from hexhail.api.matching.v1 import driver_pb2, matching_service_pb2, matching_service_pb2_grpc, ride_pb2
from hexhail.api.pricing.v1 import pricing_service_pb2, pricing_service_pb2_grpc, quote_pb2, surge_pb2
from hexhail.client import Addresses
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.interceptor import principal
from hexhail.rpc.server import ServiceSpec, Shell, serving
from hexhail.rpc.tokens import EVERYONE, Role, mint_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

KEY = b"k" * 32


def token(role: Role, subject: str) -> str:
    return mint_token(KEY, role, subject)


@dataclass
class Script:
    """What the fakes were told to answer, and what they were asked."""

    refuse: dict[str, list[DomainError]] = field(default_factory=dict)
    """Method -> errors, one for each call until none is left."""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, caller, request."""

    def answer(self, method: str, request: Any) -> None:
        self.asked.append((method, str(principal()), request))
        errors = self.refuse.get(method)
        if errors:
            raise errors.pop(0)


class Matching(matching_service_pb2_grpc.MatchingServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def RequestRide(self, request: Any, context: Any) -> matching_service_pb2.RequestRideResponse:  # noqa: N802
        self.script.answer("RequestRide", request)
        ride = ride_pb2.Ride(
            ride_id="gridport-01KACW4J000000000000000000",
            state=ride_pb2.RIDE_STATE_SEARCHING,
            version=1,
            stops=request.stops,
            fare=money_pb2.Money(amount_minor=1234, currency_code="USD"),
        )
        return matching_service_pb2.RequestRideResponse(ride=ride)

    async def WatchRide(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.script.answer("WatchRide", request)
        ride = ride_pb2.Ride(ride_id=request.ride_id, state=ride_pb2.RIDE_STATE_SEARCHING, version=1)
        yield matching_service_pb2.WatchRideResponse(ride=ride)
        ride.state, ride.version = ride_pb2.RIDE_STATE_ACCEPTED, 2
        ride.assignment.driver_id, ride.assignment.pickup_eta_s = "fleet.d1", 77
        yield matching_service_pb2.WatchRideResponse(ride=ride)
        tracking = matching_service_pb2.Tracking(driver_id="fleet.d1", eta_s=60)
        tracking.position.lat, tracking.position.lng = 40.5, -74.0
        yield matching_service_pb2.WatchRideResponse(tracking=tracking)
        self.script.answer("WatchRide/end", request)

    async def GoOnline(self, request: Any, context: Any) -> matching_service_pb2.GoOnlineResponse:  # noqa: N802
        self.script.answer("GoOnline", request)
        driver = driver_pb2.Driver(driver_id=principal().subject, online=True)
        return matching_service_pb2.GoOnlineResponse(driver=driver)

    async def GetDriver(self, request: Any, context: Any) -> matching_service_pb2.GetDriverResponse:  # noqa: N802
        self.script.answer("GetDriver", request)
        raise DomainError(Reason.DRIVER_NOT_FOUND)

    async def AcceptOffer(self, request: Any, context: Any) -> matching_service_pb2.AcceptOfferResponse:  # noqa: N802
        self.script.answer("AcceptOffer", request)
        return matching_service_pb2.AcceptOfferResponse(ride=ride_pb2.Ride(ride_id="r", state=ride_pb2.RIDE_STATE_ACCEPTED))

    async def WatchOffers(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.script.answer("WatchOffers", request)
        yield matching_service_pb2.WatchOffersResponse(snapshot=True, sequence=1)
        await asyncio.Event().wait()


class Location(location_service_pb2_grpc.LocationServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def StreamFixes(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in request_iterator:
            self.script.answer("StreamFixes", request)
            if request.WhichOneof("message") == "open_session":
                opened = location_service_pb2.SessionOpened(session_id=7, report_interval_ms=4000)
                yield location_service_pb2.StreamFixesResponse(session_opened=opened)
            else:
                ack = location_service_pb2.FixAck(up_to_sequence=request.fix.sequence, accepted=1)
                yield location_service_pb2.StreamFixesResponse(ack=ack)

    async def StreamFleetFixes(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        batches = 0
        async for request in request_iterator:
            self.script.answer("StreamFleetFixes", request)
            if request.WhichOneof("message") == "open_session":
                opened = location_service_pb2.SessionOpened(session_id=8, report_interval_ms=4000)
                yield location_service_pb2.StreamFleetFixesResponse(session_opened=opened)
                continue
            batches += 1
            drops = [fix_pb2.FixDrop(reason=fix_pb2.FIX_DROP_REASON_NOT_NEWER, count=1)]
            accepted = len(request.columns.driver_index) - 1
            ack = location_service_pb2.FixAck(up_to_sequence=batches, accepted=accepted, drops=drops)
            yield location_service_pb2.StreamFleetFixesResponse(ack=ack)


class Pricing(pricing_service_pb2_grpc.PricingServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def GetQuotes(self, request: Any, context: Any) -> pricing_service_pb2.GetQuotesResponse:  # noqa: N802
        self.script.answer("GetQuotes", request)
        quotes = [
            quote_pb2.Quote(
                quote_id="q",
                product=product,
                quote_token=b"signed",
                fare=money_pb2.Money(amount_minor=1234, currency_code="USD"),
                receipt=quote_pb2.Receipt(multiplier_milli=1500),
            )
            for product in request.products or ("economy", "xl")
        ]
        return pricing_service_pb2.GetQuotesResponse(quotes=quotes)

    async def GetSurge(self, request: Any, context: Any) -> pricing_service_pb2.GetSurgeResponse:  # noqa: N802
        self.script.answer("GetSurge", request)
        columns = surge_pb2.SurgeColumns(resolution=8, cells=[1, 2], multiplier_milli=[1200, 2500])
        return pricing_service_pb2.GetSurgeResponse(surge=columns, version=3, as_of_ms=99)


def _spec(name: str, servicer: Any, base: Any, register: Any) -> ServiceSpec:
    access = {method: EVERYONE for method in vars(base) if not method.startswith("_")}
    goodbyes = {
        "StreamFixes": location_service_pb2.StreamFixesResponse(reconnect=location_service_pb2.Reconnect()),
        "StreamFleetFixes": location_service_pb2.StreamFleetFixesResponse(reconnect=location_service_pb2.Reconnect()),
    }
    return ServiceSpec(f"hexhail.api.{name}", servicer, base, register, access, goodbyes=goodbyes)


@asynccontextmanager
async def fake_city(script: Script, shell: Callable[[], Shell] = Shell) -> AsyncIterator[Addresses]:
    """Location, matching and pricing on free ports, for the time of the block."""
    specs = (
        _spec(
            "location.v1.LocationService",
            Location(script),  # type: ignore[abstract]  # the rest stays UNIMPLEMENTED
            location_service_pb2_grpc.LocationServiceServicer,
            location_service_pb2_grpc.add_LocationServiceServicer_to_server,
        ),
        _spec(
            "matching.v1.MatchingService",
            Matching(script),  # type: ignore[abstract]  # the rest stays UNIMPLEMENTED
            matching_service_pb2_grpc.MatchingServiceServicer,
            matching_service_pb2_grpc.add_MatchingServiceServicer_to_server,
        ),
        _spec(
            "pricing.v1.PricingService",
            Pricing(script),  # type: ignore[abstract]  # the rest stays UNIMPLEMENTED
            pricing_service_pb2_grpc.PricingServiceServicer,
            pricing_service_pb2_grpc.add_PricingServiceServicer_to_server,
        ),
    )
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(spec, "127.0.0.1:0", KEY, shell=shell())) for spec in specs]
        yield Addresses(*(server.address for server in servers))
