"""Senders that mean ill or are broken: each has a defined answer, and nobody else notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from hexhail.api.location.v1 import fix_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.errors import Reason
from hexhail.rpc.status import domain_error
from hexhail.rpc.tokens import Role
from location.model import POSITION
from tests.location.world import CENTRE, CITY, NOON_MS, fix_message, refusal, state

if TYPE_CHECKING:
    from typing import Any

    from tests.location.world import World

DAY_MS = 86_400_000
OPENING = pb.OpenSession(city_id=CITY)


async def opened(world: World, method: str, role: Role, subject: str) -> Any:
    """A stream whose session is open."""
    call = getattr(world.stub, method)(metadata=world.auth(role, subject))
    request = pb.StreamFixesRequest if method == "StreamFixes" else pb.StreamFleetFixesRequest
    await call.write(request(open_session=OPENING))
    await call.read()
    return call


async def newest(world: World, driver_id: str) -> int:
    (record,) = await world.location.store.read_positions([driver_id])
    return 0 if record is None else int(np.frombuffer(record, dtype=POSITION)["sequence"][0])


async def until_newest(world: World, driver_id: str, sequence: int) -> None:
    async with asyncio.timeout(10):
        while await newest(world, driver_id) != sequence:  # noqa: ASYNC110 - the store has no event of its own
            await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["StreamFixes", "StreamFleetFixes"])
async def test_garbage_bytes_end_their_own_stream_only(world: World, method: str) -> None:
    await world.tell(state("d1"))
    other = await opened(world, "StreamFixes", Role.DRIVER, "d1")
    role, subject = (Role.DRIVER, "d2") if method == "StreamFixes" else (Role.FLEET, "acme")
    raw = world.channel.stream_stream(f"/hexhail.api.location.v1.LocationService/{method}")
    call = raw(metadata=world.auth(role, subject))
    await call.write(pb.StreamFixesRequest(open_session=OPENING).SerializeToString())
    await call.read()
    await call.write(b"\xff\xff\xff garbage")
    error = await refusal(call.read())
    assert error.reason is Reason.INVALID_FIELD
    await other.write(pb.StreamFixesRequest(fix=fix_message(1, *CENTRE)))
    assert (await other.read()).ack.accepted == 1


async def test_a_million_rows_in_one_batch_are_refused_and_nothing_of_them_is_kept(world: World) -> None:
    call = await opened(world, "StreamFleetFixes", Role.FLEET, "acme")
    rows = range(1_000_000)
    columns = fix_pb2.FixColumns(new_driver_ids=["acme.d1"], driver_index=[0] * len(rows), sequence=rows)
    with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012 - whether writing or reading tells first is chance
        await call.write(pb.StreamFleetFixesRequest(columns=columns))
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than any message may be"
    assert domain_error(caught.value) is None
    assert await newest(world, "acme.d1") == 0


async def test_whoever_never_reads_its_acks_is_followed_all_the_same(world: World) -> None:
    """What it was not told yet is added up, and takes no room."""
    await world.tell(state("d1"))
    call = await opened(world, "StreamFixes", Role.DRIVER, "d1")
    for sequence in range(1, 301):
        world.clock.advance(4_000)
        await call.write(pb.StreamFixesRequest(fix=fix_message(sequence, *CENTRE)))
        await until_newest(world, "d1", sequence)
    await call.done_writing()
    acks = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        acks.append(answer.ack)
    assert sum(ack.accepted for ack in acks) == 300
    assert acks[-1].up_to_sequence == 300


async def test_a_clock_a_day_off_is_measured_and_corrected(world: World) -> None:
    await world.tell(state("d1"))
    call = await opened(world, "StreamFixes", Role.DRIVER, "d1")
    for sequence, moved in ((1, 0.0), (2, 0.0005), (3, 0.001)):
        world.clock.advance(4_000)
        at_ms = world.clock.now_ms() - DAY_MS
        await call.write(pb.StreamFixesRequest(fix=fix_message(sequence, CENTRE[0] + moved, CENTRE[1], device_time_ms=at_ms)))
        assert (await call.read()).ack.accepted == 1
    (found,) = (await world.nearby()).drivers
    assert found.position.received_at_ms == world.clock.now_ms() == NOON_MS + 12_000


async def test_of_a_driver_on_two_phones_the_newer_counts(world: World) -> None:
    await world.tell(state("d1"))
    old = await opened(world, "StreamFixes", Role.DRIVER, "d1")
    new = await opened(world, "StreamFixes", Role.DRIVER, "d1")
    await old.write(pb.StreamFixesRequest(fix=fix_message(1, *CENTRE)))
    assert (await old.read()).ack.accepted == 1
    world.clock.advance(4_000)
    beside = (CENTRE[0] + 0.001, CENTRE[1])
    await new.write(pb.StreamFixesRequest(fix=fix_message(1, *beside)))
    assert (await new.read()).ack.accepted == 1
    world.clock.advance(4_000)
    await old.write(pb.StreamFixesRequest(fix=fix_message(2, *CENTRE)))
    ack = (await old.read()).ack
    assert [(drop.reason, drop.count) for drop in ack.drops] == [(fix_pb2.FIX_DROP_REASON_NOT_NEWER, 1)]
    (found,) = (await world.nearby()).drivers
    assert found.position.position.lat == beside[0]


async def test_a_fleet_that_reports_for_anothers_driver_changes_nothing(world: World) -> None:
    await world.tell(state("other.d1"))
    call = await opened(world, "StreamFleetFixes", Role.FLEET, "acme")
    columns = fix_pb2.FixColumns(
        new_driver_ids=["other.d1"],
        driver_index=[0],
        sequence=[1],
        device_time_ms=[NOON_MS],
        lat_e7=[405_000_000],
        lng_e7=[-740_000_000],
    )
    await call.write(pb.StreamFleetFixesRequest(columns=columns))
    ack = (await call.read()).ack
    assert (ack.accepted, ack.drops[0].reason) == (0, fix_pb2.FIX_DROP_REASON_NOT_A_MEMBER)
    assert await newest(world, "other.d1") == 0
