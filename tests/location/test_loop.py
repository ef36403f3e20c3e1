"""From a phone to a nearby answer, over sockets with real tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel import geo
from hexhail.kernel.errors import Reason
from hexhail.kernel.geo import Place
from hexhail.rpc.tokens import Role
from location.model import Availability
from tests.location.world import CENTRE, CITY, LIMIT_MS, NOON_MS, fix_message, refusal, state

if TYPE_CHECKING:
    from tests.location.world import World

pytestmark = pytest.mark.every_store

HERE = (40.501, -74.001)
CELL = geo.cell_of(Place(*HERE), 9)


async def test_a_driver_that_streams_and_is_available_is_found_and_counted(world: World) -> None:
    await world.tell(state("d1"))
    call = world.stub.StreamFixes(metadata=world.auth(Role.DRIVER, "d1"))
    await call.write(pb.StreamFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
    opened = (await call.read()).session_opened
    assert (opened.session_id, opened.report_interval_ms, opened.server_time_ms) == (NOON_MS, 4_000, NOON_MS)
    await call.write(pb.StreamFixesRequest(fix=fix_message(1, *HERE, heading_deg=90, speed_mps=7.5)))
    ack = (await call.read()).ack
    assert (ack.up_to_sequence, ack.accepted, list(ack.drops), ack.report_interval_ms) == (1, 1, [], 4_000)

    world.clock.advance(1_500)
    answer = await world.nearby()
    (found,) = answer.drivers
    assert found.position.driver_id == "d1"
    assert (found.position.position.lat, found.position.position.lng) == HERE
    assert (found.position.heading_deg, found.position.speed_mps, found.position.age_ms) == (90, 7.5, 1_500)
    assert abs(found.distance_m - geo.distance_m(Place(*CENTRE), Place(*HERE))) < 0.02
    assert (found.rating_milli, list(found.capabilities)) == (4_500, ["economy"])
    assert (answer.complete, answer.searched_radius_m, answer.next_page_token) == (True, 5_000, "")
    supply = await world.supply()
    assert (list(supply.cells), list(supply.available), supply.complete) == ([CELL], [1], True)

    await call.done_writing()
    assert await call.read() is not None
    await world.check_index()


async def test_availability_follows_matching_alone(world: World) -> None:
    await world.report("d1", fix_message(1, *HERE))
    assert await world.names_nearby() == []
    await world.tell(state("d1", version=1))
    assert await world.names_nearby() == ["d1"]
    await world.tell(state("d1", Availability.ON_RIDE, version=2))
    assert await world.names_nearby() == []
    late = await world.tell(state("d1", version=1))
    assert (late.applied, late.ignored) == (0, 1)
    assert await world.names_nearby() == []
    await world.tell(state("d1", version=3))
    assert await world.names_nearby() == ["d1"]
    await world.check_index()


async def test_a_driver_silent_for_30_s_is_gone_though_nothing_swept(world: World) -> None:
    await world.tell(state("d1"))
    await world.report("d1", fix_message(1, *HERE))
    world.clock._now_ms += LIMIT_MS - 1  # the clock moves, and no sweeper wakes
    assert await world.names_nearby() == ["d1"]
    assert list((await world.supply()).available) == [1]
    world.clock._now_ms += 1
    assert await world.names_nearby() == []
    assert list((await world.supply(cells=[CELL])).available) == [1], "from a snapshot of a millisecond ago"
    world.clock._now_ms += 2_000
    assert list((await world.supply(cells=[CELL])).available) == [0]
    request = pb.GetDriverPositionsRequest(city_id=CITY, driver_ids=["d1"])
    positions = await world.stub.GetDriverPositions(request, metadata=world.as_service)
    assert (list(positions.positions), list(positions.unknown_driver_ids)) == ([], ["d1"])
    assert await world.check_index() == {"d1": f"{CELL:x}"}

    assert await world.location.sweeper.sweep() == 1
    assert await world.check_index() == {}
    await world.report("d1", fix_message(1, *HERE))
    assert await world.names_nearby() == ["d1"]
    await world.check_index()


async def test_a_phone_clock_40_s_off_makes_no_difference(world: World) -> None:
    await world.tell(state("slow"), state("right"), state("fast"))
    for name, off_ms in (("slow", -40_000), ("right", 0), ("fast", 40_000)):
        await world.report(name, fix_message(1, *HERE, device_time_ms=NOON_MS + off_ms))
    for silence_ms, expected in ((0, ["fast", "right", "slow"]), (LIMIT_MS - 1, ["fast", "right", "slow"]), (1, [])):
        world.clock.advance(silence_ms)
        assert await world.names_nearby() == expected


async def test_the_newest_of_two_sessions_wins(world: World) -> None:
    await world.tell(state("d1"))
    beside = (CENTRE[0] + 0.0005, CENTRE[1])
    first = await world.report("d1", fix_message(1, *beside))
    second = await world.report("d1", fix_message(1, *CENTRE))
    assert second.session_id > first.session_id, "within one millisecond, too"
    late = await world.report("d1", fix_message(2, *beside), session_id=first.session_id)
    assert (late.ack.accepted, late.ack.drops[0].reason) == (0, fix_pb2.FIX_DROP_REASON_NOT_NEWER)
    assert (await world.nearby()).drivers[0].distance_m == 0


async def test_out_of_order_and_repeated_fixes_change_nothing(world: World) -> None:
    await world.tell(state("d1"))
    first = await world.report("d1", fix_message(5, *HERE))
    for sequence in (4, 5):
        again = await world.report("d1", fix_message(sequence, *CENTRE), session_id=first.session_id)
        assert [(d.reason, d.count) for d in again.ack.drops] == [(fix_pb2.FIX_DROP_REASON_NOT_NEWER, 1)]
    (found,) = (await world.nearby()).drivers
    assert (found.position.position.lat, found.position.position.lng) == HERE


async def test_a_fleet_reports_for_its_members_only(world: World) -> None:
    await world.tell(state("acme.d1"), state("other.d1"), state("acme.d2"))
    call = world.stub.StreamFleetFixes(metadata=world.auth(Role.FLEET, "acme"))
    await call.write(pb.StreamFleetFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
    await call.read()
    columns = fix_pb2.FixColumns(
        new_driver_ids=["acme.d1", "other.d1", "acme.d2"],
        driver_index=[0, 1, 2, 0],
        sequence=[1, 1, 1, 2],
        device_time_ms=[NOON_MS] * 4,
        lat_e7=[405_000_000] * 3 + [405_001_000],
        lng_e7=[-740_000_000] * 4,
        heading_cdeg=[65_535, 100, 36_000, 65_535],
    )
    await call.write(pb.StreamFleetFixesRequest(columns=columns))
    ack = (await call.read()).ack
    assert (ack.up_to_sequence, ack.accepted) == (1, 2)
    assert {d.reason: d.count for d in ack.drops} == {
        fix_pb2.FIX_DROP_REASON_SUPERSEDED: 1,
        fix_pb2.FIX_DROP_REASON_NOT_A_MEMBER: 1,
    }
    await call.done_writing()
    answer = await world.nearby()
    assert [(d.position.driver_id, round(d.distance_m)) for d in answer.drivers] == [("acme.d2", 0), ("acme.d1", 11)]
    assert [d.position.HasField("heading_deg") for d in answer.drivers] == [True, False]


async def test_believable_or_not_is_counted_by_reason(world: World) -> None:
    reply = await world.report(
        "d1",
        fix_message(1, 95, 0),
        fix_message(2, float("nan"), 0),
        fix_message(3, *HERE, heading_deg=361),
        fix_message(4, *HERE, speed_mps=float("nan")),
        fix_message(5, *HERE, accuracy_m=201),
        fix_message(6, 48.85, 2.35),
        fix_message(7, *HERE, accuracy_m=5),
    )
    assert reply.ack.accepted == 1
    assert {d.reason: d.count for d in reply.ack.drops} == {
        fix_pb2.FIX_DROP_REASON_OUT_OF_RANGE: 4,
        fix_pb2.FIX_DROP_REASON_INACCURATE: 1,
        fix_pb2.FIX_DROP_REASON_OUTSIDE_CITY: 1,
    }


async def test_a_wiped_store_is_whole_again_and_offers_nobody_on_a_ride_meanwhile(world: World) -> None:
    drivers = [state("free"), state("busy", Availability.ON_RIDE)]
    await world.tell(*drivers)
    sessions = {}
    for name in ("free", "busy"):
        sessions[name] = (await world.report(name, fix_message(1, *HERE))).session_id
    before = await world.stub.GetStateEpoch(pb.GetStateEpochRequest(city_id=CITY), metadata=world.as_service)
    assert before.complete
    world.clock.advance(2_001)

    await world.valkey.flushall()

    answer = await world.nearby()
    assert (list(answer.drivers), answer.complete) == ([], False)
    assert not (await world.supply()).complete
    for name, session in sessions.items():
        await world.report(name, fix_message(2, *HERE), session_id=session)
    assert await world.names_nearby() == [], "nobody knows yet who is available"
    stale = pb.SetDriverStatesRequest(city_id=CITY, epoch=before.epoch, states=[world.message_of(drivers[0])])
    error = await refusal(world.stub.SetDriverStates(stale, metadata=world.as_service))
    assert error.reason is Reason.EPOCH_CHANGED
    after = await world.stub.GetStateEpoch(pb.GetStateEpochRequest(city_id=CITY), metadata=world.as_service)
    assert (after.epoch != before.epoch, after.complete, error.metadata["epoch"]) == (True, False, after.epoch)

    await world.tell(*drivers)
    answer = await world.nearby()
    assert ([d.position.driver_id for d in answer.drivers], answer.complete) == (["free"], True)
    await world.check_index()


async def test_positions_of_several_drivers_and_only_ones_own_for_a_driver(world: World) -> None:
    await world.report("d1", fix_message(1, *HERE))
    request = pb.GetDriverPositionsRequest(city_id=CITY, driver_ids=["d2", "d1"])
    reply = await world.stub.GetDriverPositions(request, metadata=world.auth(Role.OPERATOR, "ops"))
    assert ([p.driver_id for p in reply.positions], list(reply.unknown_driver_ids)) == (["d1"], ["d2"])
    error = await refusal(world.stub.GetDriverPositions(request, metadata=world.auth(Role.DRIVER, "d1")))
    assert error.reason is Reason.NOT_YOURS
    own = pb.GetDriverPositionsRequest(city_id=CITY, driver_ids=["d1"])
    assert len((await world.stub.GetDriverPositions(own, metadata=world.auth(Role.DRIVER, "d1"))).positions) == 1


async def test_supply_in_coarser_cells_and_zero_where_nobody_is(world: World) -> None:
    places = {"d1": HERE, "d2": CENTRE, "d3": (40.52, -74.02)}
    await world.tell(*(state(name) for name in places))
    for name, place in places.items():
        await world.report(name, fix_message(1, *place))
    coarse = [geo.cell_of(Place(*place), 7) for place in places.values()]
    empty = geo.cell_of(Place(40.0, -75.0), 7)
    reply = await world.supply(7, [coarse[0], empty, coarse[2]])
    assert list(reply.cells) == [coarse[0], empty, coarse[2]]
    assert list(reply.available) == [coarse.count(coarse[0]), 0, coarse.count(coarse[2])]
    assert sum((await world.supply(7)).available) == 3
