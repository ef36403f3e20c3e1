"""The mirror holds what the store holds: after anything that may happen, to any of its buckets, and whoever asks at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import bucket_of
from hexhail.rpc.tokens import Role
from location.__main__ import assemble
from location.keys import bucket_keys
from location.known import KnownDrivers
from location.mirror import Mirror
from location.model import RECORD, Availability, IndexedDrivers
from tests.location.fleets import FaultyStore, put, seen_in
from tests.location.world import CENTRE, CITY, LIMIT_MS, NOON_MS, World, fix_message, refusal, state

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.every_store

IDS = [f"d{number}" for number in range(12)]
SPOT = st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(lambda p: (CENTRE[0] + p[0] * 0.01, CENTRE[1] + p[1] * 0.01))
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("fix"), st.sampled_from(IDS), SPOT),
        st.tuples(st.just("fix"), st.sampled_from(IDS), SPOT),
        st.tuples(st.just("state"), st.sampled_from(IDS), st.sampled_from(list(Availability))),
        st.tuples(st.just("erase"), st.sampled_from(IDS)),
        st.tuples(st.just("wait"), st.sampled_from([1, 9_999, 20_000])),
        st.tuples(st.sampled_from(["sweep", "look", "look", "complete", "lose all"])),
        st.tuples(st.just("lose"), st.integers(0, 3)),
    ),
    max_size=60,
)

on_one_store = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Truth:
    """What of it can be true for a reader, by the plainest means."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: dict[str, tuple[int, int, int]] = {}
        self.told: dict[str, int] = {}
        self.sequence = 0

    async def happen(self, event: tuple[object, ...]) -> None:
        store, now_ms = self.world.location.store, self.world.clock.now_ms()
        self.sequence += 1
        match event:
            case ("fix", str(driver_id), (float(lat), float(lng))):
                await put(store, {driver_id: (lat, lng)}, sequence=self.sequence, at_ms=now_ms)
                self.heard[driver_id] = (round(lat * 1e7), round(lng * 1e7), now_ms)
            case ("state", str(driver_id), Availability() as availability):
                await store.write_states([state(driver_id, availability, version=self.sequence)])
                self.told[driver_id] = int(availability)
            case ("erase", str(driver_id)):
                known = driver_id in self.heard or driver_id in self.told
                assert await store.erase([driver_id]) == known
                self.forget([driver_id])
            case ("wait", int(ms)):
                self.world.clock.advance(ms)
            case ("sweep",):
                await self.world.location.sweeper.sweep()
            case ("complete",):
                assert await store.complete_epoch((await store.state_epoch()).epoch)
            case ("lose", int(bucket)):
                await lose(self.world, bucket % self.world.city.buckets)
                self.forget([each for each in IDS if bucket_of(each, store.buckets) == bucket % store.buckets])
            case ("lose all",):
                await self.world.valkey.flushall()
                self.forget(IDS)

    def forget(self, driver_ids: Sequence[str]) -> None:
        for driver_id in driver_ids:
            self.heard.pop(driver_id, None)
            self.told.pop(driver_id, None)

    def fresh(self) -> dict[str, tuple[int, int, int, int]]:
        now_ms = self.world.clock.now_ms()
        return {
            driver_id: (*heard, self.told.get(driver_id, 0))
            for driver_id, heard in self.heard.items()
            if now_ms - heard[2] < LIMIT_MS
        }


async def lose(world: World, bucket: int) -> None:
    """All keys of one bucket, as when one shard of a cluster comes back empty."""
    keys = bucket_keys(world.city.city_id, bucket)
    for key in keys.scripted:
        await world.valkey.delete(key)
    async for key in world.valkey.scan_iter(match=keys.cell_prefix.replace("{", "\\{") + "*", count=1000):
        await world.valkey.delete(key)


