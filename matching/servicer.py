"""MatchingService: check, call, reply."""

# ruff: noqa: ARG002, N802 - names and arguments are the generated interface's

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hexhail.api.matching.v1 import matching_service_pb2 as pb
from hexhail.api.matching.v1.matching_service_pb2_grpc import MatchingServiceServicer
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import check_name
from hexhail.rpc.interceptor import principal
from hexhail.rpc.tokens import Role
from matching import explanation_wire, wire
from matching.explanation import absences, explain
from matching.model import (
    DriverArrived,
    DriverCancelled,
    EndedByOperator,
    OfferDeclined,
    OfferShown,
    ReassignedByOperator,
    Ride,
    RideCompleted,
    RiderCancelled,
    RideStarted,
)
from matching.store import Driver, RequestRepeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import Any

    import grpc
    from google.protobuf.message import Message

    from hexhail.cities import Cities
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from matching.dispatcher import Dispatcher
    from matching.explanation import Absence, Explanation
    from matching.model import Event
    from matching.store import Drivers, History, RequestKey, Rides
    from matching.watcher import Watcher

    Context = grpc.aio.ServicerContext[Any, Any]

_RIDER, _DRIVER = frozenset({Role.RIDER}), frozenset({Role.DRIVER})
_OPERATOR, _SERVICE = frozenset({Role.OPERATOR}), frozenset({Role.SERVICE})

ACCESS: Mapping[str, frozenset[Role]] = {
    "RequestRide": _RIDER,
    "GetRide": _RIDER | _DRIVER | _OPERATOR,
    "ListRides": _RIDER | _OPERATOR,
    "ChangeRide": _RIDER,
    "CancelRide": _RIDER,
    "WatchRide": _RIDER | _DRIVER | _OPERATOR,
    "GoOnline": _DRIVER,
    "GoOffline": _DRIVER,
    "WatchOffers": _DRIVER,
    "AckOffer": _DRIVER,
    "AcceptOffer": _DRIVER,
    "DeclineOffer": _DRIVER,
    "ReportArrival": _DRIVER,
    "StartRide": _DRIVER,
    "CompleteRide": _DRIVER,
    "CancelAssignment": _DRIVER,
    "UpsertDriver": _OPERATOR,
    "GetDriver": _OPERATOR | _DRIVER,
    "SuspendDriver": _OPERATOR,
    "EndRide": _OPERATOR,
    "ReassignRide": _OPERATOR,
    "ExplainRide": _OPERATOR,
    "WatchRides": _OPERATOR,
    "GetStats": _OPERATOR,
    "CountDemand": _SERVICE,
}

M = TypeVar("M", bound="Message")


