"""A city, its location service on a manual clock, and callers with real tokens: what the tests of location live in."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import driver_position_pb2, fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.cities import Cities, City, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.geo import Place, distance_m
from hexhail.kernel.ids import DriverId
from hexhail.kernel.settings import Settings
from hexhail.kernel.units import E7
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role, mint_token
from hexhail.stores.valkey import open_valkey
from location.__main__ import assemble, running
from location.keys import bucket_keys
from location.model import FIX, RECORD, Availability, DriverState, Records
from location.records import pack_positions
from location.redis_store import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from redis.asyncio import Redis, RedisCluster

    from hexhail.kernel.errors import DomainError
    from hexhail.stores.valkey import Valkey
    from location.servicer import CityLocation
    from routing.sources import RouterSource

NOON_MS = 1_760_000_000_000
KEY = b"k" * 32
CENTRE = (40.5, -74.0)
CITY = "gridport"
LIMIT_MS = 30_000


def gridport(buckets: int = 1, location: Mapping[str, object] | None = None) -> City:
    city = load_city(CITY, Settings())
    return replace(city, buckets=buckets, policies={**city.policies, "location": location or {}})


def fix_row(lat: float, lng: float, *, session: int = 1, sequence: int = 1, at_ms: int = NOON_MS, **rest: Any) -> Records:
    """One fix as FIX[1]."""
    row = np.zeros(1, dtype=FIX)
    for name, value in (("session", session), ("sequence", sequence), ("received_at_ms", at_ms), ("device_time_ms", at_ms)):
        row[name] = value
    row["lat"], row["lng"] = lat, lng
    for name in ("heading_deg", "speed_mps", "accuracy_m"):
        row[name] = rest.get(name, math.nan)
    return row


def packed(fixes: Records, index_resolution: int = 9) -> Records:
    """Fixes as the store keeps them, received when they say: FIX[n] -> POSITION[n]."""
    return pack_positions(fixes, fixes["received_at_ms"], index_resolution)


def state(
    driver_id: str, availability: Availability = Availability.AVAILABLE, *, version: int = 1, mask: int = 1, rating: int = 4_500
) -> DriverState:
    return DriverState(DriverId(driver_id), version, availability, mask, rating)


def state_message(driver_id: str, availability: Any = 2, *, version: int = 1, **rest: Any) -> driver_position_pb2.DriverState:
    rest = {"capabilities": ["economy"], "rating_milli": 4_500, **rest}
    return driver_position_pb2.DriverState(driver_id=driver_id, driver_version=version, availability=availability, **rest)


def fix_message(sequence: int, lat: float, lng: float, **rest: Any) -> fix_pb2.Fix:
    return fix_pb2.Fix(sequence=sequence, position=geo_pb2.LatLng(lat=lat, lng=lng), **rest)


@dataclass(slots=True)
class World:
    """The service, its inside (`location`, wired alike, sharing the store) and its callers."""

    city: City
    clock: ManualClock
    valkey: Any
    line: Valkey
    location: CityLocation
    channel: Any
    stub: Any

    def auth(self, role: Role, subject: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {mint_token(KEY, role, subject)}"),)

    @property
    def as_service(self) -> tuple[tuple[str, str], ...]:
        return self.auth(Role.SERVICE, "matching")

    async def tell(
        self, *states: DriverState | driver_position_pb2.DriverState, complete: bool = True
    ) -> pb.SetDriverStatesResponse:
        """As matching would: asks for the epoch, and tells all."""
        epoch = await self.stub.GetStateEpoch(pb.GetStateEpochRequest(city_id=CITY), metadata=self.as_service)
        messages = [s if isinstance(s, driver_position_pb2.DriverState) else self.message_of(s) for s in states]
        request = pb.SetDriverStatesRequest(city_id=CITY, epoch=epoch.epoch, states=messages, completes_snapshot=complete)
        reply: pb.SetDriverStatesResponse = await self.stub.SetDriverStates(request, metadata=self.as_service)
        return reply

    def message_of(self, told: DriverState) -> driver_position_pb2.DriverState:
        return state_message(
            told.driver_id,
            int(told.availability),
            version=told.driver_version,
            capabilities=self.city.capability_names(told.capability_mask),
            rating_milli=told.rating_milli,
        )

    async def report(self, driver_id: str, *fixes: fix_pb2.Fix, session_id: int = 0) -> pb.ReportFixesResponse:
        request = pb.ReportFixesRequest(city_id=CITY, session_id=session_id, fixes=fixes)
        reply: pb.ReportFixesResponse = await self.stub.ReportFixes(request, metadata=self.auth(Role.DRIVER, driver_id))
        return reply

    async def nearby(self, place: tuple[float, float] = CENTRE, **rest: Any) -> pb.FindNearbyDriversResponse:
        request = pb.FindNearbyDriversRequest(city_id=CITY, position=geo_pb2.LatLng(lat=place[0], lng=place[1]), **rest)
        reply: pb.FindNearbyDriversResponse = await self.stub.FindNearbyDrivers(request, metadata=self.as_service)
        return reply

    async def names_nearby(self, place: tuple[float, float] = CENTRE, **rest: Any) -> list[str]:
        return [found.position.driver_id for found in (await self.nearby(place, **rest)).drivers]

    async def supply(self, resolution: int = 9, cells: Sequence[int] = ()) -> pb.CountSupplyResponse:
        request = pb.CountSupplyRequest(city_id=CITY, resolution=resolution, cells=cells)
        reply: pb.CountSupplyResponse = await self.stub.CountSupply(request, metadata=self.as_service)
        return reply

    async def check_index(self) -> dict[str, str]:
        """Where each indexed driver is; asserts that the store keeps its invariants.

        A driver is in the set of its position's cell exactly while it is available and among the changes; the occupancy is the
        recount of the sets, and never names an empty cell.
        """
        cell_of: dict[str, str] = {}
        for bucket in range(self.city.buckets):
            keys = bucket_keys(self.city.city_id, bucket)
            records, changes, _, occupancy, *_ = keys.scripted
            recount: dict[bytes, int] = {}
            places: dict[str, tuple[float, float]] = {}
            async for key in self.valkey.scan_iter(match=keys.cell_prefix.replace("{", "\\{") + "*", count=1000):
                cell = key.decode().removeprefix(keys.cell_prefix)
                members = [member.decode() for member in await self.valkey.zrange(key, 0, -1)]
                assert not cell_of.keys() & set(members), "a driver in two cells"
                recount[cell.encode()] = len(members)
                cell_of |= dict.fromkeys(members, cell)
                places |= zip(members, await self.valkey.geopos(key, *members), strict=True)
            assert await self.valkey.hgetall(occupancy) == {cell: str(count).encode() for cell, count in recount.items()}
            heard = set(await self.valkey.zrange(changes, 0, -1))
            for driver_id, block in (await self.valkey.hgetall(records)).items():
                (record,) = np.frombuffer(block, dtype=RECORD)
                available = record["state"]["availability"] == Availability.AVAILABLE
                expected = f"{record['position']['cell']:x}" if available and driver_id in heard else None
                assert cell_of.get(driver_id.decode()) == expected
                if expected:
                    lng, lat = places[driver_id.decode()]
                    there = Place(record["position"]["lat_e7"] / E7, record["position"]["lng_e7"] / E7)
                    assert distance_m(Place(lat, lng), there) < 1, "the set knows another place than the record"
        return cell_of


@asynccontextmanager
async def world_on(
    redis_url: str,
    valkey: Redis | RedisCluster,
    buckets: int,
    location: Mapping[str, object] | None = None,
    travel_times: RouterSource | None = None,
) -> AsyncIterator[World]:
    """A service at noon on this store."""
    city = gridport(buckets, location)
    clock = ManualClock(NOON_MS)
    sources = {city.city_id: travel_times} if travel_times else {}
    serving = running(Cities([city]), clock=clock, token_key=KEY, listen="127.0.0.1:0", redis_url=redis_url, sources=sources)
    async with serving as server, grpc.aio.insecure_channel(server.address) as channel:
        line = open_valkey(redis_url, SCRIPTS)
        yield World(
            city, clock, valkey, line, assemble(city, line, clock, travel_times), channel, rpc.LocationServiceStub(channel)
        )
        await line.aclose()


async def refusal(call: Any) -> DomainError:
    """The domain error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    known = domain_error(caught.value)
    assert known is not None, caught.value
    return known
