"""From the log to the stream, on real stores: nothing is skipped, each ride is in order, whatever is lost meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest

from hexhail.api.events.v1 import event_pb2
from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import connect
from matching import keys
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.metrics import MatchingMetrics
from matching.model import OfferAccepted, RiderCancelled
from matching.postgres_leases import PostgresLeases
from matching.postgres_log import PostgresLog
from matching.postgres_store import PostgresStore
from matching.redis_stream import RedisStream
from matching.relay import Relay
from matching.relaying import EpochReason, LoggedEvent, Page, RelayParams, Telling, begun, told, why_anew
from tests.e2e.people import until
from tests.matching.rides import NOW_MS
from tests.matching.test_store import CITY, Bench, key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from hexhail.stores.valkey import Valkey

KEY = keys.events(CITY)
PARAMS = RelayParams(batch=3)
LEASE_MS = 5_000


@dataclass
class Street:
    """A log, a stream, and relays between them."""

    bench: Bench
    redis: Redis
    asked: Valkey
    clock: ManualClock
    metrics: MatchingMetrics = field(default_factory=MatchingMetrics)

    def relay(self, owner: str = "w1", params: RelayParams = PARAMS, log: Any = None, stream: Any = None) -> Relay:
        leases = PostgresLeases(self.bench.pool, owner)
        stream = stream or RedisStream(self.asked, CITY, params.stream_length)
        return Relay(CITY, leases, log or PostgresLog(self.bench.pool), stream, self.clock, params, self.metrics)

    async def entries(self) -> list[tuple[str, dict[str, bytes]]]:
        read: Any = await self.redis.xrange(KEY)
        return [(entry_id.decode(), {k.decode(): v for k, v in fields.items()}) for entry_id, fields in read]

    async def told(self) -> list[tuple[str, int, int]]:
        """Identities of the events in the stream, in its order."""
        envelopes = [event_pb2.Envelope.FromString(f["envelope"]) for _, f in await self.entries() if "envelope" in f]
        return [(e.aggregate_id, e.version, e.index) for e in envelopes]

    async def epochs(self) -> list[str]:
        return [fields["reason"].decode() for _, fields in await self.entries() if "epoch" in fields]

    async def logged(self) -> list[tuple[str, int, int]]:
        rows = await self.bench.pool.fetch("SELECT aggregate_id, version, index FROM matching.outbox ORDER BY position")
        return [tuple(row) for row in rows]


@pytest.fixture
async def street(empty_pool: asyncpg.Pool[asyncpg.Record], asked: Valkey, valkey_url: str) -> AsyncIterator[Street]:
    cities = Cities([load_city("gridport", Settings())])
    store = PostgresStore(empty_pool, cities, encode_ride_events, encode_driver_event)
    redis = connect(valkey_url)
    try:
        yield Street(Bench(empty_pool, store), redis, asked, ManualClock(NOW_MS))
    finally:
        await redis.aclose()


@asynccontextmanager
async def transaction(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A transaction that is under way until the block ends."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def write(connection: Any, name: str, version: int = 1) -> None:
    envelope = event_pb2.Envelope(city_id=CITY, aggregate_id=name, version=version, at_ms=NOW_MS).SerializeToString()
    await connection.execute(
        "INSERT INTO matching.outbox (city_id, aggregate_id, version, index, at_ms, kind, envelope) "
        "VALUES ($1, $2, $3, 0, $4, 'K', $5)",
        CITY, name, version, NOW_MS, envelope,
    )  # fmt: skip


def in_order(events: list[tuple[str, int, int]]) -> bool:
    """Does every aggregate's first telling of each event come in the order of its versions?"""
    first = list(dict.fromkeys(events))
    return all(mine == sorted(mine) for name in {e[0] for e in first} for mine in [[e for e in first if e[0] == name]])


