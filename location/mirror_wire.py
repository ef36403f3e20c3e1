"""Protobuf to model and back for what is answered from the mirror: watching, and searches in bulk. Drivers go out as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from hexhail.api.location.v1 import driver_position_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.errors import invalid
from hexhail.kernel.ids import check_name
from location.batch import BatchQuestion
from location.freshness import Box
from location.watching import InBox, Named
from location.wire import check_at_most, check_place, nearby_terms

if TYPE_CHECKING:
    from hexhail.cities import City
    from location.batch import BatchAnswer
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
    return pb.FindNearbyDriversBatchResponse(
        drivers=driver_columns(answer.driver_ids, answer.records),
        candidate_start=answer.start.tolist(),
        candidate_driver_index=answer.driver_index.tolist(),
        candidate_distance_mm=answer.distance_mm.tolist(),
        complete=answer.complete,
        searched_radius_m=answer.searched_radius_m.tolist(),
        as_of_ms=answer.as_of_ms,
    )


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
    return pb.WatchAreaResponse(
        epoch=sighting.epoch,
        sequence=sighting.sequence,
        snapshot=sighting.snapshot,
        drivers=driver_columns(sighting.driver_ids, sighting.records),
        gone_driver_ids=[name.decode() for name in sighting.gone],
        as_of_ms=sighting.as_of_ms,
    )


def drivers_message(sighting: Sighting) -> pb.WatchDriversResponse:
    """What a watcher of drivers is sent."""
    return pb.WatchDriversResponse(
        epoch=sighting.epoch,
        sequence=sighting.sequence,
        snapshot=sighting.snapshot,
        drivers=driver_columns(sighting.driver_ids, sighting.records),
        gone_driver_ids=[name.decode() for name in sighting.gone],
        as_of_ms=sighting.as_of_ms,
    )


def driver_columns(driver_ids: DriverIds, records: Records) -> driver_position_pb2.DriverColumns:
    """Drivers as columns: object[n], RECORD[n]."""
    positions, states = records["position"], records["state"]
    return driver_position_pb2.DriverColumns(
        driver_id=[name.decode() for name in driver_ids.tolist()],
        lat_e7=positions["lat_e7"].tolist(),
        lng_e7=positions["lng_e7"].tolist(),
        heading_cdeg=positions["heading_cdeg"].tolist(),
        speed_mmps=positions["speed_mmps"].tolist(),
        received_at_ms=positions["received_at_ms"].tolist(),
        availability=states["availability"].tolist(),
        rating_milli=states["rating_milli"].tolist(),
        capability_mask=states["capability_mask"].tolist(),
    )
