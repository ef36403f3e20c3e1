"""Protobuf to model and back, and every check of a request: what passes here cannot break anything behind it."""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Final, TypedDict

import numpy as np

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import driver_position_pb2, fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel import geo
from hexhail.kernel.errors import invalid
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import DriverId, check_name
from hexhail.kernel.units import E7, from_e7
from location.model import (
    FIX,
    MAX_EXACT,
    UNKNOWN_U2,
    UNKNOWN_U4,
    Availability,
    Cursor,
    DriverState,
    DropReason,
    NearbyQuestion,
)
from location.road_time import NEVER_MS
from location.roster import Reporters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hexhail.cities import City
    from hexhail.kernel.units import Bools, Cells, Floats, Ints
    from hexhail.rpc.tokens import Principal
    from location.columns_wire import FleetColumns
    from location.model import Ingested, NearbyAnswer, Records
    from location.params import LocationParams
    from location.road_time import TimedAnswer
    from location.zones import Resolved, Zones

MAX_FIXES: Final = 1_000
MAX_ROWS: Final = 10_000
MAX_TABLE: Final = 200_000
MAX_NEARBY: Final = 1_000
DEFAULT_NEARBY: Final = 10
MAX_RADIUS_M: Final = 50_000.0
MAX_EXCLUDED: Final = 10_000
MAX_POSITIONS: Final = 1_000
MAX_CELLS: Final = 100_000
MAX_STATES: Final = 1_000
MAX_RATING_MILLI: Final = 5_000
MAX_CAPABILITIES: Final = 32
MAX_TOKEN: Final = 256
MAX_LEFT_OUT: Final = 100
MAX_RESOLVED: Final = 10_000

_REQUIRED_COLUMNS: Final = frozenset({"sequence", "device_time_ms", "lat_e7", "lng_e7"})
_AVAILABILITIES: Final = frozenset(each.value for each in Availability)
_ORDERS: Final = frozenset(pb.NearbyOrder.values())
_DROP_REASONS: Final = {reason: fix_pb2.FixDropReason.Value(f"FIX_DROP_REASON_{reason.name}") for reason in DropReason}


def check_place(field: str, position: geo_pb2.LatLng, *, present: bool) -> Place:
    """A point on the globe. Raises INVALID_FIELD."""
    if not present:
        raise invalid(field, "is missing")
    for name, value, limit in (("lat", position.lat, 90), ("lng", position.lng, 180)):
        if not math.isfinite(value) or abs(value) > limit:
            raise invalid(f"{field}.{name}", f"is not a finite number of {-limit} to {limit}")
    return Place(position.lat, position.lng)


def check_at_most(field: str, items: Sequence[object] | int, most: int) -> None:
    """Raises INVALID_FIELD where a list is longer, or a number larger, than it may be."""
    if isinstance(items, int):
        if items > most:
            raise invalid(field, f"is more than {most:,}")
    elif len(items) > most:
        raise invalid(field, f"has more than {most:,} entries")


def fix_row(field: str, fix: fix_pb2.Fix, session: int, arrived_at_ms: int) -> tuple[float, ...]:
    """A fix as a row of layout FIX. Raises INVALID_FIELD for what no phone of ours sends.

    Odd figures pass: the belief judges them, so that one bad fix does not end a stream.
    """
    if not 1 <= fix.sequence <= MAX_EXACT:
        raise invalid(f"{field}.sequence", "is not a count from 1 to 2^53 - 1")
    if not fix.HasField("position"):
        raise invalid(f"{field}.position", "is missing")
    position = fix.position
    return (
        session,
        fix.sequence,
        fix.device_time_ms,
        arrived_at_ms,
        position.lat,
        position.lng,
        _given(fix.heading_deg) if fix.HasField("heading_deg") else math.nan,
        _given(fix.speed_mps) if fix.HasField("speed_mps") else math.nan,
        _given(fix.accuracy_m) if fix.HasField("accuracy_m") else math.nan,
    )


def fix_columns(fixes: Sequence[fix_pb2.Fix], session: int, arrived_at_ms: int) -> Records:
    """The fixes of a report as FIX[n]. Raises INVALID_FIELD."""
    rows = [fix_row(f"fixes[{row}]", fix, session, arrived_at_ms) for row, fix in enumerate(fixes)]
    return np.array(rows, dtype=FIX)


def _given(value: float) -> float:
    # NaN stands for what was not said; a NaN that was said must not pass for it
    return math.inf if math.isnan(value) else value


def check_report(request: pb.ReportFixesRequest) -> None:
    """Raises INVALID_FIELD where the request as a whole is wrong."""
    check_at_most("session_id", request.session_id, MAX_EXACT)
    check_at_most("fixes", request.fixes, MAX_FIXES)


