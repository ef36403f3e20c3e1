"""The truth about rides, on a real PostgreSQL: what is committed whole, what is refused, and who may act on what is due."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from hexhail.api.events.v1 import event_pb2
from hexhail.cities import Cities, load_city
from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.ids import CityId, DriverId, OfferId, QuoteId, RideId, RiderId
from hexhail.kernel.settings import Settings
from matching import postgres_change
from matching.events_wire import encode_driver_event, encode_ride_events
from matching.model import (
    DeadlinePassed,
    DriverCancelled,
    OfferAccepted,
    OfferShown,
    OffersPlanned,
    OfferState,
    PlannedOffer,
    RiderCancelled,
    RideState,
)
from matching.offers import OfferParams, begin, decide, schedule
from matching.postgres_change import Refusal, refusal_of
from matching.postgres_store import PostgresStore, postgres_errors
from matching.progress import Check, Watch
from matching.records import Answer, Record, RecordParams, after
from matching.schema import ensure_outbox_days, migrate
from matching.store import Change, Conflict, RequestKey, RequestRepeated
from tests.matching.rides import NOW_MS, searching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from matching.model import Event, Ride
    from matching.store import Driver

CITY = CityId("gridport")
PARAMS = OfferParams()
DAY_MS = 24 * 3600 * 1000
LEASE_MS = 2_000
PERIOD_MS = 20_000
PATIENCE_S = 10.0
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Bench:
    """The store, and how the tests change what it holds."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], store: PostgresStore) -> None:
        self.pool = pool
        self.store = store
        self.now_ms = NOW_MS

    async def driver(self, driver_id: str, *, online: bool = True) -> Driver:
        """A driver made known."""
        driver = await self.store.upsert_driver(
            CITY, driver_id, ["economy"], 4_500, "operator/o1", key(f"up-{driver_id}"), lambda _: b"", self.now_ms
        )
        return await self.online(driver_id, True) if online else driver

    async def online(self, driver_id: str, online: bool) -> Driver:
        name = key(f"{driver_id}-{online}-{self.now_ms}")
        return await self.store.set_online(CITY, driver_id, online, f"driver/{driver_id}", name, lambda _: b"", self.now_ms)

    async def suspended(self, driver_id: str, suspended: bool) -> Driver:
        name = key(f"{driver_id}-s{suspended}-{self.now_ms}")
        return await self.store.set_suspended(CITY, driver_id, suspended, "", "operator/o1", name, lambda _: b"", self.now_ms)

    async def request(self, number: int = 1, rider_id: str = "", quote_id: str = "", request: RequestKey | None = None) -> Ride:
        """A ride requested and committed."""
        decision = begin(wanted(number, rider_id, quote_id), self.now_ms)
        await self.store.commit(Change(None, decision, "rider/r", request, b"first"))
        return decision.ride

    async def happen(self, ride: Ride, event: Event, request: RequestKey | None = None) -> Ride:
        """What the event makes of the ride, committed."""
        decision = decide(ride, event, self.now_ms, PARAMS)
        await self.store.commit(Change(ride, decision, "somebody", request, b"answer"))
        return decision.ride

    async def offer(self, ride: Ride, *driver_ids: str) -> Ride:
        return await self.happen(ride, asking(ride, *driver_ids))

    async def somebody_waits(self) -> None:
        """Returns once a statement waits for a row."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self.pool.fetchval(WAITING):  # noqa: ASYNC110 - no event tells who waits in PostgreSQL
                await asyncio.sleep(0.005)

    async def count(self, table: str) -> int:
        number: int = await self.pool.fetchval(f"SELECT count(*) FROM matching.{table}")  # noqa: S608
        return number

    async def counts(self) -> dict[str, int]:
        tables = ("rides", "offers", "assignments", "requests", "outbox")
        return {table: await self.count(table) for table in tables}


@pytest.fixture
async def bench(postgres_dsn: str) -> AsyncIterator[Bench]:
    await migrate(postgres_dsn)
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=8) as pool:
        await ensure_outbox_days(pool, NOW_MS)
        cities = Cities([load_city("gridport", Settings())])
        yield Bench(pool, PostgresStore(pool, cities, encode_ride_events, encode_driver_event))


def key(request_id: str, body: bytes = b"body") -> RequestKey:
    return RequestKey(CITY, "rider/r1", request_id, body)


def wanted(number: int, rider_id: str = "", quote_id: str = "") -> Ride:
    """The ride of this number, of a rider and a quote of its own if none is named."""
    ride = searching()
    quote = replace(ride.quote, quote_id=QuoteId(quote_id or f"gridport-q{number}"))
    return replace(ride, ride_id=RideId(f"gridport-r{number}"), rider_id=RiderId(rider_id or f"r{number}"), quote=quote)


def asking(ride: Ride, *driver_ids: str) -> OffersPlanned:
    """Offers whose ids name ride, phase and driver."""
    phase = ride.phase + 1
    planned = tuple(PlannedOffer(OfferId(f"{ride.ride_id}-{phase}-{d}"), DriverId(d), 60, 500) for d in driver_ids)
    return OffersPlanned(phase, planned)


async def refused(what: Any) -> Reason:
    with pytest.raises(DomainError) as caught:
        await what
    return caught.value.reason


async def test_migrating_again_changes_nothing_and_many_may_ask_at_once(postgres_dsn: str) -> None:
    await asyncio.gather(*(migrate(postgres_dsn) for _ in range(4)))
    connection = await asyncpg.connect(postgres_dsn)
    try:
        await connection.execute(
            "INSERT INTO matching.drivers (city_id, driver_id, version, capabilities, rating_milli, updated_at_ms) "
            "VALUES ('gridport', 'd1', 1, '{}', 4500, 0)"
        )
        await migrate(postgres_dsn)
        assert await connection.fetchval("SELECT count(*) FROM matching.drivers") == 1
        assert await connection.fetchval("SELECT count(*) FROM matching.alembic_version") == 1
    finally:
        await connection.close()


async def test_what_is_committed_is_what_is_read(bench: Bench) -> None:
    await bench.driver("d1")
    ride = await bench.offer(await bench.request(), "d1")
    assert await bench.store.ride(ride.ride_id) == ride
    assert await bench.store.ride_of_offer(ride.offers[0].offer_id) == ride
    ride = await bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))
    assert await bench.store.ride(ride.ride_id) == ride
    assert (await bench.store.driver(CITY, "d1")).ride_id == ride.ride_id


async def test_what_is_not_there_is_named(bench: Bench) -> None:
    assert await refused(bench.store.ride("gridport-none")) is Reason.RIDE_NOT_FOUND
    assert await refused(bench.store.ride_of_offer("gridport-none")) is Reason.OFFER_NOT_FOUND
    assert await refused(bench.store.driver(CITY, "nobody")) is Reason.DRIVER_NOT_FOUND
    assert await refused(bench.online("nobody", True)) is Reason.DRIVER_NOT_FOUND


async def test_a_change_that_is_refused_at_its_end_leaves_nothing_behind(bench: Bench) -> None:
    """Given an offline driver who accepts: ride, offers and request have been written by the time it is found out."""
    await bench.driver("d1")
    ride = await bench.offer(await bench.request(), "d1")
    await bench.online("d1", False)
    before = await bench.counts()
    assert await refused(bench.happen(ride, OfferAccepted(ride.offers[0].offer_id), key("accept"))) is Reason.DRIVER_OFFLINE
    assert await bench.counts() == before
    assert await bench.store.ride(ride.ride_id) == ride


async def test_a_suspended_driver_cannot_accept_nor_go_online(bench: Bench) -> None:
    await bench.driver("d1")
    ride = await bench.offer(await bench.request(), "d1")
    await bench.pool.execute("UPDATE matching.drivers SET suspended = true")
    assert await refused(bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))) is Reason.DRIVER_SUSPENDED
    assert await refused(bench.online("d1", True)) is Reason.DRIVER_SUSPENDED
    assert not (await bench.online("d1", False)).online


async def test_of_two_changes_of_one_version_one_is_made(bench: Bench) -> None:
    for driver_id in ("d1", "d2"):
        await bench.driver(driver_id)
    ride = await bench.offer(await bench.request(), "d1", "d2")
    answers = await asyncio.gather(
        *(bench.happen(ride, OfferAccepted(offer.offer_id)) for offer in ride.offers), return_exceptions=True
    )
    assert [type(a) for a in answers].count(Conflict) == 1
    assert bench.store.counts.rejected_commits == 1
    assert (await bench.store.ride(ride.ride_id)).version == ride.version + 1
    assert await bench.count("assignments") == 1


async def test_a_driver_on_a_ride_is_not_asked(bench: Bench) -> None:
    """A search that has read its facts before the driver accepted another ride decides again."""
    await bench.driver("d1")
    first = await bench.offer(await bench.request(1), "d1")
    await bench.happen(first, OfferAccepted(first.offers[0].offer_id))
    with pytest.raises(Conflict):
        await bench.offer(await bench.request(2), "d1")


async def test_a_driver_who_has_gone_meanwhile_is_not_asked(bench: Bench) -> None:
    """Nor one who was suspended: a search that has read its facts before decides again."""
    for driver_id in ("here", "home", "barred"):
        await bench.driver(driver_id)
    ride = await bench.request()
    await bench.online("home", False)
    await bench.suspended("barred", True)
    for gone in ("home", "barred"):
        with pytest.raises(Conflict):
            await bench.offer(ride, "here", gone)
    assert [offer.driver_id for offer in (await bench.offer(ride, "here")).live_offers()] == ["here"]


BINDS = "INSERT INTO matching.assignments (city_id, driver_id, ride_id, accepted_at_ms) VALUES ('gridport', 'd1', $1, 0)"
LEAVES = "UPDATE matching.drivers SET online = false WHERE driver_id = 'd1' AND $1 <> ''"


@pytest.mark.parametrize("what", [BINDS, LEAVES], ids=["accepts another ride", "goes offline"])
async def test_who_changes_while_an_offer_waits_for_it_is_not_asked(bench: Bench, what: str) -> None:
    """The statement's own view of the world is from before it began to wait: what it sees of such a driver does not count."""
    await bench.driver("d1")
    other, ride = await bench.request(1), await bench.request(2)
    before = await bench.counts()
    async with bench.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("UPDATE matching.drivers SET version = version + 1 WHERE driver_id = 'd1'")
            await connection.execute(what, other.ride_id)
            offering = asyncio.create_task(bench.offer(ride, "d1"))
            await bench.somebody_waits()
        with pytest.raises(Conflict):
            await offering
    assert await bench.counts() == before | {"assignments": 1 if what is BINDS else 0}


