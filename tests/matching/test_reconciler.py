"""What a crash left is repaired: every rule with the fault put in by hand, on real stores; and what is well is left alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexhail.cities import Cities, load_city
from hexhail.kernel.clock import ManualClock
from hexhail.kernel.ids import DriverId, OfferId
from hexhail.kernel.settings import Settings
from hexhail.stores.valkey import connect, open_valkey
from matching import keys
from matching.changer import Changer
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.metrics import MatchingMetrics
from matching.model import (
    ASSIGNED,
    FINAL,
    Assignment,
    DriverArrived,
    OfferAccepted,
    OfferState,
    RideCompleted,
    RiderCancelled,
    RideStarted,
    RideState,
)
from matching.notices import Notices
from matching.offers import OfferParams
from matching.postgres_leases import PostgresLeases
from matching.postgres_store import PostgresStore
from matching.reconciler import Reconciler
from matching.reconciling import HeldClaim, Repair, left_behind, mended, taken_back
from matching.redis_claims import RedisClaims
from matching.redis_sessions import SESSION_TTL_MS, RedisSessions
from matching.teller import Teller
from tests.e2e.people import until
from tests.matching.rides import NOW_MS, offered, searching
from tests.matching.test_store import CITY, PARAMS, Bench
from tests.matching.test_teller import FakeLocation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg
    from redis.asyncio import Redis

    from hexhail.stores.valkey import Valkey
    from matching.model import Ride

LEASE_MS, GRACE_MS = 12_000, 3_000
S = RideState


@dataclass
class Ward:
    """Stores with something broken in them, and who repairs it."""

    bench: Bench
    redis: Redis
    clock: ManualClock
    location: FakeLocation
    claims: RedisClaims
    sessions: RedisSessions
    teller: Teller
    changer: Changer
    metrics: MatchingMetrics = field(default_factory=MatchingMetrics)

    def reconciler(self, owner: str = "w1", broken: Any = None, claims: Any = None) -> Reconciler:
        store = self.bench.store
        return Reconciler(
            PostgresLeases(self.bench.pool, owner), broken or store, store, claims or self.claims, self.sessions, self.changer,
            self.teller, self.clock, {CITY: PARAMS}, {CITY: self.metrics},
        )  # fmt: skip

    async def look(self) -> dict[Repair, int]:
        """What one look repairs."""
        before = self.metrics.repairs.copy()
        await self.reconciler().look()
        await self.changer.close()
        return dict(self.metrics.repairs - before)

    async def accepted(self, number: int = 1, driver_id: str = "d1") -> Ride:
        ride = await self.bench.offer(await self.bench.request(number), driver_id)
        return await self.bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))

    async def ride(self, ride: Ride) -> Ride:
        return await self.bench.store.ride(ride.ride_id)

    async def break_ride(self, ride: Ride, fault: str) -> None:
        await self.bench.pool.execute(f"UPDATE matching.rides SET {fault} WHERE ride_id = $1", ride.ride_id)  # noqa: S608

    async def unbind(self, ride: Ride) -> None:
        await self.bench.pool.execute("DELETE FROM matching.assignments WHERE ride_id = $1", ride.ride_id)


@pytest.fixture
async def ward(empty_pool: asyncpg.Pool[asyncpg.Record], asked: Valkey, valkey_url: str) -> AsyncIterator[Ward]:
    cities, clock, redis = Cities([load_city("gridport", Settings())]), ManualClock(NOW_MS), connect(valkey_url)
    store = PostgresStore(empty_pool, cities, encode_ride_events, encode_driver_event)
    metrics, location, claims = MatchingMetrics(), FakeLocation(), RedisClaims(asked, cities, clock)

    def repaired(_city_id: str, count: int) -> None:
        metrics.repairs[Repair.STATE_TOLD] += count

    teller = Teller(location, store, cities, clock, repaired=repaired)
    changer = Changer(store, claims, Notices(redis, asked, cities, clock, "w1"), teller, clock, {CITY: PARAMS})
    sessions = RedisSessions(asked, cities, clock, "w1")
    try:
        yield Ward(Bench(empty_pool, store), redis, clock, location, claims, sessions, teller, changer, metrics)
    finally:
        await changer.close()
        await redis.aclose()


async def test_what_is_well_is_left_alone(ward: Ward) -> None:
    """Rides in every state that a course of events leads to."""
    bench = ward.bench
    for number in range(1, 7):
        await bench.driver(f"d{number}")
    rides = [await bench.request(9), await bench.offer(await bench.request(8), "d6")]
    courses: list[list[Any]] = [
        [],
        [DriverArrived],
        [DriverArrived, RideStarted],
        [DriverArrived, RideStarted, RideCompleted],
    ]
    for number, steps in enumerate(courses):
        ride = await ward.accepted(number + 1, f"d{number + 1}")
        for step in steps:
            ride = await bench.happen(ride, step(f"d{number + 1}"))
        rides.append(ride)
    rides.append(await bench.happen(await ward.accepted(7, "d5"), RiderCancelled()))
    await ward.claims.claim_drivers(CITY, ["d6"], rides[1].ride_id, 60_000)
    await ward.teller.check_epochs()
    ward.clock.advance(GRACE_MS + 1)
    assert await ward.look() == {}
    assert [await ward.ride(ride) for ride in rides] == rides
    assert {ride.state for ride in rides} >= {S.SEARCHING, S.OFFERED, *ASSIGNED, S.COMPLETED, S.CANCELLED_BY_RIDER}


async def test_a_live_offer_of_a_ride_that_is_over_is_closed(ward: Ward) -> None:
    await ward.bench.driver("d1")
    ride = await ward.bench.offer(await ward.bench.request(), "d1")
    await ward.break_ride(ride, "state = 'EXPIRED', next_deadline_ms = NULL")
    assert await ward.look() == {Repair.OFFERS_CLOSED: 1}
    after = await ward.ride(ride)
    assert (after.state, after.version, after.offers[0].state) == (S.EXPIRED, ride.version + 1, OfferState.WITHDRAWN)
    kinds = await ward.bench.pool.fetch(
        "SELECT kind FROM matching.outbox WHERE aggregate_id = $1 ORDER BY position", ride.ride_id
    )
    assert kinds[-1]["kind"] == "RIDE_CHANGED", "each version is in the log"
    await ward.bench.offer(await ward.bench.request(2), "d1")
    assert await ward.look() == {}


async def test_a_driver_bound_to_a_ride_that_is_over_is_freed(ward: Ward) -> None:
    await ward.bench.driver("d1")
    ride = await ward.accepted()
    await ward.break_ride(ride, "state = 'COMPLETED', next_deadline_ms = NULL")
    assert await ward.look() == {Repair.ASSIGNMENT_RELEASED: 1}
    assert (await ward.bench.store.driver(CITY, "d1")).free
    assert await ward.bench.pool.fetchval("SELECT release_reason FROM matching.assignments") == "COMPLETED"
    assert ward.location.told["d1"] == (await ward.bench.store.driver(CITY, "d1")).version
    await ward.accepted(2)


async def test_a_ride_that_is_bound_to_another_driver_than_it_says_gets_its_own_back(ward: Ward) -> None:
    for driver_id in ("d1", "d2"):
        await ward.bench.driver(driver_id)
    ride = await ward.accepted()
    await ward.bench.pool.execute("UPDATE matching.assignments SET driver_id = 'd2' WHERE ride_id = $1", ride.ride_id)
    assert await ward.look() == {Repair.ASSIGNMENT_RELEASED: 1, Repair.ASSIGNMENT_RESTORED: 1}
    own, other = [await ward.bench.store.driver(CITY, driver_id) for driver_id in ("d1", "d2")]
    assert (own.ride_id, other.ride_id) == (ride.ride_id, "")
    assert {driver.driver_id: ward.location.told[driver.driver_id] for driver in (own, other)} == {
        "d1": own.version,
        "d2": other.version,
    }


async def test_a_ride_whose_driver_nothing_binds_is_bound_again(ward: Ward) -> None:
    """Given that the driver has gone offline since, as drivers may while on a ride."""
    await ward.bench.driver("d1")
    ride = await ward.accepted()
    await ward.bench.online("d1", False)
    await ward.unbind(ride)
    assert await ward.look() == {Repair.ASSIGNMENT_RESTORED: 1}
    assert (await ward.bench.store.driver(CITY, "d1")).ride_id == ride.ride_id
    after = await ward.ride(ride)
    assert (after.state, after.assignment, after.version) == (S.ACCEPTED, ride.assignment, ride.version + 1)
    assert await ward.look() == {}


@pytest.mark.parametrize(("under_way", "state"), [(False, S.SEARCHING), (True, S.ENDED_BY_OPERATOR)])
async def test_one_whose_driver_is_bound_to_another_ride_is_taken_back(ward: Ward, under_way: bool, state: RideState) -> None:
    await ward.bench.driver("d1")
    ride = await ward.accepted()
    if under_way:
        ride = await ward.bench.happen(await ward.bench.happen(ride, DriverArrived("d1")), RideStarted("d1"))
    await ward.unbind(ride)
    other = await ward.accepted(2)
    assert await ward.look() == {Repair.RIDE_TAKEN_BACK: 1}
    assert (await ward.ride(ride)).state is state
    assert (await ward.bench.store.driver(CITY, "d1")).ride_id == other.ride_id
    assert await ward.look() == {}


async def test_a_ride_that_has_forgotten_its_driver_frees_it_and_is_searched(ward: Ward) -> None:
    await ward.bench.driver("d1")
    ride = await ward.accepted()
    await ward.break_ride(ride, "body = jsonb_set(body, '{assignment}', 'null')")
    assert await ward.look() == {Repair.RIDE_TAKEN_BACK: 1, Repair.ASSIGNMENT_RELEASED: 1}
    after = await ward.ride(ride)
    assert (after.state, after.assignment, after.next_deadline_ms) == (S.SEARCHING, None, NOW_MS)
    assert (await ward.bench.store.driver(CITY, "d1")).free


async def test_a_ride_without_a_deadline_gets_one(ward: Ward) -> None:
    await ward.bench.driver("d1")
    rides = [await ward.bench.request(2), await ward.accepted()]
    for ride in rides:
        await ward.break_ride(ride, "next_deadline_ms = NULL")
    assert await ward.look() == {Repair.DEADLINE_GIVEN: 2}
    searching_again, on_its_way = [await ward.ride(ride) for ride in rides]
    assert searching_again.next_deadline_ms == NOW_MS
    assert on_its_way.next_deadline_ms == NOW_MS + round(PARAMS.pickup_limit_s * 1000), "no driver loses a ride by it"
    assert [ride.ride_id for ride in await ward.bench.store.lease_due(NOW_MS, 1_000, 10)] == [searching_again.ride_id]


async def test_a_ride_that_is_over_has_no_deadline(ward: Ward) -> None:
    ride = await ward.bench.happen(await ward.bench.request(), RiderCancelled())
    await ward.break_ride(ride, f"next_deadline_ms = {NOW_MS}")
    assert await ward.look() == {Repair.DEADLINE_DROPPED: 1}
    assert (await ward.ride(ride)).next_deadline_ms is None


async def test_a_lease_of_a_worker_whose_clock_was_wrong_is_cut(ward: Ward) -> None:
    """One day ahead, say. A lease as long as workers lease is let be."""
    first, second = await ward.bench.request(1), await ward.bench.request(2)
    await ward.break_ride(first, f"leased_until_ms = {NOW_MS + 86_400_000}")
    await ward.break_ride(second, f"leased_until_ms = {NOW_MS + 2_000}")
    assert await ward.look() == {Repair.LEASE_CUT: 1}
    assert [ride.ride_id for ride in await ward.bench.store.lease_due(NOW_MS, 1_000, 10)] == [first.ride_id]


async def test_offers_to_a_driver_whose_going_offline_was_not_finished_are_withdrawn(ward: Ward) -> None:
    await ward.bench.driver("d1")
    ride = await ward.bench.offer(await ward.bench.request(), "d1")
    await ward.bench.online("d1", False)
    assert await ward.look() == {}, "whoever took it offline is given time"
    ward.clock.advance(GRACE_MS)
    assert await ward.look() == {Repair.OFFER_WITHDRAWN: 1}
    after = await ward.ride(ride)
    assert (after.state, after.offers[0].state) == (S.SEARCHING, OfferState.WITHDRAWN)


async def test_claims_that_serve_no_offer_are_released_early(ward: Ward) -> None:
    """Given a search that died after claiming; a claim whose offer is live stays, and so does one that is young."""
    await ward.bench.driver("d1")
    ride = await ward.bench.offer(await ward.bench.request(), "d1")
    await ward.claims.claim_drivers(CITY, ["d1", "d2"], ride.ride_id, 60_000)
    ward.clock.advance(GRACE_MS + 1)
    await ward.claims.claim_drivers(CITY, ["d3"], ride.ride_id, 60_000)
    assert await ward.look() == {Repair.CLAIM_RELEASED: 1}
    assert await ward.claims.claim_drivers(CITY, ["d1", "d2", "d3"], "other", 60_000) == [False, True, False]


async def test_a_claim_that_is_another_by_now_is_not_dropped(ward: Ward) -> None:
    await ward.claims.claim_drivers(CITY, ["d1"], "r1", 1_000)
    (claim,) = [claim async for page in ward.claims.held(CITY) for claim in page]
    assert (claim.driver_id, claim.owner, claim.made_at_ms) == ("d1", "r1", NOW_MS)
    ward.clock.advance(1_000)
    await ward.claims.claim_drivers(CITY, ["d1"], "r1", 60_000)
    assert await ward.claims.drop(CITY, [claim]) == 0
    assert await ward.claims.claim_drivers(CITY, ["d1"], "r2", 1_000) == [False]


async def test_sessions_that_are_over_by_the_clock_are_dropped(ward: Ward) -> None:
    await ward.sessions.open(CITY, "d1", "s1")
    ward.clock.advance(SESSION_TTL_MS)
    await ward.sessions.open(CITY, "d2", "s2")
    assert await ward.look() == {Repair.SESSION_DROPPED: 1}
    left = [name.decode() async for name in ward.redis.scan_iter(match=keys.sessions(CITY))]
    assert [name.rpartition(":")[2] for name in left] == ["d2"]


async def test_a_state_that_died_with_its_worker_is_told(ward: Ward) -> None:
    """Given a worker that is killed between committing that a driver is free again and telling location so."""
    await ward.bench.driver("d1")
    await ward.teller.check_epochs()
    known = ward.location.told["d1"]
    ward.bench.now_ms += 10
    await ward.accepted()
    ward.clock.advance(1_011)
    assert await ward.look() == {Repair.STATE_TOLD: 1}
    assert ward.location.told["d1"] > known
    ward.clock.advance(5_000)
    assert await ward.look() == {}


async def test_what_was_told_in_the_epoch_and_lost_without_a_trace_is_told_again_within_a_minute(ward: Ward) -> None:
    """Given location's store after a failover with a lost tail: its epoch is the old one, a state is older than what was told."""
    await ward.bench.driver("d1")
    await ward.teller.check_epochs()
    ward.location.told["d1"] -= 1
    ward.clock.advance(60_000)
    await ward.teller.check_epochs()
    assert ward.metrics.repairs == {Repair.STATE_TOLD: 1}
    assert ward.location.told["d1"] == (await ward.bench.store.driver(CITY, "d1")).version