async def test_a_row_that_becomes_visible_late_is_not_skipped(street: Street, schema_dsn: str) -> None:
    """Given a transaction that draws the lower position and the lower number, and commits after one with higher ones."""
    relay = street.relay()
    async with transaction(schema_dsn) as slow:
        await write(slow, "slow")
        async with transaction(schema_dsn) as quick:
            await write(quick, "quick")
        assert await relay.tell() == 1
        assert await relay.tell() == 0
    assert await relay.tell() == 1
    assert await street.told() == [("quick", 1, 0), ("slow", 1, 0)]
    assert await relay.tell() == 0


async def test_nor_is_one_whose_transaction_began_early_and_wrote_late(street: Street, schema_dsn: str) -> None:
    relay = street.relay()
    async with transaction(schema_dsn) as early:
        await early.execute("SELECT pg_current_xact_id()")
        async with transaction(schema_dsn) as other:
            await write(other, "other")
        assert await relay.tell() == 1
        await write(early, "early")
        assert await relay.tell() == 0
    assert await relay.tell() == 1
    assert await street.told() == [("other", 1, 0), ("early", 1, 0)]


async def test_what_is_rolled_back_is_not_told_and_holds_nothing_back(street: Street, schema_dsn: str) -> None:
    relay = street.relay()
    async with street.bench.pool.acquire() as connection:
        doomed = connection.transaction()
        await doomed.start()
        await write(connection, "doomed")
        async with transaction(schema_dsn) as other:
            await write(other, "other")
        assert await relay.tell() == 1
        await doomed.rollback()
    assert await relay.tell() == 0
    assert await street.told() == [("other", 1, 0)]


async def test_a_change_with_the_older_transaction_is_told_after_the_one_it_waited_for(street: Street, schema_dsn: str) -> None:
    """Given the later of two changes of a driver with the lowest number, the earlier with the highest, and one under way between:
    numbers alone would tell the later change first."""
    relay = street.relay()
    async with transaction(schema_dsn) as between:
        async with transaction(schema_dsn) as later:
            await later.execute("SELECT pg_current_xact_id()")
            await between.execute("SELECT pg_current_xact_id()")
            async with transaction(schema_dsn) as earlier:
                await write(earlier, "d1", 1)
            await write(later, "d1", 2)
        await relay.tell()
    await relay.tell()
    assert await street.told() == [("d1", 1, 0), ("d1", 2, 0)]


async def test_a_round_that_was_read_in_part_goes_on_with_what_its_snapshot_saw(street: Street, schema_dsn: str) -> None:
    """Given rows that become visible between the pages of a round, some with lower positions: they are of the next round."""
    log = PostgresLog(street.bench.pool)
    async with transaction(schema_dsn) as slow:
        await write(slow, "slow")
        async with transaction(schema_dsn) as quick:
            for number in range(5):
                await write(quick, f"q{number}")
        first = await log.read(CITY, Telling(epoch="e"), 3)
    assert (len(first.events), first.last) == (3, False)
    middle = told(Telling(epoch="e"), first, "1-1")
    second = await log.read(CITY, middle, 3)
    assert (len(second.events), second.last) == (2, True)
    third = await log.read(CITY, told(middle, second, "1-2"), 3)
    assert [event_pb2.Envelope.FromString(e.envelope).aggregate_id for e in third.events] == ["slow"]


