"""A small city with peers that answer what they are told, around a pricing service on a real Valkey."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import shapely

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.location.v1 import location_service_pb2_grpc as location_grpc
from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.api.matching.v1 import matching_service_pb2_grpc as matching_grpc
from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from hexhail.cities import Cities, City, Product
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.geo import Place, cell_of, centre_of, disk
from hexhail.kernel.ids import CityId
from hexhail.rpc.server import Server, ServiceSpec, serving
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role, mint_token
from pricing.__main__ import Running, running
from routing.sources import FixedSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceAsyncStub
    from hexhail.kernel.errors import DomainError
    from routing.model import Floats32, Route
    from routing.sources import RouterSource

TOKEN_KEY = b"t" * 32
QUOTE_KEY = b"q" * 32
NOON_MS = 1_772_643_600_000  # 2026-03-04 12:00 in New York
TESTPORT = CityId("testport")
SPECS = Path(__file__).parent.parent / "specs"
PICKUP, DROPOFF = Place(40.500, -74.000), Place(40.510, -73.990)


def spec(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((SPECS / f"{name}.json").read_text())
    return table


def city(city_id: str = TESTPORT, *, products: Mapping[str, object] | None = None, **pricing: object) -> City:
    """Testport, with the figures of docs/sources.md but for what is given."""
    fares = products or {}
    return City(
        city_id=CityId(city_id),
        name="Testport",
        time_zone="America/New_York",
        currency_code="USD",
        index_resolution=9,
        surge_resolution=8,
        buckets=1,
        freshness_limit_s=30.0,
        capabilities=("economy",),
        products=tuple(Product(name, ("economy",)) for name in (fares or {"economy": {}, "xl": {}})),
        area=shapely.box(-74.03, 40.47, -73.97, 40.53),
        policies={"pricing": {**pricing, "products": fares}},
    )


def cells_inside(count: int) -> list[int]:
    """Cells of Testport whose middles lie in its area."""
    area = city().area
    middles = ((cell, centre_of(cell)) for cell in disk(cell_of(PICKUP, 8), 4))
    inside = [cell for cell, middle in middles if shapely.contains_xy(area, middle.lng, middle.lat)]
    assert len(inside) >= count
    return inside[:count]


@dataclass
class TestRouter:
    """Every leg is as long as told."""

    __test__ = False

    distance_m: float = 2_000.0
    time_s: float = 300.0
    unreachable: set[int] = field(default_factory=set)
    """Legs that cannot be travelled."""
    version: str = "test-1"
    top_speed_mps: float = 100.0

    def covers(self, places: Any) -> Any:
        return np.ones(len(places), dtype=np.bool_)

    def _legs(self, count: int, each: float) -> Floats32:
        legs = np.full(count, each, dtype=np.float32)
        legs[sorted(self.unreachable)] = np.inf
        return legs

    def pair_times_s(self, origins: Any, destinations: Any, depart_ms: int) -> Floats32:
        return self._legs(len(origins), self.time_s)

    def pair_distances_m(self, origins: Any, destinations: Any) -> Floats32:
        return self._legs(len(origins), self.distance_m)

    def times_s(self, origins: Any, destinations: Any, depart_ms: int) -> Floats32:
        raise NotImplementedError

    def distances_m(self, origins: Any, destinations: Any) -> Floats32:
        raise NotImplementedError

    def route(self, origin: Place, destination: Place, depart_ms: int) -> Route:
        raise NotImplementedError


@dataclass
class Peers:
    """What location and matching answer, and how often they were asked."""

    clock: ManualClock
    supply: dict[int, int] = field(default_factory=dict)
    open_requests: dict[int, int] = field(default_factory=dict)
    complete: bool = True
    as_of_ms: int | None = None
    refuse: dict[str, DomainError] = field(default_factory=dict)
    """Peer -> error."""
    asked: list[str] = field(default_factory=list)

    def enter(self, peer: str) -> None:
        self.asked.append(peer)
        if peer in self.refuse:
            raise self.refuse[peer]


class FakeLocation(location_grpc.LocationServiceServicer):
    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def CountSupply(self, request: Any, context: Any) -> location_pb.CountSupplyResponse:  # noqa: N802
        peers = self._peers
        peers.enter("location")
        return location_pb.CountSupplyResponse(
            resolution=request.resolution,
            cells=list(peers.supply),
            available=list(peers.supply.values()),
            as_of_ms=peers.clock.now_ms() if peers.as_of_ms is None else peers.as_of_ms,
            complete=peers.complete,
        )


class FakeMatching(matching_grpc.MatchingServiceServicer):
    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def CountDemand(self, request: Any, context: Any) -> matching_pb.CountDemandResponse:  # noqa: N802
        peers = self._peers
        peers.enter("matching")
        return matching_pb.CountDemandResponse(
            resolution=request.resolution,
            cells=list(peers.open_requests),
            open_requests=list(peers.open_requests.values()),
            as_of_ms=peers.clock.now_ms(),
        )


def _spec(full_name: str, servicer: Any, base: type, register: Any) -> ServiceSpec:
    """Only services may ask: a call without a service's token fails."""
    methods = [name for name in vars(base) if not name.startswith("_")]
    return ServiceSpec(full_name, servicer, base, register, dict.fromkeys(methods, frozenset({Role.SERVICE})))