@pytest.mark.parametrize(("column", "reason"), [("online", Reason.DRIVER_OFFLINE), ("suspended", Reason.DRIVER_SUSPENDED)])
async def test_who_accepts_while_going_is_refused_as_a_whole(bench: Bench, column: str, reason: Reason) -> None:
    """Given a driver whose going offline, or suspension, is being committed: the acceptance waits for it."""
    await bench.driver("d1")
    ride = await bench.offer(await bench.request(), "d1")
    before = await bench.counts()
    async with bench.pool.acquire() as connection, connection.transaction():
        await connection.execute(f"UPDATE matching.drivers SET version = version + 1, {column} = NOT {column}")  # noqa: S608
        accepting = asyncio.create_task(bench.happen(ride, OfferAccepted(ride.offers[0].offer_id)))
        await bench.somebody_waits()
    assert await refused(accepting) is reason
    assert await bench.counts() == before
    assert await bench.store.ride(ride.ride_id) == ride


async def test_a_release_that_waits_for_its_driver_frees_it(bench: Bench) -> None:
    """Given an operator who changes what is known of the driver at that moment."""
    await bench.driver("d1")
    ride = await bench.happen(await bench.offer(await bench.request(), "d1"), OfferAccepted("gridport-r1-1-d1"))
    async with bench.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE matching.drivers SET version = version + 1, rating_milli = 4900")
        await connection.execute("UPDATE matching.assignments SET checked_at_ms = 1")
        ending = asyncio.create_task(bench.happen(ride, RiderCancelled()))
        await bench.somebody_waits()
    await ending
    driver = await bench.store.driver(CITY, "d1")
    assert driver.free
    assert driver.rating_milli == 4_900
    assert await bench.pool.fetchval("SELECT released_at_ms IS NOT NULL FROM matching.assignments")


