"""Who is there soonest: against brute force on random fleets, and what an answer says that could not look at everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.api.location.v1 import location_service_pb2 as pb
from hexhail.kernel import geo
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.errors import Reason
from hexhail.kernel.geo import Place
from location.metrics import LocationMetrics
from location.model import RECORD, IndexedDrivers, NearbyAnswer, NearbyQuestion
from location.nearby import NearbyParams, cursor_behind, select
from location.records import pack_states
from location.road_finder import RoadFinder
from location.road_time import NEVER_MS
from routing.grid import GridParams, grid_graph
from routing.road import RoadParams, RoadRouter
from routing.sources import Answered, FixedSource, RouterSource
from routing.tables import build_tables
from tests.location.fleets import positions_at, put
from tests.location.world import CENTRE, LIMIT_MS, NOON_MS, refusal, state, world_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from redis.asyncio import Redis

    from location.road_time import TimedAnswer
    from routing.model import Router
    from tests.location.fleets import Spot
    from tests.location.world import World

T = TypeVar("T")

GRAPH = grid_graph(GridParams(40.494, -74.008, rows=13, columns=17, jitter=0.3, seed=4))
SLOWNESS = np.random.default_rng(2).uniform(0.7, 6.0, GRAPH.n_edges)
"""Traffic so uneven that the nearest is seldom the soonest."""


def on_roads(slowness: np.ndarray) -> RoadRouter:
    graph = GRAPH.slowed(slowness)
    return RoadRouter(graph, build_tables(graph), RoadParams(snap_limit_m=300.0, approach_speed_mps=3.0))


ROUTER, OTHER = on_roads(SLOWNESS), on_roads(SLOWNESS[::-1].copy())
EVERYWHERE = st.tuples(st.floats(40.485, 40.515), st.floats(-74.02, -73.985))
"""In the streets, and up to a kilometre off them."""


class Standing:
    """A store of drivers that stand still, found by distance by looking at all of them."""

    def __init__(self, spots: Sequence[Spot]) -> None:
        records = np.zeros(len(spots), dtype=RECORD)
        ids = [f"d{row:03d}" for row in range(len(spots))]
        if spots:
            records["position"] = positions_at(spots)
            records["state"] = pack_states([state(driver_id) for driver_id in ids])
        self.drivers = IndexedDrivers([driver_id.encode() for driver_id in ids], records)
        self.looks: list[NearbyQuestion] = []

    async def find(self, question: NearbyQuestion) -> NearbyAnswer:
        self.looks.append(question)
        found, mm = select(self.drivers, question, NOON_MS)
        if len(mm) <= question.max_drivers:
            return NearbyAnswer(found, mm, True, question.radius_m, None, NOON_MS)
        found, mm = found.first(question.max_drivers), mm[: question.max_drivers]
        behind = cursor_behind(found, mm)
        return NearbyAnswer(found, mm, True, behind.distance_mm / 1000, behind, NOON_MS)


class Alternating(RouterSource):
    """Another router each time."""

    def __init__(self) -> None:
        self._next = [ROUTER, OTHER]

    async def ask(self, question: Callable[[Router], T]) -> Answered[T]:
        router = self._next[0]
        self._next.reverse()
        return Answered(question(router), router.version, fell_back=router is OTHER)


def question_at(place: Spot, max_drivers: int, radius_m: float = 5_000.0) -> NearbyQuestion:
    return NearbyQuestion(Place(*place), max_drivers, radius_m, 0, 0, frozenset(), LIMIT_MS)


def finder_of(standing: Standing, source: RouterSource, most: int = 1_000) -> RoadFinder:
    params = NearbyParams(road_time_candidates=most)
    return RoadFinder(standing, source, params, ManualClock(NOON_MS), LocationMetrics())  # type: ignore[arg-type]


def brute(spots: Sequence[Spot], place: Spot, radius_m: float, router: RoadRouter) -> list[tuple[int, int, str]]:
    """Everybody within the radius: (time in ms, distance in mm, id), soonest first."""
    rows = []
    for row, (lat, lng) in enumerate(spots):
        there = (round(lat * 1e7) / 1e7, round(lng * 1e7) / 1e7)
        mm = round(geo.distance_m(Place(*place), Place(*there)) * 1000)
        time_s = float(router.times_s(np.array([there]), np.array([place]), NOON_MS)[0, 0])
        if mm <= round(radius_m * 1000):
            rows.append((round(time_s * 1000) if np.isfinite(time_s) else NEVER_MS, mm, f"d{row:03d}"))
    return sorted(rows)


def rows_of(answer: TimedAnswer) -> list[tuple[int, int, str]]:
    names = [name.decode() for name in answer.nearby.drivers.driver_ids]
    return list(zip(answer.time_ms.tolist(), answer.nearby.distance_mm.tolist(), names, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    spots=st.lists(EVERYWHERE, max_size=60),
    place=EVERYWHERE,
    wanted=st.integers(1, 12),
    radius_m=st.floats(50, 3_000),
    most=st.one_of(st.just(1_000), st.integers(1, 40)),
)
async def test_the_soonest_are_those_of_brute_force_unless_the_answer_says_that_it_is_cut_short(
    spots: list[Spot], place: Spot, wanted: int, radius_m: float, most: int
) -> None:
    answer = await finder_of(Standing(spots), FixedSource(ROUTER), most).find(question_at(place, wanted, radius_m))
    everybody = brute(spots, place, radius_m, ROUTER)
    considered = everybody
    if answer.cut_short:
        assert len(everybody) > max(most, wanted)
        considered = sorted(sorted(everybody, key=lambda row: row[1:])[: max(most, wanted)])
    assert rows_of(answer) == considered[:wanted]
    assert answer.nearby.complete != answer.cut_short
    assert answer.travel_times_version == ROUTER.version


async def test_two_looks_settle_it_and_few_are_timed() -> None:
    rng = np.random.default_rng(3)
    spots = [(float(lat), float(lng)) for lat, lng in np.array(CENTRE) + rng.uniform(-0.006, 0.006, (2_000, 2))]
    standing = Standing(spots)
    answer = await finder_of(standing, FixedSource(ROUTER)).find(question_at(CENTRE, 10))
    assert rows_of(answer) == brute(spots, CENTRE, 5_000.0, ROUTER)[:10]
    assert len(standing.looks) == 2
    assert standing.looks[1].radius_m < 1_000


async def test_all_times_of_an_answer_are_of_the_version_that_it_names() -> None:
    rng = np.random.default_rng(8)
    spots = [(float(lat), float(lng)) for lat, lng in np.array(CENTRE) + rng.uniform(-0.006, 0.006, (300, 2))]
    answer = await finder_of(Standing(spots), Alternating()).find(question_at(CENTRE, 10))
    router = {each.version: each for each in (ROUTER, OTHER)}[answer.travel_times_version]
    assert answer.fell_back == (router is OTHER)
    times = {name: time_ms for time_ms, _, name in brute(spots, CENTRE, 5_000.0, router)}
    assert [times[name] for _, _, name in rows_of(answer)] == answer.time_ms.tolist()


async def test_from_a_place_off_the_network_nobody_has_a_time_and_the_nearest_come_first() -> None:
    sea = (40.46, -74.0)
    spots = [(40.462, -74.0), (40.461, -74.0), (40.50, -74.0)]
    standing = Standing(spots)
    answer = await finder_of(standing, FixedSource(ROUTER)).find(question_at(sea, 2))
    assert rows_of(answer) == [(NEVER_MS, mm, name) for _, mm, name in brute(spots, sea, 5_000.0, ROUTER)[:2]]
    assert (answer.cut_short, len(standing.looks)) == (False, 1)


@pytest.fixture
async def timed(valkey: Redis, valkey_url: str) -> AsyncIterator[World]:
    """A world whose location knows travel times."""
    async with world_on(valkey_url, valkey, 2, travel_times=FixedSource(ROUTER)) as made:
        yield made


async def test_through_grpc_the_soonest_come_with_their_times_and_whose_they_are(timed: World) -> None:
    rng = np.random.default_rng(6)
    spots = [(float(lat), float(lng)) for lat, lng in np.array(CENTRE) + rng.uniform(-0.008, 0.008, (200, 2))]
    spots.append((40.485, -74.0))  # off the network
    await timed.tell(*(state(f"d{row:03d}") for row in range(len(spots))))
    await put(timed.location.store, {f"d{row:03d}": spot for row, spot in enumerate(spots)})
    expected = brute(spots, CENTRE, 5_000.0, ROUTER)
    reply = await timed.nearby(max_drivers=201, order_by=pb.NEARBY_ORDER_ROAD_TIME)
    assert [found.position.driver_id for found in reply.drivers] == [name for _, _, name in expected]
    times_s = [found.road_time_s if found.HasField("road_time_s") else None for found in reply.drivers]
    assert times_s == [time_ms / 1000 if time_ms != NEVER_MS else None for time_ms, _, _ in expected]
    assert times_s[-1] is None
    assert (reply.travel_times_version, reply.travel_times_fell_back) == (ROUTER.version, False)
    assert (reply.complete, reply.order_cut_short, reply.next_page_token) == (True, False, "")
    ten = await timed.nearby(order_by=pb.NEARBY_ORDER_ROAD_TIME)
    assert [found.position.driver_id for found in ten.drivers] == [name for _, _, name in expected[:10]]


async def test_by_distance_nothing_is_timed(timed: World) -> None:
    await timed.tell(state("d000"))
    await put(timed.location.store, {"d000": CENTRE})
    reply = await timed.nearby(order_by=pb.NEARBY_ORDER_DISTANCE)
    assert (len(reply.drivers), reply.drivers[0].HasField("road_time_s"), reply.travel_times_version) == (1, False, "")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"order_by": 7}, "order_by"),
        ({"max_left_out": 101}, "max_left_out"),
        ({"order_by": pb.NEARBY_ORDER_ROAD_TIME, "page_token": "MTAvZDE="}, "page_token"),
    ],
)
async def test_what_goes_with_no_order_is_refused(timed: World, asked: dict[str, Any], field: str) -> None:
    error = await refusal(timed.nearby(**asked))
    assert (error.reason, error.violations[0].field) == (Reason.INVALID_FIELD, field)


async def test_a_city_without_travel_times_orders_by_distance_only(world: World) -> None:
    error = await refusal(world.nearby(order_by=pb.NEARBY_ORDER_ROAD_TIME))
    assert (error.reason, error.violations[0].field) == (Reason.INVALID_FIELD, "order_by")
