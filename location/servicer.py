"""LocationService: check, call, reply."""

# ruff: noqa: ARG002, N802 - names and arguments are the generated interface's

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.kernel.errors import DomainError, Reason, invalid
from hexhail.kernel.ids import check_name
from hexhail.rpc.background import end
from hexhail.rpc.interceptor import principal
from hexhail.rpc.tokens import EVERYONE, Role
from location import mirror_wire, wire
from location.columns_wire import FleetColumns, read_fleet_message
from location.freshness import fresh
from location.model import POSITION, DropReason, Ingested
from location.roster import Reporters
from location.streams import answers_in_order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    import grpc

    from hexhail.api.location.v1 import fix_pb2
    from hexhail.cities import Cities, City
    from hexhail.kernel.clock import Clock
    from hexhail.kernel.ids import CityId
    from hexhail.kernel.units import Ints
    from location.batch_finder import BatchFinder
    from location.counter import SupplyCounter
    from location.finder import Finder
    from location.inbox import Inbox
    from location.ingester import Ingester
    from location.metrics import LocationMetrics
    from location.mirror import Mirror
    from location.model import Records
    from location.params import LocationParams
    from location.road_finder import RoadFinder
    from location.sessions import Sessions
    from location.store import LocationStore
    from location.sweeper import Sweeper
    from location.watcher import Watcher
    from location.zones import Zones

    Context = grpc.aio.ServicerContext[Any, Any]

FULL_NAME: Final = "hexhail.api.location.v1.LocationService"

BATCHES_AT_ONCE: Final = 2
"""One batch of a fleet's stream is being written while the next is read; then nothing more is read, and gRPC slows the sender."""

RESOLVED_AT_ONCE: Final = 250
"""Places whose zones are found before other calls get their turn: a few milliseconds at worst."""

_READERS: Final = frozenset({Role.SERVICE, Role.OPERATOR})
ACCESS: Final = {
    "StreamFixes": frozenset({Role.DRIVER}),
    "StreamFleetFixes": frozenset({Role.FLEET}),
    "ReportFixes": frozenset({Role.DRIVER}),
    "FindNearbyDrivers": _READERS,
    "FindNearbyDriversBatch": _READERS,
    "GetDriverPositions": _READERS | {Role.DRIVER},
    "WatchDrivers": _READERS,
    "WatchArea": _READERS,
    "CountSupply": _READERS,
    "ResolveZones": EVERYONE,
    "SetDriverStates": frozenset({Role.SERVICE}),
    "GetStateEpoch": frozenset({Role.SERVICE}),
    "EraseDriver": _READERS,
}
READERS: Final = {"StreamFleetFixes": read_fleet_message}
"""Methods whose messages are not read by the generated code."""
GOODBYES: Final = {
    "StreamFixes": pb.StreamFixesResponse(reconnect=pb.Reconnect()),
    "StreamFleetFixes": pb.StreamFleetFixesResponse(reconnect=pb.Reconnect()),
}
"""What a stream answers before it ends by itself."""


@dataclass(frozen=True, slots=True)
class CityLocation:
    """All that answers for one city."""

    city: City
    params: LocationParams
    store: LocationStore
    sessions: Sessions
    ingester: Ingester
    finder: Finder
    road_finder: RoadFinder | None
    mirror: Mirror
    counter: SupplyCounter
    watcher: Watcher
    batch_finder: BatchFinder
    sweeper: Sweeper
    zones: Zones
    metrics: LocationMetrics