@pytest.mark.parametrize("quotes", ['"{}"', "»{}«", "« {} »"])
def test_a_refusal_is_known_in_any_language_of_postgresql(quotes: str) -> None:
    for refusal in Refusal:
        assert refusal_of("ungültige Eingabesyntax für Typ boolean: " + quotes.format(refusal)) is refusal
    assert refusal_of('invalid input syntax for type integer: "x"') is None


async def test_a_suspension_finds_every_offer_that_was_made_before_it(bench: Bench) -> None:
    """Given an offer whose change is under way: the suspension waits for it, and then it can be seen and withdrawn."""
    await bench.driver("d1")
    ride = await bench.request()
    offering = asyncio.create_task(bench.offer(ride, "d1"))
    suspending = asyncio.create_task(bench.suspended("d1", True))
    made, _ = await asyncio.gather(offering, suspending, return_exceptions=True)
    seen = await bench.store.live_offers(CITY, "d1", ())
    assert len(seen) == (0 if isinstance(made, Conflict) else 1)


async def test_the_fence_binds_a_driver_to_one_ride(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one who was asked while on a ride: the unique index holds by itself."""
    nobody = "asked_in_vain AS (SELECT {city} IS NULL AND {asked} IS NULL AS so)"
    monkeypatch.setattr(postgres_change, "NOT_ASKED_IN_VAIN", nobody)
    await bench.driver("d1")
    first = await bench.offer(await bench.request(1), "d1")
    await bench.happen(first, OfferAccepted(first.offers[0].offer_id))
    second = await bench.offer(await bench.request(2), "d1")
    before = await bench.counts()
    assert await refused(bench.happen(second, OfferAccepted(second.offers[0].offer_id))) is Reason.DRIVER_BUSY
    assert await bench.counts() == before
    assert await bench.store.ride(second.ride_id) == second


async def test_a_driver_holds_one_live_offer(bench: Bench) -> None:
    """Whatever became of the claims: of two searches that choose the same driver, the second chooses again."""
    await bench.driver("d1")
    first = await bench.offer(await bench.request(1), "d1")
    second = await bench.request(2)
    with pytest.raises(Conflict):
        await bench.offer(second, "d1")
    assert (await bench.store.ride(second.ride_id)).state is RideState.SEARCHING
    await bench.happen(first, RiderCancelled())
    assert (await bench.offer(second, "d1")).live_offers()


async def test_a_rider_has_one_active_ride(bench: Bench) -> None:
    first = await bench.request(1, rider_id="r")
    assert await refused(bench.request(2, rider_id="r")) is Reason.RIDER_BUSY
    await bench.happen(first, RiderCancelled())
    assert (await bench.request(2, rider_id="r")).state is RideState.SEARCHING


async def test_a_quote_is_used_once_while_its_ride_lives(bench: Bench) -> None:
    first = await bench.request(1, quote_id="gridport-q")
    assert await refused(bench.request(2, quote_id="gridport-q")) is Reason.QUOTE_USED
    await bench.happen(first, RiderCancelled())
    assert (await bench.request(2, quote_id="gridport-q")).state is RideState.SEARCHING


async def test_the_same_request_is_committed_once_even_if_two_come_at_once(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.request(n, rider_id="r", request=key("x")) for n in (1, 2)), return_exceptions=True)
    assert [type(a) for a in answers].count(RequestRepeated) == 1
    assert await bench.count("rides") == 1
    assert await bench.store.first_answer(key("x"), bench.now_ms) == b"first"
    assert await refused(bench.store.first_answer(key("x", b"another"), bench.now_ms)) is Reason.REQUEST_ID_REUSED


async def test_answers_are_forgotten_after_a_day(bench: Bench) -> None:
    await bench.request(1, request=key("x"))
    await bench.store.forget_old_requests(NOW_MS + DAY_MS - 1)
    assert await bench.store.first_answer(key("x"), NOW_MS + DAY_MS - 1) == b"first"
    assert await bench.store.first_answer(key("x"), NOW_MS + DAY_MS) is None
    await bench.store.forget_old_requests(NOW_MS + DAY_MS)
    assert await bench.count("requests") == 0


async def test_what_is_due_is_given_to_one_worker_until_its_lease_ends(bench: Bench) -> None:
    ride = await bench.request()
    one, other = await asyncio.gather(*(bench.store.lease_due(NOW_MS, LEASE_MS, 10) for _ in range(2)))
    assert [r.ride_id for r in one + other] == [ride.ride_id]
    assert await bench.store.lease_due(NOW_MS + LEASE_MS - 1, LEASE_MS, 10) == []
    assert await bench.store.lease_due(NOW_MS + LEASE_MS, LEASE_MS, 10) == [ride]


async def test_a_change_ends_the_lease(bench: Bench) -> None:
    """Who has acted hands the ride back: its next deadline is anybody's."""
    await bench.driver("d1")
    ride = await bench.request()
    await bench.store.lease_due(NOW_MS, 3_600_000, 10)
    ride = await bench.offer(ride, "d1")
    assert ride.next_deadline_ms is not None
    assert await bench.store.lease_due(ride.next_deadline_ms - 1, LEASE_MS, 10) == []
    assert await bench.store.lease_due(ride.next_deadline_ms, LEASE_MS, 10) == [ride]


async def test_many_that_are_due_are_shared_among_workers_each_once(bench: Bench) -> None:
    made = [await bench.request(n) for n in range(1, 21)]
    leased = await asyncio.gather(*(bench.store.lease_due(NOW_MS, LEASE_MS, 5) for _ in range(6)))
    ids = [ride.ride_id for batch in leased for ride in batch]
    assert len(ids) == len(set(ids))
    assert all(len(batch) <= 5 for batch in leased)
    rest = [ride.ride_id for ride in await bench.store.lease_due(NOW_MS, LEASE_MS, 100)]
    assert sorted(ids + rest) == sorted(ride.ride_id for ride in made)


async def test_a_ride_that_is_over_is_never_due(bench: Bench) -> None:
    ride = await bench.request()
    await bench.happen(ride, RiderCancelled())
    assert await bench.store.lease_due(NOW_MS + DAY_MS, LEASE_MS, 10) == []


async def test_a_ride_of_a_city_that_is_served_elsewhere_is_left_alone(bench: Bench) -> None:
    await bench.request()
    await bench.pool.execute("UPDATE matching.rides SET city_id = 'elsewhere'")
    assert await bench.store.lease_due(NOW_MS, LEASE_MS, 10) == []


async def assigned(bench: Bench, number: int) -> Ride:
    """A ride that a driver has accepted."""
    await bench.driver(f"d{number}")
    ride = await bench.offer(await bench.request(number), f"d{number}")
    return await bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))


