"""The index on a real Valkey against the plainest model: equal answers after anything that may happen to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hexhail.kernel.geo import Place
from location.__main__ import assemble
from location.counter import at_resolution
from location.model import POSITION, Availability, NearbyQuestion
from tests.location.brute import Heard, Model
from tests.location.world import CENTRE, LIMIT_MS, NOON_MS, World, fix_row, packed, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from location.model import NearbyAnswer
    from location.servicer import CityLocation

pytestmark = pytest.mark.every_store

IDS = [f"d{number}" for number in range(12)]

# few distinct places, so that ties and crowded cells are common; some far out, where rings give way to single cells
near = st.tuples(st.integers(-8, 8), st.integers(-8, 8)).map(lambda p: (CENTRE[0] + p[0] * 0.0007, CENTRE[1] + p[1] * 0.0007))
far = st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15)).map(lambda p: (CENTRE[0] + p[0], CENTRE[1] + p[1]))
places = st.one_of(near, far)

fixes = st.tuples(st.just("fix"), st.sampled_from(IDS), st.integers(1, 3), st.integers(1, 6), places)
states = st.tuples(
    st.just("state"), st.sampled_from(IDS), st.integers(1, 6), st.sampled_from([*Availability, Availability.AVAILABLE]),
    st.integers(0, 3), st.sampled_from([0, 4_000, 5_000]),
)  # fmt: skip
waits = st.tuples(st.just("wait"), st.sampled_from([1, 9_999, 20_000]))
sweeps = st.tuples(st.just("sweep"))
happenings = st.lists(st.one_of(fixes, fixes, states, states, waits, sweeps), max_size=60)
questions = st.builds(
    NearbyQuestion,
    place=places.map(lambda p: Place(*p)),
    max_drivers=st.integers(1, 6),
    radius_m=st.sampled_from([1.0, 400.0, 5_000.0, 50_000.0]),
    capability_mask=st.integers(0, 3),
    min_rating_milli=st.sampled_from([0, 4_000]),
    excluded_driver_ids=st.frozensets(st.sampled_from(IDS), max_size=3),
    max_age_ms=st.sampled_from([10_000, LIMIT_MS]),
)

on_one_store = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def write(location: CityLocation, driver_id: str, heard: Heard) -> bool:
    row = fix_row(heard.place.lat, heard.place.lng, session=heard.session, sequence=heard.sequence, at_ms=heard.at_ms)
    return bool((await location.store.write_fixes([driver_id], packed(row, location.city.index_resolution)))[0] >= 0)


async def live(world: World, model: Model, events: Sequence[tuple[object, ...]]) -> None:
    """Lets things happen to the store and to the model alike; each says the same of what was new."""
    for event in events:
        match event:
            case ("fix", str(driver_id), int(session), int(sequence), (float(lat), float(lng))):
                heard = Heard(session, sequence, world.clock.now_ms(), Place(lat, lng))
                assert await write(world.location, driver_id, heard) == model.fix(driver_id, heard)
            case ("state", str(driver_id), int(version), Availability() as availability, int(mask), int(rating)):
                told = state(driver_id, availability, version=version, mask=mask, rating=rating)
                assert await world.location.store.write_states([told]) == model.tell(told)
            case ("wait", int(ms)):
                world.clock._now_ms += ms
            case _:
                await world.location.sweeper.sweep()


def rows(answer: NearbyAnswer) -> list[tuple[int, str]]:
    ids = [driver_id.decode() for driver_id in answer.drivers.driver_ids]
    return list(zip(answer.distance_mm.tolist(), ids, strict=True))


def live_in_model(model: Model, steps: Sequence[tuple[Any, ...]], now_ms: int) -> None:
    for kind, driver_id, *what in steps:
        if kind == "fix":
            session, sequence, place = what
            model.fix(driver_id, Heard(session, sequence, now_ms, Place(*place)))
        else:
            version, availability, mask, rating = what
            model.tell(state(driver_id, availability, version=version, mask=mask, rating=rating))


async def anew(world: World) -> None:
    await world.valkey.flushall()
    world.location = assemble(world.city, world.line, world.clock)


@on_one_store
@given(events=happenings, asked=st.lists(questions, min_size=1, max_size=4))
async def test_nearby_equals_brute_force_page_by_page(
    world: World, events: list[tuple[object, ...]], asked: list[NearbyQuestion]
) -> None:
    await anew(world)
    model = Model()
    await live(world, model, events)
    for first in asked:
        expected = model.nearby(first, world.clock.now_ms())
        question: NearbyQuestion | None = first
        while question is not None:
            answer = await world.location.finder.find(question)
            page, expected = expected[: first.max_drivers], expected[first.max_drivers :]
            assert rows(answer) == page
            assert (answer.next is not None) == bool(expected), "a next page exactly where somebody is left"
            assert answer.searched_radius_m == (page[-1][0] / 1000 if expected else first.radius_m)
            question = replace(first, after=answer.next) if answer.next else None


@on_one_store
@given(events=happenings)
async def test_occupancy_is_the_recount_and_nobody_is_in_two_cells(world: World, events: list[tuple[object, ...]]) -> None:
    await anew(world)
    model = Model()
    await live(world, model, events)
    indexed = await world.check_index()
    assert set(model.available(world.clock.now_ms(), LIMIT_MS)) <= set(indexed)
    supply = await world.location.counter.supply()
    assert supply.available.sum() == len(model.available(world.clock.now_ms(), LIMIT_MS))
    assert at_resolution(supply, 5).available.sum() == supply.available.sum()


@on_one_store
@given(events=st.lists(fixes, max_size=40), seed=st.integers(0, 2**32 - 1))
async def test_the_order_of_arrival_never_matters(world: World, events: list[tuple[object, ...]], seed: int) -> None:
    # of equal session and sequence the first counts, so each comes once here
    distinct = list({event[1:4]: event for event in events}.values())
    indexes = []
    for order in (range(len(distinct)), np.random.default_rng(seed).permutation(len(distinct))):
        await anew(world)
        await world.location.store.write_states([state(driver_id) for driver_id in IDS])
        await live(world, Model(), [distinct[int(row)] for row in order])
        indexes.append(await world.check_index())
    assert indexes[0] == indexes[1]


@on_one_store
@given(steps=st.lists(st.one_of(fixes, fixes, states), max_size=40), question=questions)
async def test_workers_and_matching_at_once_leave_what_the_model_says(
    world: World, steps: list[tuple[Any, ...]], question: NearbyQuestion
) -> None:
    """Three workers and matching write all they have at once: of each driver the newest fix and the newest state hold."""
    await anew(world)
    workers = [assemble(world.city, world.line, world.clock) for _ in range(3)]
    model = Model()

    async def carry_out(number: int, step: tuple[Any, ...]) -> None:
        worker = workers[number % len(workers)]
        if step[0] == "fix":
            _, driver_id, session, sequence, place = step
            await write(worker, driver_id, Heard(session, sequence, world.clock.now_ms(), Place(*place)))
        else:
            _, driver_id, version, availability, mask, rating = step
            told = state(driver_id, availability, version=version, mask=mask, rating=rating)
            await worker.store.write_states([told])

    # of equal numbers the first to come counts, and nobody knows which that is
    distinct = list({(step[0], step[1], *step[2 : 4 if step[0] == "fix" else 3]): step for step in steps}.values())
    await asyncio.gather(*(carry_out(number, step) for number, step in enumerate(distinct)))
    live_in_model(model, distinct, world.clock.now_ms())
    await world.check_index()
    known = await world.location.store.read_positions(IDS)
    for driver_id, record in zip(IDS, known, strict=True):
        heard = model.heard.get(driver_id)
        assert (record is None) == (heard is None)
        if record is not None and heard is not None:
            (position,) = np.frombuffer(record, dtype=POSITION)
            assert (position["session"], position["sequence"]) == (heard.session, heard.sequence)
    expected = model.nearby(question, world.clock.now_ms())[: question.max_drivers]
    assert rows(await workers[0].finder.find(question)) == expected


async def test_moves_states_and_sweeps_by_several_workers_leave_the_index_whole(world: World) -> None:
    """Two workers and matching at once; a reader meanwhile sees every available driver exactly once."""
    store = world.location.store
    ids = [f"m{number}" for number in range(40)]
    await store.write_states([state(driver_id) for driver_id in ids])
    other = assemble(world.city, world.line, world.clock)
    rng = np.random.default_rng(7)

    async def drive(location: CityLocation, session: int) -> None:
        for sequence in range(1, 30):
            spread = rng.uniform(-0.004, 0.004, (len(ids), 2))
            batch = np.concatenate(
                [fix_row(CENTRE[0] + a, CENTRE[1] + b, session=session, sequence=sequence) for a, b in spread.tolist()]
            )
            await location.store.write_fixes(ids, packed(batch, 9))

    async def watch(done: asyncio.Event) -> int:
        question = NearbyQuestion(Place(*CENTRE), 100, 5_000.0, 0, 0, frozenset(), LIMIT_MS)
        asked = 0
        while not done.is_set():
            found = [driver_id.decode() for driver_id in (await world.location.finder.find(question)).drivers.driver_ids]
            assert sorted(found) == sorted(ids)
            asked += 1
        return asked

    await drive(world.location, 1)
    done = asyncio.Event()
    watching = asyncio.create_task(watch(done))
    await asyncio.gather(drive(world.location, 2), drive(other, 3), *(other.sweeper.sweep() for _ in range(5)))
    done.set()
    assert await watching > 3
    await world.check_index()


@pytest.mark.parametrize("spread_deg", [0.01, 0.2])
async def test_a_crowd_is_found_exactly(world: World, spread_deg: float) -> None:
    """3,000 drivers, dense and sparse, against brute force: one round trip as a rule."""
    location = world.location
    rng = np.random.default_rng(3)
    count = 3_000
    spots = np.array(CENTRE) + rng.normal(0, spread_deg, (count, 2))
    batch = np.concatenate([fix_row(lat, lng) for lat, lng in spots.tolist()])
    ids = [f"c{row}" for row in range(count)]
    model = Model()
    for driver_id, (lat, lng) in zip(ids, spots.tolist(), strict=True):
        model.fix(driver_id, Heard(1, 1, NOON_MS, Place(lat, lng)))
        model.tell(state(driver_id))
    await location.store.write_states([model.told[driver_id] for driver_id in ids])
    assert (await location.store.write_fixes(ids, packed(batch, 9)) >= 0).all()
    asked = np.array(CENTRE) + rng.normal(0, spread_deg, (25, 2))
    for lat, lng in asked.tolist():
        question = NearbyQuestion(Place(lat, lng), 10, 5_000.0, 1, 0, frozenset(), LIMIT_MS)
        assert rows(await location.finder.find(question)) == model.nearby(question, NOON_MS)[:10]
    assert location.metrics.nearby_readings <= 2.5 * location.metrics.nearby_questions
