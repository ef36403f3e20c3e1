"""Matching, asked for demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceStub
from hexhail.rpc.channel import peer_errors
from pricing.repricer import Counts
from pricing.wire import count_columns

if TYPE_CHECKING:
    import grpc

    from hexhail.cities import City
    from hexhail.rpc.channel import PeerToken

_DEADLINE_S = 2.0


class MatchingDemand:
    """Open requests per cell: a `CountSource`."""

    def __init__(self, channel: grpc.aio.Channel, token: PeerToken) -> None:
        self._stub = MatchingServiceStub(channel)
        self._token = token

    async def count(self, city: City) -> Counts:
        """Every cell of the city with an open request."""
        request = matching_pb.CountDemandRequest(city_id=city.city_id, resolution=city.surge_resolution)
        async with peer_errors("matching"):
            reply = await self._stub.CountDemand(request, timeout=_DEADLINE_S, metadata=self._token.metadata())
        cells, open_requests = count_columns("matching", city, reply.resolution, reply.cells, reply.open_requests)
        return Counts(cells, open_requests, reply.as_of_ms)
