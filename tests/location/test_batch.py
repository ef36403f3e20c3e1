"""Many places asked about at once get what each would get alone: against brute force, against the single search, through gRPC."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hexhail.api.common.v1 import geo_pb2
from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.rpc.tokens import Role
from location import batch, batch_finder
from location.batch import BatchQuestion, nearest
from location.batch_finder import BatchFinder
from location.known import KnownDrivers
from location.mirror import Mirror
from location.model import RECORD, Availability, IndexedDrivers, NearbyQuestion
from location.records import pack_states
from tests.location.brute import Heard, Model
from tests.location.fleets import FaultyStore, positions_at, put
from tests.location.test_index import anew, happenings, live, on_one_store
from tests.location.world import CENTRE, CITY, LIMIT_MS, NOON_MS, World, fix_message, refusal, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from location.batch import BatchAnswer
    from location.known import Snapshot
    from location.model import DriverState
    from tests.location.fleets import Spot

ANYONE = BatchQuestion(np.zeros(0), np.zeros(0), 10, 5_000.0, 0, 0, frozenset(), LIMIT_MS)


def asked(question: BatchQuestion, spots: Sequence[Spot]) -> BatchQuestion:
    lat, lng = np.array(spots, dtype=np.float64).reshape(-1, 2).T
    return replace(question, lat=lat, lng=lng)


def fleet(spots: Sequence[Spot], told: Sequence[DriverState], ages_ms: Sequence[int]) -> tuple[Snapshot, Model]:
    """The same drivers as a snapshot and as a brute force model."""
    model = Model()
    records = np.zeros(len(spots), dtype=RECORD)
    records["position"], records["state"] = positions_at(spots), pack_states(told) if told else 0
    records["position"]["received_at_ms"] = NOON_MS - np.array(ages_ms, dtype=np.int64)
    for spot, said, age_ms in zip(spots, told, ages_ms, strict=True):
        model.fix(said.driver_id, Heard(1, 1, NOON_MS - age_ms, Place(*spot)))
        model.tell(said)
    known = KnownDrivers(LIMIT_MS)
    known.take_in(IndexedDrivers([said.driver_id.encode() for said in told], records))
    return known.snapshot("e", NOON_MS, complete=True), model


def check(answer: BatchAnswer, question: BatchQuestion, model: Model, now_ms: int) -> None:
    """Is it what brute force says?"""
    names = [name.decode() for name in answer.driver_ids.tolist()]
    assert len(set(names)) == len(names) == len(answer.records)
    assert set(answer.driver_index.tolist()) == set(range(len(names))), "everyone named is somebody's candidate"
    assert (answer.start[0], answer.start[-1], len(answer.start)) == (0, len(answer.driver_index), len(question.lat) + 1)
    rows = list(zip(answer.distance_mm.tolist(), (names[index] for index in answer.driver_index.tolist()), strict=True))
    for place, (lat, lng) in enumerate(zip(question.lat.tolist(), question.lng.tolist(), strict=True)):
        expected = model.nearby(single(question, Place(lat, lng)), now_ms)
        found = rows[answer.start[place] : answer.start[place + 1]]
        assert found == expected[: question.max_drivers]
        are_more = len(expected) > question.max_drivers
        assert answer.searched_radius_m[place] == (found[-1][0] / 1000 if are_more else question.radius_m)


def single(question: BatchQuestion, place: Place) -> NearbyQuestion:
    return NearbyQuestion(
        place,
        question.max_drivers,
        question.radius_m,
        question.capability_mask,
        question.min_rating_milli,
        question.excluded_driver_ids,
        question.max_age_ms,
    )


# few distinct places, so that ties are common: within a spot, and around one
GRID = st.tuples(st.integers(-3, 3), st.integers(-3, 3)).map(lambda p: (p[0] * 0.01, p[1] * 0.01))
FREE = st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
OFFSETS = st.one_of(GRID, GRID, FREE)
MIDDLES = st.sampled_from([CENTRE, (0.0, 179.99), (84.9, 10.0), (-33.9, 151.2)])
DRIVERS = st.tuples(
    OFFSETS, st.sampled_from([*Availability, Availability.AVAILABLE, Availability.AVAILABLE]), st.integers(0, 3),
    st.sampled_from([0, 4_000, 5_000]), st.sampled_from([0, 9_999, 10_000, LIMIT_MS - 1, LIMIT_MS]),
)  # fmt: skip
QUESTIONS = st.builds(
    BatchQuestion,
    lat=st.just(np.zeros(0)),
    lng=st.just(np.zeros(0)),
    max_drivers=st.integers(1, 8),
    radius_m=st.sampled_from([1.0, 1_200.0, 5_000.0, 50_000.0]),
    capability_mask=st.integers(0, 3),
    min_rating_milli=st.sampled_from([0, 4_000]),
    excluded_driver_ids=st.frozensets(st.sampled_from(["d0", "d1", "d10", "nobody"]), max_size=3),
    max_age_ms=st.sampled_from([10_000, LIMIT_MS]),
)


def moved(middle: Spot, offset: Spot) -> Spot:
    lng = middle[1] + offset[1]
    return middle[0] + offset[0], lng - 360 if lng > 180 else lng


@given(MIDDLES, st.lists(DRIVERS, max_size=60), st.lists(OFFSETS, max_size=8), QUESTIONS)
def test_a_batch_is_what_brute_force_says(middle: Spot, drivers: list[Any], places: list[Spot], question: BatchQuestion) -> None:
    spots = [moved(middle, offset) for offset, *_ in drivers]
    told = [
        state(f"d{row}", availability, mask=mask, rating=rating) for row, (_, availability, mask, rating, _) in enumerate(drivers)
    ]
    snapshot, model = fleet(spots, told, [age_ms for *_, age_ms in drivers])
    question = asked(question, [moved(middle, offset) for offset in places])
    check(nearest(snapshot, question, NOON_MS), question, model, NOON_MS)


@pytest.mark.parametrize("kind", ["scattered", "one spot", "a circle", "a grid"])
def test_crowds_are_found_exactly_however_they_stand(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PAIRS_AT_ONCE", 100)  # several portions
    rng = np.random.default_rng(11)
    count = 400
    turns = np.arange(count) / count * 2 * math.pi
    offsets = {
        "scattered": rng.normal(0, 0.02, (count, 2)),
        "one spot": np.zeros((count, 2)),
        "a circle": np.stack([np.sin(turns), np.cos(turns) / math.cos(math.radians(CENTRE[0]))], axis=1) * 0.01,
        "a grid": rng.integers(-3, 3, (count, 2)) * 0.002,
    }[kind]
    spots = [tuple(spot) for spot in (np.array(CENTRE) + offsets).tolist()]
    snapshot, model = fleet(spots, [state(f"d{row}") for row in rng.permutation(count).tolist()], [0] * count)
    places = [CENTRE, *(tuple(spot) for spot in (np.array(CENTRE) + rng.normal(0, 0.01, (40, 2))).tolist())]
    for k, radius_m in ((7, 5_000.0), (60, 1_200.0), (500, 50_000.0)):
        question = asked(replace(ANYONE, max_drivers=k, radius_m=radius_m), places)
        check(nearest(snapshot, question, NOON_MS), question, model, NOON_MS)


def test_nobody_and_nowhere_are_answers() -> None:
    empty, nobody = fleet([], [], [])
    question = asked(ANYONE, [CENTRE, (0.0, 0.0)])
    check(nearest(empty, question, NOON_MS), question, nobody, NOON_MS)
    snapshot, model = fleet([CENTRE], [state("d1")], [0])
    answer = nearest(snapshot, asked(ANYONE, []), NOON_MS)
    check(answer, asked(ANYONE, []), model, NOON_MS)
    assert len(answer.searched_radius_m) == 0


@on_one_store
@given(events=happenings, offsets=st.lists(GRID, min_size=1, max_size=4), question=QUESTIONS)
async def test_a_batch_is_what_a_search_at_each_place_finds(
    world: World, events: list[tuple[object, ...]], offsets: list[Spot], question: BatchQuestion
) -> None:
    await anew(world)
    model = Model()
    await live(world, model, events)
    question = asked(question, [moved(CENTRE, offset) for offset in offsets])
    answer = await world.location.batch_finder.find(question)
    check(answer, question, model, world.clock.now_ms())
    for place, offset in enumerate(offsets):
        alone = await world.location.finder.find(single(question, Place(*moved(CENTRE, offset))))
        rows = slice(answer.start[place], answer.start[place + 1])
        assert answer.driver_ids[answer.driver_index[rows]].tolist() == list(alone.drivers.driver_ids)
        assert answer.distance_mm[rows].tolist() == alone.distance_mm.tolist()
        assert (answer.searched_radius_m[place], answer.complete) == (alone.searched_radius_m, alone.complete)


async def test_batches_are_computed_beside_the_loop_one_after_the_other(
    single_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(single_world.location.store, {"d1": CENTRE})
    threads, under_way = [], []

    def observed(snapshot: Snapshot, question: BatchQuestion, now_ms: int) -> BatchAnswer:
        threads.append(threading.current_thread())
        under_way.append(question)
        assert under_way == [question]
        answer = nearest(snapshot, question, now_ms)
        under_way.clear()
        return answer

    monkeypatch.setattr(batch_finder, "nearest", observed)
    await asyncio.gather(*(single_world.location.batch_finder.find(asked(ANYONE, [CENTRE])) for _ in range(5)))
    assert len(threads) == 5
    assert threading.current_thread() not in threads


async def test_without_the_store_a_batch_is_refused_and_never_empty(single_world: World) -> None:
    location, store = single_world.location, FaultyStore(single_world.location.store)
    finder = BatchFinder(Mirror(store, LIMIT_MS, single_world.clock, location.metrics), single_world.clock, location.metrics)
    await finder.find(asked(ANYONE, [CENTRE]))
    store.away = True
    with pytest.raises(DomainError) as error:
        await finder.find(asked(ANYONE, [CENTRE]))
    assert error.value.reason is Reason.STORE_UNAVAILABLE


# through gRPC


def request_of(*places: Spot, **rest: Any) -> pb.FindNearbyDriversBatchRequest:
    positions = [geo_pb2.LatLng(lat=lat, lng=lng) for lat, lng in places]
    return pb.FindNearbyDriversBatchRequest(**{"city_id": CITY, "positions": positions, **rest})


async def test_a_batch_through_grpc_is_what_each_place_is_told_alone(world: World) -> None:
    await world.tell(
        state("d1"), state("d2", rating=4_900, mask=3), state("d3"), state("busy", Availability.ON_RIDE), state("gone")
    )
    for name, east in (("d1", 0.0), ("d2", 0.001), ("d3", 0.002), ("busy", 0.001)):
        await world.report(name, fix_message(1, CENTRE[0], CENTRE[1] + east, heading_deg=90))
    places = [CENTRE, (CENTRE[0], CENTRE[1] + 0.002), (CENTRE[0] + 1, CENTRE[1])]
    for rest in ({"max_drivers": 2}, {"capabilities": ["xl"]}, {"min_rating_milli": 4_800}, {"excluded_driver_ids": ["d1"]}):
        reply = await world.stub.FindNearbyDriversBatch(request_of(*places, **rest), metadata=world.as_service)
        names, start = list(reply.drivers.driver_id), list(reply.candidate_start)
        for row, place in enumerate(places):
            alone = await world.nearby(place, **rest)
            mine = range(start[row], start[row + 1])
            assert [names[reply.candidate_driver_index[each]] for each in mine] == [d.position.driver_id for d in alone.drivers]
            assert [reply.candidate_distance_mm[each] / 1000 for each in mine] == [d.distance_m for d in alone.drivers]
            assert reply.searched_radius_m[row] == alone.searched_radius_m
        assert (reply.complete, reply.as_of_ms) == (True, world.clock.now_ms())
        assert set(reply.drivers.heading_cdeg) == {9_000}
        assert len(reply.drivers.distance_mm) == 0
    await world.valkey.flushall()
    lost = await world.stub.FindNearbyDriversBatch(request_of(CENTRE), metadata=world.as_service)
    assert (list(lost.drivers.driver_id), lost.complete) == ([], False)


MANY = [CENTRE] * 5_001
WRONG: list[tuple[Any, Reason, str]] = [
    (request_of(CENTRE, city_id="atlantis"), Reason.UNKNOWN_CITY, "city_id"),
    (request_of(*MANY), Reason.INVALID_FIELD, "positions"),
    (request_of(CENTRE, (90.1, 0.0)), Reason.INVALID_FIELD, "positions[1].lat"),
    (request_of(CENTRE, CENTRE, (0.0, math.nan)), Reason.INVALID_FIELD, "positions[2].lng"),
    (request_of(CENTRE, max_drivers=1_001), Reason.INVALID_FIELD, "max_drivers"),
    (request_of(*MANY[:-1], max_drivers=51), Reason.INVALID_FIELD, "max_drivers"),
    (request_of(CENTRE, radius_m=50_001), Reason.INVALID_FIELD, "radius_m"),
    (request_of(CENTRE, radius_m=math.nan), Reason.INVALID_FIELD, "radius_m"),
    (request_of(CENTRE, capabilities=["submarine"]), Reason.INVALID_FIELD, "capabilities"),
    (request_of(CENTRE, min_rating_milli=5_001), Reason.INVALID_FIELD, "min_rating_milli"),
    (request_of(CENTRE, excluded_driver_ids=["ok", "no good"]), Reason.INVALID_FIELD, "excluded_driver_ids[1]"),
]


@pytest.mark.parametrize(("request_", "reason", "field"), WRONG)
async def test_a_bad_batch_gets_its_reason_and_field(single_world: World, request_: Any, reason: Reason, field: str) -> None:
    error = await refusal(single_world.stub.FindNearbyDriversBatch(request_, metadata=single_world.as_service))
    assert (error.reason, [violation.field for violation in error.violations]) == (reason, [field])


async def test_the_largest_batch_is_answered(single_world: World) -> None:
    await single_world.tell(state("d1"))
    await single_world.report("d1", fix_message(1, *CENTRE))
    reply = await single_world.stub.FindNearbyDriversBatch(
        request_of(*MANY[:-1], max_drivers=50), metadata=single_world.as_service
    )
    assert (len(reply.candidate_start), list(reply.drivers.driver_id)) == (5_001, ["d1"])
    assert set(reply.candidate_distance_mm) == {0}


async def test_batches_are_for_services_and_operators(single_world: World) -> None:
    for role in (Role.DRIVER, Role.RIDER, Role.FLEET):
        call = single_world.stub.FindNearbyDriversBatch(request_of(CENTRE), metadata=single_world.auth(role, "somebody"))
        assert (await refusal(call)).reason is Reason.ROLE_NOT_ALLOWED
