"""What does surge stand at? For any app: the multipliers now, and as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.client import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.api.pricing.v1.pricing_service_pb2_grpc import PricingServiceAsyncStub
    from hexhail.client.calling import Calling
    from hexhail.client.views import SurgeView


class SurgeReading:
    """The part of every app that reads surge."""

    _calling: Calling
    _pricing: PricingServiceAsyncStub

    async def surge(self, city_id: str) -> SurgeView:
        """Every cell above 1, now."""
        answer = await self._calling.ask(self._pricing.GetSurge, pb.GetSurgeRequest(city_id=city_id))
        return wire.surge_view(answer.surge, snapshot=True, version=answer.version, as_of_ms=answer.as_of_ms, stale=answer.stale)

    async def watch_surge(self, city_id: str) -> AsyncIterator[SurgeView]:
        """The multipliers as they change: a snapshot, then changes.

        The protocol gives a reader no way of ending this stream but cancelling it, which counts as CANCELLED.
        """
        async for answer in self._calling.watch(self._pricing.WatchSurge, pb.WatchSurgeRequest(city_id=city_id)):
            yield wire.surge_view(
                answer.surge,
                snapshot=answer.snapshot,
                version=answer.sequence,
                as_of_ms=answer.as_of_ms,
                stale=answer.stale,
            )