async def test_a_ride_that_changes_under_its_repair_is_looked_at_again(ward: Ward) -> None:
    await ward.bench.driver("d1")
    ride = await ward.accepted()
    await ward.unbind(ride)

    class Changing:
        def __getattr__(self, name: str) -> Any:
            return getattr(ward.bench.store, name)

        async def contradictory(self, city_id: Any, limit: int) -> Any:
            found = await ward.bench.store.contradictory(city_id, limit)
            await ward.bench.happen(ride, DriverArrived("d1"))
            return found

    await ward.reconciler(broken=Changing()).look()
    assert ward.metrics.repairs == {}
    assert (await ward.ride(ride)).state is S.ARRIVED
    assert await ward.look() == {Repair.ASSIGNMENT_RESTORED: 1}


async def test_while_valkey_is_silent_the_rest_is_repaired(ward: Ward) -> None:
    ride = await ward.bench.request()
    await ward.break_ride(ride, "next_deadline_ms = NULL")
    async with aclosing(open_valkey("unix:///nonexistent/valkey.sock")) as nowhere:
        deaf = RedisClaims(nowhere, Cities([load_city("gridport", Settings())]), ward.clock)
        await ward.reconciler(claims=deaf).look()
    assert ward.metrics.repairs == {Repair.DEADLINE_GIVEN: 1}