@on_one_store
@given(events=HAPPENINGS)
async def test_every_look_shows_what_is_true(world: World, events: list[tuple[object, ...]]) -> None:
    await world.valkey.flushall()
    world.location = assemble(world.city, world.line, world.clock)
    mirror, truth = world.location.mirror, Truth(world)
    whose: dict[int, str] = {}
    for event in [*events, ("look",)]:
        await truth.happen(event)
        if event == ("look",):
            snapshot = await mirror.refresh()
            assert seen_in(snapshot) == truth.fresh()
            epoch = await world.location.store.state_epoch()
            assert (snapshot.epoch, snapshot.complete) == (epoch.epoch, epoch.complete)
            for number, name in zip(snapshot.numbers.tolist(), snapshot.driver_ids.tolist(), strict=True):
                assert whose.setdefault(number, name) == name, "a number is given once"


async def test_nobody_asks_nothing_is_read_and_who_asks_at_once_shares(world: World) -> None:
    mirror, metrics = world.location.mirror, world.location.metrics
    await put(world.location.store, dict.fromkeys(IDS, CENTRE))
    assert (metrics.mirror_readings, len(mirror.latest.driver_ids)) == (0, 0)
    snapshots = await asyncio.gather(*(mirror.refresh() for _ in range(50)))
    assert all(set(seen_in(snapshot)) == set(IDS) for snapshot in snapshots)
    assert metrics.mirror_readings == 2, "whoever came while the first reading was under way shares the second"
    assert metrics.mirror_changes == len(IDS), "the second brought nothing new"


async def test_an_answer_may_be_as_old_as_the_asker_says(world: World) -> None:
    mirror, metrics = world.location.mirror, world.location.metrics
    first = await mirror.refresh(1_000)
    world.clock.advance(1_000)
    assert await mirror.refresh(1_000) is first
    world.clock.advance(1)
    assert (await mirror.refresh(1_000)).as_of_ms == NOON_MS + 1_001
    await put(world.location.store, {"d1": CENTRE}, at_ms=NOON_MS + 1_001)
    assert set(seen_in(await mirror.refresh())) == {"d1"}, "in the same millisecond too"
    assert metrics.mirror_readings == 3


async def test_states_are_complete_once_every_bucket_was_told(world: World) -> None:
    mirror, store = world.location.mirror, world.location.store
    first = await mirror.refresh()
    assert (first.complete, bool(first.epoch)) == (False, True), "reading gives the states an epoch, so that a loss will show"
    assert await store.complete_epoch(first.epoch)
    assert (await mirror.refresh()).complete
    await lose(world, world.city.buckets - 1)
    lost = await mirror.refresh()
    assert not lost.complete
    assert lost.epoch not in {first.epoch, ""}
    assert await store.complete_epoch(lost.epoch)
    assert (await mirror.refresh()).complete


async def test_without_the_store_all_who_ask_are_told_and_the_mirror_stays_as_it_was(world: World) -> None:
    store = FaultyStore(world.location.store)
    mirror = Mirror(store, LIMIT_MS, world.clock, world.location.metrics)
    await put(world.location.store, dict.fromkeys(IDS, CENTRE))
    before = await mirror.refresh()
    store.away = True
    readings = store.readings
    answers = await asyncio.gather(*(mirror.refresh() for _ in range(20)), return_exceptions=True)
    assert [answer.reason for answer in answers if isinstance(answer, DomainError)] == [Reason.STORE_UNAVAILABLE] * 20
    assert store.readings - readings == 2 * world.city.buckets, "they share the failure as they share a reading"
    assert mirror.latest is before
    store.away = False
    assert set(seen_in(await mirror.refresh())) == set(IDS)


async def test_a_reading_goes_on_where_it_was_cut_off(world: World) -> None:
    names = [f"m{number}" for number in range(3_000)]
    for start in range(0, len(names), 500):
        await put(world.location.store, dict.fromkeys(names[start : start + 500], CENTRE))
    store = FaultyStore(world.location.store)
    mirror = Mirror(store, LIMIT_MS, world.clock, world.location.metrics)

    async def cut(reading: int) -> None:
        store.away = reading > world.city.buckets  # each bucket's first page comes

    store.before_reading = cut
    if world.city.buckets == 1:
        with pytest.raises(DomainError):
            await mirror.refresh()
        assert len(mirror.latest.driver_ids) == 0, "half a city is not shown"
    store.before_reading, store.away = None, False
    assert set(seen_in(await mirror.refresh())) == set(names)
    assert world.location.metrics.mirror_changes < 4_000, "those of a stamp amid which a page ends are read twice"