async def test_of_transactions_that_interleave_at_random_every_row_is_told_once(street: Street, schema_dsn: str) -> None:
    """Forty transactions, six at a time, begin, write and end in an order that a seed gives, and the relay looks in between."""
    chance, relay, kept, number = np.random.default_rng(7), street.relay(), set[str](), 0
    under_way: list[tuple[Any, Any, list[str]]] = []
    while number < 40 or under_way:
        act = chance.random()
        if number < 40 and len(under_way) < 6 and (act < 0.3 or not under_way):
            connection = await street.bench.pool.acquire()
            begun_here = connection.transaction()
            await begun_here.start()
            if chance.random() < 0.5:
                await connection.execute("SELECT pg_current_xact_id()")
            under_way.append((connection, begun_here, []))
            number += 1
        elif act < 0.6 and under_way:
            connection, _, names = under_way[chance.integers(len(under_way))]
            names.append(f"{number}-{len(names)}-{chance.random()}")
            await write(connection, names[-1])
        elif act < 0.8 and under_way:
            connection, ending, names = under_way.pop(chance.integers(len(under_way)))
            if chance.random() < 0.8:
                await ending.commit()
                kept |= set(names)
            else:
                await ending.rollback()
            await street.bench.pool.release(connection)
        else:
            await relay.tell()
    await relay.tell()
    assert len(kept) > 40
    assert sorted(name for name, _, _ in await street.told()) == sorted(kept)


async def test_changes_of_one_driver_that_wait_for_each_other_are_told_in_order(street: Street) -> None:
    """Given callers who all move the same three drivers at once: who waits for a row's lock may have the older transaction."""
    for driver_id in ("d1", "d2", "d3"):
        await street.bench.driver(driver_id, online=False)
    relay, done = street.relay(), asyncio.Event()

    async def caller(number: int) -> None:
        for step in range(12):
            driver_id = f"d{(number * 5 + step) % 3 + 1}"
            name = key(f"{number}-{step}")
            await street.bench.store.set_online(CITY, driver_id, step % 2 == 0, "a", name, lambda _: b"", NOW_MS)

    async def relaying() -> None:
        while not done.is_set():
            await relay.tell()

    looking = asyncio.create_task(relaying())
    await asyncio.gather(*(caller(number) for number in range(8)))
    done.set()
    await looking
    await relay.tell()
    events = await street.told()
    assert len(events) == 3 + 8 * 12
    assert sorted(events) == sorted(await street.logged())
    assert in_order(events)


async def test_a_rides_events_are_told_in_order_and_say_how_many_there_are(street: Street) -> None:
    bench = street.bench
    for driver_id in ("d1", "d2"):
        await bench.driver(driver_id)
    relay = street.relay()
    rides = [await bench.offer(await bench.request(number), f"d{number}") for number in (1, 2)]
    await relay.tell()
    rides = [await bench.happen(ride, OfferAccepted(ride.offers[0].offer_id)) for ride in rides]
    await bench.happen(rides[1], RiderCancelled())
    await relay.tell()
    assert await street.told() == await street.logged()
    envelopes = [event_pb2.Envelope.FromString(f["envelope"]) for _, f in await street.entries() if "envelope" in f]
    for ride in rides:
        seen: dict[int, list[event_pb2.Envelope]] = {}
        for envelope in envelopes:
            if envelope.aggregate_id == ride.ride_id:
                seen.setdefault(envelope.version, []).append(envelope)
        assert list(seen) == list(range(1, len(seen) + 1)), "no version without an event"
        for events in seen.values():
            assert [e.index for e in events] == list(range(events[0].version_events))


async def test_bytes_go_as_they_are(street: Street) -> None:
    await street.bench.driver("d1", online=False)
    await street.relay().tell()
    rows = await street.bench.pool.fetch("SELECT kind, envelope FROM matching.outbox")
    assert [(f["kind"].decode(), f["envelope"]) for _, f in await street.entries() if "kind" in f] == [tuple(r) for r in rows]


async def test_a_wiped_stream_begins_anew_from_the_horizon_and_says_so(street: Street) -> None:
    params = replace(PARAMS, replay_s=3_600.0)
    relay = street.relay(params=params)
    street.bench.now_ms = NOW_MS - 3_600_001
    await street.bench.driver("old", online=False)
    street.bench.now_ms = NOW_MS
    await street.bench.driver("d1")
    assert await relay.tell() == 2, "the first epoch, too, begins at its horizon"
    last_id = (await street.entries())[-1][0]
    await street.redis.flushall()
    await street.bench.driver("d2", online=False)
    assert await relay.tell() == 3
    assert await street.epochs() == ["STREAM_LOST"]
    (first_id, begins), *_ = await street.entries()
    assert int(begins["from_at_ms"]) == NOW_MS - 3_600_000
    assert tuple(map(int, first_id.split("-"))) > tuple(map(int, last_id.split("-")))
    assert [name for name, _, _ in await street.told()] == ["d1", "d1", "d2"]


