"""What every store of location keeps: the contract, on a real Valkey with one bucket and with several."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.ids import bucket_of
from hexhail.stores.valkey import open_valkey
from location import redis_scripts
from location.__main__ import assemble
from location.keys import bucket_keys
from location.model import POSITION, Availability
from location.redis_store import SCRIPTS, RedisLocationStore
from tests.location.world import CENTRE, LIMIT_MS, NOON_MS, fix_row, gridport, packed, state

if TYPE_CHECKING:
    from pathlib import Path

    from location.model import Records
    from tests.location.world import World

pytestmark = pytest.mark.every_store

HOUR_MS = 3_600_000
AVAILABLE, UNTOLD, NOT_NEWER = int(Availability.AVAILABLE), 0, -1
EVERYWHERE_M = 50_000.0


def at(lat: float = CENTRE[0], lng: float = CENTRE[1], *, session: int = 1, sequence: int = 1, at_ms: int = NOON_MS) -> Records:
    return packed(fix_row(lat, lng, session=session, sequence=sequence, at_ms=at_ms))


async def test_scripts_are_loaded_again_after_they_were_lost(world: World) -> None:
    await world.location.store.write_states([state("d1")])
    await world.valkey.script_flush()
    assert (await world.location.store.write_fixes(["d1"], at())).tolist() == [AVAILABLE]
    assert await world.check_index() != {}


async def test_a_write_whose_reply_was_lost_is_told_the_same_again(world: World) -> None:
    store = world.location.store
    for _ in range(2):
        assert (await store.write_fixes(["d1"], at())).tolist() == [UNTOLD]
    assert (await store.write_fixes(["d1"], at(40.51))).tolist() == [NOT_NEWER], "another fix under the same number is not newer"


async def test_large_batches_reach_every_bucket(world: World) -> None:
    ids = [f"d{row}" for row in range(2_500)]
    await world.location.store.write_states([state(driver_id) for driver_id in ids])
    positions = np.repeat(at(), len(ids))
    assert (await world.location.store.write_fixes(ids, positions) == AVAILABLE).all()
    assert len(await world.check_index()) == 2_500
    occupancy = await world.location.store.occupancy()
    assert (occupancy.cells.tolist(), occupancy.counts.tolist()) == ([geo.cell_of(Place(*CENTRE), 9)], [2_500])
    drivers, _ = await world.location.store.read_near(Place(*CENTRE), 1.0, occupancy.cells.tolist())
    assert sorted(driver_id.decode() for driver_id in drivers.driver_ids) == sorted(ids)
    beyond, _ = await world.location.store.read_near_all_but(Place(*CENTRE), EVERYWHERE_M, occupancy.cells.tolist())
    assert len(beyond.driver_ids) == 0


async def test_all_that_is_known_of_a_driver_lies_in_one_slot() -> None:
    keys = bucket_keys(gridport().city_id, 3)
    tags = {key[key.index("{") : key.index("}") + 1] for key in (*keys.scripted, keys.cell_prefix)}
    assert tags == {"{gridport:3}"}
    assert [bucket_of(driver_id, 4) for driver_id in ("d1", "d2", "acme.d3")] == [2, 0, 1], "the same for ever"


async def test_the_epoch_is_made_once_and_completed_only_while_it_lasts(world: World) -> None:
    store = world.location.store
    first = await store.state_epoch()
    assert (await store.state_epoch(), first.complete) == (first, False)
    assert await store.complete_epoch(first.epoch)
    assert (await store.state_epoch()).complete
    await world.valkey.flushall()
    second = await store.state_epoch()
    assert (second.epoch != first.epoch, second.complete) == (True, False)
    assert not await store.complete_epoch(first.epoch)


async def test_a_sweep_is_bounded_keeps_states_and_forgets_positions_in_the_end(world: World) -> None:
    store = world.location.store
    ids = [f"d{row}" for row in range(10)]
    await store.write_states([state(driver_id) for driver_id in ids])
    await store.write_fixes(ids, np.repeat(at(), 10))
    nothing = (NOON_MS - 1, NOON_MS + HOUR_MS, NOON_MS - HOUR_MS, 100)
    assert await store.sweep(*nothing) == (0, 0)
    swept, rounds = 0, 0
    while swept < 10:
        silent, _ = await store.sweep(NOON_MS, NOON_MS + HOUR_MS, NOON_MS - HOUR_MS, 1)
        assert 0 < silent <= world.city.buckets
        swept, rounds = swept + silent, rounds + 1
    assert await world.check_index() == {}
    assert None not in await store.read_positions(ids), "late fixes of an old session must still be told apart"
    assert (await store.write_fixes(["d1"], at())).tolist() == [AVAILABLE], "the repeat of a write changes nothing"
    assert await world.check_index() == {}
    await store.write_fixes(["d0"], at(sequence=2, at_ms=NOON_MS + 1))
    assert list(await world.check_index()) == ["d0"]
    assert await store.sweep(NOON_MS, NOON_MS + HOUR_MS, NOON_MS, 100) == (0, 10)
    left = await store.read_positions(ids)
    assert [record is not None for record in left] == [True] + [False] * 9
    assert list(await world.check_index()) == ["d0"]


async def test_what_a_broken_off_script_left_behind_shows_nobody_twice_and_heals(world: World) -> None:
    store, (lat, lng) = world.location.store, CENTRE
    await store.write_states([state("d1"), state("d2")])
    await store.write_fixes(["d1"], at())
    keys = bucket_keys(world.city.city_id, bucket_of("d1", world.city.buckets))
    beside = geo.cell_of(Place(lat + 0.004, lng), 9)
    await world.valkey.geoadd(f"{keys.cell_prefix}{beside:x}", (lng, lat + 0.004, "d1"))
    await world.valkey.hset(keys.occupancy, f"{beside:x}", 1)
    assert await world.names_nearby() == ["d1"]
    here = f"{geo.cell_of(Place(lat, lng), 9):x}"
    await world.valkey.hset(keys.occupancy, here, 7)
    await store.write_states([state("d1", Availability.ON_RIDE, version=2)])
    assert await world.valkey.hget(keys.occupancy, here) is None, "counted anew with the next change"


async def test_receipts_of_another_clock_count_as_silent(world: World) -> None:
    store = world.location.store
    await store.write_states([state("d1")])
    await store.write_fixes(["d1"], at(at_ms=NOON_MS + HOUR_MS))
    assert await world.names_nearby() == []
    await store.sweep(NOON_MS - LIMIT_MS, NOON_MS + LIMIT_MS, NOON_MS - HOUR_MS, 100)
    assert await world.check_index() == {}


async def test_a_state_told_of_a_silent_driver_indexes_it_with_its_next_fix(world: World) -> None:
    store = world.location.store
    await store.write_fixes(["d1"], at())
    await store.sweep(NOON_MS, NOON_MS + HOUR_MS, NOON_MS - HOUR_MS, 100)
    await store.write_states([state("d1")])
    assert await world.check_index() == {}
    await store.write_fixes(["d1"], at(sequence=2))
    assert list(await world.check_index()) == ["d1"]


async def test_states_of_one_driver_told_together_end_with_the_newest(world: World) -> None:
    store = world.location.store
    await store.write_fixes(["d1"], at())
    told = [state("d1", version=2), state("d1", Availability.ON_RIDE, version=3), state("d1", version=1)]
    assert await store.write_states(told) == 2
    assert await world.check_index() == {}


async def test_positions_come_back_as_they_were_packed(world: World) -> None:
    record = packed(fix_row(40.5012345, -73.9912345, heading_deg=359.99, speed_mps=13.5, accuracy_m=4.25))
    await world.location.store.write_fixes(["d1"], record)
    assert await world.location.store.read_positions(["nobody", "d1"]) == [None, record.tobytes()]
    assert len(record.tobytes()) == POSITION.itemsize == 58


async def test_no_store_is_an_error_never_an_empty_city(tmp_path: Path) -> None:
    client = open_valkey(f"unix://{tmp_path}/nobody.sock", SCRIPTS)
    store = RedisLocationStore(client, gridport().city_id, 4)
    for call in (
        store.occupancy(),
        store.state_epoch(),
        store.read_near(Place(*CENTRE), 1.0, [1]),
        store.write_fixes(["d1"], at()),
    ):
        with pytest.raises(DomainError) as error:
            await call
        assert (error.value.reason, error.value.metadata["store"]) == (Reason.STORE_UNAVAILABLE, "valkey")
    await client.aclose()


async def test_a_cancelled_question_ends_at_every_moment(valkey_url: str) -> None:
    """With a socket timeout redis-py loses some cancellations in Python 3.11, and a cancelled loop would live on."""
    for turns in range(40):
        client = open_valkey(valkey_url, SCRIPTS)
        store = RedisLocationStore(client, gridport().city_id, 1)

        async def ask_once_and_wait(store: RedisLocationStore = store) -> None:
            await store.last_session()
            await asyncio.Event().wait()

        asking = asyncio.create_task(ask_once_and_wait())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait({asking}, timeout=5)
        assert done
        await client.aclose()


async def test_nobody_home_is_a_whole_answer(world: World) -> None:
    location = assemble(world.city, world.line, world.clock)
    supply = await location.counter.supply()
    assert (len(supply.cells), supply.complete) == (0, False)
    answer = await world.nearby()
    assert (list(answer.drivers), answer.complete, answer.searched_radius_m) == ([], False, 5_000)


def test_scripts_know_the_layouts() -> None:
    assert [POSITION.fields[name][1] for name in ("cell", "session", "received_at_ms", "lat_e7")] == [0, 8, 24, 40]  # type: ignore[index]
    assert len({script.sha for script in redis_scripts.ALL}) == len(redis_scripts.ALL)
