"""Riders who come when they are due, whether or not earlier ones are served: a price, a ride, and a look at it until it ends."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
from ulid import ULID

from benchmarks.ride_accounting import FINAL, RiderSeen
from benchmarks.sending_grpc import bearer, close_all, open_channels
from hexhail.api.common.v1 import geo_pb2
from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.api.matching.v1 import ride_pb2
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceStub
from hexhail.api.pricing.v1 import pricing_service_pb2 as pricing_pb
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from hexhail.kernel.errors import Reason
from hexhail.rpc import loop
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role, mint_token

if TYPE_CHECKING:
    from benchmarks.sending_grpc import Metadata
    from hexhail.kernel.units import Floats

PRODUCT: Final = "economy"
_CALL_S: Final = 10.0
_STATE: Final = {value.number: value.name.removeprefix("RIDE_STATE_") for value in ride_pb2.RideState.DESCRIPTOR.values}
_BEFORE_FIRST_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class RiderLoad:
    """Who comes when, and whereto.

    first : number of the first rider: nobody rides twice
    due_s : float64[n], when each comes, from the beginning
    pickups, dropoffs : float64[n, 2], lat and lng in degrees
    patience_s : how long a rider looks at its ride at most
    """

    matching: str
    pricing: str
    city_id: str
    token_key: bytes
    connections: int
    first: int
    due_s: Floats
    pickups: Floats
    dropoffs: Floats
    patience_s: float


@dataclass(frozen=True, slots=True)
class _Rider:
    """A rider's calls, made before the clock starts."""

    metadata: Metadata
    quotes: pricing_pb.GetQuotesRequest
    ride: matching_pb.RequestRideRequest
    due_s: float


def run_riders(load: RiderLoad) -> list[RiderSeen]:
    """All riders come, and everybody's ride has ended or was given up: what they saw, in the order in which they were due."""
    riders = _riders(load)
    gc.collect()
    gc.freeze()
    return loop.run(_run(load, riders))


def reachable(address: str, city_id: str, token_key: bytes, places: Floats) -> Floats:
    """Those of these places from which one can go to the middle of them all and back, as pricing knows the streets.

    places : float64[n, 2], lat and lng in degrees
    """
    return places[loop.run(_reachable(address, city_id, token_key, places))]


async def _reachable(address: str, city_id: str, token_key: bytes, places: Floats) -> list[int]:
    channels = open_channels(address, 1)
    prices: Any = PricingServiceStub(channels[0])
    metadata = bearer(mint_token(token_key, Role.RIDER, "bench.scout"))
    hub = geo_pb2.LatLng(lat=float(np.median(places[:, 0])), lng=float(np.median(places[:, 1])))
    rows = []
    try:
        for row, (lat, lng) in enumerate(places.tolist()):
            place = geo_pb2.LatLng(lat=lat, lng=lng)
            request = pricing_pb.GetQuotesRequest(city_id=city_id, stops=[place, hub, place], products=[PRODUCT])
            try:
                await prices.GetQuotes(request, metadata=metadata, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                known = domain_error(error)
                if known is None or known.reason is not Reason.NO_ROUTE:
                    raise
            else:
                rows.append(row)
    finally:
        await close_all(channels)
    return rows


def _riders(load: RiderLoad) -> list[_Rider]:
    riders = []
    for row, (due_s, pickup, dropoff) in enumerate(
        zip(load.due_s.tolist(), load.pickups.tolist(), load.dropoffs.tolist(), strict=True)
    ):
        places = [geo_pb2.LatLng(lat=lat, lng=lng) for lat, lng in (pickup, dropoff)]
        ride = matching_pb.RequestRideRequest(
            request_id=str(ULID()),
            city_id=load.city_id,
            product=PRODUCT,
            stops=[ride_pb2.Stop(position=place) for place in places],
        )
        quotes = pricing_pb.GetQuotesRequest(city_id=load.city_id, stops=places, products=[PRODUCT])
        metadata = bearer(mint_token(load.token_key, Role.RIDER, f"bench.r{load.first + row}"))
        riders.append(_Rider(metadata, quotes, ride, due_s))
    return riders


async def _run(load: RiderLoad, riders: list[_Rider]) -> list[RiderSeen]:
    matching = open_channels(load.matching, load.connections)
    pricing = open_channels(load.pricing, 1)
    stubs: list[Any] = [MatchingServiceStub(channel) for channel in matching]
    prices: Any = PricingServiceStub(pricing[0])
    try:
        began_s = time.perf_counter() + _BEFORE_FIRST_S
        tasks = []
        for row, rider in enumerate(riders):
            due_s = began_s + rider.due_s
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            ride = _ride(load, rider, RiderSeen(due_s), prices, stubs[row % len(stubs)])
            tasks.append(asyncio.create_task(ride))
        return list(await asyncio.gather(*tasks))
    finally:
        await close_all([*matching, *pricing])


async def _ride(load: RiderLoad, rider: _Rider, seen: RiderSeen, prices: Any, rides: Any) -> RiderSeen:
    try:
        seen.quoted_from_s = time.perf_counter()
        answer = await prices.GetQuotes(rider.quotes, metadata=rider.metadata, timeout=_CALL_S)
        rider.ride.quote_token = answer.quotes[0].quote_token
        seen.begun_s = time.perf_counter()
        ride = (await rides.RequestRide(rider.ride, metadata=rider.metadata, timeout=_CALL_S)).ride
        seen.requested_s, seen.ride_id = time.perf_counter(), ride.ride_id
        async with asyncio.timeout(load.patience_s):
            await _watch(rider, seen, rides)
    except grpc.aio.AioRpcError as error:
        seen.failed = f"{error.code().name}: {error.details()}"
    except TimeoutError:
        seen.failed = f"no end within {load.patience_s:g} s"
    return seen


async def _watch(rider: _Rider, seen: RiderSeen, rides: Any) -> None:
    request = matching_pb.WatchRideRequest(ride_id=seen.ride_id)
    while True:
        async for message in rides.WatchRide(request, metadata=rider.metadata):
            if not message.HasField("ride"):
                seen.tracks += 1
                continue
            ride = message.ride
            request.after_version = ride.version
            state = _STATE[ride.state]
            seen.told.setdefault(state, time.perf_counter())
            if ride.HasField("assignment"):
                seen.driver_id = ride.assignment.driver_id
            if state in FINAL:
                return
