"""What a benchmark asks the location service besides its load: tell it who is available, and ask where everyone is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.accounting import Found
from benchmarks.sending_grpc import ANSWER_S, CHANNEL_OPTIONS, bearer
from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import driver_position_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.kernel.units import E7
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE: Final = 1_000
"""States or drivers in one call."""


class LocationCalls:
    """The calls of matching, to one location service, about one city."""

    def __init__(self, address: str, token_key: bytes, city_id: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub: Any = rpc.LocationServiceStub(self._channel)
        self._how = {"metadata": bearer(mint_token(token_key, Role.SERVICE, "bench")), "timeout": ANSWER_S}
        self._city_id = city_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def why_not_ready(self) -> str | None:
        """None once the service answers for the city; else why it does not."""
        try:
            await self._epoch()
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return None

    async def tell(self, driver_ids: Sequence[str], *, version: int = 1, available: bool = True) -> int:
        """Tells that these drivers are available, or offline, and that all has been told; how many were news?"""
        epoch = await self._epoch()
        availability = driver_position_pb2.AVAILABILITY_AVAILABLE if available else driver_position_pb2.AVAILABILITY_OFFLINE
        applied = 0
        for start in range(0, len(driver_ids), AT_ONCE):
            states = [
                driver_position_pb2.DriverState(
                    driver_id=each,
                    driver_version=version,
                    availability=availability,
                    capabilities=["economy"],
                    rating_milli=4_800,
                )
                for each in driver_ids[start : start + AT_ONCE]
            ]
            request = pb.SetDriverStatesRequest(city_id=self._city_id, epoch=epoch, states=states, completes_snapshot=True)
            applied += (await self._stub.SetDriverStates(request, **self._how)).applied
        return applied

    async def positions_e7(self, driver_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Where are these drivers? (lat, lng) in 1e-7 degrees, of those heard of lately."""
        found: dict[str, tuple[int, int]] = {}
        for start in range(0, len(driver_ids), AT_ONCE):
            request = pb.GetDriverPositionsRequest(city_id=self._city_id, driver_ids=driver_ids[start : start + AT_ONCE])
            for each in (await self._stub.GetDriverPositions(request, **self._how)).positions:
                found[each.driver_id] = (round(each.position.lat * E7), round(each.position.lng * E7))
        return found

    async def nearby(self, places: Sequence[tuple[float, float]], count: int) -> list[Found]:
        """Who is near each of these places?"""
        requests = (nearby_request(self._city_id, lat, lng, count) for lat, lng in places)
        answers = await asyncio.gather(*(self._stub.FindNearbyDrivers(request, **self._how) for request in requests))
        return [found_of(answer) for answer in answers]

    async def supply(self) -> int:
        """How many fresh available drivers are there in all? Raises ValueError where the service does not know."""
        reply = await self._stub.CountSupply(pb.CountSupplyRequest(city_id=self._city_id, resolution=7), **self._how)
        if not reply.complete:
            raise ValueError("supply is not complete")
        return sum(reply.available)

    async def _epoch(self) -> str:
        reply = await self._stub.GetStateEpoch(pb.GetStateEpochRequest(city_id=self._city_id), **self._how)
        epoch: str = reply.epoch
        return epoch


async def why_not_serving(address: str) -> str | None:
    """None once the service at this address says that it serves; else why it does not."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    serving: bool = answer.status == health_pb2.HealthCheckResponse.SERVING
    return None if serving else "not serving yet"


def nearby_request(city_id: str, lat: float, lng: float, count: int) -> pb.FindNearbyDriversRequest:
    """Who is near this place?"""
    return pb.FindNearbyDriversRequest(city_id=city_id, position=geo_pb2.LatLng(lat=lat, lng=lng), max_drivers=count)


def found_of(answer: pb.FindNearbyDriversResponse) -> Found:
    """An answer in our own words."""
    return Found(
        driver_ids=tuple(each.position.driver_id for each in answer.drivers),
        distance_m=tuple(each.distance_m for each in answer.drivers),
        age_ms=tuple(each.position.age_ms for each in answer.drivers),
        complete=answer.complete,
    )