class MatchingServicer(MatchingServiceServicer):
    """What is not here answers UNIMPLEMENTED."""

    def __init__(
        self,
        cities: Cities,
        dispatcher: Dispatcher,
        watcher: Watcher,
        rides: Rides,
        drivers: Drivers,
        history: History,
        clock: Clock,
        new_stream_id: Callable[[], str],
    ) -> None:
        self._cities = cities
        self._dispatcher = dispatcher
        self._watcher = watcher
        self._rides = rides
        self._drivers = drivers
        self._history = history
        self._clock = clock
        self._new_stream_id = new_stream_id

    async def RequestRide(self, request: pb.RequestRideRequest, context: Context) -> pb.RequestRideResponse:
        """A rider wants a ride."""
        wish = wire.read_ride_wish(request, self._cities)
        caller = principal()
        key = wire.read_request_key(wish.city.city_id, caller, request.request_id, request)

        async def act() -> pb.RequestRideResponse:
            ride = await self._dispatcher.request_ride(
                wish.city,
                caller.subject,
                wish.product,
                wish.stops,
                wish.quote_token,
                wish.notes,
                wish.pickup_at_ms,
                str(caller),
                key,
                lambda ride: pb.RequestRideResponse(ride=wire.write_ride(ride)).SerializeToString(),
            )
            return pb.RequestRideResponse(ride=wire.write_ride(ride))

        return await self._once(key, pb.RequestRideResponse, act)

    async def GetRide(self, request: pb.GetRideRequest, context: Context) -> pb.GetRideResponse:
        """One ride."""
        return pb.GetRideResponse(ride=wire.write_ride(await self._visible_ride(request.ride_id)))

    async def ListRides(self, request: pb.ListRidesRequest, context: Context) -> pb.ListRidesResponse:
        """A rider's rides."""
        city = self._cities[request.city_id]
        before, limit = wire.read_page(request, self._cities)
        caller = principal()
        rider_id = caller.subject if caller.role is Role.RIDER else wire.read_rider_id(request.rider_id)
        rides = await self._rides.rides_of_rider(city.city_id, rider_id, before, limit + 1)
        next_token = rides[limit - 1].ride_id if len(rides) > limit else ""
        return pb.ListRidesResponse(rides=[wire.write_ride(ride) for ride in rides[:limit]], next_page_token=next_token)

    async def CancelRide(self, request: pb.CancelRideRequest, context: Context) -> pb.CancelRideResponse:
        """The rider does not want it any more."""
        ride_id = wire.read_ride_id(request.ride_id, self._cities)
        caller = principal()

        async def act(key: RequestKey, answer: Callable[[Ride], bytes]) -> Ride:
            return await self._dispatcher.rider_event(ride_id, caller.subject, RiderCancelled(), str(caller), key, answer)

        return await self._ride_change(request, ride_id, pb.CancelRideResponse, act)

    async def WatchRide(self, request: pb.WatchRideRequest, context: Context) -> AsyncIterator[pb.WatchRideResponse]:
        """A ride's states and tracks."""
        ride = await self._visible_ride(request.ride_id)
        async for seen in self._watcher.ride(ride, request.after_version):
            now_ms = self._clock.now_ms()
            if isinstance(seen, Ride):
                _check_visible(seen)  # a driver who has given the ride back sees no more of it
                yield pb.WatchRideResponse(ride=wire.write_ride(seen), as_of_ms=now_ms)
            else:
                yield wire.write_tracking(seen, now_ms)

    async def GoOnline(self, request: pb.GoOnlineRequest, context: Context) -> pb.GoOnlineResponse:
        """The driver is ready for offers."""
        city_id, caller = self._cities[request.city_id].city_id, principal()

        async def act(key: RequestKey, answer: Callable[[Driver], bytes]) -> Driver:
            return await self._dispatcher.go_online(city_id, caller.subject, str(caller), key, answer)

        return await self._driver_state_change(request, city_id, pb.GoOnlineResponse, act)

    async def GoOffline(self, request: pb.GoOfflineRequest, context: Context) -> pb.GoOfflineResponse:
        """The driver wants no more offers."""
        city_id, caller = self._cities[request.city_id].city_id, principal()

        async def act(key: RequestKey, answer: Callable[[Driver], bytes]) -> Driver:
            return await self._dispatcher.go_offline(city_id, caller.subject, str(caller), key, answer)

        reply = await self._driver_state_change(request, city_id, pb.GoOfflineResponse, act)
        await self._dispatcher.settle_offline(city_id, caller.subject, str(caller))
        return reply

    async def WatchOffers(self, request: pb.WatchOffersRequest, context: Context) -> AsyncIterator[pb.WatchOffersResponse]:
        """The driver's offers."""
        city = self._cities[request.city_id]
        epoch, sequence = self._new_stream_id(), 0
        async for seen in self._watcher.offers(city.city_id, principal().subject, epoch):
            sequence += 1
            now_ms = self._clock.now_ms()
            yield pb.WatchOffersResponse(
                epoch=epoch,
                sequence=sequence,
                snapshot=seen.snapshot,
                offers=[wire.write_offer(ride, offer, now_ms) for ride, offer in seen.offers],
                as_of_ms=now_ms,
            )

    async def AckOffer(self, request: pb.AckOfferRequest, context: Context) -> pb.AckOfferResponse:
        """The offer is on the phone's screen."""
        event = OfferShown(wire.read_offer_id(request.offer_id, self._cities))
        return await self._offer_change(request, request.offer_id, event, pb.AckOfferResponse)

    async def AcceptOffer(self, request: pb.AcceptOfferRequest, context: Context) -> pb.AcceptOfferResponse:
        """The driver takes the ride."""
        offer_id = wire.read_offer_id(request.offer_id, self._cities)
        caller = principal()

        async def act(key: RequestKey, answer: Callable[[Ride], bytes]) -> Ride:
            return await self._dispatcher.accept(caller.subject, offer_id, str(caller), key, answer)

        return await self._ride_change(request, offer_id, pb.AcceptOfferResponse, act)

    async def DeclineOffer(self, request: pb.DeclineOfferRequest, context: Context) -> pb.DeclineOfferResponse:
        """The driver does not want it."""
        event = OfferDeclined(wire.read_offer_id(request.offer_id, self._cities))
        return await self._offer_change(request, request.offer_id, event, pb.DeclineOfferResponse)

    async def ReportArrival(self, request: pb.ReportArrivalRequest, context: Context) -> pb.ReportArrivalResponse:
        """The driver is at the pickup."""
        return await self._driver_change(request, DriverArrived(principal().subject), pb.ReportArrivalResponse)

    async def StartRide(self, request: pb.StartRideRequest, context: Context) -> pb.StartRideResponse:
        """The rider is in the car."""
        return await self._driver_change(request, RideStarted(principal().subject), pb.StartRideResponse)

    async def CompleteRide(self, request: pb.CompleteRideRequest, context: Context) -> pb.CompleteRideResponse:
        """The rider is at the drop-off."""
        return await self._driver_change(request, RideCompleted(principal().subject), pb.CompleteRideResponse)

    async def CancelAssignment(self, request: pb.CancelAssignmentRequest, context: Context) -> pb.CancelAssignmentResponse:
        """The driver gives the ride back."""
        event = DriverCancelled(principal().subject, wire.read_reason(request.reason))
        return await self._driver_change(request, event, pb.CancelAssignmentResponse)

    async def UpsertDriver(self, request: pb.UpsertDriverRequest, context: Context) -> pb.UpsertDriverResponse:
        """Makes a driver known, or changes what is known."""
        city, driver_id, capabilities, rating_milli = wire.read_driver(request, self._cities)
        actor = str(principal())

        async def act(key: RequestKey, answer: Callable[[Driver], bytes]) -> Driver:
            return await self._dispatcher.upsert_driver(city.city_id, driver_id, capabilities, rating_milli, actor, key, answer)

        return await self._driver_state_change(request, city.city_id, pb.UpsertDriverResponse, act)

    async def GetDriver(self, request: pb.GetDriverRequest, context: Context) -> pb.GetDriverResponse:
        """One driver."""
        city = self._cities[request.city_id]
        caller = principal()
        check_name("driver_id", request.driver_id)
        if caller.role is Role.DRIVER and caller.subject != request.driver_id:
            raise DomainError(Reason.NOT_YOURS, "a driver may ask for itself only", driver_id=request.driver_id)
        return pb.GetDriverResponse(driver=wire.write_driver(await self._drivers.driver(city.city_id, request.driver_id)))

    async def SuspendDriver(self, request: pb.SuspendDriverRequest, context: Context) -> pb.SuspendDriverResponse:
        """No more offers for this driver, until lifted."""
        city_id, driver_id, reason = wire.read_suspension(request, self._cities)
        actor = str(principal())

        async def act(key: RequestKey, answer: Callable[[Driver], bytes]) -> Driver:
            return await self._dispatcher.suspend_driver(city_id, driver_id, request.suspended, reason, actor, key, answer)

        reply = await self._driver_state_change(request, city_id, pb.SuspendDriverResponse, act)
        await self._dispatcher.settle_suspended(city_id, driver_id, actor)
        return reply

    async def EndRide(self, request: pb.EndRideRequest, context: Context) -> pb.EndRideResponse:
        """An operator ends the ride."""
        return await self._operator_change(request, EndedByOperator(wire.read_reason(request.reason)), pb.EndRideResponse)

    async def ReassignRide(self, request: pb.ReassignRideRequest, context: Context) -> pb.ReassignRideResponse:
        """An operator takes the ride from its driver: it is searched again."""
        return await self._operator_change(
            request, ReassignedByOperator(wire.read_reason(request.reason)), pb.ReassignRideResponse
        )

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """How the city stands."""
        now_ms = self._clock.now_ms()
        return wire.write_stats(await self._drivers.stats(self._cities[request.city_id].city_id, now_ms), now_ms)

    async def ExplainRide(self, request: pb.ExplainRideRequest, context: Context) -> pb.ExplainRideResponse:
        """Why it went as it did."""
        ride_id = wire.read_ride_id(request.ride_id, self._cities)
        driver_id = explanation_wire.read_asked_driver(request.driver_id)
        ride = await self._rides.ride(ride_id)
        explanation = explain(ride, explanation_wire.read_log(await self._history.of_ride(ride)))
        absent = await self._absences(explanation, driver_id) if driver_id else []
        return explanation_wire.write_explanation(explanation, absent, self._clock.now_ms())

    async def CountDemand(self, request: pb.CountDemandRequest, context: Context) -> pb.CountDemandResponse:
        """Open requests per cell."""
        city = self._cities[request.city_id]
        resolution = wire.read_resolution(request.resolution, city)
        places = await self._rides.open_pickups(city.city_id)
        return wire.write_demand(places, resolution, self._clock.now_ms())

    async def _absences(self, explanation: Explanation, driver_id: str) -> list[Absence]:
        ride, now_ms = explanation.ride, self._clock.now_ms()
        driver = await self._drivers.driver(ride.city_id, driver_id)
        history = explanation_wire.read_driver_history(
            driver,
            await self._history.of_driver(ride.city_id, driver_id, now_ms),
            await self._history.bound(ride.city_id, driver_id, ride.requested_at_ms, now_ms),
        )
        return absences(explanation, history, self._cities[ride.city_id].product(ride.product).capabilities)

    async def _visible_ride(self, ride_id: str) -> Ride:
        ride = await self._rides.ride(wire.read_ride_id(ride_id, self._cities))
        _check_visible(ride)
        return ride

    async def _once(self, key: RequestKey, kind: type[M], act: Callable[[], Awaitable[M]]) -> M:
        """The first answer to this request, whether it is given now or was before.

        A repeat finds out by itself: what it would change has its first one's answer in its way; where it is refused, because the
        world has gone on since, that answer is looked for.
        """
        try:
            return await act()
        except RequestRepeated:
            first = await self._rides.first_answer(key, self._clock.now_ms())
            if first is None:
                raise DomainError(Reason.CONFLICT, "the same request is being answered elsewhere") from None
        except DomainError:
            first = await self._rides.first_answer(key, self._clock.now_ms())
            if first is None:
                raise
        return kind.FromString(first)

    async def _ride_change(
        self,
        request: Any,
        minted_id: str,
        kind: type[M],
        act: Callable[[RequestKey, Callable[[Ride], bytes]], Awaitable[Ride]],
    ) -> M:
        """A change whose answer is the ride, where the answer has a place for it."""
        city_id = minted_id.rpartition("-")[0]
        key = wire.read_request_key(city_id, principal(), request.request_id, request)
        has_ride = "ride" in kind.DESCRIPTOR.fields_by_name

        def write(ride: Ride) -> M:
            return kind(ride=wire.write_ride(ride)) if has_ride else kind()

        async def once() -> M:
            return write(await act(key, lambda ride: write(ride).SerializeToString()))

        return await self._once(key, kind, once)

    async def _driver_state_change(
        self,
        request: Any,
        city_id: CityId,
        kind: type[M],
        act: Callable[[RequestKey, Callable[[Driver], bytes]], Awaitable[Driver]],
    ) -> M:
        """A change whose answer is the driver."""
        key = wire.read_request_key(city_id, principal(), request.request_id, request)

        def write(driver: Driver) -> M:
            return kind(driver=wire.write_driver(driver))

        async def once() -> M:
            return write(await act(key, lambda driver: write(driver).SerializeToString()))

        return await self._once(key, kind, once)

    async def _driver_change(self, request: Any, event: Event, kind: type[M]) -> M:
        ride_id = wire.read_ride_id(request.ride_id, self._cities)
        actor = str(principal())

        async def act(key: RequestKey, answer: Callable[[Ride], bytes]) -> Ride:
            return await self._dispatcher.driver_event(ride_id, event, actor, key, answer)

        return await self._ride_change(request, ride_id, kind, act)

    async def _operator_change(self, request: Any, event: Event, kind: type[M]) -> M:
        ride_id = wire.read_ride_id(request.ride_id, self._cities)
        actor = str(principal())

        async def act(key: RequestKey, answer: Callable[[Ride], bytes]) -> Ride:
            return await self._dispatcher.operator_event(ride_id, event, actor, key, answer)

        return await self._ride_change(request, ride_id, kind, act)

    async def _offer_change(self, request: Any, offer_id: str, event: Event, kind: type[M]) -> M:
        caller = principal()

        async def act(key: RequestKey, answer: Callable[[Ride], bytes]) -> Ride:
            return await self._dispatcher.offer_event(caller.subject, event, offer_id, str(caller), key, answer)

        return await self._ride_change(request, offer_id, kind, act)


def _check_visible(ride: Ride) -> None:
    """Raises NOT_YOURS where the ride is neither its rider's nor its driver's who asks, nor an operator's."""
    caller = principal()
    is_rider = caller.role is Role.RIDER and caller.subject == ride.rider_id
    is_driver = caller.role is Role.DRIVER and ride.assignment is not None and ride.assignment.driver_id == caller.subject
    if not (is_rider or is_driver or caller.role is Role.OPERATOR):
        raise DomainError(Reason.NOT_YOURS, "the ride is somebody else's", ride_id=ride.ride_id)
