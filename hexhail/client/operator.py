"""An operator's desk: who may drive, and how the city stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hexhail.api.location.v1 import location_service_pb2 as location_pb
from hexhail.api.matching.v1 import matching_service_pb2 as matching_pb
from hexhail.client import wire
from hexhail.client.calling import Calling, mint_request_id
from hexhail.client.explanation_wire import explanation_view
from hexhail.client.surge import SurgeReading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.client.channels import Channels
    from hexhail.client.explanation_views import RideExplanation
    from hexhail.client.views import DriverView, RideView, StatsView


class OperatorApp(SurgeReading):
    """One operator. Every call raises DomainError or RpcError."""

    def __init__(self, channels: Channels, city_id: str, operator_id: str, token: str, *, attempts: int = 4) -> None:
        """`attempts` : how often a call goes out at most while the service cannot answer, under one request_id."""
        self.city_id = city_id
        self._channels = channels
        self._calling = Calling(token, attempts=attempts)
        self._location = channels.location(operator_id)
        self._matching = channels.matching(operator_id)
        self._pricing = channels.pricing(operator_id)

    async def upsert_driver(self, driver_id: str, capabilities: Sequence[str], rating_milli: int) -> DriverView:
        """Makes a driver known, or changes what is known."""
        request = matching_pb.UpsertDriverRequest(
            request_id=mint_request_id(),
            city_id=self.city_id,
            driver_id=driver_id,
            capabilities=capabilities,
            rating_milli=rating_milli,
        )
        stub = self._channels.matching(driver_id)  # thousands at once spread over all connections
        return wire.driver_view((await self._calling.ask(stub.UpsertDriver, request)).driver)

    async def get_driver(self, driver_id: str) -> DriverView:
        """One driver."""
        request = matching_pb.GetDriverRequest(city_id=self.city_id, driver_id=driver_id)
        return wire.driver_view((await self._calling.ask(self._matching.GetDriver, request)).driver)

    async def suspend_driver(self, driver_id: str, reason: str = "") -> DriverView:
        """No more offers for a driver, until it is lifted; a ride that it is on goes on."""
        return await self._set_suspended(driver_id, True, reason)

    async def lift_suspension(self, driver_id: str, reason: str = "") -> DriverView:
        """Offers for a driver again."""
        return await self._set_suspended(driver_id, False, reason)

    async def end_ride(self, ride_id: str, reason: str = "") -> RideView:
        """Ends a ride wherever it stands."""
        request = matching_pb.EndRideRequest(request_id=mint_request_id(), ride_id=ride_id, reason=reason)
        return wire.ride_view((await self._calling.ask(self._matching.EndRide, request)).ride)

    async def reassign_ride(self, ride_id: str, reason: str = "") -> RideView:
        """Takes a ride from its driver: it is searched again, for others."""
        request = matching_pb.ReassignRideRequest(request_id=mint_request_id(), ride_id=ride_id, reason=reason)
        return wire.ride_view((await self._calling.ask(self._matching.ReassignRide, request)).ride)

    async def stats(self) -> StatsView:
        """How the city stands."""
        return wire.stats_view(
            await self._calling.ask(self._matching.GetStats, matching_pb.GetStatsRequest(city_id=self.city_id))
        )

    async def erase_driver(self, driver_id: str) -> bool:
        """Has location forget all that it keeps of a driver; was anything known?"""
        request = location_pb.EraseDriverRequest(city_id=self.city_id, driver_id=driver_id)
        return (await self._calling.ask(self._location.EraseDriver, request)).erased

    async def get_ride(self, ride_id: str) -> RideView:
        """One ride."""
        answer = await self._calling.ask(self._matching.GetRide, matching_pb.GetRideRequest(ride_id=ride_id))
        return wire.ride_view(answer.ride)

    async def _set_suspended(self, driver_id: str, suspended: bool, reason: str) -> DriverView:
        request = matching_pb.SuspendDriverRequest(
            request_id=mint_request_id(), city_id=self.city_id, driver_id=driver_id, suspended=suspended, reason=reason
        )
        return wire.driver_view((await self._calling.ask(self._matching.SuspendDriver, request)).driver)

    async def explain_ride(self, ride_id: str, driver_id: str = "") -> RideExplanation:
        """Why a ride went as it did; and, where a driver is named, why each search did not ask that one."""
        request = matching_pb.ExplainRideRequest(ride_id=ride_id, driver_id=driver_id)
        return explanation_view(await self._calling.ask(self._matching.ExplainRide, request))
