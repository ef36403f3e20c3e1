"""Protobuf to model and back for what is answered from the mirror: supply, watching, searches in bulk. Columns go out packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.errors import invalid
from hexhail.kernel.ids import check_name
from location.batch import BatchQuestion
from location.counter import at_resolution
from location.freshness import Box
from location.packed_wire import DOUBLE, FIXED32, FIXED64, SFIXED32, SFIXED64, SMALL_ENUM, packed
from location.watching import InBox, Named
from location.wire import check_at_most, check_place, nearby_terms

if TYPE_CHECKING:
    from hexhail.api.location.v1 import driver_position_pb2
    from hexhail.cities import City
    from hexhail.kernel.units import Cells
    from location.batch import BatchAnswer
    from location.counter import Supply
    from location.known import DriverIds
    from location.model import Records
    from location.params import LocationParams
    from location.watcher import Sighting

MAX_PLACES: Final = 5_000
MAX_CANDIDATES: Final = 250_000
"""An answer has to fit into the 4 MiB that gRPC lets a message have: candidates are half of it at most."""
MAX_WATCHED: Final = 10_000
DEFAULT_PERIOD_MS: Final = 1_000
PERIODS_MS: Final = (100, 60_000)


def supply_response(supply: Supply, cells: Cells, resolution: int) -> pb.CountSupplyResponse:
    """The supply of these cells, uint64[n], of this resolution, as a message; where none are named, of all that hold a driver."""
    coarse = at_resolution(supply, resolution)
    answered = cells if len(cells) else coarse.cells
    response = pb.CountSupplyResponse.FromString(packed(pb.CountSupplyResponse.CELLS_FIELD_NUMBER, answered, FIXED64))
    response.available.extend(coarse.of_cells(answered).tolist())
    response.resolution, response.as_of_ms, response.complete = resolution, supply.as_of_ms, supply.complete
    return response


def batch_question(request: pb.FindNearbyDriversBatchRequest, city: City, params: LocationParams) -> BatchQuestion:
    """The question that a request asks. Raises INVALID_FIELD."""
    positions, count = request.positions, len(request.positions)
    check_at_most("positions", positions, MAX_PLACES)
    lat = np.fromiter((position.lat for position in positions), dtype=np.float64, count=count)
    lng = np.fromiter((position.lng for position in positions), dtype=np.float64, count=count)
    for row in np.flatnonzero(~((np.abs(lat) <= 90) & (np.abs(lng) <= 180))).tolist():
        check_place(f"positions[{row}]", positions[row], present=True)
    terms = nearby_terms(request, city, params)
    if count * terms["max_drivers"] > MAX_CANDIDATES:
        raise invalid("max_drivers", f"times {count:,} positions is more than {MAX_CANDIDATES:,} candidates")
    return BatchQuestion(lat=lat, lng=lng, **terms)


def batch_response(answer: BatchAnswer) -> pb.FindNearbyDriversBatchResponse:
    """The answer as a message."""
    of = pb.FindNearbyDriversBatchResponse
    columns = (
        packed(of.CANDIDATE_START_FIELD_NUMBER, answer.start, FIXED32),
        packed(of.CANDIDATE_DRIVER_INDEX_FIELD_NUMBER, answer.driver_index, FIXED32),
        packed(of.CANDIDATE_DISTANCE_MM_FIELD_NUMBER, answer.distance_mm, FIXED32),
        packed(of.SEARCHED_RADIUS_M_FIELD_NUMBER, answer.searched_radius_m, DOUBLE),
    )
    response = of.FromString(b"".join(columns))
    fill_columns(response.drivers, answer.driver_ids, answer.records)
    response.complete, response.as_of_ms = answer.complete, answer.as_of_ms
    return response


def watched_box(request: pb.WatchAreaRequest) -> InBox:
    """The box to be watched. Raises INVALID_FIELD."""
    if not request.HasField("box"):
        raise invalid("box", "is missing")
    box = request.box
    south_west = check_place("box.south_west", box.south_west, present=box.HasField("south_west"))
    north_east = check_place("box.north_east", box.north_east, present=box.HasField("north_east"))
    if south_west.lat > north_east.lat or south_west.lng > north_east.lng:
        raise invalid("box", "has its south-west corner north or east of the other")
    return InBox(Box(south=south_west.lat, west=south_west.lng, north=north_east.lat, east=north_east.lng))


def watched_drivers(request: pb.WatchDriversRequest) -> Named:
    """The drivers to be watched. Raises INVALID_FIELD."""
    if not request.driver_ids:
        raise invalid("driver_ids", "is empty")
    check_at_most("driver_ids", request.driver_ids, MAX_WATCHED)
    return Named(check_name(f"driver_ids[{row}]", each) for row, each in enumerate(request.driver_ids))


def period_ms(request: pb.WatchAreaRequest | pb.WatchDriversRequest) -> int:
    """How often to be told. Raises INVALID_FIELD."""
    shortest, longest = PERIODS_MS
    period = request.period_ms or DEFAULT_PERIOD_MS
    if not shortest <= period <= longest:
        raise invalid("period_ms", f"is neither 0 nor {shortest:,} to {longest:,}")
    return period


def area_message(sighting: Sighting) -> pb.WatchAreaResponse:
    """What a watcher of an area is sent."""
    message = pb.WatchAreaResponse()
    _fill(message, sighting)
    return message


def drivers_message(sighting: Sighting) -> pb.WatchDriversResponse:
    """What a watcher of drivers is sent."""
    message = pb.WatchDriversResponse()
    _fill(message, sighting)
    return message


def _fill(message: pb.WatchAreaResponse | pb.WatchDriversResponse, sighting: Sighting) -> None:
    message.epoch, message.sequence, message.snapshot = sighting.epoch, sighting.sequence, sighting.snapshot
    fill_columns(message.drivers, sighting.driver_ids, sighting.records)
    message.gone_driver_ids.extend([name.decode() for name in sighting.gone])
    message.as_of_ms = sighting.as_of_ms


def fill_columns(columns: driver_position_pb2.DriverColumns, driver_ids: DriverIds, records: Records) -> None:
    """Puts drivers into columns: object[n], RECORD[n]."""
    positions, states = records["position"], records["state"]
    numbers = (
        packed(columns.LAT_E7_FIELD_NUMBER, positions["lat_e7"], SFIXED32),
        packed(columns.LNG_E7_FIELD_NUMBER, positions["lng_e7"], SFIXED32),
        packed(columns.HEADING_CDEG_FIELD_NUMBER, positions["heading_cdeg"], FIXED32),
        packed(columns.SPEED_MMPS_FIELD_NUMBER, positions["speed_mmps"], FIXED32),
        packed(columns.RECEIVED_AT_MS_FIELD_NUMBER, positions["received_at_ms"], SFIXED64),
        packed(columns.AVAILABILITY_FIELD_NUMBER, states["availability"], SMALL_ENUM),
        packed(columns.RATING_MILLI_FIELD_NUMBER, states["rating_milli"], FIXED32),
        packed(columns.CAPABILITY_MASK_FIELD_NUMBER, states["capability_mask"], FIXED32),
    )
    columns.MergeFromString(b"".join(numbers))
    columns.driver_id.extend([name.decode() for name in driver_ids.tolist()])