async def test_a_wiped_stream_is_noticed_though_nothing_happens(street: Street) -> None:
    relay = street.relay()
    await street.bench.driver("d1", online=False)
    await relay.tell()
    await street.redis.flushall()
    street.clock.advance(LEASE_MS // 3 + 1)
    assert await relay.tell() == 1
    assert await street.epochs() == ["STREAM_LOST"]


async def test_a_lost_tail_is_noticed_and_what_was_lost_is_told_again(street: Street) -> None:
    """Given a failover to a replica that had not heard of the last entries."""
    relay = street.relay()
    await street.bench.driver("d1")
    await relay.tell()
    entries = await street.entries()
    await street.redis.xdel(KEY, entries[-1][0])
    await street.bench.driver("d2")
    await relay.tell()
    assert await street.epochs() == ["FIRST", "STREAM_LOST"]
    assert set(await street.told()) == set(await street.logged())


async def test_ids_grow_across_epochs_whatever_the_servers_clock_says(street: Street) -> None:
    stream = RedisStream(street.asked, CITY, 100)
    ahead = "99999999999999-5"
    first = await stream.begin("e1", 0, "FIRST", ahead)
    assert int(first.split("-")[0]) > 99_999_999_999_999
    second = await stream.begin("e2", 0, "STREAM_LOST", "")
    assert tuple(map(int, second.split("-"))) > tuple(map(int, first.split("-"))), "an id of now lies below: the next is taken"
    assert await stream.append(second, [LoggedEvent(1, "K", b"x")]) is not None
    assert await stream.append("1-1", [LoggedEvent(2, "K", b"x")]) is None


async def test_of_two_relays_one_tells(street: Street) -> None:
    one, two = street.relay("w1"), street.relay("w2")
    await street.bench.driver("d1")
    assert (await one.tell(), await two.tell()) == (2, 0)
    await street.bench.driver("d2")
    assert (await two.tell(), await one.tell()) == (0, 2)
    assert len(await street.told()) == len(set(await street.told())) == 4


async def test_the_next_takes_over_where_a_dead_one_ended(street: Street) -> None:
    one, two = street.relay("w1"), street.relay("w2")
    await street.bench.driver("d1")
    assert (await one.tell(), await two.tell()) == (2, 0)
    await street.bench.driver("d2")
    street.clock.advance(LEASE_MS)
    assert await two.tell() == 2
    assert await street.told() == await street.logged()
    assert await street.epochs() == ["FIRST"]


async def test_one_that_is_closed_leaves_at_once(street: Street) -> None:
    one, two = street.relay("w1"), street.relay("w2")
    await one.tell()
    await one.close()
    await street.bench.driver("d1")
    assert await two.tell() == 2


async def test_a_stale_relay_tells_repeats_and_nothing_worse(street: Street) -> None:
    """Given a relay that stands still between reading and writing while another takes over and tells the same."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    class Slow(RedisStream):
        async def append(self, known_id: str, events: Any) -> str | None:
            if events:
                reached.set()
                await go_on.wait()
            return await super().append(known_id, events)

    one = street.relay("w1", stream=Slow(street.asked, CITY, 1_000))
    two = street.relay("w2")
    await one.tell()
    for number in range(4):
        await street.bench.driver(f"d{number}")
    standing = asyncio.create_task(one.tell())
    await reached.wait()
    street.clock.advance(LEASE_MS)
    assert await two.tell() == 8
    go_on.set()
    await standing
    await street.bench.driver("d4")
    assert await one.tell() == 0, "it knows by the refused record that its term has passed"
    assert await two.tell() == 2
    events = await street.told()
    assert list(dict.fromkeys(events)) == await street.logged()
    assert len(events) == 10 + PARAMS.batch


@pytest.mark.parametrize("failure", ["before the entries", "after the entries"])
async def test_a_restart_in_the_middle_skips_nothing(street: Street, failure: str) -> None:
    for number in range(4):
        await street.bench.driver(f"d{number}")
    written = 0

    class Failing(RedisStream):
        async def append(self, known_id: str, events: Any) -> str | None:
            nonlocal written
            fails = bool(events) and written == 3
            written += len(events)
            if fails and failure == "before the entries":
                raise DomainError(Reason.STORE_UNAVAILABLE)
            entry_id = await super().append(known_id, events)
            if fails:
                raise DomainError(Reason.STORE_UNAVAILABLE)
            return entry_id

    with pytest.raises(DomainError):
        await street.relay("w1", stream=Failing(street.asked, CITY, 1_000)).tell()
    await street.bench.driver("late")
    street.clock.advance(LEASE_MS)
    await street.relay("w2").tell()
    events = await street.told()
    assert list(dict.fromkeys(events)) == await street.logged()
    assert len(events) == 10 + (3 if failure == "after the entries" else 0)


async def test_the_stream_is_bounded_and_the_log_is_not(street: Street) -> None:
    relay = street.relay(params=replace(PARAMS, stream_length=50, batch=50))
    async with street.bench.pool.acquire() as connection:
        for number in range(250):
            await write(connection, f"a{number}")
    assert await relay.tell() == 250
    assert 50 <= await street.redis.xlen(KEY) <= 50 + 100, "nodes of a stream hold 100 entries"
    assert await street.bench.count("outbox") == 250


async def test_a_silent_store_delays_and_loses_nothing(street: Street) -> None:
    """The loop goes on, and is woken by commits of its own process without any time passing."""
    relay = street.relay()
    street.bench.store.on_commit = lambda _city_id: relay.wake()
    running = asyncio.create_task(relay.run())
    try:
        await asyncio.sleep(0)
        await street.bench.driver("d1", online=False)
        await until(lambda: street.metrics.events_told == 1, "not woken")
        await street.redis.flushall()

        async def told_again() -> bool:
            street.clock.advance(1_000)
            return street.metrics.stream_epochs == 2 and await street.redis.xlen(KEY) == 2

        await until(told_again, "not begun anew")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_telling_begins_anew_where_nothing_was_told_or_the_database_is_another() -> None:
    told_once = Telling(epoch="e", seen="8:10:8", entry_id="1-0")
    assert why_anew(Telling(), "9:10:") is EpochReason.FIRST
    assert why_anew(told_once, "10:10:") is None
    assert why_anew(told_once, "9:9:") is EpochReason.LOG_REPLACED
    assert why_anew(replace(told_once, seeing="9:12:9,10"), "10:11:10") is EpochReason.LOG_REPLACED


def test_a_round_ends_with_its_last_page_and_not_before() -> None:
    events = [LoggedEvent(4, "K", b""), LoggedEvent(9, "K", b"")]
    start = replace(begun("e", NOW_MS, PARAMS), seen="3:3:", entry_id="1-0")
    middle = told(start, Page(events, "7:7:", last=False), "1-2")
    assert (middle.seen, middle.seeing, middle.position, middle.entry_id) == ("3:3:", "7:7:", 9, "1-2")
    end = told(middle, Page([], "7:7:", last=True), "1-2")
    assert (end.seen, end.seeing, end.position, end.entry_id) == ("7:7:", "", 0, "1-2")


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"stream_length": 2, "batch": 3}, {"poll_s": 0.0}, {"lease_s": -1.0}])
def test_parameters_by_which_nothing_would_be_told_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RelayParams(**wrong)
