"""Location, asked over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import driver_position_pb2 as dp
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceStub
from hexhail.kernel.geo import Place
from hexhail.kernel.units import E7
from hexhail.rpc.channel import PeerToken, peer_errors
from matching.peers import DriverPosition, LeftOut, Nearby, NearbyMany

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Floats
    from matching.store import Driver

_PEER = "location"
_DEADLINE_S = 2.0
_LEFT_OUT = 20
_HEADING_UNKNOWN = 65_535


class GrpcLocation:
    """The location service."""

    def __init__(self, channel: grpc.aio.Channel, token: PeerToken) -> None:
        self._stub = LocationServiceStub(channel)
        self._token = token

    async def nearby(
        self, city_id: CityId, place: Place, max_drivers: int, radius_m: float, capabilities: Sequence[str], page_token: str
    ) -> Nearby:
        """The nearest fresh available drivers. Raises PEER_UNAVAILABLE, or the reason that location gives."""
        request = pb.FindNearbyDriversRequest(
            city_id=city_id,
            position=geo_pb2.LatLng(lat=place.lat, lng=place.lng),
            max_drivers=max_drivers,
            radius_m=radius_m,
            capabilities=capabilities,
            page_token=page_token,
            max_left_out=_LEFT_OUT,
        )
        async with peer_errors(_PEER):
            reply = await self._stub.FindNearbyDrivers(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        found = reply.drivers
        return Nearby(
            driver_ids=tuple(d.position.driver_id for d in found),
            places=np.array([(d.position.position.lat, d.position.position.lng) for d in found], np.float64).reshape(-1, 2),
            distance_m=np.array([d.distance_m for d in found], np.float64),
            heading_deg=np.array(
                [d.position.heading_deg if d.position.HasField("heading_deg") else np.nan for d in found], np.float64
            ),
            searched_radius_m=reply.searched_radius_m,
            complete=reply.complete,
            as_of_ms=reply.as_of_ms,
            next_page_token=reply.next_page_token,
            left_out=tuple(
                LeftOut(d.driver_id, pb.LeftOutReason.Name(d.reason).removeprefix("LEFT_OUT_REASON_"), d.distance_m)
                for d in reply.left_out
            ),
        )

    async def nearby_many(
        self, city_id: CityId, places: Floats, max_drivers: int, radius_m: float, capabilities: Sequence[str]
    ) -> NearbyMany:
        """The nearest fresh available drivers of these places. Raises PEER_UNAVAILABLE, or the reason that location gives."""
        request = pb.FindNearbyDriversBatchRequest(
            city_id=city_id,
            positions=[geo_pb2.LatLng(lat=lat, lng=lng) for lat, lng in places.tolist()],
            max_drivers=max_drivers,
            radius_m=radius_m,
            capabilities=capabilities,
        )
        async with peer_errors(_PEER):
            reply = await self._stub.FindNearbyDriversBatch(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        found = reply.drivers
        heading_cdeg = np.array(found.heading_cdeg, np.float64)
        return NearbyMany(
            driver_ids=tuple(found.driver_id),
            places=np.column_stack((found.lat_e7, found.lng_e7)).astype(np.float64).reshape(-1, 2) / E7,
            heading_deg=np.where(heading_cdeg == _HEADING_UNKNOWN, np.nan, heading_cdeg / 100.0),
            searched_radius_m=np.array(reply.searched_radius_m, np.float64),
            complete=reply.complete,
            as_of_ms=reply.as_of_ms,
        )

    async def positions(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, DriverPosition]:
        """Those of them that reported lately. Raises PEER_UNAVAILABLE, or the reason that location gives."""
        request = pb.GetDriverPositionsRequest(city_id=city_id, driver_ids=driver_ids)
        async with peer_errors(_PEER):
            reply = await self._stub.GetDriverPositions(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        return {
            p.driver_id: DriverPosition(
                p.driver_id,
                Place(p.position.lat, p.position.lng),
                p.heading_deg if p.HasField("heading_deg") else None,
                p.age_ms,
            )
            for p in reply.positions
        }

    async def epoch(self, city_id: CityId) -> tuple[str, bool]:
        """The epoch of the states that location holds, and whether all have been told in it. Raises PEER_UNAVAILABLE."""
        request = pb.GetStateEpochRequest(city_id=city_id)
        async with peer_errors(_PEER):
            reply = await self._stub.GetStateEpoch(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        return reply.epoch, reply.complete

    async def tell(self, city_id: CityId, epoch: str, drivers: Sequence[Driver], completes_snapshot: bool) -> int:
        """Who is available; how many of them was news? Raises EPOCH_CHANGED, PEER_UNAVAILABLE."""
        request = pb.SetDriverStatesRequest(
            city_id=city_id,
            epoch=epoch,
            states=[
                dp.DriverState(
                    driver_id=driver.driver_id,
                    driver_version=driver.version,
                    availability=_availability(driver),
                    capabilities=driver.capabilities,
                    rating_milli=driver.rating_milli,
                )
                for driver in drivers
            ],
            completes_snapshot=completes_snapshot,
        )
        async with peer_errors(_PEER):
            reply = await self._stub.SetDriverStates(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        return reply.applied


def _availability(driver: Driver) -> dp.Availability.ValueType:
    if driver.ride_id:
        return dp.AVAILABILITY_ON_RIDE
    return dp.AVAILABILITY_AVAILABLE if driver.online and not driver.suspended else dp.AVAILABILITY_OFFLINE
