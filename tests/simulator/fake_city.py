"""A whole city's services in memory, just true enough to the wire for the simulator's people to live in."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.location.v1 import location_service_pb2_grpc as location_grpc
from hexhail.api.matching.v1 import driver_pb2, offer_pb2, ride_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.api.matching.v1 import matching_service_pb2_grpc as matching_grpc
from hexhail.api.pricing.v1 import pricing_service_pb2 as pricing_pb
from hexhail.api.pricing.v1 import pricing_service_pb2_grpc as pricing_grpc
from hexhail.api.pricing.v1 import quote_pb2, surge_pb2
from hexhail.client import Addresses
from hexhail.kernel.clock import SystemClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place, cell_of
from hexhail.rpc.interceptor import principal
from hexhail.rpc.server import ServiceSpec, serving
from hexhail.rpc.tokens import EVERYONE, Role, mint_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = b"k" * 32
CLOCK = SystemClock()
PHASE = 3
PHASE_S = 2.0

SEARCHING, OFFERED, ACCEPTED, ARRIVED, IN_PROGRESS, COMPLETED, CANCELLED, EXPIRED = (
    ride_pb2.RIDE_STATE_SEARCHING,
    ride_pb2.RIDE_STATE_OFFERED,
    ride_pb2.RIDE_STATE_ACCEPTED,
    ride_pb2.RIDE_STATE_ARRIVED,
    ride_pb2.RIDE_STATE_IN_PROGRESS,
    ride_pb2.RIDE_STATE_COMPLETED,
    ride_pb2.RIDE_STATE_CANCELLED_BY_RIDER,
    ride_pb2.RIDE_STATE_EXPIRED,
)


def token(role: Role, subject: str) -> str:
    return mint_token(KEY, role, subject)


class FakeMatching(matching_grpc.MatchingServiceServicer):
    """Offers each ride to the three drivers that have waited longest; the first to accept has it."""

    def __init__(self, *, fenced: bool, phase: int) -> None:
        self.fenced = fenced
        self.phase = phase
        self.rides: dict[str, ride_pb2.Ride] = {}
        self.offers: dict[str, offer_pb2.Offer] = {}
        self.sessions: dict[str, asyncio.Queue[matching_pb.WatchOffersResponse | None]] = {}
        self.online: set[str] = set()
        self.known: set[str] = set()
        self.on_ride: dict[str, str] = {}
        self.changed: dict[str, asyncio.Condition] = defaultdict(asyncio.Condition)
        self.numbers = itertools.count(1)
        self.searches: set[asyncio.Task[None]] = set()

    async def UpsertDriver(self, request: Any, context: Any) -> matching_pb.UpsertDriverResponse:  # noqa: N802
        self.known.add(request.driver_id)
        return matching_pb.UpsertDriverResponse(driver=driver_pb2.Driver(driver_id=request.driver_id))

    async def GoOnline(self, request: Any, context: Any) -> matching_pb.GoOnlineResponse:  # noqa: N802
        driver_id = principal().subject
        if driver_id not in self.known:
            raise DomainError(Reason.DRIVER_NOT_FOUND)
        self.online.add(driver_id)
        return matching_pb.GoOnlineResponse(driver=driver_pb2.Driver(driver_id=driver_id, online=True))

    async def GoOffline(self, request: Any, context: Any) -> matching_pb.GoOfflineResponse:  # noqa: N802
        driver_id = principal().subject
        self.online.discard(driver_id)
        if driver_id in self.sessions:
            self.sessions.pop(driver_id).put_nowait(None)
        return matching_pb.GoOfflineResponse(driver=driver_pb2.Driver(driver_id=driver_id))

    async def WatchOffers(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        driver_id = principal().subject
        if driver_id not in self.online:
            raise DomainError(Reason.DRIVER_OFFLINE)
        session: asyncio.Queue[matching_pb.WatchOffersResponse | None] = asyncio.Queue()
        self.sessions[driver_id] = session
        yield matching_pb.WatchOffersResponse(snapshot=True)
        while (message := await session.get()) is not None:
            yield message

    async def RequestRide(self, request: Any, context: Any) -> matching_pb.RequestRideResponse:  # noqa: N802
        ride = ride_pb2.Ride(
            ride_id=f"gridport-{next(self.numbers):026d}",
            rider_id=principal().subject,
            stops=request.stops,
            product=request.product,
            state=SEARCHING,
            version=1,
            updated_at_ms=CLOCK.now_ms(),
        )
        self.rides[ride.ride_id] = ride
        self._begin_search(ride)
        return matching_pb.RequestRideResponse(ride=ride)

    def resume(self) -> None:
        """Rides that were waiting when the city closed are searched for again."""
        for ride in self.rides.values():
            if ride.state in (SEARCHING, OFFERED):
                self._begin_search(ride)

    def _begin_search(self, ride: ride_pb2.Ride) -> None:
        task = asyncio.create_task(self._search(ride))
        self.searches.add(task)
        task.add_done_callback(self.searches.discard)

    async def _search(self, ride: ride_pb2.Ride) -> None:
        tried: set[str] = set()
        while ride.state in (SEARCHING, OFFERED):
            busy = {offer.driver_id for offer in self.offers.values() if offer.state == offer_pb2.OFFER_STATE_LIVE}
            free = [d for d in self.sessions if d not in self.on_ride and d not in busy and d not in tried][: self.phase]
            for driver_id in free:
                tried.add(driver_id)
                offer = offer_pb2.Offer(
                    offer_id=f"o{next(self.numbers)}",
                    ride_id=ride.ride_id,
                    driver_id=driver_id,
                    stops=ride.stops,
                    state=offer_pb2.OFFER_STATE_LIVE,
                )
                self.offers[offer.offer_id] = offer
                self._push(offer)
            if free and ride.state == SEARCHING:
                await self._move(ride, OFFERED)
            await asyncio.sleep(PHASE_S if free else 0.1)
            self._close_offers(ride, offer_pb2.OFFER_STATE_EXPIRED)

    def _push(self, offer: offer_pb2.Offer) -> None:
        session = self.sessions.get(offer.driver_id)
        if session is not None:
            session.put_nowait(matching_pb.WatchOffersResponse(offers=[offer]))

    def _close_offers(self, ride: ride_pb2.Ride, state: Any) -> None:
        if not self.fenced and ride.state not in (CANCELLED, COMPLETED):
            return
        for offer in self.offers.values():
            if offer.ride_id == ride.ride_id and offer.state == offer_pb2.OFFER_STATE_LIVE:
                offer.state = state
                self._push(offer)

    async def _move(self, ride: ride_pb2.Ride, state: Any) -> None:
        ride.state = state
        ride.version += 1
        ride.updated_at_ms = CLOCK.now_ms()
        async with self.changed[ride.ride_id]:
            self.changed[ride.ride_id].notify_all()

    async def WatchRide(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        ride, told = self.rides[request.ride_id], -1
        while told != ride.version:
            told = ride.version
            yield matching_pb.WatchRideResponse(ride=ride)
            if ride.state in (COMPLETED, CANCELLED, EXPIRED):
                return
            async with self.changed[ride.ride_id]:
                if told == ride.version:
                    await self.changed[ride.ride_id].wait()

    async def AckOffer(self, request: Any, context: Any) -> matching_pb.AckOfferResponse:  # noqa: N802
        return matching_pb.AckOfferResponse()

    async def DeclineOffer(self, request: Any, context: Any) -> matching_pb.DeclineOfferResponse:  # noqa: N802
        self.offers[request.offer_id].state = offer_pb2.OFFER_STATE_DECLINED
        return matching_pb.DeclineOfferResponse()

    async def AcceptOffer(self, request: Any, context: Any) -> matching_pb.AcceptOfferResponse:  # noqa: N802
        offer = self.offers[request.offer_id]
        ride = self.rides[offer.ride_id]
        if offer.state == offer_pb2.OFFER_STATE_ACCEPTED:
            return matching_pb.AcceptOfferResponse(ride=ride)  # said again: the first answer was lost
        if self.fenced:
            if ride.state not in (SEARCHING, OFFERED):
                raise DomainError(Reason.ALREADY_TAKEN)
            if offer.state != offer_pb2.OFFER_STATE_LIVE:
                raise DomainError(Reason.OFFER_CLOSED)
        offer.state = offer_pb2.OFFER_STATE_ACCEPTED
        self.on_ride[offer.driver_id] = ride.ride_id
        ride.assignment.driver_id = offer.driver_id
        ride.assignment.accepted_at_ms = CLOCK.now_ms()
        ride.assignment.pickup_eta_s = 10
        await self._move(ride, ACCEPTED)
        self._close_offers(ride, offer_pb2.OFFER_STATE_WITHDRAWN)
        return matching_pb.AcceptOfferResponse(ride=ride)

    async def _step(self, ride_id: str, before: int, after: Any) -> ride_pb2.Ride:
        ride = self.rides[ride_id]
        if ride.state == after and ride.assignment.driver_id == principal().subject:
            return ride  # said again: the first answer was lost
        if ride.state != before or (self.fenced and ride.assignment.driver_id != principal().subject):
            raise DomainError(Reason.ILLEGAL_TRANSITION)
        if after == ARRIVED:
            ride.assignment.arrived_at_ms = CLOCK.now_ms()
        if after == COMPLETED:
            self.on_ride.pop(ride.assignment.driver_id, None)
        await self._move(ride, after)
        return ride

    async def ReportArrival(self, request: Any, context: Any) -> matching_pb.ReportArrivalResponse:  # noqa: N802
        return matching_pb.ReportArrivalResponse(ride=await self._step(request.ride_id, ACCEPTED, ARRIVED))

    async def StartRide(self, request: Any, context: Any) -> matching_pb.StartRideResponse:  # noqa: N802
        return matching_pb.StartRideResponse(ride=await self._step(request.ride_id, ARRIVED, IN_PROGRESS))

    async def CompleteRide(self, request: Any, context: Any) -> matching_pb.CompleteRideResponse:  # noqa: N802
        return matching_pb.CompleteRideResponse(ride=await self._step(request.ride_id, IN_PROGRESS, COMPLETED))

    async def CancelRide(self, request: Any, context: Any) -> matching_pb.CancelRideResponse:  # noqa: N802
        ride = self.rides[request.ride_id]
        if ride.state in (IN_PROGRESS, COMPLETED, CANCELLED):
            raise DomainError(Reason.ILLEGAL_TRANSITION)
        self.on_ride.pop(ride.assignment.driver_id, None)
        await self._move(ride, CANCELLED)
        self._close_offers(ride, offer_pb2.OFFER_STATE_WITHDRAWN)
        return matching_pb.CancelRideResponse(ride=ride)


class FakeLocation(location_grpc.LocationServiceServicer):
    """Takes every fix; remembers each driver's."""

    def __init__(self) -> None:
        self.singles: dict[str, list[Any]] = defaultdict(list)
        self.columns: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        """Driver -> (sequence, lat_e7, lng_e7)."""
        self.interval_ms: dict[str, int] = {}
        """How often a driver is told to report."""

    async def StreamFixes(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in request_iterator:
            if request.WhichOneof("message") == "fix":
                driver_id = principal().subject
                self.singles[driver_id].append(request.fix)
                ack = location_pb.FixAck(accepted=1, report_interval_ms=self.interval_ms.get(driver_id, 0))
                yield location_pb.StreamFixesResponse(ack=ack)

    async def StreamFleetFixes(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        table: list[str] = []
        async for request in request_iterator:
            if request.WhichOneof("message") == "columns":
                rows = request.columns
                table.extend(rows.new_driver_ids)
                for index, *fix in zip(rows.driver_index, rows.sequence, rows.lat_e7, rows.lng_e7, strict=True):
                    self.columns[table[index]].append((fix[0], fix[1], fix[2]))
                yield location_pb.StreamFleetFixesResponse(ack=location_pb.FixAck(accepted=len(rows.driver_index)))


class FakePricing(pricing_grpc.PricingServiceServicer):
    async def GetQuotes(self, request: Any, context: Any) -> pricing_pb.GetQuotesResponse:  # noqa: N802
        quotes = [quote_pb2.Quote(product=product, quote_token=b"q") for product in request.products]
        return pricing_pb.GetQuotesResponse(quotes=quotes)

    async def GetSurge(self, request: Any, context: Any) -> pricing_pb.GetSurgeResponse:  # noqa: N802
        cells = [cell_of(Place(40.5, -74.0), 8)]
        return pricing_pb.GetSurgeResponse(surge=surge_pb2.SurgeColumns(resolution=8, cells=cells, multiplier_milli=[1500]))


class FakeCity:
    """The three services of a city; `fenced` False lets several drivers win one ride."""

    def __init__(self, *, fenced: bool = True, phase: int = PHASE) -> None:
        self.matching = FakeMatching(fenced=fenced, phase=phase)  # type: ignore[abstract]  # the rest stays UNIMPLEMENTED
        self.location = FakeLocation()  # type: ignore[abstract]
        self.pricing = FakePricing()  # type: ignore[abstract]

    @asynccontextmanager
    async def open(self, folder: Path | None = None) -> AsyncIterator[Addresses]:
        """Opens on free ports, or on the sockets of a folder: closed and opened again, they are found again."""
        services: tuple[tuple[str, Any, type], ...] = (
            ("location.v1.LocationService", self.location, location_grpc.LocationServiceServicer),
            ("matching.v1.MatchingService", self.matching, matching_grpc.MatchingServiceServicer),
            ("pricing.v1.PricingService", self.pricing, pricing_grpc.PricingServiceServicer),
        )
        registers: tuple[Any, ...] = (
            location_grpc.add_LocationServiceServicer_to_server,
            matching_grpc.add_MatchingServiceServicer_to_server,
            pricing_grpc.add_PricingServiceServicer_to_server,
        )
        async with AsyncExitStack() as stack:
            addresses = []
            for (name, servicer, base), register in zip(services, registers, strict=True):
                access = {method: EVERYONE for method in vars(base) if not method.startswith("_")}
                spec = ServiceSpec(f"hexhail.api.{name}", servicer, base, register, access)
                listen = f"unix:{folder / name}" if folder is not None else "127.0.0.1:0"
                addresses.append((await stack.enter_async_context(serving(spec, listen, KEY))).address)
            self.matching.resume()
            yield Addresses(*addresses)
            for task in self.matching.searches:
                task.cancel()