async def test_a_driver_on_a_ride_is_due_for_a_look_a_period_after_accepting_and_after_each_look(bench: Bench) -> None:
    ride = await assigned(bench, 1)
    assert await bench.store.lease_checks(CITY, NOW_MS + PERIOD_MS - 1, PERIOD_MS, 10) == []
    (check,) = await bench.store.lease_checks(CITY, NOW_MS + PERIOD_MS, PERIOD_MS, 10)
    assert check == Check(ride.ride_id, DriverId("d1"), RideState.ACCEPTED, ride.version, ride.pickup, 0, None)
    assert await bench.store.lease_checks(CITY, NOW_MS + 2 * PERIOD_MS - 1, PERIOD_MS, 10) == []
    watch = Watch(ride.version, NOW_MS, "epoch", NOW_MS - 5, 12.5, NOW_MS - 9, 2)
    await bench.store.keep_watches([(check, watch)])
    (again,) = await bench.store.lease_checks(CITY, NOW_MS + 2 * PERIOD_MS, PERIOD_MS, 10)
    assert again == replace(check, watch=watch)
    assert (await bench.store.ride(ride.ride_id)).version == ride.version


async def test_many_looks_are_shared_among_workers_each_once_and_none_is_due_for_a_ride_that_is_over(bench: Bench) -> None:
    rides = [await assigned(bench, number) for number in range(1, 6)]
    await bench.happen(rides[0], RiderCancelled())
    leased = await asyncio.gather(*(bench.store.lease_checks(CITY, NOW_MS + PERIOD_MS, PERIOD_MS, 2) for _ in range(4)))
    assert sorted(check.ride_id for some in leased for check in some) == sorted(ride.ride_id for ride in rides[1:])
    check = next(check for some in leased for check in some)
    ride = await bench.store.ride(check.ride_id)
    await bench.happen(ride, DriverCancelled(check.driver_id))
    await bench.store.keep_watches([(check, Watch(1, NOW_MS, "epoch"))])
    assert await bench.pool.fetchval("SELECT count(*) FROM matching.assignments WHERE watch IS NOT NULL") == 0


