"""Whoever watches has, after each message, exactly what is to be seen: in random worlds, on a real store, and through gRPC."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import driver_position_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.api.location.v1 import location_service_pb2_grpc as rpc
from hexhail.cities import Cities
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import DomainError, Reason
from hexhail.rpc.background import end
from hexhail.rpc.tokens import Role
from location.__main__ import running
from location.freshness import Box
from location.known import KnownDrivers
from location.metrics import LocationMetrics
from location.mirror import Mirror
from location.model import RECORD, Availability, IndexedDrivers
from location.watcher import HEARTBEAT_MS, Watcher
from location.watching import Difference, InBox, Named, View, difference, view_of
from tests.location.fleets import FaultyStore, put
from tests.location.test_mirror import lose
from tests.location.world import CENTRE, CITY, KEY, LIMIT_MS, NOON_MS, World, fix_message, refusal, state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from location.known import Snapshot
    from location.watcher import Sighting
    from location.watching import Scope

IDS = [f"d{number}" for number in range(8)]
LAT, LNG = CENTRE
BOX = Box(south=LAT, west=LNG, north=LAT + 0.02, east=LNG + 0.02)
INSIDE, OUTSIDE = (LAT + 0.01, LNG + 0.01), (LAT - 0.01, LNG)


# the difference, on arrays alone


@dataclass(slots=True)
class Replayed:
    """A watcher's own copy, kept by what it is sent."""

    scope: Scope
    drivers: dict[bytes, bytes] = field(default_factory=dict)
    view: View | None = None

    def look(self, snapshot: Snapshot, now_ms: int) -> Difference:
        view, rows = view_of(snapshot, self.scope, now_ms, LIMIT_MS)
        news = difference(self.view, view)
        self.view = view
        if news.snapshot:
            self.drivers.clear()
        for name in news.gone:
            del self.drivers[name]  # who is gone was there
        sent = rows[news.rows]
        for name, record in zip(snapshot.driver_ids[sent].tolist(), snapshot.records[sent], strict=True):
            assert name not in news.gone
            assert self.drivers.get(name) != record.tobytes(), "nothing is sent twice"
            self.drivers[name] = record.tobytes()
        return news


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_snapshot_and_changes_make_exactly_what_is_to_be_seen(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, now_ms, epoch = KnownDrivers(LIMIT_MS), NOON_MS, 0
    truth: dict[bytes, np.ndarray[Any, Any]] = {}
    box, named = Replayed(InBox(BOX)), Replayed(Named(IDS[:5]))
    snapshot, as_read = known.snapshot("0", now_ms, complete=True), dict(truth)
    for step in range(1, 150):
        name = str(rng.choice(IDS)).encode()
        match rng.choice(["move", "erase", "wait", "lose"], p=[0.7, 0.1, 0.17, 0.03]):
            case "move":
                record = np.zeros(1, dtype=RECORD)
                position = record["position"]
                position["session"], position["sequence"], position["received_at_ms"] = 1, step, now_ms
                position["lat_e7"], position["lng_e7"] = np.rint(np.array(CENTRE) * 1e7) + rng.integers(-2, 3, 2) * 10**5
                known.take_in(IndexedDrivers([name], record))
                truth[name] = record[0]
            case "erase":
                known.take_in(IndexedDrivers([name], np.zeros(1, dtype=RECORD)))
                truth.pop(name, None)
            case "wait":
                now_ms += int(rng.choice([1, 1_000, 14_999, LIMIT_MS]))
            case _:
                epoch += 1
                known.forget_all()
                truth.clear()
        if rng.random() < 0.3:
            snapshot, as_read = known.snapshot(str(epoch), now_ms, complete=True), dict(truth)
        for watcher in (box, named):
            if rng.random() < 0.3:
                had = watcher.view.epoch if watcher.view else None
                assert watcher.look(snapshot, now_ms).snapshot == (had != snapshot.epoch)
                seen = {who: record.tobytes() for who, record in as_read.items() if is_seen(watcher, who, record, now_ms)}
                assert watcher.drivers == seen
                assert not watcher.look(snapshot, now_ms).says_something()


def is_seen(watcher: Replayed, name: bytes, record: Any, now_ms: int) -> bool:
    position = record["position"]
    if now_ms - position["received_at_ms"] >= LIMIT_MS:
        return False
    if isinstance(watcher.scope, Named):
        return name in watcher.scope._driver_ids
    lat, lng = position["lat_e7"] / 1e7, position["lng_e7"] / 1e7
    return bool(BOX.south <= lat <= BOX.north and BOX.west <= lng <= BOX.east)


# one reader for all, on a real store


@dataclass(slots=True)
class Lookout:
    """A watcher of the world's city on a clock of its own, and its store, which can be made to fail."""

    world: World
    clock: ManualClock
    store: FaultyStore
    watcher: Watcher
    metrics: LocationMetrics

    async def put(self, spots: Mapping[str, tuple[float, float]], sequence: int) -> None:
        await put(self.world.location.store, spots, sequence=sequence, at_ms=self.clock.now_ms())

    async def pass_time(self, ms: int) -> None:
        """Until the reader has read once more, `ms` from now, and whoever waited for it has looked."""
        await self.reader_sleeps()
        rounds = self.watcher._rounds
        self.clock.advance(ms)
        while self.watcher._rounds == rounds:  # noqa: ASYNC110 - the watchers alone are told
            await asyncio.sleep(0)
        for _ in range(5):  # from the reader's future through the shield to the watcher's task
            await asyncio.sleep(0)

    async def reader_sleeps(self) -> None:
        """Until the reader waits for the clock."""
        while all(waiting.done() for _, _, waiting in self.clock._sleepers):  # noqa: ASYNC110 - a clock tells nobody
            await asyncio.sleep(0)

    async def next(self, stream: AsyncIterator[Sighting], ms: int = 1_000) -> Sighting:
        """The next message, once `ms` have passed."""
        coming = asyncio.ensure_future(anext(stream))
        await self.pass_time(ms)
        return await coming

    @asynccontextmanager
    async def watching(self, scope: Scope, period_ms: int = 1_000) -> AsyncIterator[AsyncIterator[Sighting]]:
        async with aclosing(self.watcher.watch(scope, period_ms)) as stream:
            yield stream


@pytest.fixture
def lookout(world: World) -> Lookout:
    clock, store, metrics = ManualClock(NOON_MS), FaultyStore(world.location.store), LocationMetrics()
    watcher = Watcher(Mirror(store, LIMIT_MS, clock, metrics), LIMIT_MS, clock, metrics)
    return Lookout(world, clock, store, watcher, metrics)


def names(sighting: Sighting) -> list[str]:
    return sorted(name.decode() for name in sighting.driver_ids.tolist())


def sequences(sighting: Sighting) -> dict[str, int]:
    sent = zip(sighting.driver_ids.tolist(), sighting.records["position"]["sequence"].tolist(), strict=True)
    return {name.decode(): sequence for name, sequence in sent}


@pytest.mark.every_store
async def test_a_snapshot_then_what_changed_in_and_out_of_the_box(lookout: Lookout) -> None:
    await lookout.put({"d1": INSIDE, "d2": INSIDE, "d3": OUTSIDE}, 1)
    async with lookout.watching(InBox(BOX)) as stream:
        first = await anext(stream)
        assert (first.sequence, first.snapshot, names(first), first.gone) == (1, True, ["d1", "d2"], [])
        await lookout.put({"d2": OUTSIDE, "d3": INSIDE}, 2)
        second = await lookout.next(stream)
        assert (second.sequence, second.snapshot, names(second), second.gone) == (2, False, ["d3"], [b"d2"])
        assert (second.epoch, second.as_of_ms - first.as_of_ms) == (first.epoch, 1_000)
        await lookout.world.location.store.write_states([state("d1", Availability.ON_RIDE)])
        third = await lookout.next(stream)
        assert (names(third), third.records["state"]["availability"].tolist()) == (["d1"], [Availability.ON_RIDE])


@pytest.mark.every_store
async def test_who_falls_silent_or_is_erased_is_gone(lookout: Lookout) -> None:
    await lookout.put(dict.fromkeys(["d1", "d2", "d3"], INSIDE), 1)
    async with lookout.watching(Named(["d1", "d2", "d4"])) as stream:
        assert names(await anext(stream)) == ["d1", "d2"]
        lookout.clock.advance(LIMIT_MS - 1_000)
        await lookout.put({"d2": INSIDE, "d4": OUTSIDE}, 2)
        silent = await lookout.next(stream)
        assert (names(silent), silent.gone) == (["d2", "d4"], [b"d1"])
        await lookout.world.location.store.erase(["d2"])
        await lookout.put({"d1": INSIDE}, 3)
        erased = await lookout.next(stream)
        assert (names(erased), erased.gone, erased.sequence) == (["d1"], [b"d2"], 3)


@pytest.mark.every_store
async def test_a_lost_store_is_a_new_epoch_and_a_new_snapshot(lookout: Lookout) -> None:
    await lookout.put({"d1": INSIDE, "d2": INSIDE}, 1)
    async with lookout.watching(InBox(BOX)) as stream:
        first = await anext(stream)
        for bucket in range(lookout.world.city.buckets):
            await lose(lookout.world, bucket)
        await lookout.put({"d2": INSIDE}, 2)
        second = await lookout.next(stream)
        assert (second.snapshot, names(second), second.gone, second.sequence) == (True, ["d2"], [], 2)
        assert second.epoch not in {"", first.epoch}


async def test_nothing_changed_nothing_said_but_now_and_then_that_nothing_did(lookout: Lookout) -> None:
    async with lookout.watching(InBox(BOX)) as stream:
        first = await anext(stream)
        assert (first.snapshot, names(first)) == (True, [])
        coming = asyncio.ensure_future(anext(stream))
        for _ in range(HEARTBEAT_MS // 1_000 - 1):
            await lookout.pass_time(1_000)
            assert not coming.done()
        await lookout.pass_time(1_000)
        beat = await coming
        assert (beat.sequence, names(beat), beat.gone, beat.snapshot) == (2, [], [], False)
        assert beat.as_of_ms == first.as_of_ms + HEARTBEAT_MS


async def test_a_slow_reader_gets_the_newest_and_no_backlog(lookout: Lookout) -> None:
    fleet = [f"m{number}" for number in range(300)]
    await lookout.put(dict.fromkeys(fleet, INSIDE), 1)
    async with lookout.watching(InBox(BOX)) as slow, lookout.watching(InBox(BOX)) as quick:
        assert len((await anext(slow)).driver_ids) == len((await anext(quick)).driver_ids) == 300
        for sequence in range(2, 12):
            await lookout.put(dict.fromkeys(fleet[sequence:], INSIDE), sequence)
            assert len((await lookout.next(quick)).driver_ids) == 300 - sequence
        assert len(lookout.watcher._open) == 2
        late = await anext(slow)
        assert (late.sequence, len(late.driver_ids)) == (2, 298), "all that changed, once"
        assert sequences(late) == {f"m{number}": min(number, 11) for number in range(2, 300)}


async def test_while_the_store_is_away_only_silence_is_told(lookout: Lookout) -> None:
    await lookout.put({"d1": INSIDE}, 1)
    lookout.clock.advance(10_000)
    await lookout.put({"d2": INSIDE}, 1)
    async with lookout.watching(InBox(BOX), 10_000) as stream:
        first = await anext(stream)
        assert names(first) == ["d1", "d2"]
        lookout.store.away = True
        gone = await lookout.next(stream, 20_000)
        assert (gone.gone, names(gone), gone.as_of_ms) == ([b"d1"], [], first.as_of_ms)
        assert (await lookout.next(stream, 10_000)).gone == [b"d2"]
        silence = asyncio.ensure_future(anext(stream))
        await lookout.pass_time(10_000)
        assert not silence.done(), "no heartbeat: nothing was read"
        lookout.store.away = False
        await lookout.put({"d2": INSIDE}, 2)
        await lookout.pass_time(10_000)
        back = await silence
        assert (names(back), back.snapshot, back.as_of_ms) == (["d2"], False, lookout.clock.now_ms())
        lookout.store.away = True
        with pytest.raises(DomainError) as error:
            await anext(lookout.watcher.watch(InBox(BOX), 1_000))
        assert error.value.reason is Reason.STORE_UNAVAILABLE


async def test_one_reader_serves_all_and_ends_with_the_last(lookout: Lookout) -> None:
    await lookout.put({"d1": INSIDE}, 1)
    streams = [lookout.watcher.watch(InBox(BOX), 1_000) for _ in range(20)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    read = lookout.metrics.mirror_readings
    for sequence in range(2, 5):
        await lookout.put({"d1": INSIDE}, sequence)
        coming = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await lookout.pass_time(1_000)
        assert [names(sighting) for sighting in await asyncio.gather(*coming)] == [["d1"]] * 20
    assert lookout.metrics.mirror_readings == read + 3
    reader = lookout.watcher._reader
    assert reader is not None
    for stream in streams[:-1]:
        await stream.aclose()
    assert lookout.watcher._reader is reader
    await streams[-1].aclose()
    await asyncio.wait({reader})
    assert reader.cancelled()
    assert lookout.watcher._reader is None
    async with lookout.watching(InBox(BOX)) as again:
        assert names(await anext(again)) == ["d1"]
        await lookout.put({"d1": INSIDE}, 9)
        assert names(await lookout.next(again)) == ["d1"]


async def test_each_is_told_at_its_own_pace(lookout: Lookout) -> None:
    await lookout.put({"d1": INSIDE}, 1)
    async with lookout.watching(InBox(BOX), 60_000) as lazy, lookout.watching(Named(["d1"]), 500) as keen:
        await anext(lazy)
        await lookout.put({"d1": INSIDE}, 2)
        await anext(keen)  # and the reader, which has slept for the other's sake, wakes for this one
        waiting = asyncio.ensure_future(anext(lazy))
        for sequence in range(3, 10):
            await lookout.put({"d1": INSIDE}, sequence)
            told = await lookout.next(keen, 500)
            assert told.records["position"]["sequence"].tolist() == [sequence]
            assert not waiting.done()
        await end([waiting])
    assert lookout.watcher._reader is None


async def test_a_defect_of_the_reader_ends_the_streams_and_the_next_begins_anew(lookout: Lookout) -> None:
    async def defect(_: int) -> None:
        raise ZeroDivisionError

    async with lookout.watching(InBox(BOX)) as stream:
        await anext(stream)
        lookout.store.before_reading = defect
        coming = asyncio.ensure_future(anext(stream))
        await lookout.reader_sleeps()
        lookout.clock.advance(1_000)
        with pytest.raises(ZeroDivisionError):
            await coming
        lookout.store.before_reading = None
        async with lookout.watching(InBox(BOX)) as again:
            await anext(again)
            await lookout.put({"d1": INSIDE}, 1)
            assert names(await lookout.next(again)) == ["d1"]


# through gRPC


def box_message(box: Box = BOX) -> geo_pb2.LatLngBox:
    south_west, north_east = geo_pb2.LatLng(lat=box.south, lng=box.west), geo_pb2.LatLng(lat=box.north, lng=box.east)
    return geo_pb2.LatLngBox(south_west=south_west, north_east=north_east)


def area(**rest: Any) -> pb.WatchAreaRequest:
    return pb.WatchAreaRequest(**{"city_id": CITY, "box": box_message(), "period_ms": 100, **rest})


def some(*driver_ids: str, **rest: Any) -> pb.WatchDriversRequest:
    return pb.WatchDriversRequest(**{"city_id": CITY, "driver_ids": driver_ids, "period_ms": 100, **rest})


async def news(clock: ManualClock, call: Any) -> Any:
    """The next message that says more than that nothing changed, while time passes."""
    while True:
        reading = asyncio.ensure_future(call.read())
        while not reading.done():
            clock.advance(1)
            await asyncio.sleep(0)
        message = await reading
        if message.snapshot or message.drivers.driver_id or message.gone_driver_ids:
            return message


async def test_an_area_is_watched_through_grpc(world: World) -> None:
    await world.tell(state("d1", rating=4_321, mask=3))
    await world.report("d1", fix_message(1, *INSIDE, heading_deg=12.5, speed_mps=3))
    second = await world.report("d2", fix_message(1, *INSIDE))
    call = world.stub.WatchArea(area(), metadata=world.auth(Role.OPERATOR, "ops"))
    first = await call.read()
    assert (first.sequence, first.snapshot, list(first.gone_driver_ids)) == (1, True, [])
    rows = {driver_id: row for row, driver_id in enumerate(first.drivers.driver_id)}
    assert set(rows) == {"d1", "d2"}
    known = [
        (columns[rows["d1"]], columns[rows["d2"]])
        for columns in (
            first.drivers.lat_e7, first.drivers.lng_e7, first.drivers.heading_cdeg, first.drivers.speed_mmps,
            first.drivers.rating_milli, first.drivers.capability_mask, first.drivers.received_at_ms,
        )
    ]  # fmt: skip
    lat_e7, lng_e7 = round(INSIDE[0] * 1e7), round(INSIDE[1] * 1e7)
    assert known == [
        (lat_e7, lat_e7), (lng_e7, lng_e7), (1_250, 65_535), (3_000, 4_294_967_295), (4_321, 0), (3, 0), (NOON_MS, NOON_MS),
    ]  # fmt: skip
    assert [first.drivers.availability[rows[name]] for name in ("d1", "d2")] == [
        driver_position_pb2.AVAILABILITY_AVAILABLE,
        driver_position_pb2.AVAILABILITY_UNSPECIFIED,
    ]
    assert len(first.drivers.distance_mm) == 0
    await put(world.location.store, {"d2": OUTSIDE}, session=second.session_id, sequence=2)
    left = await news(world.clock, call)
    assert (left.snapshot, list(left.gone_driver_ids), len(left.drivers.driver_id)) == (False, ["d2"], 0)
    assert left.sequence > 1
    assert left.epoch == first.epoch != ""
    call.cancel()


async def test_drivers_are_watched_through_grpc_wherever_they_are(world: World) -> None:
    for name, spot in (("d1", INSIDE), ("d2", OUTSIDE), ("d3", INSIDE)):
        await world.report(name, fix_message(1, *spot))
    call = world.stub.WatchDrivers(some("d2", "d1", "nobody", "d1"), metadata=world.as_service)
    first = await call.read()
    assert (sorted(first.drivers.driver_id), first.snapshot) == (["d1", "d2"], True)
    await world.location.store.erase(["d1"])
    assert list((await news(world.clock, call)).gone_driver_ids) == ["d1"]
    call.cancel()


async def test_a_client_that_does_not_read_is_not_written_to_for_ever(single_world: World, valkey_url: str) -> None:
    """Its connection takes 64 kB that it does not read, and gRPC holds one message more for it; then nothing is made for it."""
    fleet, rounds = {f"m{number:04}": INSIDE for number in range(2_000)}, 20
    store, clock = single_world.location.store, ManualClock(NOON_MS)
    await put(store, fleet)
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    serving = running(Cities([single_world.city]), clock=clock, token_key=KEY, listen="127.0.0.1:0", redis_url=valkey_url)
    async with (
        serving as server,
        grpc.aio.insecure_channel(server.address, options) as slow_channel,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        slow, quick = (
            rpc.LocationServiceStub(each).WatchArea(area(), metadata=single_world.as_service) for each in (slow_channel, channel)
        )
        await quick.read()
        for sequence in range(2, rounds + 2):
            await put(store, fleet, sequence=sequence, at_ms=clock.now_ms())
            last = await news(clock, quick)
        messages: list[Any] = [await slow.read()]
        while messages[-1].as_of_ms < last.as_of_ms:
            messages.append(await news(clock, slow))
        assert len(messages) <= 4
        assert set(messages[-1].drivers.received_at_ms) == set(last.drivers.received_at_ms)
        assert len(messages[-1].drivers.driver_id) == len(fleet)


async def test_streams_end_well_when_the_server_does(single_world: World, valkey_url: str) -> None:
    serving = running(
        Cities([single_world.city]), clock=ManualClock(NOON_MS), token_key=KEY, listen="127.0.0.1:0", redis_url=valkey_url
    )
    async with AsyncExitStack() as server_runs:
        server = await server_runs.enter_async_context(serving)
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = rpc.LocationServiceStub(channel).WatchArea(area(), metadata=single_world.as_service)
            first: Any = await call.read()
            assert first.snapshot
            await server_runs.aclose()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK


WRONG: list[tuple[str, Any, str]] = [
    ("WatchArea", area(city_id="Not a city"), "city_id"),
    ("WatchArea", area(box=None), "box"),
    ("WatchArea", area(box=geo_pb2.LatLngBox(north_east=geo_pb2.LatLng(lat=1, lng=1))), "box.south_west"),
    ("WatchArea", area(box=geo_pb2.LatLngBox(south_west=geo_pb2.LatLng(lat=1, lng=1))), "box.north_east"),
    ("WatchArea", area(box=box_message(Box(LAT, LNG, float("nan"), LNG))), "box.north_east.lat"),
    ("WatchArea", area(box=box_message(Box(LAT, LNG, LAT - 0.1, LNG))), "box"),
    ("WatchArea", area(box=box_message(Box(LAT, LNG, LAT, LNG - 0.1))), "box"),
    ("WatchArea", area(period_ms=99), "period_ms"),
    ("WatchArea", area(period_ms=60_001), "period_ms"),
    ("WatchDrivers", some(), "driver_ids"),
    ("WatchDrivers", some(*["d1"] * 10_001), "driver_ids"),
    ("WatchDrivers", some("d1", "no good"), "driver_ids[1]"),
    ("WatchDrivers", some("d1", period_ms=1), "period_ms"),
]


@pytest.mark.parametrize(("method", "request_", "violated"), WRONG)
async def test_a_bad_request_to_watch_gets_its_field(single_world: World, method: str, request_: Any, violated: str) -> None:
    error = await refusal(getattr(single_world.stub, method)(request_, metadata=single_world.as_service).read())
    assert (error.reason, [violation.field for violation in error.violations]) == (Reason.INVALID_FIELD, [violated])


async def test_watching_is_for_operators_and_services(single_world: World) -> None:
    for call in (
        single_world.stub.WatchArea(area(), metadata=single_world.auth(Role.DRIVER, "d1")),
        single_world.stub.WatchDrivers(some("d1"), metadata=single_world.auth(Role.RIDER, "r1")),
    ):
        assert (await refusal(call.read())).reason is Reason.ROLE_NOT_ALLOWED