async def test_one_worker_at_a_time_looks_and_another_goes_on_when_it_is_gone(ward: Ward) -> None:
    one, two = ward.reconciler("w1"), ward.reconciler("w2")
    await one.look()
    ride = await ward.bench.request()
    await ward.break_ride(ride, "next_deadline_ms = NULL")
    await two.look()
    assert ward.metrics.repairs == {}
    ward.clock.advance(LEASE_MS)
    await two.look()
    assert ward.metrics.repairs == {Repair.DEADLINE_GIVEN: 1}


async def test_the_loop_looks_at_the_start_and_again_and_again(ward: Ward) -> None:
    first, second = await ward.bench.request(1), await ward.bench.request(2)
    await ward.break_ride(first, "next_deadline_ms = NULL")
    running = asyncio.create_task(ward.reconciler().run())
    try:
        await until(lambda: ward.metrics.repairs[Repair.DEADLINE_GIVEN] == 1, "not at the start")
        await ward.break_ride(second, "next_deadline_ms = NULL")

        def repaired() -> bool:
            ward.clock.advance(1_000)
            return ward.metrics.repairs[Repair.DEADLINE_GIVEN] == 2

        await until(repaired, "not later")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


BINDING = Assignment(DriverId("d1"), OfferId("o-d1"), NOW_MS, 60)