def location_spec(peers: Peers) -> ServiceSpec:
    servicer = FakeLocation(peers)  # type: ignore[abstract]
    base, register = location_grpc.LocationServiceServicer, location_grpc.add_LocationServiceServicer_to_server
    return _spec("hexhail.api.location.v1.LocationService", servicer, base, register)


def matching_spec(peers: Peers) -> ServiceSpec:
    servicer = FakeMatching(peers)  # type: ignore[abstract]
    base, register = matching_grpc.MatchingServiceServicer, matching_grpc.add_MatchingServiceServicer_to_server
    return _spec("hexhail.api.matching.v1.MatchingService", servicer, base, register)


def metadata(role: Role, subject: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {mint_token(TOKEN_KEY, role, subject)}"),)


RIDER = metadata(Role.RIDER, "rider-1")
SERVICE = metadata(Role.SERVICE, "matching")


def lat_lngs(*places: Place) -> list[geo_pb2.LatLng]:
    return [geo_pb2.LatLng(lat=place.lat, lng=place.lng) for place in places]


async def refused(call: Any) -> DomainError:
    """The domain error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    known = domain_error(caught.value)
    assert known is not None, f"{caught.value.code()}: {caught.value.details()}"
    return known


@dataclass
class Pricing:
    """A running service and a client of it."""

    running: Running
    stub: PricingServiceAsyncStub

    async def quotes(
        self,
        *stops: Place,
        rider: str = "rider-1",
        products: Sequence[str] = (),
        city_id: str = TESTPORT,
    ) -> pb.GetQuotesResponse:
        request = pb.GetQuotesRequest(city_id=city_id, stops=lat_lngs(*(stops or (PICKUP, DROPOFF))), products=products)
        return await self.stub.GetQuotes(request, metadata=metadata(Role.RIDER, rider))

    async def surge(self, *cells: int) -> pb.GetSurgeResponse:
        request = pb.GetSurgeRequest(city_id=TESTPORT, cells=cells)
        return await self.stub.GetSurge(request, metadata=RIDER)

    async def multipliers(self, *cells: int) -> dict[int, int]:
        surge = (await self.surge(*cells)).surge
        return dict(zip(surge.cells, surge.multiplier_milli, strict=True))


@dataclass
class World:
    """Peers, a clock, a store, and as many pricing services as a test wants."""

    clock: ManualClock
    peers: Peers
    redis_url: str
    router: TestRouter
    source: RouterSource
    location: Server
    matching: Server

    @asynccontextmanager
    async def pricing(self, *cities: City, redis_url: str = "") -> AsyncIterator[Pricing]:
        """A service whose first recompute, made at its start, is over."""
        served = Cities(cities or (city(),))
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(
                running(
                    served,
                    clock=self.clock,
                    token_key=TOKEN_KEY,
                    quote_key=QUOTE_KEY,
                    listen="127.0.0.1:0",
                    redis_url=redis_url or self.redis_url,
                    location_address=self.location.address,
                    matching_address=self.matching.address,
                    sources={one.city_id: self.source for one in served},
                )
            )
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(service.address))
            yield Pricing(service, PricingServiceStub(channel))


@asynccontextmanager
async def world_at(now_ms: int, redis_url: str) -> AsyncIterator[World]:
    """A world whose clock stands at `now_ms`."""
    clock = ManualClock(now_ms)
    peers = Peers(clock)
    async with (
        serving(location_spec(peers), "127.0.0.1:0", TOKEN_KEY) as location,
        serving(matching_spec(peers), "127.0.0.1:0", TOKEN_KEY) as matching,
    ):
        router = TestRouter()
        yield World(clock, peers, redis_url, router, FixedSource(router), location, matching)


async def until(condition: Any, within_s: float = 10.0) -> None:
    """Waits for something that other tasks bring about."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)