async def test_a_ride_for_later_is_no_active_one_until_it_is_searched(bench: Bench) -> None:
    active = await bench.request(1, rider_id="r")
    later = replace(wanted(2, "r"), version=0, pickup_at_ms=NOW_MS + 7_200_000)
    decision = schedule(later, NOW_MS, PARAMS)
    await bench.store.commit(Change(None, decision, "rider/r"))
    waiting = await bench.store.ride(later.ride_id)
    assert waiting == decision.ride
    assert await bench.store.lease_due(NOW_MS, LEASE_MS, 10) == [active]
    bench.now_ms = later.pickup_at_ms
    assert await refused(bench.happen(waiting, DeadlinePassed())) is Reason.RIDER_BUSY
    await bench.happen(active, RiderCancelled())
    assert (await bench.happen(waiting, DeadlinePassed())).state is RideState.SEARCHING


async def test_events_are_written_with_their_change_in_the_partition_of_their_day(bench: Bench) -> None:
    await bench.driver("d1")
    ride = await bench.offer(await bench.request(), "d1")
    written = await bench.pool.fetch(
        "SELECT tableoid::regclass::text AS day, version, index, kind, envelope FROM matching.outbox "
        "WHERE aggregate_id = $1 ORDER BY position",
        ride.ride_id,
    )
    assert {row["day"] for row in written} == {"matching.outbox_20130101"}
    assert [(row["version"], row["index"], row["kind"]) for row in written] == [(1, 0, "RIDE_REQUESTED"), (2, 0, "OFFERS_MADE")]
    assert event_pb2.Envelope.FromString(written[1]["envelope"]).offers_made.offers[0].driver_id == "d1"


