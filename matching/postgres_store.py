"""Rides and drivers in PostgreSQL: the truth. One transaction per change, conditional on the version that was decided upon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from hexhail.kernel.errors import DomainError, Reason
from hexhail.kernel.geo import Place
from hexhail.kernel.units import MS_PER_S
from matching import postgres_statements as sql
from matching.model import OPEN, FactKind, Offer, OfferState, Ride, RideState
from matching.records import Answer, RecordParams, answers, step
from matching.rows import check_of, driver_of, offer_of, ride_body, ride_of, watch_body
from matching.store import Change, Conflict, Driver, RequestKey, RequestRepeated, Stats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from hexhail.cities import Cities
    from hexhail.kernel.ids import CityId, DriverId, OfferId, RideId
    from matching.progress import Check, Watch

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    EncodeRideEvents = Callable[[Change], list[tuple[str, bytes]]]
    EncodeDriverEvent = Callable[[Driver, str, int, str, str], bytes]

REPEATS_KEPT_MS = 24 * 3600 * MS_PER_S
_PAGE = 1_000

_REQUEST_COLUMNS, _OFFER_COLUMNS, _EVENT_COLUMNS = 6, 9, 3

_UNIQUE: dict[str, Reason] = {
    "rides_one_active_per_rider": Reason.RIDER_BUSY,
    "rides_quote_used_once": Reason.QUOTE_USED,
    "assignments_one_active_per_slot": Reason.DRIVER_BUSY,
}
"""Unique index -> what it means that it refused."""


@dataclass(slots=True)
class StoreCounts:
    """What the fence did."""

    commits: int = 0
    rejected_commits: int = 0
    """Changes that reached PostgreSQL and were refused there, by version or by index."""


_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a server that ends says so to idle connections, and asyncpg then takes them for busy ones
    OSError,
)


@asynccontextmanager
async def postgres_errors() -> AsyncIterator[None]:
    """Around a call to PostgreSQL: that it does not answer becomes STORE_UNAVAILABLE, that others were first Conflict.

    Refusals come through as they are, and so do defects of ours: values that do not fit a statement are not an outage.
    """
    try:
        yield
    except asyncpg.TransactionRollbackError as error:  # a deadlock broken, a serialization lost
        raise Conflict(str(error)) from error
    except _AWAY as error:
        if isinstance(error, ValueError):
            raise
        raise DomainError(Reason.STORE_UNAVAILABLE, f"PostgreSQL does not answer: {error}", store="postgres") from error


class PostgresStore:
    """Rides and drivers."""

    def __init__(
        self,
        pool: Pool,
        cities: Cities,
        encode_ride_events: EncodeRideEvents,
        encode_driver_event: EncodeDriverEvent,
        records: Mapping[CityId, RecordParams] | None = None,
    ) -> None:
        self._pool = pool
        self._city_ids = [city.city_id for city in cities]
        self._encode_ride_events = encode_ride_events
        self._encode_driver_event = encode_driver_event
        self._records = records or {city.city_id: RecordParams() for city in cities}
        self.counts = StoreCounts()
        self.on_commit: Callable[[CityId], None] = lambda _city_id: None
        """Called when events of a city have been committed here."""

    async def ride(self, ride_id: str) -> Ride:
        """The ride as it is. Raises RIDE_NOT_FOUND, STORE_UNAVAILABLE."""
        rides = await self._rides(sql.RIDES, [ride_id])
        if not rides:
            raise DomainError(Reason.RIDE_NOT_FOUND, ride_id=ride_id)
        return rides[0]

    async def ride_of_offer(self, offer_id: str) -> Ride:
        """The ride that an offer is for. Raises OFFER_NOT_FOUND, STORE_UNAVAILABLE."""
        rides = await self._rides(sql.RIDE_OF_OFFER, offer_id)
        if not rides:
            raise DomainError(Reason.OFFER_NOT_FOUND, offer_id=offer_id)
        return rides[0]

    async def rides_of_rider(self, city_id: CityId, rider_id: str, before: str, limit: int) -> list[Ride]:
        """A rider's rides whose id sorts before `before` (empty: all), newest first. Raises STORE_UNAVAILABLE."""
        return await self._rides(sql.RIDES_OF_RIDER, city_id, rider_id, before, limit)

    async def versions(self, ride_ids: Sequence[str]) -> dict[str, int]:
        """At which version is each of these rides? Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return {row["ride_id"]: row["version"] for row in await connection.fetch(sql.VERSIONS, list(ride_ids))}

    async def _rides(self, statement: str, *values: object) -> list[Ride]:
        async with postgres_errors(), self._pool.acquire() as connection:
            return [ride_of(row) for row in await connection.fetch(statement, *values)]

    async def commit(self, change: Change) -> list[Driver]:
        """Makes a decision true, or none of it; gives the drivers whose state it changed.

        Raises Conflict, RequestRepeated, RIDER_BUSY, QUOTE_USED, DRIVER_BUSY, DRIVER_OFFLINE, DRIVER_SUSPENDED,
        STORE_UNAVAILABLE.
        """
        self.counts.commits += 1
        try:
            async with postgres_errors(), self._pool.acquire() as connection:
                if not self._has_more(change):
                    await self._make_true(connection, change)
                    touched = []
                else:
                    async with connection.transaction():
                        touched = await self._commit(connection, change)
        except Conflict:
            self.counts.rejected_commits += 1
            raise
        except asyncpg.UniqueViolationError as error:
            self.counts.rejected_commits += 1
            reason = _UNIQUE.get(error.constraint_name or "")
            if reason is None:
                raise Conflict(error.constraint_name) from error
            raise DomainError(reason, ride_id=change.decision.ride.ride_id) from None
        self.on_commit(change.decision.ride.city_id)
        return touched

    def _has_more(self, change: Change) -> bool:
        """Does it touch drivers too? All else is one statement."""
        known = {offer.offer_id for offer in change.before.offers} if change.before else set()
        made = any(offer.offer_id not in known for offer in change.decision.ride.offers)
        bound = any(fact.kind in (FactKind.ASSIGNMENT_BEGAN, FactKind.ASSIGNMENT_ENDED) for fact in change.decision.facts)
        return made or bound or change.restores or bool(answers(change.before, change.decision))

    async def _make_true(self, connection: Connection, change: Change) -> None:
        """The ride, its offers, its events and the answer to its request. Raises Conflict, RequestRepeated."""
        ride, at_ms, answered = change.decision.ride, change.decision.ride.updated_at_ms, change.answered()
        if change.before is None:
            statement, first = sql.INSERT_RIDE, _insert_values(ride, change.leased_until_ms)
        else:
            statement, first = sql.UPDATE_RIDE, _update_values(change.before, ride, change.leased_until_ms)
        events = self._encode_ride_events(change)
        try:
            await connection.fetchval(
                sql.whole_change(statement, len(first)),
                *first,
                *(ride.city_id, ride.ride_id, ride.version, at_ms, at_ms - REPEATS_KEPT_MS),
                *_columns([_request_values(request, answer, at_ms) for request, answer in answered], _REQUEST_COLUMNS),
                *_columns([_offer_values(offer) for offer in _changed_offers(change)], _OFFER_COLUMNS),
                *_columns([(index, kind, envelope) for index, (kind, envelope) in enumerate(events)], _EVENT_COLUMNS),
            )
        except asyncpg.InvalidTextRepresentationError as refusal:
            if answered and sql.REPEATED in str(refusal):
                raise RequestRepeated(", ".join(request.request_id for request, _ in answered)) from None
            if change.before is not None and sql.CHANGED in str(refusal):
                raise Conflict(f"{ride.ride_id} is no longer at version {change.before.version}") from None
            raise

    async def _commit(self, connection: Connection, change: Change) -> list[Driver]:
        ride = change.decision.ride
        await self._make_true(connection, change)
        asked = [offer.driver_id for offer in _changed_offers(change) if offer.state is OfferState.LIVE]
        if asked and await connection.fetchval(sql.ANY_ASSIGNED_OR_GONE, ride.city_id, asked):
            raise Conflict("a driver to be asked has accepted another ride or gone meanwhile")
        touched = await self._change_drivers(connection, change)
        if change.restores and ride.assignment is not None:
            driver_id, accepted_at_ms = ride.assignment.driver_id, ride.assignment.accepted_at_ms
            await connection.execute(sql.INSERT_ASSIGNMENT, ride.city_id, driver_id, ride.ride_id, accepted_at_ms)
            touched += await _touch_released(connection, ride, driver_id)
        return touched

    async def _change_drivers(self, connection: Connection, change: Change) -> list[Driver]:
        """Assignments and records, as the change leaves them; the drivers whose state is another one."""
        ride, params = change.decision.ride, self._records[change.decision.ride.city_id]
        given: dict[Answer, list[str]] = {}
        for driver_id, answer in answers(change.before, change.decision):
            given.setdefault(answer, []).append(driver_id)
        given.pop(Answer.ACCEPTED, None)  # counted where the driver is bound to the ride
        for answer, driver_ids in given.items():
            values = _step_values(answer, params)
            await connection.execute(sql.RECORD_ANSWER, ride.city_id, driver_ids, ride.updated_at_ms, *values)
        return await _change_assignments(connection, change, params)

    async def lease_due(self, now_ms: int, lease_ms: int, limit: int, ride_id: str | None = None) -> list[Ride]:
        """Rides (or this one) whose deadline has come and that no other worker has in hand. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.LEASE_DUE, now_ms, now_ms + lease_ms, limit, ride_id, self._city_ids)
        return await self._rides(sql.RIDES, [row["ride_id"] for row in rows]) if rows else []

    async def keep_leased(self, held: Sequence[Ride], until_ms: int) -> None:
        """Leases for longer those of these rides that have not changed since. Raises STORE_UNAVAILABLE."""
        ids, versions = [ride.ride_id for ride in held], [ride.version for ride in held]
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.KEEP_LEASED, ids, versions, until_ms)

    async def contradictory(self, city_id: CityId, limit: int) -> list[tuple[Ride, DriverId | None]]:
        """Rides that contradict their offers, their assignment or their deadline, each with the driver bound to it.

        Raises STORE_UNAVAILABLE.
        """
        async with postgres_errors(), self._pool.acquire() as connection:
            return [(ride_of(row), row["bound"]) for row in await connection.fetch(sql.CONTRADICTORY, city_id, limit)]

    async def offers_to_gone(self, city_id: CityId, gone_at_ms: int) -> list[OfferId]:
        """Live offers to drivers who have been offline or suspended since then, at the latest. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [row["offer_id"] for row in await connection.fetch(sql.OFFERS_TO_GONE, city_id, gone_at_ms)]

    async def cut_leases(self, city_id: CityId, now_ms: int, latest_ms: int) -> int:
        """Ends leases of rides that are due, which end later than that; how many? Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            done = await connection.execute(sql.CUT_LEASES, city_id, now_ms, latest_ms)
        return int(done.rpartition(" ")[2])

    async def all_live_offers(self, city_id: CityId) -> list[tuple[DriverId, OfferId, RideId]]:
        """Every live offer of a city. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(sql.ALL_LIVE_OFFERS, city_id)]

    async def open_pickups(self, city_id: CityId) -> list[Place]:
        """Where riders wait whom nobody has accepted yet. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.OPEN_PICKUPS, city_id)
        return [Place(row["pickup_lat"], row["pickup_lng"]) for row in rows]

    async def lease_checks(self, city_id: CityId, now_ms: int, period_ms: int, limit: int) -> list[Check]:
        """Rides whose driver nobody has looked at for a period, nor accepted within it. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            return [check_of(row) for row in await connection.fetch(sql.LEASE_CHECKS, city_id, now_ms, now_ms - period_ms, limit)]

    async def keep_watches(self, watches: Sequence[tuple[Check, Watch]]) -> None:
        """What is remembered until the next check. Raises STORE_UNAVAILABLE."""
        columns = (
            [check.ride_id for check, _ in watches],
            [check.driver_id for check, _ in watches],
            [watch_body(watch) for _, watch in watches],
        )
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.KEEP_WATCHES, *columns)

    async def live_offers(self, city_id: CityId, driver_id: str, and_these: Sequence[str]) -> list[tuple[Ride, Offer]]:
        """A driver's live offers, and those of `and_these` in whatever state. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            offers = await connection.fetch(sql.OFFERS_OF_DRIVER, city_id, driver_id, list(and_these))
            if not offers:
                return []
            rows = await connection.fetch(sql.RIDES, [offer["ride_id"] for offer in offers])
        rides = {row["ride_id"]: ride_of(row) for row in rows}
        return [(rides[offer["ride_id"]], offer_of(offer)) for offer in offers]

    async def first_answer(self, request: RequestKey, now_ms: int) -> bytes | None:
        """What this request was answered in the last 24 h; None for a new one. Raises REQUEST_ID_REUSED, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            row = await connection.fetchrow(
                sql.FIRST_ANSWER, request.city_id, request.actor, request.request_id, now_ms - REPEATS_KEPT_MS
            )
        if row is None:
            return None
        if row["body_digest"] != request.body_digest:
            raise DomainError(
                Reason.REQUEST_ID_REUSED, "this request_id came before with another body", request_id=request.request_id
            )
        answer: bytes = row["answer"]
        return answer

    async def keep_answer(self, request: RequestKey, answer: bytes, now_ms: int) -> None:
        """What a request is told that changes nothing, for its repeats. Raises RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            await _keep_answer(connection, request, answer, now_ms)

    async def forget_old_requests(self, now_ms: int) -> None:
        """Drops answers that no repeat will be given any more. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            await connection.execute(sql.FORGET_REQUESTS, now_ms - REPEATS_KEPT_MS)

    async def driver(self, city_id: CityId, driver_id: str) -> Driver:
        """Raises DRIVER_NOT_FOUND, STORE_UNAVAILABLE."""
        found = await self.drivers(city_id, [driver_id])
        if driver_id not in found:
            raise DomainError(Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
        return found[driver_id]

    async def drivers(self, city_id: CityId, driver_ids: Sequence[str]) -> dict[str, Driver]:
        """Those of them that are known. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            rows = await connection.fetch(sql.DRIVERS, city_id, list(driver_ids))
        return {row["driver_id"]: driver_of(row) for row in rows}

    async def upsert_driver(
        self,
        city_id: CityId,
        driver_id: str,
        capabilities: Sequence[str],
        rating_milli: int,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """Makes a driver known, or changes what is known. Raises RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            (row,) = await connection.fetch(sql.UPSERT_DRIVER, city_id, driver_id, list(capabilities), rating_milli, now_ms)
            driver = await self._driver_changed(connection, driver_of(row), "DRIVER_UPSERTED", actor, request, answer, now_ms)
        self.on_commit(city_id)
        return driver

    async def set_online(
        self,
        city_id: CityId,
        driver_id: str,
        online: bool,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """Raises DRIVER_NOT_FOUND, DRIVER_SUSPENDED, RequestRepeated, STORE_UNAVAILABLE."""
        kind = "DRIVER_WENT_ONLINE" if online else "DRIVER_WENT_OFFLINE"
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            row = await connection.fetchrow(sql.SET_ONLINE, city_id, driver_id, online, now_ms)
            if row is None:
                known = await connection.fetchrow(sql.DRIVERS, city_id, [driver_id])
                raise DomainError(Reason.DRIVER_SUSPENDED if known else Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
            driver = await self._driver_changed(connection, driver_of(row), kind, actor, request, answer, now_ms)
        self.on_commit(city_id)
        return driver

    async def set_suspended(
        self,
        city_id: CityId,
        driver_id: str,
        suspended: bool,
        reason: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
    ) -> Driver:
        """No more offers for a driver, or offers again. Raises DRIVER_NOT_FOUND, RequestRepeated, STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute(sql.LOCK_DRIVER, city_id, driver_id)
            row = await connection.fetchrow(sql.SET_SUSPENDED, city_id, driver_id, suspended, now_ms)
            if row is None:
                raise DomainError(Reason.DRIVER_NOT_FOUND, driver_id=driver_id)
            return await self._driver_changed(
                connection, driver_of(row), "DRIVER_SUSPENDED", actor, request, answer, now_ms, reason
            )

    async def stats(self, city_id: CityId, now_ms: int) -> Stats:
        """How the city stands. Raises STORE_UNAVAILABLE."""
        async with postgres_errors(), self._pool.acquire() as connection:
            (drivers,) = await connection.fetch(sql.DRIVER_STATS, city_id)
            rows = await connection.fetch(sql.RIDE_STATS, city_id, now_ms)
        waiting = [row for row in rows if RideState(row["state"]) in OPEN]
        count = sum(row["rides"] for row in waiting)
        return Stats(
            drivers_online=drivers["online"],
            drivers_available=drivers["available"],
            rides={RideState(row["state"]): row["rides"] for row in rows},
            waited_mean_s=sum(row["waited_ms"] for row in waiting) / count / MS_PER_S if count else 0.0,
            waited_max_s=max((row["longest_ms"] for row in waiting), default=0) / MS_PER_S,
        )

    async def drivers_to_tell(self, city_id: CityId, changed_since_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that is online, on a ride, or changed since then, in pages. Raises STORE_UNAVAILABLE."""
        async for page in self._paged(sql.DRIVERS_TO_TELL, city_id, changed_since_ms):
            yield page

    async def drivers_changed(self, city_id: CityId, from_ms: int, until_ms: int) -> AsyncIterator[list[Driver]]:
        """Every driver that changed last between these times, in pages. Raises STORE_UNAVAILABLE."""
        async for page in self._paged(sql.DRIVERS_CHANGED, city_id, from_ms, until_ms):
            yield page

    async def _paged(self, statement: str, city_id: CityId, *values: int) -> AsyncIterator[list[Driver]]:
        last = ""
        while True:
            async with postgres_errors(), self._pool.acquire() as connection:
                rows = await connection.fetch(statement, city_id, last, _PAGE, *values)
            if rows:
                yield [driver_of(row) for row in rows]
            if len(rows) < _PAGE:
                return
            last = rows[-1]["driver_id"]

    async def _driver_changed(
        self,
        connection: Connection,
        driver: Driver,
        kind: str,
        actor: str,
        request: RequestKey,
        answer: Callable[[Driver], bytes],
        now_ms: int,
        note: str = "",
    ) -> Driver:
        envelope = self._encode_driver_event(driver, kind, now_ms, actor, note)
        await connection.execute(sql.INSERT_EVENT, driver.city_id, driver.driver_id, driver.version, 0, now_ms, kind, envelope)
        await _keep_answer(connection, request, answer(driver), now_ms)
        return driver


def _step_values(answer: Answer, params: RecordParams) -> tuple[float, int, int]:
    change = step(answer, params)
    return change.keep, change.shown_gain_milli, change.accepted_gain_milli


async def _change_assignments(connection: Connection, change: Change, records: RecordParams) -> list[Driver]:
    ride, touched = change.decision.ride, []
    for fact in change.decision.facts:
        if fact.kind is FactKind.ASSIGNMENT_BEGAN:
            await connection.execute(sql.INSERT_ASSIGNMENT, ride.city_id, fact.driver_id, ride.ride_id, ride.updated_at_ms)
            step_values = _step_values(Answer.ACCEPTED, records)
            row = await connection.fetchrow(
                sql.TOUCH_ACCEPTING_DRIVER, ride.city_id, fact.driver_id, ride.updated_at_ms, *step_values
            )
            if row is None:
                row = await connection.fetchrow(sql.DRIVERS, ride.city_id, [fact.driver_id])
                suspended = row is not None and row["suspended"]
                raise DomainError(Reason.DRIVER_SUSPENDED if suspended else Reason.DRIVER_OFFLINE, driver_id=fact.driver_id)
            touched.append(driver_of(row))
        elif fact.kind is FactKind.ASSIGNMENT_ENDED:
            reason = fact.release_reason.value if fact.release_reason else None
            await connection.execute(
                sql.RELEASE_ASSIGNMENT, ride.city_id, fact.driver_id, ride.ride_id, ride.updated_at_ms, reason
            )
            touched += await _touch_released(connection, ride, fact.driver_id)
    return touched


async def _touch_released(connection: Connection, ride: Ride, driver_id: str) -> list[Driver]:
    rows = await connection.fetch(sql.TOUCH_RELEASED_DRIVER, ride.city_id, driver_id, ride.updated_at_ms)
    return [driver_of(row) for row in rows]


async def _keep_answer(connection: Connection, request: RequestKey, answer: bytes, now_ms: int) -> None:
    values = _request_values(request, answer, now_ms)
    done = await connection.execute(sql.INSERT_REQUEST, *values, now_ms - REPEATS_KEPT_MS)
    if done != "INSERT 0 1":
        raise RequestRepeated(request.request_id)


def _request_values(request: RequestKey, answer: bytes, now_ms: int) -> tuple[object, ...]:
    return request.city_id, request.actor, request.request_id, request.body_digest, answer, now_ms


def _changed_offers(change: Change) -> list[Offer]:
    """By driver, so that two rides with the same drivers wait for each other in the same order and never in a circle."""
    known = set(change.before.offers) if change.before else set()
    return sorted((offer for offer in change.decision.ride.offers if offer not in known), key=lambda offer: offer.driver_id)


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> list[tuple[object, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * count


def _update_values(before: Ride, ride: Ride, leased_until_ms: int) -> tuple[object, ...]:
    state, body = ride.state.value, ride_body(ride)
    return ride.ride_id, before.version, state, ride.version, ride.updated_at_ms, ride.next_deadline_ms, body, leased_until_ms


def _insert_values(ride: Ride, leased_until_ms: int) -> tuple[object, ...]:
    return (
        ride.ride_id,
        ride.city_id,
        ride.rider_id,
        ride.quote.quote_id,
        ride.state.value,
        ride.version,
        ride.pickup.lat,
        ride.pickup.lng,
        ride.requested_at_ms,
        ride.updated_at_ms,
        ride.next_deadline_ms,
        ride_body(ride),
        leased_until_ms,
    )


def _offer_values(offer: Offer) -> tuple[object, ...]:
    return (
        offer.offer_id,
        offer.driver_id,
        offer.phase,
        offer.state.value,
        offer.made_at_ms,
        offer.expires_at_ms,
        offer.shown_at_ms,
        offer.pickup_eta_s,
        offer.pickup_distance_m,
    )
