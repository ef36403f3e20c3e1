"""Fixes on their way into the index: flow control, an absent store, superseding, sessions."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.cities import policy_of
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.background import end
from hexhail.rpc.tokens import Role
from location.inbox import WINDOW
from location.ingester import Ingester
from location.metrics import LocationMetrics
from location.model import POSITION, Availability, DropReason, Ingested
from location.params import LocationParams
from location.roster import Reporters
from location.sessions import Sessions
from tests.location.world import CENTRE, CITY, NOON_MS, fix_message, fix_row, gridport, packed, refusal, state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from hexhail.kernel.units import Ints
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
        self.elsewhere: dict[str, bytes] = {}

    async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
        self.attempts += 1
        await self.gate.wait()
        if not self.up:
            raise DomainError(Reason.STORE_UNAVAILABLE, store="valkey")
        columns = (positions["sequence"].tolist(), positions["received_at_ms"].tolist())
        self.taken += zip(driver_ids, *columns, strict=True)
        return np.full(len(driver_ids), Availability.AVAILABLE, dtype=np.int64)

    async def tried(self, times: int) -> None:
        async with asyncio.timeout(10):
            while self.attempts < times:  # noqa: ASYNC110 - what is awaited has no event of its own
                await asyncio.sleep(0)

    async def read_positions(self, driver_ids: Sequence[str]) -> list[bytes | None]:
        return [self.elsewhere.get(driver_id) for driver_id in driver_ids]


@asynccontextmanager
async def ingesting(
    store: Any, clock: ManualClock, location: Mapping[str, object] | None = None
) -> AsyncIterator[tuple[Ingester, LocationMetrics]]:
    city, metrics = gridport(location=location), LocationMetrics()
    ingester = Ingester(city, store, policy_of(city, "location", LocationParams), clock, metrics)
    running = asyncio.create_task(ingester.run())
    yield ingester, metrics
    await end([running])


def fixes_of(*sequences: int, session: int = 1, at_ms: int = NOON_MS) -> Records:
    return np.concatenate([fix_row(*CENTRE, session=session, sequence=sequence, at_ms=at_ms) for sequence in sequences])


def submitting(ingester: Ingester, driver_ids: Sequence[str], fixes: Records) -> asyncio.Task[Ingested]:
    return asyncio.create_task(ingester.submit(Reporters(driver_ids), np.arange(len(fixes)), fixes))


async def settled(task: asyncio.Task[Ingested], clock: ManualClock) -> Ingested:
    """The task's end, while time goes by."""
    while not task.done():
        clock.advance(1_000)
        await asyncio.sleep(0.001)
    return await task


def accepted(count: int) -> Ingested:
    return Ingested(count, {})


async def test_a_batch_waits_for_the_store_and_keeps_its_time_of_receipt() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    async with ingesting(store, clock) as (ingester, metrics):
        store.up = False
        sending = submitting(ingester, ["d1"], fixes_of(1))
        for attempts in (1, 2, 3):
            await store.tried(attempts)
            clock.advance(1_000)
        assert not sending.done(), "the sender is told nothing, and sends nothing more"
        store.up = True
        assert await settled(sending, clock) == accepted(1)
        assert store.taken == [("d1", 1, NOON_MS)]
        assert metrics.flush_failures == store.attempts - 1


async def test_while_the_store_is_away_only_superseded_fixes_are_dropped() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    async with ingesting(store, clock) as (ingester, _):
        store.up = False
        writing = [submitting(ingester, [f"d{number}"], fixes_of(1)) for number in range(5)]
        await store.tried(1)
        waiting = [submitting(ingester, ["w"], fixes_of(sequence)) for sequence in (1, 2, 3)]
        others = submitting(ingester, ["v", "u"], fixes_of(1, 1))
        await asyncio.sleep(0)
        store.up = True
        assert [await settled(task, clock) for task in writing] == [accepted(1)] * 5
        superseded = Ingested(0, {DropReason.SUPERSEDED: 1})
        assert [await settled(task, clock) for task in waiting] == [superseded, superseded, accepted(1)]
        assert await settled(others, clock) == accepted(2)