class FleetTable:
    """The drivers that a fleet's stream has named so far, in the order of their indices."""

    def __init__(self) -> None:
        self.reporters = Reporters()
        self._known: set[str] = set()
        self._members: list[bool] = []
        self._member_column: Bools = np.zeros(0, dtype=np.bool_)

    def append(self, new_ids: Sequence[str], caller: Principal) -> None:
        """Adds drivers; whether each belongs to the caller is found out once. Raises INVALID_FIELD."""
        field = "columns.new_driver_ids"
        if len(self) + len(new_ids) > MAX_TABLE:
            raise invalid(field, f"makes the table longer than {MAX_TABLE:,} drivers")
        for row, driver_id in enumerate(new_ids):
            check_name(f"{field}[{row}]", driver_id)
            if driver_id in self._known:
                raise invalid(f"{field}[{row}]", "is in the table already")
            self._known.add(driver_id)
            self.reporters.driver_ids.append(driver_id)
            self._members.append(caller.may_report_for(driver_id))

    def members(self, indices: Ints) -> Bools:
        """Which of these belong to the caller? int64[n] -> bool[n]."""
        if len(self._member_column) != len(self._members):
            self._member_column = np.array(self._members, dtype=np.bool_)
        return self._member_column[indices]

    def __len__(self) -> int:
        return len(self._members)


def fleet_fixes(batch: FleetColumns, table: FleetTable, session: int, arrived_at_ms: int) -> tuple[Ints, Records]:
    """Rows of the table, int64[n], and their fixes, FIX[n]; raises INVALID_FIELD where they are malformed.

    Append `new_driver_ids` to the table first.
    """
    columns = batch.columns
    count = len(columns["driver_index"])
    check_at_most("columns.driver_index", count, MAX_ROWS)
    for name, column in columns.items():
        if len(column) != count and (len(column) or name in _REQUIRED_COLUMNS):
            raise invalid(f"columns.{name}", f"has {len(column):,} entries where driver_index has {count:,}")
    indices = columns["driver_index"].astype(np.int64)
    if count and indices.max() >= len(table):
        raise invalid("columns.driver_index", f"points beyond the table of {len(table):,} drivers")
    rows = np.empty(count, dtype=FIX)
    rows["session"], rows["received_at_ms"] = session, arrived_at_ms
    rows["sequence"], rows["device_time_ms"] = columns["sequence"], columns["device_time_ms"]
    rows["lat"], rows["lng"] = columns["lat_e7"] / E7, columns["lng_e7"] / E7
    for name, source, unit in (
        ("heading_deg", "heading_cdeg", 100),
        ("speed_mps", "speed_mmps", 1000),
        ("accuracy_m", "accuracy_mm", 1000),
    ):
        rows[name] = columns[source] / unit if len(columns[source]) else np.nan
    rows["heading_deg"][rows["heading_deg"] == UNKNOWN_U2 / 100] = np.nan
    return indices, rows


def ack_of(up_to_sequence: int, ingested: Ingested, report_interval_ms: int) -> pb.FixAck:
    """What the sender is told."""
    return pb.FixAck(
        up_to_sequence=up_to_sequence,
        accepted=ingested.accepted,
        drops=drops_of(ingested.drops),
        report_interval_ms=report_interval_ms,
    )


def drops_of(drops: Mapping[DropReason, int]) -> list[fix_pb2.FixDrop]:
    """Counts by reason, in the order of the reasons."""
    return [fix_pb2.FixDrop(reason=_DROP_REASONS[reason], count=drops[reason]) for reason in sorted(drops)]


class NearbyTerms(TypedDict):
    """What every question about nearby drivers says besides its place."""

    max_drivers: int
    radius_m: float
    capability_mask: int
    min_rating_milli: int
    excluded_driver_ids: frozenset[str]
    max_age_ms: int


def nearby_terms(
    request: pb.FindNearbyDriversRequest | pb.FindNearbyDriversBatchRequest, city: City, params: LocationParams
) -> NearbyTerms:
    """How many drivers of what kind a request asks for, and how far away. Raises INVALID_FIELD."""
    check_at_most("max_drivers", request.max_drivers, MAX_NEARBY)
    if not math.isfinite(request.radius_m) or not 0 <= request.radius_m <= MAX_RADIUS_M:
        raise invalid("radius_m", f"is not a number of 0 to {MAX_RADIUS_M:,.0f}")
    check_at_most("capabilities", request.capabilities, MAX_CAPABILITIES)
    check_at_most("min_rating_milli", request.min_rating_milli, MAX_RATING_MILLI)
    check_at_most("excluded_driver_ids", request.excluded_driver_ids, MAX_EXCLUDED)
    for row, driver_id in enumerate(request.excluded_driver_ids):
        check_name(f"excluded_driver_ids[{row}]", driver_id)
    limit_ms = round(city.freshness_limit_s * 1000)
    return NearbyTerms(
        max_drivers=request.max_drivers or DEFAULT_NEARBY,
        radius_m=request.radius_m or params.nearby.radius_m,
        capability_mask=city.capability_mask(request.capabilities),
        min_rating_milli=request.min_rating_milli,
        excluded_driver_ids=frozenset(request.excluded_driver_ids),
        max_age_ms=min(request.max_age_ms or limit_ms, limit_ms),
    )


