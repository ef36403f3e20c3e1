"""Location, asked for supply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceStub
from hexhail.rpc.channel import peer_errors
from pricing.repricer import Counts
from pricing.wire import count_columns

if TYPE_CHECKING:
    import grpc

    from hexhail.cities import City
    from hexhail.rpc.channel import PeerToken

_DEADLINE_S = 2.0


class LocationSupply:
    """Fresh available drivers per cell: a `CountSource`."""

    def __init__(self, channel: grpc.aio.Channel, token: PeerToken) -> None:
        self._stub = LocationServiceStub(channel)
        self._token = token

    async def count(self, city: City) -> Counts:
        """Every cell of the city that holds an available driver."""
        request = location_pb.CountSupplyRequest(city_id=city.city_id, resolution=city.surge_resolution)
        async with peer_errors("location"):
            reply = await self._stub.CountSupply(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        cells, available = count_columns("location", city, reply.resolution, reply.cells, reply.available)
        return Counts(cells, available, reply.as_of_ms, reply.complete)
