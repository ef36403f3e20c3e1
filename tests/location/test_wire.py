"""What a bad request is told: its reason and its field, through gRPC with real tokens; and nothing is written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel import geo
from hexhail.kernel.errors import Reason
from hexhail.kernel.geo import Place
from hexhail.rpc.tokens import Role
from location.wire import write_cursor
from tests.location.world import CENTRE, CITY, fix_message, refusal, state_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.location.world import World

AT = geo_pb2.LatLng(lat=CENTRE[0], lng=CENTRE[1])
CELL = geo.cell_of(Place(*CENTRE), 8)
INVALID = Reason.INVALID_FIELD

DRIVER, FLEET, SERVICE = (Role.DRIVER, "d1"), (Role.FLEET, "acme"), (Role.SERVICE, "matching")


def near(**rest: Any) -> pb.FindNearbyDriversRequest:
    return pb.FindNearbyDriversRequest(**{"city_id": CITY, "position": AT, **rest})


def supply(**rest: Any) -> pb.CountSupplyRequest:
    return pb.CountSupplyRequest(**{"city_id": CITY, "resolution": 8, **rest})


def report(*fixes: fix_pb2.Fix, **rest: Any) -> pb.ReportFixesRequest:
    return pb.ReportFixesRequest(**{"city_id": CITY, "fixes": fixes, **rest})


def told(*states: Any, **rest: Any) -> pb.SetDriverStatesRequest:
    return pb.SetDriverStatesRequest(**{"city_id": CITY, "epoch": "e", "states": states, **rest})


def positions(ids: Sequence[str], city_id: str = CITY) -> pb.GetDriverPositionsRequest:
    return pb.GetDriverPositionsRequest(city_id=city_id, driver_ids=ids)


UNARY: list[tuple[str, tuple[Role, str], Any, Reason, str]] = [
    ("FindNearbyDrivers", SERVICE, near(city_id=""), INVALID, "city_id"),
    ("FindNearbyDrivers", SERVICE, near(city_id="Not a city"), INVALID, "city_id"),
    ("FindNearbyDrivers", SERVICE, near(city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("FindNearbyDrivers", SERVICE, near(position=None), INVALID, "position"),
    ("FindNearbyDrivers", SERVICE, near(position=geo_pb2.LatLng(lat=math.nan)), INVALID, "position.lat"),
    ("FindNearbyDrivers", SERVICE, near(position=geo_pb2.LatLng(lng=math.inf)), INVALID, "position.lng"),
    ("FindNearbyDrivers", SERVICE, near(position=geo_pb2.LatLng(lat=90.001)), INVALID, "position.lat"),
    ("FindNearbyDrivers", SERVICE, near(position=geo_pb2.LatLng(lng=-180.001)), INVALID, "position.lng"),
    ("FindNearbyDrivers", SERVICE, near(max_drivers=1_001), INVALID, "max_drivers"),
    ("FindNearbyDrivers", SERVICE, near(radius_m=-1), INVALID, "radius_m"),
    ("FindNearbyDrivers", SERVICE, near(radius_m=50_000.1), INVALID, "radius_m"),
    ("FindNearbyDrivers", SERVICE, near(radius_m=math.nan), INVALID, "radius_m"),
    ("FindNearbyDrivers", SERVICE, near(capabilities=["submarine"]), INVALID, "capabilities"),
    ("FindNearbyDrivers", SERVICE, near(capabilities=["xl"] * 33), INVALID, "capabilities"),
    ("FindNearbyDrivers", SERVICE, near(min_rating_milli=5_001), INVALID, "min_rating_milli"),
    ("FindNearbyDrivers", SERVICE, near(excluded_driver_ids=["ok", "no good"]), INVALID, "excluded_driver_ids[1]"),
    ("FindNearbyDrivers", SERVICE, near(excluded_driver_ids=["d"] * 10_001), INVALID, "excluded_driver_ids"),
    ("FindNearbyDrivers", SERVICE, near(page_token="?"), INVALID, "page_token"),
    ("FindNearbyDrivers", SERVICE, near(page_token="aGFsbG8="), INVALID, "page_token"),
    ("FindNearbyDrivers", SERVICE, near(page_token="LTEvZDE="), INVALID, "page_token"),
    ("FindNearbyDrivers", SERVICE, near(page_token="A" * 1_000), INVALID, "page_token"),
    ("CountSupply", SERVICE, supply(city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("CountSupply", SERVICE, supply(resolution=10), INVALID, "resolution"),
    ("CountSupply", SERVICE, supply(cells=[CELL, 17]), INVALID, "cells[1]"),
    ("CountSupply", SERVICE, supply(cells=[2**64 - 1]), INVALID, "cells[0]"),
    ("CountSupply", SERVICE, supply(cells=[CELL], resolution=7), INVALID, "cells[0]"),
    ("CountSupply", SERVICE, supply(cells=[CELL] * 100_001), INVALID, "cells"),
    ("GetDriverPositions", SERVICE, positions([]), INVALID, "driver_ids"),
    ("GetDriverPositions", SERVICE, positions(["d"] * 1_001), INVALID, "driver_ids"),
    ("GetDriverPositions", SERVICE, positions(["d1", ""]), INVALID, "driver_ids[1]"),
    ("GetDriverPositions", SERVICE, positions(["d" * 65]), INVALID, "driver_ids[0]"),
    ("GetDriverPositions", SERVICE, positions(["d1"], "atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("SetDriverStates", SERVICE, told(city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("SetDriverStates", SERVICE, told(epoch=""), INVALID, "epoch"),
    ("SetDriverStates", SERVICE, told(*[state_message("d1")] * 1_001), INVALID, "states"),
    ("SetDriverStates", SERVICE, told(state_message("d1"), state_message("")), INVALID, "states[1].driver_id"),
    ("SetDriverStates", SERVICE, told(state_message("d1", version=2**53)), INVALID, "states[0].driver_version"),
    ("SetDriverStates", SERVICE, told(state_message("d1", 0)), INVALID, "states[0].availability"),
    ("SetDriverStates", SERVICE, told(state_message("d1", 17)), INVALID, "states[0].availability"),
    ("SetDriverStates", SERVICE, told(state_message("d1", capabilities=["boat"])), INVALID, "states[0].capabilities"),
    ("SetDriverStates", SERVICE, told(state_message("d1", rating_milli=5_001)), INVALID, "states[0].rating_milli"),
    ("GetStateEpoch", SERVICE, pb.GetStateEpochRequest(city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("ReportFixes", DRIVER, report(city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    ("ReportFixes", DRIVER, report(*[fix_message(1, *CENTRE)] * 1_001), INVALID, "fixes"),
    ("ReportFixes", DRIVER, report(fix_message(1, *CENTRE), fix_message(0, *CENTRE)), INVALID, "fixes[1].sequence"),
    ("ReportFixes", DRIVER, report(fix_message(2**53, *CENTRE)), INVALID, "fixes[0].sequence"),
    ("ReportFixes", DRIVER, report(fix_pb2.Fix(sequence=1)), INVALID, "fixes[0].position"),
    ("ReportFixes", DRIVER, report(session_id=2**53), INVALID, "session_id"),
    ("ReportFixes", DRIVER, report(session_id=2**53 - 1), INVALID, "session_id"),
]


@pytest.mark.parametrize(("method", "caller", "request_", "reason", "field"), UNARY)
async def test_a_bad_request_gets_its_reason_and_field(
    world: World, method: str, caller: tuple[Role, str], request_: Any, reason: Reason, field: str
) -> None:
    error = await refusal(getattr(world.stub, method)(request_, metadata=world.auth(*caller)))
    assert (error.reason, [violation.field for violation in error.violations]) == (reason, [field])
    assert [key async for key in world.valkey.scan_iter()] == [], "nothing is written"


OPEN = {"open_session": pb.OpenSession(city_id=CITY)}


def columns(**rest: Any) -> dict[str, fix_pb2.FixColumns]:
    one = {
        "new_driver_ids": ["acme.d1"],
        "driver_index": [0],
        "sequence": [1],
        "device_time_ms": [1],
        "lat_e7": [1],
        "lng_e7": [1],
    }
    return {"columns": fix_pb2.FixColumns(**{**one, **rest})}


STREAMS: list[tuple[str, tuple[Role, str], list[dict[str, Any]], Reason, str]] = [
    ("StreamFixes", DRIVER, [{}], INVALID, "message"),
    ("StreamFixes", DRIVER, [{"fix": fix_message(1, *CENTRE)}], INVALID, "message"),
    ("StreamFixes", DRIVER, [OPEN, OPEN], INVALID, "message"),
    ("StreamFixes", DRIVER, [{"open_session": pb.OpenSession(city_id="atlantis")}], Reason.UNKNOWN_CITY, "city_id"),
    ("StreamFixes", DRIVER, [OPEN, {"fix": fix_message(0, *CENTRE)}], INVALID, "fix.sequence"),
    ("StreamFixes", DRIVER, [OPEN, {"fix": fix_pb2.Fix(sequence=1)}], INVALID, "fix.position"),
    ("StreamFleetFixes", FLEET, [columns()], INVALID, "message"),
    ("StreamFleetFixes", FLEET, [OPEN, OPEN], INVALID, "message"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(sequence=[])], INVALID, "columns.sequence"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(lat_e7=[1, 2])], INVALID, "columns.lat_e7"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(heading_cdeg=[1, 2])], INVALID, "columns.heading_cdeg"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(driver_index=[1])], INVALID, "columns.driver_index"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(driver_index=[0] * 10_001)], INVALID, "columns.driver_index"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(new_driver_ids=["a", "b c"])], INVALID, "columns.new_driver_ids[1]"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(new_driver_ids=["a", "a"])], INVALID, "columns.new_driver_ids[1]"),
    ("StreamFleetFixes", FLEET, [OPEN, columns(new_driver_ids=["a"] * 200_001)], INVALID, "columns.new_driver_ids"),
]


@pytest.mark.parametrize(("method", "caller", "messages", "reason", "field"), STREAMS)
async def test_a_bad_message_ends_its_stream_with_reason_and_field(
    world: World, method: str, caller: tuple[Role, str], messages: list[dict[str, Any]], reason: Reason, field: str
) -> None:
    kind = pb.StreamFixesRequest if method == "StreamFixes" else pb.StreamFleetFixesRequest
    call = getattr(world.stub, method)(iter([kind(**message) for message in messages]), metadata=world.auth(*caller))

    async def read_all() -> None:
        async for _ in call:
            pass

    error = await refusal(read_all())
    assert (error.reason, [violation.field for violation in error.violations]) == (reason, [field])
    assert await world.check_index() == {}


@pytest.mark.parametrize(
    ("method", "request_", "role"),
    [
        ("ReportFixes", report(), Role.FLEET),
        ("FindNearbyDrivers", near(), Role.RIDER),
        ("CountSupply", supply(), Role.DRIVER),
        ("SetDriverStates", told(), Role.OPERATOR),
        ("GetStateEpoch", pb.GetStateEpochRequest(city_id=CITY), Role.FLEET),
    ],
)
async def test_roles_are_kept_apart(world: World, method: str, request_: Any, role: Role) -> None:
    error = await refusal(getattr(world.stub, method)(request_, metadata=world.auth(role, "somebody")))
    assert error.reason is Reason.ROLE_NOT_ALLOWED


async def test_a_stream_that_says_nothing_ends_well(world: World) -> None:
    call = world.stub.StreamFixes(iter([]), metadata=world.auth(*DRIVER))
    assert [reply async for reply in call] == []


def test_no_cursor_is_an_empty_token() -> None:
    assert not write_cursor(None)