async def test_a_large_flush_is_written_in_pieces_and_what_is_written_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much has gathered in an outage, each question to the store is one that it can answer in time."""
    monkeypatch.setattr("location.ingester.MOST_AT_ONCE", 3)

    class Weary(FragileStore):
        async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
            self.up = self.attempts != 1  # the second question fails
            assert len(driver_ids) <= 3
            return await super().write_fixes(driver_ids, positions)

    store, clock = Weary(), ManualClock(NOON_MS)
    async with ingesting(store, clock) as (ingester, _):
        ids = [f"d{number}" for number in range(8)]
        assert await settled(submitting(ingester, ids, fixes_of(*[1] * 8)), clock) == accepted(8)
    assert sorted(driver_id for driver_id, _, _ in store.taken) == ids, "each once"
    assert store.attempts == 4


async def test_after_a_defect_nobody_is_left_waiting_and_the_next_run_goes_on() -> None:
    class Defect(FragileStore):
        async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
            if not self.up:
                raise ZeroDivisionError
            return await super().write_fixes(driver_ids, positions)

    store, clock = Defect(), ManualClock(NOON_MS)
    store.up = False
    ingester = Ingester(gridport(), store, LocationParams(), clock, LocationMetrics())  # type: ignore[arg-type]
    inbox = ingester.open("d9", 1)
    await inbox.put(tuple(fixes_of(1)[0]))
    sending = submitting(ingester, ["d1"], fixes_of(1))
    await asyncio.sleep(0)
    with pytest.raises(ExceptionGroup):
        await ingester.run()
    with pytest.raises(RuntimeError, match="not dealt with"):
        await sending
    with pytest.raises(RuntimeError, match="not dealt with"):
        [ack async for ack in inbox.acks()]
    store.up = True
    running = asyncio.create_task(ingester.run())
    assert await submitting(ingester, ["d1"], fixes_of(2, at_ms=NOON_MS + 4_000)) == accepted(1)
    await end([running])


async def test_what_gathers_during_a_write_goes_in_with_the_next() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    async with ingesting(store, clock) as (ingester, _):
        store.gate.clear()
        sending = []
        for attempts in (1, 2):
            sending.append(submitting(ingester, [f"d{attempts}"], fixes_of(1)))
            await store.tried(attempts)
        sending += [submitting(ingester, [f"n{number}"], fixes_of(1)) for number in range(50)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.attempts == 2, "no more than two flushes are written at once"
        store.gate.set()
        assert await asyncio.gather(*sending) == [accepted(1)] * 52
        assert store.attempts <= 4


async def test_a_driver_that_comes_from_another_worker_is_judged_by_what_the_store_knows() -> None:
    """A jump is a jump, whoever took the fix before it; and an older session's late fix is not newer."""
    store, clock = FragileStore(), ManualClock(NOON_MS)
    store.elsewhere["d1"] = packed(fix_row(*CENTRE, session=7, sequence=9)).tobytes()
    async with ingesting(store, clock) as (ingester, _):
        far = fix_row(CENTRE[0] + 0.2, CENTRE[1], session=8, at_ms=NOON_MS + 4_000)
        assert await submitting(ingester, ["d1"], far) == Ingested(0, {DropReason.IMPOSSIBLE_SPEED: 1})
        assert await submitting(ingester, ["d1"], fixes_of(10, session=6)) == Ingested(0, {DropReason.NOT_NEWER: 1})
        assert await submitting(ingester, ["d1"], fixes_of(2, session=8, at_ms=NOON_MS + 5_000)) == accepted(1)


async def test_what_is_not_newer_in_the_store_is_told_so() -> None:
    class Ahead(FragileStore):
        async def write_fixes(self, driver_ids: Sequence[str], positions: Records) -> Ints:
            return np.full(len(driver_ids), -1, dtype=np.int64)

    async with ingesting(Ahead(), ManualClock(NOON_MS)) as (ingester, metrics):
        assert await submitting(ingester, ["d1"], fixes_of(1)) == Ingested(0, {DropReason.NOT_NEWER: 1})
        assert metrics.fixes_dropped == {DropReason.NOT_NEWER: 1}