async def test_an_event_of_a_day_for_which_nobody_made_a_partition_is_kept_and_moves_there_later(bench: Bench) -> None:
    """Given a machine that slept for days: the first events after that are caught, and the day is made all the same."""
    bench.now_ms = NOW_MS + 10 * DAY_MS
    await bench.request()
    assert await bench.count("outbox_default") == 1
    await ensure_outbox_days(bench.pool, bench.now_ms)
    await ensure_outbox_days(bench.pool, bench.now_ms)
    assert await bench.count("outbox_default") == 0
    assert await bench.count("outbox_20130111") == 1
    await bench.request(2)
    assert await bench.count("outbox_20130111") == 2


async def test_many_may_make_the_days_at_once(bench: Bench) -> None:
    later_ms = NOW_MS + 20 * DAY_MS
    await asyncio.gather(*(ensure_outbox_days(bench.pool, later_ms) for _ in range(5)))
    days = await bench.pool.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'matching.outbox'::regclass")
    assert days == 1 + 2 + 2


async def test_open_pickups_are_those_of_rides_that_nobody_has_accepted(bench: Bench) -> None:
    await bench.driver("d1")
    searched, offered = await bench.request(1), await bench.request(2)
    offered = await bench.offer(offered, "d1")
    assert await bench.store.open_pickups(CITY) == [searched.pickup, offered.pickup]
    await bench.happen(offered, OfferAccepted(offered.offers[0].offer_id))
    assert await bench.store.open_pickups(CITY) == [searched.pickup]


