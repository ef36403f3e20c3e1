"""Fixes on their way into the index: flow control, an absent store, superseding, sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.tokens import Role
from location.ingester import Ingester
from location.metrics import LocationMetrics
from location.model import DropReason, Ingested
from location.params import LocationParams
from location.sessions import Sessions
from tests.location.world import CENTRE, CITY, NOON_MS, fix_message, fix_row, gridport, refusal, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hexhail.kernel.units import Bools
    from location.model import Records
    from tests.location.world import World


class FragileStore:
    """Takes fixes in while it is `up`; remembers what it took."""

    def __init__(self) -> None:
        self.up = True
        self.taken: list[tuple[str, int, int]] = []
        self.attempts = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Bools:
        self.attempts += 1
        await self.gate.wait()
        if not self.up:
            raise DomainError(Reason.STORE_UNAVAILABLE, store="valkey")
        columns = (positions["sequence"].tolist(), positions["received_at_ms"].tolist())
        self.taken += zip(driver_ids, *columns, strict=True)
        return np.ones(len(driver_ids), dtype=np.bool_)


def ingester_on(store: Any, clock: ManualClock) -> Ingester:
    return Ingester(gridport(), store, LocationParams(), clock, LocationMetrics())


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0)


def accepted(count: int) -> Ingested:
    return Ingested(count, {})


async def test_a_batch_waits_for_the_store_and_keeps_its_time_of_receipt() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    ingester = ingester_on(store, clock)
    running = asyncio.create_task(ingester.run())
    store.up = False
    sending = asyncio.create_task(ingester.submit(["d1"], fix_row(*CENTRE)))
    for attempts in (1, 2, 3):
        await until(lambda attempts=attempts: store.attempts == attempts)
        clock.advance(1_000)
    assert not sending.done(), "the sender is told nothing, and sends nothing more"
    store.up = True
    while not sending.done():
        clock.advance(1_000)
        await asyncio.sleep(0)
    assert await sending == accepted(1)
    assert store.taken == [("d1", 1, NOON_MS)]
    running.cancel()


async def test_while_the_store_is_away_only_superseded_fixes_are_dropped() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    ingester = ingester_on(store, clock)
    store.up = False
    old = asyncio.create_task(ingester.submit(["d1", "d2"], np.concatenate([fix_row(*CENTRE)] * 2)))
    await asyncio.sleep(0)
    with pytest.raises(DomainError):
        await ingester.flush()
    new = asyncio.create_task(ingester.submit(["d1"], fix_row(*CENTRE, session=2)))
    await asyncio.sleep(0)
    store.up = True
    await ingester.flush()
    assert await new == accepted(1)
    assert await old == Ingested(1, {DropReason.SUPERSEDED: 1})


async def test_a_sender_that_leaves_takes_its_fixes_along() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    ingester = ingester_on(store, clock)
    sending = asyncio.create_task(ingester.submit(["d1"], fix_row(*CENTRE)))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await ingester.flush()
    assert store.attempts == 0


async def test_what_gathers_during_a_write_goes_in_with_the_next() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    ingester = ingester_on(store, clock)
    running = asyncio.create_task(ingester.run())
    store.gate.clear()
    sending = [asyncio.create_task(ingester.submit(["d0"], fix_row(*CENTRE)))]
    await until(lambda: store.attempts == 1)
    sending += [asyncio.create_task(ingester.submit([f"d{n}"], fix_row(*CENTRE))) for n in range(1, 50)]
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*sending) == [accepted(1)] * 50
    assert store.attempts == 2
    running.cancel()


async def test_a_stream_reads_nothing_more_until_its_fix_is_dealt_with(world: World) -> None:
    """The store is paused; the stream stays open, and goes on when the store does."""
    await world.tell(state("d1"))
    call = world.stub.StreamFixes(metadata=world.auth(Role.DRIVER, "d1"))
    await call.write(pb.StreamFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
    await call.read()
    await world.valkey.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    try:
        for sequence in (1, 2, 3):
            await call.write(pb.StreamFixesRequest(fix=fix_message(sequence, *CENTRE)))
        reading = asyncio.create_task(call.read())
        done, _ = await asyncio.wait({reading}, timeout=0.05)
        assert not done, "nothing is acknowledged that is not in the index"
    finally:
        await world.valkey.execute_command("CLIENT", "UNPAUSE")
    acks = [(await reading).ack, (await call.read()).ack, (await call.read()).ack]
    assert [(ack.up_to_sequence, ack.accepted) for ack in acks] == [(1, 1), (2, 1), (3, 1)]
    assert await world.names_nearby() == ["d1"]
    call.cancel()


async def test_every_session_is_newer_than_all_before(world: World) -> None:
    store, metrics = world.location.store, LocationMetrics()
    one, other = (Sessions(store, world.clock, metrics) for _ in range(2))
    ids = [await (one, other)[turn % 2].open() for turn in range(6)]
    behind = Sessions(store, ManualClock(NOON_MS - 1_000_000), metrics)
    ids.append(await behind.open())
    await world.valkey.flushall()
    ids.append(await behind.open())
    assert ids == sorted(set(ids)), "within one millisecond, on two workers, by a clock set back, after a wipe"


async def test_only_given_sessions_are_resumed(world: World) -> None:
    given = (await world.report("d1")).session_id
    assert (await world.report("d1", session_id=given)).session_id == given
    error = await refusal(world.report("d1", session_id=given + 1))
    assert (error.reason, error.metadata["field"]) == (Reason.INVALID_FIELD, "session_id")
