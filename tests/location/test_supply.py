"""Supply is counted from a snapshot at most 2 s old, in cells of any coarser resolution, and never made up."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel import geo
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from location.counter import Supply, SupplyCounter, at_resolution
from location.mirror import Mirror
from location.model import Availability
from tests.location.brute import Model
from tests.location.fleets import FaultyStore, put
from tests.location.test_index import anew, happenings, live, on_one_store
from tests.location.world import CENTRE, CITY, LIMIT_MS, World, fix_message, state

if TYPE_CHECKING:
    from tests.location.fleets import Spot

CELL = geo.cell_of(Place(*CENTRE), 9)


def counted(supply: Supply) -> dict[int, int]:
    assert (np.diff(supply.cells.astype(np.int64)) > 0).all()
    return dict(zip(supply.cells.tolist(), supply.available.tolist(), strict=True))


@on_one_store
@given(events=happenings, resolution=st.integers(0, 9))
async def test_supply_is_the_recount_at_every_resolution(world: World, events: list[tuple[object, ...]], resolution: int) -> None:
    await anew(world)
    model = Model()
    await live(world, model, events)
    available = model.available(world.clock.now_ms(), LIMIT_MS)
    supply = await world.location.counter.supply()
    places = [model.heard[driver_id].place for driver_id in available]
    assert counted(supply) == Counter(geo.cell_of(place, 9) for place in places)
    cells = np.array([geo.cell_of(place, 9) for place in places], dtype=np.uint64)
    coarse = Counter(geo.parents_of(cells, resolution).tolist())
    assert counted(at_resolution(supply, resolution)) == coarse
    asked = np.array([CELL, *coarse], dtype=np.uint64)
    assert at_resolution(supply, resolution).of_cells(asked).tolist() == [coarse[cell] for cell in asked.tolist()]


async def test_who_asks_within_two_seconds_is_told_the_same(world: World) -> None:
    counter, metrics = world.location.counter, world.location.metrics
    await put(world.location.store, {"d1": CENTRE})
    await world.location.store.write_states([state("d1")])
    first = await asyncio.gather(*(counter.supply() for _ in range(20)))
    assert {id(each) for each in first} == {id(first[0])}
    await world.location.store.write_states([state("d1", Availability.ON_RIDE, version=2)])
    world.clock.advance(2_000)
    assert counted(await counter.supply()) == {CELL: 1}
    world.clock.advance(1)
    assert counted(await counter.supply()) == {}
    assert (metrics.supply_snapshots, metrics.mirror_readings) == (2, 2)


async def test_a_city_that_wants_no_delay_reads_for_each_question(single_world: World) -> None:
    mirror, metrics = single_world.location.mirror, single_world.location.metrics
    counter = SupplyCounter(mirror, 0, single_world.clock, metrics)
    assert counted(await counter.supply()) == {}
    await put(single_world.location.store, {"d1": CENTRE})
    await single_world.location.store.write_states([state("d1")])
    assert counted(await counter.supply()) == {CELL: 1}


async def test_what_others_had_read_counts_for_supply_too(single_world: World) -> None:
    await single_world.location.mirror.refresh()
    single_world.clock.advance(1_999)
    supply = await single_world.location.counter.supply()
    assert supply.as_of_ms == single_world.clock.now_ms() - 1_999
    assert single_world.location.metrics.mirror_readings == 1


async def test_an_outage_is_an_error_and_no_scarcity(single_world: World) -> None:
    store = FaultyStore(single_world.location.store)
    mirror = Mirror(store, LIMIT_MS, single_world.clock, single_world.location.metrics)
    counter = SupplyCounter(mirror, 2_000, single_world.clock, single_world.location.metrics)
    await put(single_world.location.store, {"d1": CENTRE})
    await single_world.location.store.write_states([state("d1")])
    assert counted(await counter.supply()) == {CELL: 1}
    store.away = True
    single_world.clock.advance(2_000)
    assert counted(await counter.supply()) == {CELL: 1}, "as old as it may be"
    single_world.clock.advance(1)
    with pytest.raises(DomainError) as error:
        await counter.supply()
    assert error.value.reason is Reason.STORE_UNAVAILABLE


async def test_a_hundred_thousand_cells_are_answered_in_their_order(single_world: World) -> None:
    spots: dict[str, Spot] = {"d1": CENTRE, "d2": CENTRE, "d3": (CENTRE[0] + 0.05, CENTRE[1])}
    await single_world.tell(*(state(name) for name in spots))
    for name, spot in spots.items():
        await single_world.report(name, fix_message(1, *spot))
    rng = np.random.default_rng(2)
    far_away = geo.cells_of(rng.uniform(-60, 0, 99_998), rng.uniform(0, 180, 99_998), 9).tolist()
    cells = [*far_away[:50_000], CELL, *far_away[50_000:], geo.cell_of(Place(*spots["d3"]), 9)]
    request = pb.CountSupplyRequest(city_id=CITY, resolution=9, cells=cells)
    reply: Any = await single_world.stub.CountSupply(request, metadata=single_world.as_service)
    assert list(reply.cells) == cells
    assert {row: count for row, count in enumerate(reply.available) if count} == {50_000: 2, 99_999: 1}
    assert (reply.complete, reply.as_of_ms) == (True, single_world.clock.now_ms())