@pytest.mark.parametrize("when", [1, 2, 3])
async def test_a_bucket_lost_amid_a_reading_is_read_anew(world: World, when: int) -> None:
    names = [f"m{number}" for number in range(2_500)]
    for start in range(0, len(names), 500):
        await put(world.location.store, dict.fromkeys(names[start : start + 500], CENTRE))
    epoch = (await world.location.store.state_epoch()).epoch
    assert await world.location.store.complete_epoch(epoch)
    store = FaultyStore(world.location.store)
    mirror = Mirror(store, LIMIT_MS, world.clock, world.location.metrics)

    async def lose_it(reading: int) -> None:
        if reading == when:
            store.before_reading = None
            await lose(world, 0)
            await put(world.location.store, {"m0": CENTRE}, sequence=2)

    store.before_reading = lose_it
    snapshot = await mirror.refresh()
    left = {name for name in names if bucket_of(name, world.city.buckets) != 0} | {"m0"}
    again = await mirror.refresh()
    assert set(seen_in(again)) == left
    assert not again.complete
    if set(seen_in(snapshot)) != left:  # then that bucket's reading was over before
        assert world.city.buckets > 1
        assert snapshot.complete


async def test_after_a_loss_even_a_clock_that_is_behind_hides_nobody(world: World) -> None:
    """Stamps are the node's time: those of the node that takes over may be lower than all that was read."""
    for bucket in range(world.city.buckets):
        await world.valkey.set(
            bucket_keys(world.city.city_id, bucket).scripted[4], str(4 * 10**15)
        )  # microseconds: the year 2096
    await put(world.location.store, dict.fromkeys(IDS, CENTRE))
    assert set(seen_in(await world.location.mirror.refresh())) == set(IDS)
    for bucket in range(world.city.buckets):
        await lose(world, bucket)
    await put(world.location.store, {"d1": CENTRE}, sequence=2)
    assert set(seen_in(await world.location.mirror.refresh())) == {"d1"}


async def test_an_asker_who_leaves_does_not_take_the_others_along(world: World) -> None:
    store, reached, go_on = FaultyStore(world.location.store), asyncio.Event(), asyncio.Event()
    mirror = Mirror(store, LIMIT_MS, world.clock, world.location.metrics)
    await put(world.location.store, {"d1": CENTRE})

    async def wait(_: int) -> None:
        reached.set()
        await go_on.wait()

    store.before_reading = wait
    asking = [asyncio.create_task(mirror.refresh()) for _ in range(3)]
    await reached.wait()
    asking[0].cancel()
    go_on.set()
    assert [set(seen_in(snapshot)) for snapshot in await asyncio.gather(*asking[1:])] == [{"d1"}, {"d1"}]
    assert asking[0].cancelled()


async def test_what_nobody_asks_about_is_let_go(world: World) -> None:
    mirror = world.location.mirror
    await put(world.location.store, dict.fromkeys(IDS, CENTRE))
    await mirror.refresh()
    letting_go = asyncio.create_task(mirror.run())
    await asyncio.sleep(0)
    world.clock.advance(LIMIT_MS)
    await asyncio.sleep(0)
    assert len(mirror.latest.driver_ids) == len(IDS)
    world.clock.advance(LIMIT_MS)
    await asyncio.sleep(0)
    assert (len(mirror.latest.driver_ids), len(mirror._known)) == (0, 0)
    await put(world.location.store, {"d1": CENTRE}, sequence=2, at_ms=world.clock.now_ms())
    assert set(seen_in(await mirror.refresh())) == {"d1"}
    letting_go.cancel()


def drivers(names: Sequence[str], at_ms: int = NOON_MS) -> IndexedDrivers:
    records = np.zeros(len(names), dtype=RECORD)
    records["position"]["session"], records["position"]["received_at_ms"] = 1, at_ms
    return IndexedDrivers([name.encode() for name in names], records)


