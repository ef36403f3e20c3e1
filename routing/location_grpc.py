"""Location, asked where a city's drivers are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceStub
from hexhail.kernel.units import from_e7
from hexhail.rpc.channel import peer_errors
from routing.learner import FleetNews

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from hexhail.cities import City
    from hexhail.rpc.channel import PeerToken

PERIOD_MS = 1_000


class WatchedFleet:
    """The drivers of a city, as location tells of them: a `Fleet`."""

    def __init__(self, channel: grpc.aio.Channel, token: PeerToken, city: City) -> None:
        self._stub = LocationServiceStub(channel)
        self._token = token
        self._city = city

    async def watch(self) -> AsyncIterator[FleetNews]:
        """All drivers within the city's bounds, then those that change. Raises PEER_UNAVAILABLE where it breaks off."""
        west, south, east, north = self._city.area.bounds
        box = geo_pb2.LatLngBox(south_west=geo_pb2.LatLng(lat=south, lng=west), north_east=geo_pb2.LatLng(lat=north, lng=east))
        request = location_pb.WatchAreaRequest(city_id=self._city.city_id, box=box, period_ms=PERIOD_MS)
        async with peer_errors("location"):
            async for message in self._stub.WatchArea(request, metadata=self._token.metadata()):
                yield _news(message)


def _news(message: location_pb.WatchAreaResponse) -> FleetNews:
    columns = message.drivers
    lat, lng = np.array(columns.lat_e7, dtype=np.int32), np.array(columns.lng_e7, dtype=np.int32)
    return FleetNews(
        snapshot=message.snapshot,
        driver_ids=list(columns.driver_id),
        places=np.column_stack((from_e7(lat), from_e7(lng))),
        at_ms=np.array(columns.received_at_ms, dtype=np.int64),
        doing=np.array(columns.availability, dtype=np.int64),
        gone=list(message.gone_driver_ids),
    )