def nearby_question(request: pb.FindNearbyDriversRequest, city: City, params: LocationParams) -> NearbyQuestion:
    """The question that a request asks. Raises INVALID_FIELD."""
    place = check_place("position", request.position, present=request.HasField("position"))
    terms = nearby_terms(request, city, params)
    if is_by_road_time(request) and request.page_token:
        raise invalid("page_token", "goes on by distance only: by road time, ask for more drivers at once")
    if request.max_left_out > MAX_LEFT_OUT:
        raise invalid("max_left_out", f"is above {MAX_LEFT_OUT}")
    return NearbyQuestion(place=place, after=read_cursor(request.page_token), max_left_out=request.max_left_out, **terms)


def is_by_road_time(request: pb.FindNearbyDriversRequest) -> bool:
    """Are the drivers wanted by road time, not by distance? Raises INVALID_FIELD where no such order is known."""
    if int(request.order_by) not in _ORDERS:
        raise invalid("order_by", "is neither by distance nor by road time")
    return request.order_by == pb.NEARBY_ORDER_ROAD_TIME


def write_cursor(cursor: Cursor | None) -> str:
    """A cursor as clients carry it."""
    if cursor is None:
        return ""
    return base64.urlsafe_b64encode(f"{cursor.distance_mm}/{cursor.driver_id}".encode()).decode()


def read_cursor(token: str) -> Cursor | None:
    """The cursor in a page token; none in an empty one. Raises INVALID_FIELD."""
    if not token:
        return None
    wrong = invalid("page_token", "is not from an earlier answer")
    if len(token) > MAX_TOKEN:
        raise wrong
    try:
        distance, slash, driver_id = base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii").partition("/")
    except (binascii.Error, ValueError):
        raise wrong from None
    if not slash or not distance.isdecimal() or len(distance) > 12:
        raise wrong
    return Cursor(int(distance), check_name("page_token", driver_id))


def nearby_response(answer: NearbyAnswer, city: City, zones: Zones) -> pb.FindNearbyDriversResponse:
    """The answer as a message."""
    response = pb.FindNearbyDriversResponse(
        complete=answer.complete,
        searched_radius_m=answer.searched_radius_m,
        next_page_token=write_cursor(answer.next),
        as_of_ms=answer.as_of_ms,
    )
    positions, states = answer.drivers.positions, answer.drivers.states
    zone_ids = zones.zone_ids_of(from_e7(positions["lat_e7"]), from_e7(positions["lng_e7"]), positions["cell"])
    columns = (answer.drivers.driver_ids, positions.tolist(), states.tolist(), answer.distance_mm.tolist(), zone_ids)
    # filled in place: building each message apart and copying it in takes four times as long
    for driver_id, position, (_, mask, rating_milli, _), distance_mm, inside in zip(*columns, strict=True):
        found = response.drivers.add()
        _fill_position(found.position, driver_id.decode(), position, answer.as_of_ms)
        found.distance_m = distance_mm / 1000
        found.rating_milli = rating_milli
        found.capabilities.extend(city.capability_names(mask))
        found.zone_ids.extend(inside)
    for other in answer.left_out:
        response.left_out.add(driver_id=other.driver_id, reason=int(other.reason), distance_m=other.distance_mm / 1000)
    return response


def road_time_response(answer: TimedAnswer, city: City, zones: Zones) -> pb.FindNearbyDriversResponse:
    """The answer by road time as a message."""
    response = nearby_response(answer.nearby, city, zones)
    for found, time_ms in zip(response.drivers, answer.time_ms.tolist(), strict=True):
        if time_ms != NEVER_MS:
            found.road_time_s = time_ms / 1000
    response.travel_times_version = answer.travel_times_version
    response.travel_times_fell_back = answer.fell_back
    response.order_cut_short = answer.cut_short
    return response


