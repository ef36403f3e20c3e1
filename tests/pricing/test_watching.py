"""A watcher sees a snapshot, then changes, and never falls behind for long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from hexhail.api.pricing.v1 import pricing_service_pb2 as pb
from hexhail.kernel.errors import DomainError, Reason
from pricing.board import Board
from pricing.model import Surge, SurgeTable
from pricing.wire import watch_message
from tests.pricing.world import RIDER, TESTPORT, cells_inside, city, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.pricing.world import Pricing, World

A, B, C = cells_inside(3)


@asynccontextmanager
async def watching(pricing: Pricing, *cells: int) -> AsyncIterator[Any]:
    call = pricing.stub.WatchSurge(pb.WatchSurgeRequest(city_id=TESTPORT, cells=cells), metadata=RIDER)

    async def read() -> pb.WatchSurgeResponse:
        message: Any = await asyncio.wait_for(call.read(), 10)
        assert message is not grpc.aio.EOF, "the stream ended"
        return message  # type: ignore[no-any-return]

    try:
        yield read
    finally:
        call.cancel()


def multipliers(message: pb.WatchSurgeResponse) -> dict[int, int]:
    return dict(zip(message.surge.cells, message.surge.multiplier_milli, strict=True))


async def test_a_snapshot_then_the_changes_of_each_version(world: World) -> None:
    world.peers.open_requests = {A: 1, B: 1}
    world.peers.supply = {A: 1, B: 2, C: 5}
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        async with watching(pricing) as read:
            first = await read()
            assert (first.snapshot, multipliers(first)) == (True, {A: 1500, B: 1200})
            assert first.surge.resolution == 8
            assert first.epoch

            world.peers.open_requests = {B: 1, C: 15}
            await pricing.running.repricer.recompute()
            second = await read()
            assert (second.snapshot, multipliers(second)) == (False, {A: 1000, C: 2500})
            assert (second.epoch, second.sequence) == (first.epoch, first.sequence + 1)

            await pricing.running.repricer.recompute()
            third = await read()
            assert (third.snapshot, multipliers(third), third.sequence) == (False, {}, first.sequence + 2)


async def test_a_watcher_of_some_cells_hears_of_these_alone(world: World) -> None:
    world.peers.open_requests = {A: 1, B: 1}
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        async with watching(pricing, A, C) as read:
            assert multipliers(await read()) == {A: 2500, C: 1000}
            world.peers.open_requests = {C: 1}
            await pricing.running.repricer.recompute()
            assert multipliers(await read()) == {A: 1000, C: 2500}


async def test_a_missing_input_is_told_to_watchers(world: World) -> None:
    world.peers.open_requests = {A: 1}
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        async with watching(pricing) as read:
            first = await read()
            world.peers.refuse["location"] = DomainError(Reason.PEER_UNAVAILABLE, "not there")
            await pricing.running.repricer.recompute()
            marked = await read()
    assert (marked.stale, marked.snapshot, multipliers(marked), marked.sequence) == (True, False, {}, first.sequence)


async def test_a_watcher_waits_until_surge_is_known(world: World) -> None:
    world.peers.complete = False
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        async with watching(pricing) as read:
            waiting = asyncio.ensure_future(read())
            await pricing.running.repricer.recompute()
            assert not waiting.done()
            world.peers.complete = True
            await pricing.running.repricer.recompute()
            assert (await waiting).snapshot


async def test_the_drain_ends_the_stream_with_ok(world: World) -> None:
    async with world.pricing() as pricing:
        await pricing.running.repricer.recompute()
        call = pricing.stub.WatchSurge(pb.WatchSurgeRequest(city_id=TESTPORT), metadata=RIDER)
        first: Any = await call.read()
        assert first.snapshot
        await pricing.running.server.stop()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_an_epoch_begins_anew_when_nobody_remembers_the_old_one(world: World, valkey: Redis) -> None:
    epochs = []
    for _ in range(2):
        await valkey.flushall()
        async with world.pricing() as pricing:
            await until(lambda running=pricing.running: running.repricer._board.latest(TESTPORT) is not None)
            async with watching(pricing) as read:
                message = await read()
                assert (message.snapshot, message.sequence) == (True, 1)
                epochs.append(message.epoch)
    assert epochs[0] != epochs[1]


def surge(version: int, multiplier: int, epoch: str = "e" * 16) -> Surge:
    numbers = np.array([multiplier], dtype=np.int64)
    return Surge(epoch, version, 0, False, SurgeTable(np.array([A], dtype=np.uint64), numbers, numbers, numbers))


async def test_a_slow_reader_gets_the_newest_values_not_a_backlog() -> None:
    board = Board({TESTPORT: 300.0})
    board.put(TESTPORT, surge(1, 1000))
    sent = await board.other_than(TESTPORT, None)
    for version in range(2, 6):
        board.put(TESTPORT, surge(version, 1000 + version))
    assert (await board.other_than(TESTPORT, sent)).version == 5


@pytest.mark.parametrize(
    ("sent", "snapshot"),
    [
        (None, True),
        (surge(4, 1200), False),
        (surge(5, 1200), False),
        (surge(3, 1200), True),
        (surge(6, 1200), True),
        (surge(4, 1200, "f" * 16), True),
    ],
)
def test_a_gap_or_a_new_epoch_gives_a_new_snapshot(sent: Surge | None, snapshot: bool) -> None:
    message = watch_message(city(), surge(5, 1500), None, sent)
    assert (message.snapshot, multipliers(message)) == (snapshot, {A: 1500})