class LocationServicer(rpc.LocationServiceServicer):
    """Every method checks its request, asks one part of the city's location, and answers."""

    def __init__(self, cities: Cities, locations: Mapping[CityId, CityLocation], clock: Clock) -> None:
        self._cities = cities
        self._locations = locations
        self._clock = clock

    async def StreamFixes(
        self, request_iterator: AsyncIterator[pb.StreamFixesRequest], context: Context
    ) -> AsyncIterator[pb.StreamFixesResponse]:
        """One driver's fixes: read as they come, while few are on their way; acknowledged together."""
        async for opening in request_iterator:
            location = self._opened(opening)
            break
        else:
            return
        session = await location.sessions.open()
        yield pb.StreamFixesResponse(session_opened=self._session_opened(location, session))
        inbox = location.ingester.open(principal().subject, session)
        reading = asyncio.create_task(self._read_fixes(request_iterator, inbox))
        try:
            async for up_to_sequence, ingested, report_interval_ms in inbox.acks():
                yield pb.StreamFixesResponse(ack=wire.ack_of(up_to_sequence, ingested, report_interval_ms))
        finally:
            await end([reading])

    async def _read_fixes(self, requests: AsyncIterator[pb.StreamFixesRequest], inbox: Inbox) -> None:
        try:
            async for request in requests:
                await inbox.put(wire.fix_row("fix", _fix_in(request), inbox.session, self._clock.now_ms()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream ends with it
            inbox.end(error)
        else:
            inbox.end()

    async def StreamFleetFixes(
        self, request_iterator: AsyncIterator[pb.StreamFleetFixesRequest | FleetColumns], context: Context
    ) -> AsyncIterator[pb.StreamFleetFixesResponse]:
        """Many drivers' fixes in columns: a batch is read while the one before is being dealt with."""
        async for opening in request_iterator:
            location = self._opened(opening)
            break
        else:
            return
        session = await location.sessions.open()
        yield pb.StreamFleetFixesResponse(session_opened=self._session_opened(location, session))
        table, caller, dealt_with = wire.FleetTable(), principal(), 0

        def submit(batch: pb.StreamFleetFixesRequest | FleetColumns) -> Coroutine[None, None, Ingested]:
            if not isinstance(batch, FleetColumns):
                raise _not_opening("columns")
            table.append(batch.new_driver_ids, caller)
            indices, fixes = wire.fleet_fixes(batch, table, session, self._clock.now_ms())
            return _submit_members(location, table, indices, fixes)

        async for ingested in answers_in_order(request_iterator, submit, BATCHES_AT_ONCE):
            dealt_with += 1
            ack = wire.ack_of(dealt_with, ingested, location.ingester.usual_interval_ms)
            yield pb.StreamFleetFixesResponse(ack=ack)

    async def ReportFixes(self, request: pb.ReportFixesRequest, context: Context) -> pb.ReportFixesResponse:
        """Some fixes of one driver."""
        location = self._location(request.city_id)
        wire.check_report(request)
        fixes = wire.fix_columns(request.fixes, request.session_id, self._clock.now_ms())
        sessions = location.sessions
        session = await (sessions.resume(request.session_id) if request.session_id else sessions.open())
        fixes["session"] = session
        reporters = Reporters([principal().subject])
        ingested = await location.ingester.submit(reporters, np.zeros(len(fixes), dtype=np.int64), fixes)
        last = int(fixes["sequence"].max(initial=0))
        ack = wire.ack_of(last, ingested, location.ingester.report_interval_ms(reporters))
        return pb.ReportFixesResponse(session_id=session, ack=ack)

    async def FindNearbyDrivers(self, request: pb.FindNearbyDriversRequest, context: Context) -> pb.FindNearbyDriversResponse:
        """The nearest fresh available drivers of a place."""
        location = self._location(request.city_id)
        question = wire.nearby_question(request, location.city, location.params)
        if not wire.is_by_road_time(request):
            return wire.nearby_response(await location.finder.find(question), location.city, location.zones)
        if location.road_finder is None:
            raise invalid("order_by", f"is by road time, and {location.city.city_id} has no travel times")
        return wire.road_time_response(await location.road_finder.find(question), location.city, location.zones)

    async def GetDriverPositions(self, request: pb.GetDriverPositionsRequest, context: Context) -> pb.GetDriverPositionsResponse:
        """Where these drivers are."""
        location = self._location(request.city_id)
        driver_ids = wire.asked_driver_ids(request)
        caller = principal()
        if caller.role is Role.DRIVER and driver_ids != [caller.subject]:
            raise DomainError(Reason.NOT_YOURS, "a driver may ask for its own position only")
        records = await location.store.read_positions(driver_ids)
        now_ms = self._clock.now_ms()
        known = [driver_id for driver_id, record in zip(driver_ids, records, strict=True) if record is not None]
        positions = np.frombuffer(b"".join(filter(None, records)), dtype=POSITION)
        is_fresh = fresh(positions["received_at_ms"], now_ms, _limit_ms(location.city))
        heard = {
            driver_id: position
            for driver_id, position, heard_lately in zip(known, positions.tolist(), is_fresh.tolist(), strict=True)
            if heard_lately
        }
        return pb.GetDriverPositionsResponse(
            positions=[wire.position_of(driver_id, position, now_ms) for driver_id, position in heard.items()],
            unknown_driver_ids=[driver_id for driver_id in driver_ids if driver_id not in heard],
            as_of_ms=now_ms,
        )

    async def CountSupply(self, request: pb.CountSupplyRequest, context: Context) -> pb.CountSupplyResponse:
        """How many fresh available drivers each cell holds."""
        location = self._location(request.city_id)
        cells = wire.asked_cells(request, location.city)
        return mirror_wire.supply_response(await location.counter.supply(), cells, request.resolution)

    async def FindNearbyDriversBatch(
        self, request: pb.FindNearbyDriversBatchRequest, context: Context
    ) -> pb.FindNearbyDriversBatchResponse:
        """The nearest fresh available drivers of many places."""
        location = self._location(request.city_id)
        question = mirror_wire.batch_question(request, location.city, location.params)
        return mirror_wire.batch_response(await location.batch_finder.find(question))

    async def WatchArea(self, request: pb.WatchAreaRequest, context: Context) -> AsyncIterator[pb.WatchAreaResponse]:
        """All drivers of an area as they change."""
        location = self._location(request.city_id)
        watching = location.watcher.watch(mirror_wire.watched_box(request), mirror_wire.period_ms(request))
        async with aclosing(watching) as sightings:
            async for sighting in sightings:
                yield mirror_wire.area_message(sighting)

    async def WatchDrivers(self, request: pb.WatchDriversRequest, context: Context) -> AsyncIterator[pb.WatchDriversResponse]:
        """Some drivers as they change."""
        location = self._location(request.city_id)
        watching = location.watcher.watch(mirror_wire.watched_drivers(request), mirror_wire.period_ms(request))
        async with aclosing(watching) as sightings:
            async for sighting in sightings:
                yield mirror_wire.drivers_message(sighting)

    async def ResolveZones(self, request: pb.ResolveZonesRequest, context: Context) -> pb.ResolveZonesResponse:
        """In which zones some places lie."""
        zones = self._location(request.city_id).zones
        wire.check_resolved(request)
        response = pb.ResolveZonesResponse()
        rows = range(len(request.positions))
        for start in rows[::RESOLVED_AT_ONCE]:
            lat, lng = wire.asked_places(request, rows[start : start + RESOLVED_AT_ONCE])
            response.resolved.extend(wire.resolved_messages(zones.resolve(lat, lng), zones))
            await asyncio.sleep(0)
        return response

    async def SetDriverStates(self, request: pb.SetDriverStatesRequest, context: Context) -> pb.SetDriverStatesResponse:
        """Takes in what matching says of drivers."""
        location = self._location(request.city_id)
        states = wire.driver_states(request, location.city)
        current = await location.store.state_epoch()
        if request.epoch != current.epoch:
            raise _epoch_changed(current.epoch)
        applied = await location.store.write_states(states)
        location.metrics.states_applied += applied
        location.metrics.states_ignored += len(states) - applied
        if request.completes_snapshot and not await location.store.complete_epoch(request.epoch):
            raise _epoch_changed((await location.store.state_epoch()).epoch)
        return pb.SetDriverStatesResponse(applied=applied, ignored=len(states) - applied)

    async def GetStateEpoch(self, request: pb.GetStateEpochRequest, context: Context) -> pb.GetStateEpochResponse:
        """Under which epoch states are held."""
        current = await self._location(request.city_id).store.state_epoch()
        return pb.GetStateEpochResponse(epoch=current.epoch, complete=current.complete)

    async def EraseDriver(self, request: pb.EraseDriverRequest, context: Context) -> pb.EraseDriverResponse:
        """Forgets all that is kept of a driver."""
        location = self._location(request.city_id)
        erased = await location.store.erase([check_name("driver_id", request.driver_id)])
        location.metrics.drivers_erased += erased
        return pb.EraseDriverResponse(erased=erased > 0)

    def _location(self, city_id: str) -> CityLocation:
        return self._locations[self._cities[city_id].city_id]

    def _opened(self, request: pb.StreamFixesRequest | pb.StreamFleetFixesRequest | FleetColumns) -> CityLocation:
        if isinstance(request, FleetColumns) or request.WhichOneof("message") != "open_session":
            raise invalid("message", "is not open_session, which comes first")
        return self._location(request.open_session.city_id)

    def _session_opened(self, location: CityLocation, session: int) -> pb.SessionOpened:
        return pb.SessionOpened(
            session_id=session,
            report_interval_ms=location.ingester.usual_interval_ms,
            server_time_ms=self._clock.now_ms(),
        )


async def _submit_members(location: CityLocation, table: wire.FleetTable, indices: Ints, fixes: Records) -> Ingested:
    """Hands in the fixes of those drivers that belong to the caller, and counts the others."""
    members = table.members(indices)
    strangers = int(np.count_nonzero(~members))
    if not strangers:
        return await location.ingester.submit(table.reporters, indices, fixes)
    turned_away = {DropReason.NOT_A_MEMBER: strangers}
    location.metrics.fixes_dropped.update(turned_away)
    ingested = await location.ingester.submit(table.reporters, indices[members], fixes[members])
    return Ingested(ingested.accepted, {**ingested.drops, **turned_away})


def _fix_in(request: pb.StreamFixesRequest) -> fix_pb2.Fix:
    if not request.HasField("fix"):
        raise _not_opening("fix")
    return request.fix


def _not_opening(kind: str) -> DomainError:
    return invalid("message", f"is not {kind}, in a stream whose session is open")


def _limit_ms(city: City) -> int:
    return round(city.freshness_limit_s * 1000)


def _epoch_changed(epoch: str) -> DomainError:
    return DomainError(Reason.EPOCH_CHANGED, "states were lost since that epoch: tell all again", epoch=epoch)
