"""A fleet's gateway: the positions of many drivers, as columns on one stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.client import wire
from hexhail.client.calling import Calling
from hexhail.client.closing import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hexhail.client.channels import Channels
    from hexhail.client.views import FixAckView, FleetFixes, SessionView


class FleetApp:
    """One gateway of a fleet; `gateway` tells several of them apart, so that they use several connections."""

    def __init__(self, channels: Channels, city_id: str, fleet_id: str, token: str, gateway: int = 0) -> None:
        self.city_id = city_id
        self.fleet_id = fleet_id
        self._calling = Calling(token)
        self._location = channels.location(f"{fleet_id}/{gateway}")

    async def stream_fleet_fixes(self, batches: AsyncIterator[FleetFixes]) -> AsyncIterator[SessionView | FixAckView]:
        """Reports batches as they come; our side is closed where `batches` ends, the stream ends when all is acknowledged.

        It ends early where the service asks for that: all that was taken from `batches` is acknowledged then too. Open it again.
        Raises DomainError or RpcError.
        """
        over = asyncio.Event()

        async def messages() -> AsyncIterator[location_pb.StreamFleetFixesRequest]:
            yield location_pb.StreamFleetFixesRequest(open_session=location_pb.OpenSession(city_id=self.city_id))
            async for batch in until(over, batches):
                yield location_pb.StreamFleetFixesRequest(columns=wire.fix_columns(batch))

        try:
            async for answer in self._calling.exchange(self._location.StreamFleetFixes, messages()):
                if answer.HasField("reconnect"):
                    over.set()
                else:
                    yield wire.fixes_answer(answer)
        finally:
            over.set()