async def test_a_drivers_live_offers_and_those_it_was_shown(bench: Bench) -> None:
    await bench.driver("d1")
    first = await bench.offer(await bench.request(1), "d1")
    shown = first.offers[0].offer_id
    assert [offer.offer_id for _, offer in await bench.store.live_offers(CITY, "d1", ())] == [shown]
    bench.now_ms += 5_000
    await bench.happen(first, DeadlinePassed())
    assert await bench.store.live_offers(CITY, "d1", ()) == []
    ((_, closed),) = await bench.store.live_offers(CITY, "d1", [shown])
    assert closed.state is OfferState.EXPIRED


async def test_a_record_in_postgresql_is_what_the_rule_makes_of_the_same_answers(bench: Bench) -> None:
    """Given three drivers who are asked six times: one mostly accepts, one ignores what it sees, one is shown none."""
    for driver_id in ("takes", "looks", "deaf"):
        await bench.driver(driver_id)
    expected = {"takes": Record(), "looks": Record(), "deaf": Record()}
    for number in range(1, 7):
        ride = await bench.offer(await bench.request(number), "takes", "looks", "deaf")
        takes, looks = (offer.offer_id for offer in ride.offers[:2])
        ride = await bench.happen(await bench.happen(ride, OfferShown(takes)), OfferShown(looks))
        if number % 3:
            ride = await bench.happen(ride, OfferAccepted(takes))
            expected["takes"] = after(expected["takes"], Answer.ACCEPTED, RecordParams())
            if number == 5:
                ride = await bench.happen(ride, DriverCancelled("takes"))
                expected["takes"] = after(expected["takes"], Answer.GIVEN_BACK, RecordParams())
        else:
            bench.now_ms += 5_000
            ride = await bench.happen(ride, DeadlinePassed())
            for driver_id in ("takes", "looks"):
                expected[driver_id] = after(expected[driver_id], Answer.NOT_TAKEN, RecordParams())
        await bench.happen(ride, RiderCancelled())
    kept = await bench.store.drivers(CITY, list(expected))
    assert {driver_id: driver.record for driver_id, driver in kept.items()} == expected
    assert expected["deaf"] == Record()
    assert 0 < expected["looks"].shown_milli < expected["takes"].shown_milli


async def test_a_driver_is_free_since_it_went_online_or_was_released_last(bench: Bench) -> None:
    await bench.driver("d1")
    bench.now_ms += 1_000
    assert (await bench.online("d1", True)).free_since_ms == NOW_MS
    ride = await bench.offer(await bench.request(), "d1")
    ride = await bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))
    assert not (await bench.store.driver(CITY, "d1")).free
    bench.now_ms += 1_000
    await bench.happen(ride, RiderCancelled())
    assert (await bench.store.driver(CITY, "d1")).free_since_ms == bench.now_ms
    await bench.online("d1", False)
    bench.now_ms += 1_000
    assert (await bench.online("d1", True)).free_since_ms == bench.now_ms