@settings(max_examples=60)
@given(
    state=st.sampled_from(list(RideState)),
    offer_states=st.lists(st.sampled_from(list(OfferState)), min_size=3, max_size=3),
    has_assignment=st.booleans(),
    bound=st.sampled_from([None, "d1", "d2"]),
    deadline_ms=st.sampled_from([None, NOW_MS - 1, NOW_MS + 60_000]),
)
def test_whatever_is_wrong_with_a_ride_one_repair_puts_right(
    state: RideState, offer_states: list[OfferState], has_assignment: bool, bound: str | None, deadline_ms: int | None
) -> None:
    whole = offered("d1", "d2", "d3")
    offers = tuple(replace(offer, state=is_) for offer, is_ in zip(whole.offers, offer_states, strict=True))
    ride = replace(
        whole, state=state, offers=offers, assignment=BINDING if has_assignment else None, next_deadline_ms=deadline_ms
    )
    mending = mended(ride, DriverId(bound) if bound else None, NOW_MS, PARAMS)
    after = mending.decision.ride if mending else ride
    still_bound = None if mending and Repair.ASSIGNMENT_RELEASED in mending.repairs else bound
    if mending and mending.restores:
        assert after.assignment is not None
        still_bound = after.assignment.driver_id
    assert (after.version, after.ride_id) == (ride.version + (mending is not None), ride.ride_id)
    assert not after.live_offers() or after.state is S.OFFERED
    assert (after.next_deadline_ms is None) == (after.state in FINAL)
    expected = after.assignment.driver_id if after.assignment and after.state in ASSIGNED else None
    assert still_bound == expected
    assert mended(after, DriverId(still_bound) if still_bound else None, NOW_MS, PARAMS) is None
    if after.state not in {ride.state, S.SEARCHING, S.ENDED_BY_OPERATOR}:
        pytest.fail(f"a repair makes {ride.state} {after.state}")


@given(state=st.sampled_from(sorted(ASSIGNED)))
def test_a_ride_that_is_taken_back_is_nobodys(state: RideState) -> None:
    ride = replace(offered("d1"), state=state, assignment=BINDING)
    after = taken_back(ride, NOW_MS).decision.ride
    assert after.state in {S.SEARCHING, S.ENDED_BY_OPERATOR}
    assert mended(after, None, NOW_MS, OfferParams()) is None


def test_young_claims_and_those_of_live_offers_are_not_left_behind() -> None:
    young = HeldClaim("d1", "r1", NOW_MS - GRACE_MS, b"")
    live = HeldClaim("d2", "r1", NOW_MS - 60_000, b"")
    anothers = HeldClaim("d2", "r2", NOW_MS - 60_000, b"")
    assert left_behind([young, live, anothers], {("d2", "r1")}, NOW_MS, GRACE_MS) == [anothers]


def test_a_ride_that_is_well_is_not_mended() -> None:
    assert mended(searching(), None, NOW_MS, PARAMS) is None
    assert mended(offered("d1"), None, NOW_MS, PARAMS) is None