async def test_a_stream_has_so_many_fixes_on_their_way_and_no_more() -> None:
    store, clock = FragileStore(), ManualClock(NOON_MS)
    async with ingesting(store, clock, {"belief": {"min_interval_ms": 0}}) as (ingester, _):
        store.gate.clear()
        inbox = ingester.open("d1", 1)
        rows = [tuple(fixes_of(sequence)[0]) for sequence in range(1, 2 * WINDOW)]
        handed_in = 0

        async def hand_in() -> None:
            nonlocal handed_in
            for row in rows:
                await inbox.put(row)
                handed_in += 1
            inbox.end()

        sending = asyncio.create_task(hand_in())
        for _ in range(50):
            await asyncio.sleep(0)
        assert handed_in == WINDOW
        store.gate.set()
        told = [ingested async for _, ingested, _ in inbox.acks()]
        await sending
        assert sum(each.accepted + sum(each.drops.values()) for each in told) == len(rows)
        assert store.taken[-1][:2] == ("d1", len(rows)), "the newest is in the index, whatever it superseded"


async def test_fixes_are_acknowledged_together_and_the_last_at_once(world: World) -> None:
    await world.tell(state("d1"))
    call = world.stub.StreamFixes(metadata=world.auth(Role.DRIVER, "d1"))
    await call.write(pb.StreamFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
    await call.read()
    await call.write(pb.StreamFixesRequest(fix=fix_message(1, *CENTRE)))
    assert (await call.read()).ack.up_to_sequence == 1
    for sequence in (2, 3):
        await call.write(pb.StreamFixesRequest(fix=fix_message(sequence, *CENTRE)))
    reading = asyncio.create_task(call.read())
    await until_newest(world, 3)
    assert not reading.done(), "less than the spacing has passed since the last"
    world.clock.advance(1_000)
    ack = (await reading).ack
    assert (ack.up_to_sequence, ack.accepted + sum(drop.count for drop in ack.drops)) == (3, 2)
    await call.write(pb.StreamFixesRequest(fix=fix_message(4, *CENTRE)))
    await call.done_writing()
    assert (await call.read()).ack.up_to_sequence == 4, "when nothing more comes, nothing is put off"
    assert await call.read() is grpc.aio.EOF


async def until_newest(world: World, sequence: int) -> None:
    async with asyncio.timeout(10):
        while True:
            (record,) = await world.location.store.read_positions(["d1"])
            if record is not None and np.frombuffer(record, dtype=POSITION)["sequence"][0] == sequence:
                return


async def test_a_paused_store_slows_the_stream_and_loses_nothing(world: World) -> None:
    """The store is paused; the stream stays open, and goes on when the store does."""
    await world.tell(state("d1"))
    call = world.stub.StreamFixes(metadata=world.auth(Role.DRIVER, "d1"))
    await call.write(pb.StreamFixesRequest(open_session=pb.OpenSession(city_id=CITY)))
    await call.read()
    await world.valkey.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    try:
        for sequence in (1, 2, 3):
            await call.write(pb.StreamFixesRequest(fix=fix_message(sequence, *CENTRE)))
        await call.done_writing()
        reading = asyncio.create_task(call.read())
        done, _ = await asyncio.wait({reading}, timeout=0.05)
        assert not done, "nothing is acknowledged that is not in the index"
    finally:
        await world.valkey.execute_command("CLIENT", "UNPAUSE")
    acks = [(await reading).ack]
    while (answer := await call.read()) is not grpc.aio.EOF:
        acks.append(answer.ack)
    assert sum(ack.accepted + sum(drop.count for drop in ack.drops) for ack in acks) == 3
    assert acks[-1].up_to_sequence == 3
    assert await world.names_nearby() == ["d1"]


async def test_the_sender_hears_how_often_to_report(world: World) -> None:
    """Seldom while parked, never less than three times within the limit of freshness; often on a ride."""
    await world.tell(state("d1", version=1))
    told = []
    for sequence, availability in ((1, None), (2, None), (3, Availability.ON_RIDE), (4, None)):
        if availability:
            await world.tell(state("d1", availability, version=2))
        told.append((await world.report("d1", fix_message(sequence, *CENTRE))).ack.report_interval_ms)
        world.clock.advance(121_000)
    assert told == [4_000, 10_000, 2_000, 2_000]


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