async def test_a_driver_on_a_ride_is_told_of_even_when_it_has_gone_offline(bench: Bench) -> None:
    for driver_id in ("busy", "free", "home"):
        await bench.driver(driver_id)
    ride = await bench.offer(await bench.request(), "busy")
    await bench.happen(ride, OfferAccepted(ride.offers[0].offer_id))
    for driver_id in ("busy", "home"):
        await bench.online(driver_id, False)
    pages = [page async for page in bench.store.drivers_to_tell(CITY, bench.now_ms + 1)]
    assert [(d.driver_id, d.ride_id) for page in pages for d in page] == [("busy", ride.ride_id), ("free", "")]
    changed = [page async for page in bench.store.drivers_to_tell(CITY, bench.now_ms)]
    assert [d.driver_id for page in changed for d in page] == ["busy", "free", "home"]


async def test_a_riders_rides_come_newest_first_and_page_by_page(bench: Bench) -> None:
    for number in range(1, 6):
        ride = await bench.request(number, rider_id="r")
        await bench.happen(ride, RiderCancelled())
    first = await bench.store.rides_of_rider(CITY, "r", "", 2)
    rest = await bench.store.rides_of_rider(CITY, "r", first[-1].ride_id, 10)
    assert [ride.ride_id[-1] for ride in first + rest] == ["5", "4", "3", "2", "1"]


@pytest.mark.parametrize("change", ["offline", "suspended", "made known again"])
async def test_a_driver_changed_while_its_ride_ends_is_told_as_it_is_afterwards(bench: Bench, change: str) -> None:
    """Given a change that has to wait for the driver's row: its version is the newest, and so must be what is said with it.

    Location takes no other word of that version: a driver said to be on a ride that has ended would never be found again.
    """
    await bench.driver("d1")
    ride = await bench.happen(await bench.offer(await bench.request(), "d1"), OfferAccepted("gridport-r1-1-d1"))
    assert ride.assignment is not None
    changes = {
        "offline": lambda: bench.online("d1", False),
        "suspended": lambda: bench.suspended("d1", True),
        "made known again": lambda: bench.store.upsert_driver(
            CITY, "d1", ["economy"], 4_600, "operator/o1", key("again"), lambda _: b"", bench.now_ms
        ),
    }
    async with bench.pool.acquire() as connection:
        ending = connection.transaction()
        await ending.start()
        await connection.execute("UPDATE matching.assignments SET released_at_ms = $1", bench.now_ms)
        await connection.execute("UPDATE matching.drivers SET version = version + 1")
        changing = asyncio.create_task(changes[change]())
        await bench.somebody_waits()
        await ending.commit()
    driver = await changing
    assert driver.ride_id == ""
    assert driver == await bench.store.driver(CITY, "d1")


async def test_postgresql_that_does_not_answer_is_an_outage_not_an_empty_answer(bench: Bench) -> None:
    await bench.pool.close()
    for question in (
        bench.store.ride("gridport-r1"),
        bench.store.drivers(CITY, ["d1"]),
        bench.store.open_pickups(CITY),
        bench.store.lease_due(NOW_MS, LEASE_MS, 10),
    ):
        assert await refused(question) is Reason.STORE_UNAVAILABLE


async def test_a_deadlock_that_postgresql_broke_is_a_conflict_and_a_defect_of_ours_no_outage() -> None:
    with pytest.raises(Conflict):
        async with postgres_errors():
            raise asyncpg.DeadlockDetectedError("broken")
    with pytest.raises(asyncpg.InterfaceError):
        async with postgres_errors():
            raise _Unfit("a text where a number belongs")


async def test_a_connection_over_which_postgresql_has_said_goodbye_is_an_outage() -> None:
    """As asyncpg has it, it is then in the midst of another operation, until it is closed a moment later."""
    with pytest.raises(DomainError) as raised:
        async with postgres_errors():
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    assert raised.value.reason is Reason.STORE_UNAVAILABLE


class _Unfit(asyncpg.InterfaceError, ValueError):
    """As asyncpg says that a value does not fit a statement."""
