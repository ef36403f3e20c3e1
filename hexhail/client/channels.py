"""Over which connections do apps call? A few channels per service, shared by many apps, every call counted."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import grpc

from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceStub
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceStub
from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from hexhail.client.counting import CallCounts
from hexhail.rpc.channel import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from hexhail.api.location.v1.location_service_pb2_grpc import LocationServiceAsyncStub
    from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceAsyncStub
    from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceAsyncStub

# Without the retries of a service's config: one that the channel makes by itself would be a call that nobody counts. What is left
# are calls that no service has seen, because their connection was just being given up: they go out on the next one.
_OPTIONS = tuple((key, value) for key, value in CHANNEL_OPTIONS if key != "grpc.service_config")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the services listen: `host:port` or `unix:PATH`."""

    location: str
    matching: str
    pricing: str


class Channels:
    """The connections of any number of apps. Connects when first used, and again whenever it must."""

    def __init__(self, addresses: Addresses, *, per_service: int = 1, counts: CallCounts | None = None) -> None:
        if per_service < 1:
            raise ValueError("per_service is below 1")
        self.counts = counts or CallCounts()
        self._channels: list[grpc.aio.Channel] = []
        self._location: list[LocationServiceAsyncStub] = []
        self._matching: list[MatchingServiceAsyncStub] = []
        self._pricing: list[PricingServiceAsyncStub] = []
        for _ in range(per_service):
            self._location.append(LocationServiceStub(self._open(addresses.location)))
            self._matching.append(MatchingServiceStub(self._open(addresses.matching)))
            self._pricing.append(PricingServiceStub(self._open(addresses.pricing)))

    def _open(self, address: str) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(address, options=_OPTIONS, interceptors=self.counts.interceptors())
        self._channels.append(channel)
        return channel

    def location(self, subject: str) -> LocationServiceAsyncStub:
        """The location service, over the connection that this caller shares."""
        return self._location[self._slot(subject)]

    def matching(self, subject: str) -> MatchingServiceAsyncStub:
        """The matching service, over the connection that this caller shares."""
        return self._matching[self._slot(subject)]

    def pricing(self, subject: str) -> PricingServiceAsyncStub:
        """The pricing service, over the connection that this caller shares."""
        return self._pricing[self._slot(subject)]

    def _slot(self, subject: str) -> int:
        return zlib.crc32(subject.encode()) % len(self._location)

    async def close(self) -> None:
        """Closes every connection; calls still under way end as CANCELLED, and are counted."""
        await asyncio.gather(*(channel.close() for channel in self._channels))
        await self.counts.settled()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