def test_the_memory_of_those_who_fell_silent_is_given_back() -> None:
    known = KnownDrivers(LIMIT_MS)
    known.take_in(drivers([f"m{number}" for number in range(50_000)]))
    known.take_in(drivers(["d1", "d2", "d1"], NOON_MS + LIMIT_MS))
    assert len(known.snapshot("e", NOON_MS, complete=True).driver_ids) == 50_000, "whoever is of another clock is silent"
    known.take_in(drivers(["d1", "d2", "d1"], NOON_MS + LIMIT_MS))
    late = known.snapshot("e", NOON_MS + LIMIT_MS, complete=True)
    assert (late.driver_ids.tolist(), late.numbers.tolist()) == ([b"d1", b"d2"], [50_003, 50_004])
    assert (len(known._number_of), len(known._numbers) < 1_000, len(known._records) < 1_000) == (2, True, True)


def test_what_a_snapshot_holds_stays_as_it_was() -> None:
    known = KnownDrivers(LIMIT_MS)
    known.take_in(drivers(["d1", "d2"]))
    before = known.snapshot("e", NOON_MS, complete=True)
    known.take_in(drivers(["d2", "d3"], NOON_MS + 1))
    known.forget_bucket(bucket_of("d1", 4), 4)
    after = known.snapshot("f", NOON_MS + 1, complete=True)
    assert (before.driver_ids.tolist(), before.changes.tolist(), before.received_at_ms.tolist()) == (
        [b"d1", b"d2"], [1, 1], [NOON_MS] * 2,
    )  # fmt: skip
    assert b"d1" not in after.driver_ids.tolist()
    assert after.changes.tolist() == [2] * len(after.changes)


async def test_an_erased_driver_is_nowhere_any_more(world: World) -> None:
    await world.tell(state("d1"), state("d2"))
    sessions = {name: (await world.report(name, fix_message(1, *CENTRE))).session_id for name in ("d1", "d2")}
    assert sorted(await world.names_nearby()) == ["d1", "d2"]
    assert len(seen_in(await world.location.mirror.refresh())) == 2
    request = pb.EraseDriverRequest(city_id=CITY, driver_id="d1")
    assert (await world.stub.EraseDriver(request, metadata=world.auth(Role.OPERATOR, "ops"))).erased
    assert not (await world.stub.EraseDriver(request, metadata=world.as_service)).erased, "nothing is left to be erased"
    await world.location.sweeper.sweep()
    assert await world.names_nearby() == ["d2"]
    assert set(seen_in(await world.location.mirror.refresh())) == {"d2"}, "another worker hears of it, swept or not"
    assert set(await world.check_index()) == {"d2"}
    assert await world.location.store.read_positions(["d1"]) == [None]
    await world.report("d1", fix_message(2, *CENTRE), session_id=sessions["d1"])
    assert await world.names_nearby() == ["d2"], "who goes on reporting is known again, but not as available"


async def test_of_an_erased_driver_not_even_the_id_stays(world: World) -> None:
    await put(world.location.store, {"d1": CENTRE})
    await world.location.store.erase(["d1"])
    keys = bucket_keys(world.city.city_id, bucket_of("d1", world.city.buckets))
    changes = keys.scripted[1]
    await world.location.sweeper.sweep()
    assert await world.valkey.zrange(changes, 0, -1) == [b"d1"], "whoever reads the changes must hear of it"
    await world.location.store.sweep(0, 0, 0, 100)  # as if the time for that were over
    assert await world.valkey.zrange(changes, 0, -1) == []


@pytest.mark.parametrize("driver_id", ["", "no good", "d" * 65])
async def test_who_is_erased_must_be_named_well(single_world: World, driver_id: str) -> None:
    request = pb.EraseDriverRequest(city_id=CITY, driver_id=driver_id)
    error = await refusal(single_world.stub.EraseDriver(request, metadata=single_world.as_service))
    assert (error.reason, [violation.field for violation in error.violations]) == (Reason.INVALID_FIELD, ["driver_id"])


async def test_erasing_is_for_operators_and_services(single_world: World) -> None:
    request = pb.EraseDriverRequest(city_id=CITY, driver_id="d1")
    error = await refusal(single_world.stub.EraseDriver(request, metadata=single_world.auth(Role.DRIVER, "d1")))
    assert error.reason is Reason.ROLE_NOT_ALLOWED