def position_of(driver_id: str, record: tuple[int, ...], as_of_ms: int) -> driver_position_pb2.DriverPosition:
    """One POSITION record, as a tuple, as a message."""
    message = driver_position_pb2.DriverPosition()
    _fill_position(message, driver_id, record, as_of_ms)
    return message


def _fill_position(message: driver_position_pb2.DriverPosition, driver_id: str, record: tuple[int, ...], as_of_ms: int) -> None:
    _, _, _, received_at_ms, _, lat_e7, lng_e7, speed_mmps, _, heading_cdeg = record
    message.driver_id = driver_id
    message.position.lat, message.position.lng = lat_e7 / E7, lng_e7 / E7
    if heading_cdeg != UNKNOWN_U2:
        message.heading_deg = heading_cdeg / 100
    if speed_mmps != UNKNOWN_U4:
        message.speed_mps = speed_mmps / 1000
    message.received_at_ms = received_at_ms
    message.age_ms = as_of_ms - received_at_ms


def asked_driver_ids(request: pb.GetDriverPositionsRequest) -> list[str]:
    """The distinct drivers asked for. Raises INVALID_FIELD."""
    if not request.driver_ids:
        raise invalid("driver_ids", "is empty")
    check_at_most("driver_ids", request.driver_ids, MAX_POSITIONS)
    return list(dict.fromkeys(check_name(f"driver_ids[{row}]", each) for row, each in enumerate(request.driver_ids)))


def asked_cells(request: pb.CountSupplyRequest, city: City) -> Cells:
    """The cells asked for: uint64[n], none for all. Raises INVALID_FIELD."""
    if request.resolution > city.index_resolution:
        raise invalid("resolution", f"is finer than the index resolution {city.index_resolution}")
    check_at_most("cells", request.cells, MAX_CELLS)
    cells = np.fromiter(request.cells, dtype=np.uint64, count=len(request.cells))
    wrong = np.flatnonzero(geo.resolutions_of(cells) != request.resolution)
    if len(wrong):
        raise invalid(f"cells[{wrong[0]}]", f"is not an H3 cell of resolution {request.resolution}")
    return cells


def check_resolved(request: pb.ResolveZonesRequest) -> None:
    """Raises INVALID_FIELD where there are no places, or too many."""
    if not request.positions:
        raise invalid("positions", "is empty")
    check_at_most("positions", request.positions, MAX_RESOLVED)


def asked_places(request: pb.ResolveZonesRequest, rows: range) -> tuple[Floats, Floats]:
    """Some of the places asked about: latitudes and longitudes, float64[n], degrees. Raises INVALID_FIELD."""
    places = [check_place(f"positions[{row}]", request.positions[row], present=True) for row in rows]
    columns = np.array([(place.lat, place.lng) for place in places], dtype=np.float64)
    return columns[:, 0], columns[:, 1]


def resolved_messages(resolved: Resolved, zones: Zones) -> list[pb.ResolvedZones]:
    """What is known of some places, as messages."""
    rows = zip(
        resolved.in_service_area.tolist(),
        zones.names(resolved.membership),
        resolved.pickup_allowed.tolist(),
        resolved.suggested_pickup.tolist(),
        strict=True,
    )
    return [
        pb.ResolvedZones(
            in_service_area=inside,
            zone_ids=zone_ids,
            pickup_allowed=allowed,
            suggested_pickup=None if math.isnan(lat) else geo_pb2.LatLng(lat=lat, lng=lng),
        )
        for inside, zone_ids, allowed, (lat, lng) in rows
    ]


def driver_states(request: pb.SetDriverStatesRequest, city: City) -> list[DriverState]:
    """The states told. Raises INVALID_FIELD."""
    if not request.epoch:
        raise invalid("epoch", "is empty")
    check_at_most("states", request.states, MAX_STATES)
    return [_driver_state(f"states[{row}]", state, city) for row, state in enumerate(request.states)]


def _driver_state(field: str, state: driver_position_pb2.DriverState, city: City) -> DriverState:
    check_name(f"{field}.driver_id", state.driver_id)
    check_at_most(f"{field}.driver_version", state.driver_version, MAX_EXACT)
    if int(state.availability) not in _AVAILABILITIES:
        raise invalid(f"{field}.availability", "is none of offline, available, on ride")
    check_at_most(f"{field}.capabilities", state.capabilities, MAX_CAPABILITIES)
    check_at_most(f"{field}.rating_milli", state.rating_milli, MAX_RATING_MILLI)
    return DriverState(
        driver_id=DriverId(state.driver_id),
        driver_version=state.driver_version,
        availability=Availability(state.availability),
        capability_mask=city.capability_mask(state.capabilities, f"{field}.capabilities"),
        rating_milli=state.rating_milli,
    )
